"""The paper's comparisons at the scale at hand: the same captions and seeds, one knob turned at a time."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unclip.evaluate.evaluation import Evaluation
from unclip.generate.system import System

Changes = list[dict[str, Any]]
"""The settings that an ablation compares, each as changes to the model's own."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One setting's results: what was changed, and what the judge says of the pictures.

    `followed` is the share of captions followed over all groups. `seconds` a picture counts only drawing, when the
    pictures were drawn, and is None where that is not known.
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
    """Draw and judge the evaluation's captions once for each of `settings`, changes to the model's own."""
    return [_row(evaluation, dict(changed)) for changed in settings]


def priors(system: System) -> Changes:
    """Is the prior worth it (section 5.1, figure 8)? The decoder is given the caption alone, the text embedding as if it
    were an image embedding, or what the prior makes of it: the full stack.

    The autoregressive prior, where there is one, draws one embedding, as the paper's: what the diffusion prior has its
    choice between two for, a high dot product, is asked of it.
    """
    changes: Changes = [{"prior": "none"}, {"prior": "text"}, {"prior": "diffusion"}]
    if "prior_autoregressive" in system.parts:
        changes.append({"prior": "autoregressive", "candidates": 1})
    return changes


def guidance(system: System) -> Changes:
    """The decoder's guidance (figures 9 and 10): captions are followed better and variety is lost, or is it?"""
    return [{"guidance": scale} for scale in (1.0, 1.5, 2.0, 3.0, 4.0)]


def prior_guidance(system: System) -> Changes:
    """Guidance of the prior, which the paper found to hurt (section 5.3)."""
    return [{"prior_guidance": scale} for scale in (1.0, 1.5, 2.0, 4.0)]


def candidates(system: System) -> Changes:
    """How many image embeddings are sampled, of which the nearest to the caption is drawn; the paper's is 2."""
    return [{"candidates": count} for count in (1, 2, 4, 8)]


def samplers(system: System) -> Changes:
    """The decoder's steps by sampler: how few do? Heun's method calls the decoder twice a step."""
    names, steps = ("ddim", "heun", "dpmpp_2m"), (5, 10, 20, 50)
    return [{"sampler": name, "steps": count} for name in names for count in steps]


#: What `unclip evaluate --ablation NAME` compares.
ABLATIONS: dict[str, Callable[[System], Changes]] = {
    "priors": priors,
    "guidance": guidance,
    "prior-guidance": prior_guidance,
    "candidates": candidates,
    "samplers": samplers,
}


def _row(evaluation: Evaluation, changed: dict[str, Any]) -> Row:
    settings = evaluation.system.defaults.with_given(**changed)
    told = ", ".join(f"{name} {value}" for name, value in changed.items())
    drawn = evaluation.draw(settings, told)
    followed = evaluation.captions_followed(drawn)
    count = sum(each.count for each in followed.values())
    distances = evaluation.distances(drawn)["generated"]
    return Row(
        changed=changed,
        followed=sum(each.share * each.count for each in followed.values()) / count,
        by_group={name: each.share for name, each in followed.items()},
        similarity=sum(each.similarity * each.count for each in followed.values()) / count,
        **{name: distances[name] for name in ("frechet", "mmd", "precision", "recall")},
        seconds=drawn.seconds,
    )
