"""Uploaded pictures of a call: which parts they come in, what `dall-e-2` accepted, masks, and squares."""

import base64
import binascii
from typing import Any

from PIL import Image

from unclip.images.errors import PictureError
from unclip.images.files import centre_crop
from unclip.images.png import SIGNATURE
from unclip.serve.guard.errors import ServerError, invalid
from unclip.serve.guard.forms import File
from unclip.serve.guard.pictures import Given, check_header, decoding, read_picture
from unclip.serve.openai.calls import Call
from unclip.serve.openai.fields import missing
from unclip.serve.openai.options import Options

_PLAIN = ("", "application/octet-stream", "binary/octet-stream")
"""Content types of clients that do not say what they send; the bytes tell."""
_PICTURES = ("image/png", "image/jpeg", "image/jpg", "image/webp")


async def read_pictures(call: Call, files: dict[str, list[File]], options: Options) -> list[bytes]:
    """The pictures of an edit or a variation, as plain PNG files: the picture, then the mask where one is given.

    Raises `ServerError`: for another number of files, format or size in bytes, a picture that is not square (unless
    `fit` is given), a mask of another size, and an edit that says nowhere where to draw.
    """
    image = await _read("image", _one("image", files, options), options)
    masks = [] if call.endpoint == "variations" else files.get("mask", [])
    if len(masks) > 1:
        raise invalid("Invalid 'mask': one file is expected.", param="mask", code="invalid_type")
    mask = await _read("mask", masks[0], options) if masks else None
    if mask is not None and mask.image.size != image.image.size:
        raise invalid(
            f"Invalid mask image size: the mask is {_size(mask)} and the image {_size(image)}; make them the same size.",
            param="mask",
            code="invalid_image_size",
        )
    given = [image] if mask is None else [image, mask]
    if image.image.width != image.image.height:
        if call.fit is None:
            raise invalid(
                f"Uploaded image must be square, and it is {_size(image)}: make it square, or give fit='crop' or "
                "fit='pad'.",
                param="image",
                code="invalid_image_size",
            )
        given = [Given(_squared(one.image, call.fit)) for one in given]
    if call.endpoint == "edits":
        _check_hole(given)
    return [await decoding(lambda one=one: one.png) for one in given]


def data_files(value: Any, name: str, options: Options) -> list[File]:
    """Files of a JSON body: `{"image_url": "data:..."}`, or a list of them. Nothing is ever fetched from an address."""
    items = value if isinstance(value, list) else [value]
    found = []
    for item in items[:20]:
        url = item.get("image_url") if isinstance(item, dict) else item
        if not isinstance(url, str) or not url.startswith("data:"):
            raise invalid(
                f"Invalid '{name}': give the picture itself, as a data: URL or as a file of a form. This server fetches "
                "nothing from addresses, and keeps no files by id.",
                param=name,
                code="invalid_image_url",
            )
        head, _, text = url[5:].partition(",")
        try:
            if not head.endswith(";base64") or len(text) > 2 * options.most_bytes:
                raise ValueError
            data = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            raise invalid(
                f"Invalid '{name}': the data: URL is no base64 of a picture within the limit.", param=name
            ) from None
        found.append(File("", head.removesuffix(";base64").split(";")[0], data))
    return found


def _one(name: str, files: dict[str, list[File]], options: Options) -> File:
    listed = files.get(f"{name}[]", [])
    if options.strict and listed:
        raise invalid(
            f"Invalid type for '{name}': expected a file, but got an array instead.",
            param=name,
            code="invalid_type",
        )
    found = [*files.get(name, []), *listed]
    if not found:
        raise missing(name)
    if len(found) > 1:
        raise invalid(
            f"Invalid '{name}': one file is expected, and {len(found)} were given.",
            param=name,
            code="invalid_type",
        )
    return found[0]


async def _read(name: str, file: File, options: Options) -> Given:
    _check_type(name, file, options)
    if len(file.data) > options.most_bytes or (options.strict and not file.data.startswith(SIGNATURE)):
        raise _not_accepted(name, options)
    try:
        check_header(file.data, f"the {name}", max_side=options.max_side)
        return await read_picture(file.data, f"the {name}", max_side=options.max_side)
    except PictureError as error:
        text = str(error)
        raise invalid(
            f"{_not_accepted(name, options).message} {text[0].upper()}{text[1:]}.",
            param=name,
            code="invalid_image",
        ) from error


def _check_type(name: str, file: File, options: Options) -> None:
    kind = file.type.split(";")[0].strip().lower()
    # OpenAI took masks of any type, and pictures of none before 2023; clients of that year still send none.
    allowed = ("image/png",) if options.strict and name == "image" else (*_PICTURES, *_PLAIN)
    if kind not in allowed:
        listed = "'image/png'" if options.strict else "'image/png', 'image/jpeg' and 'image/webp'"
        raise invalid(
            f"Invalid file '{name}': unsupported mimetype ('{file.type[:100]}'). Supported file formats are {listed}.",
            param=name,
            code="unsupported_file_mimetype",
        )


def _not_accepted(name: str, options: Options) -> ServerError:
    megabytes = f"{options.most_bytes / 1e6:g}"
    formats = "a PNG" if options.strict else "a PNG, JPEG or WebP"
    return invalid(
        f"Uploaded {name} must be {formats} and less than {megabytes} MB.", param=name, code="invalid_image"
    )


def _check_hole(given: list[Given]) -> None:
    """Raise `ServerError` unless a pixel of the mask, or of the picture where there is none, is fully transparent."""
    image = given[-1].image
    if image.mode == "RGBA" and image.getchannel("A").getextrema()[0] == 0:
        return
    if len(given) > 1:
        raise invalid(
            "Invalid mask image: no pixel of it is fully transparent. Make the mask transparent (alpha 0) where to draw, "
            "and opaque elsewhere.",
            param="mask",
            code="invalid_mask",
        )
    if image.mode == "RGB":
        raise invalid(
            "Invalid input image - format must be in ['RGBA', 'LA', 'L'], got RGB. Give a mask that is transparent where "
            "to draw, or make the image itself transparent there.",
            param="image",
        )
    raise invalid(
        "Invalid input image: no pixel of it is fully transparent, and no mask is given. Make it transparent (alpha 0) "
        "where to draw.",
        param="image",
    )


def _squared(image: Image.Image, fit: str) -> Image.Image:
    if fit == "crop":
        return centre_crop(image)
    side = max(image.size)
    # What is added is transparent: an edit draws it, as outpainting does.
    square = Image.new("RGBA", (side, side), (255, 255, 255, 0))
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


def _size(given: Given) -> str:
    return f"{given.image.width}x{given.image.height}"
