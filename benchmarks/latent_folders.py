"""Model folders like Stable Diffusion 1.5 and Kandinsky 2.2, in diffusers' layout, with random weights: no download.

python benchmarks/latent_folders.py sd FOLDER [--size default|tiny]
"""

# diffusers imports its names lazily, which type checkers do not follow.
# pyright: reportPrivateImportUsage=false, reportAttributeAccessIssue=false

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from kandinsky import write_folder as write_kandinsky
from kandinsky import write_weights
from karlo_folder import CONTEXT, VOCABULARY, write_tokenizer

FAMILIES = ("sd", "kandinsky")

#: Kandinsky's networks by size, as changes to its own; "full" has none. The picture tower is used once, for a grey picture.
KANDINSKY: dict[str, dict[str, dict[str, Any]]] = {
    "full": {},
    "default": {
        "prior_text_encoder": {"num_hidden_layers": 8},
        "prior_image_encoder": {"num_hidden_layers": 2},
        "prior_prior": {"num_layers": 10, "num_attention_heads": 16},
        "unet": {"block_out_channels": [192, 384, 576, 768]},
    },
    "tiny": {
        "prior_text_encoder": {
            "hidden_size": 64,
            "intermediate_size": 256,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "projection_dim": 64,
        },
        "prior_image_encoder": {
            "hidden_size": 64,
            "intermediate_size": 256,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "projection_dim": 64,
            "image_size": 28,
        },
        "prior_prior": {
            "embedding_dim": 64,
            "num_layers": 1,
            "num_attention_heads": 2,
            "attention_head_dim": 32,
        },
        "unet": {
            "block_out_channels": [32, 64, 96, 96],
            "layers_per_block": 1,
            "attention_head_dim": 32,
            "cross_attention_dim": 64,
            "encoder_hid_dim": 64,
        },
        "movq": {"block_out_channels": [32, 32, 64, 64], "num_vq_embeddings": 64},
    },
}
SIZES = tuple(KANDINSKY)

SD_TEXT: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "max_position_embeddings": CONTEXT,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "projection_dim": 768,
    "hidden_act": "quick_gelu",
    "eos_token_id": 2,
}
SD_UNET: dict[str, Any] = {
    "sample_size": 64,
    "block_out_channels": [320, 640, 1280, 1280],
    "layers_per_block": 2,
    "attention_head_dim": 8,
    "cross_attention_dim": 768,
}
SD_VAE: dict[str, Any] = {
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "latent_channels": 4,
    "sample_size": 512,
    "scaling_factor": 0.18215,
}
SD_TINY: dict[str, dict[str, Any]] = {
    "text_encoder": {
        "hidden_size": 64,
        "intermediate_size": 256,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    },
    "unet": {"block_out_channels": [32, 64, 64, 64], "cross_attention_dim": 64},
    "vae": {"block_out_channels": [32, 32, 64, 64]},
}
SD_SCHEDULER: dict[str, Any] = {
    "_class_name": "DDIMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "steps_offset": 1,
    "clip_sample": False,
    "set_alpha_to_one": False,
}


def write_folder(folder: Path, family: str, size: str) -> None:
    """Write the folder of a family, in bfloat16."""
    if family == "kandinsky":
        write_kandinsky(folder, KANDINSKY[size])
    else:
        write_sd(folder, SD_TINY if size == "tiny" else {})


def write_sd(folder: Path, changes: Mapping[str, Mapping[str, Any]]) -> None:
    """Write a folder of `StableDiffusionPipeline`."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    configs = {
        name: {**config, **changes.get(name, {})}
        for name, config in (("text_encoder", SD_TEXT), ("unet", SD_UNET), ("vae", SD_VAE))
    }
    with torch.device("meta"):
        made: dict[str, torch.nn.Module] = {
            "text_encoder": CLIPTextModel(CLIPTextConfig(**configs["text_encoder"])),
            "unet": UNet2DConditionModel(**configs["unet"]),
            "vae": AutoencoderKL(**configs["vae"]),
        }
    index: dict[str, Any] = {"_class_name": "StableDiffusionPipeline", "requires_safety_checker": False}
    for name, network in made.items():
        text = name == "text_encoder"
        extra = {"model_type": "clip_text_model"} if text else {}
        _json(
            folder / name / "config.json", {"_class_name": type(network).__name__, **extra, **configs[name]}
        )
        stem = "model" if text else "diffusion_pytorch_model"
        write_weights(folder / name / f"{stem}.safetensors", network.state_dict())
        index[name] = ["transformers" if text else "diffusers", type(network).__name__]
    _json(folder / "scheduler" / "scheduler_config.json", SD_SCHEDULER)
    index["scheduler"] = ["diffusers", "DDIMScheduler"]
    write_tokenizer(folder / "tokenizer")
    index["tokenizer"] = ["transformers", "CLIPTokenizer"]
    index |= {"safety_checker": [None, None], "feature_extractor": [None, None]}
    _json(folder / "model_index.json", index)


def _json(path: Path, data: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=1), encoding="utf-8")


def main() -> None:
    """Write a folder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("family", choices=FAMILIES)
    parser.add_argument("folder", type=Path, help="folder to write")
    parser.add_argument("--size", choices=SIZES, default="default", help="widths of the networks")
    arguments = parser.parse_args()
    write_folder(arguments.folder, arguments.family, arguments.size)


if __name__ == "__main__":
    main()
