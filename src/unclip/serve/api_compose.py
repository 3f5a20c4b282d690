"""Our own API: pieces of a canvas put together as one picture, or the part of it in a frame."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from starlette.responses import Response
from starlette.routing import BaseRoute

from unclip.config import Param, check
from unclip.errors import RequestError
from unclip.serve.http import Call, json_route

MAX_PIECES = 256
_FARTHEST = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A picture and the place of its left upper corner."""

    id: str
    x: Annotated[int, Param("pixels from the left", ge=-_FARTHEST, le=_FARTHEST)] = 0
    y: Annotated[int, Param("pixels from the top", ge=-_FARTHEST, le=_FARTHEST)] = 0


@dataclass(frozen=True, kw_only=True)
class ComposeBody:
    """Pieces from the lowest to the uppermost; `frame` is left, top, right, bottom, all that the pieces cover if not given."""

    pieces: tuple[Piece, ...]
    frame: tuple[int, int, int, int] | None = None


def compose_pieces(call: Call) -> Response:
    """PNG of the pieces, transparent where there is none.

    It carries the mark of a composite with generated pictures. The whole, that is without a `frame`, also carries how each
    piece was made, as far as the pieces do.
    """
    from unclip.generate.composed import compose, put_together
    from unclip.images import open_picture
    from unclip.images.metadata import COMPOSITE, encode_png

    body, most = call.json(ComposeBody), call.service.settings.max_side
    if not 1 <= len(body.pieces) <= MAX_PIECES:
        raise RequestError(f"pieces has {len(body.pieces)} pictures: give 1 to {MAX_PIECES}")
    for piece in body.pieces:
        check(piece, RequestError)
    if body.frame is not None:
        _check_frame(body.frame, most)
    files = [(piece, call.service.library.source(piece.id)) for piece in body.pieces]
    left, top, right, bottom = _cover(files) if body.frame is None else body.frame
    _check_frame((left, top, right, bottom), most)
    placed = [(data, piece.x - left, piece.y - top) for piece, data in files]
    size = (right - left, bottom - top)
    if body.frame is None:
        png = compose(placed, size).png()
    else:
        image = put_together([(open_picture(data), x, y) for data, x, y in placed], size)
        png = encode_png(image, source_type=COMPOSITE)
    return Response(png, media_type="image/png", headers={"Cache-Control": "no-store"})


def _cover(files: Sequence[tuple[Piece, bytes]]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of all that pieces cover."""
    from PIL import Image

    sizes = [(piece, Image.open(io.BytesIO(data)).size) for piece, data in files]
    return (
        min(piece.x for piece, _ in sizes),
        min(piece.y for piece, _ in sizes),
        max(piece.x + width for piece, (width, _) in sizes),
        max(piece.y + height for piece, (_, height) in sizes),
    )


def _check_frame(frame: tuple[int, int, int, int], most: int) -> None:
    left, top, right, bottom = frame
    if max(map(abs, frame)) > 2 * _FARTHEST or not (left < right and top < bottom):
        raise RequestError(
            f"frame is {list(frame)}: give left, top, right, bottom of a part that is not empty"
        )
    if max(right - left, bottom - top) > most:
        raise RequestError(
            f"the picture would be {right - left}x{bottom - top}: this server makes at most {most} pixels a side"
        )


def routes() -> list[BaseRoute]:
    """The route of compositions."""
    return [json_route("/api/compose", POST=compose_pieces)]
