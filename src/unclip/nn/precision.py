"""Number format for activations: bfloat16 where this machine multiplies it faster than float32, by measurement."""

import functools
import logging
import math
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Literal, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unclip.nn.packed import PackedLinear, can_pack, packed_convolution
from unclip.nn.winograd import Widths, WinogradConv2d

logger = logging.getLogger(__name__)

Precision = Literal["bf16", "fp32"]
Layer = TypeVar("Layer", bound=nn.Module)
Key = TypeVar("Key", bound=Hashable)

#: bfloat16 has to be so many times as fast as float32: rounding and conversions cost time, too.
WORTHWHILE = 1.2
#: Fewer products have to make a convolution so many times as fast: their rounding is larger, and their weights take more memory.
FEWER = 1.1
#: Numbers of channels that are tried for them.
TRIED = (128, 192, 256, 384, 640)
#: A measurement ends after this time, once every product has run twice.
SECONDS = 0.2


class Product(NamedTuple):
    """A layer whose speed is measured.

    "convolution": 3x3, `channels` to `channels`, on maps of `size` x `size`. "linear": `channels` to `channels`, on
    `size` tokens. "attention": among `size` tokens of heads of 64 channels, `channels` in all.
    """

    kind: Literal["convolution", "linear", "attention"]
    channels: int
    size: int

    @property
    def operations(self) -> int:
        """Multiplications and additions, two for each product."""
        if self.kind == "convolution":
            return 18 * self.channels**2 * self.size**2
        return 2 * self.channels * self.size * (self.channels if self.kind == "linear" else 2 * self.size)


#: What is measured where no network is known, as before training.
USUAL = (Product("linear", 384, 384), Product("convolution", 64, 32))


def choose(precision: Literal["auto", "bf16", "fp32"], device: torch.device | str) -> Precision:
    """`precision`, or for "auto" the faster format on `device`, measured once per process and logged."""
    return fastest(str(device)) if precision == "auto" else precision


@functools.cache
def fastest(device: str) -> Precision:
    """The faster format on a device: measured on a CPU, by capability on CUDA, float32 elsewhere."""
    if torch.device(device).type != "cpu":
        return by_capability(device)
    ratio = speedup()
    chosen: Precision = "bf16" if ratio > WORTHWHILE else "fp32"
    logger.info(
        "precision on this processor: %s (bfloat16 products are %.1f times as fast as float32)", chosen, ratio
    )
    return chosen


def by_capability(device: str) -> Precision:
    """The format of a device that is no CPU: bfloat16 on CUDA where the hardware has it, float32 elsewhere."""
    if torch.device(device).type != "cuda":
        return "fp32"
    chosen: Precision = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    logger.info("precision on %s: %s", device, chosen)
    return chosen


def speedup(products: Sequence[Product] = USUAL) -> float:
    """How many times as fast as in float32 this processor computes torch's layers in bfloat16, as in training.

    Takes about 0.2 s of one core. Processor time is counted, and each layer by its fastest run, so that other load on
    the machine does not decide.
    """
    return _ratios(products, [(torch.float32, False), (torch.bfloat16, False)])[0]


class Speeds(NamedTuple):
    """How many times as fast as torch's own layers in float32 the packed ones are, in either type."""

    bfloat16: float
    float32: float


def packed_speeds(products: Sequence[Product], widths: Widths | None = None) -> Speeds:
    """Speeds of the layers of inference, whose weights are in oneDNN's layout; measured as `speedup`.

    Given widths, float32 convolutions take fewer products where those say so.
    """
    ways = [(torch.float32, False), (torch.bfloat16, True), (torch.float32, True)]
    return Speeds(*_ratios(products, ways, widths))


