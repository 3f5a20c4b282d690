"""How often each kind of picture is seen, and those of everyday things."""

import numpy as np
import pytest

from unclip.data.resident import Resident
from unclip.data.sample import BadSamples, Sample
from unclip.train.config import DataConfig
from unclip.train.source import weights_of

KINDS = ("plain", "pair", "plain", "recolour")
LABELS = ("cat", "cat + dog", "abacus", "cat + abacus")


@pytest.fixture
def resident() -> Resident:
    samples = [
        Sample(key=str(index), captions=("a",), weight=0.5, meta={"kind": kind, "label": label})
        for index, (kind, label) in enumerate(zip(KINDS, LABELS))
    ]
    pixels = np.zeros((len(KINDS), 3, 4, 4), dtype=np.uint8)
    return Resident(data=pixels, rows=np.arange(len(KINDS)), samples=samples, bad=BadSamples())


def test_factors_multiply_the_weights_of_their_kind(resident: Resident) -> None:
    assert weights_of(resident, DataConfig(kinds={"pair": 0.4, "recolour": 1.0})).tolist() == [
        0.5,
        0.2,
        0.5,
        0.5,
    ]
    assert weights_of(resident, DataConfig()).tolist() == [0.5] * 4


@pytest.mark.parametrize("factor", [0.0, -1.0, 1.5])
def test_a_factor_that_is_no_share_is_named(resident: Resident, factor: float) -> None:
    with pytest.raises(ValueError, match=r"data\.kinds\.pair"):
        weights_of(resident, DataConfig(kinds={"pair": factor}))


def test_what_is_not_everyday_is_seen_less(resident: Resident) -> None:
    found = weights_of(resident, DataConfig(kinds={"pair": 0.4}, uncommon=0.1))
    assert found.tolist() == pytest.approx([0.5, 0.2, 0.05, 0.05])
    with pytest.raises(ValueError, match=r"data\.uncommon is 0"):
        weights_of(resident, DataConfig(uncommon=0.0))
