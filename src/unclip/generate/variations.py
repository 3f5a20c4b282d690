"""Variations of a picture (section 3.1): what z_i holds stays, the rest is drawn anew, all of it or a little."""

from collections.abc import Iterator

from unclip.generate.drawing import Drawing, draw_each, steps_of
from unclip.generate.inversion import invert_source, path_steps
from unclip.generate.picture import Picture
from unclip.generate.progress import Callback, Reporter
from unclip.generate.recipe import Redo, recipe_of
from unclip.generate.settings import Settings, choose_seed, seed_of
from unclip.generate.sources import PictureLike, embed_sources, read_source
from unclip.generate.system import System
from unclip.generate.text_to_image import check_batch_size, check_count, check_size


def vary(
    system: System,
    picture: PictureLike,
    *,
    settings: Settings,
    n: int = 4,
    eta: float | None = None,
    seed: int | None = None,
    size: int | None = None,
    callback: Callback | None = None,
    batch_size: int | None = None,
) -> Iterator[Picture]:
    """`System.vary`, yielding pictures as they are finished."""
    source = read_source(picture)
    count = check_count(n)
    if eta is not None and not 0 <= eta <= 1:
        raise ValueError(f"eta is {eta}: give 0 (the picture itself) to 1 (as much noise as DDPM adds)")
    size = check_size(system, size)
    together = check_batch_size(system, batch_size)
    seed = choose_seed(seed)
    batches = -(-count // together)
    inverted = eta is not None
    steps = batches * steps_of(system, settings, size, inverted=inverted)
    reporter = Reporter(callback, steps + inverted * path_steps(system, settings), count)
    if eta is None:
        z_i, x_T = embed_sources(system, [source])[0], None
    else:
        z_i, x_T = invert_source(system, source, settings, reporter)
    drawings = []
    for index in range(count):
        own = seed_of(seed, index)
        recipe = recipe_of(system, "vary", seed=own, size=size, settings=settings, sources=[source], eta=eta)
        drawings.append(Drawing(z_i, x_T, own, recipe))
    return draw_each(system, drawings, settings, size, reporter, eta=eta or 0.0, together=together)


def again(redo: Redo) -> Picture:
    """A variation made again from its recipe."""
    (source,) = redo.sources()
    eta, size = redo.recipe.get("eta"), redo.told("size")
    return next(vary(redo.system, source.image, n=1, eta=eta, size=size, **redo.common))
