"""A part of an opened model: its config, its loader, and what it was trained for."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from unclip.checkpoints.registry import Role, role_of
from unclip.stages.latent_form import LatentForm
from unclip.stages.space import EmbeddingSpace


def unknown_space() -> EmbeddingSpace:
    return EmbeddingSpace(width=0)


def no_latents() -> LatentForm | None:
    return None


@dataclass(frozen=True, kw_only=True)
class OpenPart:
    """A network with its config, not loaded yet."""

    model: str
    """Name of the model that it belongs to."""
    config: Any
    load: Callable[..., nn.Module]
    """`load(device=..., dtype=..., only=...)`: the network in evaluation mode, as `checkpoints.io.load_part`."""
    space: Callable[[], EmbeddingSpace] = unknown_space
    """Embedding space that the part was trained for. The first call may read a matrix of CLIP and the prior's statistics."""
    latents: Callable[[], LatentForm | None] = no_latents
    """Form of the latents that the part makes, or was trained on; None if unknown. The first call may read a small weight."""

    @property
    def role(self) -> Role:
        """What the part does in a model."""
        return role_of(self.config.kind)

    @property
    def in_space(self) -> bool:
        """Whether the part gives or reads image embeddings."""
        return (
            self.role in ("clip", "prior", "decoder") and getattr(self.config, "embedding", None) is not None
        )
