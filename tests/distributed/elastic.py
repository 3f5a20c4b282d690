"""One process of an elastic run: `torchrun ... elastic.py CONFIG.json`, started again when another process dies.

At the first attempt, process 1 is killed (as `kill -9` does) in its third step. Each process appends the sample numbers of its
steps to OUT/steps-ATTEMPT-RANK.jsonl.
"""

import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import torch

from unclip.train.config import read_config
from unclip.train.loop import Run, train


def main() -> None:
    """Train, and die as agreed."""
    torch.set_num_threads(1)
    config = read_config(json.loads(Path(sys.argv[1]).read_text()))
    rank, attempt = int(os.environ["RANK"]), int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    record = Path(config.out) / f"steps-{attempt}-{rank}.jsonl"
    read = Run._batch
    reads = 0

    def recorded(run: Run, numbers: np.ndarray) -> object:
        nonlocal reads
        reads += 1
        # The first pass of all, which groups gradients, belongs to no step.
        if reads > 1:
            with record.open("a") as file:
                file.write(json.dumps([run.state.samples, numbers.tolist()]) + "\n")
        if attempt == 0 and rank == 1 and reads == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        return read(run, numbers)

    Run._batch = recorded
    train(config, device="cpu")


if __name__ == "__main__":
    main()
