"""Recorder of what commands make: digests of pictures and weights under one version of the package, and two compared.

python tests/pins/record.py --compare --cache /tmp/pins           # this checkout against version 0.1
python tests/pins/record.py --compare --cache /tmp/pins --only vary train --package /path/to/src
"""

# ruff: noqa: T201 (a command line of its own)

import argparse
import contextlib
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
import traceback
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from commands import DRAWING, NAMES, NEEDS, TRAINING, write_inputs
from PIL import Image, ImageSequence

REPOSITORY = Path(__file__).resolve().parents[2]
COMMIT = "6bf6554"
"""The last commit of version 0.1's code."""
THREADS = 1
"""Of torch: sums in another number of threads round in another way."""
PICTURES = (".png", ".webp", ".gif")

Record = dict[str, Any]
"""Of one command: `argv`, `digests` by result, `seconds`, and `error`, which is None where it succeeded."""


def extract(commit: str, folder: Path) -> Path:
    """The package of a commit, unpacked into `folder`; the root to import it from.

    Raises `LookupError` where the clone does not hold the commit.
    """
    root = folder / "src"
    if (folder / commit).exists():
        return root
    made = subprocess.run(
        ["git", "-C", str(REPOSITORY), "archive", commit, "src/unclip"], capture_output=True, check=False
    )
    if made.returncode != 0:
        raise LookupError(f"commit {commit} is not in this clone: {made.stderr.decode().strip()}")
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(made.stdout)) as archive:
        archive.extractall(folder, filter="data")
    (folder / commit).touch()
    return root


def with_needs(names: Iterable[str]) -> list[str]:
    """The names with those that they need, in the order in which they run."""
    wanted = set(names)
    while more := {need for name in wanted for need in NEEDS[name]} - wanted:
        wanted |= more
    return [name for name in NAMES if name in wanted]


def record(
    package: Path, folder: Path, names: Sequence[str] = NAMES, *, bundled: Path | None = None
) -> dict[str, Record]:
    """Run commands with the package at the root `package` in one new process; what they make stays in `folder`.

    `bundled` is the folder of bundled models to use in place of the package's own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    environment = {
        **os.environ,
        "PYTHONPATH": str(package.resolve()),
        "OMP_NUM_THREADS": str(THREADS),
        "MKL_NUM_THREADS": str(THREADS),
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONDONTWRITEBYTECODE": "1",
        **({} if bundled is None else {"PINNED_BUNDLED": str(bundled)}),
    }
    child = [sys.executable, str(Path(__file__).resolve()), "--child", "--package", str(package.resolve())]
    subprocess.run([*child, "--only", *names], cwd=folder, env=environment, check=True)
    return json.loads((folder / "record.json").read_text(encoding="utf-8"))


def run_all(package: Path, names: Sequence[str]) -> None:
    """Run commands in this process and folder, and write `record.json`."""
    shutil.rmtree("inputs", ignore_errors=True)
    write_inputs(Path("inputs"))

    import unclip
    from unclip.checkpoints import hub

    if pinned := os.environ.get("PINNED_BUNDLED"):
        # Other weights are bundled since: what is compared is the code.
        models = {folder.name: folder for folder in sorted(Path(pinned).iterdir()) if folder.is_dir()}
        hub.bundled = lambda: models
    from unclip.cli.main import main

    assert Path(unclip.__path__[0]).parent == package, f"{unclip.__path__[0]} is not in {package}"
    made: dict[str, Record] = {}
    for name in names:
        start = time.perf_counter()
        if name in DRAWING:
            argv, digests, error = run_drawing(main, name)
        else:
            argv, digests, error = run_training(main, name)
        made[name] = {
            "argv": list(argv),
            "digests": digests,
            "seconds": round(time.perf_counter() - start, 2),
            "error": error,
        }
        Path("record.json").write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")


def run_drawing(main: Any, name: str) -> tuple[Sequence[str], dict[str, str], str | None]:
    """Run one command that draws: its arguments, its digests, and what went wrong."""
    command, folder = DRAWING[name], Path("out", name)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    argv: Sequence[str] = command.argv
    if not command.printed and "--grid" not in argv:
        argv = (*argv, "-o", f"out/{name}/{command.output}")
    printed, error = call(main, argv)
    if command.printed:
        return argv, {"printed": hashlib.sha256(printed.encode()).hexdigest()}, error
    digests = {}
    files = sorted(file for file in folder.iterdir() if file.suffix in PICTURES)
    for index, file in enumerate(files, 1):
        for frame, digest in enumerate(picture_digests(file), 1):
            digests[f"{index}.{frame}"] = digest
    return argv, digests, error if digests else error or "it made no picture"


def run_training(main: Any, name: str) -> tuple[Sequence[str], dict[str, str], str | None]:
    """Run one training command: its arguments, a digest of each model's weights, and what went wrong."""
    argv, folders = TRAINING[name]
    for folder in folders if name != "train" else ("",):
        shutil.rmtree(Path("runs", folder), ignore_errors=True)
    _, error = call(main, argv)
    digests = {}
    for folder in folders:
        for manifest in sorted(Path("runs", folder).rglob("model.json")):
            for file in sorted(manifest.parent.glob("*.safetensors")):
                digests[f"{folder}/{file.stem}"] = weights_digest(file)
    return argv, digests, error if digests else error or "it made no weights"


