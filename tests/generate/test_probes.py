"""Probes: principal components of z_i, nearest captions, and the word on the apple."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from unclip.errors import RequestError, Unsupported
from unclip.generate.operations import Generate
from unclip.generate.probes import write_word
from unclip.generate.sequence import strip
from unclip.networks.embedding_codes import EmbeddingCodes
from unclip.stages.space import Basis

CAPTIONS = ["a red apple", "a blue cat", "two green cars"]


def test_pictures_of_the_first_components(tiny_model, drawing):
    others = [drawing.rotate(angle) for angle in range(0, 180, 20)]
    options = {"seed": 3, "size": 16}
    few, many = tiny_model.components(drawing, (1, 8), others, **options)
    whole = tiny_model.vary(drawing, n=1, seed=3, size=16)[0]
    away = [np.abs(np.asarray(one.image, int) - np.asarray(whole.image, int)).mean() for one in (few, many)]
    assert away[1] < away[0]
    assert few.provenance["request"]["dimensions"] == [1]
    again = tiny_model.redo(few.provenance, drawing, *others)
    assert again.image.tobytes() == few.image.tobytes()
    assert again.provenance == few.provenance
    both = strip([few, many])
    assert tiny_model.redo(both.provenance, drawing, *others).image.tobytes() == both.image.tobytes()
    with pytest.raises(ValueError, match="made from 10 others by 'components', and 1 were given"):
        tiny_model.redo(few.provenance, drawing)
    with pytest.raises(ValueError, match="give the original, in the recorded order"):
        tiny_model.redo(few.provenance, drawing, *reversed(others))
    with pytest.raises(ValueError, match="dimensions is 9: the basis has 1 to 8"):
        tiny_model.components(drawing, [9], others, **options)
    for basis in ([], [drawing]):
        with pytest.raises(ValueError, match="2 pictures or more"):
            tiny_model.components(drawing, [1], basis)
    with pytest.raises(RequestError, match="dimensions has 0 values"):
        tiny_model.components(drawing, [], others)
    with pytest.raises(RequestError, match="dimensions is 0: give a number from 1"):
        tiny_model.components(drawing, [0], others)
    with pytest.raises(Unsupported, match="'tiny' has no autoregressive prior"):
        tiny_model.components(drawing, [1])


def test_nearest_captions_are_in_order(tiny_model, drawing):
    found = tiny_model.nearest_captions(drawing, CAPTIONS)
    z_i, z_t = tiny_model.embed_image(drawing)[0], tiny_model.embed_text(CAPTIONS)
    cosines = dict(zip(CAPTIONS, (z_t @ z_i).tolist()))
    assert [match.caption for match in found] == sorted(CAPTIONS, key=cosines.__getitem__, reverse=True)
    assert found[0].cosine == pytest.approx(cosines[found[0].caption], abs=1e-5)
    assert sum(match.probability for match in found) == pytest.approx(1.0)
    assert tiny_model.nearest_captions(z_i, CAPTIONS * 2, k=2) == found[:2]
    assert tiny_model.nearest_captions(z_t[1], CAPTIONS, k=1)[0].caption == CAPTIONS[1]
    for captions in ([], ["a red apple", " "]):
        with pytest.raises(RequestError, match="no captions"):
            tiny_model.nearest_captions(drawing, captions)


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


def test_probe(tiny_model, drawing):
    probe = tiny_model.probe(drawing, "cat", CAPTIONS, n=2, seed=1, steps=1)
    assert probe.before == tiny_model.nearest_captions(drawing, CAPTIONS)
    assert probe.after == tiny_model.nearest_captions(probe.written, CAPTIONS)
    assert probe.before != probe.after
    assert len(probe.variations) == 2
    assert probe.variations[0].provenance["request"]["kind"] == "vary"
    with pytest.raises(RequestError, match="word is empty"):
        tiny_model.probe(drawing, " ", CAPTIONS)


def test_the_prior_knows_its_components():
    torch.manual_seed(0)
    embeddings = torch.randn(64, 6)
    codes = EmbeddingCodes(6, 4, 8)
    codes.fit(embeddings)
    basis, expected = Basis(codes.mean, codes.components), Basis.of(embeddings)
    torch.testing.assert_close(basis.truncate(embeddings[0], 3), expected.truncate(embeddings[0], 3))


@pytest.mark.parametrize("k", [0, -1])
def test_a_number_of_captions_that_is_none(tiny_model, drawing, k):
    with pytest.raises(RequestError, match=f"k is {k}: give a number of captions from 1"):
        tiny_model.nearest_captions(drawing, CAPTIONS, k=k)


def test_embeddings_that_are_none(tiny_model, drawing):
    z_i = tiny_model.embed_image(drawing)[0]
    for wrong in (z_i * math.nan, z_i * math.inf, z_i * 0):
        with pytest.raises(RequestError, match="it has no direction"):
            tiny_model.nearest_captions(wrong, CAPTIONS)
    for wrong in (z_i[None], z_i[:-1], z_i.sum()):
        with pytest.raises(RequestError, match=r"the embedding has the shape \("):
            tiny_model.nearest_captions(wrong, CAPTIONS)


def test_text_that_is_none(tiny_model, drawing):
    for text in ("a \ud800", "a \0"):
        for call in (
            lambda text=text: tiny_model.embed_text(["fine", text]),
            lambda text=text: tiny_model.nearest_captions(drawing, ["fine", text]),
            lambda text=text: write_word(drawing, text),
        ):
            with pytest.raises(RequestError, match=r"(prompts|captions|word) holds .* at character 3"):
                call()


def test_nothing_to_embed(tiny_model):
    for call in (tiny_model.embed_text, tiny_model.embed_image):
        with pytest.raises(RequestError, match="give at least one"):
            call([])


def test_letters_that_the_font_lacks_are_not_drawn_as_boxes(drawing):
    assert write_word(drawing, "iPod 2!").size == drawing.size
    for word in ("caf\u00e9", "\u82f9\u679c", "a\u200b", "\u200b", "\ue000"):
        with pytest.raises(RequestError, match="the font that is written with lacks"):
            write_word(drawing, word)


@pytest.mark.parametrize("request_", ["a red apple", None, {"kind": "generate", "prompt": "a"}, Generate])
def test_what_is_no_request(tiny_model, request_):
    for call in (lambda: tiny_model.run(request_), lambda: tiny_model.run_batch([request_])):
        with pytest.raises(RequestError, match=r"the request is .*: give one such as unclip\.Generate"):
            call()
