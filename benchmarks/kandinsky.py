"""Peak memory and time of a Kandinsky 2.2 picture, from a folder with random weights at full size: no download.

    python benchmarks/kandinsky.py [--folder FOLDER] [--side 768] [--steps 100] [--prior-steps 25] [--dtype bfloat16]

The folder is one of diffusers' combined pipelines, of 9.7 GB, written weight by weight. The picture is drawn with `--offload` in a
process of its own, whose largest resident memory is printed after each stage. Weights are read from mapped files: pages
of these count as resident as well.
"""

# diffusers imports its names lazily, which type checkers do not follow.
# pyright: reportPrivateImportUsage=false, reportAttributeAccessIssue=false

import argparse
import json
import math
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from karlo_folder import write_tokenizer
from torch import Tensor

TEXT: dict[str, Any] = {
    "model_type": "clip_text_model",
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "projection_dim": 1280,
    "hidden_act": "gelu",
    "eos_token_id": 2,
}
VISION: dict[str, Any] = {
    "model_type": "clip_vision_model",
    "hidden_size": 1664,
    "intermediate_size": 8192,
    "num_hidden_layers": 48,
    "num_attention_heads": 16,
    "projection_dim": 1280,
    "hidden_act": "gelu",
    "image_size": 224,
    "patch_size": 14,
}
PRIOR: dict[str, Any] = {
    "embedding_dim": 1280,
    "num_layers": 20,
    "num_attention_heads": 32,
    "attention_head_dim": 64,
}
UNET: dict[str, Any] = {
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 8,
    "block_out_channels": [384, 768, 1152, 1536],
    "layers_per_block": 3,
    "down_block_types": ["ResnetDownsampleBlock2D", *["SimpleCrossAttnDownBlock2D"] * 3],
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "up_block_types": [*["SimpleCrossAttnUpBlock2D"] * 3, "ResnetUpsampleBlock2D"],
    "attention_head_dim": 64,
    "cross_attention_dim": 768,
    "resnet_time_scale_shift": "scale_shift",
    "encoder_hid_dim": 1280,
    "encoder_hid_dim_type": "image_proj",
    "addition_embed_type": "image",
}
MOVQ: dict[str, Any] = {
    "block_out_channels": [128, 256, 256, 512],
    "down_block_types": [*["DownEncoderBlock2D"] * 3, "AttnDownEncoderBlock2D"],
    "up_block_types": ["AttnUpDecoderBlock2D", *["UpDecoderBlock2D"] * 3],
    "layers_per_block": 2,
    "latent_channels": 4,
    "num_vq_embeddings": 16384,
    "vq_embed_dim": 4,
    "norm_type": "spatial",
}
SCHEDULERS: dict[str, dict[str, Any]] = {
    "scheduler": {
        "_class_name": "DDPMScheduler",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "linear",
        "steps_offset": 1,
    },
    "prior_scheduler": {
        "_class_name": "UnCLIPScheduler",
        "clip_sample_range": 10.0,
        "prediction_type": "sample",
        "variance_type": "fixed_small_log",
    },
}


Changes = Mapping[str, Mapping[str, Any]]
"""Component -> settings that differ from the full size."""


def networks(changes: Changes) -> dict[str, tuple[str, Mapping[str, Any], Mapping[str, Tensor]]]:
    """Class, config and weights (without memory) of each component."""
    from diffusers import PriorTransformer, UNet2DConditionModel, VQModel
    from transformers import (
        CLIPTextConfig,
        CLIPTextModelWithProjection,
        CLIPVisionConfig,
        CLIPVisionModelWithProjection,
    )

    makers: dict[str, tuple[dict[str, Any], Callable[[dict[str, Any]], torch.nn.Module]]] = {
        "prior_text_encoder": (TEXT, lambda one: CLIPTextModelWithProjection(CLIPTextConfig(**one))),
        "prior_image_encoder": (VISION, lambda one: CLIPVisionModelWithProjection(CLIPVisionConfig(**one))),
        "prior_prior": (PRIOR, lambda one: PriorTransformer(**one)),
        "unet": (UNET, lambda one: UNet2DConditionModel(**one)),
        "movq": (MOVQ, lambda one: VQModel(**one)),
    }
    found = {}
    for name, (full, make) in makers.items():
        config = {**full, **changes.get(name, {})}
        with torch.device("meta"):
            network = make(config)
        found[name] = type(network).__name__, config, network.state_dict()
    return found


