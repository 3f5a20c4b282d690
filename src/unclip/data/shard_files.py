"""What is in a tar shard: by the index beside it where that fits, else by its headers. Nothing is lost without a word."""

import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from unclip.data.decode import EXTENSIONS
from unclip.data.sample import BadSamples, shown

BLOCK = tarfile.BLOCKSIZE
Samples = list[tuple[str, dict[str, tuple[int, int]]]]
"""Key, and extension -> offset and length of each member."""

#: Endings of pictures that are not read, to name them.
OTHER_PICTURES = (
    "gif",
    "bmp",
    "tif",
    "tiff",
    "avif",
    "heic",
    "heif",
    "jxl",
    "jp2",
    "ppm",
    "pgm",
    "ico",
    "svg",
    "npy",
)
_TEXTS = ("json", "txt")
_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"PK\x03\x04": "zip",
}
_COMPRESSED_ENDINGS = (
    ".tar.gz",
    ".tgz",
    ".tar.zst",
    ".tzst",
    ".tar.bz2",
    ".tbz2",
    ".tar.xz",
    ".txz",
    ".tar.lz4",
    ".tar.br",
)


def is_compressed(path: Path) -> bool:
    """Whether a name is that of a compressed tar."""
    return path.name.lower().endswith(_COMPRESSED_ENDINGS)


def compressed(path: Path, how: str | None = None) -> ValueError:
    """The error for a compressed tar."""
    return ValueError(
        f"{shown(str(path))} is compressed{f' ({how})' if how else ''}: samples of shards are read in any order, so give plain "
        ".tar files; unpack it first (pictures hardly become smaller by compression)"
    )


def check_is_tar(path: Path) -> None:
    """Raise ValueError for a file that is compressed, empty, or no tar."""
    with path.open("rb") as file:
        head = file.read(BLOCK)
    how = next((name for magic, name in _COMPRESSED.items() if head.startswith(magic)), None)
    if how is not None:
        raise compressed(path, how)
    if not head:
        raise ValueError(f"{shown(str(path))} is empty (0 bytes), not a tar: write or download it again")


def read_index(path: Path, bad: BadSamples) -> Samples | None:
    """The samples of the index beside a tar, or None where there is none, or it belongs to another tar.

    Samples whose headers in the tar are others are recorded as bad and left out.
    """
    index = path.with_suffix(".idx")
    try:
        data = index.read_bytes()
    except OSError:
        return None
    try:
        record = json.loads(data)
        if record["format"] != 1:
            raise ValueError("its format is another")
        if record["size"] < path.stat().st_size:
            raise ValueError("the tar is longer than it says")
        samples: Samples = [
            (str(sample["key"]), {str(k): (int(v[0]), int(v[1])) for k, v in sample["members"].items()})
            for sample in record["samples"]
        ]
        for key, members in samples:
            if any(
                not BLOCK <= offset <= offset + length <= record["size"]
                for offset, length in members.values()
            ):
                raise ValueError(f"sample {key} lies outside of the tar")
        wrong = _misplaced(path, samples)
        if 2 * len(wrong) > len(samples) > 0:
            raise ValueError("it belongs to another tar")
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        IndexError,
        OverflowError,
        RecursionError,
    ) as error:
        bad.note(shown(index.name), f"the index does not fit its tar, which was read instead: {error}")
        return None
    for key in wrong:
        bad.record(
            f"{shown(path.stem)}/{key}", f"damaged: {shown(path.name)} does not hold it where the index says"
        )
    return [(key, members) for key, members in samples if key not in wrong]


def _misplaced(path: Path, samples: Samples) -> set[str]:
    """Keys of the samples before the end of the file that have another header than the index says."""
    wrong = set()
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        for key, members in samples:
            for extension, (offset, length) in members.items():
                if offset + length > size:
                    continue
                header = os.pread(file.fileno(), BLOCK, offset - BLOCK)
                name = header[:100].rstrip(b"\0")
                end = f"{key.rpartition('/')[2]}.{extension}".encode("utf-8", "surrogatepass").lower()
                # Longer names stand elsewhere.
                named = len(name) == 100 or len(end) > 99 or name.lower().endswith(end)
                if not named or size_in(header) != length:
                    wrong.add(key)
    return wrong


def size_in(header: bytes) -> int | None:
    """The size that a member's header says; None where it is damaged."""
    try:
        return tarfile.nti(header[124:136])  # pyright: ignore[reportAttributeAccessIssue]
    except tarfile.TarError:
        return None


