"""Distances between sets against closed forms, and precision and recall on constructed sets."""

import math

import pytest
import torch

from unclip.evaluate.distances import frechet, frechet_gaussians, median_distance, mmd
from unclip.evaluate.precision_recall import neighbour_distance, precision_recall


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_frechet_of_diagonal_gaussians():
    # Where the covariances commute the distance is |m_a - m_b|^2 + |C_a^(1/2) - C_b^(1/2)|^2.
    mean_a, mean_b = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.0, 2.0, 5.0])
    deviation_a, deviation_b = torch.tensor([1.0, 2.0, 0.0]), torch.tensor([3.0, 0.5, 0.25])
    found = frechet_gaussians(mean_a, deviation_a.square().diag(), mean_b, deviation_b.square().diag())
    expected = (mean_a - mean_b).square().sum() + (deviation_a - deviation_b).square().sum()
    assert found == pytest.approx(expected.item(), rel=1e-6)


def test_frechet_of_gaussians_that_do_not_commute():
    # In two dimensions tr(M^(1/2)) = sqrt(tr M + 2 sqrt(det M)) for the product M of two covariances.
    a = torch.tensor([[2.0, 0.7], [0.7, 1.0]], dtype=torch.float64)
    b = torch.tensor([[0.5, -0.3], [-0.3, 1.5]], dtype=torch.float64)
    product = a @ b
    cross = math.sqrt(product.trace() + 2 * math.sqrt(torch.linalg.det(product)))
    zero = torch.zeros(2, dtype=torch.float64)
    expected = a.trace() + b.trace() - 2 * cross
    assert frechet_gaussians(zero, a, zero, b) == pytest.approx(expected.item(), abs=1e-9)


def test_frechet_of_samples_approaches_that_of_their_gaussians():
    a = normal(20_000, 2)
    b = normal(20_000, 2, seed=1) * torch.tensor([2.0, 1.0]) + torch.tensor([0.0, 3.0])
    assert frechet(a, b) == pytest.approx(9.0 + 1.0, rel=0.03)
    assert frechet(a, a) == pytest.approx(0.0, abs=1e-9)


def test_frechet_does_not_change_under_rotation():
    a, b = normal(50, 4), 1.5 * normal(60, 4, seed=1) + 1
    rotation = torch.linalg.qr(normal(4, 4, seed=2)).Q
    assert frechet(a @ rotation, b @ rotation) == pytest.approx(frechet(a, b), rel=1e-9)


def test_mmd_by_its_definition():
    a, b, bandwidth = normal(5, 3), normal(4, 3, seed=1), 0.8

    def kernel(x: torch.Tensor, y: torch.Tensor) -> float:
        return math.exp(-(x - y).square().sum().item() / (2 * bandwidth**2))

    within_a = sum(kernel(a[i], a[j]) for i in range(5) for j in range(5) if i != j) / 20
    within_b = sum(kernel(b[i], b[j]) for i in range(4) for j in range(4) if i != j) / 12
    between = sum(kernel(x, y) for x in a for y in b) / 20
    assert mmd(a, b, bandwidth) == pytest.approx(within_a + within_b - 2 * between, rel=1e-9)


def test_mmd_of_gaussians_in_closed_form():
    # E k(x, y) = (1 + 2/h^2)^(-d/2) exp(-|m|^2 / (2 (h^2 + 2))) for unit Gaussians whose means differ by m.
    bandwidth, shift, dimensions = 1.5, 2.0, 2
    scale = (1 + 2 / bandwidth**2) ** (-dimensions / 2)
    expected = 2 * scale * (1 - math.exp(-(shift**2) / (2 * (bandwidth**2 + 2))))
    moved = normal(1500, dimensions, seed=1) + torch.tensor([shift, 0.0])
    assert mmd(normal(1500, dimensions), moved, bandwidth) == pytest.approx(expected, rel=0.05)


def test_mmd_is_unbiased():
    values = torch.tensor(
        [mmd(normal(20, 3, seed=2 * i), normal(20, 3, seed=2 * i + 1), 1.0) for i in range(100)]
    )
    error = values.std().item() / math.sqrt(len(values))
    assert abs(values.mean().item()) < 4 * error
    # The estimate that keeps the diagonal would be off by two times (1 - E k) / 20, about 0.08.
    assert 4 * error < 0.02
    assert (values < 0).any()


def test_median_distance():
    assert median_distance(torch.tensor([[0.0], [1.0], [10.0]])) == 9.0


@pytest.mark.parametrize("measure", [frechet, lambda a, b: mmd(a, b, 1.0)])
def test_distances_refuse_a_single_vector(measure):
    with pytest.raises(ValueError, match="at least 2"):
        measure(normal(1, 3), normal(5, 3))


def test_mmd_refuses_a_bandwidth_of_zero():
    with pytest.raises(ValueError, match="bandwidth"):
        mmd(normal(5, 3), normal(5, 3), 0.0)


def test_neighbour_distance():
    x = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
    assert neighbour_distance(x, 1).tolist() == [1, 1, 2, 4]
    assert neighbour_distance(x, 2).tolist() == [3, 2, 3, 6]


def test_precision_and_recall_of_a_dropped_and_an_invented_mode():
    # Real pictures form modes A and B; generated ones A and an invented C, three quarters in A.
    a, b, c = normal(40, 2), normal(40, 2, seed=1) + 100, normal(10, 2, seed=2) - 100
    generated_a = normal(30, 2, seed=3) * 0.5
    found = precision_recall(torch.cat([a, b]), torch.cat([generated_a, c]), k=3, k_density=5)
    assert found.precision == 0.75
    assert 0.25 < found.recall <= 0.5
    assert found.coverage <= 0.5
    reverse = precision_recall(torch.cat([generated_a, c]), torch.cat([a, b]), k=3)
    assert (reverse.precision, reverse.recall) == (found.recall, found.precision)


def test_precision_and_recall_of_equal_and_of_distant_sets():
    x = normal(50, 3)
    same = precision_recall(x, x)
    assert (same.precision, same.recall, same.coverage) == (1.0, 1.0, 1.0)
    assert precision_recall(x, x + 1000) == (0.0, 0.0, 0.0, 0.0)


def test_density_is_one_on_average_for_sets_alike():
    # Naeem et al. 2020, section 3.3: E density = 1 and E coverage = 1 - (1/2)^k for large sets alike.
    densities, coverages = [], []
    for seed in range(20):
        found = precision_recall(
            normal(200, 4, seed=2 * seed), normal(200, 4, seed=2 * seed + 1), k_density=5
        )
        densities.append(found.density)
        coverages.append(found.coverage)
    assert sum(densities) / 20 == pytest.approx(1.0, abs=0.05)
    assert sum(coverages) / 20 == pytest.approx(1 - 0.5**5, abs=0.02)


def test_precision_and_recall_refuse_few_pictures():
    with pytest.raises(ValueError, match="too few"):
        precision_recall(normal(5, 2), normal(50, 2))
