"""Shards that are written again, as long as before: no index of the former ones is used."""

import io
import os
import tarfile
from pathlib import Path

import pytest

from unclip.data.stream.index import write_indexes
from unclip.data.stream.open import open_stream


def write(folder: Path, members: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(folder / "00000.tar", "w") as tar:
        for name, data in members.items():
            header = tarfile.TarInfo(name)
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))
    return folder


def captions(folder, cache) -> dict[str, tuple[str, ...]]:
    dataset = open_stream(folder, cache=cache)
    return {one.key: one.sample().captions for one in dataset.read(range(len(dataset)))}


@pytest.fixture
def versions(made) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Members of two tars of the same size, whose members have other places."""
    return (
        {"a.png": made.png(1), "a.txt": b"one", "b.png": made.png(2), "b.txt": b"two"},
        {"b.txt": b"three", "b.png": made.png(3), "c.txt": b"four", "c.png": made.png(4)},
    )


AFTER = {"00000/b": ("three",), "00000/c": ("four",)}


def test_an_index_in_the_cache(tmp_path, cache, versions):
    folder = write(tmp_path / "data", versions[0])
    assert captions(folder, cache) == {"00000/a": ("one",), "00000/b": ("two",)}
    size = (folder / "00000.tar").stat().st_size
    write(folder, versions[1])
    assert (folder / "00000.tar").stat().st_size == size
    assert captions(folder, cache) == AFTER


def test_two_folders_of_one_relative_name(tmp_path, cache, versions, monkeypatch):
    for name, members in zip(("first", "second"), versions):
        folder = write(tmp_path / name / "data", members)
        os.utime(folder / "00000.tar", (10**9, 10**9))
    monkeypatch.chdir(tmp_path / "first")
    captions("data", cache)
    monkeypatch.chdir(tmp_path / "second")
    assert captions("data", cache) == AFTER


def test_an_index_beside_the_shard(tmp_path, cache, versions, caplog):
    folder = write(tmp_path / "data", versions[0])
    write_indexes(folder)
    write(folder, versions[1])
    assert captions(folder, cache) == AFTER
    assert "belongs to another tar" in caplog.text


def test_an_index_that_fits_is_used(tmp_path, cache, versions, caplog):
    folder = write(
        tmp_path / "data", {**versions[0], f"{'long' * 40}.png": b"1", "ü.png": b"2", "d/e.png": b"3"}
    )
    write_indexes(folder)
    assert len(open_stream(folder, cache=cache).read(range(5))) == 5
    assert "belongs to another tar" not in caplog.text
