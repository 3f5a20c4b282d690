"""CUDA graphs of network calls: all kernels of a call are launched as one, for input shapes that were recorded."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

WARM_UP = 2


class Graphed:
    """A function of tensors on a CUDA device, recorded at the first call with each set of shapes and replayed after that.

    Arguments and results may be nested in dataclasses, dicts, lists and tuples; values other than tensors must be hashable
    and are part of a recording's key. For inference only, and for arguments that are not changed in place. Functions that
    are not called at the same time may share a `pool` of memory (`torch.cuda.graph_pool_handle()`).
    """

    def __init__(self, function: Callable[..., Any], pool: Any = None):
        self.function, self.pool = function, pool or torch.cuda.graph_pool_handle()
        self.recorded: dict[Any, _Recording] = {}

    def __call__(self, *given: Any, **named: Any) -> Any:
        tensors: list[Tensor] = []
        key = describe((given, named), tensors)
        if key not in self.recorded:
            self.recorded[key] = self._record((given, named), tensors)
        return self.recorded[key].replay(tensors)

    def _record(self, arguments: Any, tensors: list[Tensor]) -> "_Recording":
        inputs = [tensor.clone() for tensor in tensors]
        given, named = rebuild(arguments, iter(inputs))
        # Autocast would cache rounded weights in the recording's memory.
        cached = torch.is_autocast_cache_enabled()
        torch.set_autocast_cache_enabled(False)
        try:
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(WARM_UP):
                    self.function(*given, **named)
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self.pool):
                answer = self.function(*given, **named)
        finally:
            torch.set_autocast_cache_enabled(cached)
        return _Recording(graph, inputs, answer)


class _Recording:
    def __init__(self, graph: torch.cuda.CUDAGraph, inputs: list[Tensor], answer: Any):
        self.graph, self.inputs, self.answer = graph, inputs, answer
        self.last: list[Tensor | None] = [None] * len(inputs)

    def replay(self, tensors: list[Tensor]) -> Any:
        for index, (held, tensor) in enumerate(zip(self.inputs, tensors)):
            # The condition is the same object at every step of sampling.
            if tensor is not self.last[index]:
                held.copy_(tensor)
                self.last[index] = tensor
        self.graph.replay()
        answers: list[Tensor] = []
        describe(self.answer, answers)
        return rebuild(self.answer, iter([answer.clone() for answer in answers]))


def describe(value: Any, tensors: list[Tensor]) -> Any:
    """Hashable structure of nested arguments; their tensors are appended to `tensors`."""
    if isinstance(value, Tensor):
        tensors.append(value)
        return "tensor", tuple(value.shape), value.dtype, value.stride()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = ((one.name, getattr(value, one.name)) for one in dataclasses.fields(value))
        return type(value), tuple((name, describe(held, tensors)) for name, held in fields)
    if isinstance(value, Mapping):
        return type(value), tuple((key, describe(held, tensors)) for key, held in value.items())
    if isinstance(value, list | tuple):
        return type(value), tuple(describe(one, tensors) for one in value)
    return value


def rebuild(value: Any, tensors: Iterator[Tensor]) -> Any:
    """The same nested arguments with other tensors, in the order of `describe`."""
    if isinstance(value, Tensor):
        return next(tensors)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [one.name for one in dataclasses.fields(value)]
        return type(value)(**{name: rebuild(getattr(value, name), tensors) for name in names})
    if isinstance(value, Mapping):
        return {key: rebuild(held, tensors) for key, held in value.items()}
    if isinstance(value, list | tuple):
        made = [rebuild(one, tensors) for one in value]
        return type(value)(*made) if hasattr(value, "_fields") else type(value)(made)
    return value
