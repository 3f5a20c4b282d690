"""Benchmark of latent models here and in diffusers: time and memory of each stage, for the same folder, prompt, seed, steps.

    python benchmarks/latent.py                               # both families, about 12 minutes on two free cores
    python benchmarks/latent.py --only sd --side 512 --steps 8
    python benchmarks/latent.py --packed                      # float32 layers in oneDNN's layout, as `--dtype auto` has them
    python benchmarks/latent.py --size tiny --side 64         # whether it runs
    python benchmarks/latent.py --device cuda --dtype bfloat16 --batch 1 8 --compile

`sd` is Stable Diffusion 1.5's form at full size (1.07 billion weights); `kandinsky` has 2.2's at a stated width, as all of its
networks in float32 take 20 GB (`--size full`). Weights are random, and time does not depend on them. Folders are made once and
read by both programs; each runs in a process of its own, and they draw in turns, so that what the machine does meanwhile
meets both. The table has the medians of `--repeat` pictures after one that is not counted. DDIM (sd) and DDPM (kandinsky) have
one guided call of the U-Net a step in both programs.

The peak of memory is the process's largest resident one, on CUDA what torch had allocated. "fast" is this project's `--fast`
against the pipelines' own numbers of steps (50, and 25 and 100): its seconds are measured, theirs are computed from the
measured stages.
"""

# diffusers imports its names lazily, which type checkers do not follow.
# pyright: reportPrivateImportUsage=false, reportAttributeAccessIssue=false

import argparse
import functools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from karlo import apart, peak
from latent_folders import FAMILIES, SIZES, write_folder

PROMPT, SEED = "a red cat", 7
STAGES = ("text", "prior", "unet", "decode")
OWN_STEPS = {"sd": (0, 50), "kandinsky": (25, 100)}
"""Prior and U-Net steps that the pipelines take by default."""

Clock = dict[str, float]


class Timers:
    """Seconds of each stage: of the methods that are wrapped, calls within calls of the same stage counted once."""

    def __init__(self, wait: Callable[[], None]):
        self.wait, self.seconds, self.calls = wait, {}, {}
        self._inside: str | None = None

    def wrap(self, owner: Any, method: str, stage: str) -> None:
        """Time a method of a class or of an object."""
        wrapped = getattr(owner, method)

        @functools.wraps(wrapped)
        def timed(*given: Any, **named: Any) -> Any:
            if self._inside is not None:
                return wrapped(*given, **named)
            self._inside = stage
            self.wait()
            start = time.perf_counter()
            try:
                return wrapped(*given, **named)
            finally:
                self.wait()
                self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start
                self.calls[stage] = self.calls.get(stage, 0) + 1
                self._inside = None

        setattr(owner, method, timed)

    def take(self) -> Clock:
        """What was measured since the last time."""
        found = {**self.seconds, **{f"{stage}_calls": count for stage, count in self.calls.items()}}
        self.seconds, self.calls = {}, {}
        return found


def diffusers_draws(arguments: argparse.Namespace, timers: Timers) -> Callable[[], np.ndarray]:
    """Drawing by diffusers' pipeline."""
    import diffusers
    import torch
    import transformers

    for library in (diffusers, transformers):
        library.logging.set_verbosity_error()
        library.logging.disable_progress_bar()
    kind = getattr(torch, arguments.dtype)
    folder, device = arguments.folder, arguments.device
    common: dict[str, Any] = {
        "num_inference_steps": arguments.steps,
        "height": arguments.side,
        "width": arguments.side,
        "output_type": "np",
    }

    def generator() -> torch.Generator:
        return torch.Generator().manual_seed(SEED)

    def compiled(network: Any) -> Any:
        if arguments.compile:
            network.forward = torch.compile(network.forward)
        return network

    if arguments.family == "sd":
        pipeline: Any = diffusers.StableDiffusionPipeline.from_pretrained(folder, torch_dtype=kind)
        pipeline.to(device)
        pipeline.set_progress_bar_config(disable=True)
        compiled(pipeline.unet)
        for owner, method, stage in (
            (pipeline.text_encoder, "forward", "text"),
            (pipeline.unet, "forward", "unet"),
            (pipeline.vae, "decode", "decode"),
        ):
            timers.wrap(owner, method, stage)
        return lambda: (
            2
            * pipeline(
                [PROMPT] * arguments.batch, guidance_scale=arguments.guidance, generator=generator(), **common
            ).images[0]
            - 1
        )
    combined: Any = diffusers.KandinskyV22CombinedPipeline.from_pretrained(folder, torch_dtype=kind)
    prior, decoder = (one.to(device) for one in (combined.prior_pipe, combined.decoder_pipe))
    for one in (prior, decoder):
        one.set_progress_bar_config(disable=True)
    compiled(decoder.unet)
    compiled(prior.prior)
    for owner, method, stage in (
        (prior.text_encoder, "forward", "text"),
        (prior.image_encoder, "forward", "text"),
        (prior.prior, "forward", "prior"),
        (decoder.unet, "forward", "unet"),
        (decoder.movq, "decode", "decode"),
    ):
        timers.wrap(owner, method, stage)

    def draw() -> np.ndarray:
        noise = generator()
        found = prior(
            [PROMPT] * arguments.batch,
            num_inference_steps=arguments.prior_steps,
            guidance_scale=arguments.guidance,
            generator=noise,
        )
        made = decoder(
            image_embeds=found.image_embeds,
            negative_image_embeds=found.negative_image_embeds,
            guidance_scale=arguments.guidance,
            generator=noise,
            **common,
        )
        return 2 * made.images[0] - 1

    return draw


