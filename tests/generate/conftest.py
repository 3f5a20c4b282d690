"""Models whose decoder is a U-Net, or the ideal denoiser of Gaussian pictures."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from unclip.generate.model import Model
from unclip.networks.decoder import Decoder, DecoderContext
from unclip.stages.sampling import sampling
from unclip.tokenizers.clip import ClipTokenizer


@pytest.fixture(scope="session", params=["transformer", "unet"])
def either_model(request, tiny, tiny_model, tmp_path_factory) -> Model:
    """A model of each kind of decoder: the patch transformer, and the paper's U-Net."""
    if request.param == "transformer":
        return tiny_model
    folder = tiny.save(tmp_path_factory.mktemp("models") / "unet", unet=True)
    return Model.load(folder, device="cpu")


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
    """The parts of a tiny model with a `GaussianDecoder`."""
    parts = tiny.parts(tokenizer)
    config = parts["decoder"].config
    net = replace(config.net, in_channels=7 if inpainting else 3)
    torch.manual_seed(1)
    return {**parts, "decoder": GaussianDecoder(replace(config, net=net, inpainting=inpainting)).eval()}


@pytest.fixture(scope="session")
def gaussian_model(tiny) -> Model:
    """A model whose decoder is a `GaussianDecoder`."""
    tokenizer = tiny.tokenizer()
    parts = gaussian_parts(tiny, tokenizer)
    return Model.of(parts, tokenizer, name="gaussian", defaults=tiny.defaults)


@pytest.fixture(scope="session")
def make_painter(tiny) -> Callable[[bool], Model]:
    """`make_painter(inpainting)`: a model with a `GaussianDecoder` that reads a hint, or does not; quick to sample."""

    def make(inpainting: bool) -> Model:
        tokenizer = tiny.tokenizer()
        parts = gaussian_parts(tiny, tokenizer, inpainting=inpainting)
        defaults = sampling(steps=2, prior_steps=2, upsampler_steps=1).over(tiny.defaults)
        return Model.of(parts, tokenizer, name="painter", defaults=defaults)

    return make


@pytest.fixture(scope="session")
def drawing() -> Image.Image:
    """A smooth picture with a border, as unlike noise as drawings are."""
    picture = Image.radial_gradient("L").resize((32, 32)).convert("RGB")
    picture.paste("orange", (20, 4, 30, 14))
    return picture
