"""Questions of an evaluation: captions seen in training, and captions of unseen combinations.

Questions are a pure function of the seed and the samples' keys, so that all models are asked the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int

from unclip.data.sample import Sample
from unclip.datasets.artwork.alternatives import style_ending
from unclip.rng import Noise, derive


@dataclass(frozen=True, kw_only=True)
class Group:
    """A group of captions: those of a split, or of the pictures in it whose `kind` is one of `kinds`."""

    name: str
    split: str
    kinds: tuple[str, ...] = ()
    seen: bool = False
    """Whether the captions were in the training set."""


class Question(NamedTuple):
    """A caption to draw, the drawing that it belongs to, and wrong captions to choose among."""

    row: int
    """Row of the drawing in its split."""
    sample: Sample
    caption: str
    seed: int
    distractors: tuple[str, ...]


class Questions(NamedTuple):
    """A group's questions, and other drawings of the group as the reference for distances.

    Both have the same distribution: as many first questions as the reference has drawings differ from it only by chance.
    Where a group has too few drawings, further questions are about the reference's own drawings, and then about all
    drawings a second time, by another caption.
    """

    asked: list[Question]
    reference: Int[np.ndarray, " n"]

    def first(self, count: int) -> "Questions":
        """The first `count` questions and reference drawings."""
        return Questions(self.asked[:count], self.reference[:count])


def ask(group: Group, samples: Sequence[Sample], *, count: int, choices: int, seed: int) -> Questions:
    """At most `count` questions with different captions, each with `choices` - 1 distractors from the same group; and a
    reference of at most as many drawings, at most half of the group.

    A question is a drawing's first caption, the plain one. Where there are fewer drawings than `count`, a second caption
    that names the style as plainly is asked as well, where there is one. Drawings are sampled by their weights, as in
    training. Raises `ValueError` for a group of fewer than two captions.
    """
    pool = [
        i for i, sample in enumerate(samples) if not group.kinds or sample.meta.get("kind") in group.kinds
    ]
    pool = _first_of_each_caption(
        weighted_order(pool, samples, derive(seed, "questions", group.name)), samples
    )
    if len(pool) < 2:
        raise ValueError(
            f"the split {group.split!r} has {len(pool)} captions for the group {group.name!r}: at least 2 are needed"
        )
    # Alternating, so that neither half has the heavier drawings.
    half = min(count, len(pool) // 2)
    asked, reference = pool[0 : 2 * half : 2], pool[1 : 2 * half : 2]
    asked += (reference + pool[2 * half :])[: count - half]
    everything = [samples[index].captions[0] for index in pool]

    def question(index: int, caption: str, *turn: str) -> Question:
        sample = samples[index]
        own = derive(seed, "picture", group.name, sample.key, *turn) & 0xFFFFFFFF
        return Question(
            index, sample, caption, own, distractors=_distractors(sample, everything, choices - 1, seed)
        )

    questions = [question(index, samples[index].captions[0]) for index in asked]
    if len(questions) < count:
        known = {caption.lower() for caption in everything}
        second = [(index, _second_caption(samples[index], known)) for index in asked]
        questions += [question(index, caption, "again") for index, caption in second if caption is not None]
    return Questions(questions[:count], np.array(reference, dtype=np.int64))


def weighted_order(pool: Sequence[int], samples: Sequence[Sample], seed: int) -> list[int]:
    """`pool` in the order of sampling without replacement by weight (Efraimidis and Spirakis 2006)."""
    if not pool:
        return []
    draws = Noise([derive(seed, samples[index].key) for index in pool]).uniform().log()
    keys = draws / torch.tensor([samples[index].weight for index in pool], dtype=torch.float64)
    return [pool[place] for place in keys.argsort(descending=True).tolist()]


def _first_of_each_caption(pool: Sequence[int], samples: Sequence[Sample]) -> list[int]:
    first: dict[str, int] = {}
    for index in pool:
        first.setdefault(samples[index].captions[0].lower(), index)
    return list(first.values())


def _second_caption(sample: Sample, known: set[str]) -> str | None:
    """Another caption of a drawing that names its style plainly and is not in `known`; it is added to `known`."""
    ending = style_ending(sample)
    for caption in sample.captions[1:]:
        if ending is not None and caption.endswith(ending) and caption.lower() not in known:
            known.add(caption.lower())
            return caption
    return None


def _distractors(sample: Sample, captions: Sequence[str], count: int, seed: int) -> tuple[str, ...]:
    own = {caption.lower() for caption in sample.captions}
    others = [caption for caption in captions if caption.lower() not in own]
    order = Noise([derive(seed, "distractors", sample.key)]).uniform(len(others))[0].argsort()
    return tuple(others[place] for place in order[:count].tolist())
