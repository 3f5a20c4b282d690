"""Karlo in diffusers' own classes: narrow, with random weights and with the switches of the real one."""

import json
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    PriorTransformer,
    UnCLIPImageVariationPipeline,
    UnCLIPPipeline,
    UnCLIPScheduler,
    UNet2DConditionModel,
    UNet2DModel,
)
from diffusers.pipelines.deprecated.unclip import UnCLIPTextProjModel
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)
from transformers.convert_slow_tokenizer import bytes_to_unicode

from unclip.formats.opened import OpenModel

# 13 and 4 image tokens: diffusers fails where the mask is as long as a level has pixels.
CONTEXT, WIDTH, SIZE, LARGE = 13, 32, 16, 32
CHANNELS = (16, 32, 48, 64)
MERGES = [
    ("c", "a"),
    ("ca", "t</w>"),
    ("r", "e"),
    ("re", "d</w>"),
    ("d", "o"),
    ("do", "g</w>"),
    ("!", "!</w>"),
]


def vocabulary() -> dict[str, int]:
    """As OpenAI lays it out: 256 bytes ("!" first), the same at the end of a word, merges, start and end."""
    symbols = list(bytes_to_unicode().values())
    pieces = [*symbols, *(f"{symbol}</w>" for symbol in symbols), *map("".join, MERGES)]
    pieces += ["<|startoftext|>", "<|endoftext|>"]
    return {piece: index for index, piece in enumerate(pieces)}


@torch.no_grad()
def randomised(model: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Norms, biases and learned vectors start at the identity or at zero: move all, so that none could be left out."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
        if name == "clip_std":
            parameter.abs_().add_(0.5)
        # Noise predicted by chance decides pictures by the sign of numbers near zero: let it be small.
        if name.startswith("conv_out."):
            parameter.mul_(0.3)
    return model.eval()


def scheduler(prediction: str, variance: str, limit: float = 1.0) -> UnCLIPScheduler:
    return UnCLIPScheduler(prediction_type=prediction, variance_type=variance, clip_sample_range=limit)


def upsampler(seed: int, size: int | None) -> UNet2DModel:
    model = UNet2DModel(
        sample_size=size,
        in_channels=6,
        out_channels=3,
        down_block_types=["ResnetDownsampleBlock2D"] * 4,
        up_block_types=["ResnetUpsampleBlock2D"] * 4,
        block_out_channels=CHANNELS,
        layers_per_block=1,
        add_attention=False,
        resnet_time_scale_shift="default",
        norm_num_groups=8,
    )
    return randomised(model, seed)


def make_karlo(width: int = WIDTH, heads: int = 2) -> dict[str, Any]:
    """Every component of both pipelines, around a CLIP of so many heads and so wide."""
    torch.manual_seed(0)
    names = vocabulary()
    towers = {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": 2,
        "num_attention_heads": heads,
        "projection_dim": width,
    }
    text = CLIPTextConfig(
        vocab_size=len(names),
        max_position_embeddings=CONTEXT,
        eos_token_id=2,  # as in Karlo's folder: the largest number is meant
        **towers,
    )
    vision = CLIPVisionConfig(image_size=SIZE, patch_size=8, **towers)
    return {
        "tokenizer": CLIPTokenizer(vocab=names, merges=MERGES, pad_token="!", model_max_length=CONTEXT),
        "text_encoder": randomised(CLIPTextModelWithProjection(text), 1),
        "image_encoder": randomised(CLIPVisionModelWithProjection(vision), 2),
        "feature_extractor": CLIPImageProcessor(
            size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE}
        ),
        "prior": randomised(
            PriorTransformer(
                num_attention_heads=2,
                attention_head_dim=16,
                num_layers=2,
                embedding_dim=width,
                num_embeddings=CONTEXT,
            ),
            3,
        ),
        "text_proj": randomised(
            UnCLIPTextProjModel(
                clip_embeddings_dim=width, time_embed_dim=4 * CHANNELS[0], cross_attention_dim=24
            ),
            4,
        ),
        "decoder": randomised(
            UNet2DConditionModel(
                sample_size=SIZE,
                in_channels=3,
                out_channels=6,
                down_block_types=["ResnetDownsampleBlock2D", *["SimpleCrossAttnDownBlock2D"] * 3],
                mid_block_type="UNetMidBlock2DSimpleCrossAttn",
                up_block_types=[*["SimpleCrossAttnUpBlock2D"] * 3, "ResnetUpsampleBlock2D"],
                block_out_channels=CHANNELS,
                layers_per_block=1,
                attention_head_dim=16,
                cross_attention_dim=24,
                class_embed_type="identity",
                resnet_time_scale_shift="scale_shift",
                norm_num_groups=8,
            ),
            5,
        ),
        "super_res_first": upsampler(6, LARGE),
        "super_res_last": upsampler(7, None),
        "prior_scheduler": scheduler("sample", "fixed_small_log", 5.0),
        "decoder_scheduler": scheduler("epsilon", "learned_range"),
        "super_res_scheduler": scheduler("epsilon", "fixed_small_log"),
    }


