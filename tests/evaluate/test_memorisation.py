"""Memorisation: nearest neighbours against torch.cdist, and copies that are detected."""

import pytest
import torch

from unclip.evaluate.memorisation import memorisation, nearest_two


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("chunk", [1, 7, 100])
def test_nearest_two_are_those_of_cdist(chunk):
    queries, training = normal(11, 5), normal(30, 5, seed=1)
    first, second = nearest_two(queries, training.split(chunk))
    expected = torch.cdist(queries.double(), training.double()).sort(dim=1).values
    torch.testing.assert_close(first, expected[:, 0])
    torch.testing.assert_close(second, expected[:, 1])


def test_a_copy_is_at_distance_zero_however_far_from_the_origin():
    training = normal(50, 8) + 1000
    first, second = nearest_two(training[3:4].clone(), training.split(20))
    assert first.item() == 0.0
    assert second.item() > 0.1


def test_one_training_picture_is_too_few():
    with pytest.raises(ValueError, match="at least 2"):
        nearest_two(normal(2, 3), [normal(1, 3)])


def test_a_model_that_copies_is_detected():
    training, held_out = normal(400, 6), normal(200, 6, seed=1)
    copies = torch.cat([training[:50] + 0.001 * normal(50, 6, seed=2), normal(50, 6, seed=3)])
    found = memorisation(nearest_two(copies, [training]), nearest_two(held_out, [training]))
    assert found.copies == pytest.approx(0.5, abs=0.03)
    assert found.closer == pytest.approx(0.525, abs=0.06)
    assert found.median < found.held_out_median
    assert found.held_out_copies < 0.03


def test_a_model_that_draws_from_the_same_distribution_is_not():
    training, held_out, generated = normal(400, 6), normal(300, 6, seed=1), normal(300, 6, seed=2)
    found = memorisation(nearest_two(generated, [training]), nearest_two(held_out, [training]))
    assert found.closer == pytest.approx(0.05, abs=0.04)
    assert found.median == pytest.approx(found.held_out_median, rel=0.1)


def test_empty_sets_are_refused():
    nothing = (torch.zeros(0, dtype=torch.float64),) * 2
    with pytest.raises(ValueError, match="empty"):
        memorisation(nothing, nothing)
