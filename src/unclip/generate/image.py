"""Results: a picture with its provenance, and lists of them, which show themselves in notebooks."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtyping import Float
from PIL import Image as PillowImage
from torch import Tensor

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
        """Seed that makes this picture alone."""
        found = self.provenance.get("request", self.provenance).get("seed")
        assert isinstance(found, int)
        return found

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
    request = dict(provenance.get("request") or {})
    sampling: dict[str, Any] = request.pop("sampling", {})
    flat: dict[str, Any] = {}
    prompt, negative = request.pop("prompt", None), request.pop("negative", None)
    decoder = dict(sampling.get("decoder") or {})
    flat["Steps"] = decoder.pop("steps", None)
    flat["Sampler"] = decoder.pop("sampler", None)
    flat["CFG scale"] = decoder.pop("guidance", None)
    flat["Seed"] = request.pop("seed", None)
    flat["Size"] = "x".join(str(side) for side in provenance.get("size") or ()) or None
    flat["Model hash"] = provenance.get("digest")
    flat["Model"] = provenance.get("model")
    flat["Operation"] = request.pop("kind", None)
    request.pop("size", None)
    flat |= {_title(name): _value(value) for name, value in request.items()}
    flat |= {_title(name): _value(value) for name, value in decoder.items()}
    flat |= {_title(f"prior {name}"): _value(value) for name, value in (sampling.get("prior") or {}).items()}
    for index, entry in enumerate(sampling.get("upsamplers", []), start=1):
        flat |= {_title(f"upsampler {index} {name}"): _value(value) for name, value in entry.items()}
    flat |= {_title(name): _value(value) for name, value in (provenance.get("results") or {}).items()}
    flat["Version"] = f"unclip {provenance.get('unclip')}"
    lines = [str(prompt)] if prompt else []
    if negative:
        lines.append(f"Negative prompt: {negative}")
    return "\n".join(
        [*lines, ", ".join(f"{name}: {value}" for name, value in flat.items() if value is not None)]
    )


def _title(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _value(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
