"""Results: a picture with its provenance, and lists of them, which show themselves in notebooks."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtyping import Float
from PIL import Image as PillowImage
from torch import Tensor

from unclip.config import read_value, shown
from unclip.errors import RequestError
from unclip.images.files import grid, open_picture
from unclip.images.metadata import COMPOSITE, GENERATED, encode_png, read_provenance, save_picture


@dataclass(frozen=True, kw_only=True, eq=False)
class Image:
    """A finished picture.

    `provenance` is JSON-able and complete: `Model.redo` makes the picture again from it. `embedding` is the CLIP image
    embedding z_i that the picture was decoded from. `warnings` hold what the caller should know, such as a truncated
    prompt.
    """

    image: PillowImage.Image
    provenance: dict[str, Any]
    embedding: Float[Tensor, " d"] | None = None
    warnings: tuple[str, ...] = ()

    @property
    def seed(self) -> int:
        """Seed that makes this picture alone. Raises `RequestError` where the provenance of an opened file has none."""
        found = _mapping(self.provenance.get("request", self.provenance)).get("seed")
        return read_value(int, found, "seed", error=RequestError)

    @property
    def recipe(self) -> dict[str, Any]:
        """Deprecated name of `provenance`."""
        return self.provenance

    @property
    def parameters(self) -> str:
        """Provenance as readable lines, in the form that AUTOMATIC1111's web interface made common."""
        return readable(self.provenance)

    def png(self) -> bytes:
        """PNG bytes with provenance and the IPTC mark of a generated picture."""
        return encode_png(self.image, **self._metadata())

    def save(self, path: str | os.PathLike[str], *, force: bool = False) -> Path:
        """Path of the PNG file, written whole or not at all. Raises `FileExistsError` unless `force`."""
        return save_picture(self.image, path, force=force, **self._metadata())

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> "Image":
        """Picture that `save` wrote. Raises `PictureError` for a picture without provenance."""
        return cls(image=open_picture(path), provenance=read_provenance(path))

    def _metadata(self) -> dict[str, Any]:
        source = COMPOSITE if self.provenance.get("composite") else GENERATED
        return {"provenance": self.provenance, "parameters": self.parameters, "source_type": source}

    def _repr_png_(self) -> bytes:
        return self.png()


class Images(list[Image]):
    """List of pictures; notebooks show it as one grid."""

    @property
    def grid(self) -> PillowImage.Image:
        """All pictures on one white sheet, as near to a square as possible."""
        return grid([one.image for one in self], gap=8)

    def save(self, folder: str | os.PathLike[str], *, force: bool = False) -> list[Path]:
        """Paths of the PNG files, named by seed, in a folder that is made if needed."""
        return [
            one.save(Path(folder) / f"{index:03}-{one.seed}.png", force=force)
            for index, one in enumerate(self)
        ]

    def _repr_png_(self) -> bytes:
        return encode_png(self.grid)


def readable(provenance: Mapping[str, Any]) -> str:
    """Provenance as lines of text: prompt, negative prompt, then `Name: value` pairs."""
    request = _mapping(provenance.get("request"))
    sampling = _mapping(request.pop("sampling", None))
    flat: dict[str, Any] = {}
    if pieces := _list(provenance.get("composed")):
        request["prompt"] = "\n".join(dict.fromkeys(_prompts(provenance)))
        flat["Pieces"] = len(pieces)
    prompt, negative = request.pop("prompt", None), request.pop("negative", None)
    decoder = _mapping(sampling.get("decoder"))
    flat["Steps"] = decoder.pop("steps", None)
    flat["Sampler"] = decoder.pop("sampler", None)
    flat["CFG scale"] = decoder.pop("guidance", None)
    flat["Seed"] = request.pop("seed", None)
    flat["Size"] = "x".join(_text(side) for side in _list(provenance.get("size"))) or None
    flat["Model hash"] = provenance.get("digest")
    flat["Model"] = provenance.get("model")
    flat["Operation"] = request.pop("kind", None)
    request.pop("size", None)
    flat |= {_title(name): _value(value) for name, value in request.items()}
    flat |= {_title(name): _value(value) for name, value in decoder.items()}
    flat |= {
        _title(f"prior {name}"): _value(value) for name, value in _mapping(sampling.get("prior")).items()
    }
    for index, entry in enumerate(_list(sampling.get("upsamplers")), start=1):
        flat |= {
            _title(f"upsampler {index} {name}"): _value(value) for name, value in _mapping(entry).items()
        }
    flat |= {_title(name): _value(value) for name, value in _mapping(provenance.get("results")).items()}
    flat["Version"] = f"unclip {_text(provenance.get('unclip'))}"
    lines = [_text(prompt)] if prompt else []
    if negative:
        lines.append(f"Negative prompt: {_text(negative)}")
    return "\n".join(
        [*lines, ", ".join(f"{name}: {_text(value)}" for name, value in flat.items() if value is not None)]
    )


def _prompts(provenance: Mapping[str, Any]) -> Iterator[str]:
    """Prompts of a picture, or of the pieces that it is put together from."""
    request = _mapping(provenance.get("request"))
    if text := request.get("prompt") or request.get("target"):
        yield _text(text)
    for piece in _list(provenance.get("composed")):
        yield from _prompts(_mapping(_mapping(piece).get("provenance")))


def _mapping(value: Any) -> dict[str, Any]:
    """A copy of a JSON object; empty for anything else, which provenance of others may hold."""
    return {str(name): item for name, item in value.items()} if isinstance(value, Mapping) else {}


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else ()


def _title(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _value(value: Any) -> str:
    return " ".join(map(_text, value)) if isinstance(value, list | tuple) else _text(value)


def _text(value: Any) -> str:
    try:
        return str(value)
    except (ValueError, RecursionError):
        # Numbers of thousands of digits and lists nested as deep, in provenance of others.
        return shown(value)
