"""Recipes: functions that return a training config. `get("artwork", "decoder")` finds one by name."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from unclip.config import ConfigError, override
from unclip.recipes import (
    artwork,
    artwork_gpu,
    artwork_latent,
    dalle2,
    judge,
    kandinsky,
    stable_diffusion,
    tiny,
    tiny_latent,
)
from unclip.stages.sampling import DEFAULTS, Sampling
from unclip.train.chain import JUDGE, Chain
from unclip.train.config import ClipDependent, TrainConfig, change
from unclip.train.registry import STAGES

T = TypeVar("T")

EVALUATION = "evaluation"
"""What changes of the evaluation begin with, beside the names of stages."""

#: Recipe -> stage -> its config: the functions that a module of this package has, named after the stages.
RECIPES: dict[str, dict[str, Callable[[], TrainConfig]]] = {
    module.__name__.rpartition(".")[2]: {
        stage: getattr(module, stage) for stage in STAGES if hasattr(module, stage)
    }
    for module in (
        artwork,
        artwork_gpu,
        artwork_latent,
        dalle2,
        judge,
        kandinsky,
        stable_diffusion,
        tiny,
        tiny_latent,
    )
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
    "artwork_latent": {
        "clip": 0.14,
        "prior": 0.08,
        "autoencoder": 0.28,
        "latent_decoder": 0.45,
        "judge": 0.05,
    },
    "tiny": {"clip": 0.25, "prior": 0.20, "decoder": 0.40, "upsampler": 0.15},
    "tiny_latent": {"clip": 0.20, "prior": 0.15, "autoencoder": 0.25, "latent_decoder": 0.40},
}

#: Recipe -> the runs of its chain that are none of its stages, beside the common judge.
BESIDE: dict[str, dict[str, Callable[[], TrainConfig]]] = {
    "artwork_gpu": {"judge": artwork_gpu.judge, "decoder_coarse": artwork_gpu.decoder_coarse},
}

#: Run of a chain -> the earlier run with whose weights it begins.
BEGUN = {"artwork_gpu": {"decoder": "decoder_coarse"}}

#: Recipes whose runs keep the last average: they train so long that the held-out loss says little about the drawings.
KEEP_LAST = ("artwork_gpu",)

#: Recipe -> how its model is sampled, where that was chosen.
SAMPLING: dict[str, Callable[[], Sampling]] = {
    "artwork": artwork.sampling,
    "artwork_gpu": artwork_gpu.sampling,
    "artwork_latent": artwork_latent.sampling,
    "dalle2": dalle2.sampling,
}


def chain(
    recipe: str,
    out: str | Path,
    *,
    data: str | None = None,
    seed: int | None = None,
    keep_best: bool = False,
    evaluate: bool = True,
    changes: Sequence[str] = (),
) -> Chain:
    """Every run of a recipe's model, each in its own folder in `out`; `unclip.train.chain.train_chain` trains it.

    `data` and `seed` are for all stages (but the judge keeps its seed, so that it compares models of several); with
    `keep_best` each keeps the average of its best validation. `changes` are `--set` assignments that begin with the name
    of a stage or with `evaluation`. Raises ValueError for an unknown recipe, and `ConfigError` for a change that does
    not fit.
    """
    if recipe not in CHAINS:
        raise ValueError(f"there is no chain of stages {recipe!r}; choose from {', '.join(CHAINS)}")
    out = Path(out)
    shares = {name: share for name, share in CHAINS[recipe].items() if evaluate or name != JUDGE}
    changed = _by_stage(changes, (*shares, EVALUATION))
    stages: dict[str, tuple[TrainConfig, float]] = {}
    keep_best = keep_best and recipe not in KEEP_LAST
    for name, share in shares.items():
        config = beside(recipe)[name]() if name in beside(recipe) else get(recipe, name)
        if (first := BEGUN.get(recipe, {}).get(name)) is not None:
            config = replace(config, init=str(out / first / "model"))
        if isinstance(config, ClipDependent):
            config = replace(config, clip=str(out / "clip"))
        if hasattr(config, "autoencoder"):
            config = replace(config, autoencoder=str(out / "autoencoder"))
        config = replace(config, out=str(out / name), keep="best" if keep_best else config.keep)
        if data is not None:
            config = replace(config, data=replace(config.data, path=data))
        if seed is not None and name != JUDGE:
            config = replace(config, seed=seed)
        stages[name] = _changed(name, config, changed[name], change), share
    questions = None
    if evaluate:
        questions = _changed(EVALUATION, judge.evaluation(recipe), changed[EVALUATION], override)
        questions = replace(questions, data=next(iter(stages.values()))[0].data.path)
    return Chain(
        name=recipe,
        folder=out,
        stages=stages,
        beside=tuple(beside(recipe)),
        sampling=sampling(recipe),
        evaluation=questions,
    )


def beside(recipe: str) -> dict[str, Callable[[], TrainConfig]]:
    """Runs of a recipe's chain that are no part of its model: the judge, and what a stage begins with."""
    return {JUDGE: judge.clip, **BESIDE.get(recipe, {})}


def _by_stage(changes: Sequence[str], names: Sequence[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {name: [] for name in names}
    for assignment in changes:
        name, _, rest = assignment.partition(".")
        if name not in found or not rest:
            raise ConfigError(f"{assignment}: begin with a stage: {', '.join(names)}, such as clip.batch=128")
        found[name].append(rest)
    return found


def _changed(name: str, config: T, changes: Sequence[str], change: Callable[[T, Sequence[str]], T]) -> T:
    try:
        return change(config, changes)
    except ValueError as error:
        raise ConfigError(f"{name}: {error}") from None


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
