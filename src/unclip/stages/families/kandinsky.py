"""Kandinsky 2.1 and 2.2: latents of MoVQ under z_i, and in 2.1 under a multilingual caption too."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from unclip.diffusion.denoiser import NoiseSource, Step
from unclip.diffusion.inpainting import blended
from unclip.networks.clip import TextEncoding
from unclip.networks.kandinsky import KandinskyCondition, KandinskyDecoder
from unclip.stages.codec import Borrow, Codec, LatentCodec
from unclip.stages.conditioner import Condition, Contexts
from unclip.stages.family import Agreement, Encoders, Family, Fill
from unclip.stages.inpainting import InpaintingReference
from unclip.stages.renderer import Renderer
from unclip.stages.text import Captions


class KandinskyFamily(Family):
    """A Kandinsky decoder; its image space is the part `autoencoder`, the text encoder of 2.1 the part `text`."""

    @property
    def capabilities(self) -> frozenset[str]:
        """Neither version draws a caption without z_i."""
        return frozenset({"image_embedding", "inversion", "inpainting"})

    def codec(self, borrow: Borrow, tile: int | None = None) -> Codec:
        """Latents of the autoencoder, clamped where the scheduler's file says so."""
        assert self.autoencoder is not None, "Kandinsky has an autoencoder beside it: check_fit asks for it"
        clip = self.config.clip
        return LatentCodec(
            self.autoencoder, borrow, tile=tile, clip_range=None if clip is None else (-clip, clip)
        )

    @property
    def needs_autoencoder(self) -> bool:
        """Its state is a latent."""
        return True

    @property
    def step(self) -> int:
        """Multiples of 64: the U-Net's divisor times the autoencoder's factor."""
        return self.config.net.divisor * (self.autoencoder.factor if self.autoencoder else 8)

    @property
    def reads_empty(self) -> bool:
        """In 2.1 the empty caption stands for no caption."""
        return self.config.text is not None

    @property
    def reads_null_embedding(self) -> bool:
        """Guidance leads away from the embedding of a grey picture, or of the negative prompt."""
        return True

    def complete(self, condition: Condition, encoders: Encoders, noise: NoiseSource | None) -> Condition:
        """With the embedding of a grey picture, unless there is that of a negative prompt."""
        condition = super().complete(condition, encoders, noise)
        if condition.z_null is not None:
            return condition
        return replace(condition, z_null=encoders.embed_grey())

    def renderer(self, network: KandinskyDecoder, codec: Codec) -> Renderer:
        """Renderer on the latent's channels."""
        return Renderer(
            network=network,
            process=self.config.process.build(),
            codec=codec,
            conditioner=KandinskyConditioner(network),
            threshold=self.config.threshold,
        )

    def hint(
        self, known: InpaintingReference, state: InpaintingReference, codec: Codec, noise: NoiseSource | None
    ) -> Float[Tensor, "b k h w"] | None:
        """The latent of the whole picture without its hole, which is grown by a latent, and the mask: 1 = known."""
        if not self.config.inpainting:
            return None
        mask = shrunk(state.mask)
        return torch.cat([state.pixels * mask, mask], dim=1)

    def fill(self, renderer: Renderer, given: Fill) -> Iterator[Step]:
        """With the known latents put back after every step; in 2.1 a network that reads the hint needs none."""
        levels = given.visits.sigmas
        walk = renderer.sample(given.denoise, given.x, levels, sampler=given.sampler, noise=given.noise)
        if self.config.inpainting and self.config.text is not None:
            return walk
        mask = shrunk(given.known.mask) if self.config.inpainting else given.known.mask
        return blended(walk, levels, given.known.pixels, mask, given.z)

    @property
    def reads(self) -> frozenset[str]:
        """Priors and the autoencoder; in 2.1 the multilingual text encoder."""
        return frozenset({"prior", "autoencoder"} | (set() if self.config.text is None else {"text"}))

    @property
    def text_kind(self) -> str | None:
        """In 2.1 the multilingual encoder."""
        return "multilingual" if self.config.text is not None else None

    def agreements(self, configs: Mapping[str, Any]) -> list[Agreement]:
        """Width of embeddings, channels of the latent; width and length of captions."""
        found, config = [], self.config
        if (clip := configs.get("clip")) is not None:
            found.append(
                Agreement("decoder", "embeddings of width", config.embedding, "clip", clip.embedding)
            )
        if (autoencoder := configs.get("autoencoder")) is not None:
            channels = autoencoder.latent_channels
            found.append(
                Agreement("decoder", "latents of so many channels:", config.channels, "autoencoder", channels)
            )
        if (text := configs.get("text")) is not None and config.text is not None:
            own = config.text
            found += [
                Agreement("decoder", "text states of width", own.width, "text", text.width),
                Agreement("decoder", "text embeddings of width", own.embedding, "text", text.embedding),
                Agreement("decoder", "captions of so many tokens:", own.context, "text", text.context),
            ]
        return found


def shrunk(known: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 1 h w"]:
    """Mask of known latents without those beside the hole: left, right, above, below, and on one diagonal."""
    hole = F.pad(1 - known, (1, 1, 1, 1))
    height, width = known.shape[-2:]
    around = ((1, 1), (0, 1), (2, 1), (1, 0), (1, 2), (0, 0), (2, 2))
    near = [hole[..., top : top + height, left : left + width] for top, left in around]
    return 1 - torch.stack(near).amax(0)


class KandinskyConditioner:
    """z_i, in 2.1 beside the caption; the null condition has the grey picture's embedding, or the negative prompt's."""

    def __init__(self, decoder: KandinskyDecoder):
        self.decoder = decoder

    def __call__(self, given: Condition, *, guided: bool) -> Contexts:
        """Contexts of a batch. Raises `ValueError` without image embeddings."""
        if given.z_i is None or (guided and given.z_null is None):
            raise ValueError("this decoder needs image embeddings: take a prior, or an image encoder")
        z_i, empty = given.z_i, given.empty
        condition = KandinskyCondition(z_i, self._text(given.captions or empty, len(z_i)), given.hint)
        context = self.decoder.encode(condition)
        if not guided:
            return Contexts(context, None)
        assert given.z_null is not None
        null = replace(
            condition,
            image_embedding=given.z_null.to(z_i).expand(len(z_i), -1),
            text=self._text(given.negative or empty, len(z_i)),
        )
        return Contexts(context, self.decoder.encode(null))

    def _text(self, captions: Captions | None, rows: int) -> TextEncoding | None:
        if self.decoder.config.text is None or captions is None:
            return None
        encoding = captions.encoding if captions.own is None else captions.own
        return TextEncoding(*(field.expand(rows, *field.shape[1:]) for field in encoding))
