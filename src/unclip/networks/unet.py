"""The ADM U-Net (Dhariwal and Nichol 2021) with GLIDE's conditioning: decoders and upsamplers are instances of it."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from unclip.nn.attention import KeyMask, PixelAttention, Readings
from unclip.nn.embeddings import LabelEmbedding
from unclip.nn.norm import NormKind, normalization
from unclip.nn.resample import Downsample, Upsample, depth_to_space, space_to_depth
from unclip.nn.resblock import ResBlock, zeroed
from unclip.nn.spatial_transformer import CrossAttention


@dataclass(frozen=True, kw_only=True)
class UnetConfig:
    """The shape of a `Unet`.

    `multiples` has one factor of `channels` for each level, the finest first; the picture is halved between levels.
    `blocks` counts the residual blocks of a level on the way down (one more on the way up). `attention_levels` are
    indices into `multiples`; if there are any, the middle attends too. `context_width` is the width of the context
    tokens. A conditioning vector of `vector_width` is added to the time embedding, after a projection if it has not
    the width `embedding_width`; None takes no vector. `resample` says how levels change size: by a residual block
    or by a single convolution. `patch` folds blocks of pixels into channels at the entrance and unfolds them at the
    exit, for cheap nets on large pictures. `groups` belongs to `norm` "group".
    """

    kind: Literal["unet"] = "unet"
    in_channels: int = 3
    out_channels: int = 3
    channels: int = 64
    multiples: tuple[int, ...] = (1, 2, 3, 4)
    blocks: int = 2
    attention_levels: tuple[int, ...] = ()
    head_channels: int = 64
    context_width: int | None = None
    vector_width: int | None = None
    scale_shift_norm: bool = True
    resample: Literal["resblock", "conv"] = "resblock"
    norm: NormKind = "group"
    groups: int = 32
    dropout: float = 0.0
    patch: int = 1

    def __post_init__(self) -> None:
        """Raise ValueError for levels that do not exist and for channels that do not split."""
        for level in self.attention_levels:
            if not 0 <= level < len(self.multiples):
                raise ValueError(
                    f"attention_levels names level {level}; the levels are 0 to {len(self.multiples) - 1}"
                )
        if self.channels % 2:
            raise ValueError(f"channels is {self.channels}, but the time embedding needs an even number")

    @property
    def embedding_width(self) -> int:
        """The width of the time embedding, to which a conditioning vector is added."""
        return 4 * self.channels

    @property
    def divisor(self) -> int:
        """The height and the width of a picture must be multiples of this."""
        return self.patch * 2 ** (len(self.multiples) - 1)


Attention = Callable[[Any, int], nn.Module]
"""Maker of the attention of a level, from the net's config and the level's index."""


class Level(nn.Module):
    """The blocks of one resolution on one side of the U: residual blocks, their attentions, the change of size."""

    def __init__(
        self,
        config: UnetConfig,
        level: int,
        in_channels: list[int],
        resample: Literal["down", "up"] | None,
        attention: "Attention",
    ):
        super().__init__()
        channels = config.channels * config.multiples[level]
        self.resblocks = nn.ModuleList(_resblock(config, width, channels) for width in in_channels)
        attends = level in config.attention_levels
        self.attentions = nn.ModuleList(attention(config, level) for _ in in_channels if attends)
        self.resample: nn.Module | None = None
        if resample is not None and config.resample == "resblock":
            self.resample = _resblock(config, channels, channels, resample)
        elif resample is not None:
            self.resample = Downsample(channels) if resample == "down" else Upsample(channels)

    def _block(
        self,
        index: int,
        h: Tensor,
        embedding: Tensor,
        context: Tensor | Readings | None,
        mask: KeyMask | None,
    ) -> Tensor:
        h = self.resblocks[index](h, embedding)
        return self.attentions[index](h, context, mask) if self.attentions else h

    def _change_size(self, h: Tensor, embedding: Tensor, size: torch.Size | None = None) -> Tensor:
        assert self.resample is not None
        if isinstance(self.resample, Upsample):
            return self.resample(h, size)
        return self.resample(h) if isinstance(self.resample, Downsample) else self.resample(h, embedding)


class DownLevel(Level):
    """A level on the way down."""

    def forward(
        self,
        h: Float[Tensor, "b c h w"],
        embedding: Float[Tensor, "b e"],
        context: Float[Tensor, "b m f"] | Readings | None = None,
        mask: KeyMask | None = None,
    ) -> list[Tensor]:
        """The maps after each block and after the change of size: the way up takes each of them once."""
        maps = []
        for index in range(len(self.resblocks)):
            h = self._block(index, h, embedding, context, mask)
            maps.append(h)
        if self.resample is not None:
            maps.append(self._change_size(h, embedding))
        return maps


class UpLevel(Level):
    """A level on the way up."""

    def forward(
        self,
        h: Float[Tensor, "b c h w"],
        skips: list[Tensor],
        embedding: Float[Tensor, "b e"],
        context: Float[Tensor, "b m f"] | Readings | None = None,
        mask: KeyMask | None = None,
        size: torch.Size | None = None,
    ) -> Float[Tensor, "b c_out h_out w_out"]:
        """`skips` holds one map of the way down for each block; the last of them is taken first.

        `size` is the height and width of the next level's maps.
        """
        for index, skip in enumerate(reversed(skips)):
            h = self._block(index, torch.cat([h, skip], dim=1), embedding, context, mask)
        return h if self.resample is None else self._change_size(h, embedding, size)


class Middle(nn.Module):
    """Residual block, attention (if the net has any), residual block, at the coarsest resolution."""

    def __init__(self, config: UnetConfig, attention: "Attention"):
        super().__init__()
        channels = config.channels * config.multiples[-1]
        self.resblock1 = _resblock(config, channels, channels)
        self.attention = attention(config, len(config.multiples) - 1) if config.attention_levels else None
        self.resblock2 = _resblock(config, channels, channels)

    def forward(
        self,
        h: Float[Tensor, "b c h w"],
        embedding: Float[Tensor, "b e"],
        context: Float[Tensor, "b m f"] | Readings | None,
        mask: KeyMask | None,
    ) -> Float[Tensor, "b c h w"]:
        h = self.resblock1(h, embedding)
        if self.attention is not None:
            h = self.attention(h, context, mask)
        return self.resblock2(h, embedding)


class Unet(nn.Module):
    """`config` as a network on pictures.

    It may run under autocast or with half-precision weights; the last convolution computes in float32 even then,
    because an eps prediction rounded to bfloat16 costs 1e-2 in the picture at high noise. For speed, convert it with
    `.to(memory_format=torch.channels_last)`; the activations follow.
    """

    def __init__(self, config: UnetConfig):
        super().__init__()
        self.config = config
        widths = [config.channels * multiple for multiple in config.multiples]
        levels = range(len(widths))
        embedding_width = config.embedding_width
        self.label = LabelEmbedding(embedding_width, frequencies=config.channels)
        self.vector = self.make_vector(config)
        self.entrance = nn.Conv2d(config.in_channels * config.patch**2, config.channels, 3, padding=1)
        self.down = nn.ModuleList()
        skips = [config.channels]
        current = config.channels
        for level in levels:
            last = level == levels[-1]
            inputs = [current] + [widths[level]] * (config.blocks - 1)
            self.down.append(DownLevel(config, level, inputs, None if last else "down", self.make_attention))
            current = widths[level]
            skips += [current] * (config.blocks if last else config.blocks + 1)
        self.middle = Middle(config, self.make_attention)
        self.up = nn.ModuleList()
        for level in reversed(levels):
            inputs = []
            for _ in range(config.blocks + 1):
                inputs.append(current + skips.pop())
                current = widths[level]
            self.up.append(UpLevel(config, level, inputs, "up" if level else None, self.make_attention))
        self.exit_norm = normalization(config.norm, current, config.groups)
        self.exit = zeroed(nn.Conv2d(current, config.out_channels * config.patch**2, 3, padding=1))

    @staticmethod
    def make_attention(config: Any, level: int) -> nn.Module:
        """The attention of a level: a module called (map, context, mask)."""
        return PixelAttention(
            config.channels * config.multiples[level],
            config.head_channels,
            config.context_width,
            norm=config.norm,
            groups=config.groups,
        )

    @staticmethod
    def make_vector(config: Any) -> nn.Module | None:
        """The projection of the conditioning vector to the width of the time embedding; None takes no vector."""
        if config.vector_width is None:
            return None
        same = config.vector_width == config.embedding_width
        return nn.Identity() if same else nn.Linear(config.vector_width, config.embedding_width)

    def read(self, context: Float[Tensor, "b m f"]) -> Readings:
        """What all attentions make of context tokens: `forward` takes it in their place, and has less to do."""
        return {
            one: one.read(context)
            for one in self.modules()
            if isinstance(one, PixelAttention | CrossAttention)
        }

    def forward(
        self,
        x: Float[Tensor, "b c h w"],
        label: Float[Tensor, " b"],
        vector: Float[Tensor, "b e"] | None = None,
        context: Float[Tensor, "b m f"] | Readings | None = None,
        context_mask: Bool[Tensor, "b m"] | None = None,
    ) -> Float[Tensor, "b c_out h w"]:
        """The float32 prediction for pictures `x` at noise `label`.

        `vector` joins the time embedding, `context` tokens join every attention as keys and values, and
        `context_mask` is True for those that count (None: all). Raises ValueError for a picture whose sides are no
        multiples of `config.divisor`, and for conditions that the net was not built for.
        """
        config = self.config
        height, width = x.shape[-2:]
        if height % config.divisor or width % config.divisor:
            raise ValueError(
                f"a picture of {height}x{width} does not fit; both sides must be multiples of {config.divisor}"
            )
        if context is not None and not config.attention_levels:
            raise ValueError("this U-Net has no attention for context tokens; set attention_levels")
        if (vector is None) != (self.vector is None):
            given = "no vector was" if vector is None else "a vector was"
            raise ValueError(f"vector_width of this U-Net is {config.vector_width}, but {given} given")
        mask = None if context_mask is None else KeyMask(context_mask)
        with self._in_its_type(x.device):
            h = self._body(x, label, vector, context, mask)
        with torch.autocast(x.device.type, enabled=False):
            bias = None if self.exit.bias is None else self.exit.bias.float()
            h = F.conv2d(h.float(), self.exit.weight.float(), bias, padding=1)
        return depth_to_space(h, config.patch)

    def _body(
        self,
        x: Tensor,
        label: Tensor,
        vector: Tensor | None,
        context: Tensor | Readings | None,
        mask: KeyMask | None,
    ) -> Tensor:
        """All but the last convolution."""
        weight_type = self.entrance.weight.dtype
        embedding = self.label(label)
        if vector is not None and self.vector is not None:
            plain = isinstance(self.vector, nn.Identity)
            embedding = embedding + (vector.float() if plain else self.vector(vector.to(weight_type)))
        embedding = F.silu(embedding)
        if weight_type != torch.float32:
            embedding = embedding.to(weight_type)
        first = self.entrance(space_to_depth(x.to(weight_type), self.config.patch))
        return self.inside(first, embedding, context, mask)

    def inside(
        self,
        first: Float[Tensor, "b c h w"],
        embedding: Float[Tensor, "b e"],
        context: Float[Tensor, "b m f"] | Readings | None,
        mask: KeyMask | None,
    ) -> Float[Tensor, "b c h w"]:
        """What the last convolution reads, of what the first one gives: nearly all of the net's work.

        Another program may take its place: `generate.openvino_nets` sets it on a net.
        """
        skips = [first]
        for level in self.down:
            skips += level(skips[-1], embedding, context, mask)
        h = self.middle(skips[-1], embedding, context, mask)
        taken = self.config.blocks + 1
        for level in self.up:
            size = skips[-taken - 1].shape[-2:] if len(skips) > taken else None
            h = level(h, skips[-taken:], embedding, context, mask, size)
            del skips[-taken:]
        return F.silu(self.exit_norm(h))

    def _in_its_type(self, device: torch.device) -> contextlib.AbstractContextManager[Any]:
        """Weights all of a half type need no autocast, which would cast at every layer, and maps to float32 at some."""
        if self.entrance.weight.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(device.type, enabled=False)


def _resblock(
    config: UnetConfig, in_channels: int, out_channels: int, resample: Literal["down", "up"] | None = None
) -> ResBlock:
    return ResBlock(
        in_channels,
        out_channels,
        config.embedding_width,
        scale_shift_norm=config.scale_shift_norm,
        resample=resample,
        dropout=config.dropout,
        norm=config.norm,
        groups=config.groups,
    )
