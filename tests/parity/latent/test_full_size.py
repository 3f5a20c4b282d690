"""Every weight of the public latent models at full size, by name and shape, and nothing beside: no memory, no download.

The configs are those of the files; names and shapes come from the reference classes on the meta device. Counts are those of
the published files.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModelWithProjection

from unclip.checkpoints.io import build
from unclip.checkpoints.keymap import Table
from unclip.diffusion.parametrization import ProcessConfig
from unclip.formats.key_maps import autoencoder, clip, latent_file, latent_unet, unclip_file
from unclip.networks.autoencoder import Autoencoder, AutoencoderConfig
from unclip.networks.clip import Clip, ClipConfig, TextConfig, VisionConfig
from unclip.networks.text_decoder import TextDecoder, TextDecoderConfig
from unclip.networks.text_encoder import TextEncoder, TextEncoderConfig

SD1: dict[str, Any] = {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}
SD2: dict[str, Any] = {
    "sample_size": 96,
    "cross_attention_dim": 1024,
    "attention_head_dim": [5, 10, 20, 20],
    "use_linear_projection": True,
    "upcast_attention": True,
}
UNCLIP = SD2 | {"class_embed_type": "projection"}
UNETS: dict[str, tuple[dict[str, Any], int, int]] = {
    "1.5": (SD1, 686, 859_520_964),
    "1.5 inpainting": (SD1 | {"in_channels": 9}, 686, 859_535_364),
    "2.1": (SD2, 686, 865_910_724),
    "2 inpainting": (SD2 | {"in_channels": 9}, 686, 865_925_124),
    "unclip h": (UNCLIP | {"projection_class_embeddings_input_dim": 2048}, 690, 870_173_124),
    "unclip l": (UNCLIP | {"projection_class_embeddings_input_dim": 1536}, 690, 869_517_764),
}


def reference(kind: Any, *arguments: Any, **options: Any) -> Any:
    with torch.device("meta"):
        return kind(*arguments, **options)


def claimed(table: Table, ours: Mapping[str, torch.Tensor], theirs: Mapping[str, torch.Tensor]) -> None:
    """All names and shapes of the reference are those that the table asks for."""
    made = {name: tuple(one.shape) for name, one in table.to_theirs(ours).items()}
    assert made == {name: tuple(one.shape) for name, one in theirs.items()}


def decoder(data: Mapping[str, Any]) -> tuple[TextDecoderConfig, dict[str, torch.Tensor]]:
    net = latent_unet.read_config(data, "unet")
    embedding = None if net.vector_width is None else net.vector_width // 2
    config = TextDecoderConfig(
        net=net,
        embedding=embedding,
        inpainting=net.in_channels == 9,
        process=ProcessConfig(parametrization="eps", schedule="scaled_linear"),
    )
    state = build(TextDecoder, config).state_dict()
    return config, {name: one for name, one in state.items() if name.startswith("net.")}


@pytest.mark.slow
@pytest.mark.parametrize("name", UNETS)
def test_unet(name):
    options, keys, numbers = UNETS[name]
    theirs = reference(UNet2DConditionModel, **options)
    state = theirs.state_dict()
    assert (len(state), sum(one.numel() for one in state.values())) == (keys, numbers)
    _, ours = decoder(json.loads(theirs.to_json_string()))
    claimed(latent_unet.table("", linear="use_linear_projection" in options), ours, state)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["1.5", "2.1"])
def test_single_file(name):
    """686 weights under the original code's names, as many as the files have."""
    theirs = reference(UNet2DConditionModel, **UNETS[name][0])
    config, ours = decoder(json.loads(theirs.to_json_string()))
    for averaged in (False, True):
        table = latent_file.decoder_table(config.net, ours, linear=name == "2.1", averaged=averaged)
        made = table.to_theirs(ours)
        assert len(made) == 686
        assert sum(one.numel() for one in made.values()) == UNETS[name][2]
    shapes = latent_file.decoder_table(config.net, ours, linear=name == "2.1", averaged=False).to_theirs(ours)
    version = 1 if name == "1.5" else 2
    found = latent_file.unet_config(shapes, version, "file")
    assert found.heads[:3] == config.net.heads[:3]
    assert (found.multiples, found.attention_levels, found.blocks) == ((1, 2, 4, 4), (0, 1, 2), 2)


MORE_TABLES = ("sqrt_one_minus_alphas_cumprod", "log_one_minus_alphas_cumprod")
MORE_TABLES += ("sqrt_recip_alphas_cumprod", "sqrt_recipm1_alphas_cumprod")
LEFT_OF_TEXT = ("positional_embedding", "text_projection", "logit_scale", "token_embedding.weight")
LEFT_OF_TEXT += ("ln_final.weight", "ln_final.bias", "attn_mask")
"""What is left of H's text tower, whose transformer was taken out."""
VISION = {
    "h": ClipConfig(
        embedding=1024,
        normalize=False,
        towers="image",
        vision=VisionConfig(size=224, patch=14, width=1280, layers=32, heads=16, activation="gelu"),
    ),
    "l": ClipConfig(
        embedding=768,
        normalize=False,
        vision=VisionConfig(size=224, patch=14, width=1024, layers=24, heads=16, activation="quick_gelu"),
        text=TextConfig(width=768, layers=12, heads=12, activation="quick_gelu"),
    ),
}


