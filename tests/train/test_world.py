"""Where a launcher put a process, and how samples are divided."""

import threading
import time

import numpy as np
import pytest
import torch

from unclip.train.world import Place, World, _first_host, fresh_store, local_device, place_of


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}, Place(3, 8, 1)),
        ({"RANK": "0", "WORLD_SIZE": "1"}, Place(0, 1, 0)),
        ({"SLURM_PROCID": "9", "SLURM_STEP_NUM_TASKS": "16", "SLURM_LOCALID": "1"}, Place(9, 16, 1)),
        # A shell in an allocation was not started by srun.
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "16"}, None),
    ],
)
def test_launchers_say_where_a_process_is(environment, expected):
    assert place_of(environment) == expected


@pytest.mark.parametrize(
    ("nodes", "host"),
    [("", "127.0.0.1"), ("login1", "login1"), ("gpu[003-010,012],login1", "gpu003"), ("a-1,b-2", "a-1")],
)
def test_the_first_host_of_a_slurm_list(nodes, host):
    assert _first_host(nodes) == host


def test_a_named_device_is_taken_as_it_is():
    assert local_device("cpu", Place(3, 8, 1)) == torch.device("cpu")
    assert local_device("cuda:0", Place(3, 8, 1)) == torch.device("cuda:0")


@pytest.mark.parametrize(("size", "count"), [(1, 5), (2, 5), (4, 50), (4, 2), (8, 1)])
def test_every_sample_is_one_processs(size, count):
    world, numbers = World(), np.arange(100, 100 + count)
    world.size = size
    parts, shares = [], []
    for rank in range(size):
        world.rank = rank
        division = world.divide(numbers)
        shares.append(division.share)
        own = division.part(numbers)
        assert len(own)
        parts += own.tolist() if division.count else []
        assert division.count or own.tolist() == [100]
    assert parts == numbers.tolist()
    assert sum(shares) == pytest.approx(1.0)


def test_one_process_needs_no_group():
    world = World()
    assert (world.rank, world.size, world.is_main, world.control) == (0, 1, True, None)
    assert world.any(True, False) == [True, False]
    assert world.from_main(lambda: 5) == 5
    assert world.objects("x") == ["x"]
    with world.main_first():
        pass


def test_a_store_with_the_words_of_dead_processes_is_used_afresh():
    store, found = torch.distributed.HashStore(), {}
    # Of an attempt that died: rank 1 asked, and nobody took anything.
    store.set("unclip/asks/1", "old")

    def enter(rank: int) -> None:
        found[rank] = fresh_store(store, rank, 3, timeout=20.0)

    threads = [threading.Thread(target=enter, args=(rank,)) for rank in (0, 2, 1)]
    for thread in threads:
        thread.start()
        time.sleep(0.1)
    for thread in threads:
        thread.join()
    found[0].set("address", "new")
    assert found[1].get("address") == found[2].get("address") == b"new"
    assert not store.check(["address"])


def test_a_process_that_does_not_come_is_named():
    with pytest.raises(TimeoutError, match=r"processes \[1\] of 2 did not come"):
        fresh_store(torch.distributed.HashStore(), 0, 2, timeout=0.05)
