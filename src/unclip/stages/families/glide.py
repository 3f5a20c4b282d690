"""GLIDE: pixels under a caption that the network itself encodes; there is no image embedding."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from unclip.diffusion.denoiser import NoiseSource, Step
from unclip.diffusion.grids import respaced
from unclip.diffusion.inpainting import repaint
from unclip.diffusion.noise import NoiseTable
from unclip.networks.glide import Glide, GlideCondition, GlideUpsampler
from unclip.stages.codec import Codec, PixelCodec
from unclip.stages.conditioner import Condition, Contexts
from unclip.stages.family import Agreement, Family, Fill
from unclip.stages.inpainting import InpaintingReference
from unclip.stages.renderer import Renderer
from unclip.stages.text import Captions

RESAMPLINGS = 5
"""RePaint walks per step, for the base that was not trained to inpaint."""


class GlideFamily(Family):
    """GLIDE's base."""

    @property
    def capabilities(self) -> frozenset[str]:
        """It draws captions, and reads no image embeddings."""
        return frozenset({"caption", "inversion", "inpainting"})

    @property
    def reads_prompts(self) -> bool:
        """A text transformer is part of the network."""
        return True

    @property
    def reads_empty(self) -> bool:
        """The empty caption stands for no caption."""
        return True

    def renderer(self, network: Glide, codec: Codec) -> Renderer:
        """Renderer of the base."""
        return Renderer(
            network=network,
            process=self.config.process.build(),
            codec=codec,
            conditioner=GlideConditioner(network),
        )

    @property
    def walks(self) -> int:
        """One for a network trained to inpaint."""
        return 1 if self.config.inpainting else RESAMPLINGS

    def hint(
        self, known: InpaintingReference, state: InpaintingReference, codec: Codec, noise: NoiseSource | None
    ) -> Float[Tensor, "b k h w"] | None:
        """The known pixels and their mask, 1 where they are known."""
        return known_hint(state) if self.config.inpainting else None

    def fill(self, renderer: Renderer, given: Fill) -> Iterator[Step]:
        """With known pixels in every estimate for a network trained to inpaint, else RePaint."""
        levels, known = given.visits.sigmas, given.known
        if self.config.inpainting:
            kept = known.kept_until_last(given.denoise, levels)
            return renderer.sample(kept, given.x, levels, sampler=given.sampler, noise=given.noise)
        return repaint(
            given.denoise,
            given.x,
            levels,
            known.pixels,
            known.mask,
            noise=given.noise,
            resamplings=RESAMPLINGS,
        )

    @property
    def reads(self) -> frozenset[str]:
        """No other part: it encodes captions itself, and draws pixels."""
        return frozenset()

    def agreements(self, configs: Mapping[str, Any]) -> list[Agreement]:
        """Vocabulary and length of captions of base and upsampler."""
        found, mine = [], self.config.text
        for name, config in configs.items():
            if (text := getattr(config, "text", None)) is not None and config.kind == "upsampler_glide":
                found += [
                    Agreement(name, "a vocabulary of", text.vocabulary, "decoder", mine.vocabulary),
                    Agreement(name, "captions of so many tokens:", text.context, "decoder", mine.context),
                ]
        return found


def known_hint(known: InpaintingReference) -> Float[Tensor, "b 4 h w"]:
    """What networks trained to inpaint read: the known pixels and their mask."""
    return torch.cat([known.pixels * known.mask, known.mask], dim=1)


class GlideConditioner:
    """Tokens of captions; the null condition has the negative captions' or none. For base and upsampler."""

    def __init__(self, network: Glide):
        self.network = network

    def __call__(self, given: Condition, *, guided: bool) -> Contexts:
        """Contexts of a batch. Raises `ValueError` without captions and without the empty one."""
        captions = given.captions or given.empty
        if captions is None or (guided and given.negative is None and given.empty is None):
            raise ValueError("GLIDE reads captions: give some, and the empty one")
        rows = max(len(one) for one in (captions.tokens, given.hint, given.low) if one is not None)
        context = self._read(captions, given, rows)
        if not guided:
            return Contexts(context, None)
        away = given.negative or given.empty
        assert away is not None
        return Contexts(context, self._read(away, given, rows))

    def _read(self, captions: Captions, given: Condition, rows: int) -> Any:
        tokens = captions.tokens.expand(rows, -1) if len(captions.tokens) == 1 else captions.tokens
        hint = given.hint
        hint = hint.expand(rows, -1, -1, -1) if hint is not None and len(hint) == 1 else hint
        return self.network.encode(GlideCondition(tokens, hint, given.low))


TEMPERATURE = 0.997
"""Factor of the noise that the upsampler starts from (`upsample_temp` of the authors' notebook)."""
FAST = 27
"""Number of steps that the authors space by hand."""


class GlideUpsamplerRenderer(Renderer):
    """Renderer of the upsampler: a little less noise at the start, and the authors' spacing of 27 steps."""

    def grid(self, steps: int, spacing: Any = None) -> Float[Tensor, " levels"]:
        """Noise levels of `steps` steps, descending to 0; 27 are the authors' "fast27"."""
        table = self.process.table
        if steps != FAST or spacing is not None or table is None or len(table) != 1000:
            return self.process.grid(steps, spacing)
        return fast27(table)

    def noise_state(
        self, noise: NoiseSource, level: float | Tensor, height: int, width: int, device: torch.device
    ) -> Float[Tensor, "b c sh sw"]:
        """State of pure noise at a noise level, times `TEMPERATURE`."""
        return TEMPERATURE * super().noise_state(noise, level, height, width, device)


def fast27(table: NoiseTable) -> Float[Tensor, " levels"]:
    """The levels of sections of 10, 10, 3, 2 and 2 times of a table of 1000, with 997 in place of 999."""
    levels = respaced(table, [10, 10, 3, 2, 2])
    return torch.cat([table.sigmas[997:998], levels[1:]])


def glide_upsampler_renderer(network: GlideUpsampler) -> GlideUpsamplerRenderer:
    """Renderer of GLIDE's upsampler, which has no guidance."""
    return GlideUpsamplerRenderer(
        network=network,
        process=network.config.process.build(),
        codec=PixelCodec(),
        conditioner=GlideConditioner(network),
    )
