"""GLIDE's released checkpoints (https://github.com/openai/glide-text2im): pickled state dicts without configs.

The base and the upsampler are a file each, and so are the two that inpaint. GLIDE came in one size.
"""

import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from unclip.checkpoints.keymap import Table, interleaved, renamed, row, within
from unclip.diffusion.parametrization import ProcessConfig
from unclip.errors import ModelError
from unclip.formats.folder import read_json
from unclip.formats.karlo_original import unet_rows
from unclip.formats.public import FOLDER, PublicModel, PublicPart, Reader
from unclip.networks.glide import GlideConfig, GlideTextConfig, GlideUpsamplerConfig
from unclip.networks.unet import UnetConfig
from unclip.stages.sampling import DecoderSampling, PriorSampling, Sampling, UpsamplerSampling
from unclip.tokenizers.glide import GlideTokenizer
from unclip.tokenizers.reading import CaptionTokenizer


class Pair(NamedTuple):
    """Files of a base and its upsampler."""

    base: str
    upsampler: str


PLAIN = Pair("base.pt", "upsample.pt")
INPAINTING = Pair("base_inpaint.pt", "upsample_inpaint.pt")

DEFAULTS = Sampling(
    prior=PriorSampling(kind="none", candidates=1),
    decoder=DecoderSampling(steps=100, sampler="ddpm", guidance=3.0),
    upsamplers=(UpsamplerSampling(steps=27, sampler="ddim"),),
)
"""Defaults of the authors' notebook."""
INPAINTING_DEFAULTS = replace(
    DEFAULTS,
    decoder=DecoderSampling(steps=100, sampler="ddpm", guidance=5.0),
    upsamplers=(UpsamplerSampling(steps=27, sampler="ddpm"),),
)


