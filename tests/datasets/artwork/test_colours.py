"""Colour names, measuring drawings, and recolouring SVG markup."""

import numpy as np
import pytest

from unclip.datasets.artwork import canvas
from unclip.datasets.artwork.colours import (
    PALETTE,
    map_colours,
    measure,
    name_of,
    parse,
    recolouring,
    to_oklch,
    to_rgb,
)


def test_oklch_of_known_colours():
    # From Ottosson's page: white is (1, 0, any), and sRGB red has L 0.6280, C 0.2577, h 29.23 degrees.
    np.testing.assert_allclose(to_oklch(parse("#ffffff"))[:2], [1, 0], atol=1e-6)
    np.testing.assert_allclose(to_oklch(parse("#ff0000")), [0.6280, 0.2577, 29.23], atol=5e-3)


def test_oklch_inverts():
    rgb = np.random.default_rng(0).random((100, 3))
    np.testing.assert_allclose(to_rgb(to_oklch(rgb)), rgb, atol=1e-6)


def test_palette_has_its_own_names():
    assert {word: name_of(*to_oklch(parse(colour))) for word, colour in PALETTE.items()} == {
        word: word for word in PALETTE
    }


@pytest.mark.parametrize(
    ("colour", "word"),
    [("#ffffff", "white"), ("#000000", "black"), ("#808080", "grey"), ("#dd2e44", "red"), ("#ffcc4d", "yellow"),
     ("#55acee", "blue"), ("#78b159", "green"), ("#aa8dd8", "purple"), ("#8b5e3c", "brown"), ("#ffc0cb", "pink")],
)  # fmt: skip
def test_names(colour, word):
    assert name_of(*to_oklch(parse(colour))) == word


def drawn(body: str) -> np.ndarray:
    return canvas.pixels(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">{body}</svg>', 64)


APPLE = (
    '<circle cx="16" cy="16" r="12" fill="#d8232a" stroke="#222222"/><path d="M15 1h2v6h-2z" fill="#3c9f3c"/>'
)


def test_measure():
    palette = measure(drawn(APPLE))
    assert palette is not None
    assert palette.name == "red"
    assert palette.recolourable
    assert palette.share > 0.9
    np.testing.assert_allclose(palette.box, (0.11, 0.03, 0.89, 0.89), atol=0.02)


def test_many_colours_have_no_name():
    stripes = "".join(
        f'<rect x="{8 * i}" width="8" height="32" fill="{colour}"/>'
        for i, colour in enumerate(("#dd2222", "#22aa22", "#2222dd", "#ddcc22"))
    )
    palette = measure(drawn(stripes))
    assert palette is not None
    assert palette.name is None
    assert not palette.recolourable


def test_empty_drawing():
    assert measure(drawn("")) is None


@pytest.mark.parametrize("target", [word for word in PALETTE if word not in ("red", "black")])
def test_recolouring_reaches_its_colour(target):
    palette = measure(drawn(APPLE))
    assert palette is not None
    body = map_colours(APPLE, recolouring(palette, target))
    after = measure(drawn(body))
    assert after is not None
    assert after.name == target
    # The outline is neutral and the leaf has another hue: both stay.
    assert 'stroke="#222222"' in body
    assert 'fill="#3c9f3c"' in body


def test_black_is_said_of_drawings_without_other_colours():
    whole = '<circle cx="16" cy="16" r="12" fill="#d8232a"/>'
    names = []
    for body in (whole, APPLE):
        palette = measure(drawn(body))
        assert palette is not None
        after = measure(drawn(map_colours(body, recolouring(palette, "black"))))
        assert after is not None
        names.append(after.name)
    # The apple's leaf stays green, so that one colour word would not do.
    assert names == ["black", None]


def test_every_kind_of_paint_is_mapped():
    body = (
        '<g fill="none" stroke="red"><stop stop-color="#abc"/><feFlood flood-color="#AABBCC"/>'
        '<use href="#fade"/><path fill="url(#dad)"/><feColorMatrix values="0 0 0 0 1 0 0 0 0 0.5 0 0 0 0 0 0 0 0 1 0"/></g>'
    )
    mapped = map_colours(body, lambda rgb: rgb[::-1])
    assert mapped == (
        '<g fill="none" stroke="#0000ff"><stop stop-color="#ccbbaa"/><feFlood flood-color="#ccbbaa"/>'
        '<use href="#fade"/><path fill="url(#dad)"/>'
        '<feColorMatrix values="0 0 0 0 0.0000 0 0 0 0 0.5000 0 0 0 0 1.0000 0 0 0 1 0"/></g>'
    )


def test_unknown_target():
    palette = measure(drawn(APPLE))
    assert palette is not None
    with pytest.raises(ValueError, match=r"'mauve'.*red, orange"):
        recolouring(palette, "mauve")
