"""What a recipe holds, whatever the operation; and what it takes to make a picture again."""

import importlib.metadata
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from unclip.config import to_dict
from unclip.generate.picture import RECIPE_FORMAT
from unclip.generate.progress import Callback
from unclip.generate.settings import Settings
from unclip.generate.sources import PictureLike, Source, read_sources
from unclip.generate.system import System

_OF_THE_PRIOR = ("prior", "prior_steps", "prior_sampler", "prior_guidance", "candidates")
_OF_THE_SECOND_UPSAMPLER = ("second_upsampler_steps", "second_upsampler_sampler")


def recipe_of(
    system: System,
    operation: str,
    *,
    seed: int,
    size: int | Sequence[int],
    settings: Settings,
    sources: Sequence[Source] = (),
    prior: bool = False,
    **what: Any,
) -> dict[str, Any]:
    """All that makes a picture what it is, JSON-able.

    `what` belongs to the operation; None is left out. `size` is a side, or width and height. `prior` says whether the
    prior took part.
    """
    second = sum(name.startswith("upsampler") for name in system.parts) > 1
    idle = (() if prior else _OF_THE_PRIOR) + (() if second else _OF_THE_SECOND_UPSAMPLER)
    knobs = {name: value for name, value in to_dict(settings).items() if name not in idle}
    return {
        "recipe": RECIPE_FORMAT,
        "operation": operation,
        "unclip": importlib.metadata.version("unclip"),
        "model": system.name,
        "weights": system.weights,
        **{name: value for name, value in what.items() if value is not None},
        **({"sources": [source.sha256 for source in sources]} if sources else {}),
        "seed": seed,
        "size": size if isinstance(size, int) else list(size),
        **knobs,
        "device": system.device.type,
        "dtype": str(system.dtype).removeprefix("torch."),
        "torch": torch.__version__,
    }


class Redo(NamedTuple):
    """A picture that is to be made again: by what, from which recipe, and from which pictures, if it was made from any.

    Every operation has a function `again` that takes one.
    """

    system: System
    recipe: Mapping[str, Any]
    given: Sequence[PictureLike]
    settings: Settings
    callback: Callback | None

    def sources(self, wanted: Sequence[int] = (1,)) -> list[Source]:
        """The pictures given, checked to be those that the recipe names; `wanted` are the possible numbers of them."""
        return read_sources(self.recipe, self.given, wanted)

    def told(self, name: str) -> Any:
        """What the recipe says of `name`. Raises `ValueError` where it says nothing."""
        if name not in self.recipe:
            raise ValueError(
                f"the recipe of {self.recipe.get('operation')!r} does not tell its {name}: it is damaged"
            )
        return self.recipe[name]

    @property
    def common(self) -> dict[str, Any]:
        """The arguments that all operations take alike."""
        return {"settings": self.settings, "seed": self.told("seed"), "callback": self.callback}
