"""Session: one call of a model. The stages of a request, run with its sampling settings and reported to its callback."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from unclip.diffusion import paths
from unclip.diffusion.denoiser import Step
from unclip.diffusion.inpainting import repaint
from unclip.errors import RequestError
from unclip.generate.drawing import Drawing
from unclip.generate.image import Image
from unclip.generate.parts import Parts
from unclip.generate.progress import Callback, Reporter
from unclip.generate.provenance import provenance_of
from unclip.generate.request import Request
from unclip.generate.sources import Source, read_source
from unclip.images.files import resize as resize_image
from unclip.images.tensors import to_image, to_tensor
from unclip.networks.clip import Clip
from unclip.networks.decoder import Decoder
from unclip.networks.prior_autoregressive import AutoregressivePrior
from unclip.networks.prior_diffusion import EmbeddingDiffusion
from unclip.networks.upsampler import Upsampler
from unclip.rng import derive, draw_seed
from unclip.stages.cascade import Link, route
from unclip.stages.conditioner import Condition
from unclip.stages.inpainting import InpaintingReference, match_border
from unclip.stages.noise import Seeds
from unclip.stages.prior import choose, prior_condition, sample_autoregressive_prior, sample_diffusion_prior
from unclip.stages.renderer import decoder_renderer, inversion_grid, upsampler_renderer
from unclip.stages.sampling import PriorSampling, Sampling, settled
from unclip.stages.space import Basis
from unclip.stages.text import Captions, read_captions, truncation_warning
from unclip.stages.windows import Window

logger = logging.getLogger(__name__)

INVERSION_ITERATIONS = 2
"""Decoder calls per step of an inversion (`unclip.diffusion.paths.invert`)."""
RESAMPLINGS = 5
"""RePaint walks per step, for decoders that were not trained to inpaint."""
DRAFT_STRENGTH = 0.4
"""Image-to-image strength over a draft: its content stays in place and gains the detail of its size.

With more, neighbouring squares over one draft no longer agree."""
REACH, TOUCH = 1 / 8, 1 / 32
"""Width of the border within which a filled hole is shifted to the colours around it, as shares of the square's side:
after the decoder, and after the upsamplers. Wider, an edit that recolours a thing would be undone; narrower, the border
shows."""


class Inversion(NamedTuple):
    """(z_i, x_T), the paper's bipartite latent: z_i holds what CLIP sees, x_T all that is left, as N(0, I) noise."""

    z_i: Float[Tensor, " d"]
    x_T: Float[Tensor, "3 s s"]


