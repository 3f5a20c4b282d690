"""The upsamplers as the end of every drawing: from one size of a system to another, in bounded memory."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from unclip.generate.known import Known
from unclip.generate.progress import Reporter
from unclip.generate.settings import Settings
from unclip.generate.stages import Seeds, upsample
from unclip.generate.system import System
from unclip.networks.tiling import in_tiles
from unclip.networks.upsampler import Upsampler

TILE = 256
"""The side of the pieces in which a large picture is computed, in pixels of the net: of one with patches, in patches."""


def chain(system: System, start: int, size: int) -> list[Upsampler]:
    """The upsamplers that lead from pictures of `start` pixels to ones of `size`."""
    found = []
    for upsampler in system.upsamplers:
        if start < size and upsampler.config.low_size == start:
            found.append(upsampler)
            start = upsampler.config.high_size
    return found


def chain_steps(system: System, settings: Settings, upsamplers: Sequence[Upsampler]) -> int:
    """How many sampling steps these upsamplers take."""
    return sum(settings.upsampling(system.upsamplers.index(one)).steps for one in upsamplers)


def enlarge_steps(system: System, settings: Settings, size: int) -> int:
    """How many sampling steps the upsamplers take from the decoder's size to `size`."""
    return chain_steps(system, settings, chain(system, system.decoder.config.size, size))


def enlarge(
    system: System,
    pixels: Float[Tensor, "b 3 h w"],
    seeds: Seeds,
    size: int,
    settings: Settings,
    reporter: Reporter,
    first: int = 0,
    *,
    known: Known | None = None,
) -> Float[Tensor, "b 3 h_high w_high"]:
    """Pictures of the decoder's size (or an upsampler's), brought to `size` by the upsamplers that lead there.

    `known` holds what is there already, at `size`: the upsamplers draw the rest to fit it.
    """
    for upsampler in chain(system, pixels.shape[-1], size):
        # With root-mean-square norms tiles are exact; other norms measure the whole picture.
        tile = TILE if upsampler.config.net.norm == "rms" else None
        anchor = None if known is None else known.at(upsampler.config.high_size)
        pixels = run_upsampler(
            system, upsampler, pixels, seeds, settings, reporter, first, tile, known=anchor
        )
    return pixels


def run_upsampler(
    system: System,
    upsampler: Upsampler,
    pixels: Float[Tensor, "b 3 h w"],
    seeds: Seeds,
    settings: Settings,
    reporter: Reporter,
    first: int = 0,
    tile: int | None = None,
    *,
    known: Known | None = None,
) -> Float[Tensor, "b 3 h_high w_high"]:
    """Pictures once enlarged, in tiles of `tile` of the net's own pixels where the net has no attention."""
    steps, sampler = settings.upsampling(system.upsamplers.index(upsampler))
    net = upsampler.config.net
    with system.precision(upsampler):
        # Not before: with offloading the weights come and go.
        network = upsampler if tile is None or net.attention_levels else in_tiles(upsampler, tile * net.patch)
        walk = upsample(network, pixels, seeds, steps=steps, sampler=sampler, known=known)
        return reporter.follow(walk, "upsampler", steps, first)