@pytest.mark.parametrize(("name", "keys", "numbers"), [("h", 392, 632_076_800), ("l", 446, 427_616_513)])
def test_single_file_of_stable_unclip(name, keys, numbers):
    """Every weight of the file belongs to a part or is known not to be read, and the config of its CLIP is the real one."""
    theirs = reference(UNet2DConditionModel, **UNETS[f"unclip {name}"][0])
    config, net = decoder(json.loads(theirs.to_json_string()))
    ours = build(TextDecoder, config).state_dict()
    base = latent_file.decoder_table(config.net, net, linear=True, averaged=False)
    file = base.to_theirs(net)
    assert len(file) == 690
    file |= latent_file.autoencoder_table(AutoencoderConfig()).to_theirs(
        build(Autoencoder, AutoencoderConfig()).state_dict()
    )
    tower = TextConfig(width=1024, layers=24, heads=16, activation="gelu")
    reading = build(TextEncoder, TextEncoderConfig(text=tower)).state_dict()
    file |= latent_file.text_table(2, 24).to_theirs(reading)
    real = VISION[name]
    clip_state = build(Clip, real).state_dict()
    held = unclip_file.clip_table(real).to_theirs(clip_state)
    assert (len(held), sum(one.numel() for one in held.values())) == (keys, numbers)
    tables = ("betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod", *MORE_TABLES)
    file |= held | {f"noise_augmentor.{key}": torch.empty(1000, device="meta") for key in tables}
    if name == "h":
        file |= {f"embedder.model.{key}": torch.empty(1, device="meta") for key in LEFT_OF_TEXT}
    file |= {"betas": torch.empty(1000, device="meta"), "model_ema.decay": torch.empty((), device="meta")}
    found = unclip_file.clip_config(file, "file")
    squashed = replace(real.vision, resize="squash", mean=found.vision.mean, std=found.vision.std)
    assert found.vision.mean[0] == pytest.approx(0.48145466)
    assert replace(found, text=real.text) == replace(real, vision=squashed)
    assert latent_file.version_of(file, "file") == 2
    assert latent_file.unet_config(file, 2, "file") == replace(
        config.net, heads=(5, 10, 20, 20), upcast_attention=False
    )
    apart = unclip_file.needs_statistics(file, real.embedding)
    assert apart == (name == "l")
    stats = {"stats/mean": torch.empty(768, device="meta"), "stats/std": torch.empty(768, device="meta")}
    tables = (
        (unclip_file.decoder_table(base, file, apart=apart), ours, stats if apart else {}),
        (unclip_file.clip_table(found), clip_state, {}),
        (
            latent_file.autoencoder_table(AutoencoderConfig()),
            build(Autoencoder, AutoencoderConfig()).state_dict(),
            {},
        ),
        (latent_file.text_table(2, 24), reading, {}),
    )
    for table, parts, more in tables:
        given = file | more
        assert len(dict(table.to_ours(parts, list(given), lambda key: given[key], "file"))) == len(parts)  # noqa: B023


def test_autoencoder():
    theirs = reference(
        AutoencoderKL,
        block_out_channels=[128, 256, 512, 512],
        layers_per_block=2,
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
    )
    state = theirs.state_dict()
    assert (len(state), sum(one.numel() for one in state.values())) == (248, 83_653_863)
    config = autoencoder.read_config(json.loads(theirs.to_json_string()), "vae")
    ours = build(Autoencoder, config).state_dict()
    claimed(autoencoder.table(""), ours, state)
    assert len(latent_file.autoencoder_table(config).to_theirs(ours)) == 248


TEXTS = {
    "1.x": ({"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}, 196, 123_060_480),
    "2.x": (
        {"hidden_size": 1024, "num_hidden_layers": 23, "num_attention_heads": 16, "hidden_act": "gelu"},
        372,
        340_387_840,
    ),
}


@pytest.mark.parametrize("name", TEXTS)
def test_text_tower(name):
    options, keys, numbers = TEXTS[name]
    data = CLIPTextConfig(**options, intermediate_size=4 * options["hidden_size"], projection_dim=512)
    state = reference(CLIPTextModel, data).state_dict()
    state = {f"text_model.{key.removeprefix('text_model.')}": one for key, one in state.items()}
    assert (len(state), sum(one.numel() for one in state.values())) == (keys, numbers)
    text = clip.text_config(data.to_dict(), embedding=512, end=49407, where="text")
    ours = build(TextEncoder, TextEncoderConfig(text=text)).state_dict()
    claimed(clip.text_tower(""), ours, state)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("width", "layers", "heads", "hidden", "projection", "keys", "numbers"),
    [(1024, 24, 16, 4096, 768, 392, 303_966_208), (1280, 32, 16, 5120, 1024, 520, 632_076_800)],
)
def test_image_tower(width, layers, heads, hidden, projection, keys, numbers):
    data = CLIPVisionConfig(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=hidden,
        projection_dim=projection,
        patch_size=14,
        hidden_act="gelu",
    )
    state = reference(CLIPVisionModelWithProjection, data).state_dict()
    state.pop("vision_model.embeddings.position_ids", None)
    assert (len(state), sum(one.numel() for one in state.values())) == (keys, numbers)
    vision = clip.vision_config(data.to_dict(), embedding=projection, of="the width", where="vision")
    config = ClipConfig(embedding=projection, vision=vision, normalize=False, towers="image")
    claimed(clip.image_tower(""), build(Clip, config).state_dict(), state)
