"""Folders in public formats, recognised by their files and read as parts of ours, with nothing converted on disk.

Known are Karlo's folders and those of Kandinsky's priors in diffusers' layout, ECLIPSE's priors, and CLIP in transformers'
and in OpenCLIP's. Only safetensors are read here; pickled weights go through `unclip convert`.
"""

import contextlib
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from unclip.checkpoints.io import build
from unclip.checkpoints.keymap import Table
from unclip.checkpoints.manifest import ModelError
from unclip.checkpoints.maps import clip as clip_map
from unclip.checkpoints.maps import karlo
from unclip.checkpoints.registry import classes
from unclip.models.clip import ClipConfig
from unclip.tokenizers.clip import ClipTokenizer

# What UnCLIPPipeline samples with.
KARLO_DEFAULTS: dict[str, Any] = {
    "prior_steps": 25,
    "prior_sampler": "ancestral",
    "prior_guidance": 4.0,
    "candidates": 1,
    "steps": 25,
    "sampler": "ancestral",
    "guidance": 8.0,
    "upsampler_steps": 7,
    "upsampler_sampler": "ancestral",
}
PRIOR_DEFAULTS = {name: value for name, value in KARLO_DEFAULTS.items() if name.startswith("prior_")} | {
    "candidates": 1
}
_WEIGHTS = ("diffusion_pytorch_model", "model", "pytorch_model", "open_clip_model", "open_clip_pytorch_model")
_VARIANTS = ("", ".fp16")


@dataclass(frozen=True, kw_only=True)
class ForeignPart:
    """A network of ours, in files of a public format. `files` maps the prefix of a file's keys to the file."""

    kind: str
    config: Any
    table: Table
    files: Mapping[str, Path]

    def load(self, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> nn.Module:
        """The network, in evaluation mode. Raises `ModelError` for weights that are unknown, missing, damaged or
        of another shape, and for pickled files."""
        network = build(classes(self.kind)[1], self.config)
        with open_weights(self.files) as weights:
            made = self.table.to_ours(
                network.state_dict(), list(weights), lambda key: weights[key](), self.where
            )
            state = {name: weight.to(device, dtype).contiguous() for name, weight in made}
        network.load_state_dict(state, assign=True)
        return network.to(device).eval()

    @property
    def where(self) -> str:
        """The folders or files, for messages."""
        return ", ".join(dict.fromkeys(str(file) for file in self.files.values()))


@dataclass(frozen=True, kw_only=True)
class Foreign:
    """A model in a public format, as parts of ours."""

    format: str
    folder: Path
    licence: str
    parts: Mapping[str, ForeignPart]
    tokenizer: Callable[[], ClipTokenizer]
    defaults: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The folder's name, or the repository's in the hub's cache."""
        found = re.search(r"models--([^/\\]+)[/\\]snapshots", str(self.folder))
        return found[1].replace("--", "/") if found else self.folder.name

    @property
    def files(self) -> list[Path]:
        """Every file that holds weights."""
        return sorted({file for part in self.parts.values() for file in part.files.values()})

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
            digest.update(_sample(file))
        return digest.hexdigest()[:12]

    def with_files(self, files: Mapping[Path, Path]) -> "Foreign":
        """The same model with some files replaced, such as pickled ones by what was read from them."""
        parts = {
            name: replace(part, files={prefix: files.get(file, file) for prefix, file in part.files.items()})
            for name, part in self.parts.items()
        }
        return replace(self, parts=parts)


def recognise(folder: Path) -> Foreign | None:
    """The model in a folder of a known public format; None if it is none.

    Raises `ModelError` for a folder of a known format that is damaged or incomplete, or whose configs ask for what the
    networks here cannot do.
    """
    if (folder / "model_index.json").is_file():
        kind = _json(folder / "model_index.json").get("_class_name")
        if kind in ("KandinskyPriorPipeline", "KandinskyV22PriorPipeline"):
            return _kandinsky_prior(folder)
        if kind in ("UnCLIPPipeline", "UnCLIPImageVariationPipeline"):
            return _karlo(folder, prior=kind == "UnCLIPPipeline")
        raise ModelError(
            f"{folder} holds a {kind} of diffusers: known are UnCLIPPipeline, UnCLIPImageVariationPipeline, "
            "KandinskyPriorPipeline and KandinskyV22PriorPipeline"
        )
    if (folder / "open_clip_config.json").is_file():
        return _openclip(folder)
    if (folder / "config.json").is_file():
        config = _json(folder / "config.json")
        if config.get("model_type") == "clip":
            return _transformers_clip(folder)
        if config.get("_class_name") == "PriorTransformer":
            return _eclipse(folder, config)
    return None


def _karlo(folder: Path, *, prior: bool) -> Foreign:
    where = str(folder)

    def config(component: str, name: str = "config.json") -> dict[str, Any]:
        return _json(folder / component / name)

    def weights(component: str) -> dict[str, Path]:
        return {f"{component}/": _weight_file(folder / component)}

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
        licence=_licence(folder),
        parts=parts,
        tokenizer=lambda: tokenizer,
        defaults=KARLO_DEFAULTS,
    )


