"""Dropout whose masks belong to samples: they do not depend on the batch, nor on how processes divide it."""

import torch
from jaxtyping import Bool, Int64
from torch import Tensor, nn

from unclip.rng import Noise


class SampleDropout(nn.Module):
    """Dropout (Srivastava et al. 2014) by keys that `seed_dropout` gives: in training, `share` of the numbers become 0.

    The others are divided by 1 - share. A number is dropped by a hash of its sample's key and its place in the sample.
    """

    def __init__(self, share: float):
        super().__init__()
        if not 0 <= share < 1:
            raise ValueError(f"dropout is {share}; it is a share from 0 to 1, such as 0.1")
        self.share = share
        # No buffer: keys are given before each forward pass, and stay until its backward pass, which may compute it again.
        self.keys: Int64[Tensor, " b"] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """`x`, samples along its first axis, with their masks. Raises ValueError without the keys of as many samples."""
        if not (self.training and self.share):
            return x
        if self.keys is None or len(self.keys) != len(x):
            raise ValueError(
                f"dropout of {len(x)} samples in training needs a key for each: call unclip.nn.dropout.seed_dropout(network, "
                "noise) before the network"
            )
        kept = kept_by(self.keys, x[0].numel(), self.share).reshape(x.shape)
        # This order keeps the memory format of x, and one byte a number for the backward pass.
        return x * kept * (1.0 / (1.0 - self.share))

    def extra_repr(self) -> str:
        """The share."""
        return str(self.share)


def seed_dropout(network: nn.Module, noise: Noise) -> None:
    """Give every `SampleDropout` in a network its keys for the next forward pass, by the samples' streams."""
    for number, module in enumerate(m for m in network.modules() if isinstance(m, SampleDropout)):
        if module.share:
            module.keys = noise.fork(f"dropout {number}").keys


def kept_by(keys: Int64[Tensor, " b"], count: int, share: float) -> Bool[Tensor, "b n"]:
    """Which of the `count` numbers of each sample are kept: each with probability 1 - `share`, to within 2^-32.

    The hash is MurmurHash3's finaliser over 32 bits, keyed before and in the middle: a tenth of `Noise`'s work.
    """
    places = torch.arange(count, dtype=torch.int32, device=keys.device) * _signed(0x9E3779B9)
    low, high = (part.to(torch.int32)[:, None] for part in (keys << 32 >> 32, keys >> 32))
    bits = places + low
    bits = (bits ^ ((bits >> 16) & 0xFFFF)) * _signed(0x85EBCA6B) + high
    bits = (bits ^ ((bits >> 13) & 0x7FFFF)) * _signed(0xC2B2AE35)
    bits = bits ^ ((bits >> 16) & 0xFFFF)
    return bits >= round(share * 2**32) - 2**31


def _signed(value: int) -> int:
    return value - 2**32 if value >= 2**31 else value
