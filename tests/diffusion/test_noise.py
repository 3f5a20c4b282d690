"""Noise tables and grids against the formulas and lists of the papers."""

import math

import pytest
import torch

from unclip.diffusion import grids
from unclip.diffusion.noise import NoiseTable
from unclip.diffusion.parametrization import ProcessConfig

TABLES = ["linear", "scaled_linear", "cosine"]


@pytest.mark.parametrize("kind", TABLES)
def test_time_and_sigma_are_inverse(kind: str) -> None:
    table = getattr(NoiseTable, kind)(1000)
    t = torch.arange(1000, dtype=torch.float64)
    assert torch.allclose(table.t_of(table.sigmas), t, atol=1e-9)
    between = torch.rand(500, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 999
    assert torch.allclose(table.t_of(table.sigma_of(between)), between, atol=1e-7)
    halfway = table.sigma_of(torch.tensor([41.5]))
    assert torch.allclose(halfway, (table.sigmas[41] * table.sigmas[42]).sqrt())


def test_times_outside_of_the_table_are_clamped() -> None:
    table = NoiseTable.linear(1000)
    assert table.t_of(torch.tensor([1e-6, 1e6], dtype=torch.float64)).tolist() == [0.0, 999.0]


def test_cosine_is_the_papers_function() -> None:
    """Improved DDPM, equation 17, where beta is not clipped: abar_t = f(t + 1) / f(0)."""
    table = NoiseTable.cosine(1000)
    t = torch.arange(1, 1000, dtype=torch.float64) / 1000
    f = torch.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2
    assert torch.allclose(table.abar[:-1], f / math.cos(0.008 / 1.008 * math.pi / 2) ** 2, rtol=1e-10)
    assert table.sigmas[-1].item() == pytest.approx(20291, rel=1e-3)


def test_linear_is_ddpms() -> None:
    table = NoiseTable.linear(1000)
    assert 1 - table.abar[0].item() == pytest.approx(1e-4)
    assert 1 - (table.abar[-1] / table.abar[-2]).item() == pytest.approx(0.02)
    # Fewer steps cover the same range.
    assert NoiseTable.linear(250).abar[-1].item() == pytest.approx(table.abar[-1].item(), rel=0.25)


def test_tables_refuse_what_is_no_schedule() -> None:
    with pytest.raises(ValueError, match=r"\(0, 1\)"):
        NoiseTable.linear(20)
    with pytest.raises(ValueError, match="ascending"):
        NoiseTable(torch.tensor([1.0, 1.0], dtype=torch.float64))
    with pytest.raises(ValueError, match="float64"):
        NoiseTable(torch.tensor([1.0, 2.0]))


# As in Karlo's scheduler.
@pytest.mark.parametrize(
    ("steps", "times"),
    [
        ("7", "999 832 666 500 333 166 0"),
        ("1", "999"),
        (
            "25",
            "999 957 916 874 832 791 749 708 666 624 583 541 500 458 416 375 333 291 250 208 166 125 83 42 0",
        ),
    ],
)
def test_respaced(steps: str, times: str) -> None:
    table = NoiseTable.cosine(1000)
    visited = table.sigmas[[int(t) for t in times.split()]]
    assert torch.equal(grids.respaced(table, int(steps)), torch.cat([visited, visited.new_zeros(1)]))


def test_respaced_by_sections() -> None:
    table = NoiseTable.linear(300)
    times = table.t_of(grids.respaced(table, [10, 15, 20])[:-1]).round().long().flip(0)
    # Improved DDPM's own example: 300 steps in three sections.
    assert len(times) == 45
    assert [int(((times >= low) & (times < low + 100)).sum()) for low in (0, 100, 200)] == [10, 15, 20]
    assert times[[0, 9, 10, 24, 25, 44]].tolist() == [0, 99, 100, 199, 200, 299]


def test_leading_and_trailing() -> None:
    table = NoiseTable.linear(1000)
    assert table.t_of(grids.leading(table, 4, offset=1)[:-1]).round().tolist() == [751, 501, 251, 1]
    assert table.t_of(grids.trailing(table, 4)[:-1]).round().tolist() == [999, 749, 499, 249]
    with pytest.raises(ValueError, match="offset"):
        grids.leading(table, 1000, offset=1)


def test_karras() -> None:
    sigmas = grids.karras(0.002, 80.0, 18)
    assert sigmas[[0, -2, -1]].tolist() == pytest.approx([80.0, 0.002, 0.0])
    i = 5
    assert sigmas[i].item() == pytest.approx(
        (80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    )


def test_uniform_flow() -> None:
    sigmas = grids.uniform_flow(9.0, 9)
    assert torch.allclose(sigmas / (1 + sigmas), torch.linspace(0.9, 0, 10, dtype=torch.float64))
    shifted = grids.uniform_flow(9.0, 9, shift=3.0)
    assert shifted[0].item() == pytest.approx(9.0)
    # Esser et al., equation 23: the noise level itself is multiplied.
    assert torch.allclose(shifted, 3 * grids.uniform_flow(3.0, 9))


@pytest.mark.parametrize("spacing", ["respaced", "leading", "trailing", "karras", "flow"])
@pytest.mark.parametrize("schedule", ["linear", "scaled_linear", "cosine", "flow", "edm"])
@pytest.mark.parametrize("steps", [1, 2, 27])
def test_every_grid_descends_to_zero(spacing: str, schedule: str, steps: int) -> None:
    process = ProcessConfig(parametrization="v", schedule=schedule).build()
    if process.table is None and spacing in ("respaced", "leading", "trailing"):
        with pytest.raises(ValueError, match="discrete"):
            process.grid(steps, spacing)
        return
    sigmas = process.grid(steps, spacing)
    assert sigmas.shape == (steps + 1,)
    assert sigmas.dtype == torch.float64
    assert sigmas[-1] == 0
    assert (sigmas.diff() < 0).all()
    assert sigmas[0] <= process.sigma_max * (1 + 1e-9)


def test_default_grids() -> None:
    def default(schedule: str) -> torch.Tensor:
        return ProcessConfig(parametrization="v", schedule=schedule).build().grid(5)

    assert torch.equal(default("cosine"), grids.respaced(NoiseTable.cosine(), 5))
    assert torch.equal(default("flow"), grids.uniform_flow(80.0, 5))
    assert torch.equal(default("edm"), grids.karras(0.002, 80.0, 5))


@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_impossible_numbers_of_steps(steps: int) -> None:
    with pytest.raises(ValueError, match="sampling steps"):
        grids.respaced(NoiseTable.cosine(1000), steps)
