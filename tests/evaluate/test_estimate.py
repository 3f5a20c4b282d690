"""Cost of an evaluation: counts of pictures and calls, and durations as text."""

import pytest

from unclip.evaluate.ablations import ABLATIONS, changed_sampling
from unclip.evaluate.estimate import calls, cost, estimate
from unclip.evaluate.evaluation import Evaluation
from unclip.evaluate.pictures import TimeLeft, duration
from unclip.stages.sampling import sampling


def test_calls_of_the_decoder():
    assert calls(sampling(steps=10, sampler="ddim", guidance=1.0)) == 10
    assert calls(sampling(steps=10, sampler="ddim", guidance=3.0)) == 20
    assert calls(sampling(steps=10, sampler="heun", guidance=3.0)) == 40


def test_cost_is_of_the_default_size_unless_given(model):
    found = cost(model, ["a red circle", "a blue ring"])
    assert found.size == model.sizes[-1]
    assert found.seconds > 0
    assert found.process_seconds > 0


def test_pictures_are_counted(model, judge, config, cache):
    evaluation = Evaluation(model, config(ablation_count=4, manipulated=2), judge=judge, cache=cache)
    assert estimate(evaluation).pictures == 2 * 8
    # The pictures of the default setting are drawn already.
    changed = [changed_sampling(model, one) for one in ABLATIONS["candidates"](model)]
    assert model.defaults in changed
    assert estimate(evaluation, ["candidates"]).pictures == 2 * 8 + 2 * 4 * (len(changed) - 1)
    assert estimate(evaluation, manipulations=["diffs", "edits"]).pictures == 2 * 8 + 2 * 2 + 2


def test_a_smaller_evaluation_asks_the_first_questions(model, judge, config, cache):
    evaluation = Evaluation(model, config(), judge=judge, cache=cache)
    few, again = evaluation.smaller(6), Evaluation(model, config(count=6), judge=judge, cache=cache)
    for one, other in zip(few.asked, again.asked):
        assert one.questions.asked == other.questions.asked
        assert one.questions.reference.tolist() == other.questions.reference.tolist()
        assert one.real.equal(other.real)
    assert few.reference.equal(again.reference)
    assert len(evaluation.real[0]) == 8
    assert len(few.real[0]) == 6


@pytest.mark.parametrize(("seconds", "text"), [(4, "4 s"), (600, "10 min"), (9000, "2.5 h")])
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_time_left_is_empty_until_the_speed_is_known():
    left = TimeLeft()
    assert left(3, 10) == ""
    assert left(4, 10) == ", 0 s left"
    assert left(10, 10) == ""
