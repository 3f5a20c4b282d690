"""unCLIP's decoder and Karlo's: z_i and a caption, in pixels, or in latents where the model has an autoencoder."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from unclip.diffusion.denoiser import NoiseSource, Step
from unclip.diffusion.inpainting import repaint
from unclip.errors import Unsupported
from unclip.networks.decoder import Decoder
from unclip.stages.codec import Borrow, Codec, LatentCodec, PixelCodec
from unclip.stages.conditioner import reads_text_encodings
from unclip.stages.family import Agreement, Family, Fill
from unclip.stages.inpainting import InpaintingReference
from unclip.stages.renderer import Renderer, decoder_renderer

RESAMPLINGS = 5
"""RePaint walks per step, for decoders that were not trained to inpaint."""


class UnclipFamily(Family):
    """One kind of decoder: z_i in the time embedding and in tokens."""

    @property
    def capabilities(self) -> frozenset[str]:
        """Known pixels and DDIM inversion work with every decoder; a network trained to inpaint reads them as well."""
        caption = {"caption"} if self.config.caption is not None else set()
        return frozenset({"image_embedding", "inversion", "inpainting"} | caption)

    @property
    def reads_empty(self) -> bool:
        """Decoders that read CLIP's text encodings (Karlo)."""
        return reads_text_encodings(self.config)

    def codec(self, borrow: Borrow, tile: int | None = None) -> Codec:
        """Pixels, or latents where there is an autoencoder."""
        if self.autoencoder is not None:
            return LatentCodec(self.autoencoder, borrow, tile=tile)
        if not self._draws_pixels:
            raise Unsupported(
                "the model has no autoencoder, and its decoder draws latents: bundle it with the autoencoder that it was "
                "trained with"
            )
        return PixelCodec()

    def renderer(self, network: Decoder, codec: Codec) -> Renderer:
        """`decoder_renderer`."""
        return decoder_renderer(network, codec)

    @property
    def walks(self) -> int:
        """One for a decoder trained to inpaint."""
        return 1 if self.config.inpainting else RESAMPLINGS

    def hint(
        self, known: InpaintingReference, state: InpaintingReference, codec: Codec, noise: NoiseSource | None
    ) -> Float[Tensor, "b k h w"] | None:
        """The masked state and its mask, 1 where it is known."""
        return torch.cat([state.pixels * state.mask, state.mask], dim=1) if self.config.inpainting else None

    def fill(self, renderer: Renderer, given: Fill) -> Iterator[Step]:
        """With known pixels in every estimate for a decoder trained to inpaint, else RePaint."""
        levels = given.visits.sigmas
        if self.config.inpainting:
            kept = given.known.kept_until_last(given.denoise, levels)
            return renderer.sample(kept, given.x, levels, sampler=given.sampler, noise=given.noise)
        return repaint(
            given.denoise,
            given.x,
            levels,
            given.known.pixels,
            given.known.mask,
            noise=given.noise,
            resamplings=RESAMPLINGS,
        )

    @property
    def reads(self) -> frozenset[str]:
        """Priors, and the autoencoder where it draws latents."""
        return frozenset({"prior"} if self._draws_pixels else {"prior", "autoencoder"})

    @property
    def _draws_pixels(self) -> bool:
        return self.config.factor == 1 and self.config.channels == 3

    def agreements(self, configs: Mapping[str, Any]) -> list[Agreement]:
        """Width of embeddings, vocabulary and length of captions; channels of the latent."""
        found, config = [], self.config
        if (autoencoder := configs.get("autoencoder")) is not None:
            channels, factor = autoencoder.latent_channels, autoencoder.factor
            found += [
                Agreement(
                    "decoder", "latents of so many channels:", config.channels, "autoencoder", channels
                ),
                Agreement("decoder", "latents reduced by", config.factor, "autoencoder", factor),
            ]
        if (clip := configs.get("clip")) is not None:
            found.append(
                Agreement("decoder", "embeddings of width", config.embedding, "clip", clip.embedding)
            )
            if config.caption is not None:
                caption, text = config.caption, clip.text
                found += [
                    Agreement("decoder", "a vocabulary of", caption.vocabulary, "clip", text.vocabulary),
                    Agreement(
                        "decoder", "captions of so many tokens:", caption.context, "clip", text.context
                    ),
                ]
        return found
