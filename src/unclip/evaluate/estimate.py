"""What drawing costs: a picture timed, and from it how long an evaluation will take, counted in calls of the decoder."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

from unclip.evaluate.ablations import ABLATIONS
from unclip.evaluate.evaluation import Evaluation
from unclip.evaluate.manipulations import STEPS
from unclip.evaluate.pictures import duration
from unclip.generate.inversion import ITERATIONS
from unclip.generate.inversion import STEPS as INVERSION_STEPS
from unclip.generate.settings import Settings
from unclip.generate.system import System
from unclip.generate.text_to_image import check_size


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one picture takes, alone and with the model loaded: seconds that pass, and seconds of all processor cores."""

    size: int
    seconds: float
    process_seconds: float


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """How much is to be drawn, and about how many seconds that takes if nothing of it is there already."""

    pictures: int
    seconds: float

    def __str__(self) -> str:
        return f"{self.pictures} pictures to draw, about {duration(self.seconds)} on this machine"


def cost(system: System, prompts: Sequence[str], *, size: int | None = None) -> Cost:
    """The medians over pictures of the prompts with the model's own settings, after one that is not counted.

    `size` None is the size that `generate` draws unless it is told another.
    """
    size = check_size(system, size)
    walls, busy = [], []
    for number, prompt in enumerate([prompts[0], *prompts]):
        wall, process = time.monotonic(), time.process_time()
        system.generate(prompt, seed=number, size=size)
        walls.append(time.monotonic() - wall)
        busy.append(time.process_time() - process)
    return Cost(size=size, seconds=statistics.median(walls[1:]), process_seconds=statistics.median(busy[1:]))


def estimate(
    evaluation: Evaluation, ablations: Sequence[str] = (), manipulations: Sequence[str] = ()
) -> Estimate:
    """The pictures that `unclip.evaluate.report.evaluate` draws; one of the decoder's size is drawn to time them."""
    system, config = evaluation.system, evaluation.config
    defaults = system.defaults
    counts = [len(one.questions.asked) for one in evaluation.asked]
    drawn = [(sum(counts), calls(defaults))]
    few = sum(min(count, config.ablation_count) for count in counts)
    for name in ablations:
        drawn += [
            (few, calls(defaults.with_given(**changed)))
            for changed in ABLATIONS[name](system)
            if defaults.with_given(**changed) != defaults
        ]
    each = {
        "reconstructions": (len(STEPS), sum(STEPS) * (ITERATIONS + 1) / len(STEPS)),
        "diffs": (2, INVERSION_STEPS * (ITERATIONS + 2) / 2),
        "edits": (1, calls(defaults)),
    }
    manipulated = min(config.manipulated, counts[evaluation.unseen[0]])
    drawn += [(manipulated * each[name][0], each[name][1]) for name in manipulations]
    prompt = evaluation.asked[0].questions.asked[0].caption
    second = cost(system, [prompt], size=evaluation.size).seconds / calls(defaults)
    return Estimate(
        pictures=sum(count for count, _ in drawn), seconds=second * sum(count * work for count, work in drawn)
    )


def calls(settings: Settings) -> int:
    """The calls of the decoder for one picture: two a step where it is guided, and twice as many by Heun's method."""
    return settings.steps * (1 if settings.guidance == 1 else 2) * (2 if settings.sampler == "heun" else 1)
