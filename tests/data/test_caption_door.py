"""Captions by every way in: what a record may hold, files beside each other, the same in memory and streamed."""

import io
import json
import tarfile

import pytest
from PIL import Image

from unclip.data.dataset import open_dataset
from unclip.data.sample import BadSamples, TooManyBadSamples, captions_in
from unclip.data.stream.dataset import Fault
from unclip.data.stream.disk_cache import DiskCache
from unclip.data.stream.faults import UNUSED, Faults
from unclip.data.stream.open import open_stream
from unclip.data.stream.rows import captions_of, rows_of
from unclip.data.stream.store import LocalStore


def png():
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "data").mkdir()
    for name in "abc":
        (tmp_path / "data" / f"{name}.png").write_bytes(png())
        (tmp_path / "data" / f"{name}.txt").write_text("a red square")
    return tmp_path / "data"


def both(folder, cache):
    """Key -> captions, or the fault's reason, in memory and streamed; and what each notes."""
    bad, faults = BadSamples(1.0), Faults(1.0)
    data = open_dataset(folder, bad=bad)
    one = {data.keys()[index]: data.info(index).captions for index in range(len(data))} | bad.reasons
    stream = open_stream(folder, cache=DiskCache(cache), faults=faults)
    other = {}
    for record in stream.read(range(len(stream))):
        assert not isinstance(record, Fault)
        try:
            other[record.key] = record.sample().captions
        except Fault as fault:
            other[record.key] = fault.reason
    return one, other, bad.notes, stream.faults.names.get(UNUSED, {})


@pytest.mark.parametrize(
    ("record", "captions"),
    [
        ({"captions": ["a", "b"]}, ("a", "b")),
        ({"captions": "a"}, ("a",)),
        ({"caption": ["a", "b"]}, ("a", "b")),
        ({"text": [" a ", "", None]}, ("a",)),
        ({"caption": "", "text": "b"}, ("b",)),
        ({"caption": "a", "captions": "b"}, ("a",)),
        ({"caption": "a", "captions": ["b"]}, ("b",)),
        ({"caption": 5}, ()),
        ({}, ()),
    ],
)
def test_captions_of_a_record(record, captions):
    assert captions_in(record) == captions


@pytest.mark.parametrize("value", [["a", 5], [["a"]], [{"text": "a"}], [True]])
def test_a_list_that_holds_no_texts_is_a_bad_sample(folder, tmp_path, value):
    """What was no text in it was left out without a word."""
    with pytest.raises(ValueError, match=r"captions holds .*, which is no text"):
        captions_in({"captions": value})
    (folder / "a.json").write_text(json.dumps({"captions": value}))
    one, other, _, _ = both(folder, tmp_path / "cache")
    assert "which is no text" in one["a.png"]
    assert "which is no text" in other["a.png"]
    (folder / "a.jsonl").write_text(json.dumps({"captions": value}))
    with pytest.raises(ValueError, match=r"a\.jsonl, row 1: captions holds"):
        captions_of(str(folder / "a.jsonl"))


def test_metadata_without_a_caption_lie_beside_the_caption(folder, tmp_path):
    """As programs that download galleries write them."""
    (folder / "a.json").write_text(json.dumps({"site": "x", "weight": 0.5}))
    (folder / "b.json").write_text(json.dumps({"caption": "its own"}))
    one, other, notes, _ = both(folder, tmp_path / "cache")
    assert one == other
    assert (one["a.png"], one["b.png"]) == (("a red square",), ("its own",))
    assert open_dataset(folder).info(0).weight == 0.5
    assert notes == {"b.txt": "is not read, as b.json is"}


def test_streams_count_what_they_pass_over(folder, tmp_path):
    (folder / "d.gif").write_bytes(b"GIF89a")
    (folder / "lonely.txt").write_text("of no picture")
    _, _, notes, unused = both(folder, tmp_path / "cache")
    assert notes == unused
    assert set(unused) == {"d.gif", "lonely.txt"}


def test_a_text_that_is_in_a_tar_twice_is_noted(tmp_path):
    with tarfile.open(tmp_path / "x-000.tar", "w") as tar:
        for name, data in (("0.png", png()), ("0.txt", b"one"), ("0.txt", b"two")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    bad = BadSamples()
    data = open_dataset(tmp_path, bad=bad)
    assert data.info(0).captions == ("one",)
    assert bad.notes == {"x-000/0.txt": "is in the tar more than once: the first is read"}


def test_blank_lines_before_a_table_are_passed_over_by_both(tmp_path):
    (tmp_path / "metadata.csv").write_text("\n \nsep=;\n\nfile_name;text\n0.png;a\n")
    assert list(rows_of(LocalStore(tmp_path), "metadata.csv")) == [{"file_name": "0.png", "text": "a"}]


def test_rows_of_one_picture_with_captions_that_are_none_spoil_that_picture_alone(folder, tmp_path):
    rows = [
        {"file_name": "a.png", "captions": ["x", 5]},
        {"file_name": "a.png", "captions": ["y"]},
        {"file_name": "b.png", "text": "z"},
    ]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    stream = open_stream(folder, cache=DiskCache(tmp_path / "cache"), faults=Faults(1.0))
    assert [record.key for record in stream.read(range(len(stream)))] == ["b.png"]
    assert any(
        "which is no text" in reason for found in stream.faults.names.values() for reason in found.values()
    )


def test_data_of_which_nothing_can_be_read_say_so_in_one_line(tmp_path):
    pytest.importorskip("pyarrow")
    (tmp_path / "data.parquet").write_bytes(b"PAR1" + bytes(40) + b"PAR1")
    with pytest.raises(TooManyBadSamples, match=r"^no sample can be read; 1 x .*data\.parquet") as raised:
        open_stream(tmp_path, cache=DiskCache(tmp_path / "cache"), faults=Faults(1.0))
    assert "\n" not in str(raised.value)
