"""The judge is another network than the one it judges, and the questions fit the data sets that they are asked about."""

import pytest

from unclip import recipes
from unclip.datasets.artwork.plan import SPLITS
from unclip.networks.clip import Clip
from unclip.recipes import judge
from unclip.train.tasks.clip import ClipTraining


def test_judge_differs_from_the_artwork_clip():
    own, other = recipes.get("artwork", "clip"), recipes.get("judge", "clip")
    assert isinstance(own, ClipTraining)
    assert isinstance(other, ClipTraining)
    assert other.seed != own.seed
    assert other.vocabulary != own.vocabulary
    for name in ("patch", "width", "pool"):
        assert getattr(other.model.vision, name) != getattr(own.model.vision, name)
    shapes = {name: weight.shape for name, weight in Clip(own.model).state_dict().items()}
    same = [
        name
        for name, weight in Clip(other.model).state_dict().items()
        if weight.dim() > 1 and shapes.get(name) == weight.shape
    ]
    assert same == []


def test_artwork_asks_about_every_split_but_in_training_only_what_was_seen():
    config = judge.evaluation("artwork")
    assert {group.split for group in config.groups} | set(config.held_out) == set(SPLITS)
    assert all(group.seen == (group.split == config.train) for group in config.groups)
    assert set(config.held_out) == set(SPLITS) - {"train"}


def test_unknown_names_are_refused_with_those_there_are():
    with pytest.raises(ValueError, match="artwork, artwork_gpu, tiny"):
        judge.evaluation("photos")
    with pytest.raises(ValueError, match="'judge' has no stage 'decoder'; choose from clip"):
        recipes.get("judge", "decoder")
