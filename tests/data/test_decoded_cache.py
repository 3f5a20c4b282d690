"""The decoded cache: right pixels, found again, complete or absent, bad samples left out."""

import json
import logging

import numpy as np
import pytest
import torch
from PIL import Image

from unclip.data.dataset import open_dataset
from unclip.data.decoded_cache import DecodedCache
from unclip.data.sample import BadSamples, TooManyBadSamples
from unclip.data.shapes import Shapes


@pytest.fixture
def folder(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for number in range(6):
        Image.fromarray(np.full((16, 16, 3), number * 20, dtype=np.uint8)).save(source / f"{number}.png")
        (source / f"{number}.json").write_text(json.dumps({"captions": [f"grey {number}"], "weight": 0.5}))
    return source


def test_pictures_and_texts(folder, tmp_path):
    decoded = DecodedCache.load(open_dataset(folder), 8, tmp_path / "cache")
    assert (len(decoded), decoded.size) == (6, 8)
    pictures = decoded.pictures([5, 0, 5])
    assert pictures.dtype == torch.uint8
    assert pictures.shape == (3, 3, 8, 8)
    assert pictures[:, 0, 0, 0].tolist() == [100, 0, 100]
    assert decoded.captions(2) == ("grey 2",)
    assert decoded.weights.tolist() == [0.5] * 6


def test_second_load_decodes_nothing(folder, tmp_path, caplog):
    caplog.set_level(logging.INFO, "unclip")
    DecodedCache.load(open_dataset(folder), 8, tmp_path / "cache")
    assert len(caplog.records) == 1
    again = DecodedCache.load(open_dataset(folder), 8, tmp_path / "cache")
    assert len(caplog.records) == 1
    assert again.pictures([3])[0, 0, 0, 0] == 60
    DecodedCache.load(open_dataset(folder), 4, tmp_path / "cache")
    assert len(caplog.records) == 2


def test_half_written_cache_is_not_believed(folder, tmp_path):
    cache = tmp_path / "cache"
    DecodedCache.load(open_dataset(folder), 8, cache)
    array, record = next(cache.glob("*.npy")), next(cache.glob("*.json"))
    array.write_bytes(array.read_bytes()[:200])
    assert DecodedCache.load(open_dataset(folder), 8, cache).pictures([1])[0, 0, 0, 0] == 20
    record.unlink()
    assert DecodedCache.load(open_dataset(folder), 8, cache).pictures([2])[0, 0, 0, 0] == 40
    assert not list(cache.glob(".*partial"))


def test_bad_samples_are_left_out(folder, tmp_path):
    (folder / "2.png").write_bytes(b"broken")
    with pytest.raises(TooManyBadSamples, match=r"2\.png"):
        DecodedCache.load(open_dataset(folder), 8, tmp_path / "cache", bad=BadSamples(limit=0.0))
    bad = BadSamples(limit=0.5)
    decoded = DecodedCache.load(open_dataset(folder), 8, tmp_path / "cache", bad=bad)
    assert list(bad.reasons) == ["2.png"]
    assert [decoded.info(i).key for i in range(5)] == ["0.png", "1.png", "3.png", "4.png", "5.png"]
    assert decoded.pictures([2])[0, 0, 0, 0] == 60


def test_processes_agree_with_one(tmp_path):
    data = Shapes(count=300)
    one = DecodedCache.load(data, 8, tmp_path / "one", workers=1)
    two = DecodedCache.load(data, 8, tmp_path / "two", workers=2)
    np.testing.assert_array_equal(one.data, two.data)
    np.testing.assert_array_equal(one.data[7], data.picture(7, 8))


def test_empty(tmp_path):
    with pytest.raises(ValueError, match="empty"):
        DecodedCache.load(open_dataset(tmp_path), 8, tmp_path)
