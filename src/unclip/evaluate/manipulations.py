"""Metrics of image manipulations: fidelity of reconstructions, and captions followed by text diffs and edits.

All start from held-out drawings at the decoder's size, with the model's default sampling.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import mean, median
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from unclip.evaluate.asked import Asked
from unclip.evaluate.evaluation import Evaluation
from unclip.evaluate.features import Encoder
from unclip.generate.operations import TextDiff
from unclip.images import from_uint8, to_image, to_tensor, to_uint8

STEPS = (10, 25, 50)
"""DDIM steps, each way, at which reconstructions are compared."""
GOOD = 25.0
"""PSNR in dB from which a reconstruction counts as faithful."""


@dataclass(frozen=True, kw_only=True)
class Reconstructed:
    """Reconstructions with a number of steps: median and least PSNR in dB, and the share of at least `GOOD`."""

    steps: int
    count: int
    psnr: float
    least: float
    good: float


@dataclass(frozen=True, kw_only=True)
class Moved:
    """Nearest captions at the start and the end of a path, among all of the question's choices and the target.

    `started` is the share of paths that start nearest to the drawing's own caption, `arrived` of those that end nearest
    to the target, `moved` of both; `moved_of_two` compares these two captions alone.
    """

    count: int
    started: float
    arrived: float
    moved: float
    moved_of_two: float


@dataclass(frozen=True, kw_only=True)
class Edited:
    """Judge's features of edited regions, cut out.

    `followed` is the share whose nearest caption among the choices is the new one, `real_followed` the same for the
    drawings that the new caption belongs to. `preferred` and `preferred_before` are the shares nearer to the new caption
    than to the old one, after and before the edit. `kept` is the share of pictures with all other pixels unchanged.
    """

    count: int
    followed: float
    real_followed: float
    preferred: float
    preferred_before: float
    kept: float


def reconstructions(evaluation: Evaluation) -> dict[str, Any]:
    """PSNR of reconstructions by steps, and whether what must equal a reconstruction does, bit for bit."""
    model, (asked, count) = evaluation.model, _subject(evaluation)
    pictures = [to_image(from_uint8(one)) for one in asked.real[:count]]
    rows = []
    for steps in STEPS:
        found = []
        for number, picture in enumerate(pictures):
            made = model.reconstruct(picture, steps=steps, seed=number, size=evaluation.size)
            found.append(float(made.provenance["results"]["psnr"]))
            evaluation.report(f"reconstructing with {steps} steps: {number + 1} of {count}")
        rows.append(
            Reconstructed(
                steps=steps,
                count=count,
                psnr=median(found),
                least=min(found),
                good=mean(value >= GOOD for value in found),
            )
        )
    return {
        "by_steps": [asdict(row) for row in rows],
        "equal": _equalities(evaluation, pictures[0], pictures[-1]),
    }


def _equalities(evaluation: Evaluation, first: Image.Image, last: Image.Image) -> dict[str, bool]:
    """Whether the ends of an interpolation, theta 0 and eta 0 are the reconstructions, bit for bit."""
    model = evaluation.model
    options: dict[str, Any] = {"steps": STEPS[0], "seed": 1, "size": evaluation.size}
    wanted = [model.reconstruct(one, **options).image.tobytes() for one in (first, last)]
    ends = [one.image.tobytes() for one in model.interpolate(first, last, thetas=(0.0, 1.0), **options)]
    (still,) = model.text_diff(first, "a red circle", thetas=(0.0,), **options)
    (varied,) = model.vary(first, n=1, eta=0.0, **options)
    return {
        "interpolation ends": ends == wanted,
        "theta 0": still.image.tobytes() == wanted[0],
        "eta 0": varied.image.tobytes() == wanted[0],
    }


def diffs(evaluation: Evaluation) -> dict[str, Any]:
    """Text diffs from each drawing's caption to the next question's: the embedding judged by the model's own CLIP, and
    the picture by the judge."""
    model, (asked, count) = evaluation.model, _subject(evaluation)
    choices, ends, embeddings = [], [], []
    for number in range(count):
        source, target = _captions(asked, number)
        if source == target:
            continue
        path = model.text_diff(
            to_image(from_uint8(asked.real[number])),
            target,
            baseline=source,
            thetas=(0.0, TextDiff.maximum),
            seed=number,
            size=evaluation.size,
        )
        choices.append([source, target, *_others(asked, number)])
        ends.append(torch.stack([to_uint8(to_tensor(one.image)) for one in path]))
        embeddings.append(torch.stack([_embedding(one.embedding) for one in path]))
        evaluation.report(f"text diffs: {number + 1} of {count}")
    drawn = [evaluation.judge.pictures(pair) for pair in ends]
    return {
        "embedding": asdict(moved(evaluation.clip, embeddings, choices)),
        "picture": asdict(moved(evaluation.judge, drawn, choices)),
    }


def edits(evaluation: Evaluation) -> dict[str, Any]:
    """Inpainting of the middle of each drawing under the next question's caption."""
    model, (asked, count), judge = evaluation.model, _subject(evaluation), evaluation.judge
    size = evaluation.size
    margin = size // 8
    box = (margin, margin, size - margin, size - margin)
    region = (slice(None), slice(margin, size - margin), slice(margin, size - margin))
    outside = torch.ones(size, size, dtype=torch.bool)
    outside[region[1:]] = False
    before, after, real, kept, choices = [], [], [], [], []
    for number in range(count):
        source, target = _captions(asked, number)
        if source == target:
            continue
        original = asked.real[number]
        (made,) = model.edit(to_image(from_uint8(original)), box, target, seed=number)
        pixels = to_uint8(to_tensor(made.image))
        kept.append(torch.equal(pixels[:, outside], original[:, outside]))
        before.append(original[region])
        after.append(pixels[region])
        real.append(asked.real[(number + 1) % len(asked.real)][region])
        choices.append([target, source, *_others(asked, number)])
        evaluation.report(f"edits: {number + 1} of {count}")
    seen = [judge.pictures(torch.stack(pictures)) for pictures in (before, after, real)]
    similar = [[_similarities(judge, one, row) for one, row in zip(each, choices)] for each in seen]
    prefers = [[(row[0] > row[1]).item() for row in rows] for rows in similar]
    follows = [[bool((row[0] > row[1:]).all()) for row in rows] for rows in similar]
    result = Edited(
        count=len(choices),
        followed=mean(follows[1]),
        real_followed=mean(follows[2]),
        preferred=mean(prefers[1]),
        preferred_before=mean(prefers[0]),
        kept=mean(kept),
    )
    return asdict(result)


