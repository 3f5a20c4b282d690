"""3x3 convolutions with fewer products beside the direct ones: seconds and error of layers of Karlo's and Stable Diffusion's sizes.

    python benchmarks/winograd.py                 # half a minute
    python benchmarks/winograd.py --threads 1

Both are laid out once by oneDNN, and run in turns; the fastest of ten runs counts. The error is the largest difference from
the convolution in float64, over its standard deviation.
"""

import argparse
import math
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from unclip.nn.packed import PackedConv2d
from unclip.nn.winograd import WinogradConv2d

LAYERS = (
    # batch, channels in, out, side
    (2, 320, 320, 64),
    (2, 640, 320, 64),
    (2, 640, 640, 32),
    (2, 960, 960, 16),
    (2, 960, 960, 8),
    (2, 192, 192, 64),
    (2, 256, 256, 32),
    (1, 320, 320, 128),
    (1, 128, 128, 256),
)


def seconds(layers: list[Callable[[Tensor], Tensor]], x: Tensor, runs: int = 10) -> list[float]:
    """Seconds of the fastest run of each layer, in turns."""
    found = [math.inf] * len(layers)
    for _ in range(runs):
        for index, layer in enumerate(layers):
            started = time.perf_counter()
            layer(x)
            found[index] = min(found[index], time.perf_counter() - started)
    return found


@torch.inference_mode()
def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of torch")
    torch.set_num_threads(parser.parse_args().threads)
    print(
        "| batch, channels, map | direct ms | fewer products ms | times | error |\n|---|---:|---:|---:|---:|"
    )
    for batch, channels, made, side in LAYERS:
        layer = nn.Conv2d(channels, made, 3, padding=1).requires_grad_(False)
        x = torch.randn(batch, channels, side, side).contiguous(memory_format=torch.channels_last)
        fewer = WinogradConv2d(layer)
        direct_s, fewer_s = seconds([PackedConv2d(layer, torch.float32), fewer], x)
        exact = layer.double()(x.double())
        error = float((fewer(x) - exact).abs().max() / exact.std())
        print(
            f"| {batch}, {channels} to {made}, {side}² | {direct_s * 1e3:.1f} | {fewer_s * 1e3:.1f} "
            f"| {direct_s / fewer_s:.2f} | {error:.0e} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
