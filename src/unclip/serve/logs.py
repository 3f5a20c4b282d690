"""Structured logs: one JSON object a line on stderr, with the id of the request that a line belongs to."""

import contextvars
import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import Any

request_id: contextvars.ContextVar[str | None] = contextvars.ContextVar("request_id", default=None)
"""Id of the HTTP request at work, for logs and the `X-Request-ID` header."""

_QUOTED = re.compile(r"'.*'|\".*\"", re.DOTALL)
_STANDARD = set(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName", "color_message"}


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON: time, level, logger, message, request id, and the record's own fields."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if (id := request_id.get()) is not None:
            entry["request_id"] = id
        entry |= {name: value for name, value in record.__dict__.items() if name not in _STANDARD}
        if record.exc_info:
            entry["error"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


class WithoutPrompts(logging.Filter):
    """Takes prompts out of the warnings of the layers below, which quote their beginning."""

    def filter(self, record: logging.LogRecord) -> bool:
        """True, after the record was changed."""
        if record.name.startswith("unclip.generate") and "'" in (text := record.getMessage()):
            record.msg, record.args = _QUOTED.sub("'…'", text), ()
        return True


class WithoutForcedEnd(logging.Filter):
    """Leaves out what uvicorn logs where a second signal ends the application: that was asked for, and is no error."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is a line of the log."""
        text = record.getMessage().rstrip()
        return not (text.startswith("Traceback") and text.endswith("asyncio.exceptions.CancelledError"))


class _Stderr(logging.StreamHandler):  # pyright: ignore[reportMissingTypeArgument]
    """Writes to what is stderr at that moment: the one of the start may be closed by then, as in tests."""

    def __init__(self):
        logging.Handler.__init__(self)

    @property
    def stream(self) -> Any:
        return sys.stderr


def configure_logging(*, debug: bool = False, prompts: bool = False) -> None:
    """Send the logs of unclip and of uvicorn to stderr as JSON; `prompts` leaves those in that warnings quote."""
    handler = _Stderr()
    handler.setFormatter(JsonFormatter())
    handler.addFilter(WithoutForcedEnd())
    if not prompts:
        handler.addFilter(WithoutPrompts())
    for name in ("unclip", "uvicorn", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers = [handler] if name != "uvicorn.error" else []
        logger.propagate = name == "uvicorn.error"
        logger.setLevel(logging.DEBUG if debug else logging.INFO)