class Session:
    """The stages of a model with the resolved sampling settings of one request."""

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

    # Planning

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return self.parts.device

    def size(self, asked: int | None) -> int:
        """Side to draw: `asked`, or the model's default. Raises `RequestError` for one that the model cannot make."""
        if asked is None:
            return self.parts.default_size
        if asked not in self.parts.sizes:
            raise RequestError(
                f"{self.parts.name!r} makes pictures of {', '.join(map(str, self.parts.sizes))} pixels, not {asked}"
            )
        return asked

    def size_for(self, side: int) -> int:
        """Size in which to draw a square of `side` pixels: the smallest that is enough, or the largest there is."""
        return next((size for size in self.parts.sizes if size >= side), self.parts.sizes[-1])

    def seed_of(self, index: int) -> int:
        """Seed of picture `index`: the request's own for the first, 32-bit children of it for the others."""
        return picture_seed(self.seed, index)

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

    def render_steps(self, size: int, *, inverted: bool = False) -> int:
        """Steps of decoder and upsamplers to a picture of `size`, from noise or from an inversion."""
        steps = self.inversion_steps if inverted else settled(self.sampling.decoder.steps)
        return steps + self.cascade_steps(self.route(size))

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
            return read_captions(clip, self.parts.tokenizer, prompts, self.device)

    def warn_if_truncated(self, *prompts: str | None) -> None:
        """Record a warning for each prompt that is longer than the model's context."""
        for warning in self.truncations(*prompts):
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
        """CLIP image embeddings z_i, on the model's device; pictures are cropped to their middle square and resized."""
        size = self.parts.config("clip").vision.size
        with self.parts.lend("clip", Clip) as clip:
            pixels = (source.square(size).to(self.device) for source in sources)
            return torch.cat([clip.encode_image(one[None]) for one in pixels])

    @torch.no_grad()
    def embed_pixels(self, pixels: Float[Tensor, "3 s s"]) -> Float[Tensor, "1 d"]:
        """CLIP image embedding of a square in [-1, 1], rounded to 8 bits as a saved picture is."""
        return self.embed_images([read_source(to_image(pixels))])

    def pixels(self, source: Source, *, on_device: bool = True) -> Float[Tensor, "3 h w"]:
        """Pixels of a given picture in [-1, 1]; transparent ones show white."""
        pixels = to_tensor(source.image)
        return pixels.to(self.device) if on_device else pixels

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
        candidates, guidance = settled(settings.candidates), settled(settings.guidance)
        if settings.kind == "diffusion" and negative is None and self.parts.config("prior").null == "empty":
            negative = self.captions([""] * len(captions.tokens))
        condition = prior_condition(captions, candidates)
        null = None if negative is None else prior_condition(negative, candidates)
        if settings.kind == "autoregressive":
            noise = seeds.prior_streams(candidates)
            with self.parts.lend("prior_autoregressive", AutoregressivePrior) as prior:
                steps = sample_autoregressive_prior(prior, condition, noise, guidance=guidance, null=null)
                samples = self._follow(steps, "prior", self.prior_steps, first).float()
                samples = prior.unstandardise(samples)
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
                )
                samples = self._follow(steps, "prior", self.prior_steps, first).float()
                samples = prior.unstandardise(samples)
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
        return Seeds(seeds, settled(self.sampling.random))

    def streams(self, seed: int) -> Seeds:
        """Noise streams of one picture, a stream per stage whatever the settings say."""
        return Seeds([seed])

    def derived_seed(self, *purpose: int | str) -> int:
        """Seed of a part of the picture, such as a tile."""
        return derive(self.seed, *purpose)

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
        settings = self.sampling.decoder
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
            return renderer.codec.decode(state)

    @torch.no_grad()
    def invert(self, source: Source, first: int = 0) -> Inversion:
        """z_i by CLIP, then x_T by walking DDIM up from the picture under z_i; on the model's device."""
        z_i = self.embed_images([source])
        settings = self.sampling.decoder
        with self.parts.lend("decoder", Decoder) as decoder:
            renderer = decoder_renderer(decoder)
            grid = renderer.inversion_grid(settled(settings.steps))
            denoise = renderer.denoiser(
                Condition(z_i=z_i), guidance=settled(settings.guidance), interval=settings.guidance_interval
            )
            x0 = renderer.codec.encode(source.square(decoder.config.size)[None].to(self.device))
            walk = paths.invert(denoise, x0, grid, iterations=INVERSION_ITERATIONS)
            top = self._follow(walk, "inversion", len(grid) - 1, first, renderer.codec)
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
            return self._follow(walk, "upsampler", len(grid) - 1, first, renderer.codec)

    # Inpainting

    def fill_steps(self, size: int, *, drafted: bool = False) -> int:
        """Steps of one `fill` at `size`."""
        walks = 1 if self.parts.config("decoder").inpainting else RESAMPLINGS
        levels = self.decoder_grid(DRAFT_STRENGTH if drafted else 1.0)
        return (len(levels) - 1) * walks + self.cascade_steps(self.route(size))

    @torch.no_grad()
    def fill(
        self,
        pixels: Float[Tensor, "3 h w"],
        hole: Tensor,
        window: Window,
        condition: Condition,
        seed: int,
        *,
        size: int,
        draft: Float[Tensor, "3 s s"] | None = None,
        first: int = 0,
    ) -> Float[Tensor, "3 h w"]:
        """A picture in [-1, 1] whose hole is drawn within the window; all other pixels are unchanged.

        The window is drawn at `size` and resized to its own. With a `draft` of it, drawing starts from the draft with
        noise added.
        """
        known = InpaintingReference(
            window.cut(pixels)[None], 1 - window.cut(hole[None].float(), fill=1.0)[None]
        )
        seeds = self.streams(seed)
        small = self._fill_small(known, draft, condition, seeds, first)
        anchor = known.at(size).to(self.device)
        large = self.enlarge(small, seeds, size, known=anchor, first=first).cpu()
        if size != window.side:
            large = F.interpolate(
                large, size=window.side, mode="bicubic", antialias=True, align_corners=False
            )
        matched = match_border(large, known, reach=TOUCH * window.side)
        return window.paste(matched[0].clamp(-1, 1), pixels, hole)

    def _fill_small(
        self,
        known: InpaintingReference,
        draft: Float[Tensor, "3 s s"] | None,
        condition: Condition,
        seeds: Seeds,
        first: int,
    ) -> Float[Tensor, "1 3 s s"]:
        settings, config = self.sampling.decoder, self.parts.config("decoder")
        known = known.at(config.size).to(self.device)
        levels = self.decoder_grid(1.0 if draft is None else DRAFT_STRENGTH)
        noise = seeds.stage("decoder")
        if config.inpainting:
            condition = replace(condition, hint=torch.cat([known.pixels * known.mask, known.mask], dim=1))
        with self.parts.lend("decoder", Decoder) as decoder:
            renderer = decoder_renderer(decoder)
            if draft is None:
                x = renderer.noise_state(noise, levels[0], config.size, config.size, self.device)
            else:
                begun = F.interpolate(
                    draft[None], size=config.size, mode="bicubic", antialias=True, align_corners=False
                )
                x = paths.noised(begun.clamp(-1, 1).to(self.device), levels[0], noise)
            denoise = renderer.denoiser(
                condition, guidance=settled(settings.guidance), interval=settings.guidance_interval
            )
            walk: Iterator[Step]
            if config.inpainting:
                kept = known.kept_until_last(denoise, levels)
                walk = renderer.sample(kept, x, levels, sampler=settled(settings.sampler), noise=noise)
                total = len(levels) - 1
            else:
                walk = repaint(
                    denoise, x, levels, known.pixels, known.mask, noise=noise, resamplings=RESAMPLINGS
                )
                total = (len(levels) - 1) * RESAMPLINGS
            drawn = self._follow(walk, "decoder", total, first, renderer.codec)
        matched = match_border(drawn, known, reach=REACH * config.size)
        return torch.lerp(matched, known.pixels, known.mask)

    # Results

    def draw(
        self, drawings: Sequence[Drawing], size: int, *, sources: Sequence[Source] = (), eta: float = 0.0
    ) -> Iterator[Image]:
        """Pictures of image embeddings, in batches. Those with an x_T are sampled by DDIM with `eta`."""
        for batch in self.batches(len(drawings)):
            chosen = [drawings[index] for index in batch]
            seeds = self.seeds([settled(one.request.seed) for one in chosen])
            z_i = torch.stack([one.z_i for one in chosen]).to(self.device)
            given = [one.x_T for one in chosen if one.x_T is not None]
            x_T = torch.stack(given) if given else None
            small = self.decode(Condition(z_i=z_i), seeds, x_T=x_T, eta=eta, first=batch.start)
            pixels = self.enlarge(small, seeds, size, first=batch.start)
            yield from (
                self.result(pixels[k], one.request, z_i=one.z_i, sources=sources)
                for k, one in enumerate(chosen)
            )

    def result(
        self,
        pixels: Float[Tensor, "3 h w"],
        request: Request,
        *,
        z_i: Float[Tensor, " d"] | None = None,
        sources: Sequence[Source] = (),
        prior: bool = False,
        results: Mapping[str, Any] | None = None,
        resize: tuple[int, int] | None = None,
        warnings: Sequence[str] | None = None,
    ) -> Image:
        """A finished picture with its provenance. `prior` says whether the prior took part in it.

        `warnings` are the picture's own; those of the whole call unless given.
        """
        warnings = self.warnings if warnings is None else warnings
        from_pixels = to_image(pixels)
        image = from_pixels if resize is None else resize_image(from_pixels, resize)
        used = self.sampling if prior else replace(self.sampling, prior=PriorSampling())
        used = replace(used, upsamplers=used.upsamplers[: len(self.parts.cascade)])
        provenance = provenance_of(
            replace(request, sampling=used),
            model=self.parts.name,
            digest=self.parts.digest,
            size=image.size,
            device=self.device.type,
            dtype=str(self.parts.dtype).removeprefix("torch."),
            sources=sources,
            results=results,
            warnings=warnings,
        )
        embedding = None if z_i is None else z_i.float().cpu().clone()
        return Image(image=image, provenance=provenance, embedding=embedding, warnings=tuple(warnings))

    def _follow(self, walk: Iterator[Step], stage: Any, total: int, first: int, codec: Any = None) -> Tensor:
        if self._reporter is None:
            self._reporter = Reporter(self._callback, total, 1)
        return self._reporter.follow(walk, stage, total, first, codec)


def picture_seed(seed: int, index: int) -> int:
    """Recorded seed of picture `index` of a call: the first has the call's own, the others 32-bit children of it."""
    return seed if index == 0 else derive(seed, index) & 0xFFFFFFFF


def choose_seed(seed: int | None) -> int:
    """`seed`, or a drawn one."""
    return draw_seed() if seed is None else seed
