"""Weight offloading: load each network only while it runs, and return its memory to the system."""

import contextlib
import ctypes
import sys
from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

from unclip.networks.upsampler import Upsampler

NOTHING = "\n"
"""A prefix that no weight's name has: loading what begins with it loads nothing."""

Load = Callable[..., nn.Module]
"""`load(only=prefix)` gives a network with the weights whose names begin so."""


def without_weights(load: Load) -> nn.Module:
    """The network as a shell: its config and shape are there, its weights have no memory."""
    return load(only=NOTHING)


# glibc's <malloc.h>: blocks from this size on are the system's own again when they are freed, and so is the heap's end.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_MIB = 1 << 20


@contextlib.contextmanager
def returned_when_freed() -> Iterator[None]:
    """Context in which large blocks of memory return to the system when they are freed, where the allocator allows.

    glibc keeps blocks of up to 32 MB for itself, which most weights are: a stage would begin with the memory of the one
    before it still counted, and weights that are packed would leave holes. It costs the nets' maps their page faults.
    """
    _set_thresholds(4 * _MIB, 4 * _MIB)
    try:
        yield
    finally:
        _set_thresholds(32 * _MIB, 64 * _MIB)


def keep_freed_memory() -> None:
    """Have the allocator keep freed memory for the next picture, of a process that draws one after another.

    Else glibc returns the end of its heap after large layers, and asks for it again: of the bundled model, 30,000 page faults
    a picture, 5 % of its time. `return_kept_memory` gives it back.
    """
    _set_thresholds(32 * _MIB, 1024 * _MIB)


def return_kept_memory() -> None:
    """Return freed memory to the system, as after a model was dropped."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)


def _set_thresholds(alone: int, trimmed: int) -> None:
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            libc = ctypes.CDLL(None)
            libc.mallopt(_M_MMAP_THRESHOLD, alone)
            libc.mallopt(_M_TRIM_THRESHOLD, trimmed)


def load_in_turns(load: Load, prepare: Callable[[nn.Module], nn.Module], only: str = "") -> nn.Module:
    """What `load` gives, prepared; of an upsampler with a net for the last step, one net at a time.

    With `only`, the name of a module within the network, the others are left without weights.
    """
    if only:
        network = load(only=f"{only}.")
        setattr(network, only, prepare(network.get_submodule(only)))
        return network
    shell = without_weights(load)
    if not isinstance(shell, Upsampler) or shell.last_net is None:
        return prepare(load())
    whole, slot = load(only="noise_label."), Slot()
    assert isinstance(whole, Upsampler)

    def turn(name: str) -> InTurn:
        return InTurn(slot, lambda: prepare(getattr(load(only=f"{name}."), name)))

    whole.net, whole.last_net = turn("net"), turn("last_net")  # pyright: ignore[reportAttributeAccessIssue]
    return whole


class Slot:
    """Room for one network."""

    def __init__(self):
        self._held: tuple[Any, nn.Module] | None = None

    def take(self, load: Callable[[], nn.Module]) -> nn.Module:
        """The network that `load` gives; the last one is dropped first, unless it is the same."""
        if self._held is None or self._held[0] is not load:
            self._held = None
            self._held = load, load()
        return self._held[1]


class InTurn(nn.Module):
    """A network that is loaded into a slot when it is called."""

    def __init__(self, slot: Slot, load: Callable[[], nn.Module]):
        super().__init__()
        self._slot, self._load = slot, load

    def forward(self, *given: Any, **named: Any) -> Any:
        return self._slot.take(self._load)(*given, **named)
