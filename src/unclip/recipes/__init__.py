"""Recipes: functions that return a training config. `get("artwork", "decoder")` finds one by name."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from unclip.recipes import artwork, dalle2, judge, tiny
from unclip.stages.sampling import DEFAULTS, Sampling
from unclip.train.config import ClipDependent, TrainConfig
from unclip.train.registry import STAGES

#: Recipe -> stage -> its config: the functions that a module of this package has, named after the stages.
RECIPES: dict[str, dict[str, Callable[[], TrainConfig]]] = {
    module.__name__.rpartition(".")[2]: {
        stage: getattr(module, stage) for stage in STAGES if hasattr(module, stage)
    }
    for module in (artwork, dalle2, judge, tiny)
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
SAMPLING: dict[str, Callable[[], Sampling]] = {"artwork": artwork.sampling, "dalle2": dalle2.sampling}


def chain(recipe: str, out: Path) -> dict[str, tuple[TrainConfig, float]]:
    """Every run of a recipe's model, each in its own folder in `out`, with its share. Raises ValueError that names what there is."""
    if recipe not in CHAINS:
        raise ValueError(f"there is no chain of stages {recipe!r}; choose from {', '.join(CHAINS)}")
    stages = {}
    for name, share in CHAINS[recipe].items():
        config = get("judge", "clip") if name == "judge" else get(recipe, name)
        if isinstance(config, ClipDependent):
            config = replace(config, clip=str(out / "clip"))
        stages[name] = replace(config, out=str(out / name)), share
    return stages


def get(recipe: str, stage: str) -> TrainConfig:
    """The config of one stage. Raises ValueError that names what there is."""
    if recipe not in RECIPES:
        raise ValueError(f"there is no recipe {recipe!r}; choose from {', '.join(RECIPES)}")
    stages = RECIPES[recipe]
    if stage not in stages:
        raise ValueError(f"the recipe {recipe!r} has no stage {stage!r}; choose from {', '.join(stages)}")
    return stages[stage]()


def sampling(recipe: str) -> Sampling:
    """How a recipe's model is sampled: its defaults."""
    return SAMPLING[recipe]().over(DEFAULTS) if recipe in SAMPLING else DEFAULTS
