"""What an evaluation costs: counts of pictures and calls, and times that are told as people tell them."""

import pytest

from unclip.evaluate.ablations import ABLATIONS
from unclip.evaluate.estimate import calls, cost, estimate
from unclip.evaluate.evaluation import Evaluation
from unclip.evaluate.pictures import TimeLeft, duration
from unclip.generate.settings import Settings


def test_calls_of_the_decoder():
    plain = Settings(steps=10, sampler="euler", guidance=1.0)
    assert calls(plain) == 10
    assert calls(plain.with_given(guidance=3.0)) == 20
    assert calls(plain.with_given(guidance=3.0, sampler="heun")) == 40


def test_cost_is_of_the_largest_picture_unless_told(system):
    found = cost(system, ["a red circle", "a blue ring"])
    assert found.size == system.sizes[-1]
    assert found.seconds > 0
    assert found.process_seconds > 0


def test_pictures_are_counted(system, judge, config, cache):
    evaluation = Evaluation(system, config(ablation_count=4, manipulated=2), judge=judge, cache=cache)
    assert estimate(evaluation).pictures == 2 * 8
    # The setting that is the model's own is drawn already.
    changed = [system.defaults.with_given(**one) for one in ABLATIONS["candidates"](system)]
    assert system.defaults in changed
    assert estimate(evaluation, ["candidates"]).pictures == 2 * 8 + 2 * 4 * (len(changed) - 1)
    assert estimate(evaluation, manipulations=["diffs", "edits"]).pictures == 2 * 8 + 2 * 2 + 2


def test_a_smaller_evaluation_asks_the_first_questions(system, judge, config, cache):
    evaluation = Evaluation(system, config(), judge=judge, cache=cache)
    few, again = evaluation.smaller(6), Evaluation(system, config(count=6), judge=judge, cache=cache)
    for one, other in zip(few.asked, again.asked):
        assert one.questions.asked == other.questions.asked
        assert one.questions.reference.tolist() == other.questions.reference.tolist()
        assert one.real.equal(other.real)
    assert few.reference.equal(again.reference)
    assert len(evaluation.real[0]) == 8
    assert len(few.real[0]) == 6


@pytest.mark.parametrize(("seconds", "told"), [(4, "4 s"), (600, "10 min"), (9000, "2.5 h")])
def test_durations(seconds, told):
    assert duration(seconds) == told


def test_time_left_waits_until_it_can_be_told():
    left = TimeLeft()
    assert left(3, 10) == ""
    assert left(4, 10) == ", 0 s left"
    assert left(10, 10) == ""
