"""All verbs on GLIDE, from the command line."""

import pytest
import torch

from tests.parity.verbs import EMBEDDING, TEXT, check_verbs
from unclip.formats import glide
from unclip.formats.convert import convert
from unclip.tokenizers.glide import GlideTokenizer


@pytest.mark.slow
@pytest.mark.parametrize("names", [("base", "upsample"), ("base_inpaint", "upsample_inpaint")])
def test_every_verb(tmp_path, monkeypatch, nets, sizes, words, names):
    monkeypatch.setattr(glide, "GLIDE", sizes)
    monkeypatch.setattr(glide, "tokenizer_at", lambda path: GlideTokenizer(*words, context=12))
    (source := tmp_path / "glide").mkdir()
    for name in names:
        torch.save(nets[name].state_dict(), source / f"{name}.pt")
    folder = convert(source, tmp_path / "out", tokenizer=source)
    expected = dict.fromkeys(("vary", "eta", "interpolate", "line", "more", "components"), EMBEDDING)
    quick = ["--steps", 2, "--upsampler-steps", 2]
    check_verbs(
        ["--model", folder], expected | {"text diff": TEXT}, tmp_path, side=128, shape=None, quick=quick
    )
