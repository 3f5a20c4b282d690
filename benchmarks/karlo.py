"""Benchmark of Karlo in this project and in diffusers: time and memory for the same folder, prompt, seed and steps.

    python benchmarks/karlo.py [--size small|full] [--folder FOLDER] [--repeat 2] [--skip diffusers-float32]

Each row runs in its own process, which loads the model and draws the same picture `--repeat` times; the table shows the
fastest. Without a folder, `karlo_folder.py` makes one with random weights. diffusers 0.42.1 cannot run Karlo on a CPU
unmodified. This script patches it at run time:

- components are loaded one by one, as `from_pretrained` does not know the library "unclip" that the hub's folder names;
- bicubic enlargement runs in float32, as torch has none in bfloat16;
- noise is sampled in float32 and rounded, as bfloat16 gives other numbers; so all rows draw the same picture.
"""

# diffusers imports its names lazily, which type checkers do not follow; and it is patched here.
# pyright: reportPrivateImportUsage=false, reportAttributeAccessIssue=false

import argparse
import functools
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
import types
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from karlo_folder import SIZES, write_folder

PROMPT, SEED = "a red cat", 7
Clock = dict[str, float]
Draw = Callable[[Clock], np.ndarray]
"""Function that draws the picture, (h, w, 3) in [-1, 1], and writes the seconds of each stage into the clock."""


