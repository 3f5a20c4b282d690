"""Text files of users: read whatever their byte-order mark and line ends say, refused in one line elsewhere."""

import codecs
import io
from pathlib import Path

import pytest

from unclip.text_files import TextError, decode, read_lines, read_text, split_lines

FAULTS = Path(__file__).parent / "images" / "faults"
LINES = ["a red fox", "ein größerer 狐 🚀", "the end"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize(
    ("mark", "encoding"),
    [
        (b"", "utf-8"),
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
        (codecs.BOM_UTF32_LE, "utf-32-le"),
        (codecs.BOM_UTF32_BE, "utf-32-be"),
    ],
)
def test_every_mark_and_line_end_gives_the_same_lines(tmp_path, mark, encoding, end, last):
    (tmp_path / "a.txt").write_bytes(mark + (end.join(LINES) + end * last).encode(encoding))
    assert read_lines(tmp_path / "a.txt") == LINES
    assert split_lines(read_text(str(tmp_path / "a.txt"))) == LINES


def test_blank_lines_are_left_out_and_other_separators_are_text():
    assert split_lines("a\r\n\r\n\rb\u2028c\x0cd\n") == ["a", "", "", "b\u2028c\x0cd"]
    assert split_lines("") == []


def test_blank_lines_and_spaces(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf \r\n  a fox \t\r\n\n\n")
    assert read_lines(tmp_path / "a.txt") == ["a fox"]
    (tmp_path / "empty.txt").write_bytes(b"")
    assert read_lines(tmp_path / "empty.txt") == []


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("a\ncafé".encode("latin-1"), r"a\.txt is not UTF-8: line 2 holds the byte 0xE9, .*iconv -f ISO-8859-1 -t UTF-8"),
        ("a “fox”".encode("cp1252"), r"line 1 holds the byte 0x93, .*iconv -f WINDOWS-1252"),
        ("狐".encode("shift-jis"), "older encoding"),
        ("a fox".encode("utf-16-le"), "holds zero bytes, as UTF-16 without a byte-order mark"),
        ("größer".encode("utf-16-le"), "not UTF-8: .*zero bytes, as UTF-16"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\x0d", "not UTF-8"),
        (codecs.BOM_UTF8 + b"caf\xe9", "not UTF-8, which its byte-order mark says: line 1 holds the byte 0xE9; save it as UTF-8"),
        (codecs.BOM_UTF16_LE + b"abc", "not UTF-16, which its byte-order mark says"),
        (codecs.BOM_UTF32_BE + b"\xff\xff\xff\xff", "not UTF-32"),
    ],
)  # fmt: skip
def test_other_encodings_are_refused_in_one_line(data, words):
    with pytest.raises(TextError, match=words) as caught:
        decode(data, "a.txt")
    assert "\n" not in str(caught.value)


def test_stdin_is_read_like_a_file(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(codecs.BOM_UTF8 + b"a\r\nb\r\n"), "ascii"))
    assert read_lines("-") == ["a", "b"]
    monkeypatch.setattr("sys.stdin", io.StringIO("a\nb\n"))
    assert read_lines("-") == ["a", "b"]
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(TextError, match="stdin is closed"):
        read_lines("-")


def test_the_files_that_showed_the_faults():
    assert read_lines(FAULTS / "prompts_with_bom.txt") == ["a red fox", "a blue car"]
    assert read_lines(FAULTS / "prompts_cjk.txt") == ["狐狸", "a red car", "a blue house"]
    with pytest.raises(TextError, match=r"prompts_latin1\.txt is not UTF-8"):
        read_text(FAULTS / "prompts_latin1.txt")
