"""Names, caption files and tables of loose pictures as people have them: used, or named."""

import codecs
import json
import os
import threading

import numpy as np
import pytest

from unclip.data.stream.faults import UNUSED, Faults
from unclip.data.stream.open import open_stream
from unclip.data.stream.reader import Reader


def captions(dataset) -> dict[str, tuple[str, ...]]:
    return {one.key: one.sample().captions for one in dataset.read(range(len(dataset)))}


def test_names_that_are_not_utf8(tmp_path, cache, made):
    folder = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(folder)
    for name, data in (
        (b"\xff.png", made.png(1)),
        (b"\xff.txt", b"one"),
        (b"b.png", made.png(2)),
        (b"b.caption", b"two"),
    ):
        with open(folder + b"/" + name, "wb") as file:
            file.write(data)
    found = open_stream(tmp_path, cache=cache)
    assert captions(found) == {"caf\\xe9/\\xff.png": ("one",), "caf\\xe9/b.png": ("two",)}
    assert found.keys(0) == ["caf\\xe9/\\xff.png", "caf\\xe9/b.png"]
    assert Reader(found, 8).get(np.arange(2)).samples[0].captions == ("one",)
    with open(folder + b"/metadata.csv", "wb") as file:
        file.write(b"file_name,text\nb.png,of the table\n")
    assert captions(open_stream(tmp_path, cache=cache)) == {"caf\\xe9/b.png": ("of the table",)}


def test_several_caption_files_of_one_picture(tmp_path, cache, made):
    for stem in "abc":
        (tmp_path / f"{stem}.png").write_bytes(made.png(1))
    (tmp_path / "a.json").write_text('{"width": 20}')
    (tmp_path / "a.txt").write_text("text of a")
    (tmp_path / "b.txt").write_text("text of b")
    (tmp_path / "b.caption").write_text("another")
    (tmp_path / "c.json").write_text('{"caption": "of json"}')
    (tmp_path / "c.caption").write_text("of caption")
    found = open_stream(tmp_path, cache=cache)
    assert captions(found) == {"a.png": ("text of a",), "b.png": ("text of b",), "c.png": ("of json",)}
    assert found.faults.names[UNUSED] == {"b.caption": "is not read, as b.txt is"}


def test_tables_that_are_not_read_are_named(tmp_path, cache, made):
    (tmp_path / "sub").mkdir()
    for name in ("a.png", "b.png", "sub/c.png"):
        (tmp_path / name).write_bytes(made.png(1))
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "./a.png", "text": "one"}\n')
    (tmp_path / "metadata.csv").write_text("file_name,text\nb.png,two\n")
    (tmp_path / "sub" / "metadata.csv").write_text("file_name,text\nc.png,three\n")
    found = open_stream(tmp_path, cache=cache)
    assert captions(found) == {"a.png": ("one",)}
    assert found.faults.names[UNUSED] == {
        "metadata.csv": "is not read, as metadata.jsonl is",
        "sub/metadata.csv": "is not read, as metadata.jsonl is",
        "b.png": "is in no row of metadata.jsonl",
        "sub/c.png": "is in no row of metadata.jsonl",
    }


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_tables_with_a_byte_order_mark(encoding, ending, tmp_path, cache, made):
    (tmp_path / "a.png").write_bytes(made.png(1))
    row = {"file_name": "a.png", "text": "un café"}
    text = "file_name,text\r\na.png,un café\r\n" if ending == "csv" else json.dumps(row, ensure_ascii=False)
    (tmp_path / f"metadata.{ending}").write_bytes(text.encode(encoding))
    assert captions(open_stream(tmp_path, cache=cache)) == {"a.png": ("un café",)}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"file_name,text\na.png,caf\xe9\n", r"metadata\.csv is not UTF-8 .*iconv"),
        (b"file_name,text\na.png,a\0b\n", r"metadata\.csv, line 2: holds zero bytes"),
        (codecs.BOM_UTF16_LE + b"file", r"metadata\.csv: its first line names none"),
    ],
)
def test_tables_in_other_encodings_are_refused(data, message, tmp_path, cache, made):
    (tmp_path / "a.png").write_bytes(made.png(1))
    (tmp_path / "metadata.csv").write_bytes(data)
    with pytest.raises(ValueError, match=message):
        open_stream(tmp_path, cache=cache)


@pytest.mark.parametrize("name", ["metadata.parquet", "part-0.parquet"])
def test_captions_that_are_bytes_are_text(name, tmp_path, cache, made):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    texts = ["un café".encode(), "un café".encode("latin-1")]
    columns = (
        {"file_name": ["a.png", "b.png"]} if name.startswith("m") else {"image": [made.png(1), made.png(2)]}
    )
    for stem in "ab":
        (tmp_path / f"{stem}.png").write_bytes(made.png(1))
    parquet.write_table(pa.table({**columns, "text": texts}), tmp_path / name)
    good, bad = open_stream(tmp_path, cache=cache, faults=Faults(1.0)).read([0, 1])
    assert good.sample().captions == ("un café",)
    with pytest.raises(ValueError, match="has no caption"):
        bad.sample()


def test_threads_share_a_catalogue(tmp_path, cache, made):
    found, errors = open_stream(made.folder(tmp_path / "data"), cache=cache), []

    def read() -> None:
        try:
            for number in range(200):
                assert found.read([number % made.count])[0].picture == made.png(number % made.count)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert errors == []
