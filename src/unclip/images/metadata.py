"""What a picture says about itself: its recipe for programs, the same for people, and that a model made it.

PNG text chunks (PNG specification, section 11.3.3): `parameters`, the readable line that AUTOMATIC1111's web
interface made common; `unclip`, the recipe in JSON; `XML:com.adobe.xmp`, an XMP packet with the IPTC digital
source type (IPTC Photo Metadata Standard 2023.2) that marks synthetic pictures for machines.
"""

import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin

from unclip.images.files import PictureError, open_picture, picture_size, write_atomically

_CODES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
GENERATED = _CODES + "trainedAlgorithmicMedia"
COMPOSITE = _CODES + "compositeWithTrainedAlgorithmicMedia"
XMP_KEY = "XML:com.adobe.xmp"
# A recipe is a few hundred bytes; what is larger was not written here.
MAX_RECIPE = 1_000_000


def xmp_packet(source_type: str = GENERATED) -> str:
    """The XMP packet that tells the IPTC digital source type."""
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/">'
        f"<Iptc4xmpExt:DigitalSourceType>{source_type}</Iptc4xmpExt:DigitalSourceType>"
        "</rdf:Description></rdf:RDF></x:xmpmeta>"
        '<?xpacket end="w"?>'
    )


def encode_png(
    image: Image.Image,
    *,
    recipe: Mapping[str, Any] | None = None,
    parameters: str | None = None,
    source_type: str | None = GENERATED,
) -> bytes:
    """PNG bytes with the given chunks; the same input gives the same bytes. `source_type` None leaves the mark out."""
    text = PngImagePlugin.PngInfo()
    if parameters is not None:
        text.add_text("parameters", parameters)
    if recipe is not None:
        text.add_text("unclip", json.dumps(recipe))
    if source_type is not None:
        text.add_itxt(XMP_KEY, xmp_packet(source_type))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", pnginfo=text)
    return buffer.getvalue()


def save_picture(
    image: Image.Image,
    path: str | os.PathLike[str],
    *,
    recipe: Mapping[str, Any] | None = None,
    parameters: str | None = None,
    source_type: str | None = GENERATED,
    force: bool = False,
) -> Path:
    """Write a PNG with its recipe, whole or not at all. Raises `FileExistsError` unless `force`."""
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise ValueError(f"{path.name!r} does not end in .png, the only format that is written")
    data = encode_png(image, recipe=recipe, parameters=parameters, source_type=source_type)
    return write_atomically(path, data, force=force)


def read_text(source: str | os.PathLike[str] | bytes) -> dict[str, str]:
    """All text chunks of a PNG; empty for other formats. Raises like `open_picture`."""
    picture_size(source)
    data = source if isinstance(source, bytes) else Path(source).read_bytes()
    if not data.startswith(b"\x89PNG"):
        return {}
    open_picture(source)
    with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
        assert isinstance(image, PngImagePlugin.PngImageFile)
        return {key: str(value) for key, value in image.text.items()}


def read_recipe(source: str | os.PathLike[str] | bytes) -> dict[str, Any]:
    """The recipe that a picture carries.

    Raises `PictureError` if it carries none or a damaged one.
    """
    name = "the picture" if isinstance(source, bytes) else str(source)
    text = read_text(source).get("unclip")
    if text is None:
        raise PictureError(
            f"{name} carries no recipe: only PNG files that unclip saved, and nobody rewrote, do"
        )
    try:
        recipe = json.loads(text) if len(text) <= MAX_RECIPE else None
    except (ValueError, RecursionError):
        recipe = None
    if not isinstance(recipe, dict):
        raise PictureError(f"{name} carries a damaged recipe")
    return recipe


def read_parameters(source: str | os.PathLike[str] | bytes) -> str | None:
    """The readable `parameters` line of a picture, of this program or another one; None if there is none."""
    return read_text(source).get("parameters")
