"""Batches prepared ahead: the same batches, in order, bounded; errors where they are taken."""

import threading
import time

import numpy as np
import pytest
import torch

from unclip.config import override
from unclip.train.batches import BatchError, Prefetcher
from unclip.train.loop import micro_batches, train


def chunks(*starts: int) -> list[np.ndarray]:
    return [np.arange(start, start + 4) for start in starts]


def test_at_most_depth_batches_are_prepared_ahead_on_another_thread():
    made, threads = [], set()

    def make(numbers):
        made.append(int(numbers[0]))
        threads.add(threading.current_thread())
        return numbers.tolist()

    prefetcher = Prefetcher(make, 2)
    first, *following = chunks(0, 4, 8, 12, 16)
    assert prefetcher.take(first, following) == [0, 1, 2, 3]
    prefetcher.close()
    assert set(made) <= {0, 4, 8}
    assert threading.current_thread() not in threads
    assert not any(thread.is_alive() for thread in threads)


def test_what_was_not_expected_is_made_as_well():
    prefetcher = Prefetcher(lambda numbers: numbers.tolist(), 3)
    first, *following = chunks(0, 4, 8)
    prefetcher.take(first, following)
    assert prefetcher.take(np.arange(100, 102)) == [100, 101]
    assert prefetcher.take(following[0], following[1:]) == [4, 5, 6, 7]
    prefetcher.close()


@pytest.mark.parametrize("depth", [0, 2])
def test_an_error_is_raised_where_its_batch_is_taken(depth):
    def make(numbers):
        if 4 in numbers:
            raise OSError("gone")
        return numbers

    prefetcher = Prefetcher(make, depth)
    first, second = chunks(0, 4)
    prefetcher.take(first, [second])
    with pytest.raises(OSError, match="gone"):
        prefetcher.take(second)
    prefetcher.close()


def test_closing_waits_for_no_more_than_one_batch():
    started = threading.Event()

    def make(numbers):
        started.set()
        time.sleep(0.2 if numbers[0] else 0.0)
        return numbers

    prefetcher = Prefetcher(make, 8)
    first, *following = chunks(*range(0, 36, 4))
    prefetcher.take(first, following)
    started.wait()
    before = time.monotonic()
    prefetcher.close()
    assert time.monotonic() - before < 0.7


def test_micro_batches_are_those_of_the_steps(small):
    config = small("clip", "samples=20", "batch=8", "micro_batch=5")
    assert [chunk.tolist() for chunk in micro_batches(config, 8)] == [
        [8, 9, 10, 11, 12], [13, 14, 15], [16, 17, 18, 19]
    ]  # fmt: skip


@pytest.mark.parametrize("stage", ["clip", "decoder", "upsampler_1024"])
def test_weights_do_not_depend_on_what_is_prepared_ahead(small, begin, stage):
    config = small(stage, "micro_batch=3", "prefetch=0")
    plain, ahead = begin(config), begin(override(config, ["prefetch=4", f"out={config.out}-ahead"]))
    for run in (plain, ahead):
        run.go(until=24)
    torch.testing.assert_close(ahead.state.model.state_dict(), plain.state.model.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("depth", [0, 2])
def test_a_sample_that_cannot_be_prepared_is_named(small, begin, monkeypatch, depth):
    run = begin(small("upsampler", f"prefetch={depth}"))
    source = run.batches.train
    key, squares = source.key(11), source.squares

    def failing(indices, corner, side):
        if key in [source.decoded.samples[index].key for index in indices]:
            raise OSError("the disk is gone")
        return squares(indices, corner, side)

    monkeypatch.setattr(source, "squares", failing)
    run.step()
    with pytest.raises(BatchError, match=rf"{key} \(sample 11\): the disk is gone"):
        run.step()
    run.prefetcher.close()


def test_no_thread_is_left_after_a_run(small):
    before = set(threading.enumerate())
    train(small("upsampler", "samples=16"), device="cpu")
    assert set(threading.enumerate()) <= before
