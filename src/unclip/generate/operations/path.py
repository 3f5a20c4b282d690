"""Fields and checks of operations that draw pictures along a path."""

from typing import Annotated

from unclip.config import Param
from unclip.errors import RequestError
from unclip.generate.request import MAX_PICTURES

Frames = Annotated[int | None, Param("number of pictures on the path", ge=2, le=MAX_PICTURES, metavar="N")]
Thetas = Annotated[
    tuple[float, ...] | None,
    Param("positions on the path, 0 to 1, in place of evenly spaced frames", ge=0, le=1),
]


def path_thetas(
    thetas: tuple[float, ...] | None, frames: int | None, maximum: float = 1.0
) -> tuple[float, ...]:
    """Positions of the pictures: `thetas`, or `frames` evenly spaced ones from 0 to `maximum`.

    Raises `RequestError` for no positions.
    """
    if thetas is None:
        if frames is None:
            raise RequestError("the path has no pictures: give frames, or thetas")
        return tuple(round(maximum * k / (frames - 1), 6) for k in range(frames))
    if not 1 <= len(thetas) <= MAX_PICTURES:
        raise RequestError(f"thetas has {len(thetas)} values: give 1 to {MAX_PICTURES}")
    return thetas
