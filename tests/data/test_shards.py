"""Tar shards: reproducible bytes, random access with and without index, damage is counted and skipped."""

import io
import json
import pickle
import tarfile

import numpy as np
import pytest
from PIL import Image

from unclip.data.dataset import open_dataset
from unclip.data.sample import BadSample, BadSamples, Dataset, TooManyBadSamples
from unclip.data.shards import ShardDataset, ShardWriter


def png(value: int, side: int = 8) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((side, side, 3), value, dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def write(folder, count=5, per_shard=2, prefix="set-train"):
    folder.mkdir(parents=True, exist_ok=True)
    with ShardWriter(folder, prefix, per_shard) as writer:
        for number in range(count):
            record = {"captions": [f"grey {number}", "grey"], "weight": 0.5}
            writer.add({"png": png(number * 6), "json": json.dumps(record).encode()})
    return writer.paths


def test_round_trip(tmp_path):
    assert [path.name for path in write(tmp_path)] == [f"set-train-0000{i}.tar" for i in range(3)]
    data = open_dataset(tmp_path)
    assert isinstance(data, Dataset)
    assert len(data) == 5
    assert data.keys()[:3] == ["set-train-00000/000000", "set-train-00000/000001", "set-train-00001/000002"]
    assert data.info(3).captions == ("grey 3", "grey")
    assert data.info(3).weight == 0.5
    assert data.picture(4, 4).shape == (3, 4, 4)
    assert data.picture(4, None)[0, 0, 0] == 24


def test_any_tar_reader_agrees(tmp_path):
    path = write(tmp_path)[0]
    with tarfile.open(path) as tar:
        members = tar.getmembers()
        assert [member.name for member in members] == [
            "000000.png",
            "000000.json",
            "000001.png",
            "000001.json",
        ]
        assert all(member.mtime == member.uid == member.gid == 0 for member in members)
        content = tar.extractfile(members[2])
        assert content is not None
        assert content.read() == png(6)


def test_same_bytes_each_time(tmp_path):
    one, two = write(tmp_path / "a"), write(tmp_path / "b")
    for left, right in zip(one, two, strict=True):
        assert left.read_bytes() == right.read_bytes()
        assert left.with_suffix(".idx").read_bytes() == right.with_suffix(".idx").read_bytes()


def test_index_is_only_a_shortcut(tmp_path):
    paths = write(tmp_path)
    indexed = ShardDataset(paths)
    for path in paths:
        path.with_suffix(".idx").unlink()
    scanned = ShardDataset(paths)
    assert scanned.keys() == indexed.keys()
    assert scanned.fingerprint == indexed.fingerprint
    np.testing.assert_array_equal(scanned.picture(2, None), indexed.picture(2, None))


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": 1, "size": 10, "samples": []}', "\xff"])
def test_broken_index_is_ignored(tmp_path, text):
    paths = write(tmp_path, count=2)
    paths[0].with_suffix(".idx").write_text(text)
    assert len(ShardDataset(paths)) == 2


@pytest.mark.parametrize("indexed", [True, False])
def test_truncated_tar(tmp_path, indexed):
    path = write(tmp_path, count=40, per_shard=40)[0]
    if not indexed:
        path.with_suffix(".idx").unlink()
    data = path.read_bytes()
    # Inside of a sample: its picture is whole, its caption is not there.
    path.write_bytes(data[: len(data) // 2 + 100])
    bad = BadSamples(limit=1.0)
    kept = ShardDataset([path], bad)
    assert 15 <= len(kept) < 25
    assert len(bad) >= 1
    assert all(kept.info(i).captions and kept.picture(i, 4) is not None for i in range(len(kept)))
    with pytest.raises(TooManyBadSamples, match=path.stem):
        ShardDataset([path], BadSamples(limit=0.0))


def test_bad_members_are_named(tmp_path):
    with ShardWriter(tmp_path, "x-train") as writer:
        writer.add({"png": png(1), "json": b'{"captions": ["fine"]}'})
        writer.add({"png": b"broken", "json": b'{"captions": ["a"]}'})
        writer.add({"png": png(1), "json": b'{"captions": '})
        writer.add({"png": png(1), "json": b'{"captions": []}'})
        writer.add({"png": png(1), "json": b'{"captions": ["a"], "weight": 7}'})
        writer.add({"png": png(1)})
        writer.add({"json": b'{"captions": ["a"]}'})
        writer.add({"png": png(1), "txt": b"one line\n\nanother \n"})
    bad = BadSamples(limit=1.0)
    data = ShardDataset(writer.paths, bad)
    assert bad.reasons == {
        "x-train-00000/000005": "has no caption (.json or .txt)",
        "x-train-00000/000006": "has no picture",
    }
    assert data.info(0).captions == ("fine",)
    assert data.info(5).captions == ("one line", "another")
    with pytest.raises(BadSample, match="x-train-00000/000001: the picture is not a PNG"):
        data.picture(1, 8)
    for index, reason in ((2, "Expecting"), (3, "no caption"), (4, "weight")):
        with pytest.raises(BadSample, match=reason):
            data.info(index)


def test_links_and_paths_stay_inside(tmp_path):
    secret = tmp_path / "secret.png"
    secret.write_bytes(png(99))
    path = tmp_path / "evil-train-00000.tar"
    with tarfile.open(path, "w") as tar:
        for name in ("../outside", "/absolute"):
            for extension, content in (("png", png(7)), ("txt", b"text")):
                info = tarfile.TarInfo(f"{name}.{extension}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, str(secret)
        tar.addfile(link)
        pickled = tarfile.TarInfo("code.pkl")
        tar.addfile(pickled, io.BytesIO())
    before = sorted(tmp_path.iterdir())
    data = ShardDataset([path])
    # Odd names are only labels: the content comes from the tar itself, and nothing is written.
    assert [data.picture(i, None)[0, 0, 0] for i in range(len(data))] == [7, 7]
    assert sorted(tmp_path.iterdir()) == before


def test_pickles_without_open_files(tmp_path):
    data = ShardDataset(write(tmp_path))
    data.picture(0, None)
    again = pickle.loads(pickle.dumps(data))
    np.testing.assert_array_equal(again.picture(1, None), data.picture(1, None))


def test_splits(tmp_path):
    write(tmp_path, count=3)
    write(tmp_path, count=1, prefix="set-heldout-style")
    assert len(open_dataset(tmp_path)) == 4
    assert len(open_dataset(tmp_path, split="heldout-style")) == 1
    assert len(open_dataset(tmp_path / "set-train-00000.tar")) == 2
    with pytest.raises(ValueError, match="it has heldout-style, train"):
        open_dataset(tmp_path, split="test")
    with pytest.raises(FileNotFoundError, match="neither a folder"):
        open_dataset(tmp_path / "nowhere")


def test_failed_write_leaves_nothing(tmp_path):
    def fail():
        with ShardWriter(tmp_path, "x-train") as writer:
            writer.add({"png": b"1"})
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert list(tmp_path.iterdir()) == []
