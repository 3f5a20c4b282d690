"""What each operation needs of a model: where a part is missing, `Unsupported` names it before anything is loaded."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from PIL import Image

from unclip.errors import Unsupported
from unclip.generate.model import Model
from unclip.generate.operations import REQUESTS
from unclip.generate.parts import Parts
from unclip.networks.decoder import Decoder

PROMPT, CAPTIONS = "a red apple", ["a red apple", "a blue cat"]
QUICK: dict[str, Any] = {"seed": 1, "steps": 2}
TEXT, IMAGE = {"clip": "text encoder"}, {"clip": "image encoder"}

# What is done, and the parts without which it cannot be, by what the error calls them.
NEEDS: dict[str, tuple[Callable[[Model, Image.Image], Any], dict[str, str]]] = {
    "generate": (
        lambda one, _: one.generate(PROMPT, **QUICK),
        {**TEXT, "prior": "prior", "decoder": "decoder"},
    ),
    "generate from the text embedding": (
        lambda one, _: one.generate(PROMPT, prior="text", **QUICK),
        {**TEXT, "decoder": "decoder"},
    ),
    "generate from the caption alone": (
        lambda one, _: one.generate(PROMPT, prior="none", **QUICK),
        {**TEXT, "decoder": "decoder"},
    ),
    "invert": (lambda one, picture: one.invert(picture, steps=2), {**IMAGE, "decoder": "decoder"}),
    "reconstruct": (lambda one, picture: one.reconstruct(picture, **QUICK), {**IMAGE, "decoder": "decoder"}),
    "vary": (lambda one, picture: one.vary(picture, n=1, **QUICK), {**IMAGE, "decoder": "decoder"}),
    "vary around x_T": (
        lambda one, picture: one.vary(picture, n=1, eta=0.5, **QUICK),
        {**IMAGE, "decoder": "decoder"},
    ),
    "interpolate": (
        lambda one, picture: one.interpolate(picture, picture, **QUICK),
        {**IMAGE, "decoder": "decoder"},
    ),
    "text_diff": (
        lambda one, picture: one.text_diff(picture, PROMPT, **QUICK),
        {**TEXT, "decoder": "decoder"},
    ),
    "edit": (
        lambda one, picture: one.edit(picture, (4, 4, 12, 12), PROMPT, **QUICK),
        {**TEXT, "prior": "prior", "decoder": "decoder"},
    ),
    "outpaint": (
        lambda one, picture: one.outpaint(picture, PROMPT, right=8, **QUICK),
        {**TEXT, "prior": "prior", "decoder": "decoder"},
    ),
    "outpaint without a caption": (
        lambda one, picture: one.outpaint(picture, right=8, **QUICK),
        {**IMAGE, "decoder": "decoder"},
    ),
    "redraw": (
        lambda one, picture: one.redraw(picture, PROMPT, **QUICK),
        {**TEXT, "prior": "prior", "decoder": "decoder"},
    ),
    "upscale": (lambda one, picture: one.upscale(picture, seed=1), {"upsampler": "upsampler"}),
    "components": (
        lambda one, picture: one.components(
            picture, [1], [picture, picture.rotate(90), picture.rotate(180)], **QUICK
        ),
        {**IMAGE, "decoder": "decoder"},
    ),
    "nearest_captions": (lambda one, picture: one.nearest_captions(picture, CAPTIONS), TEXT),
    "embed_text": (lambda one, _: one.embed_text(PROMPT), TEXT),
    "embed_image": (lambda one, picture: one.embed_image(picture), IMAGE),
    "probe": (
        lambda one, picture: one.probe(picture, "cat", CAPTIONS, n=1, **QUICK),
        {**IMAGE, "decoder": "decoder"},
    ),
}


def test_every_operation_is_here():
    kinds = {str(request.__dataclass_fields__["kind"].default) for request in REQUESTS}
    assert kinds <= set(NEEDS)


@pytest.fixture
def loads(monkeypatch) -> list[str]:
    """Names of the parts whose networks were asked for."""
    asked = []
    lend = Parts.lend

    def spy(self: Parts, name: str, kind: Any, **options: Any) -> Any:
        asked.append(name)
        return lend(self, name, kind, **options)

    monkeypatch.setattr(Parts, "lend", spy)
    return asked


@pytest.mark.parametrize("name", NEEDS)
def test_a_missing_part_is_named_where_it_is_needed_before_anything_is_loaded(
    tiny, tiny_model, drawing, loads, name
):
    act, needed = NEEDS[name]
    networks = tiny.networks(tiny_model)
    for missing in networks:
        parts = {part: network for part, network in networks.items() if part != missing}
        model = Model.of(parts, tiny_model.parts.tokenizer, name="partial", defaults=tiny_model.defaults)
        loads.clear()
        if missing not in needed:
            assert act(model, drawing) is not None
            assert missing not in loads
            continue
        with pytest.raises(Unsupported, match=f"'partial' has no {needed[missing]}, which .* needs: it has "):
            act(model, drawing)
        assert loads == []


def test_the_autoregressive_prior_and_captions_are_named(tiny, tiny_model, drawing, loads):
    networks = tiny.networks(tiny_model)
    loads.clear()
    for act in (
        lambda: tiny_model.generate(PROMPT, prior="autoregressive"),
        lambda: tiny_model.components(drawing, [1]),
    ):
        with pytest.raises(Unsupported, match=r"'tiny' has no autoregressive prior, which .* needs"):
            act()
    parts = {**networks, "decoder": Decoder(replace(networks["decoder"].config, caption=None))}
    silent = Model.of(parts, tiny_model.parts.tokenizer, name="silent", defaults=tiny_model.defaults)
    with pytest.raises(
        Unsupported, match="'silent' has no decoder that reads captions, which generate needs"
    ):
        silent.generate(PROMPT, prior="none")
    assert loads == []
    assert silent.generate(PROMPT, **QUICK)
