"""Naming the colour of a drawing, and recolouring an SVG, in the perceptual OKLCh space.

OKLab is Björn Ottosson's 2020 colour space (https://bottosson.github.io/posts/oklab/); OKLCh is its polar form:
lightness L in [0, 1], chroma C (0 for greys, about 0.32 for the purest sRGB blue), hue h in degrees. Hue angles keep
their name as lightness changes, which is what both jobs here need.
"""

import io
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageColor

#: The colours a drawing can be given, as sRGB prototypes.
PALETTE: dict[str, str] = {
    "red": "#dc2626",
    "orange": "#f58216",
    "yellow": "#fbd01e",
    "green": "#3c9f3c",
    "blue": "#2f6be0",
    "purple": "#8a3fc4",
    "pink": "#f77fb5",
    "brown": "#84502c",
    "black": "#303034",
}

#: Every word that :func:`name_of` can answer.
COLOUR_WORDS = (*PALETTE, "white", "grey")

_RGB_TO_LMS = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_LMS_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)
_LAB_TO_LMS = np.linalg.inv(_LMS_TO_LAB)
_LMS_TO_RGB = np.linalg.inv(_RGB_TO_LMS)


def to_oklch(rgb: np.ndarray) -> np.ndarray:
    """sRGB in [0, 1], shape (..., 3), to OKLCh (..., 3): lightness, chroma, hue in degrees [0, 360)."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    lab = np.cbrt(linear @ _RGB_TO_LMS.T) @ _LMS_TO_LAB.T
    chroma = np.hypot(lab[..., 1], lab[..., 2])
    hue = np.degrees(np.arctan2(lab[..., 2], lab[..., 1])) % 360
    return np.stack([lab[..., 0], chroma, hue], axis=-1)


def to_rgb(lch: np.ndarray) -> np.ndarray:
    """OKLCh (..., 3) to sRGB in [0, 1]; colours outside of the gamut are clipped channel by channel."""
    angle = np.radians(lch[..., 2])
    lab = np.stack([lch[..., 0], lch[..., 1] * np.cos(angle), lch[..., 1] * np.sin(angle)], axis=-1)
    linear = np.clip((lab @ _LAB_TO_LMS.T) ** 3 @ _LMS_TO_RGB.T, 0, 1)
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)


def parse(colour: str) -> np.ndarray:
    """A CSS hex or named colour to sRGB in [0, 1], shape (3,); alpha is dropped. Raises ValueError on others."""
    return np.array(ImageColor.getrgb(colour)[:3], dtype=np.float64) / 255


def _hex(rgb: np.ndarray) -> str:
    return "#" + "".join(f"{round(float(value) * 255):02x}" for value in rgb)


def name_of(lightness: float, chroma: float, hue: float) -> str | None:
    """The everyday English word for an OKLCh colour, or None where people disagree (teal, lime, dark olive)."""
    if chroma < 0.045:
        return "black" if lightness < 0.38 else "white" if lightness > 0.93 else "grey"
    if lightness < 0.25:
        return "black"
    if hue >= 335 or hue < 12:
        return "pink" if lightness > 0.62 else "red" if 5 <= hue < 12 else None
    if hue < 45:
        if lightness > 0.76 and hue < 32:
            return "pink"
        if lightness < 0.5 and chroma < 0.105:
            return "brown"
        return (
            "red" if lightness < 0.7 and chroma > 0.12 and hue < 38 else "orange" if chroma > 0.15 else None
        )
    if hue < 82:
        if lightness < 0.64:
            return "brown" if chroma < 0.15 else None
        if hue > 70 and lightness > 0.8:
            return "yellow" if chroma > 0.1 else None
        return "orange" if chroma > 0.12 else None
    if hue < 112:
        return (
            "yellow"
            if lightness > 0.75 and chroma > 0.1
            else "brown"
            if lightness < 0.55 and hue < 95
            else None
        )
    if hue < 168:
        return "green" if hue > 120 or lightness < 0.8 else None
    if hue < 222:
        return None
    if hue < 282:
        return "blue"
    return "purple" if hue < 325 else None


@dataclass(frozen=True, kw_only=True)
class Palette:
    """What one drawing's colours are like, measured on its pixels.

    hue, chroma, lightness: medians of the pixels in the dominant hue window (OKLCh).
    share: how much of the coloured (not grey) area lies in that window; coloured: how much of the drawing is coloured.
    coverage: how much of the canvas the drawing covers. name: the word for the colour if one colour dominates.
    box: left, top, right, bottom of the drawing on the canvas, in [0, 1].
    """

    hue: float
    chroma: float
    lightness: float
    share: float
    coloured: float
    coverage: float
    name: str | None
    box: tuple[float, float, float, float]

    @property
    def recolourable(self) -> bool:
        """Whether one chromatic colour makes up most of the drawing, so that replacing it changes its name."""
        return self.share > 0.62 and self.share * self.coloured > 0.45 and self.coverage > 0.08


def measure(pixels: np.ndarray) -> Palette | None:
    """Measure a drawing: RGBA uint8 (h, w, 4), transparent where nothing is drawn. None for an empty drawing."""
    alpha = pixels[..., 3] / 255.0
    if alpha.sum() < 4:
        return None
    rows, columns = np.nonzero(alpha.max(axis=1) > 0.1)[0], np.nonzero(alpha.max(axis=0) > 0.1)[0]
    if not len(rows) or not len(columns):
        return None
    height, width = alpha.shape
    box = (columns[0] / width, rows[0] / height, (columns[-1] + 1) / width, (rows[-1] + 1) / height)
    solid = alpha > 0.5
    weight = alpha[solid]
    if not len(weight):
        return None
    lch = to_oklch(pixels[solid][:, :3] / 255.0)
    chromatic = (lch[:, 1] > 0.05) & (lch[:, 0] > 0.2)
    coloured = float(weight[chromatic].sum() / weight.sum())
    coverage = float(alpha.mean())
    if coloured < 0.02:
        lightness, chroma, hue = (float(value) for value in np.median(lch, axis=0))
        word = name_of(lightness, min(chroma, 0.04), hue)
        spread = float(np.mean(np.abs(lch[:, 0] - lightness) < 0.16))
        return Palette(hue=hue, chroma=chroma, lightness=lightness, share=0.0, coloured=coloured, coverage=coverage,
                       name=word if spread > 0.6 else None, box=box)  # fmt: skip
    histogram = np.bincount(
        (lch[chromatic, 2] / 10).astype(int) % 36, weights=weight[chromatic], minlength=36
    )
    window = sum(np.roll(histogram, shift) for shift in range(-3, 4))
    centre = (int(np.argmax(window)) + 0.5) * 10
    near = chromatic & (_hue_distance(lch[:, 2], centre) <= 35)
    share = float(weight[near].sum() / weight[chromatic].sum())
    # The circular middle: medians of hue are taken relative to the window's centre.
    hue = (centre + float(np.median((lch[near, 2] - centre + 180) % 360 - 180))) % 360
    lightness, chroma = float(np.median(lch[near, 0])), float(np.median(lch[near, 1]))
    word = name_of(lightness, chroma, hue) if share * coloured > 0.55 and share > 0.7 else None
    return Palette(hue=hue, chroma=chroma, lightness=lightness, share=share, coloured=coloured, coverage=coverage,
                   name=word, box=box)  # fmt: skip


def measure_png(png: bytes) -> Palette | None:
    """:func:`measure` of an encoded PNG."""
    with Image.open(io.BytesIO(png)) as picture:
        return measure(np.asarray(picture.convert("RGBA")))


def _hue_distance(hue: np.ndarray, centre: float) -> np.ndarray:
    return np.abs((hue - centre + 180) % 360 - 180)


def _smoothstep(value: float, low: float, high: float) -> float:
    t = min(max((value - low) / (high - low), 0.0), 1.0)
    return t * t * (3 - 2 * t)


def recolouring(palette: Palette, target: str) -> Callable[[np.ndarray], np.ndarray]:
    """A map of sRGB colours (3,) in [0, 1] that turns the drawing's dominant colour into `target` (a PALETTE word).

    Colours near the dominant hue are moved: their hue offset is kept in part, chroma is scaled, and lightness follows a
    line through the two anchor colours, so that shading survives. Neutral colours and other hues stay; the change fades
    in smoothly between them, so that gradients stay gradients.
    """
    if target not in PALETTE:
        raise ValueError(f"cannot recolour to {target!r}: choose one of {', '.join(PALETTE)}")
    to_l, to_c, to_h = to_oklch(parse(PALETTE[target]))
    ratio = min(to_c / max(palette.chroma, 0.05), 2.5)

    def change(rgb: np.ndarray) -> np.ndarray:
        lightness, chroma, hue = to_oklch(rgb)
        offset = (hue - palette.hue + 180) % 360 - 180
        # Light tints and dark shades of the dominant hue have little chroma and still belong to it.
        amount = _smoothstep(chroma, 0.015, 0.05) * (1 - _smoothstep(abs(offset), 42.0, 60.0))
        if amount == 0:
            return rgb
        if lightness <= palette.lightness:
            new_l = to_l * (lightness / max(palette.lightness, 0.05)) ** 0.9
        else:
            slope = min((1 - to_l) / max(1 - palette.lightness, 0.05), 1.25)
            new_l = to_l + (lightness - palette.lightness) * slope
        new_c = min(chroma * ratio, to_c * 1.35)
        moved = to_rgb(np.array([min(new_l, 1.0), new_c, (to_h + 0.35 * offset) % 360]))
        return rgb + (moved - rgb) * amount

    return change


_COLOUR = re.compile(
    r'\b(fill|stroke|stop-color|flood-color|lighting-color|color)="(#[0-9a-fA-F]{3,8}|[a-zA-Z]+)"'
)
_MATRIX = re.compile(r'values="0 0 0 0 ([0-9.]+) 0 0 0 0 ([0-9.]+) 0 0 0 0 ([0-9.]+) ')
_KEYWORDS = {"none", "currentcolor", "inherit", "transparent", "freeze", "remove", "context"}


def map_colours(body: str, change: Callable[[np.ndarray], np.ndarray]) -> str:
    """Apply `change` to every colour in SVG markup: paint attributes, gradient stops, and constant colour matrices."""
    cache: dict[str, str] = {}

    def paint(match: re.Match[str]) -> str:
        attribute, colour = match.groups()
        if colour.lower() in _KEYWORDS:
            return match.group(0)
        if colour not in cache:
            try:
                cache[colour] = _hex(change(parse(colour)))
            except ValueError:
                cache[colour] = colour
        return f'{attribute}="{cache[colour]}"'

    def matrix(match: re.Match[str]) -> str:
        red, green, blue = change(np.array([float(value) for value in match.groups()]))
        return f'values="0 0 0 0 {red:.4f} 0 0 0 0 {green:.4f} 0 0 0 0 {blue:.4f} '

    return _MATRIX.sub(matrix, _COLOUR.sub(paint, body))
