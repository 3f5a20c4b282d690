"""Session: one request on a model. Sizes, seeds, inpainting and results, over the stages."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from PIL import Image as PillowImage
from torch import Tensor, nn
from torch.nn import functional as F

from unclip.diffusion import paths
from unclip.generate.drawing import Drawing
from unclip.generate.image import Image
from unclip.generate.provenance import provenance_of
from unclip.generate.request import Request
from unclip.generate.sources import Source
from unclip.generate.stage_runner import StageRunner
from unclip.images.files import resize as resize_image
from unclip.images.tensors import to_image
from unclip.rng import derive, draw_seed
from unclip.stages.codec import state_shape
from unclip.stages.conditioner import Condition
from unclip.stages.extent import Extent, Sides, at_once, drawn_at, whole
from unclip.stages.family import Fill
from unclip.stages.inpainting import InpaintingReference, match_border
from unclip.stages.noise import Seeds
from unclip.stages.sampling import PriorSampling, settled
from unclip.stages.windows import Window, window_around, window_of

DRAFT_STRENGTH = 0.4
"""Image-to-image strength over a draft: its content stays in place and gains the detail of its size.

With more, neighbouring squares over one draft no longer agree."""
REACH, TOUCH = 1 / 8, 1 / 32
"""Width of the border within which a filled hole is shifted to the colours around it, as shares of the square's side:
after the decoder, and after the upsamplers. Wider, an edit that recolours a thing would be undone; narrower, the border
shows."""


class Session(StageRunner):
    """One request on a model: sizes, seeds, inpainting and results, over the stages."""

    # Planning

    def size(self, asked: Sides | None) -> Sides:
        """Sides to draw: `asked`, or the model's default. Raises `RequestError` for one that the model cannot make."""
        return self.parts.check_size(asked)

    def window(self, hole: Bool[Tensor, "h w"]) -> Window:
        """What is given to the decoder to fill a hole: all of a picture that it draws at once, else `window_of`'s square."""
        extent, square = Extent(*hole.shape), window_of(hole)
        longer = square.height > min(extent)
        return self.whole_window(extent) if longer or self.draws_at_once(extent) else square

    def whole_window(self, extent: Extent) -> Window:
        """The window of a whole picture: a square around it, or all of it with a decoder that draws any shape."""
        if (step := self.parts.step) is None:
            return window_around(extent.width, extent.height)
        return Window(0, 0, *reversed(whole(extent, step, self.parts.default_size**2)))

    def draws_at_once(self, extent: Extent) -> bool:
        """Whether the decoder draws pictures of any shape, and so large a one at once."""
        return self.parts.step is not None and at_once(extent, self.parts.default_size**2)

    def drafted_at(self, window: Extent) -> Extent:
        """Extent in which to draft a window: the model's default size, in the window's shape where the decoder draws any."""
        return self.drawn_at(window) if self.parts.step is not None else Extent.of(self.parts.default_size)

    def drawn_at(self, window: Extent) -> Extent:
        """Extent in which to draw a window.

        That of the smallest square that is enough, or the largest there is; with a decoder that is not bound to one size,
        the window's own, or one near to what the decoder was made for.
        """
        if (step := self.parts.step) is not None:
            return drawn_at(window, step, self.parts.default_size**2)
        side = next((size for size in self.parts.sizes if size >= max(window)), self.parts.sizes[-1])
        return Extent.of(side)

    def seed_of(self, index: int) -> int:
        """Seed of picture `index`: the request's own for the first, 32-bit children of it for the others."""
        return picture_seed(self.seed, index)

    def render_steps(self, size: Sides, *, inverted: bool = False) -> int:
        """Steps of decoder and upsamplers to a picture of `size`, from noise or from an inversion."""
        steps = self.inversion_steps if inverted else settled(self.sampling.decoder.steps)
        return steps + self.later_steps(size)

    def later_steps(self, size: Sides) -> int:
        """Steps after the decoder's: those that decode its latents, and of the upsamplers."""
        return self.decoding_steps(self.extent(size)) + self.cascade_steps(self.route(size))

    # Inpainting

    def fill_steps(self, extent: Extent, *, drafted: bool = False) -> int:
        """Steps of one `fill` at an extent."""
        levels = self.decoder_grid(DRAFT_STRENGTH if drafted else 1.0)
        return (len(levels) - 1) * self.parts.family.walks + self.later_steps(extent.size)

    @torch.no_grad()
    def fill(
        self,
        pixels: Float[Tensor, "3 h w"],
        hole: Tensor,
        window: Window,
        condition: Condition,
        seed: int,
        *,
        extent: Extent,
        draft: Float[Tensor, "3 wh ww"] | None = None,
        first: int = 0,
    ) -> Float[Tensor, "3 h w"]:
        """A picture in [-1, 1] whose hole is drawn within the window; all other pixels are unchanged.

        The window is drawn at `extent` and resized to its own. With a `draft` of it, drawing starts from the draft with
        noise added.
        """
        known = InpaintingReference(
            window.cut(pixels)[None], 1 - window.cut(hole[None].float(), fill=1.0)[None]
        )
        seeds = self.streams(seed)
        small = self._fill_small(known, extent, draft, condition, seeds, first)
        anchor = known.at(extent).to(self.device)
        large = self.enlarge(
            small, seeds, extent.size, known=anchor, captions=condition.captions, first=first
        ).cpu()
        if extent != window.extent:
            large = _resized(large, window.extent)
        matched = match_border(large, known, reach=TOUCH * min(window.extent))
        return window.paste(matched[0].clamp(-1, 1), pixels, hole)

    def _fill_small(
        self,
        known: InpaintingReference,
        extent: Extent,
        draft: Float[Tensor, "3 wh ww"] | None,
        condition: Condition,
        seeds: Seeds,
        first: int,
    ) -> Float[Tensor, "1 3 h w"]:
        settings, extent = self.sampling.decoder, self.extent(extent.size)
        codec, family = self.parts.codec, self.parts.family
        known = known.at(extent).to(self.device)
        visits = self.visits(1.0 if draft is None else DRAFT_STRENGTH)
        levels, noise = visits.sigmas, seeds.stage("decoder")
        condition = self.complete(condition, noise)
        posterior = self._posterior(noise)
        self._begin("encoding latents", 1, first)
        # A network that reads the known pixels as its own hint is not shown them as state.
        state = known.in_state(codec, posterior if family.keeps_state else None)
        begun = None
        if draft is not None:
            begun = self.encoded(_resized(draft[None], extent).clamp(-1, 1), first=first)
        z = noise.normal(*state_shape(codec, *extent))
        if begun is not None:
            x = begun + float(levels[0]) * z.to(begun)
        else:
            x = (paths.start(z, levels[0]) if visits.unit_start else float(levels[0]) * z).to(self.device)
        hint = family.hint(known, state, codec, posterior)
        if hint is not None:
            condition = replace(condition, hint=hint)
        total = (len(levels) - 1) * family.walks
        self._begin("decoder", 1, first, total)
        with self.parts.lend("decoder", nn.Module) as decoder:
            renderer = family.renderer(decoder, codec)
            denoise = renderer.denoiser(
                condition,
                guidance=settled(settings.guidance),
                interval=settings.guidance_interval,
                rescale=settings.guidance_rescale or 0.0,
                labelling=visits.labelling,
            )
            given = Fill(denoise, x, z.to(x), visits, state, settled(settings.sampler), noise)
            drawn = self._follow(family.fill(renderer, given), "decoder", total, first, renderer.codec)
            self.require_finite(drawn, "decoder", "decoder", renderer.watch)
            drawn = renderer.finished(drawn, levels[-1])
        drawn = self.decoded(drawn, first)
        matched = match_border(drawn, known, reach=REACH * min(extent))
        return torch.lerp(matched, known.pixels, known.mask)

    # Results

    def draw(
        self, drawings: Sequence[Drawing], size: Sides, *, sources: Sequence[Source] = (), eta: float = 0.0
    ) -> Iterator[Image]:
        """Pictures of image embeddings, in batches. Those with an x_T are sampled by DDIM with `eta`."""
        for batch in self.batches(len(drawings)):
            chosen = [drawings[index] for index in batch]
            seeds = self.seeds([settled(one.request.seed) for one in chosen])
            z_i = torch.stack([one.z_i for one in chosen]).to(self.device)
            given = [one.x_T for one in chosen if one.x_T is not None]
            x_T = torch.stack(given) if given else None
            small = self.decode(Condition(z_i=z_i), seeds, x_T=x_T, eta=eta, size=size, first=batch.start)
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
        finish: Callable[[PillowImage.Image], PillowImage.Image] | None = None,
    ) -> Image:
        """A finished picture with its provenance. `prior` says whether the prior took part in it.

        `warnings` are the picture's own; those of the whole call unless given. `finish` puts into the drawn picture
        what pixels in [-1, 1] do not hold: the alpha of kept pixels.
        """
        warnings = self.warnings if warnings is None else warnings
        from_pixels = to_image(pixels)
        image = from_pixels if resize is None else resize_image(from_pixels, resize)
        image = image if finish is None else finish(image)
        used = self.sampling if prior else replace(self.sampling, prior=PriorSampling())
        used = replace(used, upsamplers=used.upsamplers[: len(self.parts.cascade)])
        provenance = provenance_of(
            replace(request, sampling=used),
            model=self.parts.name,
            digest=self.parts.digest,
            size=image.size,
            device=self.device.type,
            dtype=self.parts.number_type,
            sources=sources,
            results=results,
            warnings=warnings,
            parts=self.parts.mixed,
            adapters=self.parts.adapters,
            backend=None if self.parts.backend is None else self.parts.backend.record,
            packed=self.parts.packed,
        )
        embedding = None if z_i is None else z_i.float().cpu().clone()
        return Image(image=image, provenance=provenance, embedding=embedding, warnings=tuple(warnings))


def _resized(pixels: Float[Tensor, "b 3 h w"], extent: Extent) -> Float[Tensor, "b 3 hh ww"]:
    size = (extent.height, extent.width)
    return F.interpolate(pixels, size=size, mode="bicubic", antialias=True, align_corners=False)


def picture_seed(seed: int, index: int) -> int:
    """Recorded seed of picture `index` of a call: the first has the call's own, the others 32-bit children of it."""
    return seed if index == 0 else derive(seed, index) & 0xFFFFFFFF


def choose_seed(seed: int | None) -> int:
    """`seed`, or a drawn one."""
    return draw_seed() if seed is None else seed
