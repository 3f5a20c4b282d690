"""Model folder like kakaobrain/karlo-v1-alpha, in diffusers' layout, with random weights: no download.

    python benchmarks/karlo_folder.py FOLDER [--size small|full] [--dtype bfloat16]

Names and shapes come from diffusers' classes on the meta device; components are made and written one at a time.
"""

# diffusers imports its names lazily, which type checkers do not follow.
# pyright: reportPrivateImportUsage=false, reportAttributeAccessIssue=false

import argparse
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from tokenizers import pre_tokenizers
from torch import Tensor

VOCABULARY, CONTEXT = 49_408, 77


class Size(NamedTuple):
    """Widths of the parts. All heads have 64 channels."""

    embedding: int
    text_layers: int
    prior_width: int
    prior_layers: int
    decoder_channels: int
    upsampler_channels: int
    decoder_blocks: int = 3
    upsampler_blocks: int = 3
    context_width: int = 1536
    small: int = 64
    large: int = 256


# "small" has a decoder of 136 M parameters and an upsampler of 22 M; "full" has Karlo's sizes.
SIZES = {
    "tiny": Size(64, 1, 64, 1, 32, 32, 1, 1, 128, 32, 64),
    "small": Size(768, 12, 512, 6, 128, 64, 3, 2, 256),
    "full": Size(768, 12, 2048, 20, 320, 320),
}


CLASSES = {
    "text_encoder": "CLIPTextModelWithProjection",
    "text_proj": "UnCLIPTextProjModel",
    "prior": "PriorTransformer",
    "decoder": "UNet2DConditionModel",
    "super_res_first": "UNet2DModel",
    "super_res_last": "UNet2DModel",
}
"""Class of each component that has weights."""


def configs(size: Size) -> dict[str, dict[str, Any]]:
    """Config of each component that has weights."""
    heads = size.prior_width // 64

    def unet(channels: int, blocks: int) -> dict[str, Any]:
        return {
            "block_out_channels": [channels * multiple for multiple in (1, 2, 3, 4)],
            "layers_per_block": blocks,
            "norm_num_groups": 32,
        }

    upsampler = unet(size.upsampler_channels, size.upsampler_blocks) | {
        "sample_size": size.large,
        "in_channels": 6,
        "out_channels": 3,
        "down_block_types": ["ResnetDownsampleBlock2D"] * 4,
        "up_block_types": ["ResnetUpsampleBlock2D"] * 4,
        "add_attention": False,
        "resnet_time_scale_shift": "default",
    }
    return {
        "text_encoder": {
            "vocab_size": VOCABULARY,
            "max_position_embeddings": CONTEXT,
            "hidden_size": size.embedding,
            "intermediate_size": 4 * size.embedding,
            "num_hidden_layers": size.text_layers,
            "num_attention_heads": size.embedding // 64,
            "projection_dim": size.embedding,
            "hidden_act": "quick_gelu",
            "eos_token_id": 2,
        },
        "text_proj": {
            "clip_embeddings_dim": size.embedding,
            "time_embed_dim": 4 * size.decoder_channels,
            "cross_attention_dim": size.context_width,
        },
        "prior": {
            "num_attention_heads": heads,
            "attention_head_dim": 64,
            "num_layers": size.prior_layers,
            "embedding_dim": size.embedding,
            "num_embeddings": CONTEXT,
            "additional_embeddings": 4,
        },
        "decoder": unet(size.decoder_channels, size.decoder_blocks)
        | {
            "sample_size": size.small,
            "in_channels": 3,
            "out_channels": 6,
            "down_block_types": ["ResnetDownsampleBlock2D", *["SimpleCrossAttnDownBlock2D"] * 3],
            "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
            "up_block_types": [*["SimpleCrossAttnUpBlock2D"] * 3, "ResnetUpsampleBlock2D"],
            "attention_head_dim": 64 if size.decoder_channels % 64 == 0 else 32,
            "cross_attention_dim": size.context_width,
            "class_embed_type": "identity",
            "resnet_time_scale_shift": "scale_shift",
        },
        "super_res_first": upsampler,
        "super_res_last": upsampler | {"sample_size": None},
    }


def classes() -> dict[str, type]:
    """`CLASSES`, of diffusers and transformers."""
    from diffusers import PriorTransformer, UNet2DConditionModel, UNet2DModel
    from diffusers.pipelines.deprecated.unclip import UnCLIPTextProjModel
    from transformers import CLIPTextModelWithProjection

    known = (
        CLIPTextModelWithProjection,
        UnCLIPTextProjModel,
        PriorTransformer,
        UNet2DConditionModel,
        UNet2DModel,
    )
    named = {one.__name__: one for one in known}
    return {component: named[name] for component, name in CLASSES.items()}


