"""Benchmark of speed on this machine's processor, in one command of at most ten minutes, written into docs/speed.md.

    python benchmarks/speed_table.py                          # Karlo's form, small, and the bundled model; writes the tables
    python benchmarks/speed_table.py --dry                    # prints them, and writes nothing
    python benchmarks/speed_table.py --size tiny --dry        # a test of the benchmark, a minute or two

Rows of Karlo's form are those of `karlo.py`, each in a process of its own, the quicker of two pictures; int8 is calibrated
before. "times" is against the quicker one of diffusers' rows. The bundled model is measured as whole processes, from start
to exit, by `command_line.py`, the median of three; with `--calls`, what fewer calls of its decoder cost, by `fewer_calls.py`. The tables go between the two marks in docs/speed.md.
"""

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from command_line import PROMPT, measure
from karlo import apart
from karlo_folder import SIZES, write_folder

PAGE = Path(__file__).parents[1] / "docs" / "speed.md"
BEGIN, END = "<!-- speed_table.py writes from here -->", "<!-- to here -->"
THEIRS = ("diffusers-float32", "diffusers-bfloat16")
ROWS = (
    *THEIRS,
    "unclip-float32",
    "unclip-winograd",
    "unclip-auto",
    "unclip-openvino-int8",
    "unclip-auto-fast",
    "unclip-winograd-fast",
    "unclip-openvino-int8-fast",
    "unclip-openvino-bfloat16",
)
COMMANDS: dict[str, tuple[str, ...]] = {
    "generate": (),
    "generate --dtype auto": ("--dtype", "auto"),
    "generate --fast": ("--fast",),
    "generate --fast --dtype auto": ("--fast", "--dtype", "auto"),
}


def machine() -> str:
    """This machine, its load, and the versions that count."""
    lines = (
        Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        if os.path.exists("/proc/cpuinfo")
        else []
    )
    name = next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")),
        "processor unknown",
    )
    flags = {word for line in lines if line.startswith("flags") for word in line.split()}
    formats = [
        one
        for one in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
        if one in flags
    ]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    load = f", load {os.getloadavg()[0]:.1f} at the start" if hasattr(os, "getloadavg") else ""
    versions = ", ".join(
        f"{package} {version(package)}" for package in ("torch", "diffusers", "openvino", "nncf")
    )
    return (
        f"{name}, {cores} cores ({', '.join(formats)}){load}; {versions}; {datetime.date.today().isoformat()}"
    )


def karlo_table(size: str, folder: Path, repeat: int, steps: list[int], until: float) -> list[str]:
    """Rows of `karlo.py`, printed as they are finished; none begins after `until`."""
    stages = ("prior", "decoder", "upsampler")
    results: dict[str, dict[str, Any]] = {}
    pictures: dict[str, np.ndarray] = {}
    script = Path(__file__).with_name("karlo.py")
    for row in ROWS:
        if time.monotonic() > until and row not in THEIRS:
            print(f"{row}: skipped, for want of time", file=sys.stderr, flush=True)
            continue
        pixels = folder / f"{row}.npy"
        command = [
            sys.executable,
            str(script),
            "--work",
            row,
            "--folder",
            str(folder / size),
            "--pixels",
            str(pixels),
        ]
        command += ["--repeat", str(repeat), "--steps", *map(str, steps)]
        run = subprocess.run(command, stdout=subprocess.PIPE, check=False, text=True)
        if run.returncode:
            print(f"{row}: failed, see above", file=sys.stderr, flush=True)
            continue
        results[row] = json.loads(run.stdout.splitlines()[-1])
        pictures[row] = np.load(pixels)
        print(f"{row}: {results[row]['seconds']:.2f} s", file=sys.stderr, flush=True)
    best = min(results[row]["seconds"] for row in THEIRS if row in results)
    lines = [
        f"| row | s | {' | '.join(stages)} | CPU s | times diffusers' best | peak MiB | dB to float32 |",
        "|---|" + "---|" * (len(stages) + 5),
    ]
    reference = pictures.get("unclip-float32", next(iter(pictures.values())))
    for row, result in results.items():
        name = f"{row}, mended" if row == "diffusers-bfloat16" else row
        cells = [
            f"{result['seconds']:.2f}",
            *(f"{result[stage]:.2f}" for stage in stages),
            f"{result['cpu']:.1f}",
        ]
        cells += [f"{best / result['seconds']:.2f}", f"{result['peak']:.0f}"]
        lines.append(f"| {name} | {' | '.join(cells)} | {apart(pictures[row], reference)} |")
    return lines


