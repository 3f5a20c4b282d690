"""All verbs on Stable Diffusion and Stable unCLIP, from the command line."""

import pytest

from tests.parity.verbs import EMBEDDING, IMAGE, TEXT, UPSAMPLER, check_verbs

NO_EMBEDDING = dict.fromkeys(("vary", "eta", "interpolate", "line", "more", "components"), EMBEDDING)
NO_EMBEDDING |= {"text diff": TEXT, "upscale": UPSAMPLER}
EXPECTED = {
    "sd1": NO_EMBEDDING,
    "inpaint": NO_EMBEDDING,
    "sd2": NO_EMBEDDING,
    "unclip h": {"text diff": TEXT, "upscale": UPSAMPLER},
    "unclip l": dict.fromkeys(
        ("vary", "eta", "interpolate", "line", "text diff", "reconstruct", "more", "components"), IMAGE
    )
    | {"upscale": UPSAMPLER},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPECTED)
def test_every_verb(saved, tmp_path, name):
    check_verbs(
        ["--model", saved(name)[1]], EXPECTED[name], tmp_path, side=64, shape=(72, 64), quick=["--steps", 2]
    )
