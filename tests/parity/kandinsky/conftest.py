"""Kandinsky in diffusers' own classes: narrow, with random weights and with the switches of the real one."""

import itertools
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DiffusionPipeline,
    KandinskyInpaintPipeline,
    KandinskyPipeline,
    KandinskyPriorPipeline,
    KandinskyV22InpaintPipeline,
    KandinskyV22Pipeline,
    KandinskyV22PriorPipeline,
    PriorTransformer,
    UnCLIPScheduler,
    UNet2DConditionModel,
    VQModel,
)
from diffusers.pipelines.kandinsky.text_encoder import MCLIPConfig, MultilingualCLIP
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    XLMRobertaTokenizer,
)


@torch.no_grad()
def _spread(model: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Weights that keep the size of what passes through them, and nothing left at zero or one.

    Matrices are N(0, 1/fan_in), biases N(0, 0.1), scales of norms 1 + N(0, 0.1).
    """
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        drawn = torch.randn(parameter.shape, generator=generator)
        if name in ("clip_mean", "clip_std"):
            parameter.copy_((name == "clip_std") + 0.2 * drawn)
        elif parameter.ndim >= 2:
            fan_in = parameter[0].numel()
            parameter.copy_(drawn * fan_in**-0.5)
        elif name.endswith("weight"):
            parameter.copy_((1 + 0.1 * drawn).abs())
        else:
            parameter.copy_(0.1 * drawn)
    return model.eval()


@pytest.fixture(scope="session")
def spread():
    """`_spread`, for all tests."""
    return _spread


CHANNELS = [32, 64, 96, 128]
TEXT_WIDTH = 28
"""Of the multilingual encoder; neither the width of embeddings nor of context tokens."""
CROSS = 24
EMBEDDING = {"2.1": CROSS, "2.2": 20}
"""Width of z_i. diffusers' classes of 2.1 take it for the width of context tokens too."""


def _unet(version: str, in_channels: int = 4) -> UNet2DConditionModel:
    own = {
        "2.2": {
            "encoder_hid_dim": EMBEDDING["2.2"],
            "encoder_hid_dim_type": "image_proj",
            "addition_embed_type": "image",
        },
        "2.1": {
            "encoder_hid_dim": TEXT_WIDTH,
            "encoder_hid_dim_type": "text_image_proj",
            "addition_embed_type": "text_image",
        },
    }
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=in_channels,
        out_channels=8,
        down_block_types=["ResnetDownsampleBlock2D", *["SimpleCrossAttnDownBlock2D"] * 3],
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=[*["SimpleCrossAttnUpBlock2D"] * 3, "ResnetUpsampleBlock2D"],
        block_out_channels=CHANNELS,
        layers_per_block=3,
        attention_head_dim=16,
        cross_attention_dim=CROSS,
        resnet_time_scale_shift="scale_shift",
        **own[version],
    )


@pytest.fixture(scope="session")
def unets() -> dict[tuple[str, int], UNet2DConditionModel]:
    """U-Nets of both versions, by version and number of input channels."""
    made = {}
    for index, (version, channels) in enumerate(itertools.product(("2.1", "2.2"), (4, 9))):
        made[version, channels] = _spread(_unet(version, channels), index)
    return made


CONTEXT = 13
SIZE = 32
"""Side of the pictures that the image encoder reads."""


def _clip(version: str, tokenizer: CLIPTokenizer) -> dict[str, Any]:
    """CLIP as the prior's folder holds it; states as wide as embeddings, as the prior takes them."""
    width = EMBEDDING[version]
    names = CLIPTextConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=CONTEXT,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        projection_dim=width,
        hidden_act="gelu" if version == "2.2" else "quick_gelu",
        eos_token_id=2,
    )
    vision = CLIPVisionConfig(
        image_size=SIZE,
        patch_size=8,
        hidden_size=32,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=2,
        projection_dim=width,
        hidden_act=names.hidden_act,
    )
    return {
        "tokenizer": tokenizer,
        "text_encoder": _spread(CLIPTextModelWithProjection(names), 11),
        "image_encoder": _spread(CLIPVisionModelWithProjection(vision), 12),
        "image_processor": CLIPImageProcessor(
            size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE}
        ),
    }


