"""What is not used is counted and named: shards."""

import bz2
import gzip
import io
import json
import lzma
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unclip.data.dataset import open_dataset
from unclip.data.decoded_cache import DecodedCache
from unclip.data.sample import BadSample, BadSamples, TooManyBadSamples
from unclip.data.shards import ShardDataset, ShardWriter

DOOR = Path(__file__).parent / "door"


def png(value: int, side: int = 8) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((side, side, 3), value, dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def write_tar(path, members):
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def pairs(count, start=0):
    return [
        member
        for number in range(start, start + count)
        for member in ((f"{number:03}.png", png(number)), (f"{number:03}.txt", b"grey"))
    ]


def indexed(folder, count=10):
    with ShardWriter(folder, "x-train", count) as writer:
        for number in range(count):
            writer.add({"png": png(number), "json": json.dumps({"caption": f"grey {number}"}).encode()})
    return writer.paths[0]


def test_names_end_at_their_first_dot():
    with pytest.raises(TooManyBadSamples, match=r"4 of 12 samples are bad.*shot v1\.0\.png"):
        ShardDataset([DOOR / "shard_some_names_with_dots.tar"])
    bad = BadSamples(1.0)
    data = ShardDataset([DOOR / "shard_some_names_with_dots.tar"], bad)
    assert len(data) == 8
    assert [key.partition("/")[2] for key in bad.reasons] == [
        f"shot v1.{number}.png" for number in (0, 3, 6, 9)
    ]
    assert (
        "first dot, so it is a .0.png: rename it" in bad.reasons["shard_some_names_with_dots/shot v1.0.png"]
    )


def test_pictures_beside_a_sample_are_noted_and_lose_none(tmp_path):
    members = [*pairs(3), ("000.mask.png", png(9)), ("001.gif", b"GIF89a"), ("002.jpg", png(3))]
    bad = BadSamples(0.0)
    data = ShardDataset([write_tar(tmp_path / "x.tar", members)], bad)
    assert (len(data), len(bad)) == (3, 0)
    assert list(bad.notes) == ["x/000.mask.png", "x/001.gif", "x/002.jpg"]
    assert "3 unused files: x/000.mask.png" in bad.report()


def test_samples_of_other_formats_are_named(tmp_path):
    members = [*pairs(2), ("a.gif", b"GIF89a"), ("a.txt", b"moves"), ("b.tiff", b"II"), ("c.x.JPG", png(1))]
    bad = BadSamples(1.0)
    assert len(ShardDataset([write_tar(tmp_path / "x.tar", members)], bad)) == 2
    assert list(bad.reasons) == ["x/a.gif", "x/b.tiff", "x/c.x.JPG"]
    assert bad.reasons["x/a.gif"] == "is none of png, jpg, jpeg, webp"


def test_the_same_name_twice():
    bad = BadSamples(1.0)
    data = ShardDataset([DOOR / "shard_same_name_twice.tar"], bad)
    assert data.keys() == [f"shard_same_name_twice/00{number}" for number in range(3)]
    assert list(bad.reasons) == ["shard_same_name_twice/000 (2)"]
    assert "more than once: the first is used" in bad.reasons["shard_same_name_twice/000 (2)"]


def test_links_are_named(tmp_path):
    path = write_tar(tmp_path / "x.tar", pairs(3))
    with tarfile.open(path, "a") as tar:
        for kind, name in ((tarfile.SYMTYPE, "soft.png"), (tarfile.LNKTYPE, "hard.png")):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "000.png"
            tar.addfile(info)
    bad = BadSamples(1.0)
    assert len(ShardDataset([path], bad)) == 3
    assert list(bad.reasons) == ["x/soft.png", "x/hard.png"]


def test_a_truncated_tar_is_compared_with_its_index(tmp_path):
    path = indexed(tmp_path)
    # Two members of 512 + 512 bytes make a sample: the cut is in the seventh.
    os.truncate(path, 6 * 2048 + 600)
    bad = BadSamples(1.0)
    assert len(ShardDataset([path], bad)) == 6
    assert list(bad.reasons) == [f"x-train-00000/{number:06}" for number in range(6, 10)]


@pytest.mark.parametrize("cut", [6 * 2048, 6 * 2048 + 100, 6 * 2048 + 600, 6 * 2048 + 1024])
def test_a_truncated_tar_without_index_is_named(tmp_path, cut):
    path = indexed(tmp_path)
    path.with_suffix(".idx").unlink()
    os.truncate(path, cut)
    bad = BadSamples(1.0)
    assert len(ShardDataset([path], bad)) == 6
    assert f"is cut off at byte {cut}" in bad.reasons["x-train-00000.tar"] or "damaged" in bad.summary()


@pytest.mark.parametrize("with_index", [True, False])
@pytest.mark.parametrize("filling", [b"\xff", b"\0"])
def test_damage_in_the_middle_loses_what_is_damaged_only(tmp_path, filling, with_index):
    path = indexed(tmp_path)
    if not with_index:
        path.with_suffix(".idx").unlink()
    data = bytearray(path.read_bytes())
    data[4 * 2048 : 5 * 2048] = filling * 2048
    path.write_bytes(data)
    bad = BadSamples(1.0)
    shard = ShardDataset([path], bad)
    assert len(shard) == 9
    (reason,) = bad.reasons.items()
    expected = (
        ("x-train-00000/000004", "damaged: ")
        if with_index
        else ("x-train-00000.tar at byte 8192", "is damaged: the samples in 2048 bytes are lost")
    )
    assert reason[0] == expected[0]
    assert reason[1].startswith(expected[1])
    assert shard.info(8).captions == ("grey 9",)


def test_members_that_were_moved_by_damage_are_named(tmp_path):
    path = indexed(tmp_path)
    path.with_suffix(".idx").unlink()
    data = path.read_bytes()
    path.write_bytes(data[: 4 * 2048] + bytes(1000) + data[4 * 2048 + 100 :])
    bad = BadSamples(1.0)
    assert len(ShardDataset([path], bad)) == 4
    assert "is damaged from byte 8192 on" in bad.reasons["x-train-00000.tar"]


def test_an_index_of_another_tar_of_the_same_size(tmp_path):
    path = indexed(tmp_path, 4)
    size = path.stat().st_size
    write_tar(
        path,
        [(f"other{number}.txt", b"grey") for number in range(2)]
        + [("other0.png", png(1)), ("other1.png", png(2))],
    )
    with path.open("ab") as file:
        file.write(bytes(max(0, size - path.stat().st_size)))
    bad = BadSamples(1.0)
    assert ShardDataset([path], bad).keys() == ["x-train-00000/other0", "x-train-00000/other1"]
    assert "x-train-00000.idx" in bad.notes


@pytest.mark.parametrize(
    "span",
    [[-512, 10], [512, -1], [1 << 70, 10], [512, 1 << 70], ["x", 1], [None, 1], [1e400, 1], [0, 100], []],
)
def test_an_index_with_impossible_places_is_named_and_not_used(tmp_path, span):
    path = indexed(tmp_path, 3)
    record = json.loads(path.with_suffix(".idx").read_text())
    record["samples"][1]["members"]["png"] = span
    path.with_suffix(".idx").write_text(json.dumps(record))
    bad = BadSamples(0.0)
    data = ShardDataset([path], bad)
    assert [data.picture(index, None)[0, 0, 0] for index in range(3)] == [0, 1, 2]
    assert "the tar" in bad.notes["x-train-00000.idx"] or "index" in bad.notes["x-train-00000.idx"]


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000])
def test_deep_json_is_a_bad_sample(tmp_path, text):
    path = write_tar(tmp_path / "x.tar", [*pairs(1), ("deep.png", png(1)), ("deep.json", text.encode())])
    (tmp_path / "x.idx").write_text(text)
    data = ShardDataset([path])
    with pytest.raises(BadSample, match="x/deep: its JSON is nested too deep"):
        data.info(1)