def unclip_draws(arguments: argparse.Namespace, timers: Timers) -> Callable[[], np.ndarray]:
    """Drawing by this project, with diffusers' order of random numbers; fast, with its own."""
    import torch

    import unclip
    from unclip.networks.autoencoder import Autoencoder
    from unclip.networks.clip import Clip
    from unclip.networks.movq import Movq
    from unclip.networks.prior_diffusion import DiffusionPrior
    from unclip.networks.text_encoder import TextEncoder
    from unclip.networks.unet import Unet

    options: dict[str, Any] = {"packed": True} if arguments.packed else {}
    model = unclip.Model.load(arguments.folder, device=arguments.device, dtype=arguments.dtype, **options)
    if arguments.compile:
        for network in (Unet, DiffusionPrior):
            network.forward = torch.compile(network.forward)
    for owner, method, stage in (
        (TextEncoder, "encode_text", "text"),
        (Clip, "encode_text", "text"),
        (Clip, "encode_image", "text"),
        (DiffusionPrior, "precompute", "prior"),
        (DiffusionPrior, "forward", "prior"),
        (Unet, "read", "unet"),
        (Unet, "forward", "unet"),
        (Autoencoder, "decode", "decode"),
        (Movq, "decode", "decode"),
    ):
        timers.wrap(owner, method, stage)
    settings: dict[str, Any] = {"steps": arguments.steps, "random": "diffusers"}
    settings |= {"guidance": arguments.guidance, "candidates": 1}
    settings["sampler"] = "ddim" if arguments.family == "sd" else "ddpm"
    if arguments.family == "kandinsky":
        settings |= {"prior_steps": arguments.prior_steps, "prior_guidance": arguments.guidance}
    if arguments.fast:
        settings = {"fast": True}
    seen: list[Any] = []
    codec = model.parts.codec
    decode = codec.decode

    def watched(state: Any, *given: Any) -> Any:
        seen[:] = [decode(state, *given)]
        return seen[0]

    codec.decode = watched  # pyright: ignore[reportAttributeAccessIssue]

    def draw() -> np.ndarray:
        model.generate([PROMPT] * arguments.batch, size=arguments.side, seed=SEED, **settings)
        return seen[0][0].permute(1, 2, 0).float().cpu().numpy()

    return draw


def work(arguments: argparse.Namespace) -> None:
    """Load, and draw a picture for each line that is read; a line of JSON with what it took for each."""
    warnings.simplefilter("ignore")
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch

    cuda = arguments.device != "cpu"
    torch.set_num_threads(arguments.threads or torch.get_num_threads())
    timers = Timers(torch.cuda.synchronize if cuda else lambda: None)
    start = time.perf_counter()
    draw = (diffusers_draws if arguments.work == "diffusers" else unclip_draws)(arguments, timers)
    loaded = time.perf_counter() - start
    say({"loaded": loaded})
    for line in sys.stdin:
        start, used = time.perf_counter(), time.process_time()
        picture = draw()
        seconds = {"seconds": time.perf_counter() - start, "cpu": time.process_time() - used}
        memory = torch.cuda.max_memory_allocated() / 2**20 if cuda else peak()
        np.save(line.strip(), picture)
        say({**seconds, "peak": memory, **timers.take()})


def say(found: Any) -> None:
    """Print a line of JSON."""
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()


