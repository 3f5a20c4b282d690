"""Pictures that start from a picture: how much of it stays is what strength says."""

import numpy as np
import pytest

from unclip.errors import RequestError
from unclip.images import PictureError

PROMPT = "a red apple"


def test_strength_says_how_much_stays(gaussian_model, drawing):
    original = np.asarray(drawing.resize((16, 16)), float)
    away = [
        np.mean(
            [
                np.abs(np.asarray(one.image, float) - original).mean()
                for one in gaussian_model.redraw(
                    drawing, PROMPT, strength=strength, n=4, seed=3, size=16, steps=20, guidance=1.0
                )
            ]
        )
        for strength in (0.05, 0.4, 1.0)
    ]
    assert away[0] < 12
    assert away[0] < away[1] < away[2]


def test_only_the_steps_that_are_left_are_made(tiny_model, drawing):
    seen = []
    tiny_model.redraw(drawing, PROMPT, strength=0.5, n=2, seed=3, steps=8, size=16, on_progress=seen.append)
    assert [event.stage for event in seen].count("decoder") == 8
    assert seen[-1].fraction == 1.0


def test_provenance_makes_it_again(tiny_model, drawing):
    options = {"strength": 0.6, "n": 2, "seed": 3, "negative": "a blue cat", "prior_guidance": 2.0}
    made = tiny_model.redraw(drawing, PROMPT, **options)[1]
    again = tiny_model.redo(made.provenance, drawing)
    assert again.image.tobytes() == made.image.tobytes()
    assert again.provenance == made.provenance


def test_bad_values_are_refused(tiny_model, drawing):
    for strength, value in ((0, "0.0"), (1.2, "1.2")):
        with pytest.raises(RequestError, match=f"strength is {value}: give more than 0 and at most 1"):
            tiny_model.redraw(drawing, PROMPT, strength=strength)
    with pytest.raises(RequestError, match="prompt is empty"):
        tiny_model.redraw(drawing, "")
    with pytest.raises(PictureError, match="not a PNG"):
        tiny_model.redraw(b"", PROMPT)
