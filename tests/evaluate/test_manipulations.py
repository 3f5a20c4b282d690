"""Metrics of manipulations on a random model, and of paths between known embeddings."""

import pytest
import torch

from unclip.evaluate.evaluation import Evaluation
from unclip.evaluate.manipulations import diffs, edits, moved, reconstructions
from unclip.evaluate.report import evaluate, table
from unclip.generate.model import Model
from unclip.stages.sampling import sampling


@pytest.fixture(scope="module")
def evaluation(model, networks, judge, config, cache) -> Evaluation:
    quick = sampling(steps=2).over(model.defaults)
    small = Model.of(networks, model.parts.tokenizer, defaults=quick)
    return Evaluation(small, config(manipulated=3, count=6), judge=judge, cache=cache)


def test_reconstructions_and_what_must_equal_them(evaluation):
    found = reconstructions(evaluation)
    assert [row["steps"] for row in found["by_steps"]] == [10, 25, 50]
    assert all(row["count"] == 3 and row["least"] <= row["psnr"] for row in found["by_steps"])
    assert found["equal"] == {"interpolation ends": True, "theta 0": True, "eta 0": True}


def test_diffs_lead_the_embedding_from_one_caption_to_the_other(evaluation):
    found = diffs(evaluation)
    assert set(found) == {"embedding", "picture"}
    for row in found.values():
        assert row["count"] == 3
        assert row["moved"] <= min(row["started"], row["arrived"])
        assert row["moved_of_two"] >= row["moved"]


def test_edits_keep_what_is_outside(evaluation):
    found = edits(evaluation)
    assert found["count"] == 3
    assert found["kept"] == 1.0
    assert found["followed"] <= found["preferred"]


def test_a_path_between_two_captions_has_moved(judge):
    captions = ["a red circle", "a blue square", "a big ring"]
    red, blue, ring = judge.captions(captions)
    choices = [captions] * 4
    paths = [torch.stack(path) for path in ((red, blue), (red, red), (blue, blue), (red, ring))]
    found = moved(judge, paths, choices)
    assert (found.count, found.started, found.arrived, found.moved) == (4, 0.75, 0.5, 0.25)
    assert found.moved_of_two >= 0.25


def test_the_report_contains_them(evaluation):
    report = evaluate(evaluation, manipulations=["reconstructions", "diffs", "edits"])
    text = table(report)
    for title in ("reconstructions", "text diffs: nearest caption", "edited regions", "theta 0"):
        assert title in text
