"""Placing drawings on a canvas in vector space, and rasterising the result with resvg."""

import importlib.util
import io
import math
import re
from dataclasses import dataclass

import numpy as np
from PIL import Image

from unclip.datasets.artwork.drawings import Drawing


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where a drawing goes: centre (x, y) and side of its square in canvas units [0, 1], rotation, mirroring."""

    x: float = 0.5
    y: float = 0.5
    side: float = 1.0
    degrees: float = 0.0
    mirrored: bool = False

    @property
    def augmentation(self) -> list[float]:
        """log2 of the side, rotation in radians, shift right, shift down, mirrored: all zero for an untouched drawing."""
        return [
            round(math.log2(self.side), 4),
            round(math.radians(self.degrees), 4),
            round(self.x - 0.5, 4),
            round(self.y - 0.5, 4),
            float(self.mirrored),
        ]


_IDS = re.compile(r'\bid="([^"]+)"')


def _own_ids(body: str, prefix: str) -> str:
    """Give every id of a drawing a prefix, so that two drawings on one canvas cannot take each other's gradients."""
    for name in set(_IDS.findall(body)):
        quoted = re.escape(name)
        body = re.sub(rf'\bid="{quoted}"', f'id="{prefix}{name}"', body)
        body = re.sub(rf"url\(#{quoted}\)", f"url(#{prefix}{name})", body)
        body = re.sub(rf'href="#{quoted}"', f'href="#{prefix}{name}"', body)
    return body


def document(layers: list[tuple[Drawing, str, Placement]]) -> str:
    """One SVG of a unit canvas with each (drawing, its body as recoloured, placement) on it, the first at the back."""
    parts = []
    for number, (drawing, body, place) in enumerate(layers):
        scale = place.side / max(drawing.width, drawing.height)
        flip = -1 if place.mirrored else 1
        transform = (
            f"translate({place.x:.5f} {place.y:.5f}) rotate({place.degrees:.3f}) scale({flip * scale:.7f} {scale:.7f})"
            f" translate({-drawing.width / 2:g} {-drawing.height / 2:g})"
        )
        own = _own_ids(body, f"d{number}-") if len(layers) > 1 else body
        parts.append(f'<g transform="{transform}">{own}</g>')
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="0 0 1 1">'
        + "".join(parts)
        + "</svg>"
    )


def rasterise(svg: str, size: int, background: str | None = "#ffffff") -> Image.Image:
    """An SVG as a picture of size x size: RGB on `background`, or RGBA where it is None.

    Raises ImportError naming the extra when resvg-py is missing, ValueError for broken SVG.
    """
    if importlib.util.find_spec("resvg_py") is None:
        raise ImportError("drawing SVG needs resvg-py: install it with `pip install 'unclip[data]'`")
    import resvg_py

    png = resvg_py.svg_to_bytes(
        svg_string=svg, width=size, height=size, background=background, skip_system_fonts=True
    )
    with Image.open(io.BytesIO(bytes(png))) as picture:
        return picture.convert("RGBA" if background is None else "RGB")


def pixels(svg: str, size: int) -> np.ndarray:
    """An SVG on a transparent canvas as RGBA uint8 (size, size, 4)."""
    return np.asarray(rasterise(svg, size, background=None))


def encode_png(picture: Image.Image) -> bytes:
    """PNG bytes without any metadata, the same for the same pixels."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()
