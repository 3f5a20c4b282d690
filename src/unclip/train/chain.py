"""A chain of stages: every run of a recipe's model in order, then the model bundled and measured.

from unclip import recipes
from unclip.train.chain import train_chain

trained = train_chain(recipes.chain("artwork", "runs/artwork", data="shards"), budget=25 * 60)
trained.model    # the model's folder, for unclip.load
"""

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from unclip.config import to_dict
from unclip.evaluate.estimate import estimate
from unclip.evaluate.evaluation import Evaluation, EvaluationConfig
from unclip.evaluate.features import Encoder
from unclip.evaluate.report import evaluate, table
from unclip.generate.model import Model
from unclip.images import write_atomically
from unclip.stages.sampling import Sampling
from unclip.train import budget as budgets
from unclip.train.bundle import bundle
from unclip.train.config import TrainConfig
from unclip.train.world import open_world

logger = logging.getLogger(__name__)

JUDGE = "judge"
"""The run of the network that judges the model's pictures and is no part of it."""


@dataclass(frozen=True, kw_only=True)
class Chain:
    """The runs that make and judge a model, each with its share of a budget of time, in one folder."""

    name: str
    folder: Path
    stages: Mapping[str, tuple[TrainConfig, float]]
    """Name -> config and share, in the order of training. Each run is in the folder of its name."""
    sampling: Sampling
    """The model's defaults."""
    beside: tuple[str, ...] = (JUDGE,)
    """The runs that are no part of the model."""
    evaluation: EvaluationConfig | None = None
    """What the model is measured by; None: it is not."""


class Trained(NamedTuple):
    """The folder of a chain's model, and the file of its evaluation."""

    model: Path
    report: Path | None


def train_chain(
    chain: Chain,
    *,
    budget: float | None = None,
    device: str | None = None,
    on_status: Callable[[str], None] = logger.debug,
) -> Trained:
    """Train every stage of a chain within `budget` seconds, or as long as their configs say; bundle and measure the model.

    Called again, it resumes: finished runs are left alone, and so is a report of the same model and questions.
    `on_status` gets a line now and then while the model is measured. Several processes train each stage together. Raises what `budget.train_all` raises.
    """
    with open_world(device) as world:
        budgets.train_all(chain.stages, budget, device=device)
        is_main = world.is_main
    if not is_main:
        # One process bundles and measures.
        return Trained(chain.folder / "model", None)
    model = bundle(
        [chain.folder / stage for stage in chain.stages if stage not in chain.beside],
        chain.folder / "model",
        chain.name,
        defaults=chain.sampling,
        force=True,
    )
    if chain.evaluation is None:
        return Trained(model, None)
    return Trained(model, measure(chain, chain.evaluation, device=device, on_status=on_status))


def measure(
    chain: Chain,
    config: EvaluationConfig,
    *,
    device: str | None = None,
    on_status: Callable[[str], None] = logger.debug,
) -> Path:
    """Measure the bundled model, by the chain's judge if it has one; the file of the report."""
    folder, file = chain.folder, chain.folder / "report.json"
    loaded = Model.load(folder / "model", device=device)
    if file.exists():
        measured = json.loads(file.read_text(encoding="utf-8"))
        same = measured["config"] == {**json.loads(json.dumps(to_dict(config))), "data": None}
        if same and measured["model"]["digest"] == loaded.digest:
            return file
    evaluation = Evaluation(
        loaded,
        config,
        judge=Encoder.load(folder / JUDGE, loaded.device) if JUDGE in chain.stages else None,
        folder=folder / "pictures",
        cache=folder / "cache",
        report=on_status,
    )
    logger.info("evaluation: %s; --set evaluation.count=20 asks less", estimate(evaluation))
    report = evaluate(evaluation)
    write_atomically(file, (json.dumps(report, indent=2) + "\n").encode(), force=True)
    logger.info("%s", table(report))
    return file
