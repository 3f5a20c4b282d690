"""Colour profiles: pictures are converted to sRGB when they are read, so that they look as they did."""

import contextlib
import functools
import io
import warnings
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from unclip.images import colour_spaces
from unclip.images.errors import PictureWarning
from unclip.images.png import MAX_PROFILE

SAME = 2
"""Difference, of 255, up to which a profile counts as sRGB: profiles of sRGB differ so much by their rounding."""

_SPACES = {b"RGB ": "RGB", b"GRAY": "L", b"CMYK": "CMYK"}


class Transform(NamedTuple):
    """Conversion of pictures of `mode` to sRGB; None where the profile is sRGB itself."""

    mode: str
    apply: Any


def named_profile(image: Image.Image, name: str) -> bytes | None:
    """ICC profile of the colour space that a picture names, None for sRGB or where it names none.

    The order is PNG's (third edition, section 4.3): cICP, an embedded profile, sRGB, gAMA with cHRM; then what EXIF says.
    A space that cannot be converted from is passed over with a `PictureWarning`.
    """
    info = image.info
    embedded = info.get("icc_profile")
    try:
        if isinstance(code_points := info.get("cicp"), bytes):
            try:
                return colour_spaces.of_cicp(code_points)
            except colour_spaces.Unusable:
                if not isinstance(embedded, bytes):
                    raise
        if isinstance(embedded, bytes):
            return embedded
        if "srgb" in info:
            return None
        if "gamma" in info:
            return colour_spaces.of_gamma(info["gamma"], _chromaticity(info.get("chromaticity")))
    except colour_spaces.Unusable as error:
        warnings.warn(f"{name}: {error}: its colours are taken for sRGB", PictureWarning, stacklevel=3)
        return None
    return _of_exif(image)


def _chromaticity(values: Any) -> colour_spaces.Primaries | None:
    """White point and primaries of cHRM, eight numbers."""
    if values is None or len(values) != 8:
        return None
    return colour_spaces.Primaries(*((float(x), float(y)) for x, y in zip(values[::2], values[1::2])))


def _of_exif(image: Image.Image) -> bytes | None:
    if "exif" not in image.info:
        return None
    # A damaged block raises errors of many types; its reader of the orientation warns of it.
    with contextlib.suppress(Exception):
        exif = image.getexif()
        return colour_spaces.of_exif(exif.get_ifd(0x8769), exif.get_ifd(0xA005))
    return None


def to_srgb(image: Image.Image, profile: bytes | None, name: str) -> Image.Image:
    """RGB or RGBA in sRGB from a picture of mode L, LA, RGB, RGBA or CMYK with an ICC profile, or without one.

    Colours that sRGB does not have become the nearest it has. A profile that cannot be used is passed over with a
    `PictureWarning`.
    """
    clear = image.mode in ("LA", "RGBA")
    plain = image.convert("RGBA" if clear else "RGB")
    if profile is None:
        return plain
    mode = {"LA": "L", "RGBA": "RGB"}.get(image.mode, image.mode)
    try:
        transform = _transform(profile, mode)
        if transform.apply is None:
            return plain
        colours = image.getchannel("L") if image.mode == "LA" else image
        converted = transform.apply.apply(colours.convert(transform.mode))
    # The library raises errors of many types, its own among them; all mean that the profile is of no use.
    except Exception as error:
        warnings.warn(
            f"{name} has a colour profile that cannot be used ({error}): its colours are taken for sRGB",
            PictureWarning,
            stacklevel=2,
        )
        return plain
    if clear:
        converted.putalpha(plain.getchannel("A"))
    return converted


@functools.lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> Transform:
    """Conversion to sRGB. Raises `ValueError` for a profile that is damaged or made for other pictures."""
    from PIL import ImageCms

    if not profile or len(profile) > MAX_PROFILE:
        raise ValueError("it is damaged or too large")
    space = _SPACES.get(profile[16:20])
    if space is None or (space != mode and (space, mode) != ("RGB", "L")):
        found = profile[16:20].decode("latin-1").strip()
        raise ValueError(f"it is for {found!r}, the picture is {mode}")
    apply = ImageCms.buildTransform(
        ImageCms.ImageCmsProfile(io.BytesIO(profile)),
        ImageCms.createProfile("sRGB"),
        space,
        "RGB",
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    samples = _samples(space)
    if samples is not None:
        before, after = (
            np.asarray(one, dtype=np.int16) for one in (samples.convert("RGB"), apply.apply(samples))
        )
        if np.abs(before - after).max() <= SAME:
            return Transform(space, None)
    return Transform(space, apply)


def _samples(space: str) -> Image.Image | None:
    """A picture of many colours of a space, to tell whether its profile is sRGB."""
    if space == "CMYK":
        return None
    if space == "L":
        return Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    levels = np.linspace(0, 255, 33).round().astype(np.uint8)
    return Image.fromarray(np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(33, -1, 3))
