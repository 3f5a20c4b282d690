"""Embedding spaces: fingerprints, names, lengths, and arithmetic that is exact where it has to be."""

import math

import pytest
import torch
from torch.nn.functional import normalize

from unclip.checkpoints.quantize import dequantize, quantize
from unclip.diffusion.paths import slerp
from unclip.errors import RequestError
from unclip.networks.clip import ClipConfig
from unclip.stages.space import Basis, EmbeddingSpace, between, fingerprint_of


def drawn(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def space(**given) -> EmbeddingSpace:
    return EmbeddingSpace(**{"width": 16} | given)


def test_a_fingerprint_survives_rounding_and_tells_weights_apart():
    matrix = drawn(0, 768, 768) * 0.02
    own = space(fingerprint=fingerprint_of(matrix))
    for rounded in (matrix.half(), matrix.bfloat16(), dequantize(*quantize(matrix)), 3 * matrix):
        assert not own.differs_from(space(fingerprint=fingerprint_of(rounded)))
    for seed in range(1, 5):
        assert own.differs_from(space(fingerprint=fingerprint_of(drawn(seed, 768, 768))))
    # Numbers of unit variance, whatever the size: 40 of them.
    many = torch.tensor([fingerprint_of(drawn(seed, 24, 16)) for seed in range(5)])
    assert 0.7 < many.std() < 1.3


def test_names_decide_where_a_fingerprint_is_missing():
    named, marked = space(name="a"), space(name="a", fingerprint=(1.0,) * 8)
    assert not named.differs_from(marked)
    assert space(name="b").differs_from(marked)
    assert not space().differs_from(marked)
    # One CLIP under two names.
    assert not space(name="b", fingerprint=(1.001,) * 8).differs_from(marked)
    assert str(marked) == "a (fingerprint +1.00 +1.00 +1.00)"
    assert str(space(name="b")) == "b"
    assert str(space()) == "an unnamed space"


def test_embeddings_have_unit_length_exactly_where_clip_normalises():
    z = drawn(0, 5, 16) * 3
    unit = EmbeddingSpace.of(ClipConfig(embedding=16))
    assert (unit.width, unit.normalised, unit.rms_length, unit.unit_scale) == (16, True, 1.0, 4.0)
    assert torch.equal(unit.project(z), normalize(z, dim=-1))
    assert torch.equal(unit.project(z[0]), normalize(z[0], dim=-1))
    raw = EmbeddingSpace.of(ClipConfig(embedding=16, normalize=False))
    assert raw.project(z) is z
    assert raw.rms_length is None
    assert raw.unit_scale is None


def test_statistics_give_the_length_of_embeddings():
    z = drawn(0, 100_000, 16) * torch.linspace(0.5, 2, 16) + torch.linspace(-3, 3, 16)
    known = space(normalised=False, mean=z.mean(0), std=z.std(0))
    assert known.rms_length == pytest.approx(math.sqrt(z.square().sum(1).mean()), rel=1e-4)
    assert (z * known.unit_scale).square().mean() == pytest.approx(1.0, rel=1e-4)
    # Statistics are no part of a space's identity.
    assert known == space(normalised=False)


def test_the_difference_of_captions_is_a_direction_at_the_length_of_the_embedding():
    target, source, z_i = (drawn(seed, 16) * 7 for seed in range(3))
    z_d = space().difference(target, source)
    assert torch.equal(z_d, normalize(target - source, dim=-1))
    assert torch.equal(space().at_length_of(z_d, z_i), z_d * z_i.norm())
    with pytest.raises(RequestError, match="the same to CLIP"):
        space().difference(target, target * (1 + 1e-6))


def test_the_ends_of_a_path_are_exact():
    a, b = drawn(0, 16), drawn(1, 16)
    assert space().between(a, b, 0) is a
    assert space().between(a, b, 1.0) is b
    assert torch.equal(space().between(a, b, 0.3), slerp(a[None], b[None], 0.3)[0])
    pixels = drawn(2, 3, 4, 4), drawn(3, 3, 4, 4)
    assert between(*pixels, 0.5).shape == (3, 4, 4)


def test_fewer_components_are_further_from_the_embedding():
    embeddings = normalize(drawn(0, 40, 8), dim=-1)
    basis, z = Basis.of(embeddings), embeddings[3]
    torch.testing.assert_close(basis.truncate(z, 8), z)
    away = [torch.dist(basis.truncate(z, k), z).item() for k in range(1, 9)]
    assert away == sorted(away, reverse=True)
    assert basis.truncate(z, 2).norm().item() == pytest.approx(1.0)
    assert len(Basis.of(embeddings[:3]).components) == 2
    with pytest.raises(RequestError, match="2 pictures or more, not 1"):
        Basis.of(embeddings[:1])
