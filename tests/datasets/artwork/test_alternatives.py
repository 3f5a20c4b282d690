"""Captions that differ in one respect."""

from unclip.data.sample import Sample
from unclip.datasets.artwork.alternatives import alternatives as alternatives_of
from unclip.datasets.artwork.captions import STYLE_PHRASES
from unclip.datasets.artwork.colours import PALETTE


def sample(caption: str, **meta: object) -> Sample:
    return Sample("key", (caption,), 1.0, meta)


def alternatives(given: Sample) -> dict[str, tuple[str, ...]]:
    """Of its first caption."""
    return alternatives_of(given, given.captions[0])


def test_styles():
    found = alternatives(sample("an owl, noto style", style="noto", kind="plain"))
    assert list(found) == ["style"]
    assert found["style"][0] == "an owl, noto style"
    assert set(found["style"][1:]) == {
        "an owl, 3d style", "an owl, flat style", "an owl, twemoji style", "an owl, emojione style",
    }  # fmt: skip
    assert len(found["style"]) == len(STYLE_PHRASES)


def test_colours_take_their_article_along():
    found = alternatives(sample("a red hedgehog, flat style", style="flat", kind="recolour", recoloured=True))
    assert len(found["colour"]) == len(PALETTE)
    assert found["colour"][0] == "a red hedgehog, flat style"
    assert "an orange hedgehog, flat style" in found["colour"]
    assert found["colour"].count("a red hedgehog, flat style") == 1


def test_pairs_change_places_and_colours():
    caption = "an orange cat to the left of a red car, 3d style"
    found = alternatives(sample(caption, style="3d", kind="pair", relation="left"))
    assert found["arrangement"] == (caption, "a red car to the left of an orange cat, 3d style")
    assert found["binding"] == (caption, "a red cat to the left of an orange car, 3d style")


def test_binding_needs_two_different_colours():
    for caption in ("a cat above a red car, 3d style", "a red cat above a red car, 3d style"):
        assert "binding" not in alternatives(sample(caption, style="3d", kind="pair", relation="above"))


def test_other_data_sets_have_none():
    assert alternatives(sample("a photo of a cat")) == {}
    assert alternatives(sample("a small red circle", style="shapes", kind="plain")) == {}


def test_another_caption_is_asked_as_it_is():
    given = Sample(
        "key", ("an owl, noto style", "a night bird, noto style", "an owl"), 1.0, {"style": "noto"}
    )
    found = alternatives_of(given, "a night bird, noto style")
    assert found["style"][0] == "a night bird, noto style"
    assert "a night bird, 3d style" in found["style"]
    assert alternatives_of(given, "an owl") == {}
