"""What a GPU makes of this project: pictures and training, in one run of at most four minutes.

    python benchmarks/gpu.py [--out gpu.json] [--seconds 240] [--only bundled karlo training]
    python benchmarks/gpu.py --table gpu.json
    python benchmarks/gpu.py --tiny --device cpu              # whether it runs: small sizes, in a minute or two

It needs a CUDA GPU, of 40 GB for all rows; a row that does not fit is noted and left out. Nothing is downloaded: Karlo's
form is made on the device at full size with random weights, as time does not depend on them, and training learns from
the procedural data set of shapes. diffusers' rows need diffusers and transformers, and are left out without them.

The JSON is rewritten after every row, so an interrupted run keeps its measurements. The most important rows
come first; when the time is up, the rest is skipped, and so is on the way what would not get done. What torch has
compiled stays in its cache on disk: a second run gets further.

A picture's operations are counted while it is drawn (matrix products, convolutions and attention, a multiplication and
an addition being two), and a training step takes three times those of a forward pass (`benchmarks/flops.py`). The share
is of what the same run measured for one large matrix product in bfloat16.

- eager: as it comes. With "channels last" the U-Nets' maps have their channels innermost.
- host noise: noise drawn on the CPU and copied, where this project's is drawn on the GPU.
- graphs: every call of a network is one CUDA graph (`benchmarks/graphs.py`).
- compiled: `torch.compile` of each network that samples, for fixed shapes; with graphs around it, both.
"""

import argparse
import contextlib
import dataclasses
import functools
import gc
import json
import os
import platform
import statistics
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

# Loading torch counts.
START = time.monotonic()

import torch  # noqa: E402
from gpu_plan import Clock, Row, TimeUp, plan  # noqa: E402
from gpu_table import described, table  # noqa: E402
from graphs import Graphed  # noqa: E402
from torch import nn  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

PROMPT, SEED = "a red cat", 7
MATRIX = 8192
FEW = (2, 2, 2)
"""Steps of a picture that is drawn to warm up, and to count."""
ENOUGH, MOST = 1.0, 5
"""Pictures are drawn again for so many seconds, and at most so many times."""

Steps = tuple[int, int, int]
"""Of the prior, the decoder and the upsampler."""


class Timed(NamedTuple):
    """Seconds of the first call, and the median of `runs` further ones."""

    first: float
    seconds: float
    runs: int


class Device:
    """The device, its clock and its memory."""

    def __init__(self, name: str):
        self.device = torch.device(name)
        self.cuda = self.device.type == "cuda"
        # A CPU without bfloat16 products would spend a tiny run in them.
        self.dtype = torch.bfloat16 if self.cuda else torch.float32

    @property
    def name(self) -> str:
        """What the device is called."""
        return torch.cuda.get_device_name(self.device) if self.cuda else platform.machine()

    def time(self, work: Callable[[], object]) -> float:
        """Seconds of `work`, until the device has done it."""
        self.wait()
        start = time.perf_counter()
        work()
        self.wait()
        return time.perf_counter() - start

    def time_again(self, warm_up: Callable[[], object], work: Callable[[], object]) -> Timed:
        """`work`, again and again, after `warm_up`; the peak of memory is that of `work`."""
        first = self.time(warm_up)
        self.clear()
        runs: list[float] = []
        while not runs or (self.cuda and sum(runs) < ENOUGH and len(runs) < MOST):
            runs.append(self.time(work))
        return Timed(first, statistics.median(runs), len(runs))

    def wait(self) -> None:
        """Wait until the device has finished all queued work."""
        if self.cuda:
            torch.cuda.synchronize()

    def clear(self) -> None:
        """Give back memory that nothing uses, and forget its peak."""
        gc.collect()
        if self.cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def memory(self) -> dict[str, float]:
        """The most memory that tensors took, and that was reserved for them and for graphs, in MiB."""
        if not self.cuda:
            return {}
        peak, reserved = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
        return {"peak_mib": peak / 2**20, "reserved_mib": reserved / 2**20}

    def matrix_peak(self, side: int) -> float:
        """The operations a second of one product of square matrices, the best of several, in 10^12."""
        a, b = (torch.randn(side, side, device=self.device, dtype=self.dtype) for _ in range(2))
        for _ in range(3):
            torch.mm(a, b)
        # Several at a time: the launch of the first is not counted for all.
        times = [self.time(lambda: [torch.mm(a, b) for _ in range(10)]) for _ in range(3)]
        return 2 * side**3 * 10 / min(times) / 1e12


