"""Stages of a model run with the sampling settings of one request, each step reported to the callback."""

import functools
import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from unclip.diffusion import paths
from unclip.diffusion.denoiser import Step
from unclip.errors import NonFinite, RequestError
from unclip.generate.parts import Parts
from unclip.generate.progress import Callback, Reporter
from unclip.generate.sources import Source, read_source
from unclip.images.tensors import to_image, to_tensor
from unclip.networks.clip import Clip
from unclip.networks.decoder import Decoder
from unclip.networks.prior_autoregressive import AutoregressivePrior
from unclip.networks.prior_diffusion import EmbeddingDiffusion
from unclip.networks.upsampler import Upsampler
from unclip.rng import derive
from unclip.stages.cascade import Link, route
from unclip.stages.conditioner import Condition, reads_text_encodings
from unclip.stages.finite import Watch
from unclip.stages.inpainting import InpaintingReference
from unclip.stages.noise import Seeds
from unclip.stages.prior import choose, prior_condition, sample_autoregressive_prior, sample_diffusion_prior
from unclip.stages.renderer import decoder_renderer, inversion_grid, upsampler_renderer
from unclip.stages.sampling import Sampling, settled
from unclip.stages.space import Basis
from unclip.stages.text import Captions, read_captions, truncation_warning

logger = logging.getLogger(__name__)

INVERSION_ITERATIONS = 2
"""Decoder calls per step of an inversion (`unclip.diffusion.paths.invert`)."""


class Inversion(NamedTuple):
    """(z_i, x_T), the paper's bipartite latent: z_i holds what CLIP sees, x_T all that is left, as N(0, I) noise."""

    z_i: Float[Tensor, " d"]
    x_T: Float[Tensor, "3 s s"]


