"""The cache holds what can be made again: nothing in it, or wrong with it, stops anything."""

import os
import sys

import pytest

from unclip.cache import cache_folder, read_cached, write_cached


def test_what_is_written_is_read(tmp_path, monkeypatch):
    monkeypatch.setenv("UNCLIP_CACHE", str(tmp_path / "new" / "folder"))
    assert read_cached("a.json") is None
    write_cached("a.json", {"x": [1, 2.5]})
    assert read_cached("a.json") == {"x": [1, 2.5]}
    assert os.listdir(cache_folder()) == ["a.json"]


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b'{"x": 1}trailing'])
def test_a_damaged_file_is_as_none(tmp_path, monkeypatch, content):
    monkeypatch.setenv("UNCLIP_CACHE", str(tmp_path))
    (tmp_path / "a.json").write_bytes(content)
    assert read_cached("a.json") is None


def test_a_place_that_cannot_be_written_to_is_left(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("UNCLIP_CACHE", str(tmp_path / "file"))
    write_cached("a.json", 1)
    assert read_cached("a.json") is None
    assert (tmp_path / "file").read_text() == "x"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the places of Linux")
def test_it_lies_where_the_system_keeps_caches(tmp_path, monkeypatch):
    monkeypatch.delenv("UNCLIP_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "unclip"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home" / ".cache" / "unclip"
