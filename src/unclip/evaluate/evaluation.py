"""One evaluation: the same questions, real drawings and judge for every model and every setting that is compared."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from unclip.data.dataset import BadSamples, open_dataset
from unclip.data.decoded_cache import DecodedCache
from unclip.evaluate.attributes import alternatives
from unclip.evaluate.captions_followed import Followed, captions_followed
from unclip.evaluate.distances import frechet, median_distance, mmd
from unclip.evaluate.features import Encoder
from unclip.evaluate.memorisation import memorisation, nearest_two
from unclip.evaluate.pictures import TimeLeft, draw_pictures
from unclip.evaluate.precision_recall import precision_recall
from unclip.evaluate.questions import Group, Questions, ask, weighted_order
from unclip.evaluate.retrieval import fitting_captions, retrieval
from unclip.evaluate.upsampling import spread, upsampling
from unclip.generate.settings import Settings
from unclip.generate.system import System
from unclip.images import from_uint8
from unclip.rng import derive

#: Side in pixels at which pictures are compared pixel by pixel.
THUMBNAIL = 32


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """What is asked of a model; `count` captions of each group, judged among `choices`."""

    data: str = ""
    groups: tuple[Group, ...]
    train: str = "train"
    held_out: tuple[str, ...] = ("val",)
    """The splits that retrieval is measured on, at most `retrieval_count` drawings of them."""
    retrieval_count: int = 1000
    count: int = 100
    distance_multiple: int = 0
    """Distances are measured with so many times `count` pictures of unseen captions, if `count` of each group are fewer:
    groups that have more are asked more, as evenly as can be. There are as many held-out drawings to measure to."""
    choices: int = 100
    ablation_count: int = 50
    """Captions of each group that ablations draw, the first of `count`."""
    manipulated: int = 50
    """Drawings that each manipulation is tried on."""
    upsampled: int = 50
    """Drawings that are made small and large again; they need originals of the upsampler's size."""
    originals: str = ""
    """Where those are, if not in `data`: a folder or one tar of it. The first split of `held_out` is taken."""
    seed: int = 0
    batch: int = 16

    def __post_init__(self) -> None:
        """Raise ValueError for counts that measure nothing."""
        for name, least in (("count", 1), ("choices", 2), ("retrieval_count", 2), ("batch", 1), ("ablation_count", 1),
            ("manipulated", 1), ("upsampled", 0), ("distance_multiple", 0)):  # fmt: skip
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least {least}")


class Asked(NamedTuple):
    """A group's questions with the pictures that belong to them and, for the distances, with others."""

    group: Group
    questions: Questions
    real: UInt8[Tensor, "n 3 s s"]
    reference: UInt8[Tensor, "n 3 s s"]

    def first(self, count: int) -> "Asked":
        """The first `count` of the questions, and of the drawings to compare with."""
        return Asked(self.group, self.questions.first(count), self.real[:count], self.reference[:count])


class Drawn(NamedTuple):
    """The questions answered: each group's pictures, and how the judge sees them; and the seconds a picture took."""

    pictures: list[UInt8[Tensor, "_ 3 s s"]]
    features: list[Float[Tensor, "_ d"]]
    seconds: float | None


