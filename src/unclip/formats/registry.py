"""Registry of public formats, and the folder of a model by its name. Imports no torch.

To add a format: write a module with `open_folder(folder, reader) -> PublicModel`, and add a row to `FORMATS`.
"""

import importlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from unclip.checkpoints.foreign import not_weights
from unclip.checkpoints.hub import HUB_ID, bundled, pulled
from unclip.checkpoints.manifest import MANIFEST
from unclip.errors import ModelError
from unclip.formats.folder import OPENCLIP_STEMS, STEMS, header_holds, read_json, weight_files
from unclip.formats.known import advice

if TYPE_CHECKING:
    from unclip.formats.public import PublicModel, Reader


@dataclass(frozen=True, kw_only=True)
class Format:
    """A public format: how its folders are recognised, and the module that opens them."""

    name: str
    module: str
    files: tuple[str, ...] = ()
    """Paths of which a folder of this format has at least one."""
    key: str = ""
    """With `values`: a key of that JSON file, and the values of this format."""
    values: tuple[str, ...] = ()
    also: Callable[[Path], bool] = lambda folder: True
    """A further condition."""
    convert_only: bool = False
    """Whether only `unclip convert` reads it: pickled files without configs or tokenizer."""
    tokenizer: Literal["clip", "glide"] = "clip"
    """Kind of tokenizer that is given to `unclip convert`, for formats that hold none."""

    def matches(self, path: Path) -> bool:
        """Whether a folder (or a file, for formats of one file) is in this format. Raises `ModelError` for damaged JSON."""
        present = [path / file for file in self.files if (path / file).is_file()]
        if self.files and not present:
            return False
        if self.key and read_json(present[0]).get(self.key) not in self.values:
            return False
        return self.also(path)

    def open(self, path: Path, reader: "Reader | None" = None) -> "PublicModel":
        """The model. Raises `ModelError` if it is damaged, incomplete, or has options that the networks lack."""
        module = importlib.import_module(f"unclip.formats.{self.module}")
        try:
            return module.open_folder(path) if reader is None else module.open_folder(path, reader)
        except ModelError:
            raise
        # A network's own check of its config, which knows no file.
        except ValueError as error:
            raise ModelError(
                f"{path}: its configs describe no network that is known here: {error}"
            ) from error


def _transformers_preferred(folder: Path) -> bool:
    """Whether transformers' copy of a CLIP is used where a folder has OpenCLIP's as well: if only it is not pickled."""

    def rank(stems: Sequence[str]) -> int:
        try:
            return int(weight_files(folder, stems)[0].suffix == ".safetensors")
        except ModelError:
            return -1

    return not (folder / "open_clip_config.json").is_file() or rank(STEMS) > rank(OPENCLIP_STEMS)


def _is_stable_diffusion(path: Path) -> bool:
    """Whether a file holds Stable Diffusion; its first bytes are looked at, without torch."""
    return path.is_file() and header_holds(path, b"model.diffusion_model.")


FORMATS: tuple[Format, ...] = (
    Format(
        name="karlo",
        module="karlo",
        files=("model_index.json",),
        key="_class_name",
        values=("UnCLIPPipeline", "UnCLIPImageVariationPipeline"),
    ),
    Format(
        name="kandinsky prior",
        module="kandinsky_prior",
        files=("model_index.json",),
        key="_class_name",
        values=("KandinskyPriorPipeline", "KandinskyV22PriorPipeline"),
    ),
    Format(
        name="kandinsky decoder",
        module="kandinsky_decoder",
        files=("model_index.json",),
        key="_class_name",
        values=tuple(
            f"Kandinsky{version}{kind}Pipeline"
            for version in ("", "V22")
            for kind in ("", "Inpaint", "Img2Img", "Combined", "InpaintCombined", "Img2ImgCombined")
        ),
    ),
    Format(
        name="stable diffusion",
        module="stable_diffusion",
        files=("model_index.json",),
        key="_class_name",
        values=(
            "StableDiffusionPipeline",
            "StableDiffusionImg2ImgPipeline",
            "StableDiffusionInpaintPipeline",
            "StableDiffusionInpaintPipelineLegacy",
            "StableUnCLIPPipeline",
            "StableUnCLIPImg2ImgPipeline",
        ),
    ),
    Format(
        name="clip",
        module="clip_transformers",
        files=("config.json",),
        key="model_type",
        values=("clip",),
        also=_transformers_preferred,
    ),
    Format(name="openclip", module="clip_openclip", files=("open_clip_config.json",)),
    Format(
        name="eclipse prior",
        module="eclipse",
        files=("config.json",),
        key="_class_name",
        values=("PriorTransformer",),
    ),
    Format(
        name="autoencoder",
        module="autoencoder",
        files=("config.json",),
        key="_class_name",
        values=("AutoencoderKL",),
    ),
    Format(name="laion prior", module="laion", files=("prior_config.json", "prior/prior_config.json")),
    Format(
        name="karlo original",
        module="karlo_original",
        also=lambda folder: next(folder.glob("prior-ckpt*.ckpt"), None) is not None,
        convert_only=True,
    ),
    Format(
        name="glide",
        module="glide",
        also=lambda folder: any((folder / name).is_file() for name in ("base.pt", "base_inpaint.pt")),
        convert_only=True,
        tokenizer="glide",
    ),
    Format(
        name="stable diffusion file",
        module="stable_diffusion_file",
        also=_is_stable_diffusion,
        convert_only=True,
    ),
    Format(name="openai clip", module="clip_openai", also=Path.is_file, convert_only=True),
)
"""All formats, tried in this order."""


