"""The knobs of sampling, with a model's own defaults; and which seed each picture of a call gets."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, TypedDict, get_args

from unclip.config import from_dict
from unclip.diffusion.samplers import SAMPLERS
from unclip.rng import derive, draw_seed
from unclip.stages.sampling import FLAT_NAMES, Sampling

PriorName = Literal["diffusion", "autoregressive", "text", "none"]
"""Where z_i comes from: one of the two priors, the text embedding in its place, or nowhere (figure 8 of the paper)."""

RandomName = Literal["unclip", "diffusers"]
"""How a seed becomes noise: a stream for every purpose, or one stream in diffusers' order, for the same pictures as there."""


class Upsampling(NamedTuple):
    """How one upsampler is sampled."""

    steps: int
    sampler: str


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How pictures are sampled. A model folder's `defaults` hold the values that suit it.

    A guidance of 1 is none; `guidance_interval` holds the noise levels (sigma) between which the decoder is guided,
    None means all. `candidates` embeddings are sampled for each picture, and the one nearest to the caption is drawn.
    `upsampler_steps` and `upsampler_sampler` are the first upsampler's, `second_...` those of all further ones.
    `random` says how a seed becomes noise.
    """

    prior: PriorName = "diffusion"
    prior_steps: int = 16
    prior_sampler: str = "dpmpp_2m"
    prior_guidance: float = 1.0
    candidates: int = 2
    steps: int = 20
    sampler: str = "dpmpp_2m"
    guidance: float = 2.5
    guidance_interval: tuple[float, float] | None = None
    upsampler_steps: int = 5
    upsampler_sampler: str = "dpmpp_2m"
    second_upsampler_steps: int = 15
    second_upsampler_sampler: str = "ddim"
    random: RandomName = "unclip"

    def __post_init__(self) -> None:
        """Raise ValueError naming the knob that is out of its range."""
        if self.prior not in get_args(PriorName):
            raise ValueError(f"prior {self.prior!r} is not one of {', '.join(get_args(PriorName))}")
        if self.random not in get_args(RandomName):
            raise ValueError(f"random {self.random!r} is not one of {', '.join(get_args(RandomName))}")
        if self.random == "diffusers" and self.candidates != 1:
            raise ValueError(f"diffusers draws one candidate, not {self.candidates}: set candidates to 1")
        for name, high in (
            ("prior_steps", 1000),
            ("candidates", 256),
            ("steps", 1000),
            ("upsampler_steps", 1000),
            ("second_upsampler_steps", 1000),
        ):
            if not 1 <= getattr(self, name) <= high:
                raise ValueError(f"{name} is {getattr(self, name)}: give a number from 1 to {high}")
        for name in ("prior_guidance", "guidance"):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"{name} is {getattr(self, name)}: give a finite number, 1 for no guidance")
        for name in ("prior_sampler", "sampler", "upsampler_sampler", "second_upsampler_sampler"):
            if getattr(self, name) not in SAMPLERS:
                raise ValueError(f"{name} {getattr(self, name)!r} is not one of {', '.join(SAMPLERS)}")

    def upsampling(self, index: int) -> Upsampling:
        """How the upsampler that runs as number `index`, from 0, is sampled."""
        if index == 0:
            return Upsampling(self.upsampler_steps, self.upsampler_sampler)
        return Upsampling(self.second_upsampler_steps, self.second_upsampler_sampler)

    def faster(self) -> "Settings":
        """A few steps of a solver of order 2, guided only where guidance decides what the picture shows.

        DPM-Solver++ (arXiv 2211.01095) and the guidance interval (arXiv 2404.07724); docs/speed.md says what it costs.
        """
        return replace(
            self,
            prior_steps=min(self.prior_steps, 10),
            prior_sampler="dpmpp_2m",
            steps=min(self.steps, 6),
            sampler="dpmpp_2m",
            guidance_interval=self.guidance_interval or (1.0, 20.0),
            upsampler_steps=min(self.upsampler_steps, 2),
            upsampler_sampler="dpmpp_2m",
        )

    def with_given(self, *, fast: bool | None = None, **given: Any) -> "Settings":
        """A copy with the given values, of `faster` if `fast`; None keeps what is there."""
        base = self.faster() if fast else self
        return replace(base, **{name: value for name, value in given.items() if value is not None})


class PathKnobs(TypedDict, total=False):
    """The settings that a call may change, but for the decoder's steps; None keeps the model's own."""

    guidance: float | None
    sampler: str | None
    prior: PriorName | None
    prior_steps: int | None
    prior_guidance: float | None
    candidates: int | None
    upsampler_steps: int | None
    second_upsampler_steps: int | None
    random: RandomName | None
    fast: bool | None


class Knobs(PathKnobs, total=False):
    """The settings that a call may change; None keeps the model's own."""

    steps: int | None


def settings_of(sampling: Sampling) -> Settings:
    """Flat settings from nested ones, of which none is missing."""
    flat: dict[str, Any] = {}
    for name, (first, *rest) in FLAT_NAMES.items():
        node: Any = sampling
        if first == "upsamplers":
            node, rest = sampling.upsampler(int(rest[0])), rest[1:]
        else:
            node = getattr(sampling, first)
        flat[name] = getattr(node, rest[0]) if rest else node
    del flat["fast"]
    return Settings(**flat)


def read_settings(data: Mapping[str, Any]) -> Settings:
    """Settings from a model folder's `defaults` or a recipe. Raises `ConfigError` for an unknown or unfit key."""
    return from_dict(Settings, data)


def seed_of(seed: int, index: int) -> int:
    """The recorded seed of picture `index` of a call: the first has the call's own, the others 32-bit children of it."""
    return seed if index == 0 else derive(seed, index) & 0xFFFFFFFF


def check_seed(seed: int) -> int:
    """`seed`, if it is in [0, 2^63); raises `ValueError` otherwise."""
    if not 0 <= seed < 2**63:
        raise ValueError(f"the seed {seed} is outside [0, 2^63): give another one")
    return seed


def choose_seed(seed: int | None) -> int:
    """`seed`, checked, or a drawn one."""
    return draw_seed() if seed is None else check_seed(seed)
