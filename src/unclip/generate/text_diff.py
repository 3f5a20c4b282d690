"""Text diffs (section 3.3): a picture led along the difference of two captions, with all else kept."""

from collections.abc import Iterator, Sequence

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from unclip.generate.drawing import Drawing, draw_each, steps_of
from unclip.generate.interpolate import between, check_thetas
from unclip.generate.inversion import invert_source, path_steps
from unclip.generate.picture import Picture
from unclip.generate.progress import Callback, Reporter
from unclip.generate.recipe import Redo, recipe_of
from unclip.generate.sequence import again_in_sequence
from unclip.generate.settings import Settings, choose_seed
from unclip.generate.sources import PictureLike, read_source
from unclip.generate.system import System
from unclip.generate.text_to_image import check_batch_size, check_size

MAXIMUM = 0.5
"""How far along the arc to the difference a path goes; the paper's lie in [0.25, 0.5]."""


def text_diff(
    system: System,
    picture: PictureLike,
    *,
    target: str,
    source: str = "",
    settings: Settings,
    thetas: Sequence[float],
    seed: int | None = None,
    size: int | None = None,
    callback: Callback | None = None,
    batch_size: int | None = None,
) -> Iterator[Picture]:
    """`System.text_diff` at any `thetas` in [0, 1], yielding pictures as they are finished."""
    if not target.strip():
        raise ValueError("the target caption is empty: say what the picture is to become")
    check_thetas(thetas, 1.0)
    given = read_source(picture)
    size = check_size(system, size)
    seed = choose_seed(seed)
    together = check_batch_size(system, batch_size)
    batches = -(-len(thetas) // together)
    steps = path_steps(system, settings) + batches * steps_of(system, settings, size, inverted=True)
    z_d = difference(system, target, source)
    reporter = Reporter(callback, steps, len(thetas))
    z_i, x_T = invert_source(system, given, settings, reporter)
    # On the sphere of z_i, should CLIP's embeddings have no unit length.
    z_d = z_d * z_i.norm()
    drawings = []
    for theta in thetas:
        recipe = recipe_of(
            system,
            "text_diff",
            seed=seed,
            size=size,
            settings=settings,
            sources=[given],
            prompt=target,
            baseline=source,
            theta=theta,
        )
        drawings.append(Drawing(between(z_i, z_d, theta), x_T, seed, recipe))
    return draw_each(system, drawings, settings, size, reporter, together=together)


def difference(system: System, target: str, source: str) -> Float[Tensor, " d"]:
    """z_d = norm(z_t - z_t0), on the system's device. Raises `ValueError` for captions that mean the same to CLIP."""
    z_t, z_t0 = system.embed_text([target, source]).to(system.device)
    apart = z_t - z_t0
    if apart.norm() < 1e-4 * z_t.norm():
        raise ValueError(
            f"the captions {source!r} and {target!r} are the same to CLIP: there is no way to go"
        )
    return normalize(apart, dim=-1)


def again(redo: Redo) -> Picture:
    """A picture or strip of a text diff made again from its recipe."""
    (given,) = redo.sources()

    def make(thetas: Sequence[float]) -> Iterator[Picture]:
        return text_diff(
            redo.system,
            given.image,
            target=redo.told("prompt"),
            source=redo.told("baseline"),
            thetas=thetas,
            size=redo.told("size"),
            **redo.common,
        )

    return again_in_sequence(redo, make)