def scan(path: Path, bad: BadSamples) -> Samples:
    """Find the samples of a tar by reading its headers; what is damaged or not used is counted in `bad`."""
    samples: dict[str, dict[str, tuple[int, int]]] = {}
    times: dict[tuple[str, str], int] = {}
    spare: dict[str, list[tuple[str, str]]] = {}
    stem = shown(path.stem)
    for member in _members(path, bad):
        name = shown(member.name)
        folder, _, last = name.rpartition("/")
        base, _, extension = last.partition(".")
        extension = extension.lower()
        # Hidden files belong to other tools.
        if not base or not extension:
            continue
        key = f"{folder}/{base}" if folder else base
        ending = extension.rpartition(".")[2]
        if member.islnk() or member.issym():
            if ending in EXTENSIONS:
                bad.record(f"{stem}/{name}", "is a link, which is not followed: store the picture itself")
        elif not member.isreg():
            continue
        elif extension in (*EXTENSIONS, *_TEXTS):
            times[key, extension] = times.get((key, extension), 0) + 1
            if times[key, extension] == 1:
                samples.setdefault(key, {})[extension] = (member.offset_data, member.size)
            elif extension in _TEXTS:
                bad.note(f"{stem}/{name}", "is in the tar more than once: the first is read")
            else:
                bad.record(
                    f"{stem}/{key} ({times[key, extension]})",
                    f"{name} is in the tar more than once: the first is used; give each sample a name of its own",
                )
        elif ending in EXTENSIONS:
            reason = f"a name ends at its first dot, so it is a .{extension}: rename it"
            spare.setdefault(key, []).append((name, reason))
        elif ending in OTHER_PICTURES:
            spare.setdefault(key, []).append((name, f"is none of {', '.join(EXTENSIONS)}"))
    for key, others in spare.items():
        used = any(extension in EXTENSIONS for extension in samples.get(key, ()))
        if not used:
            samples.pop(key, None)
        for name, reason in others:
            # Beside a picture that is used, as masks and thumbnails are, no sample is lost.
            (bad.note if used else bad.record)(f"{stem}/{name}", reason)
    for key, members in samples.items():
        for extension in [extension for extension in EXTENSIONS if extension in members][1:]:
            bad.note(f"{stem}/{key}.{extension}", "is a second picture of its sample")
    return list(samples.items())


def _members(path: Path, bad: BadSamples) -> Iterator[tarfile.TarInfo]:
    """The members of a tar, those behind damage too; each gap is recorded in `bad`."""
    size, start, found = path.stat().st_size, 0, False
    with path.open("rb") as file:
        while True:
            file.seek(start)
            stopped = start
            try:
                with tarfile.open(fileobj=file, mode="r:") as tar:
                    # A name for the error's place, wherever the loop ends.
                    try:
                        for member in tar:
                            found = True
                            yield member
                    finally:
                        stopped = tar.offset
            except (tarfile.TarError, EOFError, ValueError, OverflowError):
                pass
            if stopped >= size:
                bad.record(shown(path.name), f"is cut off at byte {size}: the samples behind are lost")
                return
            following = _next_header(file, stopped, size)
            if following is None:
                file.seek(stopped)
                ended = not any(file.read(BLOCK))
                if not found and not (ended and size % BLOCK == 0):
                    raise ValueError(
                        f"{shown(str(path))} is no tar file, or its beginning is damaged: write it again"
                    )
                if not ended or size % BLOCK or _holds_more(file):
                    bad.record(
                        shown(path.name),
                        f"is damaged from byte {stopped} on: the samples in the last {size - stopped} bytes are lost",
                    )
                return
            bad.record(
                f"{shown(path.name)} at byte {stopped}",
                f"is damaged: the samples in {following - stopped} bytes are lost",
            )
            start = following


def _holds_more(file: BinaryIO) -> bool:
    """Whether anything but zeros follows, as after damage that moved the members from their places."""
    return any(any(chunk) for chunk in iter(lambda: file.read(1 << 16), b""))


def _next_header(file: BinaryIO, start: int, size: int) -> int | None:
    """The place of the first block from `start` on that is the header of a member."""
    for place in range(start, size - BLOCK + 1, BLOCK):
        file.seek(place)
        block = file.read(BLOCK)
        if block[257:262] == b"ustar":
            try:
                tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
            except tarfile.TarError:
                continue
            if place > start:
                return place
    return None
