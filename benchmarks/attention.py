"""Benchmark of attention on a CPU, forward and backward: torch's fused kernel against plain matrix products.

    python benchmarks/attention.py [--batch 64] [--repeat 20]

The shapes are those of the networks of the artwork recipe. `unclip.nn.dot_product` chooses by these results.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from unclip.nn.dot_product import attend

SHAPES = {
    "decoder: 64 patches, 92 keys": (5, 64, 92),
    "CLIP: 65 patches": (3, 65, 65),
    "prior: 28 tokens": (4, 28, 28),
}


def seconds(function: Callable[..., Tensor], inputs: list[Tensor], repeat: int) -> float:
    """Median time of one forward and one backward pass."""
    times = []
    for _ in range(repeat + 2):
        start = time.perf_counter()
        function(*inputs).sum().backward()
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:])


def main() -> None:
    """Print one line per shape and type."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=20)
    arguments = parser.parse_args()
    out = sys.stdout.write
    out(f"{'shape':32}{'type':>10}{'fused':>11}{'products':>11}{'ratio':>8}\n")
    for name, (heads, queries, keys) in SHAPES.items():
        for dtype in (torch.bfloat16, torch.float32):
            inputs = [
                torch.randn(arguments.batch, heads, length, 64, dtype=dtype, requires_grad=True)
                for length in (queries, keys, keys)
            ]
            fused = seconds(scaled_dot_product_attention, inputs, arguments.repeat)
            products = seconds(attend, inputs, arguments.repeat)
            kind = str(dtype).removeprefix("torch.")
            out(
                f"{name:32}{kind:>10}{fused * 1e3:>8.1f} ms{products * 1e3:>8.1f} ms{fused / products:>8.2f}\n"
            )


if __name__ == "__main__":
    main()
