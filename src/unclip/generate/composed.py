"""Pictures put together from several, as on the server's free canvas: what they record, and how they are made again.

Each piece has its own provenance. Most of them continue what lies below: their given picture is a part of the pieces before
them, and is cut out of those again.
"""

import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from PIL import Image as PillowImage

from unclip.config import Param, check, read_field
from unclip.errors import RequestError
from unclip.generate.image import Image
from unclip.generate.provenance import FORMAT
from unclip.generate.replay import Replay, read_replay
from unclip.generate.sources import Source, read_source
from unclip.images.errors import PictureError
from unclip.images.metadata import fits, read_provenance

MAX_PIECES = 256
_MOST = 65_536


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A picture on a canvas: its place, the hash of its pixels (`Source.sha256`), and how it was made, if that is known."""

    left: Annotated[int, Param("pixels from the left of the whole", ge=-_MOST, le=_MOST)]
    top: Annotated[int, Param("pixels from its top", ge=-_MOST, le=_MOST)]
    sha256: str
    provenance: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Composed:
    """A whole of pieces, from the lowest to the uppermost."""

    composed: tuple[Piece, ...]
    size: tuple[int, int]

    @property
    def replays(self) -> list[Replay]:
        """What the pieces record that a model made, those of wholes among them as well."""
        found = []
        for piece in self.composed:
            if piece.provenance is not None:
                inner = piece.provenance
                found += read_composed(inner).replays if is_composed(inner) else [read_replay(inner)]
        return found


def is_composed(provenance: Any) -> bool:
    """Whether provenance is that of a picture put together from several."""
    return isinstance(provenance, Mapping) and "composed" in provenance


def read_composed(provenance: Mapping[str, Any]) -> Composed:
    """The pieces that provenance records, all of them checked. Raises `RequestError` for damage."""
    if provenance.get("provenance") != FORMAT:
        raise RequestError(
            f"the provenance of a composed picture has another format, this version reads {FORMAT}"
        )
    values = {
        name: read_field(Composed, name, provenance.get(name), f"provenance.{name}", error=RequestError)
        for name in ("composed", "size")
    }
    found = Composed(**values)
    if not 1 <= len(found.composed) <= MAX_PIECES:
        raise RequestError(
            f"the provenance has {len(found.composed)} pieces: a picture has 1 to {MAX_PIECES}"
        )
    for piece in found.composed:
        check(piece, RequestError)
    if not all(1 <= side <= _MOST for side in found.size):
        raise RequestError(f"the provenance has the size {list(found.size)}: sides are 1 to {_MOST}")
    found.replays  # noqa: B018 -- each piece's own provenance is checked as well
    return found


def recorded(data: bytes) -> dict[str, Any] | None:
    """Provenance that a file carries, checked; None where there is none that this version reads."""
    try:
        provenance = read_provenance(data)
        if is_composed(provenance):
            read_composed(provenance)
        else:
            read_replay(provenance)
    except (PictureError, RequestError):
        return None
    return provenance


def compose(files: Sequence[tuple[bytes, int, int]], size: tuple[int, int]) -> Image:
    """The whole of some files at their left and top, with what they record about how they were made.

    Where that is too long to be read again, pieces are recorded by their hashes alone.
    """
    read = [(read_source(data), left, top) for data, left, top in files]
    image = put_together([(source.image, left, top) for source, left, top in read], size)
    known = [recorded(data) for data, _, _ in files]
    provenance = _provenance(read, known, size)
    if not fits(provenance):
        provenance = _provenance(read, [None] * len(files), size)
    return Image(image=image, provenance=provenance)


def _provenance(
    read: Sequence[tuple[Source, int, int]],
    known: Sequence[Mapping[str, Any] | None],
    size: tuple[int, int],
) -> dict[str, Any]:
    pieces = [
        {"left": left, "top": top, "sha256": source.sha256, **({} if one is None else {"provenance": one})}
        for (source, left, top), one in zip(read, known)
    ]
    return {
        "provenance": FORMAT,
        "composed": pieces,
        "size": list(size),
        "composite": True,
        "unclip": importlib.metadata.version("unclip"),
    }


def put_together(
    pieces: Sequence[tuple[PillowImage.Image, int, int]], size: tuple[int, int]
) -> PillowImage.Image:
    """Pictures at their left and top, later ones above, on `size` pixels: RGB where they cover all, else RGBA."""
    canvas = PillowImage.new("RGBA", size)
    for image, left, top in pieces:
        made = image.convert("RGBA")
        canvas.paste(made, (left, top), made)
    whole = canvas.getchannel("A").getextrema() == (255, 255)
    return canvas.convert("RGB") if whole else canvas


def draw_again(
    provenance: Mapping[str, Any],
    given: Sequence[Source],
    draw: Callable[[Replay, Sequence[Source]], PillowImage.Image],
) -> Image:
    """The whole, made again piece by piece; `draw` makes a picture from its replay and its given pictures.

    `given` are the pictures that no model made, or that pieces were made from beside the whole, in any order. Raises
    `RequestError` where one is missing.
    """
    image = _draw(read_composed(provenance), {one.sha256: one for one in given}, draw)
    return Image(image=image, provenance=dict(provenance))


def _draw(whole: Composed, known: Mapping[str, Source], draw: Callable[..., Any]) -> PillowImage.Image:
    done: list[tuple[PillowImage.Image, int, int]] = []
    for piece in whole.composed:
        if piece.provenance is None:
            image = _original(piece.sha256, known).image
        elif is_composed(piece.provenance):
            image = _draw(read_composed(piece.provenance), known, draw)
        else:
            replay = read_replay(piece.provenance)
            below = _below(piece, done) if replay.sources else None
            sources = [
                below if below is not None and below.sha256 == name else _original(name, known)
                for name in replay.sources
            ]
            image = draw(replay, sources)
        done.append((image, piece.left, piece.top))
    return put_together(done, whole.size)


def _below(piece: Piece, done: Sequence[tuple[PillowImage.Image, int, int]]) -> Source | None:
    """What lay in the piece's place before it was there."""
    size = piece.provenance and piece.provenance.get("size")
    if not done or not isinstance(size, list) or len(size) != 2:
        return None
    moved = [(image, left - piece.left, top - piece.top) for image, left, top in done]
    return read_source(put_together(moved, (size[0], size[1])))


def _original(sha256: str, known: Mapping[str, Source]) -> Source:
    if sha256 not in known:
        raise RequestError(
            f"a piece was made from a picture with the pixels sha256 {sha256[:16]}, which is not among the {len(known)} given "
            "ones: give it"
        )
    return known[sha256]
