"""All verbs on Kandinsky, from the command line: decoder and prior together, the decoder alone, and what does not fit."""

import pytest

from tests.parity.verbs import UPSAMPLER, check_verbs, command


@pytest.mark.slow
@pytest.mark.parametrize("name", ["decoder", "inpaint"])
@pytest.mark.parametrize("version", ["2.1", "2.2"])
def test_every_verb(folders, tmp_path, version, name):
    model = ["--model", folders[version, name], "--part", f"prior={folders[version, 'prior']}"]
    check_verbs(model, {"upscale": UPSAMPLER}, tmp_path, side=64, shape=(128, 64), quick=["--steps", 2])


def test_a_decoder_alone_and_parts_of_another_version(folders, tmp_path):
    made = ["-o", tmp_path / "made.png"]
    code, _, err = command("generate", "a cat", "--model", folders["2.2", "decoder"], *made)
    assert code == 1
    assert "load the prior of its family with it (--part prior=FOLDER)" in err
    mixed = ["--model", folders["2.2", "decoder"], "--part", f"prior={folders['2.1', 'prior']}"]
    code, _, err = command("generate", "a cat", *mixed, *made)
    assert code == 1
    assert "reads embeddings of width" in err