SCHEDULERS: dict[tuple[str, bool], tuple[type, dict[str, Any]]] = {
    ("2.2", False): (DDPMScheduler, {"clip_sample": True}),
    ("2.2", True): (DDPMScheduler, {"clip_sample": False}),
    ("2.1", False): (DDIMScheduler, {"clip_sample": False, "set_alpha_to_one": False}),
    ("2.1", True): (DDIMScheduler, {"clip_sample": False, "set_alpha_to_one": False}),
}
"""By version, and whether it inpaints."""


def _scheduler(version: str, inpainting: bool) -> Any:
    """A scheduler with Kandinsky's table."""
    kind, own = SCHEDULERS[version, inpainting]
    return kind(beta_start=0.00085, beta_end=0.012, beta_schedule="linear", steps_offset=1, **own)


def _movq() -> VQModel:
    return VQModel(
        down_block_types=[*["DownEncoderBlock2D"] * 3, "AttnDownEncoderBlock2D"],
        up_block_types=["AttnUpDecoderBlock2D", *["UpDecoderBlock2D"] * 3],
        block_out_channels=[32, 64, 64, 96],
        layers_per_block=2,
        latent_channels=4,
        num_vq_embeddings=64,
        vq_embed_dim=4,
        norm_type="spatial",
    )


def _multilingual() -> dict[str, Any]:
    """Text encoder and tokenizer of 2.1's decoder."""
    letters = "abcdefghijklmnopqrstuvwxyzäöüß"
    special = [(name, 0.0) for name in ("<s>", "<pad>", "</s>", "<unk>")]
    pieces = [*special, ("▁", -2.0), ("▁red", -3.0), ("▁cat", -3.5), *((one, -6.0) for one in letters)]
    tokenizer = XLMRobertaTokenizer(vocab=[*pieces, ("<mask>", 0.0)], model_max_length=512)
    config = MCLIPConfig(
        transformerDimSize=TEXT_WIDTH,
        imageDimSize=CROSS,
        vocab_size=len(tokenizer),
        hidden_size=TEXT_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=52,
        max_position_embeddings=80,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
    )
    return {"tokenizer": tokenizer, "text_encoder": _spread(MultilingualCLIP(config), 14)}


PIPELINES = {
    ("2.1", "prior"): KandinskyPriorPipeline,
    ("2.1", "decoder"): KandinskyPipeline,
    ("2.1", "inpaint"): KandinskyInpaintPipeline,
    ("2.2", "prior"): KandinskyV22PriorPipeline,
    ("2.2", "decoder"): KandinskyV22Pipeline,
    ("2.2", "inpaint"): KandinskyV22InpaintPipeline,
}


def _prior(version: str, tokenizer: CLIPTokenizer) -> dict[str, Any]:
    transformer = PriorTransformer(
        num_attention_heads=2,
        attention_head_dim=16,
        num_layers=2,
        embedding_dim=EMBEDDING[version],
        num_embeddings=CONTEXT,
    )
    scheduler = UnCLIPScheduler(
        prediction_type="sample", variance_type="fixed_small_log", clip_sample_range=10.0
    )
    return _clip(version, tokenizer) | {"prior": _spread(transformer, 13), "scheduler": scheduler}


@pytest.fixture(scope="session")
def pipelines(unets, karlo_parts) -> dict[tuple[str, str], DiffusionPipeline]:
    """Pipelines of both versions, by version and "prior", "decoder" or "inpaint"."""
    movq, multilingual, made = _spread(_movq(), 15), _multilingual(), {}
    for (version, name), kind in PIPELINES.items():
        if name == "prior":
            parts = _prior(version, karlo_parts["tokenizer"])
        else:
            inpainting = name == "inpaint"
            unet = unets[version, 9 if inpainting else 4]
            parts = {"unet": unet, "movq": movq, "scheduler": _scheduler(version, inpainting)}
            parts |= multilingual if version == "2.1" else {}
        made[version, name] = kind(**parts)
        made[version, name].set_progress_bar_config(disable=True)
    return made


@pytest.fixture(scope="session")
def folders(pipelines, tmp_path_factory) -> dict[tuple[str, str], Path]:
    """The pipelines as diffusers saves them."""
    home, made = tmp_path_factory.mktemp("kandinsky"), {}
    for (version, name), pipeline in pipelines.items():
        folder = home / f"kandinsky-{version.replace('.', '-')}-{name}"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pipeline.save_pretrained(folder)
        (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A model\n")
        made[version, name] = folder
    return made
