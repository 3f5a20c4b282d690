"""A judge whose numbers are not finite judges nothing: by them, every caption would be followed."""

import copy
import logging
import math
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from unclip.batch.filter import Limits
from unclip.errors import NonFinite
from unclip.evaluate.captions_followed import captions_followed
from unclip.evaluate.features import Encoder

PIXELS = torch.randint(0, 255, (4, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def damaged(judge):
    """`damaged(tower, value)`: the judge with one tower that gives no numbers."""

    @torch.no_grad()
    def make(tower: str, value: float) -> Encoder:
        clip = copy.deepcopy(judge.clip)
        getattr(clip, tower).project.weight.fill_(value)
        return Encoder(clip, judge.tokenizer, name="judge")

    return make


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_embeddings_that_are_not_finite_are_refused(damaged, judge, value):
    options = [["a red circle", "a blue square"]]
    good, bad = judge.pictures(PIXELS[:1]), torch.full((1, judge.clip.config.embedding), math.nan)
    # What an evaluation by them would say.
    assert captions_followed(judge, bad, good, options).share == 1.0
    with pytest.raises(NonFinite, match=r"'judge' embeds pictures as numbers that are not finite.*--judge"):
        damaged("vision", value).pictures(PIXELS)
    with pytest.raises(NonFinite, match="embeds captions"):
        damaged("text", value).captions(["a red circle"])


def test_kept_embeddings_are_looked_at_as_well(judge, tmp_path):
    data = SimpleNamespace(size=8, pictures=lambda chunk: PIXELS[torch.from_numpy(chunk)])
    kept = type("Data", (SimpleNamespace,), {"__len__": lambda self: 4})(**vars(data))
    embed = Encoder.training_set.__wrapped__ if hasattr(Encoder.training_set, "__wrapped__") else None
    found = (embed or Encoder.training_set)(judge, kept, "f" * 30, tmp_path)
    (file,) = tmp_path.iterdir()
    assert torch.equal(load_file(file)["image_embedding"], found)
    save_file({"image_embedding": found * math.nan}, file)
    with pytest.raises(NonFinite, match="pictures"):
        (embed or Encoder.training_set)(judge, kept, "f" * 30, tmp_path)


def test_captions_that_are_cut_are_noted_once(judge, caplog):
    long = "a red circle " * 20
    encoder = Encoder(judge.clip, judge.tokenizer, name="judge")
    with caplog.at_level(logging.WARNING):
        encoder.captions(["a red circle"])
        assert not caplog.records
        encoder.captions(["a red circle", long])
        encoder.captions([long])
    (record,) = caplog.records
    assert "1 of 2 captions are longer than the context of 12 tokens of 'judge'" in record.getMessage()


@pytest.mark.parametrize("limits", [{"at_least": math.nan}, {"at_most": math.nan}])
def test_limits_of_scores_are_numbers(limits):
    """No score is at least NaN: nothing would be kept."""
    with pytest.raises(ValueError, match="which is no number"):
        Limits(**limits)
    assert Limits(at_least=-math.inf).given
