"""Ablations of the paper at a small scale: the same captions and seeds, one sampling setting varied at a time."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unclip.evaluate.evaluation import Evaluation
from unclip.evaluate.metrics import followed_by_group, set_distances
from unclip.generate.model import Model
from unclip.stages.sampling import Sampling, sampling

Changes = list[dict[str, Any]]
"""Settings that an ablation compares, each as changes to the model's defaults under the short names of settings."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """Results of one setting.

    `followed` is the share of captions followed over all groups. `seconds` per picture covers sampling only; None where
    no picture was timed.
    """

    changed: dict[str, Any]
    followed: float
    by_group: dict[str, float]
    similarity: float
    frechet: float
    mmd: float
    precision: float
    recall: float
    seconds: float | None


def compare(evaluation: Evaluation, settings: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Results of the evaluation's captions for each of `settings`, changes to the model's defaults."""
    return [_row(evaluation, dict(changed)) for changed in settings]


def changed_sampling(model: Model, changed: Mapping[str, Any]) -> Sampling:
    """The model's default sampling with changes under the short names of settings."""
    return sampling(**changed).over(model.defaults)


def priors(model: Model) -> Changes:
    """Source of the image embedding (section 5.1, figure 8): none (caption alone), the text embedding, or a prior.

    The autoregressive prior samples one embedding, as in the paper: it is given a high z_i·z_t, which the diffusion
    prior reaches by choosing between two candidates.
    """
    changes: Changes = [{"prior": "none"}, {"prior": "text"}, {"prior": "diffusion"}]
    if "prior_autoregressive" in model.parts.names:
        changes.append({"prior": "autoregressive", "candidates": 1})
    return changes


def guidance(model: Model) -> Changes:
    """Guidance scale of the decoder: captions followed against diversity (figures 9 and 10)."""
    return [{"guidance": scale} for scale in (1.0, 1.5, 2.0, 3.0, 4.0)]


def prior_guidance(model: Model) -> Changes:
    """Guidance scale of the prior, which hurts according to the paper (section 5.3)."""
    return [{"prior_guidance": scale} for scale in (1.0, 1.5, 2.0, 4.0)]


def candidates(model: Model) -> Changes:
    """Number of image embeddings sampled, of which the nearest to the caption is decoded; 2 in the paper."""
    return [{"candidates": count} for count in (1, 2, 4, 8)]


def samplers(model: Model) -> Changes:
    """Decoder steps by sampler; Heun's method calls the decoder twice per step."""
    names, steps = ("ddim", "heun", "dpmpp_2m"), (5, 10, 20, 50)
    return [{"sampler": name, "steps": count} for name in names for count in steps]


ABLATIONS: dict[str, Callable[[Model], Changes]] = {
    "priors": priors,
    "guidance": guidance,
    "prior-guidance": prior_guidance,
    "candidates": candidates,
    "samplers": samplers,
}
"""Ablations by the name given to `unclip evaluate --ablation`."""


def _row(evaluation: Evaluation, changed: dict[str, Any]) -> Row:
    doing = ", ".join(f"{name} {value}" for name, value in changed.items())
    drawn = evaluation.draw(changed_sampling(evaluation.model, changed), doing)
    followed = followed_by_group(evaluation, drawn)
    count = sum(each.count for each in followed.values())
    distances = set_distances(evaluation, drawn)["generated"]
    return Row(
        changed=changed,
        followed=sum(each.share * each.count for each in followed.values()) / count,
        by_group={name: each.share for name, each in followed.items()},
        similarity=sum(each.similarity * each.count for each in followed.values()) / count,
        **{name: distances[name] for name in ("frechet", "mmd", "precision", "recall")},
        seconds=drawn.seconds,
    )
