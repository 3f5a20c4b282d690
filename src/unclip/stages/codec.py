"""Image space of a renderer: how pictures become the state that diffusion runs on, and back."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor


@runtime_checkable
class Codec(Protocol):
    """An image space: channels, reduction factor, value range, and the maps to and from pixels in [-1, 1]."""

    @property
    def channels(self) -> int:
        """Channels of the state."""
        ...

    @property
    def factor(self) -> int:
        """Pixels per state element along each side."""
        ...

    @property
    def clip_range(self) -> tuple[float, float] | None:
        """Range that clean estimates are clamped to during sampling; None leaves them."""
        ...

    def encode(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c sh sw"]:
        """State of pictures in [-1, 1]."""
        ...

    def decode(self, state: Float[Tensor, "b c sh sw"]) -> Float[Tensor, "b 3 h w"]:
        """Pictures in [-1, 1] of a state."""
        ...

    def preview(self, state: Float[Tensor, "b c sh sw"]) -> Float[Tensor, "b 3 ph pw"]:
        """Cheap approximation of `decode` for progress previews, of any size."""
        ...


@dataclass(frozen=True)
class PixelCodec:
    """The image space of pixels themselves: the state is the picture."""

    channels: int = 3
    factor: int = 1
    clip_range: tuple[float, float] | None = (-1.0, 1.0)

    def encode(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """`pixels` unchanged."""
        return pixels

    def decode(self, state: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """`state` unchanged."""
        return state

    def preview(self, state: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """`state` unchanged."""
        return state


def state_shape(codec: Codec, height: int, width: int) -> tuple[int, int, int]:
    """Shape (channels, height, width) of the state of a picture. Raises `ValueError` for sides the factor cannot divide."""
    if height % codec.factor or width % codec.factor:
        raise ValueError(f"{width}x{height} pixels are not a multiple of {codec.factor}: give sides that are")
    return codec.channels, height // codec.factor, width // codec.factor
