"""Folders in public formats, recognised by their files and read as parts of ours, with nothing converted on disk.

Known are Karlo's folders and those of Kandinsky's priors in diffusers' layout, the priors of ECLIPSE and of LAION, and CLIP
in transformers' and in OpenCLIP's. Only safetensors are read here; pickled weights go through `unclip convert`.
"""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unclip.checkpoints.files import (
    licence_of,
    normalisation_of,
    open_weights,
    read_json,
    read_tokenizer,
    sample_of,
    weight_files,
)
from unclip.checkpoints.hub import OPENCLIP_STEMS, STEMS
from unclip.checkpoints.io import assign, build
from unclip.checkpoints.keymap import Table
from unclip.checkpoints.manifest import ModelError
from unclip.checkpoints.maps import clip as clip_map
from unclip.checkpoints.maps import karlo, laion
from unclip.checkpoints.registry import classes
from unclip.checkpoints.space import OPENAI_L, OPENCLIP_BIG_G
from unclip.networks.clip import ClipConfig
from unclip.tokenizers.clip import ClipTokenizer

# What UnCLIPPipeline samples with.
KARLO_DEFAULTS: dict[str, Any] = {
    "prior_steps": 25,
    "prior_sampler": "ddpm",
    "prior_guidance": 4.0,
    "candidates": 1,
    "steps": 25,
    "sampler": "ddpm",
    "guidance": 8.0,
    "upsampler_steps": 7,
    "upsampler_sampler": "ddpm",
}
PRIOR_DEFAULTS = {name: value for name, value in KARLO_DEFAULTS.items() if name.startswith("prior_")} | {
    "candidates": 1
}


@dataclass(frozen=True, kw_only=True)
class ForeignPart:
    """A network of ours, in files of a public format. `files` has for each prefix of keys the files that they are in."""

    kind: str
    config: Any
    table: Table
    files: Mapping[str, tuple[Path, ...]]

    def load(
        self, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32, only: str = ""
    ) -> nn.Module:
        """The network, in evaluation mode, as `io.load_part` gives it. Raises `ModelError` for weights that are unknown,
        missing, damaged or of another shape, and for pickled files."""
        network = build(classes(self.kind)[1], self.config)
        with open_weights(self.files) as weights:
            made = self.table.to_ours(
                network.state_dict(), list(weights), lambda key: weights[key](), self.where, only
            )
            assign(network, made, device=device, dtype=dtype, only=only)
        return network.eval()

    @property
    def where(self) -> str:
        """The folders or files, for messages."""
        files = [
            f"{several[0]} and {len(several) - 1} more" if several[1:] else str(several[0])
            for several in self.files.values()
        ]
        return ", ".join(dict.fromkeys(files))


@dataclass(frozen=True, kw_only=True)
class Foreign:
    """A model in a public format, as parts of ours."""

    format: str
    folder: Path
    licence: str
    parts: Mapping[str, ForeignPart]
    tokenizer: Callable[[], ClipTokenizer] | None
    """None for a prior alone."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    space: str = ""
    """The name of the embedding space, where the format tells."""

    @property
    def name(self) -> str:
        """The folder's name, or the repository's in the hub's cache."""
        found = re.search(r"models--([^/\\]+)[/\\]snapshots", str(self.folder))
        return found[1].replace("--", "/") if found else self.folder.name

    @property
    def files(self) -> list[Path]:
        """Every file that holds weights."""
        found = {file for part in self.parts.values() for several in part.files.values() for file in several}
        return sorted(found)

    @property
    def pickled(self) -> list[Path]:
        """Those of them that only `unclip convert` reads."""
        return [file for file in self.files if file.suffix != ".safetensors"]

    @property
    def weights(self) -> str:
        """Twelve hexadecimal digits for the configs and the files: their sizes, headers and 64 KiB here and there.

        Reading all of 14 GB to name a model would take longer than drawing with it.
        """
        digest = hashlib.sha256(
            repr(sorted((name, part.config) for name, part in self.parts.items())).encode()
        )
        for file in self.files:
            digest.update(sample_of(file))
        return digest.hexdigest()[:12]

    def with_files(self, files: Mapping[Path, Path]) -> "Foreign":
        """The same model with some files replaced, such as pickled ones by what was read from them."""
        parts = {
            name: replace(
                part,
                files={
                    prefix: tuple(files.get(file, file) for file in several)
                    for prefix, several in part.files.items()
                },
            )
            for name, part in self.parts.items()
        }
        return replace(self, parts=parts)


