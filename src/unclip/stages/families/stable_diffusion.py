"""Stable Diffusion 1 and 2, and Stable unCLIP: latents under the states of a text tower, and under z_i where it reads one."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from unclip.diffusion.denoiser import NoiseSource, Step
from unclip.diffusion.inpainting import blended
from unclip.networks.text_decoder import TextDecoder, TextDecoderContext
from unclip.stages.codec import Borrow, Codec, LatentCodec
from unclip.stages.conditioner import Condition, Contexts
from unclip.stages.family import Agreement, Encoders, Family, Fill
from unclip.stages.inpainting import InpaintingReference
from unclip.stages.renderer import Renderer


class StableDiffusionFamily(Family):
    """A text decoder; its text tower is the part `text`, its image space the part `autoencoder`."""

    @property
    def capabilities(self) -> frozenset[str]:
        """A caption without z_i always works: Stable unCLIP was trained with z_i left out, too."""
        embedding = set() if self.config.embedding is None else {"image_embedding"}
        return frozenset({"caption", "inversion", "inpainting"} | embedding)

    def codec(self, borrow: Borrow, tile: int | None = None) -> Codec:
        """Latents of the autoencoder."""
        assert self.autoencoder is not None, (
            "a text decoder has an autoencoder beside it: check_fit asks for it"
        )
        limit = self.config.clip_range
        bounds = None if limit is None else (-limit, limit)
        return LatentCodec(self.autoencoder, borrow, tile=tile, clip_range=bounds)

    @property
    def needs_autoencoder(self) -> bool:
        """Its state is a latent."""
        return True

    @property
    def step(self) -> int:
        """Multiples of 8 where the U-Net pads nothing: its own divisor times the autoencoder's factor."""
        return self.config.net.divisor * self.autoencoder.factor if self.autoencoder else 8

    @property
    def reads_empty(self) -> bool:
        """The empty caption stands for no caption."""
        return True

    @property
    def noise_levels(self) -> int:
        """Those of Stable unCLIP."""
        return 1 if self.config.embedding is None else self.config.noise_levels

    def complete(self, condition: Condition, encoders: Encoders, noise: NoiseSource | None) -> Condition:
        """With the empty caption, and the noise that z_i is shifted by."""
        condition = super().complete(condition, encoders, noise)
        if condition.z_i is None or noise is None or self.config.embedding is None:
            return condition
        return replace(condition, z_noise=noise.normal(self.config.embedding).to(condition.z_i))

    def renderer(self, network: TextDecoder, codec: Codec) -> Renderer:
        """Renderer on the latent's channels."""
        return Renderer(
            network=network,
            process=self.config.process.build(),
            codec=codec,
            conditioner=TextConditioner(network),
        )

    @property
    def keeps_state(self) -> bool:
        """Unless the network reads the known part itself."""
        return not self.config.inpainting

    def hint(
        self, known: InpaintingReference, state: InpaintingReference, codec: Codec, noise: NoiseSource | None
    ) -> Float[Tensor, "b k h w"] | None:
        """The mask, 1 where to draw, and the latent of the picture with its hole in mid-grey."""
        if not self.config.inpainting:
            return None
        return torch.cat([1 - state.mask, codec.encode(known.pixels * known.mask, noise)], dim=1)

    def fill(self, renderer: Renderer, given: Fill) -> Iterator[Step]:
        """Plain sampling for a network that reads the hint, else with the known latents put back after every step."""
        if self.config.inpainting:
            return renderer.sample(
                given.denoise, given.x, given.visits.sigmas, sampler=given.sampler, noise=given.noise
            )
        walk = renderer.sample(
            given.denoise, given.x, given.visits.sigmas, sampler=given.sampler, noise=given.noise
        )
        return blended(walk, given.visits.sigmas, given.known.pixels, given.known.mask, given.z)

    @property
    def reads(self) -> frozenset[str]:
        """The text tower and the autoencoder; priors where it reads z_i."""
        return frozenset({"text", "autoencoder"} | (set() if self.config.embedding is None else {"prior"}))

    @property
    def text_kind(self) -> str:
        """CLIP's text tower."""
        return "text_encoder"

    def agreements(self, configs: Mapping[str, Any]) -> list[Agreement]:
        """Width and length of captions, channels of the latent, width of embeddings."""
        found, config = [], self.config
        if (text := configs.get("text")) is not None:
            found += [
                Agreement("decoder", "text states of width", config.net.context_width, "text", text.width),
                Agreement("decoder", "captions of so many tokens:", config.context, "text", text.context),
            ]
        if (clip := configs.get("clip")) is not None and config.embedding is not None:
            found.append(
                Agreement("decoder", "embeddings of width", config.embedding, "clip", clip.embedding)
            )
        if (autoencoder := configs.get("autoencoder")) is not None:
            channels = autoencoder.latent_channels
            found.append(
                Agreement("decoder", "latents of so many channels:", config.channels, "autoencoder", channels)
            )
        return found


class TextConditioner:
    """States of the captions, or of the empty one; the null condition has the negative captions' and no z_i."""

    def __init__(self, decoder: TextDecoder):
        self.decoder = decoder

    def __call__(self, given: Condition, *, guided: bool) -> Contexts:
        """Contexts of a batch. Raises `ValueError` without captions and without the empty one."""
        captions = given.captions or given.empty
        if captions is None or given.empty is None:
            raise ValueError("this decoder reads captions: give some, and the empty one")
        rows = len(captions.tokens) if given.z_i is None else len(given.z_i)
        rows = rows if given.hint is None else max(rows, len(given.hint))
        context = self._context(captions.states, rows, self._vector(given, rows), given.hint)
        if not guided:
            return Contexts(self.decoder.encode(context), None)
        away = given.negative or given.empty
        nothing = None if context.vector is None else torch.zeros_like(context.vector)
        null = self._context(away.states, rows, nothing, given.hint)
        return Contexts(self.decoder.encode(context), self.decoder.encode(null))

    def _vector(self, given: Condition, rows: int) -> Tensor | None:
        width = self.decoder.config.embedding
        if width is None:
            return None
        if given.z_i is None:
            tokens = given.captions or given.empty
            assert tokens is not None
            return torch.zeros(rows, 2 * width, device=tokens.tokens.device)
        return self.decoder.vector(given.z_i, given.noise_level, given.z_noise)

    def _context(
        self, states: Tensor, rows: int, vector: Tensor | None, hint: Tensor | None
    ) -> TextDecoderContext:
        tokens = states.expand(rows, -1, -1) if len(states) == 1 else states
        hint = hint.expand(rows, -1, -1, -1) if hint is not None and len(hint) == 1 else hint
        return TextDecoderContext(tokens=tokens, vector=vector, hint=hint)
