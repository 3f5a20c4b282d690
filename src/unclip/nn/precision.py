"""Number format for activations: bfloat16 where this machine multiplies it faster than float32, by measurement."""

import functools
import logging
import math
import time
from typing import Literal

import torch

logger = logging.getLogger(__name__)

Precision = Literal["bf16", "fp32"]

#: bfloat16 has to be so many times as fast as float32: rounding and conversions cost time, too.
WORTHWHILE = 1.2
#: A measurement ends after this time, once every product has run twice.
SECONDS = 0.2


def choose(precision: Literal["auto", "bf16", "fp32"], device: torch.device | str) -> Precision:
    """`precision`, or for "auto" the faster format on `device`, measured once per process and logged."""
    return fastest(str(device)) if precision == "auto" else precision


@functools.cache
def fastest(device: str) -> Precision:
    """The faster format on a device: measured on a CPU, by capability on CUDA, float32 elsewhere."""
    kind = torch.device(device).type
    if kind == "cuda":
        chosen: Precision = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
        logger.info("precision on %s: %s", device, chosen)
        return chosen
    if kind != "cpu":
        return "fp32"
    ratio = speedup()
    chosen = "bf16" if ratio > WORTHWHILE else "fp32"
    logger.info(
        "precision on this processor: %s (bfloat16 products are %.1f times as fast as float32)", chosen, ratio
    )
    return chosen


def speedup() -> float:
    """How many times as fast as float32 this processor multiplies bfloat16: a matrix product and a convolution.

    Takes about 0.2 s of one core. Processor time is counted, and each product by its fastest run, so that other load on
    the machine does not decide.
    """
    left, right = torch.ones(384, 384), torch.ones(384, 384)
    pictures, kernel = torch.ones(2, 64, 32, 32), torch.ones(64, 64, 3, 3)
    pictures = pictures.contiguous(memory_format=torch.channels_last)
    kernel = kernel.contiguous(memory_format=torch.channels_last)
    products = {
        dtype: (
            functools.partial(torch.mm, left.to(dtype), right.to(dtype)),
            functools.partial(torch.conv2d, pictures.to(dtype), kernel.to(dtype), padding=1),
        )
        for dtype in (torch.float32, torch.bfloat16)
    }
    seconds = {(dtype, place): math.inf for dtype in products for place in range(2)}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        begun, rounds = time.thread_time(), 0
        # The first product of a kind also sets up the library.
        while rounds < 3 or time.thread_time() - begun < SECONDS:
            for (dtype, place), least in seconds.items():
                before = time.thread_time()
                products[dtype][place]()
                seconds[dtype, place] = min(least, time.thread_time() - before)
            rounds += 1
    finally:
        torch.set_num_threads(threads)
    times = {dtype: sum(seconds[dtype, place] for place in range(2)) for dtype in products}
    return times[torch.float32] / times[torch.bfloat16]