def call(main: Any, argv: Sequence[str]) -> tuple[str, str | None]:
    """Run one command line: what it printed, and its last words on stderr where it failed."""
    printed, said = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(said):
        try:
            code = main(argv)
        except SystemExit as stop:
            code = stop.code
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            traceback.print_exc()
            code = f"{type(error).__name__}"
    if code == 0:
        return printed.getvalue(), None
    return printed.getvalue(), f"exit {code}: {said.getvalue().strip()[-600:]}"


def picture_digests(file: Path) -> list[str]:
    """SHA-256 of the decoded pixels of each frame."""
    return [
        hashlib.sha256(f"{frame.mode} {frame.size}\n".encode() + frame.tobytes()).hexdigest()
        for frame in frames(file)
    ]


def frames(file: Path) -> list[Image.Image]:
    """The frames of a picture or animation, RGB or RGBA."""
    with Image.open(file) as image:
        return [
            frame.convert("RGBA" if frame.has_transparency_data else "RGB")
            for frame in ImageSequence.Iterator(image)
        ]


def weights_digest(file: Path) -> str:
    """SHA-256 over the names, types, shapes and bytes of all tensors in a safetensors file, whatever their order."""
    from safetensors import safe_open

    total = hashlib.sha256()
    with safe_open(file, framework="pt") as tensors:
        for name in sorted(tensors.keys()):
            tensor = tensors.get_tensor(name).contiguous()
            total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            total.update(tensor.flatten().numpy().tobytes())
    return total.hexdigest()


def old_side(cache: Path, names: Sequence[str]) -> dict[str, Record]:
    """What version 0.1 makes, from `cache` where it was run before with the same commands and libraries.

    Raises `LookupError` like `extract`.
    """
    package = extract(COMMIT, cache / "package")
    kept = cache / "old.json"
    state = fingerprint()
    known: dict[str, Record] = {}
    if kept.exists():
        content = json.loads(kept.read_text(encoding="utf-8"))
        known = content["commands"] if content["state"] == state else {}
    current = {name: list(argv) for name, argv in argvs().items()}
    missing = [
        name
        for name in names
        if name not in known or known[name]["argv"][: len(current[name])] != current[name]
    ]
    if missing:
        print(f"running {len(missing)} commands with version 0.1 ...", file=sys.stderr)
        known |= record(package, cache / "old", with_needs(missing))
        kept.write_text(json.dumps({"state": state, "commands": known}, indent=1) + "\n", encoding="utf-8")
    return {name: known[name] for name in names}


def argvs() -> Mapping[str, Sequence[str]]:
    """The arguments of every command, without `--output`."""
    return {name: command.argv for name, command in DRAWING.items()} | {
        name: argv for name, (argv, _) in TRAINING.items()
    }


