"""Multipart forms within bounds: few parts, short fields, files on disk beyond a megabyte."""

import logging
import re
from typing import NamedTuple

from python_multipart.exceptions import FormParserError
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from unclip.serve.guard.errors import ServerError, invalid

MAX_FILES, MAX_FIELDS, MAX_FIELD = 20, 50, 64 * 1024
# It would log every malformed form at the level of warnings.
logging.getLogger("python_multipart").setLevel(logging.ERROR)
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,199}[0-9A-Za-z'()+_,./:=?-]")


class File(NamedTuple):
    """A file of a form."""

    name: str
    type: str
    data: bytes


class Form(NamedTuple):
    """A form's text fields, the last of several with one name; and its files, all of them."""

    fields: dict[str, str]
    files: dict[str, list[File]]


class _Parser(MultiPartParser):
    """Starlette's parser, which also refuses a form that ends before its last boundary, and closes its files."""

    ended = False

    def on_end(self) -> None:
        self.ended = True

    async def parse(self) -> FormData:
        form = await super().parse()
        if not self.ended:
            for file in self._files_to_close_on_error:
                file.close()
            raise MultiPartException("it ends before its last boundary")
        return form


async def read_form(request: Request) -> Form:
    """The multipart form of a request. Raises `ServerError` (400) for damaged forms and those beyond the limits.

    Bytes in all are limited by `LimitBody`. Names of files are only quoted in messages, never used as paths.
    """
    kind = request.headers.get("content-type", "")
    if kind.split(";")[0].strip().lower() != "multipart/form-data":
        raise _no_form(kind)
    _check_boundary(kind)
    fields: dict[str, str] = {}
    files: dict[str, list[File]] = {}
    try:
        form = await _Parser(
            request.headers,
            request.stream(),
            max_files=MAX_FILES,
            max_fields=MAX_FIELDS,
            max_part_size=MAX_FIELD,
        ).parse()
        try:
            for name, value in form.multi_items():
                if isinstance(value, UploadFile):
                    data = await value.read()
                    files.setdefault(name, []).append(
                        File(value.filename or "", value.content_type or "", data)
                    )
                else:
                    fields[name] = value
        finally:
            await form.close()
    except (MultiPartException, FormParserError, ValueError, KeyError) as error:
        raise invalid(f"The multipart form is damaged: {error}", code="invalid_form") from error
    return Form(fields, files)


def _no_form(kind: str) -> ServerError:
    return invalid(
        f"The content type is {kind[:100]!r}: send the pictures as multipart/form-data.",
        code="unsupported_content_type",
    )


def _check_boundary(kind: str) -> None:
    """Refuse a boundary that RFC 2046, section 5.1.1 does not allow; long ones have made parsers slow."""
    found = re.search(r'boundary="([^"]*)"|boundary=([^;\s]*)', kind, re.IGNORECASE)
    boundary = (found[1] or found[2] or "") if found else ""
    if not _BOUNDARY.fullmatch(boundary):
        raise invalid(
            "The boundary of the multipart form is missing or malformed.", param=None, code="invalid_form"
        )
