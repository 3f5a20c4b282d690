"""Metrics of an evaluation: captions followed, attributes, distances, retrieval, memorisation and upsampling."""

from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from unclip.data.dataset import open_dataset
from unclip.datasets.artwork.alternatives import alternatives
from unclip.evaluate.captions_followed import Followed, captions_followed
from unclip.evaluate.distances import frechet, median_distance, mmd
from unclip.evaluate.evaluation import Drawn, Evaluation
from unclip.evaluate.features import Encoder
from unclip.evaluate.memorisation import memorisation, nearest_two
from unclip.evaluate.precision_recall import precision_recall
from unclip.evaluate.questions import weighted_order
from unclip.evaluate.retrieval import fitting_captions, retrieval
from unclip.evaluate.upsampling import evenly_spaced, upsampling
from unclip.images import from_uint8
from unclip.rng import derive

THUMBNAIL = 32
"""Side in pixels at which pictures are compared pixel by pixel."""


def followed_by_group(evaluation: Evaluation, drawn: Drawn) -> dict[str, Followed]:
    """Captions followed, per group: the judge picks each picture's caption among captions of the group."""
    return {
        one.group.name: captions_followed(
            evaluation.judge,
            features,
            real,
            [(question.caption, *question.distractors) for question in one.questions.asked],
        )
        for one, features, real in zip(evaluation.asked, drawn.features, evaluation.real)
    }


def attributes_by_group(evaluation: Evaluation, drawn: Drawn) -> dict[str, dict[str, Followed]]:
    """Captions followed in one attribute (style, colour, arrangement, binding), per group and attribute."""
    found: dict[str, dict[str, Followed]] = {}
    for one, features, real in zip(evaluation.asked, drawn.features, evaluation.real):
        options = [alternatives(question.sample, question.caption) for question in one.questions.asked]
        names = dict.fromkeys(name for each in options for name in each)
        for name in names:
            rows = [row for row, each in enumerate(options) if name in each]
            found.setdefault(one.group.name, {})[name] = captions_followed(
                evaluation.judge, features[rows], real[rows], [options[row][name] for row in rows]
            )
    return found


def set_distances(evaluation: Evaluation, drawn: Drawn) -> dict[str, dict[str, float]]:
    """Distances of generated pictures of unseen groups to held-out drawings, and of real drawings to them as the floor."""
    # Questions beyond the reference's count are about the reference's own drawings.
    counts = {number: len(evaluation.asked[number].reference) for number in evaluation.unseen}
    generated = torch.cat([drawn.features[number][:count] for number, count in counts.items()])
    real = torch.cat([evaluation.real[number][:count] for number, count in counts.items()])
    bandwidth = median_distance(evaluation.reference)
    return {
        name: {
            "count": float(len(features)),
            "frechet": frechet(evaluation.reference, features),
            "mmd": mmd(evaluation.reference, features, bandwidth),
            **precision_recall(evaluation.reference, features)._asdict(),
        }
        for name, features in (("generated", generated), ("real", real))
    }


def held_out_retrieval(evaluation: Evaluation, encoder: Encoder) -> dict[str, float]:
    """Recall of an encoder between held-out drawings and their first captions."""
    splits, config = evaluation.splits, evaluation.config
    pool = [(split, index) for split in config.held_out for index in range(len(splits[split]))]
    samples = [splits[split].samples[index] for split, index in pool]
    order = weighted_order(range(len(pool)), samples, derive(config.seed, "retrieval"))
    rows = sorted(order[: config.retrieval_count])
    captions = [samples[row].captions[0] for row in rows]
    pictures = torch.cat([splits[pool[row][0]].pictures([pool[row][1]]) for row in rows])
    right = fitting_captions([samples[row] for row in rows], captions)
    found = retrieval(encoder.pictures(pictures), encoder.captions(captions), right)
    return {"count": float(len(rows)), **found}


def memorisation_by_set(evaluation: Evaluation, drawn: Drawn) -> dict[str, dict[str, dict[str, Any]]]:
    """Memorisation for captions seen and unseen in training, in the judge's features and in pixels."""
    asked = evaluation.asked
    # A drawing that is asked about twice counts once: the second questions come last.
    once = {n: len({question.row for question in asked[n].questions.asked}) for n in evaluation.unseen}
    held_out = torch.cat([asked[number].real[:count] for number, count in once.items()])
    held_out_features = torch.cat([evaluation.real[number][:count] for number, count in once.items()])
    sets = {
        "seen": [number for number, one in enumerate(asked) if one.group.seen],
        "unseen": [number for number, one in enumerate(asked) if not one.group.seen],
    }
    found: dict[str, dict[str, dict[str, Any]]] = {}
    by_features, by_pixels = _nearest(evaluation, held_out_features, thumbnails(held_out))
    for name, numbers in sets.items():
        if numbers:
            features = torch.cat([drawn.features[number] for number in numbers])
            pixels = thumbnails(torch.cat([drawn.pictures[number] for number in numbers]))
            of_features, of_pixels = _nearest(evaluation, features, pixels)
            found[name] = {
                "features": asdict(memorisation(of_features, by_features)),
                "pixels": asdict(memorisation(of_pixels, by_pixels)),
            }
    return found


def _nearest(
    evaluation: Evaluation, features: Float[Tensor, "n d"], pixels: Float[Tensor, "n p"]
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    training = evaluation.splits[evaluation.config.train]
    chunks = np.array_split(np.arange(len(training)), -(-len(training) // 2048))
    by_pixels = nearest_two(pixels, (thumbnails(training.pictures(chunk)) for chunk in chunks))
    return nearest_two(features, evaluation.training_features.split(4096)), by_pixels


def thumbnails(pixels: UInt8[Tensor, "n 3 s s"]) -> Float[Tensor, "n p"]:
    """Vectors of small pixels in [-1, 1], scaled so that a distance is a root mean square over the pixels."""
    small = adaptive_avg_pool2d(from_uint8(pixels), min(THUMBNAIL, pixels.shape[-1]))
    flat = rearrange(small, "n c h w -> n (c h w)")
    return flat / flat.shape[1] ** 0.5


def upsampling_quality(evaluation: Evaluation) -> dict[str, Any] | None:
    """Upsampler against bicubic enlargement on held-out drawings; None without an upsampler or drawings of its size."""
    model, config = evaluation.model, evaluation.config
    sizes = model.sizes
    if len(sizes) < 2 or not config.upsampled:
        return None
    dataset = open_dataset(config.originals or config.data, split=config.held_out[0])
    originals = evenly_spaced(dataset, config.upsampled, sizes[1])
    if originals is None:
        evaluation.report(f"there are no drawings of {sizes[1]} px: upsampling is not measured")
        return None
    evaluation.report(f"upsampling {len(originals)} drawings")
    found = upsampling(model, evaluation.judge, originals, seed=config.seed)
    return {
        "count": len(originals),
        "size": sizes[1],
        **{name: asdict(each) for name, each in found.items()},
    }
