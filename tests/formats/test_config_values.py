"""Configs of public formats with values of other types and sizes: each is read, or refused in one line that names it."""

import inspect
import math
from typing import Any

import pytest
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    PNDMScheduler,
    UNet2DConditionModel,
    VQModel,
)

from unclip.config import ConfigError
from unclip.errors import ModelError
from unclip.formats.key_maps import autoencoder, kandinsky_scheduler, latent_scheduler, latent_unet, movq
from unclip.formats.registry import FORMATS

NO_NUMBERS = (0, -1, math.nan, math.inf, -math.inf, 10**30, True, "x", [], {}, [0])
STRANGE = (*NO_NUMBERS, None, 1.5, [None], [-32], ["x"], [[1]], [1.5], 10**400)


def config(kind: Any, **more: Any) -> dict[str, Any]:
    """A class's defaults as its config has them, and some other values."""
    found = inspect.signature(kind.__init__).parameters.values()
    options = {one.name: one.default for one in found if one.default is not inspect.Parameter.empty}
    lists = {name: list(value) if isinstance(value, tuple) else value for name, value in options.items()}
    return {"_class_name": kind.__name__, **lists, **more}


DOWN, UP = ["DownEncoderBlock2D"] * 2, ["UpDecoderBlock2D"] * 2
VAE = config(AutoencoderKL, block_out_channels=[32, 64], down_block_types=DOWN, up_block_types=UP)
MOVQ = config(
    VQModel,
    norm_type="spatial",
    block_out_channels=[128, 256, 256, 512],
    down_block_types=["DownEncoderBlock2D"] * 3 + ["AttnDownEncoderBlock2D"],
    up_block_types=["AttnUpDecoderBlock2D"] + ["UpDecoderBlock2D"] * 3,
    layers_per_block=2,
    latent_channels=4,
    num_vq_embeddings=16384,
    vq_embed_dim=4,
)
BETAS = {"beta_start": 0.00085, "beta_end": 0.012}
CONFIGS = {
    "autoencoder": (autoencoder.read_config, VAE),
    "movq": (movq.read_config, MOVQ),
    "unet": (latent_unet.read_config, config(UNet2DConditionModel, cross_attention_dim=768)),
    "kandinsky": (kandinsky_scheduler.read_schedule, config(DDPMScheduler, **BETAS)),
    **{
        kind.__name__: (latent_scheduler.read_schedule, config(kind, **more))
        for kind, more in (
            (DDIMScheduler, {"clip_sample": False}),
            (DDPMScheduler, {}),
            (PNDMScheduler, {"skip_prk_steps": True}),
            (EulerDiscreteScheduler, {}),
            (HeunDiscreteScheduler, {}),
            (DPMSolverMultistepScheduler, {}),
        )
    },
}


@pytest.mark.parametrize("name", CONFIGS)
def test_every_option_with_strange_values(name):
    read, good = CONFIGS[name]
    read(good, "here")
    messages = []
    for option in good:
        for value in STRANGE:
            try:
                read({**good, option: value}, "here")
            except ModelError as error:
                messages.append(str(error))
            except ConfigError:
                continue
    assert len(messages) > 20
    for one in messages:
        assert one.startswith("here")
        assert len(one) < 600
        assert "\n" not in one


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("autoencoder", ["scaling_factor", "latent_channels", "layers_per_block", "norm_num_groups"]),
        ("movq", ["layers_per_block", "num_vq_embeddings", "vq_embed_dim", "latent_channels"]),
        ("unet", ["layers_per_block", "cross_attention_dim", "norm_num_groups"]),
        ("kandinsky", ["num_train_timesteps", "beta_start", "beta_end", "clip_sample_range"]),
        ("DDIMScheduler", ["num_train_timesteps", "beta_start", "beta_end"]),
        ("DDPMScheduler", ["num_train_timesteps", "beta_start", "beta_end", "clip_sample_range"]),
    ],
)
def test_numbers_that_measure_nothing_are_refused_by_name(name, options):
    read, good = CONFIGS[name]
    for option in options:
        for value in NO_NUMBERS:
            with pytest.raises(ModelError, match=option):
                read({**good, option: value}, "here")


def test_betas_of_kandinsky_rise():
    read, good = CONFIGS["kandinsky"]
    with pytest.raises(ModelError, match=r"beta_start and beta_end are 0\.5 and 0\.012; they rise"):
        read({**good, "beta_start": 0.5}, "here")


def test_what_a_network_refuses_is_an_error_of_the_folder(tmp_path, monkeypatch):
    def open_folder(folder):
        raise ValueError("320 channels of level 0 do not split into 7 heads")

    found = next(one for one in FORMATS if one.module == "karlo")
    monkeypatch.setattr("unclip.formats.karlo.open_folder", open_folder)
    with pytest.raises(ModelError, match=r"its configs describe no network .* 7 heads"):
        found.open(tmp_path)
