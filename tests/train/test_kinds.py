"""How often each kind of picture is seen."""

import numpy as np
import pytest

from unclip.data.resident import Resident
from unclip.data.sample import BadSamples, Sample
from unclip.train.source import weights_of

KINDS = ("plain", "pair", "plain", "recolour")


@pytest.fixture
def resident() -> Resident:
    samples = [
        Sample(key=str(index), captions=("a",), weight=0.5, meta={"kind": kind})
        for index, kind in enumerate(KINDS)
    ]
    pixels = np.zeros((len(KINDS), 3, 4, 4), dtype=np.uint8)
    return Resident(data=pixels, rows=np.arange(len(KINDS)), samples=samples, bad=BadSamples())


def test_factors_multiply_the_weights_of_their_kind(resident: Resident) -> None:
    assert weights_of(resident, {"pair": 0.4, "recolour": 1.0}).tolist() == [0.5, 0.2, 0.5, 0.5]
    assert weights_of(resident, {}).tolist() == [0.5] * 4


@pytest.mark.parametrize("factor", [0.0, -1.0, 1.5])
def test_a_factor_that_is_no_share_is_named(resident: Resident, factor: float) -> None:
    with pytest.raises(ValueError, match=r"data\.kinds\.pair"):
        weights_of(resident, {"pair": factor})
