"""Retrieval against a brute-force count, with ties and several right answers."""

import pytest
import torch

from unclip.data.sample import Sample
from unclip.evaluate.retrieval import fitting_captions, ranks, recall_at, retrieval


def by_hand(similarity: torch.Tensor, right: torch.Tensor, k: int) -> float:
    """Sort the answers, at equal similarity the wrong ones first, and look at the first k."""
    found = 0
    for scores, good in zip(similarity.tolist(), right.tolist()):
        order = sorted(range(len(scores)), key=lambda j: (-scores[j], good[j]))
        found += any(good[j] for j in order[:k])
    return found / len(similarity)


@pytest.mark.parametrize("seed", range(5))
def test_recall_is_that_of_a_brute_force_count(seed):
    generator = torch.Generator().manual_seed(seed)
    # Few different values make many ties.
    similarity = torch.randint(0, 6, (30, 20), generator=generator).float()
    right = torch.rand(30, 20, generator=generator) < 0.1
    right[torch.arange(30), torch.randint(0, 20, (30,), generator=generator)] = True
    places = ranks(similarity, right)
    for k in (1, 2, 5, 20):
        assert recall_at(places, k) == pytest.approx(by_hand(similarity, right, k))


def test_ties_count_against_the_answer():
    assert ranks(torch.zeros(1, 4), torch.tensor([[True, False, False, False]])).tolist() == [3]


def test_any_right_answer_will_do():
    similarity = torch.tensor([[0.1, 0.9, 0.5]])
    assert ranks(similarity, torch.tensor([[True, False, True]])).tolist() == [1]
    assert ranks(similarity, torch.tensor([[True, True, False]])).tolist() == [0]


def test_a_question_without_answer_is_an_error():
    with pytest.raises(ValueError, match="question 1 has no right answer"):
        ranks(torch.zeros(2, 2), torch.tensor([[True, False], [False, False]]))


def test_same_caption_ignores_case_and_looks_at_all_captions():
    samples = [Sample("a", ("a cat", "Cat")), Sample("b", ("a dog",))]
    assert fitting_captions(samples, ["a cat", "a dog", "cat"]).tolist() == [
        [True, False, True],
        [False, True, False],
    ]


def test_retrieval_in_both_directions():
    image, text = torch.eye(3), torch.eye(3)[[1, 0, 2]]
    right = torch.eye(3, dtype=torch.bool)
    found = retrieval(image, text, right, at=(1, 3))
    assert found == {
        "image_to_text_recall_1": pytest.approx(1 / 3),
        "image_to_text_recall_3": 1.0,
        "text_to_image_recall_1": pytest.approx(1 / 3),
        "text_to_image_recall_3": 1.0,
    }
