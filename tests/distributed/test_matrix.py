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

CASES = ("clip", "sigmoid", "muon", "prior", "decoder", "upsampler", "autoencoder", "latent", "adapter")
FOUR = ("clip", "sigmoid", "muon", "upsampler", "autoencoder")
HYBRID = ("clip", "upsampler")
REST = ("autoregressive", "text", "kandinsky")
REST_HYBRID = ("prior", "decoder", "autoencoder", "latent", *REST)
TOLERANCE = 1e-5
SAMPLES, HALF, BATCH = 50, 24, 12


def held(folder: Path) -> dict[str, torch.Tensor]:
    """Weights, average and moments, as each process holds them."""
    return {
        f"{file.name}/{name}": value
        for file in sorted(folder.glob("held-*.safetensors"))
        for name, value in load_file(file).items()
    }


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "weights.safetensors")


def exported(folder: Path) -> dict[str, torch.Tensor]:
    if (folder / "model" / "adapter_model.safetensors").exists():
        return load_file(folder / "model" / "adapter_model.safetensors")
    networks = load_model(folder / "model")
    return {
        f"{name}.{key}": value
        for name, network in networks.items()
        for key, value in network.state_dict().items()
    }


def assert_equal(one: Path, other: Path) -> None:
    """Bitwise: weights, average, moments, the model, and the losses on the way."""
    assert one != other
    for kind in (held, exported):
        first, second = kind(one), kind(other)
        assert first
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first)
    assert measured(one) == measured(other)


def distance(one: Path, other: Path) -> float:
    """The largest difference of a weight, or of an average in the model."""
    found = 0.0
    for kind in (weights, exported):
        first, second = kind(one), kind(other)
        assert first
        assert first.keys() == second.keys()
        for name in first:
            found = max(found, (first[name].double() - second[name].double()).abs().max().item())
    return found


def measured(folder: Path) -> list[dict[str, float]]:
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    # Runs that are resumed are not validated.
    return [{key: line[key] for key in line.keys() - {"seconds", "rate"}} for line in lines if "loss" in line]


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


@pytest.mark.parametrize("case", CASES)
def test_a_run_on_one_process_resumes_bit_for_bit(runs, case):
    assert_equal(runs / case / "single", runs / case / "single-resumed")
    assert seen(runs / case / "single") == list(range(SAMPLES))


@pytest.mark.parametrize("layout", ["ddp2", "fsdp2"])
@pytest.mark.parametrize("case", CASES)
def test_runs_on_two_processes(runs, case, layout):
    straight, resumed = runs / case / layout, runs / case / f"{layout}-resumed"
    assert_equal(straight, resumed)
    assert seen(straight) == seen(resumed) == list(range(SAMPLES))
    assert 0 < distance(straight, runs / case / "single") < TOLERANCE


@pytest.mark.parametrize(
    ("case", "layout"),
    [(case, layout) for case in FOUR for layout in ("ddp4", "fsdp4")] + [(case, "hsdp4") for case in HYBRID],
)
def test_runs_on_four_processes_two_of_which_have_no_sample_at_last(runs, case, layout):
    straight, resumed = runs / case / layout, runs / case / f"{layout}-resumed"
    assert_equal(straight, resumed)
    assert seen(straight) == seen(resumed) == list(range(SAMPLES))
    assert distance(straight, runs / case / "single") < TOLERANCE


TAKEN_OVER = {
    "single-to-fsdp2": CASES,
    "fsdp2-to-ddp2": CASES,
    "ddp2-to-single": CASES,
    "fsdp2-to-single": CASES,
    "ddp2-to-fsdp4": FOUR,
    "fsdp2-to-ddp4": FOUR,
    "hsdp4-to-single": HYBRID,
}


@pytest.mark.parametrize(
    ("name", "case"), [(name, case) for name, cases in TAKEN_OVER.items() for case in cases]
)
def test_any_number_of_processes_goes_on_from_any_others_checkpoint(runs, case, name):
    taken_over = runs / case / name
    assert distance(taken_over, runs / case / "single") < TOLERANCE
    assert seen(taken_over) == list(range(HALF, SAMPLES))
    numbers = [line["samples"] for line in measured(taken_over)]
    assert numbers == [12, 24, 36, 48, 50]


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["ddp2", "fsdp2"])
@pytest.mark.parametrize("case", REST)
def test_the_other_stages_on_two_processes(wide_runs, case, layout):
    test_a_run_on_one_process_resumes_bit_for_bit(wide_runs, case)
    test_runs_on_two_processes(wide_runs, case, layout)


@pytest.mark.slow
@pytest.mark.parametrize("case", REST_HYBRID)
def test_shards_in_two_groups_of_two(wide_runs, case):
    straight, resumed = wide_runs / case / "hsdp4", wide_runs / case / "hsdp4-resumed"
    assert_equal(straight, resumed)
    assert seen(straight) == seen(resumed) == list(range(SAMPLES))
    assert distance(straight, wide_runs / case / "single") < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "case"),
    [
        (name, case)
        for name in ("single-to-fsdp2", "fsdp2-to-ddp2", "ddp2-to-single", "fsdp2-to-single")
        for case in REST
    ]
    + [("hsdp4-to-single", case) for case in REST_HYBRID],
)
def test_the_other_stages_go_on_from_any_others_checkpoint(wide_runs, case, name):
    test_any_number_of_processes_goes_on_from_any_others_checkpoint(wide_runs, case, name)


def test_rounded_exchange_resumes_bit_for_bit_and_stays_close(runs):
    straight = runs / "bf16" / "rounded2"
    assert_equal(straight, runs / "bf16" / "rounded2-resumed")
    assert 0 < distance(straight, runs / "bf16" / "single") < 5e-3
    assert {value.dtype for value in held(straight).values()} <= {torch.float32, torch.int64}


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
    reports = [json.loads((folder / f"report-{rank}.json").read_text()) for rank in range(2)]
    for one in reports:
        assert f"at {one['key']} (sample 11): look at these pictures" in one["message"]
        assert one["unchanged"]
        assert one["samples"] == 0
    assert not list(folder.glob("checkpoints/*"))


@pytest.mark.parametrize("layout", ["ddp2", "fsdp2"])
def test_a_request_to_stop_one_process_stops_and_saves_all_of_them(runs, layout):
    folder = runs / "upsampler" / f"{layout}-stopped"
    messages = [json.loads((folder / f"report-{rank}.json").read_text())["message"] for rank in range(2)]
    assert messages == ["saved after 24 samples; the same command resumes"] * 2
    assert [one.name for one in (folder / "checkpoints").iterdir()] == ["samples-000000000024"]
