"""How often each kind of picture is seen, and those of everyday things."""

import numpy as np
import pytest

from unclip.data.decoded_cache import DecodedCache
from unclip.data.sample import BadSamples, Sample
from unclip.train.config import DataConfig
from unclip.train.source import weights_of

KINDS = ("plain", "pair", "plain", "recolour")
LABELS = ("cat", "cat + dog", "abacus", "cat + abacus")


@pytest.fixture
def decoded() -> DecodedCache:
    samples = [
        Sample(key=str(index), captions=("a",), weight=0.5, meta={"kind": kind, "label": label})
        for index, (kind, label) in enumerate(zip(KINDS, LABELS))
    ]
    pixels = np.zeros((len(KINDS), 3, 4, 4), dtype=np.uint8)
    digests = [""] * len(KINDS)
    return DecodedCache(
        data=pixels, rows=np.arange(len(KINDS)), samples=samples, digests=digests, bad=BadSamples()
    )


def test_factors_multiply_the_weights_of_their_kind(decoded: DecodedCache) -> None:
    assert weights_of(decoded, DataConfig(factors={"kind": {"pair": 0.4, "recolour": 1.0}})).tolist() == [
        0.5,
        0.2,
        0.5,
        0.5,
    ]
    assert weights_of(decoded, DataConfig()).tolist() == [0.5] * 4


@pytest.mark.parametrize("factor", [0.0, -1.0, 1.5])
def test_a_factor_that_is_no_share_is_named(factor: float) -> None:
    with pytest.raises(ValueError, match=r"data\.factors\.kind\.pair is"):
        DataConfig(factors={"kind": {"pair": factor}})


def test_factors_of_one_say_nothing() -> None:
    assert DataConfig(factors={"kind": {"pair": 1.0}, "style": {}}) == DataConfig()


def test_what_is_not_everyday_is_seen_less(decoded: DecodedCache) -> None:
    factors = {"kind": {"pair": 0.4}, "everyday": {"false": 0.1}}
    found = weights_of(decoded, DataConfig(factors=factors))
    assert found.tolist() == pytest.approx([0.5, 0.2, 0.05, 0.05])


def test_a_stored_field_comes_before_a_computed_one(decoded: DecodedCache) -> None:
    decoded.samples[0].meta["everyday"] = False
    decoded.samples[2].meta["everyday"] = True
    found = weights_of(decoded, DataConfig(factors={"everyday": {"false": 0.1}}))
    assert found.tolist() == pytest.approx([0.05, 0.5, 0.5, 0.05])
