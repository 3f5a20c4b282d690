"""Every kind of pixels as RGB or RGBA of 8 bits in sRGB, upright: one normalisation for all ways in."""

import warnings

import numpy as np
from PIL import Image, UnidentifiedImageError

from unclip.images.errors import PictureError, PictureWarning
from unclip.images.profiles import named_profile, to_srgb

_ORIENTATION = 0x0112  # EXIF tag (CIPA DC-008, table 4)
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SILENT = frozenset(
    (
        "jfif",
        "jfif_version",
        "jfif_unit",
        "jfif_density",
        "dpi",
        "progressive",
        "progression",
        "adobe",
        "adobe_transform",
    )
)
"""What most JPEG files say of themselves: nothing that changes how pixels are shown."""
_KEYED = ("1", "L", "I;16", "RGB")
_ARRAYS = "give (height, width), or that with 1, 3 or 4 channels last, of uint8 (0 to 255), uint16 (0 to 65535), bool or float (0 to 1)"


def normalise(image: Image.Image, name: str = "the picture") -> Image.Image:
    """`image` in RGB, or RGBA if it has transparency: 8 bits a channel, in sRGB, turned the way its camera says.

    16-bit modes are scaled from 0 .. 65535, F is taken for 0 .. 255 as Pillow does. Raises `PictureError`, naming the
    mode, for values outside of these ranges and for modes that are no pictures.
    """
    if image.mode in ("RGB", "RGBA") and not image.info and not image.getexif():
        return image
    if image.mode == "RGB" and image.info.keys() <= _SILENT and not image.getexif():
        made = image.copy()
        made.info = {}
        return made
    try:
        profile = None if image.mode == "LAB" else named_profile(image, name)
        plain = _plain(_upright(image, name), name)
        made = to_srgb(plain, profile, name)
    except PictureError:
        raise
    except Exception as error:
        raise PictureError(
            f"{name} ({type(image).__name__}, mode {image.mode}) cannot be read: {describe(error)}"
        ) from error
    if made is image:
        made = image.copy()
    # Nothing is left to be applied a second time.
    made.info = {}
    return made


def describe(error: Exception) -> str:
    """What a decoder says, or the type of an error without words; none names an object in memory."""
    if isinstance(error, UnidentifiedImageError):
        return "its header or a chunk of it is broken"
    return str(error) or type(error).__name__


def from_array(array: np.ndarray, name: str = "the picture") -> Image.Image:
    """A picture from an array. Raises `PictureError`, naming type and shape, for one that is none."""
    what = f"{name} is an array of {array.dtype} with the shape {array.shape}"
    if isinstance(array, np.ma.MaskedArray) and np.ma.getmaskarray(array).any():
        raise PictureError(
            f"{what} and a mask, which has no colour: fill it, or give (height, width, 4) with transparency"
        )
    pixels = array[:, :, 0] if array.ndim == 3 and array.shape[2] == 1 else array
    if 0 in pixels.shape or not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))):
        raise PictureError(f"{what}: {_ARRAYS}")
    # The order of bytes is how numbers are stored, not what they are.
    pixels = np.asarray(pixels).astype(pixels.dtype.newbyteorder("="), copy=False)
    if pixels.dtype == np.bool_:
        pixels = pixels.astype(np.uint8) * np.uint8(255)
    elif pixels.dtype == np.uint16:
        pixels = _from_16_bits(pixels)
    elif pixels.dtype.kind == "f":
        if not np.isfinite(pixels).all():
            raise PictureError(f"{what} and holds numbers that are not finite: {_ARRAYS}")
        scaled = np.rint(pixels.astype(np.float64) * 255)
        if scaled.min() < 0 or scaled.max() > 255:
            raise PictureError(f"{what} and holds {pixels.min():.4g} to {pixels.max():.4g}: {_ARRAYS}")
        pixels = scaled.astype(np.uint8)
    elif pixels.dtype != np.uint8:
        raise PictureError(f"{what}: {_ARRAYS}")
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return image.convert("RGB") if image.mode == "L" else image


def _upright(image: Image.Image, name: str) -> Image.Image:
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
        turn = _TURNS.get(orientation)
    # A damaged block of EXIF raises errors of many types; the pixels are sound.
    except Exception as error:
        warnings.warn(
            f"{name} has damaged EXIF data ({error}): it is not turned", PictureWarning, stacklevel=3
        )
        return image
    return image if turn is None else image.transpose(turn)


def _plain(image: Image.Image, name: str) -> Image.Image:
    """The picture in L, LA, RGB, RGBA or CMYK."""
    mode = image.mode
    if mode.startswith("I"):
        return _with_key(Image.fromarray(_from_integers(image, name)), image)
    if mode == "F":
        return Image.fromarray(_from_floats(image, name))
    if mode in ("1", "L", "RGB"):
        return _with_key(image.convert("L") if mode == "1" else image, image)
    if mode in ("LA", "RGBA", "CMYK"):
        return image
    if mode == "La":
        return image.convert("LA")
    if mode in ("P", "PA", "RGBa"):
        return image.convert("RGBA" if image.has_transparency_data else "RGB")
    if mode in ("RGBX", "YCbCr", "HSV", "LAB"):
        return image.convert("RGB")
    raise PictureError(
        f"{name} ({type(image).__name__}) has the mode {mode}, which is not read: convert it to RGB"
    )


def _with_key(plain: Image.Image, image: Image.Image) -> Image.Image:
    """`plain` with the pixels of `image` that have its transparent colour made transparent."""
    key = image.info.get("transparency")
    if key is None or image.mode not in _KEYED:
        return plain
    pixels = np.asarray(image.convert("L") if image.mode == "1" else image)
    matches = (pixels == np.asarray(key)) if pixels.ndim == 2 else (pixels == np.asarray(key)).all(-1)
    # An RGB picture that does not use the colour stays RGB, as if there were none.
    if image.mode == "RGB" and not matches.any():
        return plain
    alpha = Image.fromarray(np.where(matches, 0, 255).astype(np.uint8))
    clear = plain.convert("LA" if plain.mode == "L" else "RGBA")
    clear.putalpha(alpha)
    return clear


def _from_integers(image: Image.Image, name: str) -> np.ndarray:
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65535:
        raise PictureError(
            f"{name} has the mode {image.mode} with values from {values.min()} to {values.max()}: they are read as "
            "16 bits, 0 to 65535; scale them, or convert it to L"
        )
    return _from_16_bits(values)


def _from_16_bits(values: np.ndarray) -> np.ndarray:
    return (values.astype(np.uint32) / 257).round().astype(np.uint8)


def _from_floats(image: Image.Image, name: str) -> np.ndarray:
    values = np.asarray(image)
    what = f"{name} has the mode F"
    if not np.isfinite(values).all():
        raise PictureError(f"{what} with numbers that are not finite: give 0 to 255")
    scaled = np.rint(values)
    if scaled.min() < 0 or scaled.max() > 255:
        raise PictureError(f"{what} with values from {values.min():.4g} to {values.max():.4g}: give 0 to 255")
    if values.max() <= 1 and (scaled != values).any():
        raise PictureError(f"{what} with values from 0 to 1: give 0 to 255")
    return scaled.astype(np.uint8)
