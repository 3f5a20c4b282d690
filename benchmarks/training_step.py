"""Time of a training step in one process, of this tree and of another commit, alternating in one run.

    python benchmarks/training_step.py --against 70fe6bd
    python benchmarks/training_step.py                        # this tree alone

Each measurement is a process of its own that trains a few steps of the recipe `tiny` at its full sizes, on one thread, and prints
the CPU time of a step, which other work on the machine disturbs least. The first steps of a process are not counted. Sides take
turns, and of each the least of `--rounds` measurements is compared.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STAGES = ("clip", "prior", "decoder", "upsampler")
ROOT = Path(__file__).parent.parent
WARM_UP = 3


def measure(stage: str, steps: int, folder: Path) -> float:
    """CPU milliseconds of a step of a stage, in this process."""
    import torch

    from unclip import recipes
    from unclip.config import override
    from unclip.train.loop import Run
    from unclip.train.run_folder import RunFolder
    from unclip.train.task import build_task

    torch.set_num_threads(1)
    settings = [f"out={folder / stage}", f"data.cache={folder / 'cache'}", "precision=fp32", "prefetch=0"]
    if stage in ("prior", "decoder"):
        settings.append(f"clip={folder / 'clip'}")
    config = override(recipes.get("tiny", stage), [*settings, f"samples={1 << 40}"])
    device = torch.device("cpu")
    run = Run(config, build_task(config, device), device, RunFolder(config))
    for _ in range(WARM_UP):
        run.step()
    before = time.process_time()
    for _ in range(steps):
        run.step()
    return (time.process_time() - before) / steps * 1000


def prepare(folder: Path) -> None:
    """Train the CLIP that the other stages read, for two steps."""
    from unclip import recipes
    from unclip.config import override
    from unclip.train.loop import train

    config = recipes.get("tiny", "clip")
    settings = [f"samples={2 * config.batch}", f"out={folder / 'clip'}", f"data.cache={folder / 'cache'}"]
    train(override(config, [*settings, "precision=fp32"]), device="cpu")


def elsewhere(tree: Path, stage: str, steps: int) -> float:
    """`measure` in a process that imports the package from `tree`."""
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, __file__, "--one", stage, "--steps", str(steps), "--folder", folder]
        # The tokenizer's threads count too, and wait for each other busily. Memory is kept: how much of it malloc gives back
        # after each step depends on the heap's layout, and costs up to a tenth of a small step.
        settings = {"OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1"}
        settings |= {"MALLOC_TRIM_THRESHOLD_": str(1 << 30), "MALLOC_MMAP_THRESHOLD_": str(1 << 30)}
        environment = {**os.environ, "PYTHONPATH": str(tree / "src"), **settings}
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Print a line for each stage."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--against", metavar="COMMIT", help="the commit to compare with")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES, metavar="STAGE")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--one", choices=STAGES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        if arguments.one in ("prior", "decoder"):
            prepare(arguments.folder)
        print(measure(arguments.one, arguments.steps, arguments.folder))
        return
    with tempfile.TemporaryDirectory() as folder:
        trees = {"this tree": ROOT}
        if arguments.against:
            trees[arguments.against] = Path(folder) / "tree"
            words = ["git", "-C", str(ROOT), "archive", "--format=tar", arguments.against, "src"]
            trees[arguments.against].mkdir()
            archive = subprocess.run(words, capture_output=True, check=True).stdout
            subprocess.run(["tar", "-x", "-C", str(trees[arguments.against])], input=archive, check=True)
        for stage in arguments.stages:
            found: dict[str, list[float]] = {name: [] for name in trees}
            for _ in range(arguments.rounds):
                for name, tree in trees.items():
                    found[name].append(elsewhere(tree, stage, arguments.steps))
            best = {name: min(times) for name, times in found.items()}
            shown = ", ".join(f"{name} {value:.2f} ms" for name, value in best.items())
            ratio = f" ({best['this tree'] / best[arguments.against]:.3f})" if arguments.against else ""
            print(f"{stage}: {shown}{ratio}", flush=True)


if __name__ == "__main__":
    main()
