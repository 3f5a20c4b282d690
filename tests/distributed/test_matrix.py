"""{single, DDP, FSDP2, HSDP} x {straight, killed and resumed} x {same, other number of processes}.

Always the same samples; bitwise the same weights, average and moments where processes and layout are the same; within
1e-5 of a single process otherwise. The runs are those of `cases.py`.
"""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from unclip.checkpoints.io import load_model

CASES = ("clip", "sigmoid", "prior", "decoder", "upsampler")
FOUR = ("clip", "sigmoid", "upsampler")
TOLERANCE = 1e-5
# Muon makes all singular values of an update alike, in bfloat16: those that are only the rounding of a sum count as much as
# the others. A step moves a weight by up to 0.01 * 0.2 * sqrt(64) here.
TOLERANCE_MUON = 1e-2
SAMPLES, HALF, BATCH = 50, 24, 12


def final(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "final.safetensors")


def exported(folder: Path) -> dict[str, torch.Tensor]:
    networks = load_model(folder / "model")
    return {
        f"{name}.{key}": value
        for name, network in networks.items()
        for key, value in network.state_dict().items()
    }


def assert_equal(one: Path, other: Path) -> None:
    """Bitwise: weights, average, moments, the model, and the losses on the way."""
    assert one != other
    for kind in (final, exported):
        torch.testing.assert_close(kind(one), kind(other), rtol=0, atol=0)
    assert measured(one) == measured(other)


def distance(one: Path, other: Path) -> float:
    """The largest difference of a weight or of its average."""
    first, second = final(one), final(other)
    assert first.keys() == second.keys()
    names = [name for name in first if name.startswith(("model/", "ema/"))]
    return max((first[name].double() - second[name].double()).abs().max().item() for name in names)


def measured(folder: Path) -> list[dict[str, float]]:
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [{key: line[key] for key in line.keys() - {"seconds", "rate"}} for line in lines]


def seen(folder: Path) -> list[int]:
    """The numbers of the samples that all processes saw, sorted; those that weigh nothing are left out."""
    parts = [json.loads(file.read_text()) for file in sorted(folder.glob("seen-*.json"))]
    numbers: list[int] = []
    for at_once in zip(*parts, strict=True):
        new: set[int] = set()
        for part in at_once:
            # A process without a sample of its own computes the first one of the others at weight zero.
            assert part[0] not in new or part == [min(new)]
            new |= set(part)
        numbers += sorted(new)
    return numbers


@pytest.mark.parametrize("case", [*CASES, "muon"])
def test_a_run_on_one_process_resumes_bit_for_bit(runs, case):
    assert_equal(runs / case / "single", runs / case / "single-resumed")
    assert seen(runs / case / "single") == list(range(SAMPLES))


@pytest.mark.parametrize("layout", ["ddp2", "fsdp2"])
@pytest.mark.parametrize("case", [*CASES, "muon"])
def test_runs_on_two_processes(runs, case, layout):
    straight, resumed = runs / case / layout, runs / case / f"{layout}-resumed"
    assert_equal(straight, resumed)
    assert seen(straight) == seen(resumed) == list(range(SAMPLES))
    assert 0 < distance(straight, runs / case / "single") < (TOLERANCE_MUON if case == "muon" else TOLERANCE)


@pytest.mark.parametrize("layout", ["ddp4", "fsdp4", "hsdp4"])
@pytest.mark.parametrize("case", [*FOUR, "muon"])
def test_runs_on_four_processes_two_of_which_have_no_sample_at_last(runs, case, layout):
    straight, resumed = runs / case / layout, runs / case / f"{layout}-resumed"
    assert_equal(straight, resumed)
    assert seen(straight) == seen(resumed) == list(range(SAMPLES))
    assert distance(straight, runs / case / "single") < (TOLERANCE_MUON if case == "muon" else TOLERANCE)


@pytest.mark.parametrize(
    "name",
    [
        "single-half-to-fsdp2",
        "fsdp2-half-to-ddp2",
        "ddp2-half-to-fsdp4",
        "fsdp2-half-to-ddp4",
        "ddp2-half-to-single",
        "fsdp2-half-to-single",
        "hsdp4-half-to-single",
    ],
)
@pytest.mark.parametrize("case", [*CASES, "muon"])
def test_any_number_of_processes_goes_on_from_any_others_checkpoint(runs, case, name):
    taken_over = runs / case / name.replace("-half-to-", "-to-")
    if "4" in name and case not in (*FOUR, "muon"):
        pytest.skip("four processes train the other stages")
    assert distance(taken_over, runs / case / "single") < (TOLERANCE_MUON if case == "muon" else TOLERANCE)
    assert seen(taken_over) == list(range(HALF, SAMPLES))
    numbers = [line["samples"] for line in measured(taken_over) if "loss" in line]
    assert numbers == [12, 24, 36, 48, 50]


def test_rounded_exchange_resumes_bit_for_bit_and_stays_close(runs):
    straight = runs / "bf16" / "rounded2"
    assert_equal(straight, runs / "bf16" / "rounded2-resumed")
    assert 0 < distance(straight, runs / "bf16" / "single") < 5e-3
    assert {value.dtype for value in final(straight).values()} <= {torch.float32, torch.int64}


def test_checkpoints_of_groups_are_safetensors_with_a_manifest(runs):
    (*_, newest) = sorted((runs / "clip" / "fsdp2" / "checkpoints").iterdir())
    manifest = json.loads((newest / "manifest.json").read_text())
    assert manifest["format"] == "sharded"
    assert manifest["samples"] == SAMPLES
    files = {file.name for file in newest.iterdir()}
    assert files == {*manifest["files"], "manifest.json"}
    assert len(manifest["files"]) == 2
    assert all(name.endswith(".safetensors") for name in manifest["files"])
    # Each process wrote its half.
    sizes = [entry["bytes"] for entry in manifest["files"].values()]
    assert max(sizes) < 1.5 * min(sizes)


@pytest.mark.parametrize("layout", ["ddp2", "fsdp2"])
def test_a_loss_that_is_not_finite_in_one_process_stops_all_of_them(runs, layout):
    folder = runs / "upsampler" / f"{layout}-poisoned"
    told = [json.loads((folder / f"told-{rank}.json").read_text()) for rank in range(2)]
    for one in told:
        assert f"at {one['key']} (sample 11): look at these pictures" in one["said"]
        assert one["unchanged"]
        assert one["samples"] == 0
    assert not list(folder.glob("checkpoints/*"))


@pytest.mark.parametrize("layout", ["ddp2", "fsdp2"])
def test_a_request_to_stop_one_process_stops_and_saves_all_of_them(runs, layout):
    folder = runs / "upsampler" / f"{layout}-stopped"
    told = [json.loads((folder / f"told-{rank}.json").read_text())["said"] for rank in range(2)]
    assert told == ["saved after 24 samples; the same command resumes"] * 2
    assert [one.name for one in (folder / "checkpoints").iterdir()] == ["samples-000000000024"]