class Evaluation:
    """Holds a system against a data set. Pictures and embeddings are kept in `folder`, and found again there.

    Without a judge the system's own CLIP judges, which flatters the system: `independent` tells.
    """

    def __init__(
        self,
        system: System,
        config: EvaluationConfig,
        *,
        judge: Encoder | None = None,
        folder: Path | None = None,
        cache: Path | None = None,
        report: Callable[[str], None] = lambda line: None,
    ):
        if not config.data:
            raise ValueError(
                "the evaluation names no data: give --data FOLDER (`unclip data artwork FOLDER` makes one)"
            )
        self.system, self.config, self.report = system, config, report
        self.clip = Encoder.of(system)
        self.judge = judge or self.clip
        self.independent = self.judge.weights != self.clip.weights
        self.folder, self.cache = folder, cache
        self.size = system.sizes[0]
        self._residents: dict[str, DecodedCache] = {}
        self.fingerprints: dict[str, str] = {}
        self.asked = self._ask()

    def resident(self, split: str) -> DecodedCache:
        """A split's drawings in memory, at the size of the decoder's pictures."""
        if split not in self._residents:
            bad = BadSamples()
            dataset = open_dataset(self.config.data, split, bad)
            self.fingerprints[split] = dataset.fingerprint
            self._residents[split] = DecodedCache.load(
                dataset, self.size, self.cache, bad=bad
            )
        return self._residents[split]

    def _ask(self) -> list[Asked]:
        config = self.config
        wanted = config.distance_multiple * config.count
        most = max(config.count, wanted)
        found = [
            ask(
                group,
                self.resident(group.split).samples,
                count=config.count if group.seen else most,
                choices=config.choices,
                seed=config.seed,
            )
            for group in config.groups
        ]
        unseen = [number for number, group in enumerate(config.groups) if not group.seen]
        shares = shared(wanted, [len(found[number].reference) for number in unseen])
        counts = [config.count] * len(found)
        for number, share in zip(unseen, shares):
            counts[number] = max(config.count, share)
        return [
            self._with_drawings(group, questions.first(count))
            for group, questions, count in zip(config.groups, found, counts)
        ]

    def _with_drawings(self, group: Group, questions: Questions) -> Asked:
        resident = self.resident(group.split)
        real = resident.pictures([question.row for question in questions.asked])
        return Asked(group, questions, real, resident.pictures(questions.reference))

    def smaller(self, count: int) -> "Evaluation":
        """The same evaluation of the first `count` captions of each group."""
        part = copy.copy(self)
        part.config = replace(self.config, count=min(count, self.config.count))
        part.asked = [one.first(count) for one in self.asked]
        for name in ("real", "reference"):
            vars(part).pop(name, None)
        return part

    def draw(self, settings: Settings | None = None, doing: str = "drawing") -> Drawn:
        """Draw every question's caption, with the model's own settings unless given."""
        pairs = [(question.caption, question.seed) for one in self.asked for question in one.questions.asked]
        left = TimeLeft()
        made = draw_pictures(
            self.system,
            pairs,
            settings or self.system.defaults,
            folder=self.folder,
            batch=self.config.batch,
            report=lambda done, of: self.report(f"{doing}: {done} of {of} pictures{left(done, of)}"),
        )
        pictures = list(made.pixels.split([len(one.questions.asked) for one in self.asked]))
        return Drawn(pictures, [self.judge.pictures(some) for some in pictures], made.seconds)

    @cached_property
    def real(self) -> list[Float[Tensor, "n d"]]:
        """How the judge sees the drawings that the questions were taken from."""
        return [self.judge.pictures(one.real) for one in self.asked]

    @cached_property
    def unseen(self) -> list[int]:
        """The groups whose captions were not in the training set; all, where there are none."""
        unseen = [number for number, one in enumerate(self.asked) if not one.group.seen]
        return unseen or list(range(len(self.asked)))

    @cached_property
    def reference(self) -> Float[Tensor, "n d"]:
        """How the judge sees other held-out drawings of the unseen groups."""
        return torch.cat([self.judge.pictures(self.asked[number].reference) for number in self.unseen])

    def captions_followed(self, drawn: Drawn) -> dict[str, Followed]:
        """By group: the share of pictures that the judge gives their own caption, among others of the group."""
        return {
            one.group.name: captions_followed(
                self.judge,
                features,
                real,
                [(question.caption, *question.distractors) for question in one.questions.asked],
            )
            for one, features, real in zip(self.asked, drawn.features, self.real)
        }

    def attributes(self, drawn: Drawn) -> dict[str, dict[str, Followed]]:
        """By group and respect (style, colour, arrangement, binding): the share that is right in it."""
        found: dict[str, dict[str, Followed]] = {}
        for one, features, real in zip(self.asked, drawn.features, self.real):
            options = [alternatives(question.sample, question.caption) for question in one.questions.asked]
            names = dict.fromkeys(name for each in options for name in each)
            for name in names:
                rows = [row for row, each in enumerate(options) if name in each]
                found.setdefault(one.group.name, {})[name] = captions_followed(
                    self.judge, features[rows], real[rows], [options[row][name] for row in rows]
                )
        return found

    def distances(self, drawn: Drawn) -> dict[str, dict[str, float]]:
        """Generated pictures of the unseen groups against held-out drawings, and real against real as the floor."""
        # Further questions are of the reference's own drawings.
        counts = {number: len(self.asked[number].reference) for number in self.unseen}
        generated = torch.cat([drawn.features[number][:count] for number, count in counts.items()])
        real = torch.cat([self.real[number][:count] for number, count in counts.items()])
        bandwidth = median_distance(self.reference)
        return {
            name: {
                "count": float(len(features)),
                "frechet": frechet(self.reference, features),
                "mmd": mmd(self.reference, features, bandwidth),
                **precision_recall(self.reference, features)._asdict(),
            }
            for name, features in (("generated", generated), ("real", real))
        }

    def upsampling(self) -> dict[str, Any] | None:
        """Held-out drawings made small and large again; None without an upsampler, or without drawings of its size."""
        config, sizes = self.config, self.system.sizes
        if len(sizes) < 2 or not config.upsampled:
            return None
        dataset = open_dataset(config.originals or config.data, split=config.held_out[0])
        originals = spread(dataset, config.upsampled, sizes[1])
        if originals is None:
            self.report(f"there are no drawings of {sizes[1]} px: upsampling is not measured")
            return None
        self.report(f"upsampling {len(originals)} drawings")
        found = upsampling(self.system, self.judge, originals, seed=config.seed)
        return {
            "count": len(originals),
            "size": sizes[1],
            **{name: asdict(each) for name, each in found.items()},
        }

    def retrieval(self, encoder: Encoder) -> dict[str, float]:
        """How well an encoder tells held-out drawings and their first captions apart."""
        pool = [
            (split, index) for split in self.config.held_out for index in range(len(self.resident(split)))
        ]
        samples = [self.resident(split).samples[index] for split, index in pool]
        order = weighted_order(range(len(pool)), samples, derive(self.config.seed, "retrieval"))
        rows = sorted(order[: self.config.retrieval_count])
        captions = [samples[row].captions[0] for row in rows]
        pictures = torch.cat([self.resident(pool[row][0]).pictures([pool[row][1]]) for row in rows])
        right = fitting_captions([samples[row] for row in rows], captions)
        found = retrieval(encoder.pictures(pictures), encoder.captions(captions), right)
        return {"count": float(len(rows)), **found}

    def memorisation(self, drawn: Drawn) -> dict[str, dict[str, dict[str, Any]]]:
        """For captions seen and unseen in training, by the judge's features and by pixels."""
        # Each once: who is asked a second time comes last.
        once = {n: len({question.row for question in self.asked[n].questions.asked}) for n in self.unseen}
        held_out = torch.cat([self.asked[number].real[:count] for number, count in once.items()])
        held_out_features = torch.cat([self.real[number][:count] for number, count in once.items()])
        sets = {
            "seen": [number for number, one in enumerate(self.asked) if one.group.seen],
            "unseen": [number for number, one in enumerate(self.asked) if not one.group.seen],
        }
        found: dict[str, dict[str, dict[str, Any]]] = {}
        by_features, by_pixels = self._nearest(held_out_features, thumbnails(held_out))
        for name, numbers in sets.items():
            if numbers:
                features = torch.cat([drawn.features[number] for number in numbers])
                pixels = thumbnails(torch.cat([drawn.pictures[number] for number in numbers]))
                of_features, of_pixels = self._nearest(features, pixels)
                found[name] = {
                    "features": asdict(memorisation(of_features, by_features)),
                    "pixels": asdict(memorisation(of_pixels, by_pixels)),
                }
        return found

    def _nearest(
        self, features: Float[Tensor, "n d"], pixels: Float[Tensor, "n p"]
    ) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        training = self.resident(self.config.train)
        chunks = np.array_split(np.arange(len(training)), -(-len(training) // 2048))
        by_pixels = nearest_two(pixels, (thumbnails(training.pictures(chunk)) for chunk in chunks))
        return nearest_two(features, self._training_features.split(4096)), by_pixels

    @cached_property
    def _training_features(self) -> Float[Tensor, "n d"]:
        resident = self.resident(self.config.train)
        self.report(f"embedding {len(resident)} training pictures")
        if self.cache is None:
            return self.judge.pictures(resident.pictures(np.arange(len(resident))))
        return self.judge.training_set(resident, self.fingerprints[self.config.train], self.cache)


def shared(total: int, available: Sequence[int]) -> list[int]:
    """`total` shared as evenly as can be among those who have so much `available`."""
    shares = [0] * len(available)
    for rank, number in enumerate(sorted(range(len(available)), key=lambda number: available[number])):
        shares[number] = min(available[number], -(-(total - sum(shares)) // (len(available) - rank)))
    return shares


def thumbnails(pixels: UInt8[Tensor, "n 3 s s"]) -> Float[Tensor, "n p"]:
    """Pictures as vectors of small pixels in [-1, 1], scaled so that a distance is a root mean square over them."""
    small = adaptive_avg_pool2d(from_uint8(pixels), min(THUMBNAIL, pixels.shape[-1]))
    flat = rearrange(small, "n c h w -> n (c h w)")
    return flat / flat.shape[1] ** 0.5
