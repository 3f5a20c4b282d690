"""Trained networks written in public formats, for other programs to read."""

import json
from pathlib import Path
from typing import Any

from unclip.checkpoints.io import write_weights
from unclip.formats.key_maps.autoencoder import table
from unclip.networks.autoencoder import Autoencoder, AutoencoderConfig


def export_autoencoder(network: Autoencoder, folder: Path) -> Path:
    """Write an autoencoder as diffusers' `AutoencoderKL.from_pretrained` reads it; the folder.

    A mean and a standard deviation for each channel become `latents_mean` and `latents_std`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = table("").to_theirs(network.state_dict())
    write_weights(folder / "diffusion_pytorch_model.safetensors", weights)
    text = json.dumps(autoencoder_config(network.config), indent=2) + "\n"
    (folder / "config.json").write_text(text, encoding="utf-8")
    return folder


def autoencoder_config(config: AutoencoderConfig) -> dict[str, Any]:
    """diffusers' config of an autoencoder. Raises ValueError for one that folds pixels, which diffusers' cannot."""
    if config.patch != 1:
        raise ValueError(
            f"this autoencoder folds blocks of {config.patch} x {config.patch} pixels into channels, which diffusers' "
            "AutoencoderKL cannot: train one with model.patch=1"
        )
    down, up = (
        [names[level in config.attention_levels] for level in range(len(config.multiples))]
        for names in (
            ("DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
            ("UpDecoderBlock2D", "AttnUpDecoderBlock2D"),
        )
    )
    return {
        "_class_name": "AutoencoderKL",
        "in_channels": config.in_channels,
        "out_channels": config.in_channels,
        "down_block_types": down,
        "up_block_types": up[::-1],
        "block_out_channels": list(config.widths),
        "layers_per_block": config.blocks,
        "latent_channels": config.latent_channels,
        "mid_block_add_attention": config.middle_attention,
        "norm_num_groups": config.groups,
        "use_quant_conv": config.quant,
        "use_post_quant_conv": config.quant,
        "scaling_factor": config.scale,
        "latents_mean": None if config.mean is None else list(config.mean),
        "latents_std": None if config.std is None else list(config.std),
    }