def diffusers_draws(folder: Path, dtype: str, steps: tuple[int, int, int]) -> Draw:
    """Drawing by `UnCLIPPipeline`, patched."""
    import diffusers
    import torch
    import transformers
    from diffusers import PriorTransformer, UnCLIPPipeline, UnCLIPScheduler, UNet2DConditionModel, UNet2DModel
    from diffusers.pipelines.deprecated.unclip import UnCLIPTextProjModel, pipeline_unclip
    from diffusers.schedulers import scheduling_unclip
    from transformers import CLIPTextModelWithProjection, CLIPTokenizer

    diffusers.logging.set_verbosity_error()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    mend_enlargement()

    def randn(shape, generator=None, device=None, dtype=None, **named: Any) -> torch.Tensor:
        return torch.randn(tuple(shape), generator=generator).to(device, dtype)

    for module in (pipeline_unclip, scheduling_unclip):
        module.randn_tensor = randn

    kind = getattr(torch, dtype)
    classes = {
        "text_encoder": CLIPTextModelWithProjection,
        "text_proj": UnCLIPTextProjModel,
        "prior": PriorTransformer,
        "decoder": UNet2DConditionModel,
        "super_res_first": UNet2DModel,
        "super_res_last": UNet2DModel,
    }
    parts: dict[str, Any] = {
        name: one.from_pretrained(folder / name, torch_dtype=kind) for name, one in classes.items()
    }
    for name in ("prior_scheduler", "decoder_scheduler", "super_res_scheduler"):
        parts[name] = UnCLIPScheduler.from_pretrained(folder / name)
    pipeline: Any = UnCLIPPipeline(tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer"), **parts)

    def draw(clock: Clock) -> np.ndarray:
        stages = iter(("prior", "decoder", "upsampler"))

        def timed(iterable: Iterable[Any]) -> Iterator[Any]:
            stage, start = next(stages), time.perf_counter()
            yield from iterable
            clock[stage] = time.perf_counter() - start

        pipeline.progress_bar = timed
        prior, decoder, upsampler = steps
        made = pipeline(
            PROMPT,
            prior_num_inference_steps=prior,
            decoder_num_inference_steps=decoder,
            super_res_num_inference_steps=upsampler,
            generator=torch.Generator().manual_seed(SEED),
            output_type="np",
        )
        return 2 * made.images[0] - 1

    return draw


def mend_enlargement() -> None:
    """Patch diffusers to enlarge in float32: torch has no bicubic enlargement in bfloat16 on a CPU."""
    import torch
    from diffusers.pipelines.deprecated.unclip import pipeline_unclip

    functional = types.ModuleType("functional")
    functional.__dict__.update(torch.nn.functional.__dict__)

    # `wraps`: the pipeline checks whether the signature has `antialias`.
    @functools.wraps(torch.nn.functional.interpolate)
    def interpolate(input: torch.Tensor, *given: Any, **named: Any) -> torch.Tensor:
        return torch.nn.functional.interpolate(input.float(), *given, **named).to(input.dtype)

    functional.interpolate = interpolate
    pipeline_unclip.F = functional


def unclip_draws(folder: Path, dtype: str, steps: tuple[int, int, int], **options: Any) -> Draw:
    """Drawing by this project, with diffusers' order of random numbers."""
    import unclip

    settings: dict[str, Any] = {
        "prior_steps": steps[0],
        "steps": steps[1],
        "upsampler_steps": steps[2],
        "random": "diffusers",
    }
    settings |= options.pop("settings", {})
    model = unclip.Model.load(folder, device="cpu", dtype=dtype, **options)

    def draw(clock: Clock) -> np.ndarray:
        last: list[Any] = [time.perf_counter(), None]

        def record(event: Any) -> None:
            now = time.perf_counter()
            clock[event.stage] = clock.get(event.stage, 0.0) + now - last[0]
            last[:] = now, event.x0

        model.generate(PROMPT, seed=SEED, on_progress=record, **settings)
        return last[1][0].permute(1, 2, 0).float().numpy()

    return draw


def calibrated(folder: Path) -> bool:
    """Whether the nets of a folder were calibrated for int8 before, and are in the cache."""
    import unclip
    from unclip.cache import cache_folder
    from unclip.generate.openvino_nets import LIKENESS

    kept = cache_folder() / "openvino" / unclip.load(folder, device="cpu", dtype="float32").digest
    return any(kept.rglob(LIKENESS))


def openvino_draws(
    folder: Path, precision: str, steps: tuple[int, int, int], settings: dict[str, Any] | None = None
) -> Draw:
    """Drawing by this project's nets in OpenVINO; int8 is calibrated here, on two pictures of few steps."""
    options: dict[str, Any] = {
        "backend": "openvino",
        "backend_precision": precision,
        "settings": settings or {},
    }
    if precision == "int8" and not calibrated(folder):
        from unclip.generate import calibration

        # Weights are random: pictures are compared below, and the bounds are for trained ones.
        calibration.LEAST_PSNR = 0.0
        quick = {"steps": 5, "prior_steps": 2, "upsampler_steps": 2, "random": "diffusers"}
        calibration.accelerate(folder, "int8", captions=(PROMPT, "a blue dog"), settings=quick)
    return unclip_draws(folder, "float32", steps, **options)


def winograd_draws(folder: Path, steps: tuple[int, int, int], settings: dict[str, Any] | None = None) -> Draw:
    """Drawing in float32 with fewer products, which "auto" takes on processors without fast bfloat16."""
    from unclip.generate.number_type import measured_widths

    return unclip_draws(folder, "float32", steps, packed=measured_widths(), settings=settings or {})


FAST: dict[str, Any] = {"prior_steps": None, "steps": None, "upsampler_steps": None, "fast": True}
SLOW: dict[str, Any] = {"steps": 50, "sampler": "dpmpp_2m", "prior_sampler": "dpmpp_2m"}
ROWS: dict[str, Callable[[Path, tuple[int, int, int]], Draw]] = {
    "diffusers-float32": lambda folder, steps: diffusers_draws(folder, "float32", steps),
    "diffusers-bfloat16": lambda folder, steps: diffusers_draws(folder, "bfloat16", steps),
    "unclip-float32": lambda folder, steps: unclip_draws(folder, "float32", steps),
    "unclip-bfloat16": lambda folder, steps: unclip_draws(folder, "bfloat16", steps),
    "unclip-bfloat16-offload": lambda folder, steps: unclip_draws(folder, "bfloat16", steps, offload=True),
    "unclip-bfloat16-fast": lambda folder, steps: unclip_draws(
        folder, "bfloat16", steps, settings=dict(FAST)
    ),
    "unclip-winograd": lambda folder, steps: winograd_draws(folder, steps),
    "unclip-winograd-fast": lambda folder, steps: winograd_draws(folder, steps, dict(FAST)),
    "unclip-auto": lambda folder, steps: unclip_draws(folder, "auto", steps),
    "unclip-auto-fast": lambda folder, steps: unclip_draws(folder, "auto", steps, settings=dict(FAST)),
    "unclip-openvino-float32": lambda folder, steps: openvino_draws(folder, "float32", steps),
    "unclip-openvino-bfloat16": lambda folder, steps: openvino_draws(folder, "bfloat16", steps),
    "unclip-openvino-int8": lambda folder, steps: openvino_draws(folder, "int8", steps),
    "unclip-openvino-int8-fast": lambda folder, steps: openvino_draws(folder, "int8", steps, dict(FAST)),
    "unclip-bfloat16-50-steps": lambda folder, steps: unclip_draws(
        folder, "bfloat16", steps, settings=dict(SLOW)
    ),
}
USUAL = [name for name in ROWS if not {"50", "auto", "openvino", "winograd"} & set(name.split("-"))]


def work(row: str, folder: Path, steps: tuple[int, int, int], repeat: int, pixels: Path) -> dict[str, float]:
    """Seconds and peak memory in MiB of loading and drawing, in this process."""
    warnings.simplefilter("ignore")
    os.environ["HF_HUB_OFFLINE"] = "1"
    start = time.perf_counter()
    draw = ROWS[row](folder, steps)
    loaded = time.perf_counter() - start
    runs, picture = [], np.empty(0)
    for _ in range(repeat):
        clock: Clock = {}
        start, used = time.perf_counter(), time.process_time()
        picture = draw(clock)
        runs.append({"seconds": time.perf_counter() - start, "cpu": time.process_time() - used, **clock})
    np.save(pixels, picture)
    first = runs[0]["seconds"]
    return {"loaded": loaded, "first": first, "peak": peak(), **min(runs, key=lambda run: run["seconds"])}


def peak() -> float:
    """Peak memory of this process in MiB."""
    status = Path("/proc/self/status")
    if status.is_file():
        # getrusage reports at least the parent's memory at the time of the fork.
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def apart(a: np.ndarray, b: np.ndarray) -> str:
    """Peak signal-to-noise ratio in dB of two pictures in [-1, 1]."""
    error = float(np.square(a.astype(np.float64) - b).mean())
    return f"{10 * math.log10(4 / error):.1f}" if error else "same"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=SIZES, default="small", help="widths of the parts")
    parser.add_argument("--folder", type=Path, help="model folder; made if it does not exist")
    parser.add_argument("--steps", type=int, nargs=3, default=(25, 25, 7), help="prior, decoder, upsampler")
    parser.add_argument("--repeat", type=int, default=2, help="pictures of each row (default: 2)")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=USUAL, help="rows to run")
    parser.add_argument("--work", choices=ROWS, help=argparse.SUPPRESS)
    parser.add_argument("--pixels", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        result = work(
            arguments.work, arguments.folder, tuple(arguments.steps), arguments.repeat, arguments.pixels
        )
        print(json.dumps(result))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.folder or Path(scratch) / "karlo"
        if not (folder / "model_index.json").is_file():
            write_folder(folder, SIZES[arguments.size])
        print_table(arguments, folder, Path(scratch))


def print_table(arguments: argparse.Namespace, folder: Path, scratch: Path) -> None:
    """Run the rows one after the other, and print each when it is finished."""
    stages = ("prior", "decoder", "upsampler")
    print(
        f"| row | s | {' | '.join(stages)} | CPU s | times bf16 | first s | load s | peak MiB | dB to float32 |"
    )
    print("|---|" + "---|" * (len(stages) + 7))
    base = reference = None
    for row in arguments.rows:
        pixels = scratch / f"{row}.npy"
        command = [sys.executable, __file__, "--work", row, "--folder", folder, "--pixels", pixels]
        command += ["--repeat", str(arguments.repeat), "--steps", *map(str, arguments.steps)]
        run = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
        result = json.loads(run.stdout.splitlines()[-1])
        picture = np.load(pixels)
        if row.endswith("-float32") and reference is None:
            reference = picture
        base = result["seconds"] if row == "diffusers-bfloat16" else base
        cells = [f"{result['seconds']:.2f}", *(f"{result[stage]:.2f}" for stage in stages)]
        cells += [f"{result['cpu']:.1f}", f"{base / result['seconds']:.2f}" if base else ""]
        cells += [f"{result['first']:.2f}", f"{result['loaded']:.2f}", f"{result['peak']:.0f}"]
        cells.append("" if reference is None else apart(picture, reference))
        print(f"| {row} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
