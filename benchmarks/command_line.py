"""Benchmark of the command line: wall time and memory of whole processes, from start to exit.

    python benchmarks/command_line.py [--repeat 3] [--model artwork]

Each command runs in a new process; the table shows the median wall time and the largest peak memory.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

PROMPT = "a red rocket, 3d style"


class Run(NamedTuple):
    """Measurements of a finished process: wall time and CPU time in seconds, peak resident memory in MiB."""

    wall: float
    cpu: float
    memory: float


def measure(command: list[str]) -> Run:
    """Measurements of one run of a command. Raises `CalledProcessError` if it fails; its errors are on stderr."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    # Linux counts ru_maxrss in KiB, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return Run(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit / 2**20)


def commands(model: str, folder: Path) -> dict[str, list[str]]:
    """Measured commands by their labels."""
    program = str(Path(sys.executable).with_name("unclip"))
    generate = [
        program,
        "generate",
        PROMPT,
        "--seed",
        "1",
        "--model",
        model,
        "--quiet",
        "--force",
        "-o",
        f"{folder}{os.sep}",
    ]
    return {
        "unclip --help": [program, "--help"],
        "unclip generate -n 1": [*generate, "-n", "1"],
        "unclip generate -n 4": [*generate, "-n", "4"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeat", type=int, default=3, help="runs of each command (default: 3)")
    parser.add_argument("--model", default="artwork", help="a bundled model or a folder (default: artwork)")
    arguments = parser.parse_args()
    print("| command | wall s | CPU s | peak MiB |")
    print("|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for label, command in commands(arguments.model, Path(folder)).items():
            runs = [measure(command) for _ in range(arguments.repeat)]
            wall, cpu = (statistics.median(getattr(run, name) for run in runs) for name in ("wall", "cpu"))
            print(
                f"| `{label}` | {wall:.2f} | {cpu:.2f} | {max(run.memory for run in runs):.0f} |", flush=True
            )


if __name__ == "__main__":
    main()
