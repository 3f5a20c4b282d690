"""Recipes: functions that return a training config. `get("artwork", "decoder")` finds one by name."""

from collections.abc import Callable

from unclip.recipes import artwork, judge, tiny
from unclip.train.config import Stage, TrainConfig

RECIPES: dict[str, dict[Stage, Callable[[], TrainConfig]]] = {
    "artwork": {
        "clip": artwork.clip,
        "prior": artwork.prior,
        "decoder": artwork.decoder,
        "upsampler": artwork.upsampler,
        "prior_autoregressive": artwork.prior_autoregressive,
    },
    "judge": {"clip": judge.clip},
    "tiny": {
        "clip": tiny.clip,
        "prior": tiny.prior,
        "decoder": tiny.decoder,
        "upsampler": tiny.upsampler,
        "prior_autoregressive": tiny.prior_autoregressive,
    },
}


def get(recipe: str, stage: str) -> TrainConfig:
    """The config of one stage. Raises ValueError that names what there is."""
    if recipe not in RECIPES:
        raise ValueError(f"there is no recipe {recipe!r}; choose from {', '.join(RECIPES)}")
    stages = RECIPES[recipe]
    if stage not in stages:
        raise ValueError(f"the recipe {recipe!r} has no stage {stage!r}; choose from {', '.join(stages)}")
    return stages[stage]()
