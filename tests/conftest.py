"""Shared by all tests: no network, one thread, and tiny models with random weights, in memory and on disk."""

import os

# Set before any library reads them: a test that would download must fail at once instead.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# Tensors in tests are tiny, and workers may share the cores: one thread each.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import atexit
import logging
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from unclip.checkpoints.io import save_model
from unclip.diffusion.parametrization import ProcessConfig
from unclip.generate.model import Model
from unclip.networks.clip import Clip, ClipConfig, TextConfig, VisionConfig
from unclip.networks.decoder import CaptionConfig, Decoder, DecoderConfig
from unclip.networks.patch_transformer import PatchTransformerConfig
from unclip.networks.prior_autoregressive import AutoregressivePrior, AutoregressivePriorConfig, dot_product
from unclip.networks.prior_diffusion import DiffusionPrior, DiffusionPriorConfig
from unclip.networks.unet import UnetConfig
from unclip.networks.upsampler import Upsampler, UpsamplerConfig
from unclip.stages.sampling import sampling
from unclip.tokenizers.clip import ClipTokenizer

# What unclip keeps in the user's cache, tests keep in a folder of their own, and so do processes that they start.
os.environ["UNCLIP_CACHE"] = tempfile.mkdtemp(prefix="unclip-tests-cache-")
atexit.register(shutil.rmtree, os.environ["UNCLIP_CACHE"], ignore_errors=True)


class Tiny:
    """Makes the parts of a model through the real classes, one layer deep where nothing else is said.

    Prior and decoder fit the CLIP that they are given; the decoder's pictures have the size that it reads.
    """

    flow = ProcessConfig(parametrization="x0", schedule="flow")
    defaults = sampling(steps=3, prior_steps=3, upsampler_steps=2, candidates=2, guidance=2.0)

    @staticmethod
    def tokenizer() -> ClipTokenizer:
        """A tokenizer of a context of 8 tokens."""
        captions = ["a red apple", "a blue cat", "two green cars", "flat style", "noto style"]
        return ClipTokenizer.train(captions, vocabulary=540, context=8)

    @classmethod
    def parts(cls, tokenizer: ClipTokenizer, *, unet: bool = False) -> dict[str, nn.Module]:
        """CLIP, prior, decoder (16 px, a patch transformer or a U-Net) and upsampler (32 px), every weight random."""
        torch.manual_seed(0)
        if unet:
            net = UnetConfig(
                channels=32, multiples=(1, 2), blocks=1, attention_levels=(1,), head_channels=32, out_channels=6,
                context_width=32, vector_width=24,
            )  # fmt: skip
            process = ProcessConfig(parametrization="eps", schedule="cosine", learned_variance=True)
        else:
            net = PatchTransformerConfig(
                size=16, patch=4, width=32, layers=2, head_channels=16, context_width=24
            )
            process = cls.flow
        clip = cls.clip(tokenizer)
        upsampler = UpsamplerConfig(
            net=UnetConfig(in_channels=6, channels=32, multiples=(1, 2), blocks=1),
            process=cls.flow,
            low_size=16,
            high_size=32,
        )
        return cls.shake(
            {
                "clip": clip,
                "prior": cls.prior(clip, layers=2),
                "decoder": cls.decoder(clip, net, process=process, embedding_scale=4.0),
                "upsampler": Upsampler(upsampler),
            }
        )

    @classmethod
    def save(cls, folder: Path, *, unet: bool = False, **more: nn.Module) -> Path:
        """A model folder that makes pictures of 16 and 32 pixels; `more` are further parts."""
        tokenizer = cls.tokenizer()
        return save_model(
            folder,
            {**cls.parts(tokenizer, unet=unet), **more},
            name="tiny",
            tokenizer=tokenizer.to_json(),
            defaults=cls.defaults,
        )

    @staticmethod
    def networks(model: Model) -> dict[str, nn.Module]:
        """The networks of a model, by the names of their parts."""
        found = {}
        for name in model.parts.names:
            with model.parts.lend(name, nn.Module) as network:
                found[name] = network
        return found

    @staticmethod
    def autoregressive(clip: Clip, *, dimensions: int = 5) -> AutoregressivePrior:
        """An autoregressive prior for a CLIP, fitted to random embeddings."""
        torch.manual_seed(0)
        text = clip.config.text
        prior = AutoregressivePrior(
            AutoregressivePriorConfig(
                embedding=clip.config.embedding,
                context=text.context,
                text_width=text.width,
                dimensions=dimensions,
                buckets=9,
                dot_buckets=4,
                width=16,
                layers=1,
                heads=2,
            )
        )
        z = nn.functional.normalize(torch.randn(100, clip.config.embedding), dim=1)
        prior.fit(z, dot_product(z, z.roll(1, 0)))
        return prior

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


@pytest.fixture(scope="session")
def tiny_folder(tiny: type[Tiny], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder whose decoder is a patch transformer; pictures of 16 and 32 pixels."""
    return tiny.save(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def tiny_model(tiny_folder: Path) -> Model:
    """The model of `tiny_folder`, on the CPU."""
    return Model.load(tiny_folder, device="cpu")


def _as_it_was() -> Iterator[None]:
    """Keep the loggers that the server's commands send to their own stderr."""
    loggers = [logging.getLogger(name) for name in ("unclip", "uvicorn", "uvicorn.error")]
    states = [(logger, logger.handlers, logger.propagate, logger.level) for logger in loggers]
    yield
    for logger, handlers, propagate, level in states:
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


kept_logging = pytest.fixture(autouse=True)(_as_it_was)
kept_logging_of_modules = pytest.fixture(autouse=True, scope="module")(_as_it_was)