def _split_clip(folder: Path, tokenizer: ClipTokenizer, *, vision: bool) -> ClipConfig:
    """The CLIP whose towers have folders of their own; its embeddings are used as they are."""
    text = _json(folder / "text_encoder" / "config.json")
    return clip_map.transformers_config(
        text,
        _json(folder / "image_encoder" / "config.json") if vision else None,
        embedding=int(text.get("projection_dim") or 512),
        end=tokenizer.end,
        where=str(folder),
        normalize=False,
    )


def _split_clip_part(folder: Path, config: ClipConfig) -> ForeignPart:
    towers = ["text_encoder"] + (["image_encoder"] if config.towers == "both" else [])
    table = clip_map.split_towers("text_encoder/", "image_encoder/" if len(towers) == 2 else None)
    files = {f"{tower}/": _weight_file(folder / tower) for tower in towers}
    return ForeignPart(kind="clip", config=config, table=table, files=files)


def _prior(folder: Path, clip: ClipConfig, scheduler: str) -> ForeignPart:
    config = karlo.prior_config(
        _json(folder / "prior" / "config.json"),
        _json(folder / scheduler / "scheduler_config.json"),
        f"{folder}/prior",
    )
    if (config.embedding, config.context) != (clip.embedding, clip.text.context):
        raise ModelError(
            f"{folder}: the prior reads embeddings of {config.embedding} and {config.context} tokens, its CLIP gives "
            f"{clip.embedding} and {clip.text.context}"
        )
    files = {"prior/": _weight_file(folder / "prior")}
    return ForeignPart(kind="prior_diffusion", config=config, table=karlo.PRIOR, files=files)


def _kandinsky_prior(folder: Path) -> Foreign:
    tokenizer = read_tokenizer(folder / "tokenizer")
    clip = _split_clip(folder, tokenizer, vision=True)
    return Foreign(
        format="kandinsky prior",
        folder=folder,
        licence=_licence(folder),
        parts={"clip": _split_clip_part(folder, clip), "prior": _prior(folder, clip, "scheduler")},
        tokenizer=lambda: tokenizer,
        defaults=PRIOR_DEFAULTS,
    )


def _eclipse(folder: Path, config: Mapping[str, Any]) -> Foreign:
    def tokenizer() -> ClipTokenizer:
        raise ModelError(
            f"{folder} holds a prior alone, and no tokenizer: take it as a part of a whole model"
        )

    part = ForeignPart(
        kind="prior_diffusion",
        config=karlo.eclipse_config(config, str(folder)),
        table=karlo.ECLIPSE,
        files={"": _weight_file(folder)},
    )
    return Foreign(
        format="eclipse",
        folder=folder,
        licence=_licence(folder),
        parts={"prior": part},
        tokenizer=tokenizer,
        # It answers at once, and was trained without dropping captions.
        defaults={"prior_steps": 1, "prior_sampler": "ancestral", "prior_guidance": 1.0, "candidates": 1},
    )


def _transformers_clip(folder: Path) -> Foreign:
    data = _json(folder / "config.json")
    tokenizer = read_tokenizer(folder)
    config = clip_map.transformers_config(
        data.get("text_config") or {},
        data.get("vision_config") or {},
        embedding=int(data.get("projection_dim") or 512),
        end=tokenizer.end,
        where=str(folder),
    )
    part = ForeignPart(
        kind="clip", config=config, table=clip_map.TRANSFORMERS, files={"": _weight_file(folder)}
    )
    return Foreign(
        format="clip",
        folder=folder,
        licence=_licence(folder),
        parts={"clip": part},
        tokenizer=lambda: tokenizer,
    )


