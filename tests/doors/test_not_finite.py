"""Numbers that are not finite never become a picture: an error names the part and the stage, and no file is written."""

import math
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from unclip.cli.main import main
from unclip.errors import ModelError, NonFinite
from unclip.generate.model import Model
from unclip.stages.finite import Watch
from unclip.stages.sampling import Sampling

PIXELS = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
CALLS: dict[str, Callable[[Model], Any]] = {
    "generate": lambda model: model.generate("a red apple", seed=1),
    "batch": lambda model: model.generate(["a red apple", "a blue cat"], n=2, seed=1, batch_size=4),
    "small": lambda model: model.generate("a red apple", seed=1, size=16),
    "vary": lambda model: model.vary(PIXELS, n=1, seed=1),
    "eta": lambda model: model.vary(PIXELS, n=1, seed=1, eta=0.5),
    "redraw": lambda model: model.redraw(PIXELS, "a blue cat", seed=1),
    "edit": lambda model: model.edit(PIXELS, (4, 4, 20, 20), "a blue cat", seed=1),
    "outpaint": lambda model: model.outpaint(PIXELS, left=8, seed=1),
    "upscale": lambda model: model.upscale(PIXELS, seed=1),
    "reconstruct": lambda model: model.reconstruct(PIXELS, seed=1),
    "interpolate": lambda model: model.interpolate(PIXELS, PIXELS[::-1], frames=2, seed=1),
    "text_diff": lambda model: model.text_diff(PIXELS, "a blue cat", seed=1, frames=2),
    "captions": lambda model: model.nearest_captions(PIXELS, ["a", "b"]),
    "embed_text": lambda model: model.embed_text("a red apple"),
    "embed_image": lambda model: model.embed_image(PIXELS),
}


def spoilt(tiny: Any, make_parts: Any, quick: Sampling, part: str, weight: str, value: float) -> Model:
    """The model with one row of a weight, or one number of a bias, replaced."""
    parts, tokenizer = make_parts(tiny)
    parameter = dict(parts[part].named_parameters())[weight]
    with torch.no_grad():
        parameter[0] = value
    return Model.of(parts, tokenizer, name="spoilt", defaults=quick)


def last_weight(network: nn.Module) -> str:
    return [name for name, value in network.named_parameters() if value.ndim >= 2][-1]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    ("part", "calls", "stage"),
    [
        ("decoder", ["generate", "batch", "small", "vary", "redraw", "edit", "outpaint"], "decoder"),
        ("decoder", ["eta", "reconstruct", "interpolate", "text_diff"], "inversion"),
        ("prior", ["generate", "redraw", "edit"], "prior"),
        ("upsampler", ["generate", "vary", "upscale"], "upsampler"),
    ],
)
def test_a_row_of_weights_that_is_not_finite_is_named(tiny, make_parts, quick, part, calls, stage, value):
    parts, _ = make_parts(tiny)
    model = spoilt(tiny, make_parts, quick, part, last_weight(parts[part]), value)
    for name in calls:
        with pytest.raises(
            NonFinite, match=f"the {part} of 'spoilt' gave NaN or infinite numbers in the stage '{stage}'"
        ):
            CALLS[name](model)


@pytest.mark.parametrize("tower", ["text", "image"])
def test_clip_is_named(tiny, make_parts, quick, tower):
    parts, _ = make_parts(tiny)
    names = [
        name
        for name, value in parts["clip"].named_parameters()
        if ("text" in name) == (tower == "text") and value.ndim >= 2
    ]
    model = spoilt(tiny, make_parts, quick, "clip", names[-1], math.nan)
    for name in (
        ["generate", "embed_text", "text_diff"] if tower == "text" else ["vary", "embed_image", "captions"]
    ):
        with pytest.raises(NonFinite, match=f"the clip of 'spoilt' .* the stage '{tower}'"):
            CALLS[name](model)


def test_what_a_clamp_hides_is_seen(tiny, make_parts, quick):
    """An infinite answer would be clamped to a white or black picture of finite numbers."""
    parts, tokenizer = make_parts(tiny)
    forward = parts["decoder"].forward
    parts["decoder"].forward = lambda *given: forward(*given) * 0 + math.inf  # type: ignore[method-assign]
    model = Model.of(parts, tokenizer, name="spoilt", defaults=quick)
    with pytest.raises(NonFinite, match="decoder"):
        CALLS["generate"](model)
    assert issubclass(NonFinite, ModelError)
    assert issubclass(NonFinite, ArithmeticError)
    watch = Watch()
    network = watch.over(lambda x: 1 / x)
    assert watch.finite
    network(torch.ones(2))
    assert watch.finite
    network(torch.zeros(2))
    network(torch.ones(2))
    assert not watch.finite


def test_every_call_of_a_sound_model_is_finite(small):
    for call in CALLS.values():
        call(small)


def test_no_file_is_written(small_folder, tmp_path, capsys):
    folder = shutil.copytree(small_folder, tmp_path / "model")
    file = folder / "decoder.safetensors"
    with safe_open(file, framework="pt") as opened:
        metadata, weights = opened.metadata(), {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    name = max((name for name in weights if name.startswith("net.")), key=lambda name: weights[name].numel())
    weights[name][0] = math.nan
    file.unlink()
    save_file(weights, file, metadata=metadata)
    picture = tmp_path / "a.png"
    argv = ["generate", "a red apple", "--model", folder, "--device", "cpu", "--seed", "1", "-o", picture]
    assert main([str(word) for word in argv]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("unclip: error: the decoder of 'small' gave NaN or infinite numbers")
    assert not picture.exists()
