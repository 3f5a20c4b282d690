"""Every weight of the public files at full size, by name and shape, and nothing beside: no memory, no download.

The configs are those of the files. Names and shapes come from the reference classes, built on the meta device; those of
Karlo's original classes (https://github.com/kakaobrain/karlo) are kept in `karlo_original.txt`.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import PriorTransformer, UNet2DConditionModel, UNet2DModel
from diffusers.pipelines.deprecated.unclip import UnCLIPTextProjModel
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from unclip.checkpoints.io import build
from unclip.checkpoints.keymap import Table
from unclip.formats import clip_openclip, eclipse, karlo, karlo_original
from unclip.formats.key_maps import clip as clip_map
from unclip.formats.key_maps import prior as prior_map
from unclip.networks.clip import Clip
from unclip.networks.decoder import Decoder
from unclip.networks.prior_diffusion import DiffusionPrior
from unclip.networks.upsampler import Upsampler

PRIOR = {
    "_class_name": "PriorTransformer",
    "num_attention_heads": 32,
    "attention_head_dim": 64,
    "num_layers": 20,
    "embedding_dim": 768,
    "num_embeddings": 77,
    "additional_embeddings": 4,
    "dropout": 0.0,
}
_UNET = {
    "block_out_channels": [320, 640, 960, 1280],
    "layers_per_block": 3,
    "norm_num_groups": 32,
    "norm_eps": 1e-05,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "act_fn": "silu",
    "center_input_sample": False,
    "downsample_padding": 1,
    "mid_block_scale_factor": 1,
}
DECODER = _UNET | {
    "_class_name": "UNet2DConditionModel",
    "sample_size": 64,
    "in_channels": 3,
    "out_channels": 6,
    "down_block_types": ["ResnetDownsampleBlock2D", *["SimpleCrossAttnDownBlock2D"] * 3],
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "up_block_types": [*["SimpleCrossAttnUpBlock2D"] * 3, "ResnetUpsampleBlock2D"],
    "attention_head_dim": 64,
    "cross_attention_dim": 1536,
    "class_embed_type": "identity",
    "resnet_time_scale_shift": "scale_shift",
    "only_cross_attention": False,
}
UPSAMPLER = _UNET | {
    "_class_name": "UNet2DModel",
    "sample_size": 256,
    "in_channels": 6,
    "out_channels": 3,
    "down_block_types": ["ResnetDownsampleBlock2D"] * 4,
    "up_block_types": ["ResnetUpsampleBlock2D"] * 4,
    "attention_head_dim": 8,
    "add_attention": False,
    "resnet_time_scale_shift": "default",
}
TEXT_PROJ = {
    "_class_name": "UnCLIPTextProjModel",
    "clip_embeddings_dim": 768,
    "clip_extra_context_tokens": 4,
    "cross_attention_dim": 1536,
    "time_embed_dim": 1280,
}
TEXT = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "projection_dim": 768,
    "hidden_act": "quick_gelu",
    "eos_token_id": 2,
}
VISION = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "projection_dim": 768,
    "image_size": 224,
    "patch_size": 14,
    "hidden_act": "quick_gelu",
}


def scheduler(prediction: str, variance: str, limit: float) -> dict[str, Any]:
    return {
        "_class_name": "UnCLIPScheduler",
        "num_train_timesteps": 1000,
        "prediction_type": prediction,
        "variance_type": variance,
        "clip_sample": True,
        "clip_sample_range": limit,
    }


def shapes(model: type, config: Mapping[str, Any], prefix: str) -> dict[str, tuple[int, ...]]:
    """The names and shapes of a reference class's weights."""
    with torch.device("meta"):
        made = model(**{name: value for name, value in config.items() if not name.startswith("_")})
    return {prefix + name: tuple(weight.shape) for name, weight in made.state_dict().items()}


