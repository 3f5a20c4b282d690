"""A small model with random weights, in memory and on disk, which draws in a blink."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from unclip.checkpoints.io import save_model
from unclip.generate.model import Model
from unclip.networks.patch_transformer import PatchTransformerConfig
from unclip.networks.unet import UnetConfig
from unclip.networks.upsampler import Upsampler, UpsamplerConfig
from unclip.stages.sampling import Sampling, sampling
from unclip.tokenizers.clip import ClipTokenizer

DEFAULTS = {"steps": 1, "prior_steps": 1, "upsampler_steps": 1, "candidates": 1, "guidance": 1.0}


def small_parts(tiny: Any) -> tuple[dict[str, nn.Module], ClipTokenizer]:
    """CLIP, prior, decoder of 16 px and an upsampler to 32 px, and their tokenizer."""
    torch.manual_seed(0)
    tokenizer = ClipTokenizer.train(["a red apple", "a blue cat"], vocabulary=540, context=8)
    clip = tiny.clip(tokenizer)
    net = PatchTransformerConfig(size=16, patch=4, width=32, layers=2, head_channels=16, context_width=24)
    upsampler = UpsamplerConfig(
        net=UnetConfig(in_channels=6, channels=32, multiples=(1, 2), blocks=1),
        process=tiny.flow,
        low_size=16,
        high_size=32,
    )
    parts = {
        "clip": clip,
        "prior": tiny.prior(clip),
        "decoder": tiny.decoder(clip, net, embedding_scale=4.0),
        "upsampler": Upsampler(upsampler),
    }
    return tiny.shake(parts), tokenizer


@pytest.fixture(scope="session")
def quick() -> Sampling:
    """Settings of one step for every stage."""
    return sampling(**DEFAULTS)


@pytest.fixture(scope="session")
def small_folder(tiny, tmp_path_factory) -> Path:
    """The model's folder."""
    parts, tokenizer = small_parts(tiny)
    return save_model(
        tmp_path_factory.mktemp("models") / "small",
        parts,
        name="small",
        tokenizer=tokenizer.to_json(),
        defaults=DEFAULTS,
    )


@pytest.fixture(scope="session")
def small(small_folder) -> Model:
    """The model, on the CPU."""
    return Model.load(small_folder, device="cpu")


@pytest.fixture(scope="session")
def make_parts() -> Any:
    """`make_parts(tiny)`: the model's parts and tokenizer, new ones each time."""
    return small_parts
