"""Trains a config in processes of its own, one after the other, each killed when it brings a file to disk.

    python killed_runs.py CONFIG.json 1 2 3 0

kills (as `kill -9` does) the first process before its first `fsync`, the second before its second one, the third before
its third; the last, with 0, may end. Prints their exit statuses. All that a run keeps goes through `fsync`, several
times a checkpoint, so that these moments lie before, within and after the writing of each file.
"""

import json
import os
import signal
import sys
import traceback
from pathlib import Path

from unclip.train.config import TrainConfig, read_config
from unclip.train.loop import train


def statuses(config: TrainConfig, moments: list[int]) -> list[int]:
    """Train in a fork for each moment; the exit statuses, negative for signals."""
    found = []
    for moment in moments:
        child = os.fork()
        if child == 0:
            os._exit(trained(config, moment))
        found.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    return found


def trained(config: TrainConfig, moment: int) -> int:
    """Train, to be killed before the `moment`-th fsync; 0 if the run came to its end."""
    fsync, left = os.fsync, moment

    def count(descriptor: int) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        fsync(descriptor)

    os.fsync = count
    try:
        train(config, device="cpu")
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    chosen = read_config(json.loads(Path(sys.argv[1]).read_text()))
    sys.stdout.write(json.dumps(statuses(chosen, [int(moment) for moment in sys.argv[2:]])))
