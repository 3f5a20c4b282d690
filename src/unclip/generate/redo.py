"""A picture made again from its recipe, whatever the operation."""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from unclip.generate.picture import Picture
from unclip.generate.progress import Callback
from unclip.generate.recipe import Redo
from unclip.generate.settings import Settings, read_settings
from unclip.generate.sources import PictureLike
from unclip.generate.system import System
from unclip.generate.text_to_image import check_recipe

# Where each operation's `again` lives.
_HOMES = {
    "generate": "text_to_image",
    "vary": "variations",
    "reconstruct": "reconstruct",
    "interpolate": "interpolate",
    "text_diff": "text_diff",
    "edit": "inpaint",
    "outpaint": "outpaint",
    "upscale": "upscale",
    "redraw": "redraw",
    "pca": "pca",
}


def redo(
    system: System,
    recipe: Mapping[str, Any],
    sources: Sequence[PictureLike] = (),
    *,
    callback: Callback | None = None,
    any_weights: bool = False,
) -> Picture:
    """`System.redo`."""
    operation = recipe.get("operation")
    home = _HOMES.get(str(operation))
    if home is None:
        raise ValueError(
            f"the recipe is of {operation!r}, which this version cannot do: it knows {', '.join(_HOMES)}"
        )
    check_recipe(system, recipe, str(operation), any_weights=any_weights)
    names = {field.name for field in fields(Settings)}
    settings = read_settings({name: value for name, value in recipe.items() if name in names})
    again = importlib.import_module(f"unclip.generate.{home}").again
    return again(Redo(system, recipe, sources, settings, callback))
