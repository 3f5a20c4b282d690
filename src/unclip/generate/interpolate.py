"""Interpolations between two pictures (section 3.2): z_i goes along the arc from one to the other, x_T too or stays."""

from collections.abc import Iterator, Sequence
from typing import Literal, get_args

from jaxtyping import Float
from torch import Tensor

from unclip.diffusion.paths import slerp
from unclip.generate.drawing import Drawing, draw_each, steps_of
from unclip.generate.inversion import invert_source, path_steps
from unclip.generate.picture import Picture
from unclip.generate.progress import Callback, Reporter
from unclip.generate.recipe import Redo, recipe_of
from unclip.generate.sequence import again_in_sequence
from unclip.generate.settings import Settings, choose_seed
from unclip.generate.sources import PictureLike, embed_sources, read_source
from unclip.generate.system import System
from unclip.generate.text_to_image import check_batch_size, check_count, check_size

NoiseChoice = Literal["inverted", "fixed"]
"""Whether x_T goes from one picture's inversion to the other's, so that the ends are the pictures themselves, or is the
seed's all along."""


def interpolate(
    system: System,
    a: PictureLike,
    b: PictureLike,
    *,
    settings: Settings,
    thetas: Sequence[float],
    noise: str = "inverted",
    seed: int | None = None,
    size: int | None = None,
    callback: Callback | None = None,
    batch_size: int | None = None,
) -> Iterator[Picture]:
    """`System.interpolate` at any `thetas` in [0, 1], yielding pictures as they are finished."""
    if noise not in get_args(NoiseChoice):
        raise ValueError(f"noise {noise!r} is not one of {', '.join(get_args(NoiseChoice))}")
    check_thetas(thetas, 1.0)
    sources = [read_source(a), read_source(b)]
    size = check_size(system, size)
    seed = choose_seed(seed)
    together = check_batch_size(system, batch_size)
    batches = -(-len(thetas) // together)
    inverted = noise == "inverted"
    steps = batches * steps_of(system, settings, size, inverted=inverted)
    reporter = Reporter(callback, steps + 2 * inverted * path_steps(system, settings), len(thetas))
    if inverted:
        ends = [invert_source(system, source, settings, reporter) for source in sources]
        (z_a, x_a), (z_b, x_b) = ends
    else:
        (z_a, z_b), x_a, x_b = embed_sources(system, sources), None, None
    drawings = []
    for theta in thetas:
        x_T = None if x_a is None or x_b is None else between(x_a, x_b, theta)
        recipe = recipe_of(
            system,
            "interpolate",
            seed=seed,
            size=size,
            settings=settings,
            sources=sources,
            theta=theta,
            noise=noise,
        )
        drawings.append(Drawing(between(z_a, z_b, theta), x_T, seed, recipe))
    return draw_each(system, drawings, settings, size, reporter, together=together)


def evenly(steps: int, maximum: float = 1.0) -> list[float]:
    """`steps` thetas from 0 to `maximum`. Raises `ValueError` for fewer than 2."""
    if steps < 2:
        raise ValueError(f"steps is {steps}: a path has 2 or more pictures")
    check_count(steps)
    return [round(maximum * k / (steps - 1), 6) for k in range(steps)]


def check_thetas(thetas: Sequence[float], maximum: float) -> None:
    """Raise `ValueError` unless there are thetas, all of them in [0, maximum]."""
    check_count(len(thetas))
    for theta in thetas:
        if not 0 <= theta <= maximum:
            raise ValueError(f"theta is {theta}: give a number from 0 to {maximum:g}")


def between(a: Float[Tensor, "*shape"], b: Float[Tensor, "*shape"], theta: float) -> Float[Tensor, "*shape"]:
    """`slerp`, with the ends exact."""
    if theta in (0, 1):
        return b if theta else a
    return slerp(a[None], b[None], theta)[0]


def again(redo: Redo) -> Picture:
    """A picture or strip of an interpolation made again from its recipe."""
    a, b = redo.sources([2])

    def make(thetas: Sequence[float]) -> Iterator[Picture]:
        noise, size = redo.told("noise"), redo.told("size")
        return interpolate(
            redo.system, a.image, b.image, thetas=thetas, noise=noise, size=size, **redo.common
        )

    return again_in_sequence(redo, make)
