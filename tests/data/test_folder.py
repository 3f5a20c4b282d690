"""Folders: pairs of files, or a table; what does not fit is counted and named."""

import builtins
import json

import numpy as np
import pytest
from PIL import Image

from unclip.data.dataset import open_dataset
from unclip.data.folder import FolderDataset
from unclip.data.sample import BadSample, BadSamples, Dataset, TooManyBadSamples


def save(path, value=128, size=(8, 6)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((size[1], size[0], 3), value, dtype=np.uint8)).save(path)


@pytest.fixture
def pairs(tmp_path):
    save(tmp_path / "b.png", 10)
    (tmp_path / "b.txt").write_text("second\nanother caption\n")
    save(tmp_path / "a.jpg", 20)
    (tmp_path / "a.txt").write_text("first")
    save(tmp_path / "deep" / "c.webp", 30)
    (tmp_path / "deep" / "c.json").write_text(json.dumps({"caption": "third", "weight": 0.25, "style": "x"}))
    (tmp_path / "readme.md").write_text("no picture")
    return tmp_path


def test_pairs(pairs):
    data = open_dataset(pairs)
    assert isinstance(data, Dataset)
    assert data.keys() == ["a.jpg", "b.png", "deep/c.webp"]
    assert data.info(1).captions == ("second", "another caption")
    assert (data.info(2).weight, data.info(2).meta["style"]) == (0.25, "x")
    assert data.picture(1, None).shape == (3, 6, 8)
    assert data.picture(1, 4).shape == (3, 4, 4)


def test_fingerprint_follows_content(pairs):
    before = open_dataset(pairs).fingerprint
    assert open_dataset(pairs).fingerprint == before
    (pairs / "a.txt").write_text("changed")
    assert open_dataset(pairs).fingerprint != before


def test_missing_captions(pairs):
    save(pairs / "lonely.png")
    (pairs / "empty.txt").write_text(" \n")
    save(pairs / "empty.png")
    (pairs / "odd.json").write_text("[1]")
    save(pairs / "odd.png")
    bad = BadSamples(limit=0.5)
    assert len(FolderDataset(pairs, bad)) == 3
    assert set(bad.reasons) == {"lonely.png", "empty.png", "odd.png"}
    with pytest.raises(TooManyBadSamples, match=r"3 of 6 samples are bad.*empty\.png"):
        FolderDataset(pairs)


def test_undecodable_picture_is_named(pairs):
    (pairs / "a.jpg").write_bytes(b"nothing")
    with pytest.raises(BadSample, match=r"a\.jpg: the picture is not a PNG"):
        open_dataset(pairs).picture(0, 8)


ROWS = [
    {"file_name": "one.png", "text": "number one"},
    {"file_name": "two.png", "captions": ["number two", "2"]},
    {"file_name": "../outside.png", "text": "must not be followed"},
    {"file_name": "gone.png", "text": "no such file"},
    {"file_name": "notes.txt", "text": "not a picture"},
    {"text": "no name"},
]


def table_folder(tmp_path):
    folder = tmp_path / "set"
    save(folder / "one.png", 1)
    save(folder / "two.png", 2)
    save(tmp_path / "outside.png", 3)
    return folder


def check_table(folder):
    bad = BadSamples(limit=1.0)
    data = FolderDataset(folder, bad)
    assert data.keys() == ["one.png", "two.png"]
    assert data.info(0).captions == ("number one",)
    assert bad.reasons["../outside.png"] == "points outside of the folder"
    assert bad.reasons["gone.png"] == "no such file"
    assert "notes.txt" in bad.reasons
    assert len(bad) == 4
    return data


def test_jsonl(tmp_path):
    folder = table_folder(tmp_path)
    (folder / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in ROWS) + "\n")
    assert check_table(folder).info(1).captions == ("number two", "2")


def test_csv(tmp_path):
    folder = table_folder(tmp_path)
    lines = [f"{row.get('file_name', '')},{row.get('text', 'x')}" for row in ROWS]
    (folder / "metadata.csv").write_text("file_name,text\n" + "\n".join(lines) + "\n")
    check_table(folder)


def test_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    folder = table_folder(tmp_path)
    columns = dict.fromkeys(("file_name", "text", "captions"))
    table = pyarrow.Table.from_pylist([columns | row for row in ROWS])
    parquet.write_table(table, folder / "metadata.parquet")
    assert check_table(folder).info(1).captions == ("number two", "2")


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    folder = table_folder(tmp_path)
    (folder / "metadata.parquet").write_bytes(b"PAR1")
    real = builtins.__import__

    def absent(name, *rest, **named):
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(ImportError, match=r"unclip\[parquet\]"):
        FolderDataset(folder)


def test_broken_jsonl_names_the_line(tmp_path):
    folder = table_folder(tmp_path)
    (folder / "metadata.jsonl").write_text('{"file_name": "one.png", "text": "x"}\n{"file_name": \n')
    with pytest.raises(ValueError, match="line 2"):
        FolderDataset(folder)


def test_no_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        FolderDataset(tmp_path / "none")
    with pytest.raises(ValueError, match="no split 'train'"):
        open_dataset(tmp_path, split="train")
