"""Colour spaces that picture files name without an ICC profile, as the profile that describes them.

PNG files name theirs by cICP (code points of ITU-T H.273), or by gAMA and cHRM; cameras name Adobe RGB in EXIF alone. Each
becomes a matrix profile of ICC.1:2022, so that one conversion serves all (`unclip.images.profiles`).
"""

import struct
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64

Point = tuple[float, float]
"""Chromaticity (x, y) of CIE 1931."""


class Primaries(NamedTuple):
    """Chromaticities of the white point and of the primaries."""

    white: Point
    red: Point
    green: Point
    blue: Point


class Curve(NamedTuple):
    """Linear light of a value in [0, 1]: (a·value + b)^gamma from `knee` on, slope·value below it."""

    gamma: float
    a: float = 1.0
    b: float = 0.0
    slope: float = 0.0
    knee: float = 0.0


class Unusable(ValueError):
    """A colour space that is named but cannot be converted from; the message says what it is."""


D65: Point = (0.3127, 0.3290)
BT709 = Primaries(D65, (0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
ADOBE = Primaries(D65, (0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
SRGB = Curve(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
ADOBE_GAMMA = Curve(563 / 256)
_CAMERA = Curve(1 / 0.45, 1 / 1.099296826, 0.099296826 / 1.099296826, 1 / 4.5, 0.081242858)

_COLOUR_PRIMARIES = {
    1: BT709,
    4: Primaries((0.310, 0.316), (0.67, 0.33), (0.21, 0.71), (0.14, 0.08)),
    5: Primaries(D65, (0.64, 0.33), (0.29, 0.60), (0.15, 0.06)),
    6: Primaries(D65, (0.630, 0.340), (0.310, 0.595), (0.155, 0.070)),
    7: Primaries(D65, (0.630, 0.340), (0.310, 0.595), (0.155, 0.070)),
    9: Primaries(D65, (0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    11: Primaries((0.314, 0.351), (0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
    12: Primaries(D65, (0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
    22: Primaries(D65, (0.630, 0.340), (0.295, 0.605), (0.155, 0.077)),
}
"""Table 2 of ITU-T H.273."""
_TRANSFERS = {
    1: _CAMERA, 4: Curve(2.2), 5: Curve(2.8), 6: _CAMERA, 8: Curve(1.0), 13: SRGB, 14: _CAMERA, 15: _CAMERA,
}  # fmt: skip
"""Table 3 of ITU-T H.273, without those of high dynamic range."""
_HIGH_RANGE = {16: "PQ", 18: "HLG"}
_D50 = np.array([0.9642, 1.0, 0.8249])
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_SRGB_GAMMA = (0.43, 0.48)
"""Values of gAMA that stand for sRGB's curve, as libpng and browsers take them: it was written for 1/2.2."""


def of_cicp(body: bytes) -> bytes | None:
    """ICC profile of a cICP chunk, None for sRGB. Raises `Unusable` for code points that are no still picture's."""
    if len(body) != 4:
        raise Unusable("cICP is damaged")
    primaries, transfer, matrix, full = body
    if transfer in _HIGH_RANGE:
        raise Unusable(f"it has a high dynamic range ({_HIGH_RANGE[transfer]})")
    if matrix != 0 or full != 1 or primaries not in _COLOUR_PRIMARIES or transfer not in _TRANSFERS:
        raise Unusable(f"cICP {primaries}/{transfer}/{matrix}/{full} is not supported")
    if (primaries, transfer) == (1, 13):
        return None
    return icc_profile(_COLOUR_PRIMARIES[primaries], _TRANSFERS[transfer])


def of_gamma(gamma: float | None, chromaticity: Primaries | None) -> bytes | None:
    """ICC profile of a PNG's gAMA (exponent that encoded it, about 0.45) and cHRM; None for sRGB or without gAMA.

    Raises `Unusable` for values that describe no colour space.
    """
    if gamma is None:
        return None
    if not 0.05 <= gamma <= 5:
        raise Unusable(f"gAMA {gamma:g} is no exponent of a picture")
    curve = SRGB if _SRGB_GAMMA[0] <= gamma <= _SRGB_GAMMA[1] else Curve(1 / gamma)
    if curve is SRGB and (chromaticity is None or np.allclose(chromaticity, BT709, atol=2e-3)):
        return None
    return icc_profile(chromaticity or BT709, curve)


def of_exif(exif: Mapping[int, Any], interoperability: Mapping[int, Any]) -> bytes | None:
    """ICC profile of Adobe RGB where the EXIF of a camera names it (DCF 2.0), otherwise None."""
    index = interoperability.get(1)
    index = index.decode("latin-1") if isinstance(index, bytes) else index
    named = str(index or "").rstrip("\0 ") == "R03"
    return icc_profile(ADOBE, ADOBE_GAMMA) if exif.get(0xA001) == 2 or named else None


def icc_profile(primaries: Primaries, curve: Curve) -> bytes:
    """Display profile of version 4 with three colorants and one curve (ICC.1:2022, sections 7 to 10).

    Raises `Unusable` for chromaticities that span no colour space.
    """
    colorants = _to_d50(primaries)
    if curve.slope:
        values = [curve.gamma, curve.a, curve.b, curve.slope, curve.knee]
        tone = struct.pack(">4sIHH", b"para", 0, 3, 0) + _fixed(*values)
    else:
        tone = struct.pack(">4sIHH", b"para", 0, 0, 0) + _fixed(curve.gamma)
    text = "unclip".encode("utf-16-be")
    label = struct.pack(">4sIII2s2sII", b"mluc", 0, 1, 12, b"en", b"US", len(text), 28) + text
    bodies = {
        b"desc": label,
        b"cprt": label,
        b"wtpt": _xyz(_D50),
        b"rXYZ": _xyz(colorants[:, 0]),
        b"gXYZ": _xyz(colorants[:, 1]),
        b"bXYZ": _xyz(colorants[:, 2]),
        b"rTRC": tone,
        b"gTRC": tone,
        b"bTRC": tone,
    }
    position = 128 + 4 + 12 * len(bodies)
    table, data = struct.pack(">I", len(bodies)), b""
    for tag, body in bodies.items():
        padded = body.ljust(-(-len(body) // 4) * 4, b"\0")
        table += struct.pack(">4sII", tag, position + len(data), len(body))
        data += padded
    head = struct.pack(
        ">II I4s4s4s 6H 4s II II Q I", position + len(data), 0, 0x04300000, b"mntr", b"RGB ", b"XYZ ",
        2026, 1, 1, 0, 0, 0, b"acsp", 0, 0, 0, 0, 0, 0,
    )  # fmt: skip
    return (head + _fixed(*_D50)).ljust(128, b"\0") + table + data


def _to_d50(primaries: Primaries) -> Float64[np.ndarray, "3 3"]:
    """XYZ of the primaries, in columns, adapted from their white to D50 by Bradford's transform."""
    if not all(0 < y <= 1 and -0.5 <= x <= 1.5 for x, y in primaries):
        raise Unusable("cHRM holds no chromaticities")
    white, *rest = (np.array([x / y, 1.0, (1 - x - y) / y]) for x, y in primaries)
    columns = np.stack(rest, axis=1)
    if abs(np.linalg.det(columns)) < 1e-4:
        raise Unusable("cHRM holds three colours on one line")
    colorants = columns * np.linalg.solve(columns, white)
    gains = (_BRADFORD @ _D50) / (_BRADFORD @ white)
    return np.linalg.inv(_BRADFORD) @ np.diag(gains) @ _BRADFORD @ colorants


def _xyz(values: Float64[np.ndarray, " 3"]) -> bytes:
    return struct.pack(">4sI", b"XYZ ", 0) + _fixed(*values.tolist())


def _fixed(*values: float) -> bytes:
    """Signed 15.16 numbers."""
    return struct.pack(f">{len(values)}i", *(round(float(value) * 65536) for value in values))
