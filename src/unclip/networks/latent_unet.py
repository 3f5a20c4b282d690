"""Stable Diffusion's U-Net (arXiv 2112.10752): the ADM U-Net whose attention is a spatial transformer over a text."""

from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from unclip.networks.unet import Unet, UnetConfig
from unclip.nn.embeddings import VectorEmbedding
from unclip.nn.spatial_transformer import SpatialTransformer


@dataclass(frozen=True, kw_only=True)
class LatentUnetConfig(UnetConfig):
    """The shape of a `LatentUnet`; `UnetConfig` has the rest.

    `heads` has the number of attention heads of each level. `transformer_layers` counts the blocks of each transformer.
    A conditioning vector of `vector_width` passes two layers before it is added to the time embedding.
    `upcast_attention` computes attention in float32 whatever the network computes in (Stable Diffusion 2.1).
    """

    kind: Literal["latent_unet"] = "latent_unet"  # pyright: ignore[reportIncompatibleVariableOverride]
    in_channels: int = 4
    out_channels: int = 4
    channels: int = 320
    multiples: tuple[int, ...] = (1, 2, 4, 4)
    blocks: int = 2
    attention_levels: tuple[int, ...] = (0, 1, 2)
    heads: tuple[int, ...] = (8, 8, 8, 8)
    transformer_layers: int = 1
    context_width: int | None = 768
    scale_shift_norm: bool = False
    resample: Literal["resblock", "conv"] = "conv"
    upcast_attention: bool = False

    @property
    def divisor(self) -> int:
        """1: maps with odd sides are halved by rounding up, and come back to their size."""
        return self.patch

    def __post_init__(self) -> None:
        """Raise ValueError for levels without heads, heads that do not divide the channels, and a norm without groups."""
        super().__post_init__()
        if len(self.heads) != len(self.multiples):
            raise ValueError(f"heads has {len(self.heads)} numbers, multiples has {len(self.multiples)}")
        for level in {*self.attention_levels, len(self.multiples) - 1}:
            width = self.channels * self.multiples[level]
            if self.heads[level] < 1 or width % self.heads[level]:
                raise ValueError(
                    f"{width} channels of level {level} do not split into {self.heads[level]} heads"
                )
        if self.context_width is None:
            raise ValueError("context_width is None: these transformers attend to a text")
        if self.norm != "group":
            raise ValueError(f"norm {self.norm!r} has no transformer: set norm to 'group'")


class LatentUnet(Unet):
    """`config` as a network on latents: `forward` is `Unet`'s, with the text's states as `context`."""

    @staticmethod
    def make_attention(config: Any, level: int) -> nn.Module:
        """The spatial transformer of a level."""
        return SpatialTransformer(
            config.channels * config.multiples[level],
            config.heads[level],
            config.context_width,
            layers=config.transformer_layers,
            groups=config.groups,
            upcast=config.upcast_attention,
        )

    @staticmethod
    def make_vector(config: Any) -> nn.Module | None:
        """Two layers from the vector to the time embedding; None takes no vector."""
        if config.vector_width is None:
            return None
        return VectorEmbedding(config.vector_width, config.embedding_width)


def build_unet(config: UnetConfig) -> Unet:
    """The U-Net of a config: a `LatentUnet` where it has spatial transformers."""
    return LatentUnet(config) if isinstance(config, LatentUnetConfig) else Unet(config)