def recognise(folder: Path) -> Foreign | None:
    """The model in a folder of a known public format; None if it is none.

    Raises `ModelError` for a folder of a known format that is damaged or incomplete, or whose configs ask for what the
    networks here cannot do.
    """
    if (folder / "model_index.json").is_file():
        kind = read_json(folder / "model_index.json").get("_class_name")
        if kind in ("KandinskyPriorPipeline", "KandinskyV22PriorPipeline"):
            return _kandinsky_prior(folder)
        if kind in ("UnCLIPPipeline", "UnCLIPImageVariationPipeline"):
            return _karlo(folder, prior=kind == "UnCLIPPipeline")
        raise ModelError(
            f"{folder} holds a {kind} of diffusers: known are UnCLIPPipeline, UnCLIPImageVariationPipeline, "
            "KandinskyPriorPipeline and KandinskyV22PriorPipeline"
        )
    config = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    if (folder / "open_clip_config.json").is_file() and not (
        config.get("model_type") == "clip" and _better(folder, STEMS, OPENCLIP_STEMS)
    ):
        return _openclip(folder)
    if config.get("model_type") == "clip":
        return _transformers_clip(folder)
    if config.get("_class_name") == "PriorTransformer":
        return _eclipse(folder, config)
    for home in (folder, folder / "prior"):
        if (home / laion.CONFIG).is_file():
            return laion_prior(folder, read_json(home / laion.CONFIG), laion_weights(home))
    return None


def _better(folder: Path, stems: Sequence[str], others: Sequence[str]) -> bool:
    """Whether weights of `stems` are to be preferred to those of `others`, of which a folder may have both."""

    def rank(names: Sequence[str]) -> int:
        try:
            return int(weight_files(folder, names)[0].suffix == ".safetensors")
        except ModelError:
            return -1

    return rank(stems) > rank(others)


def _karlo(folder: Path, *, prior: bool) -> Foreign:
    where = str(folder)

    def config(component: str, name: str = "config.json") -> dict[str, Any]:
        return read_json(folder / component / name)

    def weights(component: str) -> dict[str, tuple[Path, ...]]:
        return {f"{component}/": weight_files(folder / component)}

    tokenizer = read_tokenizer(folder / "tokenizer")
    vision = (folder / "image_encoder").is_dir()
    clip = _split_clip(folder, tokenizer, vision=vision)
    decoder = karlo.decoder_config(
        config("decoder"),
        config("text_proj"),
        config("decoder_scheduler", "scheduler_config.json"),
        clip,
        tokenizer.start,
        where,
    )
    upsampler = karlo.upsampler_config(
        config("super_res_first"),
        config("super_res_last"),
        config("super_res_scheduler", "scheduler_config.json"),
        decoder.size,
        where,
    )
    parts = {
        "clip": _split_clip_part(folder, clip),
        "decoder": ForeignPart(
            kind="decoder",
            config=decoder,
            table=karlo.decoder_table(decoder.image_tokens),
            files=weights("decoder") | weights("text_proj") | weights("text_encoder"),
        ),
        "upsampler": ForeignPart(
            kind="upsampler",
            config=upsampler,
            table=karlo.UPSAMPLER,
            files=weights("super_res_first") | weights("super_res_last"),
        ),
    }
    if prior:
        parts["prior"] = _prior(folder, clip, "prior_scheduler")
    return Foreign(
        format="karlo",
        folder=folder,
        licence=licence_of(folder),
        parts=parts,
        tokenizer=lambda: tokenizer,
        defaults=KARLO_DEFAULTS,
        space=space_name(clip),
    )


def _split_clip(folder: Path, tokenizer: ClipTokenizer, *, vision: bool) -> ClipConfig:
    """The CLIP whose towers have folders of their own; its embeddings are used as they are."""
    text = read_json(folder / "text_encoder" / "config.json")
    return clip_map.transformers_config(
        text,
        read_json(folder / "image_encoder" / "config.json") if vision else None,
        embedding=int(text.get("projection_dim") or 512),
        end=tokenizer.end,
        where=str(folder),
        normalize=False,
        normalisation=normalisation_of(folder),
    )


def _split_clip_part(folder: Path, config: ClipConfig) -> ForeignPart:
    towers = ["text_encoder"] + (["image_encoder"] if config.towers == "both" else [])
    table = clip_map.split_towers("text_encoder/", "image_encoder/" if len(towers) == 2 else None)
    files = {f"{tower}/": weight_files(folder / tower) for tower in towers}
    return ForeignPart(kind="clip", config=config, table=table, files=files)


