"""Recipes: functions that return a training config. `get("artwork", "decoder")` finds one by name."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from unclip.generate.settings import Settings
from unclip.recipes import artwork, artwork_gpu, dalle2, judge, tiny
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
    "artwork_gpu": {
        "clip": artwork_gpu.clip,
        "prior": artwork_gpu.prior,
        "decoder": artwork_gpu.decoder,
        "upsampler": artwork_gpu.upsampler,
        "upsampler_1024": artwork_gpu.upsampler_1024,
        "prior_autoregressive": artwork_gpu.prior_autoregressive,
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
    "artwork_gpu": {
        "clip": 0.14,
        "prior": 0.07,
        "decoder_coarse": 0.23,
        "decoder": 0.30,
        "upsampler": 0.13,
        "prior_autoregressive": 0.08,
        "judge": 0.05,
    },
    "tiny": {"clip": 0.25, "prior": 0.20, "decoder": 0.40, "upsampler": 0.15},
}

#: Runs of a chain that are none of its recipe's stages: the judge, and what a stage begins with.
BESIDE: dict[str, dict[str, Callable[[], TrainConfig]]] = {
    "artwork_gpu": {"judge": artwork_gpu.judge, "decoder_coarse": artwork_gpu.decoder_coarse},
}

#: Run of a chain -> the earlier run with whose weights it begins.
BEGUN = {"artwork_gpu": {"decoder": "decoder_coarse"}}

#: Recipes whose runs keep the last average: they train so long that the held-out loss says little about the drawings.
KEEP_LAST = ("artwork_gpu",)

#: Recipe -> how its model is sampled, where that was chosen.
SAMPLING: dict[str, Callable[[], Settings]] = {
    "artwork": artwork.sampling,
    "artwork_gpu": artwork_gpu.sampling,
    "dalle2": dalle2.sampling,
}


def chain(recipe: str, out: Path) -> dict[str, tuple[TrainConfig, float]]:
    """Every run of a recipe's model, each in its own folder in `out`, with its share. Raises ValueError that names what there is."""
    if recipe not in CHAINS:
        raise ValueError(f"there is no chain of stages {recipe!r}; choose from {', '.join(CHAINS)}")
    stages = {}
    for name, share in CHAINS[recipe].items():
        config = get(recipe, name) if name not in beside(recipe) else beside(recipe)[name]()
        clip = None if config.clip is None else str(out / "clip")
        first = BEGUN.get(recipe, {}).get(name)
        init = config.init if first is None else str(out / first / "model")
        stages[name] = replace(config, out=str(out / name), clip=clip, init=init), share
    return stages


def beside(recipe: str) -> dict[str, Callable[[], TrainConfig]]:
    """The runs of a recipe's chain that are no part of its model."""
    return {"judge": judge.clip, **BESIDE.get(recipe, {})}


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
