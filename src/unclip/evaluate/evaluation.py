"""One evaluation: the same questions, real drawings and judge for every model and setting that is compared."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from unclip.evaluate.asked import Asked, ask_all
from unclip.evaluate.config import EvaluationConfig as EvaluationConfig
from unclip.evaluate.features import Encoder
from unclip.evaluate.pictures import DrawFiles, TimeLeft, draw_pictures
from unclip.evaluate.splits import Splits
from unclip.generate.model import Model
from unclip.stages.sampling import Sampling


class Drawn(NamedTuple):
    """Pictures of each group's questions, their features by the judge, and the mean seconds per picture."""

    pictures: list[UInt8[Tensor, "_ 3 s s"]]
    features: list[Float[Tensor, "_ d"]]
    seconds: float | None


class Evaluation:
    """A model, the questions that it answers, and the judge of its pictures. `unclip.evaluate.metrics` measures.

    Pictures are kept in `folder` and read from it again; decoded drawings and their features are kept in `cache`.
    Without a judge, the model's own CLIP judges, which flatters the model: `independent` is False then. `splits` and
    `asked` are computed from the config unless given. `elsewhere` draws the pictures of captions in place of this process.
    """

    def __init__(
        self,
        model: Model,
        config: EvaluationConfig,
        *,
        judge: Encoder | None = None,
        folder: Path | None = None,
        cache: Path | None = None,
        report: Callable[[str], None] = lambda line: None,
        splits: Splits | None = None,
        asked: Sequence[Asked] | None = None,
        elsewhere: DrawFiles | None = None,
    ):
        if not config.data:
            raise ValueError(
                "the evaluation names no data: give --data FOLDER (`unclip data artwork FOLDER` makes one)"
            )
        self.model, self.config, self.report = model, config, report
        self.clip = Encoder.of(model)
        self.judge = judge or self.clip
        self.independent = self.judge.digest != self.clip.digest
        self.folder, self.cache, self.elsewhere = folder, cache, elsewhere
        self.size = model.sizes[0]
        self.splits = splits or Splits(config.data, self.size, cache, bad_share=config.bad_share)
        self.asked = ask_all(config, self.splits) if asked is None else list(asked)

    def smaller(self, count: int) -> "Evaluation":
        """The same evaluation of the first `count` captions of each group."""
        return Evaluation(
            self.model,
            replace(self.config, count=min(count, self.config.count)),
            judge=self.judge,
            folder=self.folder,
            cache=self.cache,
            report=self.report,
            splits=self.splits,
            asked=[one.first(count) for one in self.asked],
            elsewhere=self.elsewhere,
        )

    def draw(self, sampling: Sampling | None = None, doing: str = "drawing") -> Drawn:
        """Pictures of all questions, with the model's default sampling unless given."""
        pairs = [(question.caption, question.seed) for one in self.asked for question in one.questions.asked]
        left = TimeLeft()
        made = draw_pictures(
            self.model,
            pairs,
            sampling or self.model.defaults,
            folder=self.folder,
            batch=self.config.batch,
            report=lambda done, of: self.report(f"{doing}: {done} of {of} pictures{left(done, of)}"),
            elsewhere=self.elsewhere,
        )
        pictures = list(made.pixels.split([len(one.questions.asked) for one in self.asked]))
        return Drawn(pictures, [self.judge.pictures(some) for some in pictures], made.seconds)

    @cached_property
    def unseen(self) -> list[int]:
        """Indices of the groups whose captions were not in the training set; all groups, if there are none."""
        unseen = [number for number, one in enumerate(self.asked) if not one.group.seen]
        return unseen or list(range(len(self.asked)))

    @cached_property
    def real(self) -> list[Float[Tensor, "n d"]]:
        """Judge's features of the drawings that each group's questions were taken from."""
        return [self.judge.pictures(one.real) for one in self.asked]

    @cached_property
    def reference(self) -> Float[Tensor, "n d"]:
        """Judge's features of the reference drawings of the unseen groups."""
        return torch.cat([self.judge.pictures(self.asked[number].reference) for number in self.unseen])

    @cached_property
    def training_features(self) -> Float[Tensor, "n d"]:
        """Judge's features of the training set, kept in `cache`."""
        training = self.splits[self.config.train]
        self.report(f"embedding {len(training)} training pictures")
        if self.cache is None:
            return self.judge.pictures(training.pictures(np.arange(len(training))))
        return self.judge.training_set(training, self.splits.fingerprints[self.config.train], self.cache)
