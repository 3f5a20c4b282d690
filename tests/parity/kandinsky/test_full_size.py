"""Every weight of Kandinsky's files at full size, by name and shape, and nothing beside: no memory, no download.

Names and shapes come from diffusers' classes on the meta device, counts from the sizes of the published files.
"""

from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel, VQModel
from diffusers.pipelines.kandinsky.text_encoder import MCLIPConfig, MultilingualCLIP

from unclip.checkpoints.io import build
from unclip.checkpoints.keymap import Table
from unclip.formats.key_maps import kandinsky as kandinsky_map
from unclip.formats.key_maps import movq as movq_map
from unclip.formats.key_maps import multilingual as multilingual_map
from unclip.formats.key_maps.kandinsky_scheduler import read_schedule
from unclip.networks.kandinsky import KandinskyDecoder
from unclip.networks.movq import Movq
from unclip.networks.multilingual import Multilingual

UNET: dict[str, Any] = {
    "act_fn": "silu",
    "attention_head_dim": 64,
    "block_out_channels": [384, 768, 1152, 1536],
    "cross_attention_dim": 768,
    "down_block_types": ["ResnetDownsampleBlock2D", *["SimpleCrossAttnDownBlock2D"] * 3],
    "layers_per_block": 3,
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "out_channels": 8,
    "resnet_time_scale_shift": "scale_shift",
    "sample_size": 64,
    "up_block_types": [*["SimpleCrossAttnUpBlock2D"] * 3, "ResnetUpsampleBlock2D"],
}
OWN = {
    "2.2": {"addition_embed_type": "image", "encoder_hid_dim": 1280, "encoder_hid_dim_type": "image_proj"},
    "2.1": {
        "addition_embed_type": "text_image",
        "encoder_hid_dim": 1024,
        "encoder_hid_dim_type": "text_image_proj",
    },
}
COUNTS = {
    ("2.2", 4): (724, 1_253_057_288),
    ("2.2", 9): (724, 1_253_074_568),
    ("2.1", 4): (726, 1_228_661_768),
    ("2.1", 9): (726, 1_228_679_048),
}
MOVQ: dict[str, Any] = {
    "block_out_channels": [128, 256, 256, 512],
    "down_block_types": [*["DownEncoderBlock2D"] * 3, "AttnDownEncoderBlock2D"],
    "up_block_types": ["AttnUpDecoderBlock2D", *["UpDecoderBlock2D"] * 3],
    "latent_channels": 4,
    "layers_per_block": 2,
    "norm_type": "spatial",
    "num_vq_embeddings": 16384,
    "vq_embed_dim": 4,
}


def agree(ours: torch.nn.Module, table: Table, theirs: torch.nn.Module, prefix: str, keys: int, count: int):
    """The table makes their names and shapes of ours, all of them, but for what it ignores."""
    made = {name: value.shape for name, value in table.to_theirs(ours.state_dict()).items()}
    held = {prefix + name: value.shape for name, value in theirs.state_dict().items()}
    assert (len(held), sum(value.numel() for value in theirs.state_dict().values())) == (keys, count)
    assert made == held


@pytest.mark.parametrize(("version", "channels"), list(COUNTS))
def test_decoders(version, channels):
    given = UNET | OWN[version] | {"in_channels": channels}
    with torch.device("meta"):
        theirs = UNet2DConditionModel(**given)
    schedule = read_schedule({"_class_name": "DDPMScheduler"}, "scheduler")
    config = kandinsky_map.decoder_config(
        {"_class_name": "UNet2DConditionModel", **given},
        schedule,
        channels=4,
        factor=8,
        context=77,
        where="unet",
    )
    assert (config.size, config.embedding) == (512, 1280 if version == "2.2" else 768)
    network = build(KandinskyDecoder, config)
    agree(network, kandinsky_map.table(config), theirs, "unet/", *COUNTS[version, channels])


def test_movq():
    with torch.device("meta"):
        theirs = VQModel(**MOVQ)
    config = movq_map.read_config({"_class_name": "VQModel", **MOVQ}, "movq")
    agree(build(Movq, config), movq_map.TABLE, theirs, "", 431, 67_832_495)


def test_multilingual_encoder():
    """But for its pooler, which nothing reads."""
    given = MCLIPConfig(
        vocab_size=250002,
        hidden_size=1024,
        num_hidden_layers=24,
        num_attention_heads=16,
        intermediate_size=4096,
        max_position_embeddings=514,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
    )
    with torch.device("meta"):
        theirs = MultilingualCLIP(given)
    config = multilingual_map.read_config(given.to_dict(), 77, "text_encoder")
    table = multilingual_map.table("text_encoder/")
    held = {f"text_encoder/{name}": value.shape for name, value in theirs.state_dict().items()}
    assert (len(held), sum(shape.numel() for shape in held.values())) == (393, 560_677_632)
    made = table.to_theirs(build(Multilingual, config).state_dict())
    pooler = {name: shape for name, shape in held.items() if ".pooler." in name}
    assert {name: value.shape for name, value in made.items()} | pooler == held
    assert len(pooler) == 2