def bundled_table(folder: Path, repeat: int) -> list[str]:
    """Whole processes that draw one picture by the bundled model."""
    program = str(Path(sys.executable).with_name("unclip"))
    lines = ["| command | wall s | CPU s | peak MiB |", "|---|---|---|---|"]
    for label, options in COMMANDS.items():
        command = [
            program,
            "generate",
            PROMPT,
            "--seed",
            "1",
            "--quiet",
            "--force",
            "-o",
            f"{folder}{os.sep}",
            *options,
        ]
        runs = [measure(command) for _ in range(repeat)]
        wall, cpu = (statistics.median(getattr(run, name) for run in runs) for name in ("wall", "cpu"))
        lines.append(f"| `{label}` | {wall:.2f} | {cpu:.2f} | {max(run.memory for run in runs):.0f} |")
        print(f"{label}: {wall:.2f} s", file=sys.stderr, flush=True)
    begun = measure([sys.executable, "-c", "import torch"])
    lines.append(f"| `python -c 'import torch'` | {begun.wall:.2f} | {begun.cpu:.2f} | {begun.memory:.0f} |")
    return lines


def calls_table(number: int) -> list[str]:
    """The table of `fewer_calls.py`."""
    script = Path(__file__).with_name("fewer_calls.py")
    command = [sys.executable, str(script), "--number", str(number)]
    run = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    title = (
        "Its decoder with less work, against 50 steps of the same seeds (`python benchmarks/fewer_calls.py`):"
    )
    return ["", title, "", *run.stdout.splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--size", choices=SIZES, default="small", help="widths of Karlo's parts (default: small)"
    )
    parser.add_argument("--steps", type=int, nargs=3, default=[25, 25, 7], help="prior, decoder, upsampler")
    parser.add_argument("--repeat", type=int, default=2, help="pictures of each row (default: 2)")
    parser.add_argument(
        "--dry", action="store_true", help="print the tables, and leave docs/speed.md as it is"
    )
    parser.add_argument("--seconds", type=float, default=480, help="no row begins later (default: 480)")
    parser.add_argument(
        "--calls", action="store_true", help="with the table of fewer_calls.py, a minute or two"
    )
    arguments = parser.parse_args()
    where, until = machine(), time.monotonic() + arguments.seconds
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        # The exports of this run, and its measurement, are not those of the user.
        os.environ["UNCLIP_CACHE"] = str(folder / "cache")
        bundled = bundled_table(folder, arguments.repeat + 1)
        write_folder(folder / arguments.size, SIZES[arguments.size])
        karlo = karlo_table(arguments.size, folder, arguments.repeat, arguments.steps, until)
        calls = calls_table(8) if arguments.calls else []
    prior, decoder, upsampler = arguments.steps
    text = "\n".join(
        [
            f"{where}.",
            "",
            f"Karlo's form, `--size {arguments.size}`, {prior} prior, {decoder} decoder and {upsampler} upsampler steps "
            "(`python benchmarks/speed_table.py`):",
            "",
            *karlo,
            "",
            "The bundled model, whole processes:",
            "",
            *bundled,
            *calls,
        ]
    )
    print(text)
    if not arguments.dry:
        page = PAGE.read_text(encoding="utf-8")
        before, rest = page.split(BEGIN)
        after = rest.split(END)[1]
        PAGE.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
