"""Karlo's form made on the device with random weights, by this project and by diffusers: no files, nothing to download."""

# diffusers brings its names in lazily, which no type checker follows; and its networks are not typed.
# pyright: reportPrivateImportUsage=false, reportAttributeAccessIssue=false

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from karlo_folder import CLASSES, SCHEDULERS, Size, build, classes, configs, write_tokenizer
from torch import Tensor, nn

from unclip.checkpoints import io
from unclip.formats import karlo
from unclip.formats.key_maps import clip as clip_map
from unclip.formats.key_maps.prior import prior_config
from unclip.formats.tokenizer import read_tokenizer
from unclip.generate.model import Model
from unclip.networks.clip import Clip
from unclip.networks.decoder import Decoder
from unclip.networks.prior_diffusion import DiffusionPrior
from unclip.networks.upsampler import Upsampler
from unclip.tokenizers.clip import ClipTokenizer

# What is added to a residual stream and the predicted noise are small, as in a network that starts at zero.
LAST = (
    *("conv2.weight", "to_out.0.weight", "ff.net.2.weight", "conv_out.weight"),
    *(".out.weight", "mlp.2.weight", ".exit.weight"),
)


def random_weight(name: str, shape: torch.Size, device: torch.device) -> Tensor:
    """A weight that keeps the variance of what passes through it, as training's do."""
    if len(shape) > 1:
        scale = (0.3 if name.endswith(LAST) else 1.0) * shape[1:].numel() ** -0.5
        return torch.empty(shape, device=device).normal_(std=scale)
    one = ("norm" in name and name.endswith("weight")) or name.endswith("_std")
    return torch.full(shape, float(one), device=device)


def karlo_model(size: Size, device: torch.device, dtype: torch.dtype) -> Model:
    """This project's, with the settings of diffusers' pipeline."""
    tokenizer = _tokenizer()
    made = {name: config | {"_class_name": CLASSES[name]} for name, config in configs(size).items()}
    clip = clip_map.transformers_config(
        made["text_encoder"],
        None,
        embedding=size.embedding,
        end=tokenizer.end,
        where="",
        normalize=False,
    )
    decoder = karlo.decoder_config(
        made["decoder"], made["text_proj"], SCHEDULERS["decoder_scheduler"], clip, tokenizer.start, ""
    )
    upsampler = karlo.upsampler_config(
        made["super_res_first"], made["super_res_last"], SCHEDULERS["super_res_scheduler"], decoder.size, ""
    )
    prior = prior_config(made["prior"], SCHEDULERS["prior_scheduler"], "")
    parts = {
        # In float32 always, as `Parts.open` has it.
        "clip": _on(device, torch.float32, Clip, clip),
        "prior": _on(device, dtype, DiffusionPrior, prior),
        "decoder": _on(device, dtype, Decoder, decoder),
        "upsampler": _on(device, dtype, Upsampler, upsampler),
    }
    return Model.of(parts, tokenizer, name="karlo", defaults=karlo.DEFAULTS, dtype=dtype)


def karlo_pipeline(size: Size, device: torch.device, dtype: torch.dtype) -> Any:
    """diffusers' `UnCLIPPipeline`, which enlarges small pictures in float32: not every torch can in bfloat16."""
    import diffusers
    import transformers
    from diffusers import UnCLIPPipeline, UnCLIPScheduler
    from karlo import mend_enlargement
    from transformers import CLIPTokenizer

    diffusers.logging.set_verbosity_error()
    transformers.logging.set_verbosity_error()
    mend_enlargement()
    kinds = classes()
    parts: dict[str, Any] = {}
    for name, config in configs(size).items():
        with device:
            network = build(kinds[name], config).to(dtype).eval().requires_grad_(False)
        for key, weight in network.state_dict().items():
            if weight.is_floating_point():
                weight.copy_(random_weight(key, weight.shape, device))
        parts[name] = network
    for name, config in SCHEDULERS.items():
        parts[name] = UnCLIPScheduler.from_config(config)
    with tempfile.TemporaryDirectory() as folder:
        write_tokenizer(Path(folder))
        pipeline = UnCLIPPipeline(tokenizer=CLIPTokenizer.from_pretrained(folder), **parts)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _tokenizer() -> ClipTokenizer:
    with tempfile.TemporaryDirectory() as folder:
        write_tokenizer(Path(folder))
        return read_tokenizer(Path(folder))


def _on(device: torch.device, dtype: torch.dtype, kind: type[nn.Module], config: Any) -> nn.Module:
    """A network with random weights, each made where and as `Parts.open` would put what it reads from a file."""
    network = io.build(kind, config)
    io.assign(network, _weights(network.state_dict(), device), device=device, dtype=dtype)
    return network.eval().requires_grad_(False)


def _weights(like: Mapping[str, Tensor], device: torch.device) -> Iterator[tuple[str, Tensor]]:
    for name, weight in like.items():
        yield name, random_weight(name, weight.shape, device)
