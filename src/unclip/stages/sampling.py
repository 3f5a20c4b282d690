"""Sampling settings per stage, with the field descriptions and ranges that schema, command line and docs share. No torch.

A field that is None means the model's default. `Sampling.over` fills them; what pictures record is filled.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, Literal, TypeVar

from unclip.config import ConfigError, Param, check, from_dict, override, read_field, shown
from unclip.diffusion.names import SAMPLER_ALIASES, SAMPLER_NAMES, canonical
from unclip.errors import RequestError

PriorName = Literal["diffusion", "autoregressive", "text", "none"]
RandomName = Literal["unclip", "diffusers"]
SpacingName = Literal["leading", "trailing", "linspace", "karras"]

T = TypeVar("T")
Settings = TypeVar("Settings", "PriorSampling", "DecoderSampling", "UpsamplerSampling")

_Steps = Annotated[int | None, Param("sampler steps", ge=1, le=1000)]
_Sampler = Annotated[str | None, Param("sampler", choices=SAMPLER_NAMES, aliases=tuple(SAMPLER_ALIASES))]


def _check(settings: Any) -> None:
    check(settings, RequestError)
    if (name := getattr(settings, "sampler", None)) is not None:
        object.__setattr__(settings, "sampler", canonical(name))


@dataclass(frozen=True, kw_only=True)
class PriorSampling:
    """How the prior is sampled: caption -> z_i."""

    kind: Annotated[
        PriorName | None,
        Param("source of the image embedding: a prior, the caption's text embedding, or none"),
    ] = None
    steps: _Steps = None
    sampler: _Sampler = None
    guidance: Annotated[float | None, Param("classifier-free guidance scale of the prior; 1 is off")] = None
    candidates: Annotated[
        int | None,
        Param("image embeddings sampled per picture; the nearest to the caption is kept", ge=1, le=256),
    ] = None

    def __post_init__(self) -> None:
        """Raise `RequestError` for a value out of range."""
        _check(self)


@dataclass(frozen=True, kw_only=True)
class DecoderSampling:
    """How the decoder is sampled: z_i (and caption) -> small picture."""

    steps: _Steps = None
    sampler: _Sampler = None
    guidance: Annotated[float | None, Param("classifier-free guidance scale of the decoder; 1 is off")] = None
    guidance_interval: Annotated[
        tuple[float, float] | None,
        Param(
            "noise levels (sigma) within which the decoder is guided (arXiv 2404.07724); all if not given",
            metavar="LOW,HIGH",
        ),
    ] = None
    guidance_rescale: Annotated[
        float | None,
        Param(
            "how far the deviation of guided predictions is brought back to the unguided ones' (arXiv 2305.08891): 0 leaves it, "
            "1 all the way; 0 if not given",
            ge=0,
            le=1,
        ),
    ] = None
    spacing: Annotated[
        SpacingName | None,
        Param("which noise levels the decoder's steps visit; the sampler's own if not given"),
    ] = None
    noise_level: Annotated[
        int | None,
        Param("noise added to the image embedding, for Stable unCLIP; 0 if not given", ge=0, le=999),
    ] = None

    def __post_init__(self) -> None:
        """Raise `RequestError` for a value out of range."""
        _check(self)


@dataclass(frozen=True, kw_only=True)
class UpsamplerSampling:
    """How one upsampler is sampled."""

    steps: _Steps = None
    sampler: _Sampler = None

    def __post_init__(self) -> None:
        """Raise `RequestError` for a value out of range."""
        _check(self)


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Settings of all stages. `upsamplers` holds one entry per upsampler in running order; the last serves further ones."""

    prior: PriorSampling = PriorSampling()
    decoder: DecoderSampling = DecoderSampling()
    upsamplers: tuple[UpsamplerSampling, ...] = ()
    random: Annotated[
        RandomName | None,
        Param("noise of a seed: one stream per stage, or one for all in the order in which diffusers draws"),
    ] = None
    fast: Annotated[
        bool | None,
        Param("few steps of a second-order solver, guidance at mid noise only; the picture differs"),
    ] = None

    def __post_init__(self) -> None:
        """Raise `RequestError` for settings that contradict each other."""
        check(self, RequestError)
        if self.random == "diffusers" and self.prior.candidates not in (None, 1):
            raise RequestError(
                f"diffusers draws one candidate, not {self.prior.candidates}: set candidates to 1"
            )

    def over(self, defaults: "Sampling") -> "Sampling":
        """Copy with every None taken from a model's `defaults`, of their fast form if `fast`."""
        return replace(self.merged(defaults.faster() if self.fast else defaults), fast=None)

    def merged(self, base: "Sampling") -> "Sampling":
        """Copy with every None taken from `base`, which may leave settings open as well."""
        count = max(len(self.upsamplers), len(base.upsamplers))
        return Sampling(
            prior=_merge(self.prior, base.prior),
            decoder=_merge(self.decoder, base.decoder),
            upsamplers=tuple(
                _merge(given, base.upsampler(index))
                for index, given in enumerate(
                    self.upsamplers + (UpsamplerSampling(),) * (count - len(self.upsamplers))
                )
            ),
            random=base.random if self.random is None else self.random,
            fast=base.fast if self.fast is None else self.fast,
        )

    def faster(self) -> "Sampling":
        """Copy with few DPM-Solver++ steps, guided only at the noise levels that decide what the picture shows.

        DPM-Solver++ (arXiv 2211.01095) and the guidance interval (arXiv 2404.07724); docs/speed.md has the cost in
        likeness. Models that take 50 steps or more, as latent ones and GLIDE do, get 10, others 6.
        """
        first, *further = self.upsamplers
        steps = settled(self.decoder.steps)
        return replace(
            self,
            prior=replace(self.prior, steps=min(settled(self.prior.steps), 10), sampler="dpmpp_2m"),
            decoder=replace(
                self.decoder,
                steps=10 if steps >= 50 else min(steps, 6),
                sampler="dpmpp_2m",
                guidance_interval=self.decoder.guidance_interval or (1.0, 20.0),
            ),
            upsamplers=(
                UpsamplerSampling(steps=min(settled(first.steps), 2), sampler="dpmpp_2m"),
                *further,
            ),
        )

    def upsampler(self, index: int) -> UpsamplerSampling:
        """Settings of the upsampler that runs as number `index`, from 0."""
        return (
            self.upsamplers[min(index, len(self.upsamplers) - 1)] if self.upsamplers else UpsamplerSampling()
        )


