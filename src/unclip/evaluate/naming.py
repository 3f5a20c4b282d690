"""Naming: what a picture shows, among all things that the training set has.

The right one of a hundred captions is easily picked: a blob of the right colour will do. Here the right thing must be the
nearest of all of them to the picture, named in the caption's style and colour, and nearer than its kin: the things whose
drawings look most like its own.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from unclip.data.sample import Sample
from unclip.datasets.artwork.alternatives import style_ending
from unclip.datasets.artwork.captions import article, strip_colour
from unclip.datasets.artwork.everyday import is_everyday
from unclip.evaluate.evaluation import Drawn, Evaluation

KIN = 5
"""Number of things that look most like one."""

Embed = Callable[[Sequence[str]], Tensor]
"""Captions -> their embeddings by the judge, of length 1."""


@dataclass(frozen=True, kw_only=True)
class Named:
    """Share of pictures whose thing the judge finds nearest, among `things` and among its kin; `real_`: of real drawings.

    `of_real` is a ratio of two shares, None where the second is 0; `error` is the standard error of `share`.
    """

    count: int
    things: int
    share: float
    error: float
    real_share: float
    of_real: float | None
    kin_share: float
    kin_real_share: float
    kin_of_real: float | None


Form = tuple[str | None, str]
"""How things are named: the colour, if any, and the ending that names the style."""


class Question(NamedTuple):
    """A picture to name: the thing's place among all, and the form in which things are named."""

    thing: int
    form: Form


class Captions(NamedTuple):
    """Embedded captions of all things in one form; `same` has the place of the first with the same words."""

    embeddings: Float[Tensor, "n d"]
    same: Int[Tensor, " n"]


class Things:
    """All things of which a data set has plain drawings, by their nouns; `features` are the judge's of each sample."""

    def __init__(self, embed: Embed, samples: Sequence[Sample], features: Float[Tensor, "n d"]):
        rows: dict[str, list[int]] = defaultdict(list)
        for row, sample in enumerate(samples):
            if sample.meta.get("kind") == "plain" and "noun" in sample.meta:
                rows[sample.meta["noun"]].append(row)
        self._embed = embed
        self.nouns = sorted(rows)
        self.place = {noun: place for place, noun in enumerate(self.nouns)}
        self._means = [features[rows[noun]].mean(0) for noun in self.nouns]
        self._captions: dict[Form, Captions] = {}

    def __len__(self) -> int:
        return len(self.nouns)

    def kin(self) -> Int[Tensor, "n k"]:
        """Places of the things whose drawings are on average most similar to each thing's."""
        means = normalize(torch.stack(self._means), dim=1)
        similarity = means @ means.T
        return similarity.fill_diagonal_(-torch.inf).topk(min(KIN, len(self) - 1), dim=1).indices

    def captions(self, form: Form) -> "Captions":
        """Captions of all things in one form, such as ("red", ", 3d style")."""
        if form not in self._captions:
            colour, ending = form
            names = self.nouns if colour is None else [f"{colour} {strip_colour(n)[1]}" for n in self.nouns]
            texts = [f"{article(name)}{ending}" for name in names]
            first: dict[str, int] = {}
            same = torch.tensor([first.setdefault(text, place) for place, text in enumerate(texts)])
            self._captions[form] = Captions(self._embed(texts), same)
        return self._captions[form]

    def question(self, sample: Sample) -> Question | None:
        """The question that a drawing asks; None where it is not one thing of the set in one of the set's styles."""
        meta, ending = sample.meta, style_ending(sample)
        place = self.place.get(meta.get("noun", ""))
        if place is None or ending is None or meta.get("kind") not in ("plain", "recolour"):
            return None
        return Question(place, (meta["colour"] if meta.get("recoloured") else None, ending))


def named_by_group(evaluation: Evaluation, drawn: Drawn) -> dict[str, Named]:
    """Naming per group of questions, of everyday and of other things; empty for data without nouns."""
    training = evaluation.splits[evaluation.config.train]
    if not any("noun" in sample.meta for sample in training.samples):
        return {}
    things = Things(evaluation.judge.captions, training.samples, evaluation.training_features)
    if len(things) < 2:
        return {}
    kin, found = things.kin(), {}
    for one, features, real in zip(evaluation.asked, drawn.features, evaluation.real):
        rows: dict[str, list[int]] = defaultdict(list)
        questions = [things.question(question.sample) for question in one.questions.asked]
        for row, question in enumerate(questions):
            if question is not None:
                everyday = is_everyday(one.questions.asked[row].sample.meta)
                rows["everyday things" if everyday else "other things"].append(row)
        for name, some in sorted(rows.items()):
            chosen = [question for row in some if (question := questions[row]) is not None]
            found[f"{one.group.name}: {name}"] = named(things, kin, chosen, features[some], real[some])
    return found


def named(
    things: Things,
    kin: Int[Tensor, "n k"],
    questions: Sequence[Question],
    generated: Float[Tensor, "q d"],
    real: Float[Tensor, "q d"],
) -> Named:
    """Shares of embedded pictures, generated and real, that are named rightly; row i answers `questions[i]`."""
    first, first_kin = named_first(things, kin, questions, generated)
    real_first, real_kin = named_first(things, kin, questions, real)
    count = len(questions)
    share, real_share, kin_share, kin_real = (
        one.double().mean().item() for one in (first, real_first, first_kin, real_kin)
    )
    return Named(
        count=count,
        things=len(things),
        share=share,
        error=math.sqrt(share * (1 - share) / count),
        real_share=real_share,
        of_real=share / real_share if real_share else None,
        kin_share=kin_share,
        kin_real_share=kin_real,
        kin_of_real=kin_share / kin_real if kin_real else None,
    )


def named_first(
    things: Things, kin: Int[Tensor, "n k"], questions: Sequence[Question], pictures: Float[Tensor, "q d"]
) -> tuple[Bool[Tensor, " q"], Bool[Tensor, " q"]]:
    """Whether each picture's own thing is strictly the nearest of all things, and of itself and its kin."""
    places = torch.tensor([question.thing for question in questions])
    captions = [things.captions(question.form) for question in questions]
    similarity = torch.stack([one.embeddings @ picture for one, picture in zip(captions, pictures)])
    same = torch.stack([one.same for one in captions])
    column = rearrange(places, "q -> q 1")
    own = similarity.gather(1, column)
    # "Red apple" and "green apple", recoloured, have the same words.
    wrong = same != same.gather(1, column)
    nearer = (similarity >= own) & wrong
    return ~nearer.any(1), ~nearer.gather(1, kin[places]).any(1)
