"""What each manipulation needs of a model: where a part is missing the error names it, where it is not asked for all goes well."""

from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image
from torch import nn

from unclip.generate.system import System

PROMPT, CAPTIONS = "a red apple", ["a red apple", "a blue cat"]
PATH: dict[str, Any] = {"seed": 1, "decoder_steps": 2}
QUICK: dict[str, Any] = {"seed": 1, "steps": 2}

# What is done, and the parts without which it cannot be.
NEEDS: dict[str, tuple[Callable[[System, Image.Image], Any], set[str]]] = {
    "generate": (lambda one, _: one.generate(PROMPT, **QUICK), {"clip", "prior", "decoder"}),
    "invert": (lambda one, picture: one.invert(picture, steps=2), {"clip", "decoder"}),
    "reconstruct": (lambda one, picture: one.reconstruct(picture, **QUICK), {"clip", "decoder"}),
    "vary": (lambda one, picture: one.vary(picture, n=1, **QUICK), {"clip", "decoder"}),
    "vary around x_T": (lambda one, picture: one.vary(picture, n=1, eta=0.5, **QUICK), {"clip", "decoder"}),
    "interpolate": (lambda one, picture: one.interpolate(picture, picture, **PATH), {"clip", "decoder"}),
    "text_diff": (lambda one, picture: one.text_diff(picture, target=PROMPT, **PATH), {"clip", "decoder"}),
    "edit": (
        lambda one, picture: one.edit(picture, (4, 4, 12, 12), PROMPT, **QUICK),
        {"clip", "prior", "decoder"},
    ),
    "outpaint": (
        lambda one, picture: one.outpaint(picture, PROMPT, right=8, **QUICK),
        {"clip", "prior", "decoder"},
    ),
    "outpaint without a caption": (
        lambda one, picture: one.outpaint(picture, right=8, **QUICK),
        {"clip", "decoder"},
    ),
    "redraw": (lambda one, picture: one.redraw(picture, PROMPT, **QUICK), {"clip", "prior", "decoder"}),
    "upscale": (lambda one, picture: one.upscale(picture, seed=1), {"upsampler"}),
    "pca_reconstructions": (
        lambda one, picture: one.pca_reconstructions(
            picture, dimensions=[1], basis=[picture, picture.rotate(90), picture.rotate(180)], **QUICK
        ),
        {"clip", "decoder"},
    ),
    "nearest_captions": (lambda one, picture: one.nearest_captions(picture, CAPTIONS), {"clip"}),
    "typographic_probe": (
        lambda one, picture: one.typographic_probe(picture, "cat", CAPTIONS, n=1, **QUICK),
        {"clip", "decoder"},
    ),
}


@pytest.mark.parametrize("name", NEEDS)
def test_a_missing_part_is_named_where_it_is_needed(tiny_system, drawing, name):
    act, needed = NEEDS[name]
    for missing in tiny_system.parts:
        parts = {part: tiny_system.part(part, nn.Module) for part in tiny_system.parts if part != missing}
        system = System.of(parts, tiny_system.tokenizer, name="partial", defaults=tiny_system.defaults)
        if missing not in needed:
            assert act(system, drawing)
            continue
        with pytest.raises(ValueError, match=f"'partial' has no {missing}"):
            act(system, drawing)
