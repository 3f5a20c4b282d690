"""Room on a disk, reserved before anything is written into it, so that a full one is an error with words."""

import contextlib
import errno
import os
import secrets
import shutil
import time
from pathlib import Path

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_UNKNOWN = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS)
_CHUNK = 1 << 24
ABANDONED = 3600.0
"""Seconds after which a file of a temporary name is nobody's."""


class DiskFull(OSError):
    """A disk, or a quota, has no room left; the message names the file, what it needs, and the remedy."""


def reserve(file: Path, size: int, *, what: str, remedy: str, name: Path | None = None) -> None:
    """Give `file` its `size` bytes on the disk; what is in it stays. Raises `DiskFull` saying `what` has no room.

    name: what errors call the file, if it has a temporary name.
    """
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        _allocate(descriptor, size)
    except OSError as error:
        if not is_full(error):
            raise
        raise disk_full(name or file, size, what=what, remedy=remedy) from error
    finally:
        os.close(descriptor)


def require_room(folder: Path, size: int, *, what: str, remedy: str, name: Path) -> None:
    """Raise `DiskFull` unless `size` bytes can be written into `folder` now, quotas included; nothing is left there."""
    room = folder / f".{secrets.token_hex(6)}.room"
    try:
        reserve(room, size, what=what, remedy=remedy, name=name)
    finally:
        room.unlink(missing_ok=True)


def remove_abandoned(folder: Path, pattern: str) -> None:
    """Remove files and folders of a temporary name that nobody has written to for an hour: what killed processes left."""
    for one in folder.glob(pattern):
        with contextlib.suppress(OSError):
            if not is_abandoned(one):
                continue
            if one.is_dir() and not one.is_symlink():
                shutil.rmtree(one)
            else:
                one.unlink()


def is_abandoned(one: Path) -> bool:
    """Whether nothing of a file or a folder was written for an hour."""
    inside = one.rglob("*") if one.is_dir() else ()
    return time.time() - max(each.lstat().st_mtime for each in (one, *inside)) > ABANDONED


def is_full(error: BaseException) -> bool:
    """Whether an error says that a disk or a quota is full, in the words of safetensors too."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _FULL
    return type(error).__name__ == "SafetensorError" and any(
        f"os error {code}" in str(error) for code in _FULL
    )


def disk_full(file: Path, size: int, *, what: str, remedy: str) -> DiskFull:
    """The error for a file that needs `size` bytes."""
    try:
        free = f"{_amount(shutil.disk_usage(file.parent).free)} are free there, or a quota allows less"
    except OSError:
        free = "there is less there"
    return DiskFull(
        errno.ENOSPC,
        f"there is no room for {what}: it needs {_amount(size)}, and {free}: {remedy}",
        str(file),
    )


def _amount(size: int) -> str:
    return f"{size:,} bytes" if size < 1 << 20 else f"{size / 2**20:,.1f} MiB"


def _allocate(descriptor: int, size: int) -> None:
    try:
        os.posix_fallocate(descriptor, 0, size)
    except (AttributeError, OSError) as error:
        # Systems and file systems that cannot reserve are written to.
        if isinstance(error, OSError) and error.errno not in _UNKNOWN:
            raise
        start = 0
        while start < size:
            count = min(_CHUNK, size - start)
            os.lseek(descriptor, start, os.SEEK_SET)
            content = os.read(descriptor, count).ljust(count, b"\0")
            os.lseek(descriptor, start, os.SEEK_SET)
            start += os.write(descriptor, content)
