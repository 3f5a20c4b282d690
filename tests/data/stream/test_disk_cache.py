"""The cache on disk: within its budget, whole files only, shared by processes."""

import multiprocessing
import threading
import time

import pytest

from unclip.data.stream.disk_cache import CachedStore, DiskCache
from unclip.data.stream.store import LocalStore, Vanished


def fill(folder, budget, first):
    cache = DiskCache(folder, budget)
    for number in range(first, first + 200):
        data = f"{number}".encode() * 100
        assert cache.read(f"{number}", lambda data=data: data, [(0, len(data))]) == [data]
        assert cache.size() <= budget


def test_stays_within_its_budget_and_keeps_what_was_used_last(tmp_path):
    cache = DiskCache(tmp_path, 10_000)
    for number in range(30):
        cache.path(f"{number}", lambda: b"x" * 1000)
        time.sleep(0.002)
        cache.path("0", lambda: pytest.fail("the piece used all the time was removed"))
        assert cache.size() <= 10_000
    made = []
    cache.path("29", lambda: made.append(1) or b"")
    assert not made
    cache.path("1", lambda: made.append(1) or b"x")
    assert made


def test_processes_share_it(tmp_path):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=fill, args=(tmp_path, 200_000, first)) for first in (0, 100)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert not list(tmp_path.glob(".*.part"))


def test_threads_make_a_piece_once(tmp_path):
    cache, made = DiskCache(tmp_path, 10_000), []

    def make():
        made.append(1)
        time.sleep(0.05)
        return b"abc"

    threads = [threading.Thread(target=cache.path, args=("one", make)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1


def test_a_failed_piece_leaves_nothing(tmp_path):
    cache = DiskCache(tmp_path, 10_000)

    def fail():
        raise OSError("broken")

    with pytest.raises(OSError, match="broken"):
        cache.path("one", fail)
    assert cache.size() == 0
    assert cache.path("one", lambda: b"ab").read_bytes() == b"ab"


def test_hits_leave_nothing_in_memory(tmp_path):
    cache = DiskCache(tmp_path, 10_000)
    for _ in range(2):
        for number in range(50):
            assert cache.read(f"{number}", lambda: b"abc", [(1, 2)]) == [b"bc"]
    assert (cache.hits, cache.misses) == (50, 50)
    assert cache._locks == {}


def test_a_file_that_is_not_there_to_be_made_is_asked_for_once(tmp_path):
    asked = []

    def gone():
        asked.append(1)
        raise Vanished("gone")

    with pytest.raises(Vanished):
        DiskCache(tmp_path, 10_000).read("one", gone, [(0, 1)])
    assert len(asked) == 1


def test_pieces_of_files(tmp_path):
    (tmp_path / "files").mkdir()
    data = bytes(range(256)) * 10
    (tmp_path / "files" / "a").write_bytes(data)
    store = CachedStore(
        LocalStore(tmp_path / "files"), DiskCache(tmp_path / "cache", 1 << 20), {"a": "1"}, 100
    )
    spans = [(0, 10), (95, 10), (250, 500), (2550, 100), (99, 1)]
    assert store.read("a", spans) == [data[start : start + length] for start, length in spans]
    (tmp_path / "files" / "a").write_bytes(data[::-1])
    assert store.read("a", [(0, 10)]) == [data[:10]], "a hit"
    assert CachedStore(store.store, store.cache, {"a": "2"}, 100).read("a", [(0, 10)]) == [data[::-1][:10]]


def test_budgets_that_cannot_be(tmp_path):
    with pytest.raises(ValueError, match="at least one byte"):
        DiskCache(tmp_path, 0)
    with pytest.raises(ValueError, match="less than one piece of 11"):
        DiskCache(tmp_path, 10).path("a", lambda: b"x" * 11)
