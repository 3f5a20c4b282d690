"""Questions of all groups, with the drawings that they were taken from."""

from collections.abc import Sequence
from typing import NamedTuple

from jaxtyping import UInt8
from torch import Tensor

from unclip.evaluate.config import EvaluationConfig
from unclip.evaluate.questions import Group, Questions, ask
from unclip.evaluate.splits import Splits


class Asked(NamedTuple):
    """A group's questions, their drawings, and the drawings of its reference for distances."""

    group: Group
    questions: Questions
    real: UInt8[Tensor, "n 3 s s"]
    reference: UInt8[Tensor, "m 3 s s"]

    def first(self, count: int) -> "Asked":
        """The first `count` questions and reference drawings."""
        return Asked(self.group, self.questions.first(count), self.real[:count], self.reference[:count])


def ask_all(config: EvaluationConfig, splits: Splits) -> list[Asked]:
    """Questions of every group.

    With `distance_multiple`, unseen groups share that many times `count` questions as evenly as their drawings allow.
    """
    wanted = config.distance_multiple * config.count
    most = max(config.count, wanted)
    found = [
        ask(
            group,
            splits[group.split].samples,
            count=config.count if group.seen else most,
            choices=config.choices,
            seed=config.seed,
        )
        for group in config.groups
    ]
    unseen = [number for number, group in enumerate(config.groups) if not group.seen]
    shares = share_evenly(wanted, [len(found[number].reference) for number in unseen])
    counts = [config.count] * len(found)
    for number, share in zip(unseen, shares):
        counts[number] = max(config.count, share)
    return [
        _with_drawings(group, questions.first(count), splits)
        for group, questions, count in zip(config.groups, found, counts)
    ]


def _with_drawings(group: Group, questions: Questions, splits: Splits) -> Asked:
    drawings = splits[group.split]
    real = drawings.pictures([question.row for question in questions.asked])
    return Asked(group, questions, real, drawings.pictures(questions.reference))


def share_evenly(total: int, available: Sequence[int]) -> list[int]:
    """`total` divided as evenly as possible among groups that have at most `available` each."""
    shares = [0] * len(available)
    for rank, number in enumerate(sorted(range(len(available)), key=lambda number: available[number])):
        shares[number] = min(available[number], -(-(total - sum(shares)) // (len(available) - rank)))
    return shares
