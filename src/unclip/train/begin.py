"""Fine-tuning: initial weights of a run from a model folder."""

from pathlib import Path

from torch import nn

from unclip.checkpoints.io import load_part
from unclip.checkpoints.manifest import read_manifest


def take_weights(model: nn.Module, folder: str, stage: str) -> None:
    """Fill `model` with that stage's weights in a model folder, such as a finished run's OUT/model.

    Raises FileNotFoundError where there is no model, `ModelError` where it is damaged, and ValueError where it lacks the
    stage or its sizes are others.
    """
    path = Path(folder)
    manifest = read_manifest(path)
    if stage not in manifest.parts:
        raise ValueError(
            f"init: {folder} holds {', '.join(manifest.parts)} but no {stage}: name a folder with one"
        )
    weights = load_part(path, manifest, stage).state_dict()
    own = model.state_dict()
    other = sorted(name for name in own.keys() | weights.keys() if _shape(own, name) != _shape(weights, name))
    if other:
        raise ValueError(
            f"init: the {stage} in {folder} is of another size: {other[0]} has {_shape(weights, other[0])}, "
            f"this run's {_shape(own, other[0])} ({len(other)} differ): leave init out, or set model.* to its config"
        )
    model.load_state_dict(weights)


def _shape(weights: dict, name: str) -> tuple[int, ...] | None:
    return tuple(weights[name].shape) if name in weights else None
