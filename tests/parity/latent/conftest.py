"""Stable Diffusion and Stable unCLIP in diffusers' own classes: narrow, with random weights and the switches of the real ones."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    PNDMScheduler,
    PriorTransformer,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    StableUnCLIPImg2ImgPipeline,
    StableUnCLIPPipeline,
    UNet2DConditionModel,
)
from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import StableUnCLIPImageNormalizer
from PIL import Image
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)
from transformers.convert_slow_tokenizer import bytes_to_unicode

MERGES = [("c", "a"), ("ca", "t</w>"), ("r", "e"), ("re", "d</w>"), ("d", "o"), ("do", "g</w>")]
CONTEXT = 77
SCHEDULE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "steps_offset": 1,
}


def vocabulary() -> dict[str, int]:
    """As OpenAI lays it out: 256 bytes ("!" first), the same at the end of a word, merges, start and end."""
    symbols = list(bytes_to_unicode().values())
    pieces = [*symbols, *(f"{symbol}</w>" for symbol in symbols), *map("".join, MERGES)]
    pieces += ["<|startoftext|>", "<|endoftext|>"]
    return {piece: index for index, piece in enumerate(pieces)}


@torch.no_grad()
def filled(model: Any, seed: int) -> Any:
    """Weights of a trained net's size: matrices of variance 1 / inputs, norms about 1, biases about 0; none is zero."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        noise = torch.randn(weight.shape, generator=generator)
        if name in ("mean", "clip_mean"):
            weight.copy_(0.1 * noise)
        elif name.endswith(("std", "norm.weight")) or (weight.ndim < 2 and name.endswith("weight")):
            weight.copy_(1 + 0.1 * noise)
        elif weight.ndim >= 2 and "_embedding.weight" in name:
            weight.copy_(0.3 * noise)
        elif weight.ndim >= 2:
            weight.copy_(noise / weight[0].numel() ** 0.5)
        elif name.endswith("weight"):
            weight.copy_(1 + 0.1 * noise)
        else:
            weight.copy_(0.1 * noise)
    return model.eval()


def unet(**changes: Any) -> UNet2DConditionModel:
    """Stable Diffusion 1's U-Net, narrow: 686 keys as the real one, heads of 4, 8 and 12 channels."""
    options: dict[str, Any] = {
        "sample_size": 8,
        "block_out_channels": [32, 64, 96, 96],
        "layers_per_block": 2,
        "attention_head_dim": 8,
        "cross_attention_dim": 24,
    }
    return filled(UNet2DConditionModel(**(options | changes)), 1)


SD2: dict[str, Any] = {
    "attention_head_dim": [2, 4, 6, 6],
    "use_linear_projection": True,
    "cross_attention_dim": 48,
}


def vae(**changes: Any) -> AutoencoderKL:
    """Stable Diffusion's autoencoder, narrow: 248 keys as the real one."""
    options: dict[str, Any] = {
        "block_out_channels": [32, 64, 96, 96],
        "layers_per_block": 2,
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "latent_channels": 4,
        "sample_size": 64,
    }
    return filled(AutoencoderKL(**(options | changes)), 2)


def text_config(width: int = 24, layers: int = 2, act: str = "quick_gelu", **changes: Any) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(vocabulary()),
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        max_position_embeddings=CONTEXT,
        hidden_act=act,
        **({"num_attention_heads": 4, "projection_dim": 16, "eos_token_id": 2} | changes),
    )


def tokenizer(pad: str = "<|endoftext|>") -> CLIPTokenizer:
    return CLIPTokenizer(vocab=vocabulary(), merges=MERGES, pad_token=pad, model_max_length=CONTEXT)


