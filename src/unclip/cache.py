"""The user's folder for what can be made again, and small JSON files in it. No torch."""

import contextlib
import json
import os
import secrets
import sys
from pathlib import Path
from typing import Any


def cache_folder() -> Path:
    """The user's folder for what unclip can make again: `UNCLIP_CACHE`, else the system's place for it."""
    if given := os.environ.get("UNCLIP_CACHE"):
        return Path(given)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "unclip"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "unclip" / "Cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "unclip"


def read_cached(name: str) -> Any:
    """The JSON of a file in the cache; None where there is none, or none that can be read."""
    try:
        return json.loads((cache_folder() / name).read_text(encoding="utf-8"))
    except (OSError, RuntimeError, ValueError):
        return None


def write_cached(name: str, data: Any) -> None:
    """Write JSON into the cache, whole or not at all; a folder that cannot be written to is left as it is."""
    with contextlib.suppress(OSError, RuntimeError):
        path = cache_folder() / name
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
        try:
            new.write_text(json.dumps(data, indent=1), encoding="utf-8")
            new.replace(path)
        finally:
            new.unlink(missing_ok=True)
