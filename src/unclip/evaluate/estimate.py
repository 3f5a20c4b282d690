"""Cost of a picture, and from it the duration of an evaluation, counted in decoder calls."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

from unclip.diffusion.names import SAMPLER_TABLE
from unclip.evaluate.ablations import ABLATIONS, changed_sampling
from unclip.evaluate.evaluation import Evaluation
from unclip.evaluate.manipulations import STEPS
from unclip.evaluate.pictures import duration
from unclip.generate.model import Model
from unclip.generate.request import INVERSION
from unclip.generate.stage_runner import INVERSION_ITERATIONS
from unclip.stages.sampling import Sampling, settled


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Cost of one picture, drawn alone with the model loaded: wall time, and processor time of all cores."""

    size: int
    seconds: float
    process_seconds: float


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Number of pictures to draw, and the seconds that this takes if none of them is kept already."""

    pictures: int
    seconds: float

    def __str__(self) -> str:
        return f"{self.pictures} pictures to draw, about {duration(self.seconds)} on this machine"


def cost(model: Model, prompts: Sequence[str], *, size: int | None = None) -> Cost:
    """Median cost of a picture of each prompt with the model's default sampling, after one that warms up.

    `size` defaults to the size that `generate` draws.
    """
    size = model.parts.default_size if size is None else size
    walls, busy = [], []
    for number, prompt in enumerate([prompts[0], *prompts]):
        wall, process = time.monotonic(), time.process_time()
        model.generate(prompt, seed=number, size=size)
        walls.append(time.monotonic() - wall)
        busy.append(time.process_time() - process)
    return Cost(size=size, seconds=statistics.median(walls[1:]), process_seconds=statistics.median(busy[1:]))


def estimate(
    evaluation: Evaluation, ablations: Sequence[str] = (), manipulations: Sequence[str] = ()
) -> Estimate:
    """Estimate of the pictures that `unclip.evaluate.report.evaluate` draws; one is drawn and timed for it."""
    model, config = evaluation.model, evaluation.config
    defaults = model.defaults
    counts = [len(one.questions.asked) for one in evaluation.asked]
    drawn = [(sum(counts), calls(defaults))]
    few = sum(min(count, config.ablation_count) for count in counts)
    for name in ablations:
        settings = [changed_sampling(model, changed) for changed in ABLATIONS[name](model)]
        drawn += [(few, calls(one)) for one in settings if one != defaults]
    inversion = settled(INVERSION.steps)
    each = {
        "reconstructions": (len(STEPS), sum(STEPS) * (INVERSION_ITERATIONS + 1) / len(STEPS)),
        "diffs": (2, inversion * (INVERSION_ITERATIONS + 2) / 2),
        "edits": (1, calls(defaults)),
    }
    manipulated = min(config.manipulated, counts[evaluation.unseen[0]])
    drawn += [(manipulated * each[name][0], each[name][1]) for name in manipulations]
    prompt = evaluation.asked[0].questions.asked[0].caption
    second = cost(model, [prompt], size=evaluation.size).seconds / calls(defaults)
    return Estimate(
        pictures=sum(count for count, _ in drawn), seconds=second * sum(count * work for count, work in drawn)
    )


def calls(sampling: Sampling) -> int:
    """Decoder calls per picture under resolved settings; guidance doubles them, and so does Heun's method."""
    settings = sampling.decoder
    each = SAMPLER_TABLE[settled(settings.sampler)].calls
    return settled(settings.steps) * each * (1 if settings.guidance == 1 else 2)
