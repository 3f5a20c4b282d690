"""Evaluation of each recipe: its questions, and the judge, an independent CLIP that takes no part in making pictures.

unclip train clip --recipe judge --data SHARDS --out runs/artwork/judge
unclip evaluate --recipe artwork --model runs/artwork/model --data SHARDS --judge runs/artwork/judge -o report.json
"""

from unclip.evaluate.evaluation import EvaluationConfig
from unclip.evaluate.questions import Group
from unclip.networks.clip import ClipConfig, TextConfig, VisionConfig
from unclip.train.config import DataConfig
from unclip.train.optim import OptimizerConfig
from unclip.train.tasks.clip import ClipTraining


def clip() -> ClipTraining:
    """A CLIP unlike the artwork one: 16 x 16 patches, averaged, a shallow wide text tower, its own vocabulary, order and
    seed."""
    return ClipTraining(
        recipe="judge",
        model=ClipConfig(
            embedding=128,
            vision=VisionConfig(size=64, patch=16, width=256, layers=6, heads=4, pool="mean"),
            text=TextConfig(context=24, width=256, layers=2, heads=4),
        ),
        data=DataConfig(shift=4),
        optimizer=OptimizerConfig(
            learning_rate=1e-3, muon_learning_rate=2e-3, weight_decay=0.05, betas=(0.9, 0.98)
        ),
        samples=120_000,
        batch=256,
        ema_decay=0.99,
        seed=20_001,
        vocabulary=3000,
    )


def artwork() -> EvaluationConfig:
    """Captions of one drawing, of recoloured drawings and of two drawings: seen in training, and their held-out kin.

    500 of each kind; where a held-out split has fewer drawings, some are asked for twice, by two captions. Distances are
    measured from one half of each split to the other, with so many more unseen pairs that both sides are 2,000.
    """
    return EvaluationConfig(
        groups=(
            Group(name="seen drawings", split="train", kinds=("plain",), seen=True),
            Group(name="unseen concept x style", split="heldout-style"),
            Group(name="seen colours", split="train", kinds=("recolour",), seen=True),
            Group(name="unseen concept x colour", split="heldout-colour"),
            Group(name="seen pairs", split="train", kinds=("pair",), seen=True),
            Group(name="unseen pairs", split="heldout-pair"),
        ),
        held_out=("val", "heldout-style", "heldout-colour", "heldout-pair"),
        count=500,
        distance_multiple=4,
    )


def tiny() -> EvaluationConfig:
    """The coloured shapes: there are 48 captions, all of them seen."""
    return EvaluationConfig(
        data="shapes",
        groups=(
            Group(name="seen shapes", split="train", seen=True),
            Group(name="shapes elsewhere", split="val"),
        ),
        count=24,
        retrieval_count=100,
    )


#: Recipe -> its evaluation.
EVALUATIONS = {
    "artwork": artwork,
    "artwork_gpu": artwork,
    "tiny": tiny,
    "tiny_latent": tiny,
    "artwork_latent": artwork,
}


def evaluation(recipe: str) -> EvaluationConfig:
    """A recipe's evaluation by name. Raises ValueError that names what there is."""
    if recipe not in EVALUATIONS:
        raise ValueError(f"there is no evaluation {recipe!r}; choose from {', '.join(EVALUATIONS)}")
    return EVALUATIONS[recipe]()
