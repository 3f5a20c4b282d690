"""Recipes: functions that return a training config. `get("artwork", "decoder")` finds one by name."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from unclip.generate.settings import Settings
from unclip.recipes import artwork, dalle2, judge, tiny
from unclip.train.config import Stage, TrainConfig

RECIPES: dict[str, dict[Stage, Callable[[], TrainConfig]]] = {
    "artwork": {
        "clip": artwork.clip,
        "prior": artwork.prior,
        "decoder": artwork.decoder,
        "upsampler": artwork.upsampler,
        "upsampler_1024": artwork.upsampler_1024,
        "prior_autoregressive": artwork.prior_autoregressive,
    },
    "dalle2": {
        "clip": dalle2.clip,
        "prior": dalle2.prior,
        "decoder": dalle2.decoder,
        "upsampler": dalle2.upsampler,
        "upsampler_1024": dalle2.upsampler_1024,
        "prior_autoregressive": dalle2.prior_autoregressive,
    },
    "judge": {"clip": judge.clip},
    "tiny": {
        "clip": tiny.clip,
        "prior": tiny.prior,
        "decoder": tiny.decoder,
        "upsampler": tiny.upsampler,
        "upsampler_1024": tiny.upsampler_1024,
        "prior_autoregressive": tiny.prior_autoregressive,
    },
}


#: Recipe -> the runs that make and judge its model, in order, and each one's share of a budget of time.
CHAINS = {
    "artwork": {
        "clip": 0.18,
        "prior": 0.10,
        "prior_autoregressive": 0.04,
        "decoder": 0.51,
        "upsampler": 0.11,
        "judge": 0.06,
    },
    "tiny": {"clip": 0.25, "prior": 0.20, "decoder": 0.40, "upsampler": 0.15},
}

#: Recipe -> how its model is sampled, where that was chosen.
SAMPLING: dict[str, Callable[[], Settings]] = {"artwork": artwork.sampling, "dalle2": dalle2.sampling}


def chain(recipe: str, out: Path) -> dict[str, tuple[TrainConfig, float]]:
    """Every run of a recipe's model, each in its own folder in `out`, with its share. Raises ValueError that names what there is."""
    if recipe not in CHAINS:
        raise ValueError(f"there is no chain of stages {recipe!r}; choose from {', '.join(CHAINS)}")
    stages = {}
    for name, share in CHAINS[recipe].items():
        config = get("judge", "clip") if name == "judge" else get(recipe, name)
        clip = None if config.clip is None else str(out / "clip")
        stages[name] = replace(config, out=str(out / name), clip=clip), share
    return stages


def get(recipe: str, stage: str) -> TrainConfig:
    """The config of one stage. Raises ValueError that names what there is."""
    if recipe not in RECIPES:
        raise ValueError(f"there is no recipe {recipe!r}; choose from {', '.join(RECIPES)}")
    stages = RECIPES[recipe]
    if stage not in stages:
        raise ValueError(f"the recipe {recipe!r} has no stage {stage!r}; choose from {', '.join(stages)}")
    return stages[stage]()


def sampling(recipe: str) -> Settings:
    """How a recipe's model is sampled: its defaults."""
    return SAMPLING.get(recipe, Settings)()
