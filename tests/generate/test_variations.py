"""Variations: from z_i alone, and from (z_i, x_T) with more or less noise; provenance that makes them again."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from unclip.errors import RequestError, Unsupported
from unclip.generate.image import Image as Result
from unclip.generate.model import Model
from unclip.images import PictureWarning


def same(a: Result, b: Result) -> bool:
    return a.image.tobytes() == b.image.tobytes()


def test_variations_differ_and_keep_the_embedding(tiny_model, drawing):
    made = tiny_model.vary(drawing, n=3, seed=7)
    assert len({one.image.tobytes() for one in made}) == 3
    assert all(one.embedding.equal(tiny_model.embed_image(drawing)[0]) for one in made)
    assert same(tiny_model.vary(drawing, n=1, seed=made[2].seed)[0], made[2])
    assert len(tiny_model.vary(drawing)) == 4


def test_variations_follow_the_picture(tiny_model, drawing):
    other = Image.new("RGB", drawing.size, "black")
    assert not same(*(tiny_model.vary(one, n=1, seed=7)[0] for one in (drawing, other)))


def test_no_noise_gives_the_picture_back(gaussian_model, drawing):
    options = {"seed": 3, "size": 16, "steps": 60}
    (back,) = gaussian_model.vary(drawing, n=1, eta=0, **options)
    assert same(back, gaussian_model.reconstruct(drawing, **options))
    (off,) = gaussian_model.vary(drawing, n=1, eta=1, **options)
    original = np.asarray(drawing.resize((16, 16), Image.Resampling.BICUBIC), float)
    near, far = (np.abs(np.asarray(one.image, float) - original).mean() for one in (back, off))
    assert near < 6
    assert far > 2 * near


def test_more_noise_leads_further_away(gaussian_model, drawing):
    options = {"size": 16, "steps": 30, "n": 4, "seed": 5}
    base = np.asarray(gaussian_model.vary(drawing, eta=0, **options)[0].image, float)
    far = [
        np.mean(
            [
                np.abs(np.asarray(one.image, float) - base).mean()
                for one in gaussian_model.vary(drawing, eta=eta, **options)
            ]
        )
        for eta in (0, 0.3, 1.0)
    ]
    assert far[0] == 0
    assert far[0] < far[1] < far[2]


def test_every_kind_of_decoder_is_inverted_and_varied(either_model, drawing):
    assert either_model.vary(drawing, n=1, eta=0.5, seed=1, steps=3)[0].image.size == (32, 32)


@pytest.mark.parametrize("eta", [None, 0.5])
def test_provenance_and_the_source_make_the_variation_again(tiny_model, tiny_folder, drawing, tmp_path, eta):
    settings = {"steps": 4, "upsampler_steps": 1}
    made = tiny_model.vary(drawing, n=2, eta=eta, seed=7, **settings)[1]
    opened = Result.open(made.save(tmp_path / "a.png"))
    fresh = Model.load(tiny_folder, device="cpu")
    again = fresh.redo(opened.provenance, drawing)
    assert same(again, made)
    assert again.provenance == made.provenance
    with pytest.raises(ValueError, match="made from 1 others by 'vary', and 0 were given"):
        fresh.redo(opened.provenance)
    with pytest.raises(ValueError, match="give the original"):
        fresh.redo(opened.provenance, Image.new("RGB", (8, 8)))
    for name in ("seed", "size"):
        damaged = json.loads(json.dumps(opened.provenance))
        del damaged["request"][name]
        with pytest.raises(RequestError, match=f"the provenance is damaged: its request has no {name}"):
            fresh.redo(damaged, drawing)


def test_values_out_of_range_are_refused(tiny_model, drawing):
    for eta in (-0.1, 1.1):
        with pytest.raises(RequestError, match=f"eta is {eta}: give a number from 0 to 1"):
            tiny_model.vary(drawing, eta=eta)
    with pytest.raises(RequestError, match="eta is nan: give a finite number"):
        tiny_model.vary(drawing, eta=float("nan"))
    with pytest.raises(RequestError, match="n is 0: give a number from 1"):
        tiny_model.vary(drawing, n=0)
    with pytest.raises(RequestError, match="16, 32 pixels, not 64"):
        tiny_model.vary(drawing, size=64)


def test_progress_counts_to_one(tiny_model, drawing):
    seen = []
    tiny_model.vary(drawing, n=3, eta=0.5, seed=1, steps=3, batch_size=2, on_progress=seen.append)
    assert [event.stage for event in seen[:4]] == ["inversion"] * 4
    assert seen[-1].fraction == 1.0
    assert len({event.fraction for event in seen}) == len(seen)
    assert seen[0].previews()[0].size == (16, 16)


def test_a_model_without_a_decoder_says_so(tiny, tiny_model, drawing):
    clip = tiny.networks(tiny_model)["clip"]
    part = Model.of({"clip": clip}, tiny_model.parts.tokenizer, name="half")
    with pytest.raises(Unsupported, match="'half' has no decoder, which vary needs: it has clip"):
        part.vary(drawing)


def test_what_was_passed_over_in_a_given_picture_is_in_the_result(tiny_model, drawing):
    buffer = io.BytesIO()
    drawing.save(buffer, "PNG", icc_profile=b"no profile")
    with pytest.warns(PictureWarning, match="colour profile that cannot be used"):
        (made,) = tiny_model.vary(buffer.getvalue(), n=1, seed=3)
    (warning,) = made.warnings
    assert "its colours are taken for sRGB" in warning
    assert made.provenance["warnings"] == [warning]
    assert not tiny_model.vary(drawing, n=1, seed=3)[0].warnings