def write_weights(file: Path, like: Mapping[str, Tensor]) -> None:
    """Write bfloat16 weights that preserve the variance of activations, one at a time."""
    # The same million numbers again and again, at another place in every row.
    numbers = torch.randn(1_000_003, generator=torch.Generator().manual_seed(0))
    header, start = {}, 0
    for name, weight in like.items():
        end = start + 2 * weight.numel()
        header[name] = {"dtype": "BF16", "shape": list(weight.shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(file, "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for name, weight in like.items():
            out.write(_values(name, weight, numbers).bfloat16().view(torch.int16).numpy().tobytes())


def _values(name: str, weight: Tensor, numbers: Tensor) -> Tensor:
    if weight.ndim > 1 and name not in ("clip_mean", "clip_std"):
        # What is added to a residual stream is small, as in a network that starts at zero.
        last = ("conv2.weight", "to_out.0.weight", "ff.net.2.weight", "conv_out.weight", "fc2.weight")
        scale = (0.3 if name.endswith(last) else 1.0) * math.prod(weight.shape[1:]) ** -0.5
        return (scale * numbers).repeat(-(-weight.numel() // len(numbers)))[: weight.numel()]
    one = name == "clip_std" or ("norm" in name and name.endswith("weight"))
    return torch.full((weight.numel(),), float(one))


def write_folder(folder: Path, changes: Changes = {}) -> None:  # noqa: B006 (only read)
    """Write a folder of `KandinskyV22CombinedPipeline`."""

    def write(path: Path, data: Mapping[str, Any]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(data), encoding="utf-8")

    index: dict[str, Any] = {"_class_name": "KandinskyV22CombinedPipeline"}
    for name, (kind, config, weights) in networks(changes).items():
        write(folder / name / "config.json", {"_class_name": kind, **config})
        stem = "model" if name.endswith("encoder") else "diffusion_pytorch_model"
        write_weights(folder / name / f"{stem}.safetensors", weights)
        index[name] = ["transformers" if name.endswith("encoder") else "diffusers", kind]
    for name, config in SCHEDULERS.items():
        write(folder / name / "scheduler_config.json", config)
        index[name] = ["diffusers", config["_class_name"]]
    write_tokenizer(folder / "prior_tokenizer")
    side = changes.get("prior_image_encoder", {}).get("image_size", VISION["image_size"])
    write(
        folder / "prior_image_processor" / "preprocessor_config.json",
        {
            "image_processor_type": "CLIPImageProcessor",
            "size": {"shortest_edge": side},
            "crop_size": {"height": side, "width": side},
            "image_mean": [0.48145466, 0.4578275, 0.40821073],
            "image_std": [0.26862954, 0.26130258, 0.27577711],
            "resample": 3,
        },
    )
    index |= {
        "prior_tokenizer": ["transformers", "CLIPTokenizer"],
        "prior_image_processor": ["transformers", "CLIPImageProcessor"],
    }
    write(folder / "model_index.json", index)


def peak() -> float:
    """Largest resident memory of this process so far, in GiB."""
    (line,) = (
        line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")
    )
    return int(line.split()[1]) / 2**20


def draw(folder: Path, side: int, steps: int, prior_steps: int, dtype: str) -> None:
    """Draw a picture, and print seconds and peak memory after each stage."""
    import unclip

    begun, stage = time.perf_counter(), ""

    def report(progress: Any) -> None:
        nonlocal stage
        if progress.step == progress.total or progress.stage != stage:
            stage = progress.stage
            seconds = time.perf_counter() - begun
            print(
                f"{stage}, step {progress.step} of {progress.total}: {seconds:.0f} s, {peak():.2f} GiB",
                flush=True,
            )

    model = unclip.load(folder, device="cpu", dtype=dtype, offload=True)
    (made,) = model.generate(
        "a red cat", size=side, steps=steps, prior_steps=prior_steps, seed=1, on_progress=report
    )
    assert made.image.size == (side, side)
    print(f"whole picture of {side} px: {time.perf_counter() - begun:.0f} s, {peak():.2f} GiB")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, help="folder to use; written if it does not exist")
    parser.add_argument("--side", type=int, default=768, help="side of the picture")
    parser.add_argument("--steps", type=int, default=100, help="steps of the decoder")
    parser.add_argument("--prior-steps", type=int, default=25, help="steps of the prior")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--draw", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.draw:
        draw(arguments.folder, arguments.side, arguments.steps, arguments.prior_steps, arguments.dtype)
        return
    with tempfile.TemporaryDirectory() as room:
        folder = arguments.folder or Path(room) / "kandinsky-2-2"
        if not (folder / "model_index.json").is_file():
            write_folder(folder)
        command = [sys.executable, __file__, "--draw", "--folder", str(folder)]
        for name in ("side", "steps", "prior_steps", "dtype"):
            command += [f"--{name.replace('_', '-')}", str(getattr(arguments, name))]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