def _openclip(folder: Path) -> Foreign:
    config = clip_map.openclip_config(_json(folder / "open_clip_config.json"), str(folder))
    part = ForeignPart(
        kind="clip", config=config, table=clip_map.openai_table(), files={"": _weight_file(folder)}
    )
    return Foreign(
        format="openclip",
        folder=folder,
        licence=_licence(folder),
        parts={"clip": part},
        tokenizer=lambda: read_tokenizer(folder, context=config.text.context),
    )


def read_tokenizer(folder: Path, *, context: int | None = None) -> ClipTokenizer:
    """CLIP's tokenizer from `tokenizer.json`, or from `vocab.json` and `merges.txt`.

    Unlike the tokenizers of some of these folders it pads with zeros and never takes a "!" of the prompt, which has the
    number 0 there, for padding. Raises `ModelError` where files are missing or damaged.
    """
    settings = folder / "tokenizer_config.json"
    if context is None:
        length = _json(settings).get("model_max_length") if settings.is_file() else None
        # Files without a limit say 10^30.
        context = length if isinstance(length, int) and 2 <= length <= 4096 else 77
    try:
        if (folder / "vocab.json").is_file():
            vocabulary = _json(folder / "vocab.json")
            lines = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
            merges = [tuple(line.split()) for line in lines if line and not line.startswith("#version")]
        else:
            model = _json(folder / "tokenizer.json")["model"]
            vocabulary = model["vocab"]
            merges = [tuple(one.split(" ") if isinstance(one, str) else one) for one in model["merges"]]
        return ClipTokenizer.from_merges(
            vocabulary, [(left, right) for left, right in merges], context=context
        )
    except FileNotFoundError as error:
        raise ModelError(f"{error.filename} is missing: get the model again") from error
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"{folder}: the tokenizer's files are damaged ({error}): get the model again"
        ) from error


@contextlib.contextmanager
def open_weights(files: Mapping[str, Path]) -> Iterator[dict[str, Callable[[], Tensor]]]:
    """How to read each weight of some safetensors files, by prefix and key. Raises `ModelError` for a bad file."""
    with contextlib.ExitStack() as stack:
        readers: dict[str, Callable[[], Tensor]] = {}
        for prefix, file in files.items():
            if file.suffix != ".safetensors":
                raise ModelError(
                    f"{file} is pickled, which can hide programs: `unclip convert` reads it safely"
                )
            try:
                stored = stack.enter_context(safe_open(file, framework="pt"))
                names = stored.keys()
                for key in names:
                    readers[prefix + key] = lambda stored=stored, key=key: stored.get_tensor(key)
            except FileNotFoundError:
                raise ModelError(f"{file} is missing: get the model again") from None
            except SafetensorError as error:
                raise ModelError(f"{file} is damaged ({error}): get the model again") from error
        yield readers


def _weight_file(folder: Path) -> Path:
    """The weights of a component: safetensors before pickles, full precision before half."""
    for suffix in (".safetensors", ".bin"):
        for stem in _WEIGHTS:
            for variant in _VARIANTS:
                if (file := folder / f"{stem}{variant}{suffix}").is_file():
                    return file
    raise ModelError(f"{folder} holds no weights: get the model again")


def _json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{path} is missing: get the model again") from None
    except ValueError as error:
        raise ModelError(f"{path} is damaged ({error}): get the model again") from error
    if not isinstance(data, dict):
        raise ModelError(f"{path} is damaged: it holds no object")
    return data


def _licence(folder: Path) -> str:
    """What the model card says of the licence, if there is a card."""
    card = folder / "README.md"
    found = card.is_file() and re.search(
        r"(?m)\A---$.*?^license: *(\S+)", card.read_text(errors="replace"), re.S
    )
    return found[1] if found else ""


def _sample(file: Path, pieces: int = 16, size: int = 65536) -> bytes:
    length = file.stat().st_size
    digest = hashlib.sha256(f"{file.name} {length}".encode())
    with open(file, "rb") as opened:
        for index in range(pieces):
            opened.seek(max(0, length - size) * index // (pieces - 1))
            digest.update(opened.read(size))
    return digest.digest()


def find_tokenizer(folder: Path) -> ClipTokenizer:
    """The tokenizer in a folder, or in the folder `tokenizer` inside of it."""
    inner = folder / "tokenizer"
    return read_tokenizer(inner if inner.is_dir() else folder)