MANIPULATIONS: dict[str, Callable[[Evaluation], dict[str, Any]]] = {
    "reconstructions": reconstructions,
    "diffs": diffs,
    "edits": edits,
}
"""Manipulations by the name given to `unclip evaluate --manipulation`."""


def moved(encoder: Encoder, paths: list[Float[Tensor, "2 d"]], choices: list[list[str]]) -> Moved:
    """Nearest captions of paths' first and last embeddings; a path's first choice is its source, the second its target."""
    started, arrived, of_two = [], [], []
    for path, captions in zip(paths, choices, strict=True):
        first, last = (_similarities(encoder, one, captions) for one in path)
        started.append(int(first.argmax()) == 0)
        arrived.append(int(last.argmax()) == 1)
        of_two.append(bool(first[0] > first[1]) and bool(last[1] > last[0]))
    return Moved(
        count=len(paths),
        started=mean(started),
        arrived=mean(arrived),
        moved=mean(np.logical_and(started, arrived).tolist()),
        moved_of_two=mean(of_two),
    )


def _similarities(
    encoder: Encoder, embedding: Float[Tensor, " d"], captions: list[str]
) -> Float[Tensor, " m"]:
    return encoder.captions(captions) @ torch.nn.functional.normalize(embedding, dim=-1)


def _subject(evaluation: Evaluation) -> tuple[Asked, int]:
    """The first group that was not in the training set, and the number of its drawings to use."""
    asked = evaluation.asked[evaluation.unseen[0]]
    return asked, min(evaluation.config.manipulated, len(asked.questions.asked))


def _captions(asked: Asked, number: int) -> tuple[str, str]:
    questions = asked.questions.asked
    return questions[number].caption, questions[(number + 1) % len(questions)].caption


def _others(asked: Asked, number: int) -> list[str]:
    """The question's wrong answers, without the target caption."""
    target = _captions(asked, number)[1]
    return [text for text in asked.questions.asked[number].distractors if text != target]


def _embedding(embedding: Float[Tensor, " d"] | None) -> Float[Tensor, " d"]:
    assert embedding is not None
    return embedding
