"""Questions: sampled by weight, without repetition, the same for all models, and distributed as the reference."""

from collections import Counter

import pytest

from unclip.data.sample import Sample
from unclip.evaluate.questions import Group, ask, weighted_order

GROUP = Group(name="all", split="train")


def samples(count: int, *, light: int = 0) -> list[Sample]:
    return [
        Sample(
            f"k{i}",
            (f"thing {i}", f"Object {i}"),
            0.1 if i < light else 1.0,
            {"kind": "pair" if i % 2 else "plain"},
        )
        for i in range(count)
    ]


def test_asked_and_reference_are_different_drawings():
    found = ask(GROUP, samples(50), count=20, choices=10, seed=0)
    asked = {question.row for question in found.asked}
    assert len(asked) == len(found.reference) == 20
    assert not asked & set(found.reference.tolist())


def test_a_small_group_asks_what_it_can():
    found = ask(GROUP, samples(9), count=20, choices=10, seed=0)
    assert (len(found.asked), len(found.reference)) == (9, 4)
    rows = [question.row for question in found.asked]
    assert rows[4:8] == found.reference.tolist()
    assert len(set(rows)) == 9
    few = ask(GROUP, samples(9), count=6, choices=10, seed=0)
    assert ([question.row for question in few.asked], len(few.reference)) == (rows[:6], 4)
    assert all(len(question.distractors) == 8 for question in found.asked)


def test_distractors_are_different_captions_of_others():
    everything = [*samples(30), Sample("twin", ("object 3",), 1.0, {"kind": "pair"})]
    for question in ask(GROUP, everything, count=10, choices=12, seed=1).asked:
        assert len(set(question.distractors)) == 11
        own = {caption.lower() for caption in question.sample.captions}
        assert not own & {text.lower() for text in question.distractors}


def test_a_caption_is_asked_once():
    doubled = [Sample(f"k{i}", (f"thing {i % 4}",)) for i in range(40)]
    found = ask(GROUP, doubled, count=10, choices=3, seed=0)
    assert len({question.caption for question in found.asked}) == len(found.asked) == 4


def test_too_few_drawings_are_asked_a_second_time_by_a_caption_that_names_their_style():
    few = [
        Sample(
            f"k{i}",
            (f"a {name}, 3d style", f"a {name}", f"{name}, fluent 3d style", f"the {name}, 3d style", f"{name}, 3d style"),
            1.0,
            {"style": "3d"},
        )
        for i, name in enumerate(("cat", "dog", "owl", "bee"))
    ]  # fmt: skip
    plain = ask(GROUP, few, count=4, choices=2, seed=0).asked
    found = ask(GROUP, few, count=7, choices=2, seed=0).asked
    assert found[:4] == plain
    assert [one.caption for one in found[4:]] == [one.caption.replace("a ", "the ") for one in plain[:3]]
    assert [one.row for one in found[4:]] == [one.row for one in plain[:3]]
    assert len({one.seed for one in found}) == 7
    assert len(ask(GROUP, few, count=50, choices=2, seed=0).asked) == 8


def test_kinds_are_kept_apart():
    found = ask(Group(name="pairs", split="train", kinds=("pair",)), samples(40), count=10, choices=5, seed=0)
    assert all(question.sample.meta["kind"] == "pair" for question in found.asked)
    assert all(int(text.split()[1]) % 2 for question in found.asked for text in question.distractors)


def test_questions_depend_on_keys_and_seed_and_not_on_order():
    listed = samples(40)

    def asked(given: list[Sample], seed: int) -> list[tuple[str, int, tuple[str, ...]]]:
        found = ask(GROUP, given, count=10, choices=40, seed=seed).asked
        return [
            (question.sample.key, question.seed, tuple(sorted(question.distractors))) for question in found
        ]

    assert asked(listed, 0) == asked(listed[::-1], 0)
    assert asked(listed, 0) != asked(listed, 1)


def test_an_empty_group_is_an_error():
    with pytest.raises(ValueError, match="'scenes'"):
        ask(Group(name="scenes", split="val", kinds=("scene",)), samples(5), count=2, choices=2, seed=0)


def test_weights_are_odds():
    # Of one sample of weight 1 and ten of weight 0.1 the heavy one comes first half of the time.
    listed = samples(11, light=10)
    first = Counter(weighted_order(range(11), listed, seed)[0] for seed in range(300))
    assert first[10] / 300 == pytest.approx(0.5, abs=0.1)
    assert sorted(weighted_order(range(11), listed, 0)) == list(range(11))
