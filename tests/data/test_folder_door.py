"""Text of folders and tables: encodings, separators, endings, types; what is not used is counted and named."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unclip.data.decoded_cache import DecodedCache
from unclip.data.folder import FolderDataset
from unclip.data.sample import BadSamples
from unclip.data.stream.rows import rows_of
from unclip.data.stream.store import LocalStore

DOOR = Path(__file__).parent / "door"


def save(path, value=128):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8, 3), value, dtype=np.uint8)).save(path)


def pictures(folder, *names):
    for number, name in enumerate(names):
        save(folder / name, number)


def read(folder, limit=0.0):
    bad = BadSamples(limit)
    return FolderDataset(folder, bad), bad


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("folder_bom_captions", "000.png"),
        ("folder_hf_subfolder", "train/000.png"),
        ("folder_tab_csv", "000.png"),
    ],
)
def test_given_folders(name, key):
    data, bad = read(DOOR / name)
    assert len(data) == 4
    assert data.keys()[0] == key
    assert not any(text.startswith("\ufeff") for index in range(4) for text in data.info(index).captions)
    assert bad.report() == ""


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_encodings_and_line_ends(tmp_path, encoding, end):
    pictures(tmp_path, "a.png", "b.png")
    (tmp_path / "a.txt").write_bytes(f"ein Käfer{end}zwei  {end}{end}".encode(encoding))
    (tmp_path / "b.json").write_bytes(json.dumps({"caption": "Käfer"}, ensure_ascii=False).encode(encoding))
    data, _ = read(tmp_path)
    assert data.info(0).captions == ("ein Käfer", "zwei")
    assert data.info(1).captions == ("Käfer",)
    for table, line in (
        ("metadata.csv", "file_name,text{end}a.png,Käfer{end}b.png,Maus{end}"),
        (
            "metadata.jsonl",
            '{{"file_name": "a.png", "text": "Käfer"}}{end}{end}{{"file_name": "b.png", "text": "Maus"}}',
        ),
    ):
        (tmp_path / table).write_bytes(line.format(end=end).encode(encoding))
        data, bad = read(tmp_path)
        assert [data.info(index).captions for index in range(2)] == [("Käfer",), ("Maus",)]
        assert not len(bad)
        assert bad.notes == dict.fromkeys(("a.txt", "b.json"), f"is not read, as {table} is")
        (tmp_path / table).unlink()


def test_caption_files_that_are_not_used_are_noted(tmp_path):
    pictures(tmp_path, "a.png", "sub/b.png")
    for name in ("a.txt", "a.json", "sub/b.caption", "sub/c.txt", "README.txt"):
        (tmp_path / name).write_text('{"caption": "grey"}' if name.endswith("json") else "grey")
    data, bad = read(tmp_path)
    assert data.keys() == ["a.png", "sub/b.png"]
    missing = "no picture has its name"
    assert bad.notes == {"a.txt": "is not read, as a.json is", "README.txt": missing, "sub/c.txt": missing}
    assert bad.report().startswith("3 unused files: ")


def test_a_column_that_comes_twice_is_refused(tmp_path):
    pictures(tmp_path, "a.png")
    (tmp_path / "metadata.csv").write_text("file_name,text, text \na.png,grey,black\n")
    with pytest.raises(ValueError, match=r"metadata\.csv: its first line has the column 'text' twice"):
        read(tmp_path)
    with pytest.raises(ValueError, match="the column 'text' twice"):
        list(rows_of(LocalStore(tmp_path), "metadata.csv"))


def test_other_encodings_are_named_with_a_remedy(tmp_path):
    pictures(tmp_path, "a.png")
    (tmp_path / "a.txt").write_bytes("ein Käfer".encode("latin-1"))
    _, bad = read(tmp_path, 1.0)
    assert "a.txt is not UTF-8" in bad.reasons["a.png"]
    assert "iconv" in bad.reasons["a.png"]
    for table in ("metadata.csv", "metadata.jsonl"):
        (tmp_path / table).write_bytes(b"file_name,text\na.png,K\xe4fer\n")
        with pytest.raises(ValueError, match=rf"{table} is not UTF-8: line 2"):
            read(tmp_path)
        (tmp_path / table).unlink()


@pytest.mark.parametrize("separator", [",", "\t", ";", "|"])
@pytest.mark.parametrize("table", ["metadata.csv", "metadata.tsv", "Metadata.CSV"])
def test_separators(tmp_path, separator, table):
    pictures(tmp_path, "a.png", "b.png")
    lines = [
        ("text", " file_name", "weight"),
        ("a dog, running; fast", "a.png", "0.5"),
        ("b|c\td", "b.png", ""),
    ]
    text = "\n".join(
        separator.join(f'"{field}"' if field not in lines[0] else field for field in line) for line in lines
    )
    (tmp_path / table).write_text(text)
    data, _ = read(tmp_path)
    assert data.info(0).captions == ("a dog, running; fast",)
    assert [data.info(index).weight for index in range(2)] == [0.5, 1.0]
    (tmp_path / table).write_text(f"sep={separator}\r\n{text}")
    assert read(tmp_path)[0].info(1).captions == ("b|c\td",)


def test_tables_that_cannot_be_read_name_file_and_line(tmp_path):
    pictures(tmp_path, "a.png")
    for table, text, message in (
        ("metadata.csv", "name,text\na.png,x\n", r"metadata\.csv: its first line names none of the columns"),
        ("metadata.csv", "", r"metadata\.csv: its first line names none"),
        (
            "metadata.csv",
            f"file_name,text\na.png,x\na.png,{'x' * 140_000}\n",
            r"metadata\.csv, line 3: field larger",
        ),
        ("metadata.csv", 'file_name,text\na.png,"x\nb.png,y\n', r"metadata\.csv, line 2: .*not closed"),
        (
            "metadata.jsonl",
            '{"file_name": "a.png"}\n' + "[" * 100_000,
            r"metadata\.jsonl, line 2: .*too deep",
        ),
        ("metadata.jsonl", '{"weight": 1' + "0" * 5000 + "}", r"metadata\.jsonl, line 1: "),
        ("metadata.jsonl", "[1]", r"metadata\.jsonl, line 1: not a JSON object"),
    ):
        (tmp_path / table).write_text(text)
        with pytest.raises(ValueError, match=message):
            read(tmp_path)
        (tmp_path / table).unlink()


def test_a_caption_with_a_separator_is_not_cut(tmp_path):
    pictures(tmp_path, "a.png", "b.png")
    (tmp_path / "metadata.csv").write_text("file_name,text\na.png,a dog, running\nb.png,a cat\n")
    data, bad = read(tmp_path, 1.0)
    assert data.keys() == ["b.png"]
    assert "quote captions" in bad.reasons["metadata.csv row 1"]
    assert bad.notes == {}


@pytest.mark.parametrize("weight", [[1], {}, "much", True, -1, 0, 2, 10**400, "nan", [[0.5]] * 100])
def test_weights_of_a_wrong_type_name_file_and_row(tmp_path, weight):
    pictures(tmp_path, "a.png", "b.png")
    rows = [
        {"file_name": "a.png", "text": "x", "weight": "0.5"},
        {"file_name": "b.png", "text": "x", "weight": weight},
    ]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data, bad = read(tmp_path, 1.0)
    assert data.info(0).weight == 0.5
    assert "is not in (0, 1]" in bad.reasons["b.png"]
    assert "(metadata.jsonl row 2)" in bad.reasons["b.png"]
    assert len(bad.reasons["b.png"]) < 150


@pytest.mark.parametrize("ending", [".TXT", ".Txt", ".caption", ".CAPTION", ".JSON"])
def test_endings_of_caption_files(tmp_path, ending):
    pictures(tmp_path, "a.png")
    (tmp_path / f"a{ending}").write_text('{"caption": "x"}' if ending == ".JSON" else "x")
    assert read(tmp_path)[0].info(0).captions == ("x",)


def test_tables_in_sub_folders(tmp_path):
    for name in ("train", "test"):
        pictures(tmp_path / name, "a.png", "b.png")
        (tmp_path / name / "metadata.jsonl").write_text(json.dumps({"file_name": "a.png", "text": name}))
    pictures(tmp_path / "loose", "c.png")
    (tmp_path / "loose" / "c.txt").write_text("loose")
    data, bad = read(tmp_path)
    assert data.keys() == ["test/a.png", "train/a.png", "loose/c.png"]
    assert [data.info(index).captions[0] for index in range(3)] == ["test", "train", "loose"]
    assert bad.notes == {
        f"{name}/b.png": f"is in no row of {name}/metadata.jsonl" for name in ("test", "train")
    }
    (tmp_path / "metadata.csv").write_text("file_name,text\ntrain/a.png,one\n")
    data, bad = read(tmp_path)
    assert data.keys() == ["train/a.png"]
    assert bad.notes["train/metadata.jsonl"] == "is not read, as metadata.csv is"
    assert "loose/c.png" in bad.notes


def test_other_formats_and_links_are_noted(tmp_path):
    folder = tmp_path / "set"
    pictures(folder, "a.png")
    (folder / "a.txt").write_text("x")
    for name in ("b.gif", "c.TIFF", "d.heic"):
        (folder / name).write_bytes(b"x")
    pictures(tmp_path / "elsewhere", "e.png")
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    data, bad = read(folder)
    assert data.keys() == ["a.png"]
    assert list(bad.notes) == ["linked", "b.gif", "c.TIFF", "d.heic"]


def test_links_out_of_the_folder_are_bad_for_captions_too(tmp_path):
    folder = tmp_path / "set"
    pictures(folder, "a.png", "b.png", "c.png")
    (tmp_path / "secret.txt").write_text("secret")
    (folder / "a.txt").symlink_to(tmp_path / "secret.txt")
    (folder / "b.txt").write_text("fine")
    (folder / "c.txt").symlink_to(folder / "b.txt")
    data, bad = read(folder, 1.0)
    assert data.keys() == ["b.png", "c.png"]
    assert bad.reasons == {"a.png": "caption file: points outside of the folder"}


def test_rows_of_one_picture_are_one_sample(tmp_path):
    pictures(tmp_path, "a.png", "b.png")
    (tmp_path / "metadata.csv").write_text("image,caption\na.png,one\na.png,two\nb.png,three\na.png,one\n")
    data, bad = read(tmp_path)
    assert data.keys() == ["a.png", "b.png"]
    assert data.info(0).captions == ("one", "two")
    assert list(bad.notes) == ["a.png"]


def test_odd_rows_are_bad_samples(tmp_path):
    pictures(tmp_path, "a.png")
    names = ["\0.png", "x" * 5000 + ".png", "\ud800.png", "", "a.png"]
    rows = [
        *({"file_name": name, "text": "x"} for name in names),
        {"file_name": "a.png", "text": "half \ud83d"},
    ]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data, bad = read(tmp_path, 1.0)
    assert data.keys() == ["a.png"]
    assert len(bad) == 5
    assert "half a character" in bad.reasons["a.png"]
    bad.summary().encode()


def test_names_that_are_not_utf8(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    name = os.fsdecode(b"caf\xe9")
    save(folder / f"{name}.png", 7)
    (folder / f"{name}.txt").write_text("a café")
    (folder / os.fsdecode(b"lonely\xff.gif")).write_bytes(b"")
    data, bad = read(folder)
    assert data.keys() == [r"caf\xe9.png"]
    assert list(bad.notes) == [r"lonely\xff.gif"]
    decoded = DecodedCache.load(data, 8, tmp_path / "cache", bad=bad)
    assert decoded.pictures([0])[0, 0, 0, 0] == 7
    assert list(decoded.contents()) == [r"caf\xe9.png"]


def test_of_two_spellings_of_a_caption_file_the_first_is_read_and_the_other_noted(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "a.TXT").write_text("the first")
    (tmp_path / "a.txt").write_text("the second")
    bad = BadSamples()
    found = FolderDataset(tmp_path, bad)
    assert found.info(0).captions == ("the first",)
    assert bad.notes == {"a.txt": "is not read, as a.TXT is"}
