"""A tiny system with random weights, on disk and in memory, through the real classes."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from unclip.checkpoints.io import save_model
from unclip.diffusion.parametrization import ProcessConfig
from unclip.generate.system import System
from unclip.networks.decoder import Decoder, DecoderContext
from unclip.networks.patch_transformer import PatchTransformerConfig
from unclip.networks.unet import UnetConfig
from unclip.networks.upsampler import Upsampler, UpsamplerConfig
from unclip.tokenizers.clip import ClipTokenizer

DEFAULTS = {"steps": 3, "prior_steps": 3, "upsampler_steps": 2, "candidates": 2, "guidance": 2.0}


def tiny_tokenizer() -> ClipTokenizer:
    captions = ["a red apple", "a blue cat", "two green cars", "flat style", "noto style"]
    return ClipTokenizer.train(captions, vocabulary=540, context=8)


def tiny_parts(tiny: Any, tokenizer: ClipTokenizer, *, unet: bool = False) -> dict[str, nn.Module]:
    """CLIP, prior, decoder (16 px, a patch transformer or a U-Net) and upsampler (32 px), every weight random."""
    torch.manual_seed(0)
    if unet:
        net = UnetConfig(
            channels=32, multiples=(1, 2), blocks=1, attention_levels=(1,), head_channels=32, out_channels=6,
            context_width=32, vector_width=24,
        )  # fmt: skip
        process = ProcessConfig(parametrization="eps", schedule="cosine", learned_variance=True)
    else:
        net = PatchTransformerConfig(size=16, patch=4, width=32, layers=2, head_channels=16, context_width=24)
        process = tiny.flow
    clip = tiny.clip(tokenizer)
    upsampler = UpsamplerConfig(
        net=UnetConfig(in_channels=6, channels=32, multiples=(1, 2), blocks=1),
        process=tiny.flow,
        low_size=16,
        high_size=32,
    )
    return tiny.shake(
        {
            "clip": clip,
            "prior": tiny.prior(clip, layers=2),
            "decoder": tiny.decoder(clip, net, process=process, embedding_scale=4.0),
            "upsampler": Upsampler(upsampler),
        }
    )


def save_tiny(tiny: Any, folder: Path, *, unet: bool = False) -> Path:
    """A model folder that makes pictures of 16 and 32 pixels."""
    tokenizer = tiny_tokenizer()
    return save_model(
        folder,
        tiny_parts(tiny, tokenizer, unet=unet),
        name="tiny",
        tokenizer=tokenizer.to_json(),
        defaults=DEFAULTS,
    )


@pytest.fixture(scope="session")
def tiny_folder(tiny, tmp_path_factory) -> Path:
    """A model folder whose decoder is a patch transformer."""
    return save_tiny(tiny, tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def tiny_system(tiny_folder) -> System:
    """The system of `tiny_folder`, on the CPU."""
    return System.load(tiny_folder, device="cpu")


@pytest.fixture(scope="session", params=["transformer", "unet"])
def either_system(request, tiny, tiny_system, tmp_path_factory) -> System:
    """A system of each kind of decoder: the patch transformer, and the paper's U-Net."""
    if request.param == "transformer":
        return tiny_system
    folder = save_tiny(tiny, tmp_path_factory.mktemp("models") / "unet", unet=True)
    return System.load(folder, device="cpu")


class GaussianDecoder(Decoder):
    """The ideal denoiser of pictures N(m, I / 4), whose mean m, a colour, is read off z_i.

    DDIM's path under it is smooth and invertible, which that of a network with random weights is not.
    """

    def forward(self, x: Tensor, label: Tensor, context: DecoderContext) -> Tensor:
        time = label / 1000
        sigma = (time / (1 - time))[:, None, None, None]
        mean = torch.tanh(context.vector[:, :3, None, None]) / 4
        state = x[:, :3] * (1 + sigma**2).sqrt()
        return (sigma**2 * mean + state / 4) / (sigma**2 + 1 / 4)


def gaussian_parts(tiny: Any, tokenizer: ClipTokenizer, *, inpainting: bool = False) -> dict[str, nn.Module]:
    """`tiny_parts` with a `GaussianDecoder`."""
    parts = tiny_parts(tiny, tokenizer)
    config = parts["decoder"].config
    net = replace(config.net, in_channels=7 if inpainting else 3)
    torch.manual_seed(1)
    return {**parts, "decoder": GaussianDecoder(replace(config, net=net, inpainting=inpainting)).eval()}


@pytest.fixture(scope="session")
def gaussian_system(tiny, tiny_system) -> System:
    """A system whose decoder is a `GaussianDecoder`."""
    tokenizer = tiny_tokenizer()
    parts = gaussian_parts(tiny, tokenizer)
    return System.of(parts, tokenizer, name="gaussian", defaults=tiny_system.defaults)


@pytest.fixture(scope="session")
def make_painter(tiny, tiny_system) -> Callable[[bool], System]:
    """`make_painter(inpainting)`: a system with a `GaussianDecoder` that reads a hint, or does not; quick to sample."""

    def make(inpainting: bool) -> System:
        tokenizer = tiny_tokenizer()
        parts = gaussian_parts(tiny, tokenizer, inpainting=inpainting)
        defaults = tiny_system.defaults.with_given(steps=2, prior_steps=2, upsampler_steps=1)
        return System.of(parts, tokenizer, name="painter", defaults=defaults)

    return make


@pytest.fixture(scope="session")
def drawing() -> Image.Image:
    """A smooth picture with a border, as unlike noise as drawings are."""
    picture = Image.radial_gradient("L").resize((32, 32)).convert("RGB")
    picture.paste("orange", (20, 4, 30, 14))
    return picture
