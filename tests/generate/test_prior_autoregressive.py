"""Pictures whose image embedding comes from the autoregressive prior: like any others, and refused where there is none."""

import pytest
import torch
from torch import nn

from unclip.generate.progress import Progress
from unclip.generate.stages import choose, read_captions, sample_prior_autoregressive
from unclip.generate.system import System
from unclip.networks.prior_autoregressive import AutoregressivePrior, AutoregressivePriorConfig, dot_product

PROMPT, DIMENSIONS = "a red apple", 5


@pytest.fixture(scope="module")
def system(tiny_system) -> System:
    """The tiny system with an autoregressive prior beside the other one, its weights random."""
    torch.manual_seed(0)
    clip = tiny_system.clip.config
    prior = AutoregressivePrior(
        AutoregressivePriorConfig(
            embedding=clip.embedding,
            context=clip.text.context,
            text_width=clip.text.width,
            dimensions=DIMENSIONS,
            buckets=9,
            dot_buckets=4,
            width=16,
            layers=1,
            heads=2,
        )
    )
    z = nn.functional.normalize(torch.randn(100, clip.embedding), dim=1)
    prior.fit(z, dot_product(z, z.roll(1, 0)))
    parts = {name: tiny_system.part(name, nn.Module) for name in tiny_system.parts}
    return System.of(
        {**parts, "prior_autoregressive": prior}, tiny_system.tokenizer, defaults=tiny_system.defaults
    )


def test_pictures_are_their_recipes(system):
    pictures = system.generate(PROMPT, n=2, seed=3, prior="autoregressive")
    for picture in pictures:
        assert picture.recipe["prior"] == "autoregressive"
        again = system.redo(picture.recipe)
        assert again.image.tobytes() == picture.image.tobytes()
        assert torch.equal(again.embedding, picture.embedding)
        torch.testing.assert_close(picture.embedding.norm(), torch.tensor(1.0))
    assert not torch.equal(pictures[0].embedding, pictures[1].embedding)
    other = system.generate(PROMPT, seed=3)[0]
    assert other.recipe["prior"] == "diffusion"
    assert not torch.equal(other.embedding, pictures[0].embedding)


def test_pictures_of_a_batch_have_the_embeddings_that_they_have_alone(system):
    together = system.generate(PROMPT, n=3, seed=4, prior="autoregressive", batch_size=3)
    alone = system.generate(PROMPT, n=3, seed=4, prior="autoregressive", batch_size=1)
    for one, other in zip(together, alone):
        torch.testing.assert_close(one.embedding, other.embedding)


@pytest.mark.parametrize(
    "knob", [{"candidates": 64}, {"prior_guidance": 9.0}, {"prior_guidance": 9.0, "negative": "a blue cat"}]
)
def test_the_priors_knobs_turn_it(system, knob):
    """Over a few seeds, as a code that is drawn anew may well be the same."""

    def made(**changes) -> torch.Tensor:
        pictures = system.generate(PROMPT, n=4, seed=5, prior="autoregressive", steps=1, size=16, **changes)
        return torch.stack([picture.embedding for picture in pictures])

    plain, turned = made(), made(**knob)
    assert not torch.equal(plain, turned)
    if "negative" in knob:
        assert not torch.equal(turned, made(prior_guidance=knob["prior_guidance"]))


def test_the_nearest_candidate_is_taken_and_more_leave_the_first_alone(system):
    captions = read_captions(system.clip, system.tokenizer, [PROMPT, "a blue cat"], torch.device("cpu"))
    prior = system.prior_autoregressive

    @torch.no_grad()
    def drawn(candidates: int) -> torch.Tensor:
        steps = sample_prior_autoregressive(prior, captions, [1, 2], candidates=candidates, guidance=1.0)
        *_, last = steps
        return last.x

    several = drawn(3)
    torch.testing.assert_close(several[[0, 3]], drawn(1))
    text = captions.encoding.embedding
    cosines = dot_product(several, text.repeat_interleave(3, 0)).reshape(2, 3)
    chosen = choose(prior, several, captions, unit=True)
    torch.testing.assert_close(dot_product(chosen, text), cosines.amax(1))


def test_each_component_is_a_step_of_progress(system):
    events: list[Progress] = []
    system.generate(PROMPT, seed=1, prior="autoregressive", callback=events.append)
    told = [(event.stage, event.step, event.total) for event in events]
    assert told[:DIMENSIONS] == [("prior", step + 1, DIMENSIONS) for step in range(DIMENSIONS)]
    fractions = [event.fraction for event in events]
    assert fractions == sorted(fractions)
    assert fractions[-1] == pytest.approx(1.0)
    assert fractions[-2] < 1


def test_a_model_without_it_says_so(tiny_system):
    with pytest.raises(
        ValueError, match="has no prior_autoregressive: it has clip, prior, decoder, upsampler"
    ):
        tiny_system.generate(PROMPT, seed=1, prior="autoregressive")


def test_diffusers_order_of_draws_is_none_of_its(system):
    system = System.of(
        {name: system.part(name, nn.Module) for name in system.parts},
        system.tokenizer,
        defaults=system.defaults.with_given(random="diffusers", candidates=1),
    )
    with pytest.raises(ValueError, match="set random to unclip"):
        system.generate(PROMPT, seed=1, prior="autoregressive")