def winograd_widths() -> Widths:
    """The widths from which convolutions with fewer products are `FEWER` times as fast as direct ones on this processor.

    Takes about a second. Layers run on torch's number of threads, and the fastest runs count: on two threads the products alone
    get twice as fast.
    """
    if not can_pack(torch.float32):
        return Widths(0, 0, 0)
    return Widths(*(next((c for c in TRIED if _gain(c, side) > FEWER), 0) for side in (16, 32, 64)))


def _gain(channels: int, side: int) -> float:
    """How many times as fast a convolution is with fewer products, on one sample of `side` x `side`."""
    conv, x = _convolution(Product("convolution", channels, side), torch.float32)
    layers = {"direct": packed_convolution(conv, torch.float32), "fewer": WinogradConv2d(conv)}
    calls = {name: functools.partial(layer, x) for name, layer in layers.items()}
    seconds = _fastest(calls, SECONDS / 4, threads=torch.get_num_threads(), clock=time.perf_counter)
    return seconds["direct"] / seconds["fewer"]


def _ratios(
    products: Sequence[Product], ways: Sequence[tuple[torch.dtype, bool]], widths: Widths | None = None
) -> list[float]:
    """How many times as fast as the first way layers are in each of the others."""
    seconds = _fastest(
        {(way, product): _layer(product, *way, widths) for product in products for way in ways}, SECONDS
    )
    # Each layer counts as one, whatever its size.
    shares = [[seconds[way, product] / seconds[ways[0], product] for product in products] for way in ways[1:]]
    return [len(products) / sum(share) for share in shares]


def _fastest(
    layers: Mapping[Key, Callable[[], Tensor]],
    most: float,
    *,
    threads: int = 1,
    clock: Callable[[], float] = time.thread_time,
) -> dict[Key, float]:
    """Seconds of each layer's fastest run, by default of processor time on one thread; all take about `most` seconds."""
    seconds = dict.fromkeys(layers, math.inf)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            begun, rounds = clock(), 0
            # The first product of a kind also sets up the library.
            while rounds < 2 or (rounds < 50 and clock() - begun < most):
                for key, layer in layers.items():
                    started = clock()
                    layer()
                    seconds[key] = min(seconds[key], clock() - started)
                rounds += 1
    finally:
        torch.set_num_threads(before)
    # The clock may be too coarse for a tiny layer.
    return {key: max(found, 1e-9) for key, found in seconds.items()}


def _layer(
    product: Product, dtype: torch.dtype, packed: bool, widths: Widths | None = None
) -> Callable[[], Tensor]:
    packed = packed and can_pack(dtype)
    channels, size = product.channels, product.size
    if product.kind == "attention":
        q = torch.full((1, max(1, channels // 64), size, min(64, channels)), 0.1, dtype=dtype)
        return functools.partial(F.scaled_dot_product_attention, q, q, q)
    with torch.inference_mode(False):
        if product.kind == "linear":
            linear = _filled(nn.Linear(channels, channels, device="meta"))
            x = torch.ones(size, channels, dtype=dtype)
            return functools.partial(PackedLinear(linear, dtype) if packed else linear.to(dtype), x)
    conv, x = _convolution(product, dtype)
    if packed:
        return functools.partial(packed_convolution(conv, dtype, widths), x)
    return functools.partial(conv.to(memory_format=torch.channels_last), x)  # pyright: ignore[reportCallIssue]


def _convolution(product: Product, dtype: torch.dtype) -> tuple[nn.Conv2d, Tensor]:
    """A 3x3 convolution, and what it is given."""
    channels, size = product.channels, product.size
    with torch.inference_mode(False):
        conv = _filled(nn.Conv2d(channels, channels, 3, padding=1, device="meta")).to(dtype)
        x = torch.ones(1, channels, size, size, dtype=dtype).contiguous(memory_format=torch.channels_last)
    return conv, x


def _filled(layer: Layer) -> Layer:
    """The layer with weights that are all alike; made without random numbers."""
    layer = layer.to_empty(device="cpu")
    for weight in layer.parameters():
        nn.init.constant_(weight, 0.01)
    return layer.requires_grad_(False)
