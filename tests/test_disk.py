"""A full disk is an error that names the file, the need and the remedy, and leaves nothing behind."""

import contextlib
import errno
import json
import os
import resource
import signal
import time

import numpy as np
import pytest
import torch
from PIL import Image

from unclip import disk
from unclip.checkpoints.io import save_model
from unclip.checkpoints.quantize import stored_size
from unclip.checkpoints.quantize_model import quantize_model
from unclip.data.dataset import open_dataset
from unclip.data.decoded_cache import DecodedCache
from unclip.data.stream.disk_cache import DiskCache
from unclip.disk import DiskFull, is_full, remove_abandoned, reserve
from unclip.images import write_atomically
from unclip.train.ema import Ema
from unclip.train.state import TrainingState


@contextlib.contextmanager
def no_file_above(size):
    """Files cannot grow above `size`, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def refuse(code):
    def fallocate(descriptor, offset, length):
        raise OSError(code, os.strerror(code))

    return fallocate


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(4):
        Image.fromarray(np.full((8, 8, 3), number, dtype=np.uint8)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text("grey")
    return folder


@pytest.fixture
def state():
    model = torch.nn.Linear(64, 64)
    return TrainingState(model, Ema(model, 0.9), [torch.optim.SGD(model.parameters(), lr=0.1)])


def test_reserved_files_keep_what_is_in_them(tmp_path, monkeypatch):
    for number, code in enumerate((None, errno.EOPNOTSUPP, errno.EINVAL)):
        file = tmp_path / str(number)
        file.write_bytes(b"begun")
        if code is not None:
            monkeypatch.setattr(os, "posix_fallocate", refuse(code))
        reserve(file, 10_000, what="it", remedy="make room")
        assert file.read_bytes() == b"begun".ljust(10_000, b"\0")
    monkeypatch.delattr(os, "posix_fallocate")
    reserve(tmp_path / "other", 10_000, what="it", remedy="make room")
    assert (tmp_path / "other").stat().st_size == 10_000


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_has_words(tmp_path, monkeypatch, code):
    monkeypatch.setattr(os, "posix_fallocate", refuse(code))
    with pytest.raises(
        DiskFull, match=r"no room for it: it needs 3\.0 MiB, and .* free.*: make room.*file"
    ) as raised:
        reserve(tmp_path / "file", 3 << 20, what="it", remedy="make room")
    assert raised.value.filename == str(tmp_path / "file")
    assert is_full(raised.value)


def test_other_errors_are_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "posix_fallocate", refuse(errno.EIO))
    with pytest.raises(OSError, match="Input/output") as raised:
        reserve(tmp_path / "file", 10, what="it", remedy="make room")
    assert not isinstance(raised.value, DiskFull)


def test_a_written_file_without_room_is_named(tmp_path):
    with (
        no_file_above(8192),
        pytest.raises(DiskFull, match=r"it needs 10,000 bytes.*make room.*picture\.png"),
    ):
        write_atomically(tmp_path / "picture.png", bytes(10_000))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("storage", ["float32", "float16", "int8"])
def test_a_model_without_room_is_refused_before_it_is_written(tmp_path, tiny, storage):
    tiny_parts = tiny.parts(tiny.tokenizer())
    with (
        no_file_above(1 << 16),
        pytest.raises(DiskFull, match=r"no room for the model: it needs .*make room.*model'$"),
    ):
        save_model(tmp_path / "model", tiny_parts, name="model", storage=storage)
    assert list(tmp_path.iterdir()) == []
    folder = save_model(tmp_path / "model", tiny_parts, name="model", storage=storage)
    written = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    needed = sum(stored_size(part.state_dict(), storage) for part in tiny_parts.values())
    assert written <= needed <= 1.5 * written + 20_000
    with no_file_above(1 << 16), pytest.raises(DiskFull, match="no room for the weights"):
        quantize_model(folder, tmp_path / "smaller", storage="float16")
    assert not (tmp_path / "smaller").exists()


@pytest.mark.parametrize("can_reserve", [True, False])
def test_a_cache_without_room(pictures, tmp_path, monkeypatch, can_reserve):
    if not can_reserve:
        monkeypatch.setattr(os, "posix_fallocate", refuse(errno.EOPNOTSUPP))
    cache = tmp_path / "cache"
    with no_file_above(1 << 16), pytest.raises(OSError) as raised:  # noqa: PT011
        DecodedCache.load(open_dataset(pictures), 256, cache)
    assert is_full(raised.value)
    assert list(cache.iterdir()) == []
    assert len(DecodedCache.load(open_dataset(pictures), 256, cache)) == 4


def test_a_disk_that_is_full_before_the_record(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "posix_fallocate", refuse(errno.ENOSPC))
    with pytest.raises(DiskFull, match=r"decoded pictures: it needs 896 bytes.*data\.cache.*-8\.npy'$"):
        DecodedCache.load(open_dataset(pictures), 8, tmp_path / "cache")
    monkeypatch.undo()

    def full(descriptor):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFull, match="the decoded pictures' record"):
        DecodedCache.load(open_dataset(pictures), 8, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_checkpoint_without_room_leaves_the_last_one(state, tmp_path, monkeypatch):
    folder = tmp_path / "checkpoints"
    good = state.save(folder, keep=2)
    state.samples = 8
    with (
        no_file_above(8192),
        pytest.raises(DiskFull, match=r"the checkpoint.*goes on from the last checkpoint"),
    ):
        state.save(folder, keep=2)
    # Room for the reservation, but not for what is written then.
    monkeypatch.setattr("unclip.train.state.require_room", lambda *rest, **named: None)
    with no_file_above(8192), pytest.raises(DiskFull, match="the checkpoint"):
        state.save(folder, keep=2)
    assert list(folder.iterdir()) == [good]
    assert state.load_newest(folder) == good
    state.samples = 8
    monkeypatch.undo()
    assert state.save(folder, keep=2).name == "samples-000000000008"
    assert json.loads((folder / "samples-000000000008" / "manifest.json").read_text())["samples"] == 8
    assert disk.DiskFull is DiskFull


def test_what_killed_processes_left_is_removed(tmp_path):
    for name, age in (
        (".a.1.partial", 4000),
        (".a.2.partial", 10),
        (".b.1.partial", 4000),
        ("a.partial", 4000),
    ):
        (tmp_path / name).write_bytes(b"x")
        then = time.time() - age
        os.utime(tmp_path / name, (then, then))
    remove_abandoned(tmp_path, ".a.*.partial")
    assert {one.name for one in tmp_path.iterdir()} == {".a.2.partial", ".b.1.partial", "a.partial"}


def test_decoding_removes_what_a_killed_run_left(pictures, tmp_path):
    cache, dataset = tmp_path / "cache", open_dataset(pictures)
    cache.mkdir()
    left = cache / f".{dataset.fingerprint[:24]}-32.npy.999999.partial"
    left.write_bytes(b"half of it")
    os.utime(left, (0, 0))
    DecodedCache.load(dataset, 32, cache)
    assert not list(cache.glob(".*"))


def test_a_cache_of_pieces_without_room(tmp_path):
    cache = DiskCache(tmp_path / "pieces")
    with (
        no_file_above(4096),
        pytest.raises(DiskFull, match=r"a piece of the data: it needs 10,000 bytes.*data\.cache"),
    ):
        cache.path("one", lambda: bytes(10_000))
    assert not [one for one in (tmp_path / "pieces").rglob("*") if one.is_file() and one.name != ".lock"]
    assert cache.path("one", lambda: bytes(10_000)).stat().st_size == 10_000
