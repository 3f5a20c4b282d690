"""Every storage gives the same samples, by number, on a disk and on an S3 server."""

import json
import pickle
import tracemalloc

import numpy as np
import pytest

from unclip.data.stream import catalogue
from unclip.data.stream.index import write_indexes
from unclip.data.stream.open import open_stream
from unclip.data.stream.reader import Reader
from unclip.data.stream.store import open_store
from unclip.data.stream.tar import SUMMARY
from unclip.data.stream.tar_index import TarIndex

STORAGES = ("tar", "folder", "csv", "jsonl", "parquet table", "parquet")
COUNT = 35


def check(dataset, made) -> None:
    assert len(dataset) == COUNT
    assert sum(unit.size for unit in dataset.units) == COUNT
    keys = [key for number in range(len(dataset.units)) for key in dataset.keys(number)]
    assert len(set(keys)) == COUNT
    numbers = [34, 0, 17, 17, 9, 10, 33]
    records = dataset.read(numbers)
    assert [record.key for record in records] == [keys[number] for number in numbers]
    assert [record.picture for record in records] == [made.png(number) for number in numbers]
    assert [record.sample().captions for record in records] == [(made.caption(number),) for number in numbers]
    assert dataset.faults.lost == 0
    with pytest.raises(IndexError):
        dataset.read([COUNT])


@pytest.mark.parametrize("storage", STORAGES)
def test_on_a_disk(storage, tmp_path, cache, made):
    folder = made.storages[storage](tmp_path / "data")
    dataset = open_stream(folder, cache=cache)
    check(dataset, made)
    check(pickle.loads(pickle.dumps(dataset)), made)
    again = open_stream(folder, cache=cache)
    assert again.fingerprint == dataset.fingerprint


@pytest.mark.parametrize("storage", STORAGES)
def test_on_s3(storage, tmp_path, cache, s3, made):
    url = s3.upload(made.storages[storage](tmp_path / "data"))
    dataset = open_stream(url, cache=cache)
    check(dataset, made)
    check(pickle.loads(pickle.dumps(dataset)), made)
    assert open_stream(tmp_path / "data", cache=cache).units[0] == dataset.units[0]


def test_single_files(tmp_path, cache, made):
    made.tars(tmp_path / "tars")
    assert len(open_stream(tmp_path / "tars" / "set-train-00003.tar", cache=cache)) == 5
    made.storages["csv"](tmp_path / "table")
    check(open_stream(tmp_path / "table" / "metadata.csv", cache=cache), made)
    made.storages["parquet"](tmp_path / "parquet")
    assert len(open_stream(tmp_path / "parquet" / "train-00000-of-00002.parquet", cache=cache)) == 20


def test_splits(tmp_path, cache, made):
    made.tars(tmp_path / "data")
    made.tars(tmp_path / "data", 12, prefix="set-val")
    assert len(open_stream(tmp_path / "data", split="train", cache=cache)) == COUNT
    assert len(open_stream(tmp_path / "data", split="val", cache=cache)) == 12
    assert len(open_stream(tmp_path / "data", cache=cache)) == COUNT + 12
    with pytest.raises(ValueError, match=r"no split 'test'; it has train, val"):
        open_stream(tmp_path / "data", split="test", cache=cache)
    made.storages["parquet"](tmp_path / "parquet")
    assert len(open_stream(tmp_path / "parquet", split="train", cache=cache)) == COUNT


def test_nothing_there(tmp_path, cache):
    with pytest.raises(FileNotFoundError, match="neither a folder"):
        open_stream(tmp_path / "none", cache=cache)


def test_indexes_beside_the_shards_serve_without_reading_them(tmp_path, cache, s3, made):
    folder = made.tars(tmp_path / "data")
    for path in folder.glob("*.idx"):
        path.unlink()
    url = s3.upload(folder)
    store = open_store(url)
    assert write_indexes(url) == COUNT
    found = json.loads(store.get(SUMMARY))
    assert [count for _, _, count in found["shards"]] == [10, 10, 10, 5]
    index = TarIndex.from_bytes(store.get("set-train-00000.index"), "it")
    assert [index.key(place) for place in range(3)] == ["000000", "000001", "000002"]
    s3.requests.clear()
    fresh = type(cache)(tmp_path / "fresh", 50 << 20)
    dataset = open_stream(url, cache=fresh)
    assert not any(path.endswith(".tar") for _, path in s3.requests), "opening read a shard"
    check(dataset, made)


def test_only_ranges_are_read_and_each_piece_once(tmp_path, s3, made):
    from unclip.data.stream.disk_cache import DiskCache

    url = s3.upload(made.tars(tmp_path / "data"))
    dataset = open_stream(url, cache=DiskCache(tmp_path / "pieces", 50 << 20))
    s3.requests.clear()
    dataset.read([0, 1])
    dataset.read([2, 3])
    assert [path for method, path in s3.requests if method == "GET" and path.endswith(".tar")] == [
        "/" + url.removeprefix("s3://") + "/set-train-00000.tar"
    ]


@pytest.mark.parametrize("workers", [0, 2])
def test_decoded_in_the_order_asked_for(workers, tmp_path, cache, made):
    dataset = open_stream(made.tars(tmp_path / "data"), cache=cache)
    reader = Reader(dataset, 8, workers=workers)
    requests = [np.array([34, 0, 17]), np.arange(35)[::-1].copy(), np.array([5])]
    try:
        found = list(reader.batches(requests, ahead=1))
    finally:
        reader.close()
    for request, decoded in zip(requests, found):
        assert decoded.pictures[:, 0, 4, 4].tolist() == request.tolist()
        assert [one.captions for one in decoded.samples] == [(made.caption(number),) for number in request]


def test_a_larger_folder_takes_no_more_memory(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(catalogue, "_PAGE", 200)
    peaks = []
    for parts in (1, 6):
        folder = tmp_path / f"{parts}"
        for part in range(parts):
            (folder / f"{part}").mkdir(parents=True)
            for number in range(500):
                (folder / f"{part}" / f"{number:05d}.png").touch()
                (folder / f"{part}" / f"{number:05d}.txt").touch()
        tracemalloc.start()
        dataset = open_stream(folder, cache=cache)
        assert len(dataset) == 500 * parts
        dataset.read(range(0, len(dataset), 50))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.3 * peaks[0] + 100_000, peaks