def format_of(path: Path, *, convert: bool = False) -> Format | None:
    """Format of a folder; None if it is in none. With `convert`, also formats that only `unclip convert` reads.

    Raises `ModelError` for damaged JSON, and for a diffusers pipeline that is not supported.
    """
    for one in FORMATS:
        if (convert or not one.convert_only) and one.matches(path):
            return one
    index = path / "model_index.json"
    if index.is_file():
        known = [name for one in FORMATS if "model_index.json" in one.files for name in one.values]
        raise ModelError(
            f"{path} holds a {read_json(index).get('_class_name')} of diffusers; supported: {', '.join(known)}"
        )
    return None


def recognise(folder: Path) -> "PublicModel | None":
    """Model in a folder of a public format; None if the folder is in none.

    Raises `ModelError` if the model is damaged, incomplete, or has options that the networks lack.
    """
    found = format_of(folder)
    return None if found is None else found.open(folder)


_WEIGHTS = (".safetensors", ".bin", ".ckpt", ".pt", ".pth")


def _about_file(file: Path) -> str:
    """What to give in place of a single file."""
    if found := not_weights(file):
        return f"; it {found}"
    if file.suffix == ".safetensors" or file.name in {name for one in FORMATS for name in one.files} | {
        MANIFEST
    }:
        home = file.parent
        marks = {MANIFEST, *(name for one in FORMATS for name in one.files)}
        if any((home / name).is_file() for name in marks):
            return f": give the folder that holds it, {home}"
        return (
            ": its weights need the config and the tokenizer beside them, give the whole folder of the model"
        )
    if file.suffix in _WEIGHTS:
        return ": `unclip convert` reads pickled files of OpenAI's CLIP; for others, give it the folder that holds them"
    return ""


def what_it_holds(folder: Path) -> str:
    """For messages about an unknown folder: what it seems to be and what to give, after a colon; "" if there is no hint."""
    whole = next(
        (home for home in folder.absolute().parents[:1] if (home / "model_index.json").is_file()), None
    )
    for name in ("config.json", "scheduler_config.json", "preprocessor_config.json", "tokenizer_config.json"):
        if not (folder / name).is_file():
            continue
        try:
            data = read_json(folder / name)
        except ModelError:
            continue
        kind = data.get("_class_name") or data.get("model_type") or folder.name
        if whole is not None:
            return f": it is one part ({str(kind)[:60]}) of the model in {whole}, give that folder"
        if name == "config.json" and (data.get("_class_name") or data.get("model_type")):
            what = "of diffusers" if data.get("_class_name") else "of transformers"
            return f": it holds a single {str(kind)[:60]} {what}, give the folder of a whole model"
    within = sorted(folder.iterdir()) if folder.is_dir() else []
    inner = [one.name for one in within if (one / MANIFEST).is_file() or (one / "model_index.json").is_file()]
    if inner:
        more = f" and {len(inner) - 5} more" if inner[5:] else ""
        return f": it holds the model folder{'s' if inner[1:] else ''} {', '.join(inner[:5])}{more}, give one of them"
    parts = [one.name for one in within if (one / "config.json").is_file()]
    if parts:
        return f": it holds {', '.join(parts[:5])} without the model_index.json that names a pipeline's parts, get the model again"
    weights = (
        sorted(one.name for one in folder.iterdir() if one.suffix in _WEIGHTS) if folder.is_dir() else []
    )
    if weights:
        return f": it holds weights ({weights[0]}) without a config"
    return ""


def format_name(folder: Path) -> str:
    """Name of a folder's format from its configs alone ("unclip" for a model folder), "" if unknown or damaged."""
    if (folder / MANIFEST).is_file():
        return "unclip"
    try:
        found = format_of(folder)
    except ModelError:
        return ""
    return "" if found is None else found.name


def resolve(model: str | os.PathLike[str]) -> Path:
    """Folder of a model: a bundled name, a path, or a hub id that was pulled.

    Raises `FileNotFoundError` that lists the bundled names, or says how to pull.
    """
    names = bundled()
    if isinstance(model, str) and model in names:
        return names[model]
    folder = Path(model).expanduser()
    marks = {MANIFEST, *(file for one in FORMATS for file in one.files)}
    if any((folder / file).is_file() for file in marks):
        return folder
    if isinstance(model, str) and not folder.exists() and HUB_ID.fullmatch(model):
        if (found := pulled(model)) is not None:
            return found
        raise FileNotFoundError(
            f"{model} is neither a folder nor a pulled model: `unclip models pull {model}` downloads it from the hub"
        )
    listed = ", ".join(names) or "none in this installation"
    if folder.is_file():
        raise FileNotFoundError(f"{folder} is a file, where a model is a folder{_about_file(folder)}")
    if folder.is_dir():
        pickled = sorted(path for path in folder.iterdir() if path.suffix in (".ckpt", ".pt", ".pth"))
        if pickled:
            raise FileNotFoundError(
                f"{folder} holds pickled weights, such as {pickled[0].name}: `unclip convert` reads those of Karlo, of "
                "OpenAI's CLIP and of LAION's prior"
            )
        raise FileNotFoundError(
            f"{folder} is not a model folder: it has no {MANIFEST}{what_it_holds(folder)}; bundled models: {listed}"
        )
    more = f"; {advice(model)}" if isinstance(model, str) and not set(model) & set("/\\") else ""
    raise FileNotFoundError(
        f"there is no model {os.fspath(model)!r}: give a folder, or a bundled model: {listed}{more}"
    )
