"""A picture drawn again from its own (z_i, x_T): how much of it the two hold."""

from unclip.generate.drawing import Drawing, decode_drawings, finish, steps_of
from unclip.generate.inversion import invert_source, path_steps, psnr
from unclip.generate.picture import Picture
from unclip.generate.progress import Callback, Reporter
from unclip.generate.recipe import Redo, recipe_of
from unclip.generate.settings import Settings, choose_seed
from unclip.generate.sources import PictureLike, read_source
from unclip.generate.system import System
from unclip.generate.text_to_image import check_size


def reconstruct(
    system: System,
    picture: PictureLike,
    *,
    settings: Settings,
    seed: int | None = None,
    size: int | None = None,
    callback: Callback | None = None,
) -> Picture:
    """`System.reconstruct`. The recipe's `psnr` compares with the original at the decoder's size, in dB."""
    source = read_source(picture)
    size = check_size(system, size)
    seed = choose_seed(seed)
    steps = path_steps(system, settings) + steps_of(system, settings, size, inverted=True)
    reporter = Reporter(callback, steps, 1)
    inversion = invert_source(system, source, settings, reporter)
    recipe = recipe_of(system, "reconstruct", seed=seed, size=size, settings=settings, sources=[source])
    drawing = Drawing(inversion.z_i, inversion.x_T, seed, recipe)
    small = decode_drawings(system, [drawing], settings, reporter)
    recipe["psnr"] = round(psnr(small[0].cpu(), source.square(small.shape[-1])), 2)
    return finish(system, [drawing], small, settings, size, reporter)[0]


def again(redo: Redo) -> Picture:
    """A reconstruction made again from its recipe."""
    (source,) = redo.sources()
    return reconstruct(redo.system, source.image, size=redo.told("size"), **redo.common)