@pytest.fixture(scope="session")
def karlo_parts() -> dict[str, Any]:
    """Every component of both pipelines."""
    return make_karlo()


def _pipeline(kind: type, parts: dict[str, Any], names: list[str]) -> Any:
    pipeline = kind(**{name: parts[name] for name in names})
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


_SHARED = ["decoder", "text_proj", "text_encoder", "tokenizer", "super_res_first", "super_res_last"]
_SHARED += ["decoder_scheduler", "super_res_scheduler"]


@pytest.fixture(scope="session")
def karlo_pipeline(karlo_parts) -> UnCLIPPipeline:
    """Text to picture."""
    return _pipeline(UnCLIPPipeline, karlo_parts, [*_SHARED, "prior", "prior_scheduler"])


@pytest.fixture(scope="session")
def original_parts() -> tuple[UnCLIPPipeline, CLIPVisionModelWithProjection]:
    """Text to picture with what Karlo's original files presume: heads of 64 channels in CLIP, a prior clamped to 10.

    And CLIP's picture tower, which the originals have too.
    """
    parts = make_karlo(64, 1) | {"prior_scheduler": scheduler("sample", "fixed_small_log", 10.0)}
    return _pipeline(UnCLIPPipeline, parts, [*_SHARED, "prior", "prior_scheduler"]), parts["image_encoder"]


@pytest.fixture(scope="session")
def variation_pipeline(karlo_parts) -> UnCLIPImageVariationPipeline:
    """Picture to pictures."""
    return _pipeline(
        UnCLIPImageVariationPipeline, karlo_parts, [*_SHARED, "image_encoder", "feature_extractor"]
    )


def _save(pipeline: Any, folder: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipeline.save_pretrained(folder)
    (folder / "README.md").write_text("---\nlanguage: en\nlicense: creativeml-openrail-m\n---\n# A model\n")
    return folder


@pytest.fixture(scope="session")
def karlo_folder(karlo_pipeline, tmp_path_factory) -> Path:
    """The text-to-picture pipeline as diffusers saves it."""
    return _save(karlo_pipeline, tmp_path_factory.mktemp("karlo") / "karlo")


@pytest.fixture(scope="session")
def variation_folder(variation_pipeline, tmp_path_factory) -> Path:
    """The variations pipeline, with a tokenizer as older files have it."""
    folder = _save(variation_pipeline, tmp_path_factory.mktemp("karlo") / "karlo-image-variations")
    tokenizer = folder / "tokenizer"
    (tokenizer / "tokenizer.json").unlink()
    (tokenizer / "vocab.json").write_text(json.dumps(vocabulary()))
    (tokenizer / "merges.txt").write_text(
        "#version: 0.2\n" + "".join(f"{left} {right}\n" for left, right in MERGES)
    )
    return folder


@contextmanager
def _lifted(pipeline: Any, names: list[str]) -> Iterator[None]:
    """The pipeline's schedulers with their own betas, and everything that follows from them, in float64."""
    schedulers = [getattr(pipeline, name) for name in names]
    kept = [(one.betas, one.alphas, one.alphas_cumprod) for one in schedulers]
    for one in schedulers:
        one.betas = one.betas.double()
        one.alphas = 1 - one.betas
        one.alphas_cumprod = one.alphas.cumprod(0)
    yield
    for one, tables in zip(schedulers, kept):
        one.betas, one.alphas, one.alphas_cumprod = tables


@pytest.fixture(scope="session")
def lifted() -> Callable[[Any, list[str]], AbstractContextManager[None]]:
    """`_lifted`, for all tests."""
    return _lifted


def _listed(file: str, prefix: str = "") -> dict[str, tuple[int, ...]]:
    """The names and shapes of a list beside the tests that begin with `prefix`; `{24}` stands for each of 24 layers."""
    found = {}
    for line in Path(__file__).with_name(file).read_text().splitlines():
        name, _, shape = line.partition(" ")
        layers = re.search(r"\{(\d+)\}", name)
        for layer in range(int(layers[1]) if layers else 1):
            key = re.sub(r"\{\d+\}", str(layer), name)
            if key.startswith(prefix):
                found[key.removeprefix(prefix)] = tuple(map(int, filter(None, shape.split("x"))))
    return found


@pytest.fixture(scope="session")
def listed() -> Callable[..., dict[str, tuple[int, ...]]]:
    """`_listed`, for all tests."""
    return _listed


def _same_model(one: OpenModel, other: OpenModel) -> bool:
    """Whether two opened models have the same parts, weight by weight, and the same settings, space and words."""
    assert {name: part.config for name, part in one.parts.items()} == {
        name: part.config for name, part in other.parts.items()
    }
    for name, part in one.parts.items():
        ours, theirs = part.load().state_dict(), other.parts[name].load().state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(weight, theirs[key]) for key, weight in ours.items())
    assert (one.defaults, one.licence, one.space()) == (other.defaults, other.licence, other.space())
    if "clip" in one.parts:
        assert one.tokenizer().to_json() == other.tokenizer().to_json()
    return True


@pytest.fixture(scope="session")
def same_model() -> Callable[[OpenModel, OpenModel], bool]:
    """`_same_model`, for all tests."""
    return _same_model