PACKERS = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}


@pytest.mark.parametrize("ending", PACKERS)
def test_compressed_shards_are_refused_by_name(tmp_path, ending):
    plain = write_tar(tmp_path / "plain.tar", pairs(2))
    packed = PACKERS[ending](plain.read_bytes())
    named, hidden = tmp_path / f"more.tar.{ending}", tmp_path / "hidden.tar"
    named.write_bytes(packed)
    for path in (tmp_path, named):
        with pytest.raises(ValueError, match=rf"more\.tar\.{ending} is compressed.*unpack it first"):
            open_dataset(path)
    named.unlink()
    hidden.write_bytes(packed)
    with pytest.raises(ValueError, match=r"hidden\.tar is compressed \("):
        open_dataset(tmp_path)
    only = tmp_path / "only"
    only.mkdir()
    shutil.move(hidden, only / "x.tgz")
    with pytest.raises(ValueError, match=r"x\.tgz is compressed"):
        open_dataset(only)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"<html>not found</html>", "is no tar"),
        (b"\xff" * 4096, "is no tar"),
        (b"\1" * 10_240, "is no tar"),
    ],
)
def test_what_is_no_tar_is_refused_by_name(tmp_path, content, message):
    write_tar(tmp_path / "good.tar", pairs(2))
    (tmp_path / "odd.tar").write_bytes(content)
    with pytest.raises(ValueError, match=rf"odd\.tar {message}"):
        open_dataset(tmp_path)


def test_pictures_beside_shards_are_noted(tmp_path):
    write_tar(tmp_path / "good.TAR", pairs(2))
    (tmp_path / "loose.png").write_bytes(png(1))
    bad = BadSamples()
    assert len(open_dataset(tmp_path, bad=bad)) == 2
    assert list(bad.notes) == ["loose.png"]


@pytest.mark.parametrize("same_time", [False, True])
def test_a_shard_that_is_written_again_is_decoded_again(tmp_path, same_time):
    def first_pixel(value):
        path = write_tar(tmp_path / "x-000.tar", [("0.png", png(value)), ("0.txt", b"grey")])
        if same_time:
            os.utime(path, (1, 1))
        return DecodedCache.load(open_dataset(path), 8, tmp_path / "cache").pictures([0])[0, 0, 0, 0]

    assert len(png(20)) == len(png(30))
    assert [first_pixel(20), first_pixel(30)] == [20, 30]


def test_names_that_are_not_utf8_are_shown_escaped(tmp_path):
    name = os.fsdecode(b"caf\xe9")
    path = write_tar(tmp_path / "x.tar", [(f"{name}.png", png(7)), (f"{name}.txt", "café".encode())])
    data = ShardDataset([path])
    assert data.keys() == [r"x/caf\xe9"]
    decoded = DecodedCache.load(data, 8, tmp_path / "cache")
    assert decoded.captions(0) == ("café",)
