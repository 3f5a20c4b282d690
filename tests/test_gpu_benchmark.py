"""benchmarks/gpu.py: its rows, its time, its tables, and what it measures, at tiny size on the CPU."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn

FOLDER = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(scope="module")
def gpu() -> Iterator[ModuleType]:
    """benchmarks/gpu.py, which imports others beside it."""
    sys.path.insert(0, str(FOLDER))
    try:
        import gpu

        yield gpu
    finally:
        sys.path.remove(str(FOLDER))
        for name in ("gpu", "graphs", "gpu_karlo", "karlo_folder"):
            sys.modules.pop(name, None)


def result(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """A JSON with these rows."""
    header = {"device": "a card", "torch": "2.11.0", "date": "2026-11-27", "dtype": "bfloat16"}
    return {**header, "matrix": 8192, "peak": 100.0, "rows": rows}


FOUND = {"first": 2.0, "seconds": 0.5, "runs": 3, "teraflop": 4.0}


def test_rows_differ_and_the_most_important_come_first(gpu):
    rows = gpu.plan(tiny=False, cuda=True)
    keys = [(row.part, row.what, row.how, row.batch) for row in rows]
    assert len(set(keys)) == len(keys)
    assert [row.batch for row in rows[:3]] == [1, 16, 256]
    for library in ("unclip", "diffusers"):
        for batch in (1, 16):
            eager = keys.index(("karlo", library, "eager", batch))
            assert eager < keys.index(("karlo", library, "compiled", batch))
    for stage in ("clip", "prior", "decoder", "upsampler"):
        assert {how for part, what, how, _ in keys if (part, what) == ("training", stage)} == {
            "eager",
            "compiled",
        }


def test_without_cuda_there_are_no_graphs(gpu):
    assert all("graphs" not in row.how for row in gpu.plan(tiny=True, cuda=False))


def test_what_follows_from_the_seconds_of_a_batch(gpu):
    entry = gpu.finished(gpu.Row("karlo", "unclip", "eager", 16), FOUND, 1000.0)
    assert (entry["batch"], entry["each"], entry["rate"]) == (16, 0.5 / 16, 32.0)
    assert entry["share"] == 32.0 * 4.0 / 1000.0
    # A recipe's own batch is known when its stage was built.
    assert gpu.finished(gpu.Row("training", "clip", "eager", 0), {**FOUND, "batch": 512}, 1.0)["rate"] == 1024


def test_rows_for_which_there_is_no_time_are_skipped_and_failures_noted(gpu, capsys):
    def measure(row: Any) -> dict[str, Any]:
        if row.what == "broken":
            raise RuntimeError("out of memory\nand more")
        return FOUND

    entries: list[dict[str, Any]] = []
    rows = [gpu.Row("karlo", "a", "eager", 1), gpu.Row("karlo", "long", "compiled", 1, 1000.0)]
    rows += [gpu.Row("karlo", "broken", "eager", 1), gpu.Row("karlo", "b", "eager", 2)]
    gpu.run_rows(rows, measure, gpu.Clock(100.0, time.monotonic()), 10.0, entries.append)
    assert [entry["status"] for entry in entries] == ["done", "skipped", "failed", "done"]
    assert "wants 1000 s" in entries[1]["why"]
    assert entries[2]["why"] == "RuntimeError: out of memory"
    assert "out of memory" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals")
def test_a_row_that_takes_too_long_is_stopped(gpu):
    entries: list[dict[str, Any]] = []
    rows = [gpu.Row("karlo", "a", "eager", 1), gpu.Row("karlo", "b", "eager", 1)]
    began = time.monotonic()
    gpu.run_rows(rows, lambda row: time.sleep(30), gpu.Clock(0.2, began), 1.0, entries.append)
    assert time.monotonic() - began < 10
    assert [entry["status"] for entry in entries] == ["skipped", "skipped"]
    assert entries[0]["why"] == "the time was up"


def test_the_tables(gpu):
    memory = {"peak_mib": 2000.4, "reserved_mib": 3000.0}
    picture = gpu.finished(gpu.Row("karlo", "unclip", "eager", 16), {**FOUND, **memory}, 1000.0)
    trained = gpu.finished(gpu.Row("training", "prior", "compiled", 0), {**FOUND, "batch": 256}, 10_000.0)
    skipped = {"part": "training", "what": "clip", "how": "eager", "batch": 0}
    skipped |= {"status": "skipped", "why": "needs 6 s, 2 were left"}
    text = gpu.table(json.loads(json.dumps(result([picture, trained, skipped]))))
    assert text.startswith(
        "a card, torch 2.11.0, 2026-11-27. A product of 8192 x 8192 matrices in bfloat16: 100 "
    )
    assert "\n| karlo | unclip | eager | 16 | 0.0312 | 32.00 | 4 | 12.8% | 2,000 | 3,000 | 2.0 |\n" in text
    assert "\n| prior | compiled | 256 | 512 | 4000.00 | 20.5% |  |  | 2.0 |\n" in text
    assert text.endswith("\n\n- training, clip, eager: skipped, needs 6 s, 2 were left")
    widths = {line.count("|") for line in text.splitlines() if line.startswith("|") and "karlo" in line}
    assert widths == {text.split("\n\n")[1].splitlines()[1].count("|")}


def test_a_table_of_nothing(gpu):
    assert len(gpu.table(result([])).splitlines()) == 1


def test_operations_are_counted_for_all_steps(gpu):
    prior, decoder, upsampler = (nn.Linear(4, 8 * factor, bias=False) for factor in (1, 2, 3))
    beside = nn.Linear(4, 5, bias=False)

    def paint(batch: int, steps: tuple[int, int, int]) -> None:
        x = torch.zeros(batch, 4)
        beside(x)
        for network, count in zip((prior, decoder, upsampler), steps):
            for _ in range(count):
                network(x)

    networks = {"prior": [prior], "decoder": [decoder], "upsampler": [upsampler]}
    painter = gpu.Painter(paint, networks, (3, 5, 7))
    assert painter.teraflop * 1e12 == 2 * 4 * (5 + 8 * (3 + 2 * 5 + 3 * 7))


def test_networks_are_called_as_before_when_a_row_is_done(gpu):
    network = nn.Linear(2, 2)
    painter = gpu.Painter(lambda batch, steps: None, {"prior": [network]}, (1, 1, 1))
    before, x = network.forward, torch.ones(1, 2)
    with painter.changed("compiled", "eager"):
        assert network.forward != before
        torch.testing.assert_close(network(x), before(x))
    assert network.forward == before


class Pair(NamedTuple):
    """A named tuple, which is made from its fields one by one."""

    first: torch.Tensor
    second: int


def test_nested_arguments_differ_by_their_shapes(gpu):
    from graphs import describe, rebuild

    from unclip.networks.prior_diffusion import PriorCondition

    def arguments(width: int) -> Any:
        condition = PriorCondition(
            torch.ones(2, width), torch.ones(2, 3, width), torch.ones(2, 3).bool(), torch.ones(2).bool()
        )
        return (condition, {"context": [Pair(torch.ones(1), 3)]}, None), {"label": torch.zeros(2)}

    found: list[torch.Tensor] = []
    key = describe(arguments(4), found)
    assert len(found) == 6
    assert {key: 1}[describe(arguments(4), [])] == 1
    assert key != describe(arguments(5), [])
    others = [torch.full_like(one, 1) + 1 if one.is_floating_point() else one for one in found]
    again: list[torch.Tensor] = []
    assert describe(rebuild(arguments(4), iter(others)), again) == key
    assert all(one is other for one, other in zip(again, others, strict=True))


def test_karlos_form_paints_here_and_in_diffusers(gpu):
    pytest.importorskip("diffusers")
    from gpu_karlo import karlo_model, karlo_pipeline
    from karlo_folder import SIZES

    device, size = torch.device("cpu"), SIZES["tiny"]
    ours = gpu.model_painter(karlo_model(size, device, torch.float32))
    theirs = gpu.pipeline_painter(karlo_pipeline(size, device, torch.float32))
    assert ours.steps == theirs.steps == (25, 25, 7)
    # The caption is read once here, and once a step there.
    assert 0.9 * theirs.teraflop < ours.teraflop < theirs.teraflop


def test_at_full_size_it_wants_a_gpu():
    run = subprocess.run(
        [sys.executable, str(FOLDER / "gpu.py"), "--device", "cpu"], capture_output=True, text=True
    )
    assert run.returncode == 2
    assert "--tiny" in run.stderr


@pytest.mark.gpu
def test_a_recorded_function_gives_the_same_answers(gpu):
    from graphs import Graphed

    network = nn.Sequential(nn.Linear(8, 8), nn.SiLU(), nn.Linear(8, 8)).cuda().requires_grad_(False)
    recorded = Graphed(network)
    for batch in (1, 4, 1):
        x = torch.randn(batch, 8, device="cuda")
        torch.testing.assert_close(recorded(x), network(x))
    assert len(recorded.recorded) == 2
