"""Base of model families: what a kind of decoder reads, in which space it draws, and how it is sampled.

A family is one class in `unclip.stages.families` and one row of its registry; `docs/howto/add-a-format.md` has the steps.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from jaxtyping import Float
from torch import Tensor

from unclip.diffusion.conventions import PublicSpacing, Visits
from unclip.diffusion.denoiser import Denoiser, NoiseSource, Step
from unclip.stages.codec import Borrow, Codec, PixelCodec
from unclip.stages.conditioner import Condition
from unclip.stages.inpainting import InpaintingReference
from unclip.stages.renderer import Renderer
from unclip.stages.text import Captions


class Encoders(ABC):
    """What a family may ask of the encoders of a model (`StageRunner`)."""

    @property
    @abstractmethod
    def empty_caption(self) -> Captions:
        """The empty caption, one row."""

    @abstractmethod
    def embed_grey(self) -> Float[Tensor, "1 d"]:
        """Image embedding of a picture of CLIP's mean colour, which it sees as zeros."""

    @abstractmethod
    def embed_pixels(self, pixels: Float[Tensor, "3 s s"]) -> Float[Tensor, "1 d"]:
        """Image embedding of a square in [-1, 1]."""


class Agreement(NamedTuple):
    """Two parts that must agree in a number: what `reader` reads, and what `source` gives."""

    reader: str
    what: str
    needed: int
    source: str
    given: int


class Fill(NamedTuple):
    """One walk of inpainting in the state's space."""

    denoise: Denoiser
    x: Float[Tensor, "b c h w"]
    """State at the first level."""
    z: Float[Tensor, "b c h w"]
    """Standard normal noise that `x` was made with."""
    visits: Visits
    known: InpaintingReference
    sampler: str
    noise: NoiseSource


class Family(ABC):
    """One kind of decoder in a model with its config, and the config of the autoencoder beside it, if there is one."""

    def __init__(self, config: Any, autoencoder: Any | None = None):
        self.config, self.autoencoder = config, autoencoder

    @property
    @abstractmethod
    def capabilities(self) -> frozenset[str]:
        """What the decoder can do, in the words of `Request.needs`.

        "image_embedding" (it reads z_i), "caption" (it draws a caption without z_i), "inversion", "inpainting".
        """

    @abstractmethod
    def renderer(self, network: Any, codec: Codec) -> Renderer:
        """Renderer of the decoder's network."""

    def codec(self, borrow: Borrow, tile: int | None = None) -> Codec:
        """Image space of the decoder's state. `borrow` lends the autoencoder, `tile` bounds what it decodes at once."""
        return PixelCodec()

    @property
    def needs_autoencoder(self) -> bool:
        """Whether the decoder's state is a latent, which only an autoencoder makes a picture of."""
        return False

    @property
    def step(self) -> int | None:
        """Number that the sides of pictures are multiples of; None for a decoder of one size."""
        return None

    @property
    def reads_empty(self) -> bool:
        """Whether the decoder needs the empty caption's encoding."""
        return False

    @property
    def reads_prompts(self) -> bool:
        """Whether the decoder's own network encodes captions: it has `encode_text`."""
        return False

    @property
    def reads_null_embedding(self) -> bool:
        """Whether guidance leads away from an image embedding, which a negative prompt has to be turned into."""
        return False

    def complete(self, condition: Condition, encoders: Encoders, noise: NoiseSource | None) -> Condition:
        """The condition with all that the decoder reads besides what was asked for.

        `noise` is the decoder's stream, before the first state is drawn; None for an inversion and the way back, which
        see the mean of whatever is random.
        """
        if condition.empty is None and self.reads_empty:
            return replace(condition, empty=encoders.empty_caption)
        return condition

    def visits(self, sampler: str, steps: int, spacing: PublicSpacing | None = None) -> Visits:
        """Noise levels of so many steps of a sampler. Raises `ValueError` for a spacing that it cannot use."""
        process = self.config.process.build()
        if (grid := getattr(self.config, "grid", None)) is not None:
            return grid.visits(process.table, sampler, steps, spacing)
        return Visits(process.grid(steps, "respaced" if spacing == "linspace" else spacing))

    @property
    def noise_levels(self) -> int:
        """Number of levels that z_i can be noised to (`noise_level`), the first of which is none; 1 for decoders without."""
        return 1

    # Inpainting

    @property
    def walks(self) -> int:
        """Walks over every step of `fill`, for progress."""
        return 1

    @property
    def keeps_state(self) -> bool:
        """Whether `fill` puts the known state back; else only its mask is read."""
        return True

    def hint(
        self, known: InpaintingReference, state: InpaintingReference, codec: Codec, noise: NoiseSource | None
    ) -> Float[Tensor, "b k h w"] | None:
        """What the network reads of the known part, as pixels and as state; None for one that reads nothing."""
        return None

    @abstractmethod
    def fill(self, renderer: Renderer, given: Fill) -> Iterator[Step]:
        """Steps of inpainting from noise, or from a noised draft."""

    # Parts that fit

    @property
    @abstractmethod
    def reads(self) -> frozenset[str]:
        """Roles of the parts that the decoder reads, or whose output it reads: "prior", "text", "autoencoder"."""

    @property
    def text_kind(self) -> str | None:
        """Kind of the text tower that the decoder reads (the part "text"); None where it reads none."""
        return None

    def agreements(self, configs: Mapping[str, Any]) -> list[Agreement]:
        """Numbers in which the decoder and other parts must agree; `configs` are those of the parts that are there."""
        return []