def fingerprint() -> str:
    """What digests depend on beside the package: versions, processor, threads and the drawing of the inputs."""
    import importlib.metadata
    import platform

    versions = [f"{name} {importlib.metadata.version(name)}" for name in ("torch", "numpy", "pillow")]
    inputs = hashlib.sha256(
        Path(__file__).with_name("commands.py").read_bytes().split(b"def write_inputs")[1]
    )
    return " ".join(
        [COMMIT, *versions, platform.node(), platform.machine(), str(THREADS), inputs.hexdigest()]
    )


def compare(package: Path, cache: Path, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Run version 0.1, or take it from `cache`, and the package: for each name both records, and what differs."""
    old = old_side(cache, names)
    print(f"running {len(with_needs(names))} commands with {package} ...", file=sys.stderr)
    models = cache / "package" / "src" / "unclip" / "bundled"
    new = record(package, cache / "new", with_needs(names), bundled=models)
    return {
        name: {"old": old[name], "new": new[name], "differs": differences(cache, name, old[name], new[name])}
        for name in names
    }


def differences(cache: Path, name: str, old: Record, new: Record) -> list[str]:
    """What differs between two records of a command, in words; empty where nothing does."""
    if old["error"] or new["error"]:
        return [
            f"{side} failed: {found['error']}"
            for side, found in (("old", old), ("new", new))
            if found["error"]
        ]
    found = []
    for item in {**old["digests"], **new["digests"]}:
        before, after = old["digests"].get(item), new["digests"].get(item)
        if before is None or after is None:
            found.append(f"{item} is only in the {'new' if before is None else 'old'}")
        elif before != after:
            found.append(f"{item} {distance(cache, name, item)}".strip())
    return found


def distance(cache: Path, name: str, item: str) -> str:
    """How far two pictures are apart; empty for what is no picture."""
    import numpy as np

    if name in TRAINING or DRAWING[name].printed:
        return ""
    index, frame = (int(part) - 1 for part in item.split("."))
    pixels = []
    for side in ("old", "new"):
        folder = cache / side / "out" / name
        files = sorted(file for file in folder.iterdir() if file.suffix in PICTURES)
        pixels.append(np.asarray(frames(files[index])[frame].convert("RGBA"), dtype=np.int16))
    before, after = pixels
    if before.shape != after.shape:
        return f"has the shape {after.shape}, not {before.shape}"
    apart = np.abs(before - after)
    return f"max |difference| {apart.max()} of 255, in {(apart > 0).mean():.2%} of the values"


def main() -> int:
    """The command line; exit code 1 where something differs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--compare", action="store_true", help="compare the package with version 0.1")
    parser.add_argument(
        "--package",
        type=Path,
        default=REPOSITORY / "src",
        metavar="ROOT",
        help="default: this checkout's src",
    )
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", choices=NAMES, help=", ".join(NAMES))
    parser.add_argument("--cache", type=Path, metavar="FOLDER", help="keep results, and those of version 0.1")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the records there")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    names = arguments.only or list(NAMES)
    if arguments.child:
        run_all(arguments.package, names)
        return 0
    if not arguments.cache:
        parser.error("give --cache FOLDER")
    cache, package = arguments.cache.resolve(), arguments.package.resolve()
    if arguments.compare:
        report = compare(package, cache, names)
        print_table(report)
    else:
        report = old_side(cache, names)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return int(arguments.compare and any(entry["differs"] for entry in report.values()))


def print_table(report: Mapping[str, Mapping[str, Any]]) -> None:
    """Print a row for each command, and what differs."""
    for name, entry in report.items():
        word = "DIFFERS" if entry["differs"] else "OK"
        seconds = f"{entry['old']['seconds']:6.2f} s {entry['new']['seconds']:6.2f} s"
        print(f"{word:8} {name:24} {len(entry['old']['digests']):2} digests  {seconds}")
        for line in entry["differs"]:
            print("           " + line.replace("\n", "\n           "))
    count = sum(bool(entry["differs"]) for entry in report.values())
    print(f"{len(report) - count} of {len(report)} OK")


if __name__ == "__main__":
    sys.exit(main())
