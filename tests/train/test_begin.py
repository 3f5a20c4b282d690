"""Runs that begin with the weights of a finished one."""

from types import SimpleNamespace

import pytest
import torch

from unclip.checkpoints.io import load_model
from unclip.formats.opened import open_model
from unclip.tokenizers.multilingual import MultilingualTokenizer
from unclip.train.loop import train


def plain(weights):
    """Weights by the names of the network alone."""
    return {name.removeprefix("network."): weight for name, weight in weights.items()}


def test_a_run_begins_with_another_runs_weights_and_average(small, begin, tmp_path):
    first = train(small("upsampler"), device="cpu")
    expected = load_model(first)["upsampler"].state_dict()
    run = begin(small("upsampler", f"init={first}", f"out={tmp_path}/second"))
    for state in (run.task.network.state_dict(), plain(run.state.ema.state_dict())):
        torch.testing.assert_close(dict(state), dict(expected), rtol=0, atol=0)
    run.step()
    learned = run.task.network.state_dict()
    assert any(not torch.equal(learned[name], expected[name]) for name in expected)


def test_an_interrupted_run_goes_on_from_its_checkpoint_not_from_where_it_began(small, begin, tmp_path):
    first = train(small("upsampler"), device="cpu")
    config = small("upsampler", f"init={first}", f"out={tmp_path}/second")
    run = begin(config)
    run.step()
    run.state.save(run.folder.checkpoints, keep=2)
    again = begin(config)
    assert again.state.samples == 8
    torch.testing.assert_close(again.state.model.state_dict(), run.state.model.state_dict(), rtol=0, atol=0)


def test_clip_keeps_the_tokenizer_that_its_weights_were_trained_with(small, begin, clip_run):
    # Learned from the captions anew, it would have another size.
    run = begin(small("clip", f"init={clip_run / 'model'}", "vocabulary=530"))
    assert run.batches.tokenizer_json == (clip_run / "model" / "tokenizer.json").read_text(encoding="utf-8")


def test_weights_of_another_size_or_stage_are_told(small, begin, tmp_path):
    first = train(small("upsampler"), device="cpu")
    with pytest.raises(
        ValueError, match=r"the upsampler in .* is of another size: net\..* has \(.*\), this run's"
    ):
        begin(small("upsampler", f"init={first}", "model.net.channels=16", f"out={tmp_path}/wider"))
    with pytest.raises(ValueError, match="holds upsampler but no decoder"):
        begin(small("decoder", f"init={first}"))
    with pytest.raises(FileNotFoundError, match=r"there is no model .*nothing"):
        begin(small("upsampler", f"init={tmp_path / 'nothing'}", f"out={tmp_path}/other"))


def test_a_clip_takes_over_the_tokenizer_of_any_model(small, begin, clip_run, tmp_path, monkeypatch):
    """Of a finished run, a bundled model by its name, a folder of transformers: not of model folders alone."""
    from unclip.train import begin as begin_module

    for given in (clip_run, clip_run / "model"):
        assert begin_module.tokenizer_of(str(given)) == (clip_run / "model" / "tokenizer.json").read_text()
    run = begin(small("clip", f"init={clip_run}"))
    assert run.batches.tokenizer_json == (clip_run / "model" / "tokenizer.json").read_text()
    assert begin_module.tokenizer_of("artwork") == open_model("artwork").tokenizer().to_json()
    with pytest.raises(FileNotFoundError, match="nothing"):
        begin_module.tokenizer_of(str(tmp_path / "nothing"))
    other = MultilingualTokenizer.__new__(MultilingualTokenizer)
    opened = SimpleNamespace(tokenizer=lambda: other)
    monkeypatch.setattr(begin_module, "_opened", lambda folder: opened)
    with pytest.raises(ValueError, match="another tokenizer than CLIP's"):
        begin_module.tokenizer_of("x")
