"""What every test shares: no network, as many threads as the machine was told to use, and the parts of tiny models."""

import os

# Set before any library reads them: a test that would download must fail at once instead.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# Tensors in tests are tiny, and workers may share the cores: one thread each.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from typing import Any

import pytest
import torch
from torch import nn

from unclip.diffusion.parametrization import ProcessConfig
from unclip.networks.clip import Clip, ClipConfig, TextConfig, VisionConfig
from unclip.networks.decoder import CaptionConfig, Decoder, DecoderConfig
from unclip.networks.patch_transformer import PatchTransformerConfig
from unclip.networks.prior_diffusion import DiffusionPrior, DiffusionPriorConfig
from unclip.networks.unet import UnetConfig
from unclip.tokenizers.clip import ClipTokenizer


class Tiny:
    """Makes the parts of a system through the real classes, one layer deep where nothing else is said.

    Prior and decoder fit the CLIP that they are given; the decoder's pictures have the size that it reads.
    """

    flow = ProcessConfig(parametrization="x0", schedule="flow")

    @staticmethod
    def clip(tokenizer: ClipTokenizer, *, embedding: int = 16, **vision: Any) -> Clip:
        """A CLIP, of 16 px pictures unless `vision` says otherwise."""
        shape: dict[str, Any] = {"size": 16, "patch": 4, "width": 32, "layers": 1, "heads": 2} | vision
        return Clip(
            ClipConfig(
                embedding=embedding,
                vision=VisionConfig(**shape),
                text=TextConfig(
                    vocabulary=tokenizer.vocabulary,
                    context=tokenizer.context,
                    end=tokenizer.end,
                    width=32,
                    layers=1,
                    heads=2,
                ),
            )
        )

    @staticmethod
    def prior(clip: Clip, *, layers: int = 1) -> DiffusionPrior:
        """A diffusion prior."""
        text = clip.config.text
        return DiffusionPrior(
            DiffusionPriorConfig(
                embedding=clip.config.embedding,
                context=text.context,
                text_width=text.width,
                width=32,
                layers=layers,
                heads=2,
            )
        )

    @classmethod
    def decoder(
        cls, clip: Clip, net: PatchTransformerConfig | UnetConfig, *, image_tokens: int = 2, **more: Any
    ) -> Decoder:
        """A decoder around `net`, in flow time and predicting x0 unless `more` has another process."""
        text = clip.config.text
        caption = CaptionConfig(
            vocabulary=text.vocabulary, context=text.context, end=text.end, width=32, layers=1, heads=2
        )
        return Decoder(
            DecoderConfig(
                net=net,
                size=clip.config.vision.size,
                embedding=clip.config.embedding,
                image_tokens=image_tokens,
                caption=caption,
                **{"process": cls.flow} | more,
            )
        )

    @staticmethod
    @torch.no_grad()
    def shake(parts: dict[str, nn.Module]) -> dict[str, nn.Module]:
        """The parts, after layers that start at zero were filled: they would hide what goes into them."""
        for network in parts.values():
            for parameter in network.parameters():
                if parameter.count_nonzero() == 0:
                    parameter.normal_(std=0.05)
        return parts


@pytest.fixture(scope="session")
def tiny() -> type[Tiny]:
    """The maker of tiny parts."""
    return Tiny
