"""The procedural set: pictures show what their captions say, and depend on seed and index alone."""

import numpy as np
import pytest

from unclip.data.dataset import open_dataset
from unclip.data.sample import Dataset
from unclip.data.shapes import COLOURS, Shapes


def test_interface():
    data = open_dataset("shapes")
    assert isinstance(data, Dataset)
    assert data.picture(3, 32).shape == (3, 32, 32)
    assert len(set(data.keys())) == len(data)
    assert data.fingerprint != Shapes(seed=1).fingerprint


def test_captions_name_the_colour_on_the_picture():
    data = Shapes(count=48)
    for index in range(48):
        colour = data.info(index).meta["colour"]
        assert colour in data.info(index).captions[0]
        pixels = data.picture(index, None).reshape(3, -1).T
        drawn = pixels[(pixels != 255).any(axis=1)]
        np.testing.assert_array_equal(np.median(drawn, axis=0), COLOURS[colour])
    assert len({data.info(i).captions[0] for i in range(48)}) == 48


def test_big_is_bigger_than_small():
    data = Shapes(count=48)
    area = {"small": [], "big": []}
    for index in range(48):
        area[data.info(index).meta["size"]].append((data.picture(index, 32) < 255).any(axis=0).mean())
    assert min(area["big"]) > 0
    assert np.mean(area["big"]) > 2 * np.mean(area["small"])


def test_seed_moves_things():
    assert (Shapes(seed=0).picture(0, 32) != Shapes(seed=1).picture(0, 32)).any()
    np.testing.assert_array_equal(Shapes(seed=0).picture(0, 32), Shapes(count=5, seed=0).picture(0, 32))


def test_bounds():
    with pytest.raises(IndexError):
        Shapes(count=2).info(2)
    with pytest.raises(ValueError, match="at least 1"):
        Shapes(count=0)