class Worker:
    """A process that draws by one of the programs."""

    def __init__(
        self, program: str, family: str, folder: Path, arguments: argparse.Namespace, **options: Any
    ):
        command = [sys.executable, __file__, "--work", program, "--family", family, "--folder", str(folder)]
        chosen = {name: getattr(arguments, name) for name in COMMON} | options
        for name, value in chosen.items():
            if isinstance(value, bool):
                command += [f"--{name}"] if value else []
            elif value is not None:
                command += [f"--{name.replace('_', '-')}", str(value)]
        self.name = program
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self.loaded = self._answer()["loaded"]

    def draw(self, pixels: Path) -> Clock:
        """What a picture took."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{pixels}\n")
        self.process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def _answer(self) -> dict[str, float]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended with {self.process.wait()}")
        return json.loads(line)


COMMON = ("side", "steps", "prior_steps", "guidance", "dtype", "device", "threads", "packed")


def median(runs: list[Clock]) -> Clock:
    """The median of each measurement."""
    names = {name for run in runs for name in run}
    return {name: statistics.median(run.get(name, 0.0) for run in runs) for name in names}


def compare(family: str, folder: Path, arguments: argparse.Namespace, batch: int, compiled: bool) -> None:
    """The rows of a family: both programs in turns."""
    options: dict[str, Any] = {"batch": batch, "compile": compiled}
    with tempfile.TemporaryDirectory() as scratch:
        pixels = {program: Path(scratch) / f"{program}.npy" for program in ("diffusers", "unclip")}
        workers = {program: Worker(program, family, folder, arguments, **options) for program in pixels}
        runs: dict[str, list[Clock]] = {program: [] for program in workers}
        for turn in range(arguments.repeat + 1):
            for program in sorted(workers, reverse=bool(turn % 2)):
                found = workers[program].draw(pixels[program])
                if turn:
                    runs[program].append(found)
        pictures = [np.load(file) for file in pixels.values()]
        for worker in workers.values():
            worker.close()
    medians = {program: median(found) for program, found in runs.items()}
    how = ", compiled" if compiled else ""
    for program, found in medians.items():
        ratio = medians["diffusers"]["seconds"] / found["seconds"]
        likeness = "" if program == "diffusers" else apart(*pictures)
        cells = [f"{found['seconds']:.2f}", *(f"{found.get(stage, 0.0):.2f}" for stage in STAGES)]
        cells += [f"{found['unet'] / arguments.steps:.3f}", f"{found['cpu']:.1f}", f"{ratio:.2f}"]
        cells += [f"{found['peak']:.0f}", f"{workers[program].loaded:.1f}", likeness]
        row(f"{family}, {program}{how}", batch, cells)
    if arguments.fast_too and batch == 1 and not compiled:
        fast(family, folder, arguments, medians)


def fast(family: str, folder: Path, arguments: argparse.Namespace, medians: dict[str, Clock]) -> None:
    """The row of `--fast`, and of the default steps by the measured stages."""
    prior, steps = OWN_STEPS[family]
    own = medians["unclip"]
    whole = own["seconds"] + own["unet"] * (steps / arguments.steps - 1)
    if family == "kandinsky":
        whole += own["prior"] * (prior / arguments.prior_steps - 1)
    worker = Worker("unclip", family, folder, arguments, batch=1, fast=True)
    with tempfile.TemporaryDirectory() as scratch:
        runs = [worker.draw(Path(scratch) / "fast.npy") for _ in range(arguments.repeat + 1)][1:]
    worker.close()
    found = median(runs)
    cells = [f"{found['seconds']:.2f}", *(f"{found.get(stage, 0.0):.2f}" for stage in STAGES)]
    cells += [
        "",
        f"{found['cpu']:.1f}",
        f"{whole / found['seconds']:.2f} of the {whole:.1f} s of the default",
    ]
    row(f"{family}, unclip --fast", 1, [*cells, f"{found['peak']:.0f}", f"{worker.loaded:.1f}", ""])


def row(name: str, batch: int, cells: list[str]) -> None:
    """Print a row."""
    sys.stdout.write(f"| {name} | {batch} | {' | '.join(cells)} |\n")
    sys.stdout.flush()


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=FAMILIES, help="one of the families")
    parser.add_argument("--size", choices=SIZES, default="default", help="widths of the networks")
    parser.add_argument("--folders", type=Path, help="where the folders are kept; made if they do not exist")
    parser.add_argument("--side", type=int, default=256, help="of the picture, in pixels (default: 256)")
    parser.add_argument("--steps", type=int, default=4, help="of the U-Net (default: 4)")
    parser.add_argument("--prior-steps", type=int, default=5, help="default: 5")
    parser.add_argument("--guidance", type=float, default=4.0, help="scale (default: 4)")
    parser.add_argument("--dtype", default="float32", help="what networks compute in (default: float32)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, help="default: torch's")
    parser.add_argument("--batch", type=int, nargs="+", default=[1], help="pictures at once (default: 1)")
    parser.add_argument("--repeat", type=int, default=3, help="pictures that are counted (default: 3)")
    parser.add_argument(
        "--packed", action="store_true", help="this project's float32 layers laid out once, as auto chooses"
    )
    parser.add_argument("--compile", action="store_true", help="rows with torch.compile as well")
    parser.add_argument("--no-fast", dest="fast_too", action="store_false", help="leave out --fast")
    parser.add_argument("--work", choices=("diffusers", "unclip"), help=argparse.SUPPRESS)
    parser.add_argument("--family", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--fast", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        (arguments.batch,) = arguments.batch
        work(arguments)
        return
    with tempfile.TemporaryDirectory() as scratch:
        folders = arguments.folders or Path(scratch)
        names = ("row", "batch", "s", *STAGES, "U-Net a step", "CPU s", "times diffusers", "peak MiB")
        sys.stdout.write(f"| {' | '.join((*names, 'load s', 'dB to diffusers'))} |\n")
        sys.stdout.write("|---|" + "---:|" * (len(names) + 1) + "\n")
        for family in FAMILIES if arguments.only is None else (arguments.only,):
            folder = folders / f"{family}-{arguments.size}"
            if not (folder / "model_index.json").is_file():
                write_folder(folder, family, arguments.size)
            for compiled in (False, True) if arguments.compile else (False,):
                for batch in arguments.batch:
                    compare(family, folder, arguments, batch, compiled)


if __name__ == "__main__":
    main()
