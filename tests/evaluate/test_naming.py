"""Naming by a judge whose embeddings are made by hand, and the groups of a real evaluation."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import normalize, one_hot

from unclip.data.sample import Sample
from unclip.evaluate.evaluation import Evaluation
from unclip.evaluate.naming import KIN, Question, Things, named, named_by_group, named_first

NOUNS = ["apple", "boat", "cat", "dog", "egg", "fox", "gem", "red hat"]


class ByHand:
    """Embeds captions in a direction for each thing; a colour and a style do not change it."""

    def __init__(self):
        self.asked: list[str] = []

    def __call__(self, texts):
        self.asked += texts
        rows = [next(i for i, noun in enumerate(NOUNS) if noun.split()[-1] in text) for text in texts]
        return one_hot(torch.tensor(rows), len(NOUNS)).float()


def sample(noun, **meta):
    given = {"noun": noun, "kind": "plain", "style": "3d", "colour": None, "recoloured": False}
    return Sample(key=f"{noun}/{meta}", captions=(f"a {noun}, 3d style",), weight=1.0, meta={**given, **meta})


@pytest.fixture
def by_hand():
    """The judge's captions, made by hand."""
    return ByHand()


@pytest.fixture
def things(by_hand):
    """Eight things, of which apple, boat and cat look alike."""
    features = torch.eye(len(NOUNS))
    features[0, 1] = features[1, 2] = 0.5
    return Things(by_hand, [sample(noun) for noun in NOUNS], normalize(features, dim=1))


def test_kin_are_the_things_that_look_alike(things):
    kin = things.kin()
    assert kin.shape == (len(NOUNS), KIN)
    assert kin[0, 0] == 1
    assert set(kin[1, :2].tolist()) == {0, 2}
    assert all(place not in row for place, row in enumerate(kin.tolist()))


def test_captions_name_all_things_in_the_form_of_the_question(things, by_hand):
    things.captions((None, ", 3d style"))
    things.captions(("blue", ", flat style"))
    asked = by_hand.asked
    assert asked[: len(NOUNS)][0] == "an apple, 3d style"
    assert asked[len(NOUNS) - 1] == "a red hat, 3d style"
    assert asked[-1] == "a blue hat, flat style"
    things.captions(("blue", ", flat style"))
    assert len(asked) == 2 * len(NOUNS)


def test_questions_are_asked_of_single_things_in_a_known_style(things):
    assert things.question(sample("cat")) == Question(2, (None, ", 3d style"))
    asked = things.question(sample("cat", kind="recolour", recoloured=True, colour="blue"))
    assert asked == Question(2, ("blue", ", 3d style"))
    assert things.question(sample("cat", kind="pair")) is None
    assert things.question(sample("unicorn")) is None
    assert things.question(sample("cat", style="oil")) is None


def test_the_right_thing_must_be_the_nearest_of_all(things):
    questions = [Question(place, (None, ", 3d style")) for place in (0, 0, 0, 3)]
    # Right; nearer to a kin; nearer to a thing that is no kin; as near to another thing.
    pictures = torch.zeros(4, len(NOUNS))
    far = next(place for place in range(1, len(NOUNS)) if place not in things.kin()[0].tolist())
    pictures[0, 0] = 1
    pictures[1, [0, 1]] = torch.tensor([0.5, 1])
    pictures[2, [0, far]] = torch.tensor([0.5, 1])
    pictures[3, [3, 4]] = 1
    first, first_kin = named_first(things, things.kin(), questions, pictures)
    assert first.tolist() == [True, False, False, False]
    assert first_kin[:3].tolist() == [True, False, True]
    found = named(things, things.kin(), questions, pictures, pictures[[0, 0, 0, 0]])
    assert (found.count, found.things, found.share) == (4, len(NOUNS), 0.25)
    assert found.real_share == 0.75
    assert found.of_real == pytest.approx(1 / 3)


def test_nouns_that_read_the_same_do_not_compete():
    nouns = ["green apple", "red apple", "boat"]
    samples = [sample(noun) for noun in nouns]

    def embed(texts):
        return torch.stack(
            [torch.tensor([1.0, 0.0, 0.0] if "apple" in text else [0.0, 1.0, 0.0]) for text in texts]
        )

    things = Things(embed, samples, torch.eye(3))
    place = things.place["red apple"]
    first, _ = named_first(
        things, things.kin(), [Question(place, ("blue", ""))], torch.tensor([[1.0, 0.0, 0.0]])
    )
    assert first.tolist() == [True]


def test_groups_of_an_evaluation(model, judge, config, cache):
    evaluation = Evaluation(model, config(), judge=judge, cache=cache)
    drawn = evaluation.draw()
    # The shapes have no nouns.
    assert named_by_group(evaluation, drawn) == {}
    train = evaluation.splits["train"]
    noun = {key.captions[0]: NOUNS[number % len(NOUNS)] for number, key in enumerate(train.samples)}

    def labelled(one):
        name = noun.get(one.captions[0], "cat")
        return replace(one, meta={**sample(name).meta, "label": "cat" if name < "e" else "sextant"})

    train.samples[:] = [labelled(one) for one in train.samples]
    for asked in evaluation.asked:
        asked.questions.asked[:] = [
            one._replace(sample=labelled(one.sample)) for one in asked.questions.asked
        ]
    found = named_by_group(evaluation, drawn)
    counts = {name: one.count for name, one in found.items()}
    assert sum(counts.values()) == 16
    assert all(name.split(": ")[1] in ("everyday things", "other things") for name in counts)
    assert all(0 <= one.share <= one.kin_share <= 1 for one in found.values())