def total(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """How many numbers that is."""
    return sum(torch.Size(shape).numel() for shape in shapes.values())


def check(network: torch.nn.Module, table: Table, theirs: Mapping[str, tuple[int, ...]]) -> None:
    """All of `theirs` is used, all of ours is there, and every shape is the one that the file has."""
    ours = {name: torch.empty_like(weight, device="meta") for name, weight in network.state_dict().items()}
    held = {name: torch.empty(shape, device="meta") for name, shape in theirs.items()}
    made = dict(table.to_ours(ours, held, held.__getitem__, "the list"))
    assert {name: weight.shape for name, weight in made.items()} == {n: w.shape for n, w in ours.items()}


CLIP_TEXT = clip_map.transformers_config(
    TEXT, None, embedding=768, end=49407, where="text_encoder", normalize=False
)
DECODER_CONFIG = karlo.decoder_config(
    DECODER, TEXT_PROJ, scheduler("epsilon", "learned_range", 1.0), CLIP_TEXT, 49406, "karlo"
)


def test_karlos_prior():
    config = prior_map.prior_config(PRIOR, scheduler("sample", "fixed_small_log", 5.0), "prior")
    theirs = shapes(PriorTransformer, PRIOR, "prior/")
    # The count is the one that Karlo's own class has, and mean and standard deviation.
    assert total(theirs) == 1_022_028_544 + 2 * 768
    check(build(DiffusionPrior, config), prior_map.PRIOR, theirs)


def text_encoder() -> dict[str, tuple[int, ...]]:
    return shapes(lambda **given: CLIPTextModelWithProjection(CLIPTextConfig(**given)), TEXT, "text_encoder/")


def test_karlos_decoder():
    unet, projections = (
        shapes(UNet2DConditionModel, DECODER, "decoder/"),
        shapes(UnCLIPTextProjModel, TEXT_PROJ, "text_proj/"),
    )
    assert (len(unet), len(projections)) == (716, 11)
    check(build(Decoder, DECODER_CONFIG), karlo.decoder_table(4), unet | projections)


def test_karlos_upsampler():
    config = karlo.upsampler_config(
        UPSAMPLER,
        UPSAMPLER | {"sample_size": None},
        scheduler("epsilon", "fixed_small_log", 1.0),
        64,
        "karlo",
    )
    first = shapes(UNet2DModel, UPSAMPLER, "")
    assert len(first) == 408
    both = {
        f"{part}/{name}": shape
        for part in ("super_res_first", "super_res_last")
        for name, shape in first.items()
    }
    check(build(Upsampler, config), karlo.UPSAMPLER, both)


def test_karlos_text_tower():
    # Files of that age have the table of positions.
    old = {"text_encoder/text_model.embeddings.position_ids": (1, 77)}
    check(build(Clip, CLIP_TEXT), clip_map.split_towers("text_encoder/", None), text_encoder() | old)


def vit_l() -> dict[str, tuple[int, ...]]:
    return shapes(
        lambda **given: CLIPModel(CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=768)),
        {},
        "",
    )


# OpenCLIP's ViT-bigG/14, as Kandinsky 2.2 has it.
BIG_TEXT = TEXT | {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "projection_dim": 1280,
}
BIG_TEXT |= {"num_attention_heads": 20, "hidden_act": "gelu"}
BIG_VISION = VISION | {"hidden_size": 1664, "intermediate_size": 8192, "num_hidden_layers": 48}
BIG_VISION |= {"num_attention_heads": 16, "hidden_act": "gelu", "projection_dim": 1280}


@pytest.mark.parametrize(
    ("text", "vision", "width"), [(TEXT, VISION, 768), (BIG_TEXT, BIG_VISION, 1280)], ids=["2.1", "2.2"]
)
def test_kandinskys_priors(text, vision, width):
    """The prior, and both towers in folders of their own, as Karlo's variations have them too."""
    data = PRIOR | {"embedding_dim": width, "num_layers": 20}
    config = prior_map.prior_config(data, scheduler("sample", "fixed_small_log", 10.0), "prior")
    assert (config.embedding, config.clip_range) == (width, 10.0)
    check(build(DiffusionPrior, config), prior_map.PRIOR, shapes(PriorTransformer, data, "prior/"))
    clip = clip_map.transformers_config(
        text, vision, embedding=width, end=49407, where="clip", normalize=False
    )
    towers = {
        **shapes(lambda **given: CLIPTextModelWithProjection(CLIPTextConfig(**given)), text, "text_encoder/"),
        **shapes(
            lambda **given: CLIPVisionModelWithProjection(CLIPVisionConfig(**given)), vision, "image_encoder/"
        ),
    }
    check(build(Clip, clip), clip_map.split_towers("text_encoder/", "image_encoder/"), towers)


