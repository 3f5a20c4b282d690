"""The bundled model from nothing within minutes on one GPU: data drawn, every stage trained, packed, a sheet drawn.

    python benchmarks/artwork_gpu.py --packages artwork/node_modules --work runs/gpu --budget 9m --ship out

It needs no network: the icon sets (`npm ci --prefix artwork`) are rasterised first, on all cores. `--budget` is the time
for all of it, from the start of the command; each stage's length is settled by the speed that its first steps have. What
is finished is packed into `--ship` at once, in files of at most `--part` bytes, so that little is lost when the command is
stopped. Called again with the same `--work` it goes on. `--smoke` takes some steps of every stage at full size and prints
what they cost.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tarfile
import threading
import time
import traceback
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

# The workers that draw import this file again: what is slow to import is imported where it is needed.
from unclip.cli.options import duration

if TYPE_CHECKING:
    from unclip.train.config import TrainConfig
    from unclip.train.loop import Run

RECIPE = "artwork_gpu"
#: Kept back for packing and the sheet.
TAIL = 12.0
#: Pictures of 256 px are for the upsampler, which learns edges, not things.
LARGE = 256
STARTED = time.monotonic()


def tell(text: str) -> None:
    """Print a line with the seconds since the start."""
    print(f"[{time.monotonic() - STARTED:6.1f}] {text}", flush=True)


def build(folder: Path, arguments: argparse.Namespace, *, large: bool) -> None:
    """The data set of small pictures, or the large ones, if it is not there."""
    from unclip.datasets.artwork.build import build as draw

    if (folder / "artwork.json").exists():
        return
    for rest in folder.glob("artwork-*"):
        rest.unlink()
    started = time.monotonic()
    common = {"packages": arguments.packages, "measured": arguments.measured, "limit": arguments.limit,
              "workers": arguments.workers}  # fmt: skip
    if large:
        built = draw(
            folder, size=LARGE, lightest=0.5, recolours=0, pairs=0, augmented=0, held_out_pairs=0, **common
        )
    else:
        built = draw(
            folder,
            size=64,
            pairs=arguments.pairs,
            augmented=12_000,
            wordings=5,
            **common,
        )
    tell(f"{folder.name}: {built.counts} in {time.monotonic() - started:.1f} s, {built.kinds}")


def stages_of(arguments: argparse.Namespace) -> "dict[str, tuple[TrainConfig, float]]":
    """Every run, in order, with its share of the time."""
    from unclip import recipes
    from unclip.train.config import change

    stages = {}
    for name, (config, share) in recipes.chain(RECIPE, arguments.work, evaluate=True).stages.items():
        data = arguments.sets / ("large" if name == "upsampler" else "small")
        given = [
            f"data.path={json.dumps(str(data))}",
            f"data.cache={json.dumps(str(arguments.sets / 'cache'))}",
        ]
        changes = [one.partition(".")[2] for one in arguments.set if one.partition(".")[0] == name]
        stages[name] = change(config, [*given, *changes]), share
    return stages


class Reporter(threading.Thread):
    """Prints the newest line of a run's metrics now and then."""

    def __init__(self, folder: Path, every: float = 10.0):
        super().__init__(daemon=True)
        self.folder, self.every, self.stopped = folder, every, threading.Event()

    def run(self) -> None:
        """Until it is stopped."""
        while not self.stopped.wait(self.every):
            file = self.folder / "metrics.jsonl"
            if file.exists() and (lines := file.read_text(encoding="utf-8").splitlines()):
                tell(f"  {self.folder.name} {lines[-1][:150]}")