def table(config: GlideConfig | GlideUpsamplerConfig) -> Table:
    """Table of one file: the U-Net, and its text transformer."""
    block = [
        *renamed({"norm_1": "ln_1", "norm_2": "ln_2", "mlp.0": "mlp.c_fc", "mlp.2": "mlp.c_proj"}),
        *renamed({"attention.out": "attn.c_proj"}),
        row(
            "attention.qkv.{p}", "attn.c_qkv.{p}", form=interleaved(3, config.text.width // config.text.heads)
        ),
    ]
    text = [
        row("tokens.weight", "token_embedding.weight"),
        row("positions", "positional_embedding"),
        row("padding", "padding_embedding"),
        *within("transformer.blocks.{n}.", "transformer.resblocks.{n}.", block),
        *renamed({"norm_out": "final_ln"}),
    ]
    return Table(
        [
            *within("net.", "", unet_rows(config.net)),
            *within("text.", "", text),
            *renamed({"text_vector": "transformer_proj"}),
        ]
    )


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Configs of GLIDE's networks, which the files do not store."""

    base: UnetConfig
    upsampler: UnetConfig
    text: GlideTextConfig = field(default_factory=GlideTextConfig)
    low_size: int = 64
    high_size: int = 256


_COMMON = UnetConfig(channels=192, out_channels=6, head_channels=64, context_width=512, vector_width=768)
GLIDE = Sizes(
    base=replace(_COMMON, in_channels=3, multiples=(1, 2, 3, 4), blocks=3, attention_levels=(1, 2, 3)),
    upsampler=replace(
        _COMMON, in_channels=6, multiples=(1, 1, 2, 2, 4, 4), blocks=2, attention_levels=(3, 4, 5)
    ),
)
"""From `model_and_diffusion_defaults` of the authors' code."""


def configs(sizes: Sizes, *, inpainting: bool) -> tuple[GlideConfig, GlideUpsamplerConfig]:
    """Configs of base and upsampler."""

    def net(config: UnetConfig) -> UnetConfig:
        return replace(config, in_channels=config.in_channels + 4 * inpainting)

    def process(schedule: str) -> ProcessConfig:
        return ProcessConfig(
            parametrization="eps",
            schedule="cosine" if schedule == "cosine" else "linear",
            learned_variance=True,
        )

    base = GlideConfig(
        net=net(sizes.base),
        text=sizes.text,
        inpainting=inpainting,
        process=process("cosine"),
        size=sizes.low_size,
    )
    upsampler = GlideUpsamplerConfig(
        net=net(sizes.upsampler),
        text=sizes.text,
        inpainting=inpainting,
        process=process("linear"),
        low_size=sizes.low_size,
        high_size=sizes.high_size,
    )
    return base, upsampler


def found_in(folder: Path) -> list[Pair]:
    """Pairs of which a folder holds the base."""
    return [pair for pair in (PLAIN, INPAINTING) if (folder / pair.base).is_file()]


def open_folder(folder: Path, reader: Reader = FOLDER) -> PublicModel:
    """The model of a folder with the files of one pair, with the reader's tokenizer: GPT-2's.

    Raises `ModelError` for a folder with both pairs, or without the upsampler.
    """
    pairs = found_in(folder)
    if len(pairs) != 1:
        raise ModelError(
            f"{folder} holds both {PLAIN.base} and {INPAINTING.base}, which are models of their own: give a folder with "
            f"{' and '.join(PLAIN)}, and another with {' and '.join(INPAINTING)}"
        )
    (pair,) = pairs
    if not (folder / pair.upsampler).is_file():
        raise ModelError(f"{folder} holds {pair.base} without {pair.upsampler}: put both into it")
    tokenizer = reader.required_tokenizer(GlideTokenizer)
    safe = reader.safe([folder / name for name in pair])
    return open_files(
        folder, dict(zip(("decoder", "upsampler"), safe)), tokenizer, inpainting=pair == INPAINTING
    )


def open_files(
    folder: Path, files: Mapping[str, Path], tokenizer: CaptionTokenizer, *, inpainting: bool
) -> PublicModel:
    """The model from safetensors of the checkpoints, the "decoder" and the "upsampler"."""
    sizes = GLIDE
    if (tokenizer.vocabulary, tokenizer.context) != (sizes.text.vocabulary, sizes.text.context):
        raise ModelError(
            f"the tokenizer has {tokenizer.vocabulary} tokens, and {tokenizer.context} for a caption; GLIDE reads "
            f"{sizes.text.vocabulary} and {sizes.text.context}: give GPT-2's"
        )
    parts = {
        name: PublicPart(kind=config.kind, config=config, table=table(config), files={"": (files[name],)})
        for name, config in zip(("decoder", "upsampler"), configs(sizes, inpainting=inpainting))
    }
    return PublicModel(
        format="glide",
        folder=folder,
        licence="mit",
        parts=parts,
        tokenizer=lambda: tokenizer,
        defaults=INPAINTING_DEFAULTS if inpainting else DEFAULTS,
    )


def tokenizer_at(path: Path, context: int | None = None) -> GlideTokenizer:
    """GPT-2's tokenizer from a folder: `vocab.json` and `merges.txt`, `tokenizer.json`, or the files of GLIDE's code.

    Raises `ModelError` for missing or damaged files.
    """
    try:
        vocabulary, merges = _read_tokenizer(path)
        return GlideTokenizer(vocabulary, merges, context=context or GLIDE.text.context)
    except FileNotFoundError as error:
        raise ModelError(
            f"{path} holds no tokenizer of GPT-2: it needs vocab.json and merges.txt, tokenizer.json, or encoder.json.gz "
            "and vocab.bpe.gz"
        ) from error
    except (KeyError, OSError, EOFError, TypeError, ValueError) as error:
        raise ModelError(f"{path}: the tokenizer's files are damaged ({error}): get them again") from error


def _read_tokenizer(path: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    if (path / "encoder.json.gz").is_file():
        vocabulary = json.loads(gzip.decompress((path / "encoder.json.gz").read_bytes()))
        text = gzip.decompress((path / "vocab.bpe.gz").read_bytes()).decode()
    elif (path / "vocab.json").is_file():
        vocabulary, text = read_json(path / "vocab.json"), (path / "merges.txt").read_text(encoding="utf-8")
    else:
        if not (path / "tokenizer.json").is_file():
            raise FileNotFoundError(path)
        model = read_json(path / "tokenizer.json")["model"]
        pairs = [one.split(" ") if isinstance(one, str) else one for one in model["merges"]]
        return model["vocab"], [(left, right) for left, right in pairs]
    lines = (line.split() for line in text.splitlines() if line and not line.startswith("#version"))
    return vocabulary, [(left, right) for left, right in lines]