def parts(version: int = 1, *, inpainting: bool = False) -> dict[str, Any]:
    """Components of StableDiffusionPipeline, of version 1 or 2 (v prediction, DDIM, pad 0)."""
    channels = {"in_channels": 9} if inpainting else {}
    if version == 1:
        return {
            "vae": vae(),
            "text_encoder": filled(CLIPTextModel(text_config()), 3),
            "tokenizer": tokenizer(),
            "unet": unet(**channels),
            "scheduler": PNDMScheduler(**SCHEDULE, skip_prk_steps=True, set_alpha_to_one=False),
        }
    return {
        "vae": vae(),
        "text_encoder": filled(CLIPTextModel(text_config(48, 2, "gelu")), 3),
        "tokenizer": tokenizer("!"),
        "unet": unet(**SD2, **channels),
        "scheduler": DDIMScheduler(
            **SCHEDULE, clip_sample=False, set_alpha_to_one=False, prediction_type="v_prediction"
        ),
    }


def quiet(pipeline: Any) -> Any:
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def plain(version: int = 1) -> StableDiffusionPipeline:
    return quiet(
        StableDiffusionPipeline(
            **parts(version), safety_checker=None, feature_extractor=None, requires_safety_checker=False
        )
    )


def inpainter(version: int = 1) -> StableDiffusionInpaintPipeline:
    return quiet(
        StableDiffusionInpaintPipeline(
            **parts(version, inpainting=True),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    )


WIDTH = 20
"""Of image embeddings; not that of the text's states."""


def unclip_parts() -> dict[str, Any]:
    normalizer = filled(StableUnCLIPImageNormalizer(WIDTH), 5)
    return {
        **parts(2),
        "unet": unet(**SD2, class_embed_type="projection", projection_class_embeddings_input_dim=2 * WIDTH),
        "image_normalizer": normalizer,
        "image_noising_scheduler": DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
    }


def unclip_images() -> StableUnCLIPImg2ImgPipeline:
    vision = CLIPVisionConfig(
        image_size=32,
        patch_size=8,
        hidden_size=32,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        projection_dim=WIDTH,
        hidden_act="gelu",
    )
    return quiet(
        StableUnCLIPImg2ImgPipeline(
            **unclip_parts(),
            image_encoder=filled(CLIPVisionModelWithProjection(vision), 6),
            feature_extractor=CLIPImageProcessor(
                size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
            ),
        )
    )


def unclip_texts() -> StableUnCLIPPipeline:
    prior = PriorTransformer(
        num_attention_heads=2,
        attention_head_dim=16,
        num_layers=2,
        embedding_dim=WIDTH,
        num_embeddings=CONTEXT,
    )
    return quiet(
        StableUnCLIPPipeline(
            **unclip_parts(),
            prior=filled(prior, 7),
            prior_text_encoder=filled(
                CLIPTextModelWithProjection(text_config(WIDTH, projection_dim=WIDTH)), 8
            ),
            prior_tokenizer=tokenizer("!"),
            prior_scheduler=DDPMScheduler(
                beta_schedule="squaredcos_cap_v2",
                prediction_type="sample",
                variance_type="fixed_small_log",
                clip_sample_range=5.0,
            ),
        )
    )


MAKERS: dict[str, Callable[[], Any]] = {
    "sd1": plain,
    "sd2": lambda: plain(2),
    "inpaint": inpainter,
    "unclip h": unclip_images,
    "unclip l": unclip_texts,
}


@pytest.fixture(scope="session")
def saved(tmp_path_factory) -> Callable[[str], tuple[Any, Path]]:
    """`saved(name)`: one of diffusers' pipelines and the folder that it was saved in."""
    made: dict[str, tuple[Any, Path]] = {}

    def get(name: str) -> tuple[Any, Path]:
        if name not in made:
            folder, pipeline = tmp_path_factory.mktemp("latent") / name, MAKERS[name]()
            save(pipeline, folder)
            made[name] = pipeline, folder
        return made[name]

    return get


def save(pipeline: Any, folder: Path, **options: Any) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipeline.save_pretrained(folder, **options)
    return folder


def edit(file: Path, **changes: Any) -> None:
    """Change options of a config; `...` takes one out."""
    data = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({name: value for name, value in data.items() if value is not ...}))


def picture(width: int = 64, height: int | None = None) -> Image.Image:
    generator = np.random.default_rng(0)
    small = Image.fromarray(generator.integers(0, 255, (8, 8, 3), np.uint8))
    return small.resize((width, height or width), Image.Resampling.BICUBIC)
