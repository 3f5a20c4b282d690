"""Randomness as a pure function of (seed, purpose, position): one stream per sample, nothing hidden.

Each sample owns a 64-bit key. The j-th draw of a stream is a hash of key and counter (SplitMix64, Steele,
Lea and Flood 2014), so a picture depends on its own seed and never on its batch, a training run can be
resumed without any saved random state, and the same integers come out on every device.
"""

import hashlib
import math
import secrets
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15


def derive(seed: int, *path: int | str) -> int:
    """A child seed in [0, 2^63), an independent-looking function of `seed` and the names in `path`."""
    text = "/".join(str(part) for part in (seed, *path))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def draw_seed() -> int:
    """A seed in [0, 2^32) from the operating system, short enough to be typed again."""
    return secrets.randbits(32)


class Noise:
    """A source of randomness for a batch, with a stream of its own for each sample.

    `seeds` holds one integer in [0, 2^63) a sample. Draws advance the streams; `fork` starts independent ones.
    Draws are made on `device` (the CPU by default): integers are equal everywhere, normals to rounding.
    SplitMix64 maps 0 to 0, so the very first draw of seed 0 is the smallest there is; a fork has no such corner.
    """

    def __init__(self, seeds: Sequence[int] | Int[Tensor, " b"], device: torch.device | str = "cpu"):
        keys = (
            seeds
            if isinstance(seeds, Tensor)
            else torch.tensor([_signed(seed) for seed in seeds], dtype=torch.int64)
        )
        self.keys = _mix(keys.to(device, torch.int64))
        self.counter = 0

    def __len__(self) -> int:
        return len(self.keys)

    def fork(self, purpose: int | str) -> "Noise":
        """An independent source for `purpose`: the same whenever it is asked for, whatever was drawn before."""
        child = Noise.__new__(Noise)
        child.keys = _mix(self.keys ^ _signed(derive(0, purpose)))
        child.counter = 0
        return child

    def of(self, index: int) -> "Noise":
        """The stream of one sample alone, on the CPU, from where it stands."""
        child = Noise.__new__(Noise)
        child.keys, child.counter = self.keys[index : index + 1].cpu(), self.counter
        return child

    def bits(self, *shape: int) -> Int[Tensor, "b ..."]:
        """Uniform 64-bit integers of shape (b, *shape)."""
        count = math.prod(shape)
        counters = torch.arange(self.counter, self.counter + count, device=self.keys.device)
        self.counter += count
        return _mix(self.keys[:, None] + counters * _signed(_GOLDEN)).reshape(len(self), *shape)

    def uniform(self, *shape: int) -> Float[Tensor, "b ..."]:
        """float64 numbers in the open interval (0, 1), of shape (b, *shape)."""
        # The largest of the 2^53 values would round up to 1.
        return ((_shift(self.bits(*shape), 11).double() + 0.5) * 2.0**-53).clamp(max=1 - 2.0**-53)

    def normal(self, *shape: int) -> Float[Tensor, "b ..."]:
        """float32 standard normals of shape (b, *shape), by the Box-Muller transform."""
        count = math.prod(shape)
        half = (count + 1) // 2
        bits = self.bits(half)
        # One hash gives both uniforms: 32 bits for the radius, 32 for the angle.
        radius = torch.sqrt(-2.0 * torch.log((_shift(bits, 32).double() + 0.5) * 2.0**-32)).float()
        angle = ((bits & 0xFFFFFFFF).double() * (2.0 * math.pi * 2.0**-32)).float()
        pairs = torch.cat([radius * torch.cos(angle), radius * torch.sin(angle)], dim=1)
        return pairs[:, :count].reshape(len(self), *shape)

    def integers(self, high: int, *shape: int) -> Int[Tensor, "b ..."]:
        """Integers in [0, high), of shape (b, *shape); the bias is below high / 2^53."""
        return (self.uniform(*shape) * high).long()


class TorchNoise:
    """PyTorch's own random numbers: one `torch.Generator` a sample, which all purposes share, in the order of asking.

    It is how diffusers draws, so that a seed means the same there and here.
    """

    def __init__(self, seeds: Sequence[int]):
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __len__(self) -> int:
        return len(self.generators)

    def normal(self, *shape: int) -> Float[Tensor, "b ..."]:
        """float32 standard normals of shape (b, *shape)."""
        return torch.cat([torch.randn(1, *shape, generator=generator) for generator in self.generators])


def _signed(value: int) -> int:
    value &= 0xFFFFFFFFFFFFFFFF
    return value - (1 << 64) if value >= 1 << 63 else value


def _shift(bits: Int[Tensor, "..."], places: int) -> Int[Tensor, "..."]:
    # int64 has only the arithmetic shift: the sign bits that it brings in are masked off.
    return (bits >> places) & ((1 << (64 - places)) - 1)


def _mix(bits: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
    bits = (bits ^ _shift(bits, 30)) * _signed(0xBF58476D1CE4E5B9)
    bits = (bits ^ _shift(bits, 27)) * _signed(0x94D049BB133111EB)
    return bits ^ _shift(bits, 31)
