"""Pictures of any size enlarged by the upsamplers alone (section 2.1), in tiles where they are large."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from unclip.generate.enlarge import TILE, chain_steps, run_upsampler
from unclip.generate.picture import Picture
from unclip.generate.progress import Callback, Reporter
from unclip.generate.recipe import Redo, recipe_of
from unclip.generate.settings import Settings, choose_seed
from unclip.generate.sources import PictureLike, read_source
from unclip.generate.system import System
from unclip.images.files import MAX_PIXELS, resize
from unclip.images.tensors import to_image, to_tensor
from unclip.networks.upsampler import Upsampler


def upscale(
    system: System,
    picture: PictureLike,
    *,
    settings: Settings,
    size: int | None = None,
    seed: int | None = None,
    callback: Callback | None = None,
    tile: int = TILE,
) -> Picture:
    """`System.upscale`. `tile` is the side of the pieces in which a large picture is computed, as `enlarge.TILE`."""
    source = read_source(picture)
    width, height = source.image.size
    upsamplers, target = plan(system, width, height, size)
    seed = choose_seed(seed)
    reporter = Reporter(callback, chain_steps(system, settings, upsamplers), 1)
    pixels = to_tensor(source.image)[None].to(system.device)
    for upsampler in upsamplers:
        pixels = enlarge_any(system, upsampler, pixels, seed, settings, reporter, tile)
    recipe = recipe_of(
        system,
        "upscale",
        seed=seed,
        size=target,
        settings=settings,
        sources=[source],
        asked=size,
    )
    return Picture(image=resize(to_image(pixels[0]), target), recipe=recipe)


def plan(
    system: System, width: int, height: int, size: int | None
) -> tuple[list[Upsampler], tuple[int, int]]:
    """The upsamplers that bring a picture to a longer side of `size`, and the width and height that it then has.

    First comes the upsampler that was made for pictures of such a size: the last whose small pictures are no longer.
    None runs it alone; where it and those after it do not reach `size`, an earlier one begins. Raises `ValueError`
    where the model has no upsampler, or not enough of them, and for sizes that are no enlargement or too large.
    """
    every, longer = system.upsamplers, max(width, height)
    if not every:
        raise ValueError(f"the model {system.name!r} has no upsampler: it cannot enlarge pictures")
    begin = max((index for index, one in enumerate(every) if one.config.low_size <= longer), default=0)
    while begin > 0 and size is not None and longer * _factor(every[begin:]) < size:
        begin -= 1
    end = begin + 1
    while end < len(every) and longer * _factor(every[begin:end]) < (size or 0):
        end += 1
    found, most = every[begin:end], longer * _factor(every)
    factor = _factor(found)
    size = longer * factor if size is None else size
    if not longer < size <= longer * factor:
        raise ValueError(
            f"a picture of {width}x{height} can be brought to a longer side of {longer + 1} to {most} by "
            f"{system.name!r}, not {size}"
        )
    if width * height * factor**2 > MAX_PIXELS:
        raise ValueError(
            f"{width}x{height} times {factor} has more than {MAX_PIXELS / 1e6:g} megapixels: give a smaller picture"
        )
    scale = size / longer
    return found, (max(1, round(width * scale)), max(1, round(height * scale)))


def _factor(upsamplers: Sequence[Upsampler]) -> int:
    return math.prod(one.config.factor for one in upsamplers)


@torch.no_grad()
def enlarge_any(
    system: System,
    upsampler: Upsampler,
    pixels: Float[Tensor, "1 3 h w"],
    seed: int,
    settings: Settings,
    reporter: Reporter,
    tile: int,
) -> Float[Tensor, "1 3 h_high w_high"]:
    """A picture of any size, once enlarged; its last pixels are repeated to what the net can divide.

    In tiles it is the same to rounding where the net has root-mean-square norms; group norms (Karlo's) measure each tile.
    """
    config = upsampler.config
    step = config.net.divisor // math.gcd(config.net.divisor, config.factor)
    height, width = pixels.shape[-2:]
    padded = F.pad(pixels, (0, -width % step, 0, -height % step), mode="replicate")
    large = run_upsampler(system, upsampler, padded, [seed], settings, reporter, tile=tile)
    return large[..., : height * config.factor, : width * config.factor]


def again(redo: Redo) -> Picture:
    """An enlarged picture made again from its recipe."""
    (source,) = redo.sources()
    return upscale(redo.system, source.image, size=redo.recipe.get("asked"), **redo.common)
