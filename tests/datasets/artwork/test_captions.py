"""The caption grammar: articles, natural names, colours, tones, relations."""

import pytest

from unclip.datasets.artwork import captions
from unclip.datasets.artwork.drawings import Concept

APPLE = Concept(id="1F34E", label="red apple", keywords=("apple", "food", "fruit", "red"), names=("apple",),
                group="food-drink", subgroup="food-fruit")  # fmt: skip
CAT = Concept(id="1F431", label="cat face", keywords=("pet",), names=("cat",), group="animals-nature")
CAR = Concept(
    id="1F697", label="automobile", keywords=("car",), names=("car", "red car"), group="travel-places"
)
PIZZA = Concept(id="1F355", label="pizza", keywords=("cheese",), names=("pizza",), group="food-drink")


@pytest.mark.parametrize(
    ("name", "expected"),
    [("red apple", "a red apple"), ("apple", "an apple"), ("umbrella", "an umbrella"), ("unicorn", "a unicorn"),
     ("SUV", "an SUV"), ("hourglass", "an hourglass"), ("glasses", "glasses"), ("grapes", "grapes"), ("bus", "a bus"),
     ("dress", "a dress"), ("men wrestling", "men wrestling"), ("flag of France", "the flag of France"),
     ("slice of pizza", "a slice of pizza"), ("cloud with rain", "a cloud with rain"), ("bread", "bread"),
     ("loaf of bread", "a loaf of bread"), ("people holding hands", "people holding hands")],
)  # fmt: skip
def test_articles(name, expected):
    assert captions.article(name) == expected


@pytest.mark.parametrize(
    ("label", "expected"),
    [("flag: France", "flag of France"), ("keycap: 1", "keycap 1"), ("man: red hair", "man with red hair"),
     ("woman’s hat", "woman's hat"), ("Japanese “here” button", "Japanese here button")],
)  # fmt: skip
def test_clean(label, expected):
    assert captions.clean(label) == expected


def test_natural_names():
    assert captions.names_of(CAT) == ["cat face", "cat"]
    assert captions.names_of(PIZZA)[:2] == ["pizza", "slice of pizza"]
    # A short code that names a colour belongs to one vendor's drawing.
    assert captions.names_of(CAR) == ["car", "automobile"]
    assert captions.noun_of(APPLE) == "apple"


def every(concept, **options):
    return {text for choose in range(24) for text in captions.single(concept, choose=choose, **options)}


def test_prompts_that_people_type_occur():
    assert {"a red apple, 3d style", "an apple, 3d style", "a red apple"} <= every(APPLE, style="3d")
    assert {"a cat face, noto style", "a cat, noto style"} <= every(CAT, style="noto")
    assert {"a slice of pizza, flat style", "a drawing of a slice of pizza"} <= every(PIZZA, style="flat")
    assert {"a blue apple, flat style", "a blue apple"} <= every(APPLE, style="flat", colour="blue")
    assert "a yellow car, twemoji style" in every(CAR, style="twemoji", natural="yellow")


def test_a_recoloured_drawing_is_never_called_by_its_old_colour():
    for text in every(APPLE, style="noto", colour="blue"):
        assert "blue" in text
        assert "red" not in text.replace("rendered", "")


def test_counts_and_style():
    for choose in range(24):
        said = captions.single(APPLE, "noto", choose=choose)
        assert 4 <= len(said) <= 8
        assert len(set(said)) == len(said)
        assert sum("noto style" in text for text in said) * 2 >= len(said) - 1


def test_tones():
    hand = Concept(id="1F44B", label="waving hand", group="people-body")
    assert "a waving hand with medium-dark skin tone, flat style" in captions.single(
        hand, "flat", tones=("medium-dark",)
    )
    assert captions.with_tones("handshake", ("light", "dark")) == "handshake with light and dark skin tone"


def test_pairs():
    said = captions.pair("cat", "red car", "left", "noto", choose=0)
    assert said[:2] == (
        "a cat to the left of a red car, noto style",
        "a red car to the right of a cat, noto style",
    )
    many = {text for choose in range(8) for text in captions.pair("dog", "apple", "left", "3d", choose)}
    assert {"a dog and an apple, 3d style", "a dog next to an apple, 3d style"} <= many
    below = {text for choose in range(8) for text in captions.pair("dog", "apple", "above", "3d", choose)}
    assert {"a dog above an apple, 3d style", "an apple below a dog, 3d style"} <= below
    assert not any("left" in text or "right" in text for text in below)