def _prior(folder: Path, clip: ClipConfig, scheduler: str) -> ForeignPart:
    config = karlo.prior_config(
        read_json(folder / "prior" / "config.json"),
        read_json(folder / scheduler / "scheduler_config.json"),
        f"{folder}/prior",
    )
    if (config.embedding, config.context) != (clip.embedding, clip.text.context):
        raise ModelError(
            f"{folder}: the prior reads embeddings of {config.embedding} and {config.context} tokens, its CLIP gives "
            f"{clip.embedding} and {clip.text.context}"
        )
    files = {"prior/": weight_files(folder / "prior")}
    return ForeignPart(kind="prior_diffusion", config=config, table=karlo.PRIOR, files=files)


def _kandinsky_prior(folder: Path) -> Foreign:
    tokenizer = read_tokenizer(folder / "tokenizer")
    clip = _split_clip(folder, tokenizer, vision=True)
    return Foreign(
        format="kandinsky prior",
        folder=folder,
        licence=licence_of(folder),
        parts={"clip": _split_clip_part(folder, clip), "prior": _prior(folder, clip, "scheduler")},
        tokenizer=lambda: tokenizer,
        defaults=PRIOR_DEFAULTS,
        space=space_name(clip),
    )


def space_name(clip: ClipConfig) -> str:
    """The space of a CLIP that Karlo or Kandinsky came with: they are made for these two."""
    text = (clip.embedding, clip.text.width, clip.text.layers, clip.text.activation)
    known = {(768, 768, 12, "quick_gelu"): OPENAI_L, (1280, 1280, 32, "gelu"): OPENCLIP_BIG_G}
    return known.get(text, "")


def laion_weights(home: Path) -> Path:
    """The weights of LAION's prior, of which a folder may have several. Raises `ModelError` where that cannot be told."""
    found = sorted(file for file in home.iterdir() if file.suffix in (".safetensors", ".pth", ".pt"))
    for stem in ("latest", "best"):
        for file in found:
            if file.stem == stem:
                return file
    if len(found) != 1:
        names = ", ".join(file.name for file in found) or "none"
        raise ModelError(f"{home} should hold one file of weights beside {laion.CONFIG}, it has {names}")
    return found[0]


def laion_prior(folder: Path, data: Mapping[str, Any], file: Path) -> Foreign:
    """LAION's prior from its JSON and its weights; of pickled ones the layout is told only when they were converted."""
    keys: list[str] = []
    if file.suffix == ".safetensors":
        with open_weights({"": (file,)}) as readers:
            keys = list(readers)
    config = laion.read_config(data, keys, str(folder))
    part = ForeignPart(kind="prior_laion", config=config, table=laion.table(config), files={"": (file,)})
    return Foreign(
        format="laion",
        folder=folder,
        licence=licence_of(folder),
        parts={"prior": part},
        tokenizer=None,
        # Beyond 1.9 it was trained with dropped captions; the package's own sampling guides only when asked to.
        defaults={"prior_steps": 64, "prior_sampler": "ddpm", "prior_guidance": 1.0, "candidates": 2},
        space=laion.space(data),
    )


def _eclipse(folder: Path, config: Mapping[str, Any]) -> Foreign:
    part = ForeignPart(
        kind="prior_diffusion",
        config=karlo.eclipse_config(config, str(folder)),
        table=karlo.ECLIPSE,
        files={"": weight_files(folder)},
    )
    return Foreign(
        format="eclipse",
        folder=folder,
        licence=licence_of(folder),
        parts={"prior": part},
        tokenizer=None,
        # It answers at once, and was trained without dropping captions.
        defaults={"prior_steps": 1, "prior_sampler": "ddpm", "prior_guidance": 1.0, "candidates": 1},
    )


def _transformers_clip(folder: Path) -> Foreign:
    data = read_json(folder / "config.json")
    tokenizer = read_tokenizer(folder)
    config = clip_map.transformers_config(
        data.get("text_config") or {},
        data.get("vision_config") or {},
        embedding=int(data.get("projection_dim") or 512),
        end=tokenizer.end,
        where=str(folder),
        normalisation=normalisation_of(folder),
    )
    part = ForeignPart(
        kind="clip", config=config, table=clip_map.TRANSFORMERS, files={"": weight_files(folder)}
    )
    return Foreign(
        format="clip",
        folder=folder,
        licence=licence_of(folder),
        parts={"clip": part},
        tokenizer=lambda: tokenizer,
    )


def _openclip(folder: Path) -> Foreign:
    config = clip_map.openclip_config(read_json(folder / "open_clip_config.json"), str(folder))
    part = ForeignPart(
        kind="clip",
        config=config,
        table=clip_map.openai_table(),
        files={"": weight_files(folder, OPENCLIP_STEMS)},
    )
    return Foreign(
        format="openclip",
        folder=folder,
        licence=licence_of(folder),
        parts={"clip": part},
        tokenizer=lambda: read_tokenizer(folder, context=config.text.context),
    )
