"""Fine-tuning: initial weights of a run from a model folder."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from unclip.checkpoints.manifest import MANIFEST
from unclip.formats.open_part import OpenPart
from unclip.formats.opened import OpenModel, open_model
from unclip.networks.patch_transformer import PatchTransformerConfig
from unclip.tokenizers.clip import ClipTokenizer


def open_parts(folder: str) -> Mapping[str, OpenPart]:
    """The parts of a model folder, of a bundled model, or of a model in a public format; they need not make a whole model."""
    return _opened(folder).parts


def tokenizer_of(folder: str) -> str:
    """JSON of CLIP's tokenizer in a model folder, a bundled model, or a model in a public format. Raises ValueError for another kind."""
    found = _opened(folder).tokenizer()
    if not isinstance(found, ClipTokenizer):
        raise ValueError(
            f"init: the captions of {folder} are read by another tokenizer than CLIP's: name another model"
        )
    return found.to_json()


def _opened(folder: str) -> OpenModel:
    path, inner = Path(folder), Path(folder) / "model"
    # As given, a bundled model's name is one where there is a folder of that name, too.
    is_run = not (path / MANIFEST).is_file() and (inner / MANIFEST).is_file()
    return open_model(inner if is_run else folder)


def take_weights(model: nn.Module, folder: str, stage: str) -> None:
    """Fill `model` with that stage's weights in a model folder, such as a finished run's OUT/model.

    A decoder on larger patches serves one on smaller patches too. The folder may be in a public format.
    Raises FileNotFoundError where there is no model, `ModelError` where it is damaged, and ValueError where it lacks the
    stage or its sizes are others.
    """
    parts = open_parts(folder)
    if stage not in parts:
        raise ValueError(f"init: {folder} holds {', '.join(parts)} but no {stage}: name a folder with one")
    loaded = parts[stage].load()
    weights, own = loaded.state_dict(), model.state_dict()
    old, new = _patches(loaded), _patches(model)
    if old is not None and new is not None and old.patch > new.patch and replace(old, patch=new.patch) == new:
        weights = on_smaller_patches(weights, old.patch, new.patch)
    other = sorted(name for name in own.keys() | weights.keys() if _shape(own, name) != _shape(weights, name))
    if other:
        raise ValueError(
            f"init: the {stage} in {folder} is of another size: {other[0]} has {_shape(weights, other[0])}, "
            f"this run's {_shape(own, other[0])} ({len(other)} differ): leave init out, or set model.* to its config"
        )
    model.load_state_dict(weights)


def on_smaller_patches(weights: dict[str, Tensor], old: int, new: int) -> dict[str, Tensor]:
    """A patch transformer decoder's weights for patches of `new` pixels in place of `old`; its blocks are as they were.

    What reads and writes a patch is reduced like a picture of it (FlexiViT, arXiv 2212.08013), and the positions lie
    between the old ones. It still has to learn what a small patch is, but neither shapes nor conditions.
    """
    factor = old // new
    names = {name: f"net.{name}" for name in ("patches.weight", "out.weight", "out.bias", "positions")}
    read, write, bias, places = (weights[name] for name in names.values())
    side = round(len(places) ** 0.5)
    grid = rearrange(places, "(h w) d -> 1 d h w", h=side)
    grid = F.interpolate(grid, scale_factor=factor, mode="bilinear", align_corners=False)
    reduced = {
        # The sum over a patch stays what it was where a picture is smooth.
        "patches.weight": factor**2 * _reduced(read, old, factor),
        "out.weight": _reduced(write.T, old, factor).T.contiguous(),
        "out.bias": _reduced(bias[None], old, factor)[0],
        "positions": rearrange(grid, "1 d h w -> (h w) d"),
    }
    return {**weights, **{names[name]: value for name, value in reduced.items()}}


def _reduced(rows: Float[Tensor, "n cpp"], patch: int, factor: int) -> Float[Tensor, "n cqq"]:
    """Rows of (channels, patch, patch) numbers, squares of factor x factor of them averaged."""
    pictures = rearrange(rows, "n (c p q) -> n c p q", p=patch, q=patch)
    return rearrange(F.avg_pool2d(pictures, factor), "n c p q -> n (c p q)")


def _patches(model: nn.Module) -> PatchTransformerConfig | None:
    net = getattr(getattr(model, "config", None), "net", None)
    return net if isinstance(net, PatchTransformerConfig) else None


def _shape(weights: dict, name: str) -> tuple[int, ...] | None:
    return tuple(weights[name].shape) if name in weights else None
