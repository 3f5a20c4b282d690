"""Data sets of any size by path or URL: `open_stream` recognises tar shards, parquet with pictures, folders and tables."""

import os
import tempfile
from pathlib import Path

from unclip.data.decode import EXTENSIONS
from unclip.data.shard_files import compressed, is_compressed
from unclip.data.stream.catalogue import open_catalogue
from unclip.data.stream.dataset import StreamDataset
from unclip.data.stream.disk_cache import GIB, DiskCache
from unclip.data.stream.faults import Faults
from unclip.data.stream.parquet import ParquetPictures
from unclip.data.stream.store import Entry, Store, StoreOptions, is_url, open_store
from unclip.data.stream.tar import SUMMARY, TarShards
from unclip.data.tables import TABLES

#: Endings of most files, looked at first.
_COMMON = (".jpg", ".png", ".webp", ".txt", ".json")
_LOOSE = tuple(f".{ending}" for ending in EXTENSIONS)
_TABLES = (".jsonl", ".csv", ".tsv")


def default_cache(budget: int = 20 * GIB) -> DiskCache:
    """The cache in the folder for temporary files."""
    return DiskCache(Path(tempfile.gettempdir()) / "unclip-stream", budget)


def beside(place: str | os.PathLike[str]) -> str:
    """Where sidecar files are unless said: in the data's folder, of one file in that which holds it."""
    text = os.fspath(place).rstrip("/")
    return (text.rpartition("/")[0] or ".") if _is_file(text) else text


def _is_file(text: str) -> bool:
    single = text.lower().endswith((".tar", ".parquet", *_TABLES))
    return single and (is_url(text) or os.path.isfile(text))


def is_only_streamed(place: str | os.PathLike[str]) -> bool:
    """Whether data on this disk are of a kind that only streams: a single table or parquet file, or a folder of these with
    pictures inside, such as a Hugging Face data set's, and neither tar shards nor loose pictures."""
    text = os.fspath(place).rstrip("/")
    if os.path.isfile(text):
        return text.lower().endswith((".parquet", *_TABLES))
    found = False
    for _, _, names in os.walk(text):
        for name in map(str.lower, names):
            if name.endswith((".tar", *_LOOSE)):
                return False
            found = found or (name.endswith(".parquet") and name not in TABLES)
    return found


def open_stream(
    place: str | os.PathLike[str],
    *,
    split: str | None = None,
    cache: DiskCache | None = None,
    options: StoreOptions | None = None,
    faults: Faults | None = None,
) -> StreamDataset:
    """The data set in a folder, below a URL (s3://bucket/folder), or in one .tar, .parquet or table file.

    split: of shards named `NAME-SPLIT-NUMBER.tar`, take this split only. What cannot be used is counted in `faults` and
    bounded by its limit. Raises FileNotFoundError for nothing there, ValueError for a split that does not exist.
    """
    cache = cache if cache is not None else default_cache()
    faults = faults if faults is not None else Faults()
    text = os.fspath(place).rstrip("/")
    if not is_url(text) and not os.path.exists(text):
        raise FileNotFoundError(
            f"{text} is neither a folder, nor a file, nor a URL such as s3://bucket/folder"
        )
    parent, _, last = text.rpartition("/")
    single = _is_file(text)
    store = open_store((parent or ".") if single else text, options)
    found = _opened(store, last if single else None, split, cache, faults)
    faults.check(len(found), len(found))
    return found


def _opened(
    store: Store, only: str | None, split: str | None, cache: DiskCache, faults: Faults
) -> StreamDataset:
    if only is not None and only.lower().endswith(_TABLES):
        return open_catalogue(store, cache.folder.with_name("catalogues"), faults, only)
    entries = [one for one in store.files() if _matters(one) and (only is None or _belongs(one.name, only))]
    tars = [one for one in entries if one.name.lower().endswith(".tar")]
    packed = [one.name for one in entries if is_compressed(Path(one.name))]
    if packed:
        raise compressed(Path(packed[0]))
    if tars or any(one.name == SUMMARY for one in entries):
        return TarShards(store, entries if split is None else _of_split(store, entries, split), cache, faults)
    parquet = [one for one in entries if one.name.lower().endswith(".parquet")]
    tables = [one for one in parquet if one.name.rpartition("/")[2].lower() in TABLES]
    if parquet and not tables:
        chosen = parquet if split is None else _of_split(store, parquet, split)
        return ParquetPictures(store, chosen, cache, faults)
    if split is not None:
        raise ValueError(f"{store.url} holds no shards, so it has no split {split!r}")
    return open_catalogue(store, cache.folder.with_name("catalogues"), faults)


def _matters(one: Entry) -> bool:
    """Whether a file decides what kind of data set it is; loose pictures, of which there may be many, do not."""
    name = one.name.lower()
    return name.endswith((".tar", ".index", ".parquet", SUMMARY)) or (
        not name.endswith(_COMMON) and is_compressed(Path(name))
    )


def _belongs(name: str, only: str) -> bool:
    return name == only or name == f"{only.rpartition('.')[0]}.index"


def _of_split(store: Store, entries: list[Entry], split: str) -> list[Entry]:
    chosen = [one for one in entries if one.name != SUMMARY and split_of(one.name) == split]
    if not any(one.name.lower().endswith((".tar", ".parquet")) for one in chosen):
        splits = sorted({split_of(one.name) for one in entries if not one.name.endswith((".index", SUMMARY))})
        raise ValueError(f"{store.url} has no split {split!r}; it has {', '.join(splits)}")
    return chosen


def split_of(name: str) -> str:
    """'heldout-style' of artwork-heldout-style-00000.tar, 'train' of data/train-00000-of-00012.parquet."""
    stem, _, ending = name.rpartition("/")[2].rpartition(".")
    if ending.lower() == "parquet":
        return stem.partition("-")[0]
    return stem.partition("-")[2].rpartition("-")[0]
