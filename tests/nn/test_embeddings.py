"""Sinusoids of labels and of positions."""

import math

import pytest
import torch

from unclip.nn.embeddings import LabelEmbedding, grid_positions, timestep_embedding


@pytest.mark.parametrize("dimension", [8, 9])
def test_cosines_then_sines_of_geometric_frequencies(dimension):
    labels = [0.0, 1.0, 37.5, 999.0]
    embedding = timestep_embedding(torch.tensor(labels), dimension)
    assert embedding.shape == (4, dimension)
    for row, label in zip(embedding.tolist(), labels):
        angles = [label * 10_000 ** (-i / 4) for i in range(4)]
        expected = [math.cos(a) for a in angles] + [math.sin(a) for a in angles] + [0.0] * (dimension - 8)
        assert row == pytest.approx(expected, abs=2e-4)


def test_longest_period():
    """The slowest sinusoid of max_period 100 has turned by one radian at 100^(3/4)."""
    embedding = timestep_embedding(torch.tensor([100**0.75]), 8, max_period=100.0)
    assert embedding[0, 3].item() == pytest.approx(math.cos(1), abs=1e-5)


def test_neighbouring_timesteps_differ():
    embedding = timestep_embedding(torch.arange(1000.0), 64)
    assert torch.cdist(embedding, embedding).fill_diagonal_(9).min() > 0.1


def test_label_embedding_scales_its_label():
    torch.manual_seed(0)
    plain, scaled = LabelEmbedding(16, frequencies=8), LabelEmbedding(16, frequencies=8, scale=1000.0)
    scaled.load_state_dict(plain.state_dict())
    label = torch.tensor([0.25, 0.75])
    assert plain(label).shape == (2, 16)
    torch.testing.assert_close(scaled(label), plain(1000 * label))
    hidden = plain.linear_1(timestep_embedding(label, 8))
    torch.testing.assert_close(plain(label), plain.linear_2(hidden * hidden.sigmoid()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_label_embedding_has_the_type_of_its_weights(dtype):
    assert LabelEmbedding(8).to(dtype)(torch.tensor([999.0])).dtype == dtype


@pytest.mark.parametrize("dimension", [16, 18])
def test_grid_positions_are_rows_then_columns(dimension):
    grid = grid_positions(3, 5, dimension).reshape(3, 5, dimension)
    half = dimension // 2
    torch.testing.assert_close(grid[:, :, :half], grid[:, :1, :half].expand(-1, 5, -1))
    torch.testing.assert_close(grid[:, :, half:], grid[:1, :, half:].expand(3, -1, -1))
    flat = grid.reshape(15, dimension)
    assert torch.cdist(flat, flat).fill_diagonal_(9).min() > 0.1