def build(kind: type, config: Mapping[str, Any]) -> torch.nn.Module:
    """A component, on torch's default device."""
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    return kind(CLIPTextConfig(**config)) if kind is CLIPTextModelWithProjection else kind(**config)


_SCHEDULER = {"_class_name": "UnCLIPScheduler", "num_train_timesteps": 1000, "clip_sample": True}
SCHEDULERS: dict[str, dict[str, Any]] = {
    "prior_scheduler": _SCHEDULER
    | {"prediction_type": "sample", "variance_type": "fixed_small_log", "clip_sample_range": 5.0},
    "decoder_scheduler": _SCHEDULER | {"prediction_type": "epsilon", "variance_type": "learned_range"},
    "super_res_scheduler": _SCHEDULER | {"prediction_type": "epsilon", "variance_type": "fixed_small_log"},
}


def write_folder(folder: Path, size: Size, dtype: torch.dtype = torch.bfloat16) -> None:
    """Write the folder; weights are random, and the same for the same sizes."""
    index: dict[str, Any] = {"_class_name": "UnCLIPPipeline", "_diffusers_version": "0.15.0.dev0"}
    kinds = classes()
    for seed, (name, config) in enumerate(configs(size).items()):
        kind = kinds[name]
        with torch.device("meta"):
            network = build(kind, config)
        stem = "model" if name == "text_encoder" else "diffusion_pytorch_model"
        _json(folder / name / "config.json", dict(config, _class_name=kind.__name__))
        weights = random_weights(network.state_dict(), seed, dtype)
        save_file(weights, folder / name / f"{stem}.safetensors", metadata={"format": "pt"})
        # As in the folder on the hub, whose projections name a library that there is not.
        library = {"text_encoder": "transformers", "text_proj": "unclip"}.get(name, "diffusers")
        index[name] = [library, kind.__name__]
    for name, config in SCHEDULERS.items():
        _json(folder / name / "scheduler_config.json", config)
        index[name] = ["diffusers", "UnCLIPScheduler"]
    write_tokenizer(folder / "tokenizer")
    index["tokenizer"] = ["transformers", "CLIPTokenizer"]
    _json(folder / "model_index.json", index)


def random_weights(like: Mapping[str, Tensor], seed: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """Weights that preserve the variance of activations, as trained ones do."""
    # Full size has 3.4 billion weights: the same million numbers again and again, at another place in every row.
    numbers = torch.randn(1_000_003, generator=torch.Generator().manual_seed(seed))
    made = {}
    for name, weight in like.items():
        fan_in = math.prod(weight.shape[1:])
        if weight.ndim > 1:
            # What is added to a residual stream and the predicted noise are small, as in a network that starts at zero.
            last = ("conv2.weight", "to_out.0.weight", "ff.net.2.weight", "conv_out.weight")
            scale = (0.3 if name.endswith(last) else 1.0) * fan_in**-0.5
            copies = -(-weight.numel() // len(numbers))
            value = scale * numbers.repeat(copies)[: weight.numel()].reshape(weight.shape)
        elif ("norm" in name and name.endswith("weight")) or name == "clip_std":
            value = torch.ones(weight.shape)
        else:
            value = torch.zeros(weight.shape)
        made[name] = value.to(dtype)
    return made


def write_tokenizer(folder: Path) -> None:
    """Write a tokenizer of CLIP's size in transformers' format."""
    # The bytes, their forms at the end of a word, and no merges: a caption is read letter by letter.
    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*symbols, *(f"{symbol}</w>" for symbol in symbols)]
    pieces += [f"<{index}>" for index in range(VOCABULARY - len(pieces) - 2)]
    pieces += ["<|startoftext|>", "<|endoftext|>"]
    _json(folder / "vocab.json", {piece: index for index, piece in enumerate(pieces)})
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    settings = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": CONTEXT,
        "pad_token": "!",
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
    }
    _json(folder / "tokenizer_config.json", settings)


def _json(path: Path, data: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=1), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="folder to write")
    parser.add_argument("--size", choices=SIZES, default="small", help="widths of the parts")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), default="bfloat16", help="type of the stored weights"
    )
    arguments = parser.parse_args()
    write_folder(arguments.folder, SIZES[arguments.size], getattr(torch, arguments.dtype))


if __name__ == "__main__":
    main()
