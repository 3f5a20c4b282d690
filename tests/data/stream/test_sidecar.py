"""Sidecar files: rows joined by key, whole or not there, of one model."""

import json

import numpy as np
import pytest
from safetensors.numpy import save

from unclip.data.stream.faults import MISSING_ROW
from unclip.data.stream.sidecar import Origin, SidecarError, Sidecars, encode_sidecar, is_whole
from unclip.data.stream.store import LocalStore, open_store

MODEL = "0123456789abcdef" * 2
ORIGIN = Origin(kind="image", model=MODEL, preprocessing="64 px")


def rows_of(numbers):
    return np.array([[number, number + 0.5] for number in numbers], np.float32)


@pytest.fixture
def folder(tmp_path):
    """Rows of two units, in another order than their keys, one of them not ok."""
    store = LocalStore(tmp_path / "side")
    for unit, numbers in (("a", [3, 1, 2]), ("b/c", [5, 4])):
        ok = np.array([number != 2 for number in numbers])
        keys = [f"{unit}/{number}" for number in numbers]
        store.put(ORIGIN.name(unit), encode_sidecar(ORIGIN, unit, keys, rows_of(numbers), ok))
    return tmp_path / "side"


def test_rows_are_joined_by_key(folder, cache):
    rows, ok = Sidecars(folder, "image", MODEL, cache).rows(["a", "b/c", "a"], ["a/1", "b/c/5", "a/3"])
    assert rows.dtype == np.float16
    assert rows.tolist() == rows_of([1, 5, 3]).tolist()
    assert ok.all()


def test_on_s3(folder, cache, s3):
    url = s3.upload(folder)
    rows, _ = Sidecars(url, "image", MODEL, cache).rows(["b/c"], ["b/c/4"])
    assert rows.tolist() == [[4, 4.5]]
    assert is_whole(open_store(url), ORIGIN.name("a"), ORIGIN, 3)
    assert not is_whole(open_store(url), ORIGIN.name("d"), ORIGIN, 3)


def test_missing_rows_are_zero_counted_and_named(folder, cache):
    found = Sidecars(folder, "image", MODEL, cache)
    rows, ok = found.rows(["a", "a", "none", "a"], ["a/2", "a/9", "none/1", "a/1"])
    assert ok.tolist() == [False, False, False, True]
    assert not rows[:3].any()
    assert found.faults.counts == {MISSING_ROW: 3}
    assert set(found.faults.names[MISSING_ROW]) == {"a/2", "a/9", "none/1"}


def test_rows_of_another_model_are_an_error(folder, cache):
    with pytest.raises(SidecarError, match=r"rows of the model 0123456789ab, and not of ffffff"):
        Sidecars(folder, "image", "f" * 32, cache)
    # The name says only the beginning; the file says it all.
    with pytest.raises(SidecarError, match="rows of the model"):
        Sidecars(folder, "image", MODEL[:12] + "0" * 20, cache).rows(["a"], ["a/1"])


def test_whole_or_not(folder):
    store, name = LocalStore(folder), ORIGIN.name("a")
    assert is_whole(store, name, ORIGIN, 3)
    assert not is_whole(store, name, ORIGIN, 4)
    assert not is_whole(store, name, Origin(kind="image", model=MODEL, preprocessing="32 px"), 3)
    data = (folder / name).read_bytes()
    for damaged in (data[:-1], data + b"x", data[:20], b""):
        (folder / name).write_bytes(damaged)
        assert not is_whole(store, name, ORIGIN, 3)


def test_the_same_rows_are_the_same_bytes():
    made = {
        encode_sidecar(ORIGIN, "a", ["x", "y"], rows_of([1, 2]), np.array([True, True])) for _ in range(20)
    }
    assert len(made) == 1


def test_a_key_that_comes_twice_is_an_error():
    with pytest.raises(SidecarError, match="a holds a key twice"):
        encode_sidecar(ORIGIN, "a", ["x", "x"], rows_of([1, 2]), np.array([True, True]))


