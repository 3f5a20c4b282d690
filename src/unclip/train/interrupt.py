"""Graceful stops: on SIGTERM or Ctrl-C a run finishes its step and saves a checkpoint."""

from collections.abc import Iterator
from contextlib import contextmanager
from signal import SIG_DFL, SIGINT, SIGTERM, Signals, getsignal, signal
from types import FrameType


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop and has saved a checkpoint; the same command resumes it.

    `signal` is the signal that asked; a program that ends because of it exits with 128 + its number.
    """

    def __init__(self, message: str, number: Signals):
        super().__init__(message)
        self.signal = number


class StopRequest:
    """`signal` is None until somebody asks for the run to stop."""

    signal: Signals | None = None

    def __bool__(self) -> bool:
        return self.signal is not None


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Within the context SIGTERM and SIGINT only fill the request; a second one is taken as usual.

    Outside of the main thread signals belong to somebody else, and the request stays empty.
    """
    request = StopRequest()
    previous = {}

    def ask(number: int, frame: FrameType | None) -> None:
        request.signal = Signals(number)
        signal(number, previous[number])

    try:
        for number in (SIGTERM, SIGINT):
            previous[number] = getsignal(number) or SIG_DFL
            signal(number, ask)
    except ValueError:
        previous.clear()
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal(number, handler)
