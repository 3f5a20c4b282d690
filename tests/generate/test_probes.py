"""Probes: principal components of z_i, nearest captions, and the word on the apple."""

import numpy as np
import pytest
import torch
from PIL import Image

from unclip.generate.pca import Basis, basis_of
from unclip.generate.probes import write_word
from unclip.generate.sequence import strip

CAPTIONS = ["a red apple", "a blue cat", "two green cars"]


def test_all_components_give_the_embedding_back_and_fewer_come_nearer():
    torch.manual_seed(0)
    embeddings = torch.nn.functional.normalize(torch.randn(40, 8), dim=-1)
    basis = basis_of(embeddings)
    z_i = embeddings[3]
    torch.testing.assert_close(basis.truncate(z_i, 8), z_i)
    away = [torch.dist(basis.truncate(z_i, k), z_i).item() for k in range(1, 9)]
    assert away == sorted(away, reverse=True)
    assert basis.truncate(z_i, 2).norm().item() == pytest.approx(1.0)


def test_pictures_of_the_first_components(tiny_system, drawing):
    others = [drawing.rotate(angle) for angle in range(0, 180, 20)]
    options = {"basis": others, "seed": 3, "size": 16}
    few, many = tiny_system.pca_reconstructions(drawing, dimensions=(1, 8), **options)
    whole = tiny_system.vary(drawing, n=1, seed=3, size=16)[0]
    away = [np.abs(np.asarray(one.image, int) - np.asarray(whole.image, int)).mean() for one in (few, many)]
    assert away[1] < away[0]
    assert few.recipe["dimensions"] == 1
    again = tiny_system.redo(few.recipe, drawing, *others)
    assert again.image.tobytes() == few.image.tobytes()
    assert again.recipe == few.recipe
    both = strip([few, many], along="dimensions")
    assert tiny_system.redo(both.recipe, drawing, *others).image.tobytes() == both.image.tobytes()
    with pytest.raises(ValueError, match="made from 10 others"):
        tiny_system.redo(few.recipe, drawing)
    with pytest.raises(ValueError, match="give the original, in the order"):
        tiny_system.redo(few.recipe, drawing, *reversed(others))
    with pytest.raises(ValueError, match="dimensions is 9: the basis has 1 to 8"):
        tiny_system.pca_reconstructions(drawing, dimensions=[9], **options)
    for basis in ([], [drawing]):
        with pytest.raises(ValueError, match="2 pictures or more"):
            tiny_system.pca_reconstructions(drawing, dimensions=[1], basis=basis)
    with pytest.raises(ValueError, match="'tiny' has no prior_autoregressive"):
        tiny_system.pca_reconstructions(drawing, dimensions=[1])


def test_nearest_captions_are_in_order(tiny_system, drawing):
    found = tiny_system.nearest_captions(drawing, CAPTIONS)
    z_i, z_t = tiny_system.embed_image(drawing)[0], tiny_system.embed_text(CAPTIONS)
    cosines = dict(zip(CAPTIONS, (z_t @ z_i).tolist()))
    assert [match.caption for match in found] == sorted(CAPTIONS, key=cosines.__getitem__, reverse=True)
    assert found[0].cosine == pytest.approx(cosines[found[0].caption], abs=1e-5)
    assert sum(match.probability for match in found) == pytest.approx(1.0)
    assert tiny_system.nearest_captions(z_i, CAPTIONS * 2, k=2) == found[:2]
    assert tiny_system.nearest_captions(z_t[1], CAPTIONS, k=1)[0].caption == CAPTIONS[1]
    with pytest.raises(ValueError, match="no captions"):
        tiny_system.nearest_captions(drawing, [])


@pytest.mark.parametrize("size", [(64, 64), (300, 80), (12, 40)])
@pytest.mark.parametrize("word", ["iPod", "a long inscription"])
def test_a_word_is_written_in_the_middle(size, word):
    plain = Image.new("RGB", size, "red")
    changed = np.asarray(write_word(plain, word)) != np.asarray(plain)
    rows, columns = np.nonzero(changed.any(axis=-1))
    assert abs((rows.min() + rows.max()) / 2 - size[1] / 2) <= 2
    assert abs((columns.min() + columns.max()) / 2 - size[0] / 2) <= 2
    assert (columns.max() - columns.min()) / size[0] <= 1
    assert np.asarray(plain)[0, 0].tolist() == [255, 0, 0]


def test_typographic_probe(tiny_system, drawing):
    probe = tiny_system.typographic_probe(drawing, "cat", CAPTIONS, n=2, seed=1, steps=1)
    assert probe.before == tiny_system.nearest_captions(drawing, CAPTIONS)
    assert probe.after == tiny_system.nearest_captions(probe.written, CAPTIONS)
    assert probe.before != probe.after
    assert len(probe.variations) == 2
    assert probe.variations[0].recipe["operation"] == "vary"
    with pytest.raises(ValueError, match="word is empty"):
        tiny_system.typographic_probe(drawing, " ", CAPTIONS)


def test_the_prior_knows_its_components(drawing):
    from unclip.networks.embedding_codes import EmbeddingCodes

    torch.manual_seed(0)
    embeddings = torch.randn(64, 6)
    codes = EmbeddingCodes(6, 4, 8)
    codes.fit(embeddings)
    basis, expected = Basis(codes.mean, codes.components), basis_of(embeddings)
    torch.testing.assert_close(basis.truncate(embeddings[0], 3), expected.truncate(embeddings[0], 3))