DEFAULTS = Sampling(
    prior=PriorSampling(kind="diffusion", steps=16, sampler="dpmpp_2m", guidance=1.0, candidates=2),
    decoder=DecoderSampling(steps=20, sampler="dpmpp_2m", guidance=2.5),
    upsamplers=(
        UpsamplerSampling(steps=5, sampler="dpmpp_2m"),
        UpsamplerSampling(steps=15, sampler="ddim"),
    ),
    random="unclip",
)
"""Defaults of models that name none."""

FLAT_NAMES: dict[str, tuple[str, ...]] = {
    "prior": ("prior", "kind"),
    "prior_steps": ("prior", "steps"),
    "prior_sampler": ("prior", "sampler"),
    "prior_guidance": ("prior", "guidance"),
    "candidates": ("prior", "candidates"),
    "steps": ("decoder", "steps"),
    "sampler": ("decoder", "sampler"),
    "guidance": ("decoder", "guidance"),
    "guidance_interval": ("decoder", "guidance_interval"),
    "guidance_rescale": ("decoder", "guidance_rescale"),
    "spacing": ("decoder", "spacing"),
    "noise_level": ("decoder", "noise_level"),
    "upsampler_steps": ("upsamplers", "0", "steps"),
    "upsampler_sampler": ("upsamplers", "0", "sampler"),
    "second_upsampler_steps": ("upsamplers", "1", "steps"),
    "second_upsampler_sampler": ("upsamplers", "1", "sampler"),
    "random": ("random",),
    "fast": ("fast",),
}
"""Short names of settings, for keyword arguments, command-line options and the formats of version 0.1."""

_HOMES: dict[str, type] = {
    "prior": PriorSampling,
    "decoder": DecoderSampling,
    "upsamplers": UpsamplerSampling,
}


def sampling(**given: Any) -> Sampling:
    """`Sampling` from short names: `sampling(steps=10, prior_steps=5)`; None is not given.

    Raises `RequestError` for an unknown name or a value out of range.
    """
    nested: dict[str, Any] = {"upsamplers": [{}, {}]}
    for name, value in given.items():
        if name not in FLAT_NAMES:
            raise RequestError(f"unknown setting {name!r}; choose from {', '.join(FLAT_NAMES)}")
        if value is None:
            continue
        *path, last = FLAT_NAMES[name]
        value = read_field(
            _HOMES.get(path[0] if path else "", Sampling), last, value, name, error=RequestError
        )
        node: Any = nested
        for key in path:
            node = node[int(key)] if isinstance(node, list) else node.setdefault(key, {})
        node[last] = value
    while nested["upsamplers"] and not nested["upsamplers"][-1]:
        nested["upsamplers"].pop()
    return from_dict(Sampling, nested, error=RequestError)


def assigned(assignments: Sequence[str]) -> Sampling:
    """`Sampling` from `name=value` texts with short names, or dotted ones such as `decoder.steps=20`.

    Raises `RequestError` for an unknown name or a value out of range.
    """
    short = {}
    dotted = []
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals or name not in FLAT_NAMES:
            dotted.append(assignment)
            continue
        try:
            short[name] = json.loads(text)
        except json.JSONDecodeError:
            short[name] = text
    try:
        return override(sampling(**short), dotted)
    except ConfigError as error:
        raise RequestError(f"{error}; short names are {', '.join(FLAT_NAMES)}") from None


def read_sampling(data: Mapping[str, Any] | Any) -> Sampling:
    """`Sampling` from JSON: nested, or the flat names of version 0.1 (model folders of format 1, pictures of format 1).

    Raises `RequestError` for an unknown key or a value of another type.
    """
    if not isinstance(data, Mapping) or not all(isinstance(name, str) for name in data):
        raise RequestError(f"sampling: expected an object with names, got {shown(data)}")
    flat = isinstance(data.get("prior"), str) or not set(data) <= {field.name for field in fields(Sampling)}
    return sampling(**of_0_1(data)) if flat else from_dict(Sampling, data, error=RequestError)


def of_0_1(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Flat settings of version 0.1 in today's names: its "euler" was DDIM, and is now a sampler with a grid of its own."""
    return {
        name: "ddim" if name.endswith("sampler") and value == "euler" else value
        for name, value in flat.items()
    }


def settled(value: T | None) -> T:
    """`value`, which `Sampling.over` has filled."""
    assert value is not None, "sampling settings must be resolved by Sampling.over first"
    return value


def _merge(given: Settings, base: Settings) -> Settings:
    values = {
        field.name: getattr(base, field.name) for field in fields(given) if getattr(given, field.name) is None
    }
    return replace(given, **values)
