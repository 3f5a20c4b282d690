"""Pictures whose image embedding comes from the autoregressive prior: like any others, and refused where there is none."""

import pytest
import torch

from unclip.errors import RequestError, Unsupported
from unclip.generate.image import Image
from unclip.generate.model import Model
from unclip.generate.progress import Progress
from unclip.generate.stage_runner import StageRunner
from unclip.networks.prior_autoregressive import dot_product
from unclip.stages.noise import Seeds
from unclip.stages.prior import choose, prior_condition, sample_autoregressive_prior
from unclip.stages.sampling import sampling

PROMPT, DIMENSIONS = "a red apple", 5


@pytest.fixture(scope="module")
def model(tiny, tiny_model) -> Model:
    """The tiny model with an autoregressive prior beside the other one, its weights random."""
    networks = tiny.networks(tiny_model)
    prior = tiny.autoregressive(networks["clip"], dimensions=DIMENSIONS)
    return Model.of(
        {**networks, "prior_autoregressive": prior}, tiny_model.parts.tokenizer, defaults=tiny_model.defaults
    )


def kind(picture: Image) -> str:
    return picture.provenance["request"]["sampling"]["prior"]["kind"]


def test_pictures_are_made_again_from_their_provenance(model):
    pictures = model.generate(PROMPT, n=2, seed=3, prior="autoregressive")
    for picture in pictures:
        assert kind(picture) == "autoregressive"
        again = model.redo(picture.provenance)
        assert again.image.tobytes() == picture.image.tobytes()
        assert torch.equal(again.embedding, picture.embedding)
        torch.testing.assert_close(picture.embedding.norm(), torch.tensor(1.0))
    assert not torch.equal(pictures[0].embedding, pictures[1].embedding)
    other = model.generate(PROMPT, seed=3)[0]
    assert kind(other) == "diffusion"
    assert not torch.equal(other.embedding, pictures[0].embedding)


def test_pictures_of_a_batch_have_the_embeddings_that_they_have_alone(model):
    together = model.generate(PROMPT, n=3, seed=4, prior="autoregressive", batch_size=3)
    alone = model.generate(PROMPT, n=3, seed=4, prior="autoregressive", batch_size=1)
    for one, other in zip(together, alone):
        torch.testing.assert_close(one.embedding, other.embedding)


@pytest.mark.parametrize(
    "setting",
    [{"candidates": 64}, {"prior_guidance": 9.0}, {"prior_guidance": 9.0, "negative": "a blue cat"}],
)
def test_the_priors_settings_change_it(model, setting):
    """Over a few seeds, as a code that is sampled again may well be the same."""

    def made(**changes) -> torch.Tensor:
        pictures = model.generate(PROMPT, n=4, seed=5, prior="autoregressive", steps=1, size=16, **changes)
        return torch.stack([picture.embedding for picture in pictures])

    plain, turned = made(), made(**setting)
    assert not torch.equal(plain, turned)
    if "negative" in setting:
        assert not torch.equal(turned, made(prior_guidance=setting["prior_guidance"]))


def test_the_nearest_candidate_is_taken_and_more_leave_the_first_alone(tiny, model):
    runner = StageRunner(model.parts, model.defaults, seed=0)
    captions = runner.captions([PROMPT, "a blue cat"])
    prior = tiny.networks(model)["prior_autoregressive"]

    @torch.no_grad()
    def drawn(candidates: int) -> torch.Tensor:
        noise = Seeds([1, 2]).prior_streams(candidates)
        *_, last = sample_autoregressive_prior(prior, prior_condition(captions, candidates), noise)
        return last.x

    several = drawn(3)
    torch.testing.assert_close(several[[0, 3]], drawn(1))
    text = captions.encoding.embedding
    cosines = dot_product(several, text.repeat_interleave(3, 0)).reshape(2, 3)
    chosen = choose(model.parts.space.project(several), text)
    torch.testing.assert_close(dot_product(chosen, text), cosines.amax(1))


def test_each_component_is_a_step_of_progress(model):
    events: list[Progress] = []
    model.generate(PROMPT, seed=1, prior="autoregressive", on_progress=events.append)
    told = [(event.stage, event.step, event.total) for event in events]
    assert told[:DIMENSIONS] == [("prior", step + 1, DIMENSIONS) for step in range(DIMENSIONS)]
    fractions = [event.fraction for event in events]
    assert fractions == sorted(fractions)
    assert fractions[-1] == pytest.approx(1.0)
    assert fractions[-2] < 1


def test_a_model_without_it_says_so(tiny_model):
    with pytest.raises(
        Unsupported,
        match="has no autoregressive prior, which generate needs: it has clip, prior, decoder, upsampler",
    ):
        tiny_model.generate(PROMPT, seed=1, prior="autoregressive")


def test_diffusers_order_of_draws_is_none_of_its(tiny, model):
    with pytest.raises(RequestError, match="set random to unclip"):
        model.generate(PROMPT, seed=1, prior="autoregressive", random="diffusers", candidates=1)
    defaults = sampling(random="diffusers", candidates=1).over(model.defaults)
    other = Model.of(tiny.networks(model), model.parts.tokenizer, defaults=defaults)
    with pytest.raises(RequestError, match="set random to unclip"):
        other.generate(PROMPT, seed=1, prior="autoregressive")
