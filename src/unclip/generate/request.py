"""Base of all requests: what to make, as one frozen JSON-able dataclass per operation. Imports no torch.

The command line, Python and HTTP build the same request; pictures record it. Each operation's request is defined in its
file in `unclip.generate.operations`, with what it needs of a model and how it runs.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Annotated, Any, ClassVar, NamedTuple

from unclip.config import Param, check
from unclip.errors import RequestError
from unclip.stages.sampling import DecoderSampling, Sampling

MAX_PICTURES = 10_000
MAX_PROMPT = 10_000
MAX_SEED = 2**63 - 1

Count = Annotated[int, Param("number of pictures", ge=1, le=MAX_PICTURES, metavar="N")]
Size = Annotated[
    int | tuple[int, int] | None,
    Param(
        "side of the picture in pixels, or height and width with models that draw many sizes; what the first upsampler makes, "
        "or the model's own, if not given",
        ge=1,
        le=65_536,
    ),
]
Negative = Annotated[str | None, Param("negative prompt: what guidance leads away from")]


class Sources(NamedTuple):
    """The pictures that an operation takes: their names in order, and how many are required."""

    names: tuple[str, ...] = ()
    required: int = 0
    repeated: bool = False
    """Whether the last one may be given any number of times."""

    def check(self, kind: str, count: int) -> None:
        """Raise `RequestError` for a number of pictures that the operation does not take."""
        most = math.inf if self.repeated else len(self.names)
        if not self.required <= count <= most:
            wanted = ", ".join(self.names) or "no picture"
            raise RequestError(f"{kind} takes {wanted}; {count} pictures were given")


@dataclass(frozen=True, kw_only=True)
class Request(ABC):
    """Base of all requests.

    Subclasses declare `kind: Literal["..."] = "..."`, set `sources`, and implement `needs` and `run`.
    """

    seed: Annotated[
        int | None, Param("seed; the same seed gives the same picture; drawn if not given", ge=0, le=MAX_SEED)
    ] = None
    sampling: Sampling = Sampling()

    sources: ClassVar[Sources] = Sources()
    stages: ClassVar[tuple[str, ...]] = ("decoder", "upsamplers")
    """Fields of `Sampling` that matter to the operation."""
    composite: ClassVar[bool] = False
    """Whether pixels of a given picture remain in the result, for the IPTC digital source type."""

    def __post_init__(self) -> None:
        """Raise `RequestError` for a value of another type or out of range."""
        check(self, RequestError)
        for field in fields(self):
            value = getattr(self, field.name)
            for text in value if isinstance(value, tuple) else (value,):
                if isinstance(text, str):
                    check_characters(text, field.name)

    def resolve(self, defaults: Sampling) -> Sampling:
        """Sampling with every None taken from the model's `defaults`."""
        return self.sampling.over(defaults)

    @abstractmethod
    def needs(self, sampling: Sampling) -> tuple[str, ...]:
        """Capabilities that the model must have (`Parts.capabilities`), given the resolved sampling."""

    @abstractmethod
    def run(self, session: Any, sources: Sequence[Any]) -> Iterator[Any]:
        """Pictures (`Image`) of the request, each yielded when it is finished.

        `session` is a `Session`, `sources` are `Source`s; both are above this module, which imports no torch. Raises
        `RequestError` before the first picture.
        """


INVERSION = DecoderSampling(steps=25, sampler="ddim", guidance=1.0)
"""Decoder sampling where pictures are inverted: guidance makes the path harder to walk back."""


def resolve_inversion(sampling: Sampling, defaults: Sampling) -> Sampling:
    """Sampling with `INVERSION` between what is given and the model's `defaults`.

    Raises `RequestError` for another sampler than DDIM, the only one that can be walked backwards.
    """
    if sampling.decoder.sampler not in (None, "ddim", "euler"):
        raise RequestError(
            f"sampler {sampling.decoder.sampler!r} cannot be inverted: leave it out, or give 'ddim'"
        )
    if sampling.decoder.sampler == "euler":
        # The same method, on the grid of inversions.
        sampling = replace(sampling, decoder=replace(sampling.decoder, sampler="ddim"))
    base = defaults.faster() if sampling.fast else defaults
    given = Sampling(decoder=INVERSION).over(base)
    return Sampling(
        prior=sampling.prior, decoder=sampling.decoder, upsamplers=sampling.upsamplers, random=sampling.random
    ).over(given)


def check_characters(text: str, name: str) -> None:
    """Raise `RequestError` for what is no text: zero bytes, and halves of letters."""
    if "\0" in text:
        raise RequestError(
            f"{name} holds a zero byte at character {text.index(chr(0)) + 1}, which is no text: leave it out"
        )
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RequestError(
            f"{name} holds {text[error.start]!r} at character {error.start + 1}, which is half of a pair and no text: "
            "give text in UTF-8"
        ) from None


def check_prompt(text: str, what: str = "the prompt") -> str:
    """`text` if it says something. Raises `RequestError` for an empty or far too long one."""
    if not text.strip():
        raise RequestError(f"{what} is empty: say what to draw")
    if len(text) > MAX_PROMPT:
        raise RequestError(f"{what} has {len(text)} characters: give at most {MAX_PROMPT}")
    return text


def given_text(text: str | None) -> str | None:
    """`text`, or None where it is blank."""
    return text if text and text.strip() else None


def compact(value: Any) -> Any:
    """JSON-able copy of a request without the fields that are None or empty."""
    if is_dataclass(value) and not isinstance(value, type):
        pairs = ((field.name, compact(getattr(value, field.name))) for field in fields(value))
        return {name: item for name, item in pairs if item is not None and item != {} and item != []}
    if isinstance(value, tuple | list):
        return [compact(item) for item in value]
    return value


def prior_needs(sampling: Sampling) -> tuple[str, ...]:
    """Capabilities that give the image embedding of a caption, as the resolved sampling settings choose."""
    needed = {
        "diffusion": ("text_encoder", "prior", "image_embedding"),
        "autoregressive": ("text_encoder", "prior_autoregressive", "image_embedding"),
        "text": ("text_encoder", "image_embedding"),
        "none": ("caption",),
    }
    return needed.get(sampling.prior.kind or "", ())