@pytest.mark.parametrize("width", [768, 1280])
def test_eclipses_priors(width):
    """For Karlo and for Kandinsky 2.2: 33 million weights, 16 heads of 32, ten layers, and no label."""
    data = PRIOR | {"embedding_dim": width, "num_attention_heads": 16, "attention_head_dim": 32}
    data |= {"num_layers": 10, "additional_embeddings": 3}
    theirs = shapes(PriorTransformer, data, "")
    held = {name: shape for name, shape in theirs.items() if not name.startswith("time_embedding")}
    assert 32e6 < total(held) < 36e6
    check(build(DiffusionPrior, eclipse.read_config(data, "prior")), eclipse.TABLE, held)


def test_clip_in_transformers_layout():
    config = clip_map.transformers_config(TEXT, VISION, embedding=768, end=49407, where="clip")
    assert total(vit_l()) == 427_616_513
    check(build(Clip, config), clip_map.TRANSFORMERS, vit_l())


@pytest.mark.parametrize("model", ["ViT-L-14", "ViT-H-14", "ViT-bigG-14"])
def test_clip_in_openclips_layout(listed, model):
    """`record_openclip.py` listed what OpenCLIP's own class has."""
    config = json.loads(Path(__file__).with_name("openclip.json").read_text())[model]
    check(
        build(Clip, clip_openclip.read_config(config, model)),
        clip_map.openai_table(),
        listed("openclip.txt", f"{model}/"),
    )


def test_clip_in_openais_layout(listed):
    """The names are OpenCLIP's. OpenAI's archives hold facts about the model besides, and no config: all is told by the shapes."""
    config = clip_map.transformers_config(TEXT, VISION, embedding=768, end=49407, where="clip")
    facts = {"input_resolution": (), "context_length": (), "vocab_size": ()}
    held = listed("openclip.txt", "ViT-L-14/") | facts
    assert total(held) - len(facts) == 427_616_513
    check(build(Clip, config), clip_map.openai_table(), held)
    assert clip_map.openai_config({n: torch.empty(s, device="meta") for n, s in held.items()}, "x") == config


@pytest.fixture(scope="module")
def original(listed) -> dict[str, tuple[int, ...]]:
    return listed("karlo_original.txt")


def part(keys: Mapping[str, tuple[int, ...]], prefix: str) -> dict[str, tuple[int, ...]]:
    return {name: shape for name, shape in keys.items() if name.startswith(prefix)}


def test_original_karlo(original):
    sizes = karlo_original.KARLO
    prior = part(original, "prior/")
    assert (len(prior), total(prior)) == (256, 1_022_028_544)
    stats = {"stats/mean": (768,), "stats/std": (768,)}
    check(build(DiffusionPrior, sizes.prior), karlo_original.prior_table(sizes.prior), prior | stats)
    clip = clip_map.transformers_config(TEXT, VISION, embedding=768, end=49407, where="clip")
    config = karlo_original.decoder_config(sizes, clip, 49406)
    assert config == DECODER_CONFIG
    held = part(original, "decoder/")
    # The U-Net's 885,439,686, and the projections.
    assert (len(held), total(held)) == (595, 893_318_086)
    check(build(Decoder, config), karlo_original.decoder_table(config), held)
    first = part(original, "upsampler/")
    assert total(first) == 691_579_523
    last = {name.replace("model_first_steps", "model_last_step"): shape for name, shape in first.items()}
    check(build(Upsampler, sizes.upsampler), karlo_original.upsampler_table(sizes.upsampler), first | last)
