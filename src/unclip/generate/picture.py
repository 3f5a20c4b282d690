"""A picture with its recipe: what it was made from, in enough detail to make it again."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtyping import Float
from PIL import Image
from torch import Tensor

from unclip.images.files import open_picture
from unclip.images.metadata import COMPOSITE, GENERATED, encode_png, read_recipe, save_picture

RECIPE_FORMAT = 1


@dataclass(frozen=True, kw_only=True, eq=False)
class Picture:
    """A finished picture. `recipe` is JSON-able; `embedding` is the CLIP image embedding z_i that it was drawn from."""

    image: Image.Image
    recipe: dict[str, Any]
    embedding: Float[Tensor, " d"] | None = None

    @property
    def seed(self) -> int:
        """The seed that makes this picture alone."""
        return self.recipe["seed"]

    @property
    def parameters(self) -> str:
        """The recipe for people, in the form that AUTOMATIC1111's web interface made common."""
        return readable(self.recipe)

    def png(self) -> bytes:
        """The picture as PNG, with its recipe and the mark that a model made it."""
        return encode_png(self.image, **self._metadata())

    def save(self, path: str | os.PathLike[str], *, force: bool = False) -> Path:
        """Write `png()` to a file, whole or not at all. Raises `FileExistsError` unless `force`."""
        return save_picture(self.image, path, force=force, **self._metadata())

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> "Picture":
        """A picture that `save` wrote. Raises `PictureError` if it carries no recipe."""
        return cls(image=open_picture(path), recipe=read_recipe(path))

    def _metadata(self) -> dict[str, Any]:
        # A picture in which pixels of a given one remain, or which enlarges one, is a composite.
        given = self.recipe.get("operation") in ("edit", "outpaint", "upscale")
        source = COMPOSITE if given else GENERATED
        return {"recipe": self.recipe, "parameters": self.parameters, "source_type": source}

    def _repr_png_(self) -> bytes:
        return self.png()


# Names that other programs know; what is not listed here is told under its own name.
_KNOWN = {
    "steps": "Steps",
    "sampler": "Sampler",
    "guidance": "CFG scale",
    "seed": "Seed",
    "size": "Size",
    "weights": "Model hash",
    "model": "Model",
}
_UNTOLD = ("recipe", "prompt", "negative", "unclip")


def readable(recipe: Mapping[str, Any]) -> str:
    """A recipe as lines of text: prompt, negative prompt, then `name: value` pairs."""
    told = (
        {**recipe, "size": f"{size}x{size}" if isinstance(size, int) else "x".join(map(str, size))}
        if (size := recipe.get("size"))
        else dict(recipe)
    )
    pairs = [f"{_KNOWN[name]}: {told[name]}" for name in _KNOWN if told.get(name) is not None]
    others = [name for name in told if name not in _KNOWN and name not in _UNTOLD and told[name] is not None]
    pairs += [f"{name.replace('_', ' ').capitalize()}: {_value(told[name])}" for name in others]
    pairs.append(f"Version: unclip {recipe.get('unclip')}")
    lines = [str(recipe.get("prompt") or "")]
    if recipe.get("negative"):
        lines.append(f"Negative prompt: {recipe['negative']}")
    return "\n".join([line for line in lines if line] + [", ".join(pairs)])


def _value(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