class Painter:
    """What draws pictures: `paint(batch, steps)`; the networks that each stage calls once a step; and its steps."""

    def __init__(
        self, paint: Callable[[int, Steps], object], stages: dict[str, list[nn.Module]], steps: Steps
    ):
        self.paint, self.stages, self.steps = paint, stages, steps
        self.compiled: dict[nn.Module, Callable[..., Any]] = {}

    @functools.cached_property
    def teraflop(self) -> float:
        """What one picture takes, in 10^12 operations: counted with few steps, and added up for all."""
        started: list[int] = []
        of_a_call: dict[str, int] = {}
        with FlopCounterMode(display=False) as counter, contextlib.ExitStack() as hooks:

            def begin(*given: Any) -> None:
                started.append(counter.get_total_flops())

            def end(stage: str, *given: Any) -> None:
                of_a_call[stage] = counter.get_total_flops() - started.pop()

            for stage, networks in self.stages.items():
                for network in networks:
                    hooks.callback(network.register_forward_pre_hook(begin).remove)
                    hooks.callback(network.register_forward_hook(functools.partial(end, stage)).remove)
            self.paint(1, FEW)
        more = zip(self.stages, self.steps, FEW, strict=True)
        total = counter.get_total_flops()
        total += sum((steps - few) * of_a_call[stage] for stage, steps, few in more)
        return total / 1e12

    @contextlib.contextmanager
    def changed(self, how: str, backend: str) -> Iterator[None]:
        """Its networks called in another way or layout, or its noise drawn on the CPU."""
        networks = [network for several in self.stages.values() for network in several]
        pool = torch.cuda.graph_pool_handle() if "graphs" in how else None
        with contextlib.ExitStack() as undone:
            if how == "host noise":
                undone.enter_context(host_noise())
            for network in networks:
                forward = network.forward
                if "compiled" in how:
                    if network not in self.compiled:
                        self.compiled[network] = torch.compile(forward, dynamic=False, backend=backend)
                    forward = self.compiled[network]
                if "graphs" in how:
                    forward = Graphed(forward, pool)
                if forward != network.forward:
                    network.forward = forward
                    undone.callback(network.__dict__.pop, "forward")
                if how == "channels last":
                    undone.callback(network.to, memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
                    network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
            yield


@contextlib.contextmanager
def host_noise() -> Iterator[None]:
    """This project's noise drawn on the CPU; numbers differ from another device's by rounding."""
    from unclip.stages import noise

    drawn = noise.Noise
    noise.Noise = lambda seeds, device=None: drawn(seeds)  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        noise.Noise = drawn


def model_painter(model: Any) -> Painter:
    """A model of this project with its own settings."""
    settings = model.defaults

    def paint(batch: int, steps: Steps) -> None:
        prior, decoder, upsampler = steps
        given = {"prior_steps": prior, "steps": decoder, "upsampler_steps": upsampler}
        model.generate(PROMPT, n=batch, batch_size=batch, seed=SEED, **given)

    def network(name: str) -> Any:
        with model.parts.lend(name, nn.Module) as lent:
            return lent

    upsampler = network(model.parts.cascade[0].name)
    nets = [net for net in (upsampler.net, upsampler.last_net) if net is not None]
    stages = {"prior": [network("prior")], "decoder": [network("decoder").net], "upsampler": nets}
    steps = settings.prior.steps, settings.decoder.steps, settings.upsampler(0).steps
    return Painter(paint, stages, steps)


def pipeline_painter(pipeline: Any) -> Painter:
    """diffusers' pipeline with its own settings."""

    def paint(batch: int, steps: Steps) -> None:
        prior, decoder, upsampler = steps
        pipeline(
            PROMPT,
            num_images_per_prompt=batch,
            prior_num_inference_steps=prior,
            decoder_num_inference_steps=decoder,
            super_res_num_inference_steps=upsampler,
        )

    stages = {
        "prior": [pipeline.prior],
        "decoder": [pipeline.decoder],
        "upsampler": [pipeline.super_res_first, pipeline.super_res_last],
    }
    return Painter(paint, stages, (25, 25, 7))


class Bench:
    """Measures rows, one model on the device at a time."""

    def __init__(self, device: Device, *, tiny: bool, scratch: Path):
        self.device, self.tiny, self.scratch = device, tiny, scratch
        # To trace is enough to see whether it works; to compile takes longer than all the rest.
        self.backend = "eager" if tiny else "inductor"
        self._held: tuple[str, Painter] | None = None
        self._missing: dict[str, str] = {}

    def measure(self, row: Row) -> dict[str, Any]:
        """What is found out about a row: seconds a batch, and what follows from them."""
        if row.part != "training":
            return self._pictures(row)
        self.release()
        try:
            return self._training(row)
        finally:
            if row.how == "compiled":
                torch.compiler.reset()

    def _pictures(self, row: Row) -> dict[str, Any]:
        # The way that is no way of calling networks: another type of weights.
        painter = self._painter(f"{row.part} {row.what}" + (" float32" if row.how == "float32" else ""))
        teraflop = painter.teraflop
        with painter.changed(row.how, self.backend):
            timed = self.device.time_again(
                lambda: painter.paint(row.batch, FEW), lambda: painter.paint(row.batch, painter.steps)
            )
        return {**timed._asdict(), **self.device.memory(), "teraflop": teraflop, "steps": painter.steps}

    def _painter(self, name: str) -> Painter:
        if self._held is None or self._held[0] != name:
            self.release()
            # Made once in vain is enough.
            if name in self._missing:
                raise ImportError(self._missing[name])
            try:
                self._held = name, self._make(name)
            except ImportError as error:
                self._missing[name] = str(error)
                raise
        return self._held[1]

    def release(self) -> None:
        """Forget the model that was held, and what was compiled for it."""
        if self._held is not None:
            compiled, self._held = bool(self._held[1].compiled), None
            if compiled:
                torch.compiler.reset()
        self.device.clear()

    def _make(self, name: str) -> Painter:
        device, dtype = self.device.device, self.device.dtype
        if name.startswith("bundled"):
            import unclip

            kind = torch.float32 if name.endswith("float32") else dtype
            return model_painter(unclip.load(device=device, dtype=kind))
        from gpu_karlo import karlo_model, karlo_pipeline
        from karlo_folder import SIZES

        size = SIZES["tiny" if self.tiny else "full"]
        if name == "karlo unclip":
            return model_painter(karlo_model(size, device, dtype))
        return pipeline_painter(karlo_pipeline(size, device, dtype))

    def _training(self, row: Row) -> dict[str, Any]:
        from flops import cost

        from unclip import recipes
        from unclip.networks.clip import ClipConfig
        from unclip.train.config import ClipDependent
        from unclip.train.loop import Run
        from unclip.train.run_folder import RunFolder, with_precision
        from unclip.train.task import build_task

        self._write_data()
        config, clip = recipes.get("artwork", row.what), recipes.get("artwork", "clip").model
        assert isinstance(clip, ClipConfig)
        counted = cost(config, clip)
        assert counted is not None
        config = dataclasses.replace(
            config,
            data=dataclasses.replace(config.data, path="shapes"),
            batch=4 if self.tiny else config.batch,
            # No run is so long: the rate stays at its beginning.
            samples=1 << 50,
            compile=row.how == "compiled",
            out=str(self.scratch / f"{row.what}-{row.how}"),
        )
        if isinstance(config, ClipDependent):
            config = dataclasses.replace(config, clip=str(self.scratch / "clip"))
        config = with_precision(config, self.device.device)
        built = build_task(config, self.device.device)
        run = Run(config, built, self.device.device, RunFolder(config))
        few, many = (1, 1) if self.tiny else (2, 10)
        first = self.device.time(run.step)
        timed = self.device.time_again(
            lambda: [run.step() for _ in range(few)], lambda: [run.step() for _ in range(many)]
        )
        return {
            "batch": config.batch,
            "first": first,
            "seconds": timed.seconds / many,
            "runs": timed.runs * many,
            "teraflop": 3 * counted.forward / 1e12,
            **self.device.memory(),
        }

    def _write_data(self) -> None:
        """The shapes decoded, where `Source` looks for them, and the bundled CLIP as a finished run."""
        from unclip.checkpoints.hub import bundled
        from unclip.data.decoded_cache import DecodedCache
        from unclip.data.shapes import Shapes

        run = self.scratch / "clip"
        if run.is_dir():
            return
        for seed in (0, 1):
            for side in (64, 256):
                # Here, as other processes would take longer to start than to draw.
                DecodedCache.load(Shapes(seed=seed), side, cache=self.scratch / "cache", workers=1)
        run.mkdir()
        (run / "model").symlink_to(bundled()["artwork"], target_is_directory=True)


def finished(row: Row, found: dict[str, Any], peak: float) -> dict[str, Any]:
    """A row's entry in the JSON, with what follows from the seconds of a batch."""
    batch = found.get("batch", row.batch)
    rate = batch / found["seconds"]
    derived = {"each": 1 / rate, "rate": rate, "share": rate * found["teraflop"] / peak}
    return {**_named(row), **found, **derived, "batch": batch, "status": "done"}


def _named(row: Row) -> dict[str, Any]:
    return {"part": row.part, "what": row.what, "how": row.how, "batch": row.batch}


def run_rows(
    rows: Sequence[Row],
    measure: Callable[[Row], dict[str, Any]],
    clock: Clock,
    peak: float,
    report: Callable[[dict[str, Any]], None],
) -> None:
    """Measure what there is time for, in order; `report` is given an entry for each row."""
    for row in rows:
        if clock.left < row.least or clock.left <= 0:
            why = f"wants {row.least:.0f} s, {max(clock.left, 0):.0f} were left"
            report({**_named(row), "status": "skipped", "why": why})
            continue
        try:
            with clock.alarm():
                entry = finished(row, measure(row), peak)
        except TimeUp:
            entry = {**_named(row), "status": "skipped", "why": "the time was up"}
        except Exception as error:
            traceback.print_exc()
            why = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
            entry = {**_named(row), "status": "failed", "why": why[:200]}
        report(entry)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=240.0, help="all that it may take (default: 240)")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"), help="the JSON (default: gpu.json)")
    parser.add_argument(
        "--only", nargs="+", choices=("bundled", "karlo", "training"), help="these rows alone"
    )
    parser.add_argument("--device", default="cuda", help="where to run (default: cuda)")
    parser.add_argument("--tiny", action="store_true", help="small sizes, to see whether it runs")
    parser.add_argument("--table", type=Path, metavar="JSON", help="only print the tables of an earlier run")
    arguments = parser.parse_args()
    if arguments.table:
        print(table(json.loads(arguments.table.read_text(encoding="utf-8"))))
        return
    if not arguments.device.startswith("cuda") and not arguments.tiny:
        parser.error("at full size it needs a CUDA GPU: add --tiny to try it elsewhere")
    warnings.simplefilter("ignore")
    os.environ["HF_HUB_OFFLINE"] = "1"
    clock, device = Clock(arguments.seconds, START), Device(arguments.device)
    side = 256 if arguments.tiny else MATRIX
    peak = device.matrix_peak(side)
    result: dict[str, Any] = {
        "device": device.name,
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
        "dtype": str(device.dtype).removeprefix("torch."),
        "matrix": side,
        "peak": peak,
        "seconds": arguments.seconds,
        "rows": [],
    }

    def report(entry: dict[str, Any]) -> None:
        result["rows"].append(entry | {"at": round(time.monotonic() - START, 1)})
        fresh = arguments.out.with_name(f"{arguments.out.name}.part")
        fresh.write_text(json.dumps(result, indent=1), encoding="utf-8")
        fresh.replace(arguments.out)
        print(f"{time.monotonic() - START:6.1f} s  {described(entry)}", file=sys.stderr, flush=True)

    print(
        f"{time.monotonic() - START:6.1f} s  {device.name}: {peak:.3g} TFLOP/s", file=sys.stderr, flush=True
    )
    rows = plan(tiny=arguments.tiny, cuda=device.cuda)
    if arguments.only:
        rows = [row for row in rows if row.part in arguments.only]
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(device, tiny=arguments.tiny, scratch=Path(scratch))
        run_rows(rows, bench.measure, clock, peak, report)
    print(table(result), flush=True)
    # Processes that compile what nobody waits for would hold up the end.
    os._exit(0)


if __name__ == "__main__":
    main()
