"""Conditioners: what a network reads for a condition, and for the null condition that guidance leads away from.

One class per model family. A conditioner holds the network whose projections and text encoders it runs.
"""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from unclip.networks.decoder import Decoder, DecoderCondition, DecoderConfig
from unclip.networks.upsampler import Upsampler
from unclip.stages.text import Captions


@dataclass(frozen=True, eq=False)
class Condition:
    """What to draw, one row per picture. None drops that condition."""

    z_i: Float[Tensor, "b d"] | None = None
    """CLIP image embeddings."""
    captions: Captions | None = None
    negative: Captions | None = None
    """Captions that guidance leads away from, in place of no caption."""
    empty: Captions | None = None
    """The empty caption, one row, for decoders that read CLIP's text encodings (`reads_text_encodings`)."""
    z_null: Float[Tensor, "#b d"] | None = None
    """Image embeddings that guidance leads away from, for families that read them (Kandinsky)."""
    hint: Float[Tensor, "b k h w"] | None = None
    """Inpainting input, as the decoder's family lays it out: the masked picture and its mask (1 = known)."""
    low: Float[Tensor, "b 3 lh lw"] | None = None
    """Small pictures in [-1, 1], for upsamplers."""
    noise_level: int = 0
    """Level that z_i is noised to, for decoders that read it so (Stable unCLIP)."""
    z_noise: Float[Tensor, "b d"] | None = None
    """Standard normal noise for that; None takes the mean."""


class Contexts(NamedTuple):
    """What the network reads: for the condition, and for the null condition if guidance is on."""

    condition: Any
    null: Any | None


@runtime_checkable
class Conditioner(Protocol):
    """A function from a condition to the network's contexts."""

    def __call__(self, given: Any, *, guided: bool) -> Contexts:
        """Contexts of a batch (a `Condition`); `null` is None unless `guided`."""
        ...


class UnclipConditioner:
    """unCLIP's decoder: z_i projected into the time embedding and extra tokens, optionally a caption (section 2.1)."""

    def __init__(self, decoder: Decoder):
        self.decoder = decoder

    def __call__(self, given: Condition | DecoderCondition, *, guided: bool) -> Contexts:
        """Contexts of z_i and captions, or of the decoder's own condition as in training; a hint stays in both."""
        condition = given if isinstance(given, DecoderCondition) else self.read(given)
        context = self.decoder.encode(condition)
        if not guided:
            return Contexts(context, None)
        null = condition.null()
        if (
            isinstance(given, Condition)
            and given.negative is not None
            and self.decoder.config.caption is not None
        ):
            kept = torch.ones_like(null.keep_caption)
            negative = given.negative
            null = replace(null, tokens=negative.tokens, text=negative.encoding, keep_caption=kept)
        return Contexts(context, self.decoder.encode(null))

    def read(self, given: Condition) -> DecoderCondition:
        """The decoder's condition. Raises `ValueError` without an image embedding and a caption."""
        config, z_i, captions = self.decoder.config, given.z_i, given.captions
        tokens = None if captions is None else captions.tokens
        rows = z_i if z_i is not None else tokens
        if rows is None:
            raise ValueError("the decoder needs an image embedding or a caption")
        yes = torch.ones(len(rows), dtype=torch.bool, device=rows.device)
        keep_image, keep_caption = z_i is not None, tokens is not None and config.caption is not None
        if config.caption is None:
            tokens = None
        elif tokens is None:
            tokens = torch.zeros(len(rows), config.caption.context, dtype=torch.int64, device=rows.device)
        return DecoderCondition(
            image_embedding=torch.zeros(len(rows), config.embedding, device=rows.device)
            if z_i is None
            else z_i,
            tokens=tokens,
            keep_image=yes if keep_image else ~yes,
            keep_caption=yes if keep_caption else ~yes,
            hint=given.hint,
            text=None if captions is None else captions.encoding,
            empty=None if given.empty is None else given.empty.encoding,
        )


def reads_text_encodings(config: DecoderConfig) -> bool:
    """Whether a decoder reads captions as CLIP encodes them (Karlo); the empty one then stands for no caption."""
    return config.caption is not None and config.caption.tower == "clip"


class UpsamplerConditioner:
    """Upsamplers: the small picture, resized up; no guidance."""

    def __init__(self, upsampler: Upsampler):
        self.upsampler = upsampler

    def __call__(self, given: Condition, *, guided: bool) -> Contexts:
        """Context of the small pictures in `given.low`."""
        if given.low is None:
            raise ValueError("an upsampler needs small pictures")
        return Contexts(self.upsampler.condition(given.low), None)
