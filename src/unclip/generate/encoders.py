"""Encoders of a model: captions through its text towers, and pictures through CLIP's image tower."""

import logging
from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unclip.errors import NonFinite
from unclip.generate.parts import Parts
from unclip.generate.sources import Source, read_source
from unclip.images.tensors import to_image
from unclip.networks.clip import Clip
from unclip.stages.family import Encoders
from unclip.stages.finite import Watch
from unclip.stages.text import Captions, Tower, read_captions, truncation_warning
from unclip.tokenizers.reading import CaptionTokenizer

logger = logging.getLogger(__name__)


class ModelEncoders(Encoders):
    """The encoders of a model's parts, and the warnings about what they read."""

    def __init__(self, parts: Parts):
        self.parts = parts
        self.warnings: list[str] = []
        self._empty: Captions | None = None
        self._grey: Tensor | None = None

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return self.parts.device

    @torch.no_grad()
    def captions(self, prompts: Sequence[str]) -> Captions:
        """Tokens and text encodings of prompts."""
        read: list[Captions] = []
        for name in self.parts.text_towers:
            pad = getattr(self.parts.config(name), "pad", 0)
            with self.parts.lend(name, nn.Module, only="text" if name == "clip" else "") as tower:
                tokenizer = self.parts.tokenizer_of(name)
                read.append(read_captions(cast(Tower, tower), tokenizer, prompts, self.device, pad))
            for field in read[-1].encoding:
                self.require_finite(field, name, "text")
        return (
            read[0] if self.parts.text_towers[-1:] != ("text",) else read[0]._replace(own=read[-1].encoding)
        )

    @property
    def empty_caption(self) -> Captions:
        """Encoding of the empty caption, one row; read once."""
        if self._empty is None:
            self._empty = self.captions([""])
        return self._empty

    def warn_if_truncated(self, *prompts: str | None) -> None:
        """Record a warning for each prompt that is longer than the model's context."""
        for warning in self.truncations(*prompts):
            self.warn(warning)

    def warn(self, warning: str) -> None:
        """Record a warning, which the pictures carry."""
        logger.warning(warning)
        self.warnings.append(warning)

    def truncations(self, *prompts: str | None) -> list[str]:
        """Warning for each prompt that is longer than the context of a network that reads it."""
        found = [
            truncation_warning(tokenizer, prompt, context)
            for prompt in prompts
            if prompt
            for tokenizer, context in self.readers()
        ]
        return list(dict.fromkeys(warning for warning in found if warning is not None))

    def readers(self) -> list[tuple[CaptionTokenizer, int]]:
        """Tokenizer and context of each text tower; the decoder's own may have others than CLIP."""
        found = [self.parts.tokenizer_of(name) for name in self.parts.text_towers]
        return [(tokenizer, tokenizer.context) for tokenizer in found]

    @torch.no_grad()
    def embed_text(self, prompts: Sequence[str]) -> Float[Tensor, "b d"]:
        """CLIP text embeddings z_t, on the model's device."""
        return self.captions(prompts).encoding.embedding

    @torch.no_grad()
    def embed_images(self, sources: Sequence[Source]) -> Float[Tensor, "b d"]:
        """CLIP image embeddings z_i, on the model's device; pictures are cropped to their middle square and resized, as its tower has it."""
        tower = self.parts.config("clip").vision
        whole = tower.resize == "squash"
        with self.parts.lend("clip", Clip, only="vision") as clip:
            pixels = (
                source.square(tower.size, whole=whole, interpolation=tower.interpolation).to(self.device)
                for source in sources
            )
            z_i = torch.cat([clip.encode_image(one[None]) for one in pixels])
        self.require_finite(z_i, "clip", "image")
        return z_i

    @torch.no_grad()
    def embed_pixels(self, pixels: Float[Tensor, "3 s s"]) -> Float[Tensor, "1 d"]:
        """CLIP image embedding of a square in [-1, 1], rounded to 8 bits as a saved picture is."""
        return self.embed_images([read_source(to_image(pixels))])

    def embed_grey(self) -> Float[Tensor, "1 d"]:
        """CLIP image embedding of a picture of its mean colour, which it sees as zeros; computed once."""
        if self._grey is None:
            vision = self.parts.config("clip").vision
            colour = torch.tensor(vision.mean, device=self.device)[:, None, None]
            with torch.no_grad(), self.parts.lend("clip", Clip, only="vision") as clip:
                self._grey = clip.encode_image((2 * colour - 1).expand(1, -1, vision.size, vision.size))
            self.require_finite(self._grey, "clip", "image")
        return self._grey

    def require_finite(self, state: Tensor, part: str, stage: str, watch: Watch | None = None) -> None:
        """Raise `NonFinite` where the last state of a stage, or an answer of its network, is not finite."""
        if bool(torch.isfinite(state).all()) and (watch is None or watch.finite):
            return
        dtype = str(self.parts.dtype).removeprefix("torch.")
        remedy = "get the model again" if dtype == "float32" else f"compute in float32 in place of {dtype}"
        raise NonFinite(
            f"the {part} of {self.parts.name!r} gave NaN or infinite numbers in the stage {stage!r}, which are no picture: its "
            f"weights are damaged, or settings such as guidance too extreme; {remedy}"
        )