class StageRunner:
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
        self.parts, self.sampling, self.seed = parts, sampling, seed
        # Rounding depends on the batch, and the CPU gains little from large ones: alone, a picture is always the same.
        self.batch_size = batch_size or (1 if parts.device.type == "cpu" else 4)
        self.warnings: list[str] = []
        self._callback = on_progress
        self._reporter: Reporter | None = None

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return self.parts.device

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

    def route(self, size: int) -> list[Link]:
        """Upsamplers from the decoder's size to `size`."""
        return route(self.parts.sizes[0], size, self.parts.cascade)

    def cascade_steps(self, links: Sequence[Link]) -> int:
        """Steps of some upsamplers."""
        return sum(settled(self.sampling.upsampler(link.index).steps) for link in links)

    def decoder_grid(self, strength: float = 1.0) -> Float[Tensor, " levels"]:
        """Noise levels of the decoder's steps; `strength` below 1 keeps the last ones, for starting from a picture."""
        grid = self.parts.config("decoder").process.build().grid(settled(self.sampling.decoder.steps))
        return grid if strength == 1 else paths.truncate(grid, strength)

    # Text and embeddings

    @torch.no_grad()
    def captions(self, prompts: Sequence[str]) -> Captions:
        """Tokens and text encodings of prompts."""
        with self.parts.lend("clip", Clip) as clip:
            read = read_captions(clip, self.parts.tokenizer, prompts, self.device)
        for field in read.encoding:
            self.require_finite(field, "clip", "text")
        return read

    @functools.cached_property
    def empty_caption(self) -> Captions:
        """Encoding of the empty caption, one row."""
        return self.captions([""])

    def warn_if_truncated(self, *prompts: str | None) -> None:
        """Record a warning for each prompt that is longer than the model's context."""
        for warning in self.truncations(*prompts):
            self.warn(warning)

    def warn(self, warning: str) -> None:
        """Record a warning, which the pictures carry."""
        logger.warning(warning)
        self.warnings.append(warning)

    def truncations(self, *prompts: str | None) -> list[str]:
        """Warning for each prompt that is longer than the model's context."""
        found = [truncation_warning(self.parts.tokenizer, prompt) for prompt in prompts if prompt]
        return [warning for warning in found if warning is not None]

    @torch.no_grad()
    def embed_text(self, prompts: Sequence[str]) -> Float[Tensor, "b d"]:
        """CLIP text embeddings z_t, on the model's device."""
        return self.captions(prompts).encoding.embedding

    @torch.no_grad()
    def embed_images(self, sources: Sequence[Source]) -> Float[Tensor, "b d"]:
        """CLIP image embeddings z_i, on the model's device; pictures are cropped to their middle square and resized, as its tower has it."""
        tower = self.parts.config("clip").vision
        whole = tower.resize == "squash"
        with self.parts.lend("clip", Clip) as clip:
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

    def pixels(self, source: Source) -> Float[Tensor, "3 h w"]:
        """Pixels of a given picture in [-1, 1], on the CPU; transparent ones show white."""
        return to_tensor(source.image)

    @torch.no_grad()
    def sample_prior(
        self, captions: Captions, seeds: Seeds, negative: Captions | None = None, first: int = 0
    ) -> Float[Tensor, "b d"] | None:
        """Image embedding of each caption, from the source that the sampling settings name; None for no embedding."""
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
        if settings.kind == "autoregressive":
            noise = seeds.prior_streams(candidates)
            with self.parts.lend("prior_autoregressive", AutoregressivePrior) as prior:
                steps = sample_autoregressive_prior(
                    prior, condition, noise, guidance=guidance, null=null, watch=watch
                )
                samples = self._follow(steps, "prior", self.prior_steps, first).float()
                samples = prior.unstandardise(samples)
            self.require_finite(samples, "prior_autoregressive", "prior", watch)
        else:
            with self.parts.lend("prior", EmbeddingDiffusion) as prior:
                steps = sample_diffusion_prior(
                    prior,
                    condition,
                    seeds.prior(candidates),
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
        """Noise streams of one picture, a stream per stage whatever the settings say."""
        return Seeds([seed], device=self.device)

    def derived_seed(self, *purpose: int | str) -> int:
        """Seed of a part of the picture, such as a tile."""
        return derive(self.seed, *purpose)

    def complete(self, condition: Condition) -> Condition:
        """Condition with the empty caption, if the decoder reads CLIP's text encodings."""
        if condition.empty is not None or not reads_text_encodings(self.parts.config("decoder")):
            return condition
        return replace(condition, empty=self.empty_caption)

    @torch.no_grad()
    def decode(
        self,
        condition: Condition,
        seeds: Seeds,
        *,
        x_T: Float[Tensor, "b 3 s s"] | None = None,
        eta: float = 0.0,
        start: Float[Tensor, "b 3 h w"] | None = None,
        strength: float = 1.0,
        first: int = 0,
    ) -> Float[Tensor, "b 3 s s"]:
        """Small pictures in [-1, 1].

        From noise; or from `x_T` by DDIM with `eta`; or from the pictures `start` with noise added, of which
        `strength` is redrawn.
        """
        settings, condition = self.sampling.decoder, self.complete(condition)
        with self.parts.lend("decoder", Decoder) as decoder:
            renderer, side = decoder_renderer(decoder), decoder.config.size
            denoise = renderer.denoiser(
                condition, guidance=settled(settings.guidance), interval=settings.guidance_interval
            )
            noise = seeds.stage("decoder")
            if x_T is not None:
                grid = renderer.inversion_grid(settled(settings.steps))
                x = paths.start(x_T.to(self.device), grid[0])
                walk = renderer.sample(denoise, x, grid, sampler="ddim", noise=noise, eta=eta)
            else:
                grid = self.decoder_grid(strength)
                if start is None:
                    x = renderer.noise_state(noise, grid[0], side, side, self.device)
                else:
                    x = paths.noised(renderer.codec.encode(start.to(self.device)), grid[0], noise)
                walk = renderer.sample(denoise, x, grid, sampler=settled(settings.sampler), noise=noise)
            state = self._follow(walk, "decoder", len(grid) - 1, first, renderer.codec)
            self.require_finite(state, "decoder", "decoder", renderer.watch)
            return renderer.codec.decode(state)

    @torch.no_grad()
    def invert(self, source: Source, first: int = 0) -> Inversion:
        """z_i by CLIP, then x_T by walking DDIM up from the picture under z_i; on the model's device."""
        z_i = self.embed_images([source])
        settings, condition = self.sampling.decoder, self.complete(Condition(z_i=z_i))
        with self.parts.lend("decoder", Decoder) as decoder:
            renderer = decoder_renderer(decoder)
            grid = renderer.inversion_grid(settled(settings.steps))
            denoise = renderer.denoiser(
                condition, guidance=settled(settings.guidance), interval=settings.guidance_interval
            )
            x0 = renderer.codec.encode(source.square(decoder.config.size)[None].to(self.device))
            walk = paths.invert(denoise, x0, grid, iterations=INVERSION_ITERATIONS)
            top = self._follow(walk, "inversion", len(grid) - 1, first, renderer.codec)
            self.require_finite(top, "decoder", "inversion", renderer.watch)
        return Inversion(z_i[0], paths.start_noise(top, grid[0])[0])

    # Upsamplers

    @torch.no_grad()
    def enlarge(
        self,
        pixels: Float[Tensor, "b 3 h w"],
        seeds: Seeds,
        size: int,
        *,
        known: InpaintingReference | None = None,
        first: int = 0,
    ) -> Float[Tensor, "b 3 hh ww"]:
        """Pictures of the decoder's size brought to `size`; `known` holds pixels at `size` that the result must fit."""
        for link in self.route(size):
            # Root-mean-square norms are exact in tiles; group norms see the whole picture.
            tile = link.tile if link.config.net.norm == "rms" else None
            anchor = None if known is None else known.at(link.config.high_size)
            pixels = self.upsample(link, pixels, seeds, tile=tile, known=anchor, first=first)
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
        first: int = 0,
    ) -> Float[Tensor, "b 3 hh ww"]:
        """Pictures enlarged by one upsampler, in tiles of `tile` pixels if given."""
        settings = self.sampling.upsampler(link.index)
        with self.parts.lend(link.name, Upsampler) as upsampler:
            renderer = upsampler_renderer(upsampler, tile)
            grid = renderer.grid(settled(settings.steps))
            noise = seeds.stage(f"upsampler {link.config.high_size}")
            denoise = renderer.denoiser(Condition(low=low), grid=grid)
            if known is not None:
                denoise = known.kept_until_last(denoise, grid)
            height, width = (side * link.config.factor for side in low.shape[-2:])
            x = renderer.noise_state(noise, grid[0], height, width, self.device)
            walk = renderer.sample(denoise, x, grid, sampler=settled(settings.sampler), noise=noise)
            state = self._follow(walk, "upsampler", len(grid) - 1, first, renderer.codec)
            self.require_finite(state, link.name, "upsampler", renderer.watch)
            return state

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

    def _follow(self, walk: Iterator[Step], stage: Any, total: int, first: int, codec: Any = None) -> Tensor:
        if self._reporter is None:
            self._reporter = Reporter(self._callback, total, 1)
        return self._reporter.follow(walk, stage, total, first, codec)