def summary(folder: Path) -> str:
    """What a run did: samples, samples a second, its last losses."""
    import torch

    file = folder / "metrics.jsonl"
    if not file.exists():
        return f"{folder.name}: nothing"
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    steps = [line for line in lines if "loss" in line]
    checks = [line for line in lines if "validation_loss" in line]
    last = steps[len(steps) // 2 :]
    rate = (last[-1]["samples"] - last[0]["samples"]) / max(last[-1]["seconds"] - last[0]["seconds"], 0.1)
    rates = sorted(line["rate"] for line in last)
    memory = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else 0.0
    checked = {
        name[11:]: value for name, value in (checks[-1] if checks else {}).items() if "validation" in name
    }
    return (
        f"{folder.name}: {steps[-1]['samples']:,} samples in {steps[-1]['seconds']} s, {rate:,.0f}/s with all, "
        f"steps alone {rates[len(rates) // 2]:,.0f}/s, loss {steps[0]['loss']} -> {steps[-1]['loss']}, "
        f"{memory:.1f} GiB; {checked}"
    )


def ship_all(arguments: argparse.Namespace) -> None:
    """Few files: the smaller finished runs in one or two archives, the decoder apart, and the records."""
    from unclip.train.bundle import bundle

    work, target = arguments.work, arguments.ship
    if target is None:
        return
    small = [name for name in ("clip", "prior", "prior_autoregressive") if (work / name / "model").exists()]
    rest = [name for name in ("upsampler", "judge") if (work / name / "model").exists()]
    main = next((name for name in ("decoder", "decoder_coarse") if (work / name / "model").exists()), None)
    target.mkdir(parents=True, exist_ok=True)
    for group, names in (("small", small), ("rest", rest), ("main", [main] if main else [])):
        if not names:
            continue
        archive = work / f"{group}.tar"
        with tarfile.open(archive, "w") as tar:
            for name in names:
                packed = work / "packed" / name
                if not (packed / "model.json").exists():
                    bundle([work / name], packed, name, force=True)
                for file in sorted(packed.iterdir()):
                    tar.add(file, f"{name}/{file.name}")
                tar.add(work / name / "config.json", f"{name}/config.json")
        split(archive, target / f"{group}.tar", arguments.part)
    with tarfile.open(work / "records.tar.xz", "w:xz") as tar:
        for pattern in (
            "*/metrics.jsonl",
            "*/config.json",
            "*/previews/*",
            "*.log",
            "sheet*",
            "small/artwork.json",
        ):
            for file in sorted(work.glob(pattern)):
                tar.add(file, str(file.relative_to(work)))
    split(work / "records.tar.xz", target / "records.tar.xz", arguments.part)


def split(file: Path, target: Path, part: int) -> None:
    """A file, or its parts of at most `part` bytes numbered from 0, at `target`."""
    data = file.read_bytes()
    count = -(-len(data) // part)
    for old in target.parent.glob(f"{target.name}*"):
        old.unlink()
    for index in range(count):
        name = target.name if count == 1 else f"{target.name}.{index}"
        (target.parent / name).write_bytes(data[index * part : (index + 1) * part])


def sheet(arguments: argparse.Namespace) -> None:
    """Pack the model whole and draw the prompts."""
    from unclip import recipes
    from unclip.train.bundle import bundle

    work = arguments.work
    found = [work / name for name in ("clip", "prior", "decoder", "upsampler", "prior_autoregressive")]
    if not (work / "decoder" / "model").exists():
        found[2] = work / "decoder_coarse"
    found = [folder for folder in found if (folder / "model").exists()]
    bundle(found, work / "model", RECIPE, defaults=recipes.sampling(RECIPE), force=True)
    command = [sys.executable, "-c", "from unclip.cli.main import main; main()", "generate", "--model",
               str(work / "model"), "--prompts", str(arguments.prompts), "--seed", "0", "--force", "--grid",
               str(work / "sheet.png")]  # fmt: skip
    subprocess.run(command, timeout=90, check=True)


def smoke(config: "TrainConfig", steps: int) -> "TrainConfig":
    """A run of a few steps with one validation and one preview."""
    samples = steps * config.batch
    return replace(
        config, samples=samples, validate_every=samples, preview_every=samples, checkpoint_seconds=1e9
    )


def profiled(run: "Run", steps: int) -> str:
    """The seconds of a step, the device's busy share of it, and the kernels that take most."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as record:
        started = time.monotonic()
        for _ in range(steps):
            run.step()
        torch.cuda.synchronize()
        wall = time.monotonic() - started
    kernels = [
        (e.device_time_total / 1e6, e.count, e.key) for e in record.key_averages() if e.device_time_total
    ]
    kernels.sort(reverse=True)
    lines = [
        f"    {1000 * seconds / steps:7.2f} ms {count // steps:5d} x {name[:90]}"
        for seconds, count, name in kernels[:9]
    ]
    busy = sum(seconds for seconds, _, _ in kernels)
    return f"a step takes {1000 * wall / steps:.1f} ms, kernels {1000 * busy / steps:.1f} ms\n" + "\n".join(
        lines
    )


def run(config: "TrainConfig", arguments: argparse.Namespace, allotted: float) -> None:
    """Train one stage; with half of the rate once more where the loss became no number."""
    from unclip.train.budget import begun_with, train_within
    from unclip.train.loop import NonFiniteLoss, Run, training_device
    from unclip.train.run_folder import RunFolder, with_precision
    from unclip.train.task import build_task

    started = time.monotonic()
    if arguments.smoke is not None:
        device = training_device(None)
        short = with_precision(smoke(config, arguments.smoke), device)
        trial = Run(short, build_task(short, device), device, RunFolder(short))
        trial.go(until=(arguments.smoke - 3) * short.batch)
        if device.type == "cuda":
            try:
                tell(profiled(trial, 3))
            except Exception as error:  # the smoke test is about the stages
                tell(f"no profile: {error!r}"[:300])
        trial.finish()
        return
    try:
        train_within(config, allotted)
    except NonFiniteLoss as error:
        left = allotted - (time.monotonic() - started)
        tell(f"{error!r}"[:300])
        if begun_with(config) is None or left < 5:
            raise
        shutil.rmtree(config.out)
        old = config.optimizer
        muon = None if old.muon_learning_rate is None else old.muon_learning_rate / 2
        slower = replace(old, learning_rate=old.learning_rate / 2, muon_learning_rate=muon)
        train_within(replace(config, optimizer=slower), left)


def train_all(arguments: argparse.Namespace, large: "subprocess.Popen[bytes]") -> None:
    """Every stage after the other, each with its share of the time that is left; what fails does not stop the rest."""
    import torch

    stages = stages_of(arguments)
    chosen = list(stages) if arguments.only is None else arguments.only.split(",")
    waiting = {name: stages[name] for name in chosen}
    for name in chosen:
        config, share = waiting[name]
        if config.init is not None and not Path(config.init).exists():
            config = replace(config, init=None)
        if name == "upsampler" and large.wait() != 0:
            tell(f"no large pictures: {(arguments.work / 'large.log').read_text()[-500:]}")
            waiting.pop(name)
            continue
        left = arguments.budget - TAIL - (time.monotonic() - STARTED)
        allotted = left * share / sum(share for _, share in waiting.values())
        waiting.pop(name)
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        reporter = Reporter(arguments.work / name)
        reporter.start()
        try:
            tell(f"{name}: {allotted:.0f} s, batches of {config.batch}")
            run(config, arguments, allotted)
            tell(summary(arguments.work / name))
            ship_all(arguments)
        except Exception as error:  # the other stages are worth having
            tell(f"{name} FAILED: {error!r}"[:1500])
            traceback.print_exc()
        finally:
            reporter.stopped.set()


def main() -> None:
    """Run as the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--packages", type=Path, default=Path("artwork/node_modules"))
    parser.add_argument("--measured", type=Path, help="colours measured before, to begin sooner")
    parser.add_argument("--work", type=Path, required=True, help="where the runs keep all that they write")
    parser.add_argument("--sets", type=Path, help="where the data sets are (default: in --work)")
    parser.add_argument("--ship", type=Path, help="where the packed results go")
    parser.add_argument("--part", type=int, default=15 << 20, help="bytes of the largest file there")
    parser.add_argument("--budget", type=duration, default=540.0, help="time for all of it (default: 9m)")
    parser.add_argument("--prompts", type=Path, default=Path("docs/samples.txt"))
    parser.add_argument("--limit", type=int, help="use only so many drawings, for a trial")
    parser.add_argument("--pairs", type=int, default=40_000)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--smoke", type=int, metavar="STEPS")
    parser.add_argument("--only", help="stages to train, divided by commas")
    parser.add_argument("--set", action="append", default=[], metavar="STAGE.KEY=VALUE")
    parser.add_argument("--build", choices=("small", "large"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.sets = arguments.sets or arguments.work
    arguments.work.mkdir(parents=True, exist_ok=True)
    if arguments.build is not None:
        build(arguments.sets / arguments.build, arguments, large=arguments.build == "large")
        return
    again = [sys.executable, __file__, *sys.argv[1:], "--build"]
    small = subprocess.Popen([*again, "small"])

    import torch

    torch.set_float32_matmul_precision("high")
    if torch.cuda.is_available():
        tell(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {torch.zeros(1).cuda().device}")
    if small.wait() != 0:
        raise SystemExit("the data set could not be built")
    tell("the small pictures are there")
    with (arguments.work / "large.log").open("w") as log:
        large = subprocess.Popen([*again, "large"], stdout=log, stderr=log)
    train_all(arguments, large)
    try:
        sheet(arguments)
        tell("sheet drawn")
    except Exception as error:
        tell(f"no sheet: {error!r}"[:500])
    ship_all(arguments)
    tell("done")


if __name__ == "__main__":
    main()
