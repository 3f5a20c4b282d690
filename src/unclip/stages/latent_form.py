"""Form of an autoencoder's latents: what a decoder that was trained on them has to find again. Imports no torch.

Autoencoders of one form are exchangeable if one was trained further from the other with its encoder left alone, as those of
Stable Diffusion 1 and 2 were. That cannot be seen in configs; a fingerprint of the encoder shows it.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

from unclip.config import ConfigError
from unclip.stages.fingerprint import are_apart

ENCODER = "encoder.exit.weight"
"""The weight of an autoencoder that its fingerprint is computed from."""


class Difference(NamedTuple):
    """In what two forms differ, in words that a number follows, and the value of each."""

    what: str
    one: str
    other: str


@dataclass(frozen=True, kw_only=True)
class LatentForm:
    """Channels, reduction and scaling of latents: diffusion sees ``(z - mean) / std * scale``."""

    channels: int
    factor: int
    """Pixels per latent along each side."""
    scale: float = 1.0
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    """Per channel; None stands for 0 and 1."""
    fingerprint: tuple[float, ...] = ()
    """`unclip.stages.space.fingerprint_of` the weight `ENCODER`; empty if unknown."""

    def __post_init__(self) -> None:
        """Raise ConfigError for sizes below 1, a factor that is not positive, and statistics of another number of channels."""
        if min(self.channels, self.factor) < 1 or self.scale <= 0 or min(self.std or (1.0,)) <= 0:
            raise ConfigError("latents: channels, factor, scale and std must be positive")
        for name in ("mean", "std"):
            values = getattr(self, name)
            if values is not None and len(values) != self.channels:
                raise ConfigError(
                    f"latents: {name} has {len(values)} numbers, there are {self.channels} channels"
                )

    @classmethod
    def of(cls, config: Any, fingerprint: tuple[float, ...] = ()) -> "LatentForm":
        """Form of an autoencoder's latents, from its config."""
        return cls(
            channels=config.latent_channels,
            factor=config.factor,
            scale=config.scale,
            mean=config.mean,
            std=config.std,
            fingerprint=fingerprint,
        )

    def difference(self, other: "LatentForm") -> Difference | None:
        """The first number in which two forms differ; None where diffusion sees the same range of the same map."""
        for what, one, given in (
            ("latents of so many channels:", self.channels, other.channels),
            ("latents reduced by", self.factor, other.factor),
        ):
            if one != given:
                return Difference(what, str(one), str(given))
        names = "latents scaled by", "latents shifted by"
        for what, mine, theirs in zip(names, self._affine(), other._affine(), strict=True):
            apart = (
                (channel, one, given)
                for channel, (one, given) in enumerate(zip(mine, theirs, strict=True))
                if not math.isclose(one, given, rel_tol=1e-3, abs_tol=1e-3 if what == names[1] else 0.0)
            )
            if (found := next(apart, None)) is not None:
                channel, one, given = found
                where = f" (channel {channel})" if len({*mine}) > 1 or len({*theirs}) > 1 else ""
                return Difference(what, f"{one:.5g}{where}", f"{given:.5g}")
        return None

    def differs_inside(self, other: "LatentForm") -> bool:
        """Whether the encoders are known to be different: the same numbers may mean something else."""
        return are_apart(self.fingerprint, other.fingerprint)

    def _affine(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Factor and offset of each channel, from latents to what diffusion sees."""
        std, mean = self.std or (1.0,) * self.channels, self.mean or (0.0,) * self.channels
        scales = tuple(self.scale / one for one in std)
        return scales, tuple(0.0 - one * scale for one, scale in zip(mean, scales, strict=True))