def test_a_file_that_is_cut_off_is_an_error(folder, cache):
    path = folder / ORIGIN.name("a")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(SidecarError, match="cut off"):
        Sidecars(folder, "image", MODEL, cache).rows(["a"], ["a/1"])


def test_one_that_was_written_again_on_s3(folder, cache, s3):
    url = s3.upload(folder)
    assert Sidecars(url, "image", MODEL, cache).rows(["b/c"], ["b/c/4"])[0].tolist() == [[4, 4.5]]
    other = encode_sidecar(ORIGIN, "b/c", ["b/c/4"], rows_of([9]), np.array([True]), state="another")
    s3.put(url, ORIGIN.name("b/c"), other)
    assert Sidecars(url, "image", MODEL, cache).rows(["b/c"], ["b/c/4"])[0].tolist() == [[9, 9.5]]
    assert not is_whole(open_store(url), ORIGIN.name("b/c"), ORIGIN, 1)
    assert is_whole(open_store(url), ORIGIN.name("b/c"), ORIGIN, 1, state="another")


@pytest.mark.parametrize(
    "data",
    [
        b"<!DOCTYPE html><html>not found</html>",
        b"version https://git-lfs.github.com/spec/v1\n",
        b"\xff" * 64,
        b"\x02\0\0\0\0\0\0\0[]",
        b"\x02\0\0\0\0\0\0\0{}",
        (50_000).to_bytes(8, "little") + b"[" * 50_000,
        b"",
    ],
)
def test_what_is_no_sidecar_is_refused_by_name(folder, cache, data):
    """Their first bytes, read as a length, ask for more memory than there is."""
    name = ORIGIN.name("a")
    (folder / name).write_bytes(data)
    for read in (lambda found: found.rows(["a"], ["a/1"]), lambda found: found.unit("a")):
        with pytest.raises(SidecarError, match=f"{name} is no sidecar, or damaged"):
            read(Sidecars(folder, "image", MODEL, cache))
    assert not is_whole(LocalStore(folder), name, ORIGIN, 3)


KEYS, ROWS, OK = np.arange(3, dtype=np.uint64), np.ones((3, 2), np.float16), np.ones(3, bool)


@pytest.mark.parametrize(
    "changes",
    [
        {"rows": ROWS.astype(np.uint8)},
        {"rows": ROWS.astype(np.float32)},
        {"rows": ROWS[:2]},
        {"keys": KEYS.astype(np.int64)},
        {"ok": OK.reshape(3, 1)},
        {"ok": None},
        {"rows": np.float16(1)},
    ],
)
def test_tensors_of_other_kinds_are_refused(folder, cache, changes):
    metadata = {"format": "1", "unit": "a", "samples": "3", "state": "", "kind": "image", "model": MODEL}
    tensors = {"keys": KEYS, "rows": ROWS, "ok": OK} | changes
    given = {name: np.asarray(value) for name, value in tensors.items() if value is not None}
    note = {"sidecar": json.dumps({**metadata, "preprocessing": "64 px"})}
    (folder / ORIGIN.name("a")).write_bytes(save(given, note))
    with pytest.raises(SidecarError, match="is no sidecar, or damaged"):
        Sidecars(folder, "image", MODEL, cache).unit("a")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_rows_that_are_not_finite_are_no_rows(folder, cache, value):
    """Of another program, or of a version that did not look: NaN would be learned without a word."""
    keys, rows = ["a/3", "a/1", "a/2"], rows_of([3, 1, 2])
    rows[1, 0] = value
    LocalStore(folder).put(ORIGIN.name("a"), encode_sidecar(ORIGIN, "a", keys, rows, np.ones(3, bool)))
    found = Sidecars(folder, "image", MODEL, cache)
    assert found.rows(["a"], ["a/3"])[0].tolist() == [[3, 3.5]]
    with pytest.raises(SidecarError, match=r"the row of a/1 holds numbers that are not finite"):
        found.rows(["a"], ["a/1"])
    with pytest.raises(SidecarError, match=r"the row number 1 holds numbers that are not finite"):
        found.unit("a")
