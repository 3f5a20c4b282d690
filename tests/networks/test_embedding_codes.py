"""Embeddings as codes: how many components, what they leave out, and that codes mean what they say."""

import pytest
import torch
from torch import Tensor

from unclip.networks.embedding_codes import (
    EmbeddingCodes,
    dimensions_for,
    nearest_level,
    principal_components,
    quantile_levels,
)

COUNT, WIDTH = 4000, 12


def embeddings() -> Tensor:
    """Anisotropic, skewed and away from the origin, in a basis that is not the axes'."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(COUNT, WIDTH, generator=generator) * 0.6 ** torch.arange(WIDTH)
    values[:, 1] = values[:, 1].exp()
    basis, _ = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=generator))
    return values @ basis + 1.0


def fitted(dimensions: int, buckets: int = 64) -> EmbeddingCodes:
    codes = EmbeddingCodes(WIDTH, dimensions, buckets)
    codes.fit(embeddings())
    return codes


def share_lost(z: Tensor, again: Tensor) -> float:
    return ((z - again).square().sum() / (z - z.mean(0)).square().sum()).item()


@pytest.mark.parametrize("error", [0.3, 0.1, 0.01, 0.001])
def test_the_fewest_components_that_reconstruct_well_enough_are_kept(error):
    z = embeddings().double()
    mean, variances, rows = principal_components(z)
    kept = dimensions_for(z, error)

    def lost(dimensions: int) -> float:
        basis = rows[:dimensions]
        return share_lost(z, mean + (z - mean) @ basis.T @ basis)

    assert lost(kept) <= error < lost(kept - 1)
    assert variances.tolist() == sorted(variances.tolist(), reverse=True)
    torch.testing.assert_close(((z - mean) @ rows.T).square().mean(0), variances)
    torch.testing.assert_close(rows @ rows.T, torch.eye(WIDTH, dtype=torch.float64))


def test_components_do_not_depend_on_the_order_of_the_embeddings():
    _, _, rows = principal_components(embeddings())
    _, _, other = principal_components(embeddings().flip(0))
    torch.testing.assert_close(rows, other)


def test_codes_lose_what_the_components_left_out_lose_and_little_more():
    z = embeddings()
    coarse, fine = (fitted(6, buckets) for buckets in (8, 256))
    _, variances, _ = principal_components(z)
    left_out = (variances[6:].sum() / variances.sum()).item()
    # The tail of the skewed one is in a single bucket.
    assert left_out < share_lost(z, fine.decode(fine.encode(z))) < left_out + 0.01
    assert share_lost(z, coarse.decode(coarse.encode(z))) > 0.02


def test_coding_what_was_decoded_gives_the_same_codes():
    codes = fitted(6)
    row = codes.encode(embeddings()[:200])
    assert row.shape == (200, 6)
    assert (row.min(), row.max()) == (0, 63)
    assert torch.equal(codes.encode(codes.decode(row)), row)


def test_every_code_is_about_equally_frequent_even_where_values_are_skewed():
    row = fitted(6, 16).encode(embeddings())
    for column in row.unbind(1):
        share = column.bincount(minlength=16) / COUNT
        assert share.min() > 0.5 / 16
        assert share.max() < 2 / 16


def test_first_codes_alone_give_the_rough_embedding():
    z, codes = embeddings(), fitted(6)
    row = codes.encode(z)
    losses = [share_lost(z, codes.decode(row[:, :count])) for count in range(7)]
    assert losses == sorted(losses, reverse=True)
    assert losses[0] == pytest.approx(1.0, abs=1e-3)
    torch.testing.assert_close(codes.decode(row[:, :0]), z.mean(0).expand(COUNT, -1))


def test_levels_are_the_means_of_equally_full_buckets():
    values = torch.tensor([[5.0, 1.0, 9.0, 2.0, 0.0, 7.0]])
    levels = quantile_levels(values, 3)
    assert levels.tolist() == [[0.5, 3.5, 8.0]]
    found = nearest_level(levels, torch.tensor([[-9.0, 1.9, 2.1, 5.8, 99.0]], dtype=torch.float64))
    assert found.tolist() == [[0, 0, 1, 2, 2]]


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: EmbeddingCodes(4, 5, 8), "dimensions is 5: an embedding of 4 has 1 to 4"),
        (lambda: EmbeddingCodes(4, 2, 1), "buckets is 1"),
        (
            lambda: EmbeddingCodes(WIDTH, 2, COUNT + 1).fit(embeddings()),
            "4000 embeddings cannot fill 4001 buckets",
        ),
        (lambda: dimensions_for(embeddings(), 0.0), "reconstruction_error is 0.0"),
        (lambda: dimensions_for(torch.ones(9, 3), 0.01), "all embeddings are the same"),
    ],
)
def test_errors_name_the_value_and_the_remedy(call, told):
    with pytest.raises(ValueError, match=told):
        call()
