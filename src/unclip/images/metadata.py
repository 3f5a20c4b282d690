"""Picture metadata: provenance for programs, the same for people, and the mark that a model made the picture.

PNG text chunks (PNG specification, section 11.3.3): `parameters`, the readable line that AUTOMATIC1111's web
interface made common; `unclip`, the provenance in JSON; `XML:com.adobe.xmp`, an XMP packet with the IPTC digital
source type (IPTC Photo Metadata Standard 2023.2) that marks synthetic pictures for machines.
"""

import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin

from unclip.images.errors import PictureError
from unclip.images.files import PictureFile, decode, read_file, write_atomically
from unclip.images.headers import header_size
from unclip.images.png import SIGNATURE, Text
from unclip.images.png import read_text as png_text

_CODES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
GENERATED = _CODES + "trainedAlgorithmicMedia"
COMPOSITE = _CODES + "compositeWithTrainedAlgorithmicMedia"
XMP_KEY = "XML:com.adobe.xmp"
# Provenance takes about a thousand bytes; larger chunks come from other programs.
MAX_PROVENANCE = 1_000_000
MAX_DEPTH = 16
"""Levels of nesting in provenance; its own have 5."""


def xmp_packet(source_type: str = GENERATED) -> str:
    """XMP packet with the IPTC digital source type."""
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
    provenance: Mapping[str, Any] | None = None,
    parameters: str | None = None,
    source_type: str | None = GENERATED,
) -> bytes:
    """PNG bytes with the given chunks; the same input gives the same bytes. `source_type` None leaves the mark out."""
    text = PngImagePlugin.PngInfo()
    if parameters is not None:
        text.add_text("parameters", parameters)
    if provenance is not None:
        text.add_text("unclip", json.dumps(provenance))
    if source_type is not None:
        text.add_itxt(XMP_KEY, xmp_packet(source_type))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", pnginfo=text)
    return buffer.getvalue()


def save_picture(
    image: Image.Image,
    path: str | os.PathLike[str],
    *,
    provenance: Mapping[str, Any] | None = None,
    parameters: str | None = None,
    source_type: str | None = GENERATED,
    force: bool = False,
) -> Path:
    """Path of a PNG written with its provenance, whole or not at all. Raises `FileExistsError` unless `force`."""
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise ValueError(f"{path.name!r} does not end in .png, the only format that is written")
    data = encode_png(image, provenance=provenance, parameters=parameters, source_type=source_type)
    return write_atomically(path, data, force=force)


def read_text(source: PictureFile | Any) -> dict[str, str]:
    """Text chunks of a PNG that take up to a megabyte each; empty for other formats. Raises like `open_picture`."""
    return _read_text(source)[1].found


def _read_text(source: PictureFile | Any) -> tuple[str, Text]:
    """Name and text of a picture's file."""
    name, data = read_file(source)
    if not data.startswith(SIGNATURE):
        header_size(data, name)
        return name, Text({}, ())
    decode(data, name)
    return name, png_text(data)


def read_provenance(source: PictureFile | Any) -> dict[str, Any]:
    """Provenance that a picture carries. Raises `PictureError` if it carries none or a damaged one."""
    name, (found, skipped) = _read_text(source)
    text = found.get("unclip")
    if text is None and "unclip" not in skipped:
        raise PictureError(
            f"{name} carries no provenance: only PNG files saved by unclip do, until another program saves them again"
        )
    try:
        provenance = json.loads(text) if text is not None and len(text) <= MAX_PROVENANCE else None
    except (ValueError, RecursionError):
        provenance = None
    if not isinstance(provenance, dict) or not _is_flat(provenance):
        raise PictureError(f"{name} carries damaged provenance")
    return provenance


def fits(provenance: Mapping[str, Any]) -> bool:
    """Whether `read_provenance` reads provenance of this length and depth."""
    return len(json.dumps(provenance)) <= MAX_PROVENANCE and _is_flat(provenance)


def _is_flat(value: Any) -> bool:
    """Whether JSON is nested no deeper than `MAX_DEPTH`, so that all who walk through it can."""
    level = [value]
    for _ in range(MAX_DEPTH):
        inside = (
            one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list)
        )
        level = [item for items in inside for item in items]
        if not level:
            return True
    return False


def read_parameters(source: PictureFile | Any) -> str | None:
    """The readable `parameters` line of a picture, of this program or another one; None if there is none."""
    return read_text(source).get("parameters")
