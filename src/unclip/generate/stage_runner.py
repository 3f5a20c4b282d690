"""Stages of a model run with the sampling settings of one request, each step reported to the callback."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unclip.diffusion import paths
from unclip.diffusion.conventions import Visits
from unclip.diffusion.denoiser import NoiseSource, Step
from unclip.errors import RequestError, Unsupported
from unclip.generate.encoders import ModelEncoders
from unclip.generate.parts import Parts
from unclip.generate.progress import Callback, Reporter
from unclip.generate.sources import Source
from unclip.images.tensors import to_tensor
from unclip.networks.glide import GlideUpsampler, GlideUpsamplerConfig
from unclip.networks.prior_autoregressive import AutoregressivePrior
from unclip.networks.prior_diffusion import EmbeddingDiffusion
from unclip.networks.upsampler import Upsampler
from unclip.rng import derive
from unclip.stages.cascade import Link, route
from unclip.stages.conditioner import Condition
from unclip.stages.extent import Extent, Sides
from unclip.stages.families.glide import glide_upsampler_renderer, known_hint
from unclip.stages.finite import Watch
from unclip.stages.inpainting import InpaintingReference
from unclip.stages.noise import Seeds
from unclip.stages.prior import choose, prior_condition, sample_autoregressive_prior, sample_diffusion_prior
from unclip.stages.renderer import Renderer, inversion_grid, upsampler_renderer
from unclip.stages.sampling import Sampling, settled
from unclip.stages.space import Basis
from unclip.stages.text import Captions
from unclip.tokenizers.reading import CaptionTokenizer

logger = logging.getLogger(__name__)

INVERSION_ITERATIONS = 2
"""Decoder calls per step of an inversion (`unclip.diffusion.paths.invert`)."""


class Inversion(NamedTuple):
    """(z_i, x_T), the paper's bipartite latent: z_i holds what CLIP sees, x_T all that is left, as N(0, I) noise.

    z_i is None for a decoder that reads no image embedding. x_T has the channels and the size of the decoder's state.
    """

    z_i: Float[Tensor, " d"] | None
    x_T: Float[Tensor, "c sh sw"]


class StageRunner(ModelEncoders):
    """The stages of a model with resolved sampling settings: text, prior, decoder, upsamplers."""

    def __init__(
        self,
        parts: Parts,
        sampling: Sampling,
        *,
        seed: int,
        on_progress: Callback | None = None,
        batch_size: int | None = None,
    ):
        if batch_size is not None and batch_size < 1:
            raise RequestError(f"batch_size is {batch_size}: give 1 or more")
        super().__init__(parts)
        self.sampling, self.seed = sampling, seed
        # Rounding depends on the batch, and the CPU gains little from large ones: alone, a picture is always the same.
        self.batch_size = batch_size or (1 if parts.device.type == "cpu" else 4)
        self._callback = on_progress
        self._reporter: Reporter | None = None

    def batches(self, count: int) -> list[range]:
        """Indices of `count` pictures, in batches."""
        return [
            range(first, min(first + self.batch_size, count)) for first in range(0, count, self.batch_size)
        ]

    def begin(self, *, once: int = 0, each: int, pictures: int, batched: bool = True) -> None:
        """Start counting steps: `once` for the whole call, `each` per batch (or per picture)."""
        rounds = len(self.batches(pictures)) if batched else pictures
        self._reporter = Reporter(self._callback, once + each * rounds, pictures)

    @property
    def prior_steps(self) -> int:
        """Steps of the prior that the sampling settings ask for; the autoregressive prior's are its own."""
        kind = self.sampling.prior.kind
        if kind == "autoregressive":
            return self.parts.config("prior_autoregressive").dimensions
        return settled(self.sampling.prior.steps) if kind == "diffusion" else 0

    @property
    def inversion_steps(self) -> int:
        """Steps of an inversion, and of the way back."""
        process = self.parts.config("decoder").process.build()
        return len(inversion_grid(process, settled(self.sampling.decoder.steps))) - 1

    def extent(self, size: Sides | None = None) -> Extent:
        """Extent that the decoder draws at for pictures of `size`: its own, or `size` where it is not bound to one."""
        return Extent.of(self.parts.sizes[0] if size is None or self.parts.step is None else size)

    def route(self, size: Sides) -> list[Link]:
        """Upsamplers from the decoder's size to `size`; none where the decoder is not bound to one size."""
        return route(self.parts.sizes[0], size, self.parts.cascade) if isinstance(size, int) else []

    def cascade_steps(self, links: Sequence[Link]) -> int:
        """Steps of some upsamplers."""
        return sum(settled(self.sampling.upsampler(link.index).steps) for link in links)

    def visits(self, strength: float = 1.0) -> Visits:
        """Noise levels of the decoder's steps; `strength` below 1 keeps the last ones, for starting from a picture.

        Raises `RequestError` for steps or a spacing that the decoder's table does not have.
        """
        settings = self.sampling.decoder
        try:
            visits = self.parts.family.visits(
                settled(settings.sampler), settled(settings.steps), settings.spacing
            )
        except ValueError as error:
            raise RequestError(str(error)) from None
        if strength == 1:
            return visits
        return visits._replace(sigmas=paths.truncate(visits.sigmas, strength), unit_start=True)

    def decoder_grid(self, strength: float = 1.0) -> Float[Tensor, " levels"]:
        """`visits` without what goes with the levels."""
        return self.visits(strength).sigmas

    # Embeddings

    def readers(self) -> list[tuple[CaptionTokenizer, int]]:
        """As `ModelEncoders.readers`, and what the prior reads: LAION's cuts what its CLIP has read."""
        found = super().readers()
        if self.sampling.prior.kind == "diffusion" and "prior" in self.parts.names:
            found.append((self.parts.tokenizer_of("clip"), self.parts.config("prior").context))
        return found

    def pixels(self, source: Source) -> Float[Tensor, "3 h w"]:
        """Pixels of a given picture in [-1, 1], on the CPU; transparent ones show white."""
        return to_tensor(source.image)

    def sample_embeddings(
        self, captions: Captions, seeds: Seeds, negative: Captions | None = None, first: int = 0
    ) -> tuple[Float[Tensor, "b d"] | None, Float[Tensor, "b d"] | None]:
        """Image embeddings of captions and of what the decoder's guidance leads away from.

        The latter are those of the negative captions, for families that read them; else None.
        """
        if negative is None or not self.parts.family.reads_null_embedding:
            return self.sample_prior(captions, seeds, negative, first), None
        if self.sampling.prior.kind == "autoregressive":
            away = Seeds([derive(seed, "negative prompt") for seed in seeds.values], device=self.device)
            z_null = self.sample_prior(negative, away, negative, first)
            return self.sample_prior(captions, seeds, negative, first), z_null
        noise = seeds.prior_pairs(settled(self.sampling.prior.candidates))
        both = self.sample_prior(captions.join(negative), seeds, negative.join(negative), first, noise=noise)
        if both is None:
            return None, None
        z_i, z_null = both.chunk(2)
        return z_i, z_null

    @torch.no_grad()
    def sample_prior(
        self,
        captions: Captions,
        seeds: Seeds,
        negative: Captions | None = None,
        first: int = 0,
        *,
        noise: NoiseSource | None = None,
    ) -> Float[Tensor, "b d"] | None:
        """Image embedding of each caption, from the source that the sampling settings name; None for no embedding.

        `noise` takes the place of the diffusion prior's noise.
        """
        settings = self.sampling.prior
        if settings.kind == "none":
            return None
        if settings.kind == "text":
            return captions.encoding.embedding
        candidates, guidance, watch = settled(settings.candidates), settled(settings.guidance), Watch()
        if settings.kind == "diffusion" and negative is None and self.parts.config("prior").null == "empty":
            negative = self.empty_caption.take([0] * len(captions.tokens))
        condition = prior_condition(captions, candidates)
        null = None if negative is None else prior_condition(negative, candidates)
        self._begin("prior", len(captions.tokens), first, self.prior_steps)
        if settings.kind == "autoregressive":
            streams = seeds.prior_streams(candidates)
            with self.parts.lend("prior_autoregressive", AutoregressivePrior) as prior:
                steps = sample_autoregressive_prior(
                    prior, condition, streams, guidance=guidance, null=null, watch=watch
                )
                samples = self._follow(steps, "prior", self.prior_steps, first).float()
                samples = prior.unstandardise(samples)
            self.require_finite(samples, "prior_autoregressive", "prior", watch)
        else:
            with self.parts.lend("prior", EmbeddingDiffusion) as prior:
                steps = sample_diffusion_prior(
                    prior,
                    condition,
                    seeds.prior(candidates) if noise is None else noise,
                    steps=self.prior_steps,
                    sampler=settled(settings.sampler),
                    guidance=guidance,
                    null=null,
                    watch=watch,
                )
                samples = self._follow(steps, "prior", self.prior_steps, first).float()
                samples = prior.unstandardise(samples)
            self.require_finite(samples, "prior", "prior", watch)
        return choose(self.parts.space.project(samples), captions.encoding.embedding)

    @torch.no_grad()
    def basis(self, sources: Sequence[Source]) -> Basis:
        """Principal components of the embeddings of pictures, or of the autoregressive prior where none are given."""
        if sources:
            return Basis.of(self.embed_images(sources).cpu())
        with self.parts.lend("prior_autoregressive", AutoregressivePrior) as prior:
            return Basis(prior.codes.mean.float().cpu(), prior.codes.components.float().cpu())

    # Decoder

    def seeds(self, seeds: Sequence[int]) -> Seeds:
        """Noise streams of a batch."""
        return Seeds(seeds, settled(self.sampling.random), self.device)

    def streams(self, seed: int) -> Seeds:
        """Noise streams of one picture for what starts from a picture.

        A stream per stage whatever the settings say, but in latents: diffusers' pipelines start there from pictures, too.
        """
        return self.seeds([seed]) if self.parts.codec.factor > 1 else Seeds([seed], device=self.device)

    def derived_seed(self, *purpose: int | str) -> int:
        """Seed of a part of the picture, such as a tile."""
        return derive(self.seed, *purpose)

    def complete(self, condition: Condition, noise: NoiseSource | None = None) -> Condition:
        """Condition with all that the decoder's family reads; `noise` is the decoder's stream (see `Family.complete`)."""
        level = self.sampling.decoder.noise_level or 0
        if level and condition.z_i is None:
            raise RequestError(
                "noise_level is noise of the image embedding, and there is none in this request: leave it out"
            )
        return self.parts.family.complete(replace(condition, noise_level=level), self, noise)

    def _noise(self, renderer: Renderer, noise: NoiseSource, visits: Visits, extent: Extent) -> Tensor:
        """State of pure noise at the first level."""
        x = renderer.noise_state(noise, visits.sigmas[0], extent.height, extent.width, self.device)
        return x if visits.unit_start else paths.start_noise(x, visits.sigmas[0]) * float(visits.sigmas[0])

    @torch.no_grad()
    def decode(
        self,
        condition: Condition,
        seeds: Seeds,
        *,
        x_T: Float[Tensor, "b c sh sw"] | None = None,
        eta: float = 0.0,
        start: Float[Tensor, "b 3 sh_in sw_in"] | None = None,
        strength: float = 1.0,
        size: Sides | None = None,
        first: int = 0,
    ) -> Float[Tensor, "b 3 h w"]:
        """Small pictures in [-1, 1]; of a decoder that is not bound to one size, those of `size`.

        From noise; or from `x_T` by DDIM with `eta`; or from the pictures `start` with noise added, of which
        `strength` is redrawn.
        """
        settings, codec = self.sampling.decoder, self.parts.codec
        noise = seeds.stage("decoder")
        condition = self.complete(condition, None if x_T is not None else noise)
        # Before the decoder is in memory.
        begun = None if start is None else self.encoded(start, self._posterior(noise), first)
        total = self.inversion_steps if x_T is not None else len(self.decoder_grid(strength)) - 1
        self._begin("decoder", len(seeds), first, total)
        with self.parts.lend("decoder", nn.Module) as decoder:
            renderer = self.parts.family.renderer(decoder, codec)
            if x_T is not None:
                renderer = renderer.for_inversion()
                visits = Visits(renderer.inversion_grid(settled(settings.steps)))
                x = paths.start(x_T.to(self.device), visits.sigmas[0])
                sampler, options = "ddim", {"eta": eta}
            else:
                visits, sampler, options = self.visits(strength), settled(settings.sampler), {}
                if begun is None:
                    x = self._noise(renderer, noise, visits, self.extent(size))
                else:
                    x = paths.noised(begun, visits.sigmas[0], noise)
            denoise = renderer.denoiser(
                condition,
                guidance=settled(settings.guidance),
                interval=settings.guidance_interval,
                rescale=settings.guidance_rescale or 0.0,
                labelling=visits.labelling,
            )
            walk = renderer.sample(denoise, x, visits.sigmas, sampler=sampler, noise=noise, **options)
            state = self._follow(walk, "decoder", len(visits.sigmas) - 1, first, renderer.codec)
            self.require_finite(state, "decoder", "decoder", renderer.watch)
            state = renderer.finished(state, visits.sigmas[-1])
        return self.decoded(state, first)

    def encoded(
        self, pixels: Float[Tensor, "b 3 h w"], noise: NoiseSource | None = None, first: int = 0
    ) -> Float[Tensor, "b c sh sw"]:
        """States of pictures in [-1, 1], on the model's device; a sample of them with `noise`."""
        self._begin("encoding latents", len(pixels), first)
        state = self.parts.codec.encode(pixels.to(self.device), noise)
        if self.parts.codec.factor > 1:
            self.require_finite(state, "autoencoder", "encoding")
        return state

    def decoded(self, state: Float[Tensor, "b c sh sw"], first: int = 0) -> Float[Tensor, "b 3 h w"]:
        """Pictures in [-1, 1] of the decoder's states. Raises `NonFinite` for an autoencoder that gives none."""
        codec, reporter = self.parts.codec, self._reporting(1)
        if codec.factor == 1:
            return codec.decode(state)
        total = codec.passes(*(side * codec.factor for side in state.shape[-2:]))
        self._begin("decoding latents", len(state), first, total)
        done = iter(range(1, total + 1))

        def finished() -> None:
            reporter.done += 1
            reporter.report("decoding latents", next(done), total, first, state)

        pixels = codec.decode(state, finished)
        self.require_finite(pixels, "autoencoder", "decoder")
        return pixels

    def decoding_steps(self, extent: Extent) -> int:
        """Steps of decoding one batch of states of pictures of so many pixels."""
        return self.parts.codec.passes(*extent)

    def _posterior(self, noise: NoiseSource) -> NoiseSource | None:
        """Noise of an autoencoder's posterior: none, or where diffusers' draws are followed, the stream it draws from."""
        return noise if settled(self.sampling.random) == "diffusers" else None

    @torch.no_grad()
    def invert(self, source: Source, size: Sides | None = None, first: int = 0) -> Inversion:
        """z_i by CLIP where the decoder reads it, then x_T by walking DDIM up from the picture; on the model's device.

        x_T is of the size that the decoder draws pictures of `size` at.
        """
        reads = "image_embedding" in self.parts.capabilities
        z_i = self.embed_images([source]) if reads else None
        settings, condition = self.sampling.decoder, self.complete(Condition(z_i=z_i))
        x0 = self.encoded(source.middle(self.extent(size))[None], first=first)
        self._begin("inversion", 1, first, self.inversion_steps)
        with self.parts.lend("decoder", nn.Module) as decoder:
            renderer = self.parts.family.renderer(decoder, self.parts.codec).for_inversion()
            grid = renderer.inversion_grid(settled(settings.steps))
            denoise = renderer.denoiser(
                condition,
                guidance=settled(settings.guidance),
                interval=settings.guidance_interval,
                rescale=settings.guidance_rescale or 0.0,
            )
            walk = paths.invert(denoise, x0, grid, iterations=INVERSION_ITERATIONS)
            top = self._follow(walk, "inversion", len(grid) - 1, first, renderer.codec)
            self.require_finite(top, "decoder", "inversion", renderer.watch)
        return Inversion(None if z_i is None else z_i[0], paths.start_noise(top, grid[0])[0])

    # Upsamplers

    @torch.no_grad()
    def enlarge(
        self,
        pixels: Float[Tensor, "b 3 h w"],
        seeds: Seeds,
        size: Sides,
        *,
        known: InpaintingReference | None = None,
        captions: Captions | None = None,
        first: int = 0,
    ) -> Float[Tensor, "b 3 hh ww"]:
        """Pictures of the decoder's size brought to `size`; `known` holds pixels at `size` that the result must fit.

        `captions` are for upsamplers that read them (GLIDE).
        """
        for link in self.route(size):
            # Root-mean-square norms are exact in tiles; group norms see the whole picture.
            tile = link.tile if link.config.net.norm == "rms" else None
            anchor = None if known is None else known.at(Extent.of(link.config.high_size))
            pixels = self.upsample(
                link, pixels, seeds, tile=tile, known=anchor, captions=captions, first=first
            )
        return pixels

    @torch.no_grad()
    def upsample(
        self,
        link: Link,
        low: Float[Tensor, "b 3 h w"],
        seeds: Seeds,
        *,
        tile: int | None,
        known: InpaintingReference | None = None,
        captions: Captions | None = None,
        first: int = 0,
    ) -> Float[Tensor, "b 3 hh ww"]:
        """Pictures enlarged by one upsampler, in tiles of `tile` pixels if given, under captions if it reads them."""
        settings, condition = self.sampling.upsampler(link.index), Condition(low=low)
        if isinstance(link.config, GlideUpsamplerConfig):
            hint = known_hint(known) if known is not None and link.config.inpainting else None
            condition = replace(condition, captions=captions, empty=self.empty_caption, hint=hint)
        with self.parts.lend(link.name, nn.Module) as upsampler:
            renderer = _renderer_of(upsampler, tile)
            grid = renderer.grid(settled(settings.steps))
            noise = seeds.stage(f"upsampler {link.config.high_size}")
            denoise = renderer.denoiser(condition, grid=grid)
            if known is not None:
                denoise = known.kept_until_last(denoise, grid)
            height, width = (side * link.config.factor for side in low.shape[-2:])
            x = renderer.noise_state(noise, grid[0], height, width, self.device)
            walk = renderer.sample(denoise, x, grid, sampler=settled(settings.sampler), noise=noise)
            state = self._follow(walk, "upsampler", len(grid) - 1, first, renderer.codec)
            self.require_finite(state, link.name, "upsampler", renderer.watch)
            return state

    def _reporting(self, total: int) -> Reporter:
        if self._reporter is None:
            self._reporter = Reporter(self._callback, total, 1)
        return self._reporter

    def _follow(self, walk: Iterator[Step], stage: Any, total: int, first: int, codec: Any = None) -> Tensor:
        return self._reporting(total).follow(walk, stage, total, first, codec)

    def _begin(self, stage: Any, rows: int, first: int, total: int = 1) -> None:
        """Report that a stage begins, with latent models: their parts take long to load."""
        if "decoder" in self.parts.names and self.parts.codec.factor > 1:
            self._reporting(total).report(stage, 0, total, first, torch.empty(rows, 0))


def _renderer_of(upsampler: nn.Module, tile: int | None) -> Renderer:
    """Renderer of an upsampler of either kind. Raises `Unsupported` for another network."""
    if isinstance(upsampler, GlideUpsampler):
        return glide_upsampler_renderer(upsampler)
    if not isinstance(upsampler, Upsampler):
        raise Unsupported(f"a {type(upsampler).__name__} cannot enlarge pictures: take another upsampler")
    return upsampler_renderer(upsampler, tile)
