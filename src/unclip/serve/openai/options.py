"""Options of the compatible API: names, limits and strictness."""

from dataclasses import dataclass, field
from typing import Annotated

from unclip.config import Param, check
from unclip.errors import RequestError

SIDES = (256, 512, 1024)
"""Sides of the square pictures that `dall-e-2` made."""
MAX_N = 10
MAX_PROMPT = 1000
MAX_PARTIAL = 3
STRICT_BYTES = 4_000_000
"""Bytes of an uploaded picture in OpenAI's API."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the compatible API accepts. `strict` refuses all that `dall-e-2` refused, with OpenAI's words."""

    strict: bool = False
    aliases: dict[str, str] = field(default_factory=lambda: {"dall-e-2": ""})
    """Further names of models -> a served model; the empty name stands for the default one."""
    public_url: str | None = None
    """Address that clients reach the server at, for the URLs of pictures; the request's own checked host if not given."""
    secret: bytes = b""
    """Signs the URLs of pictures; all servers behind one address need the same."""
    url_seconds: Annotated[float, Param("seconds that the URL of a picture works", gt=0)] = 3600.0
    max_picture: Annotated[int, Param("bytes of an uploaded picture", ge=1024)] = 20_000_000
    max_side: Annotated[int, Param("longest side of an uploaded picture in pixels", ge=16)] = 4096
    ping_seconds: Annotated[float, Param("seconds between signs of life in a quiet answer", gt=0)] = 15.0
    header_seconds: Annotated[
        float, Param("seconds after which headers are sent though no picture is finished", gt=0)
    ] = 200.0

    def __post_init__(self) -> None:
        """Raise `RequestError` for a value out of range."""
        check(self, RequestError)

    @property
    def most_bytes(self) -> int:
        """Bytes that an uploaded picture may have."""
        return STRICT_BYTES if self.strict else self.max_picture
