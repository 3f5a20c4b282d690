"""Sampling of the autoregressive prior: it draws from the network's own distribution, with its cache and without."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from unclip.diffusion.samplers import sample
from unclip.networks.prior_autoregressive import (
    AutoregressivePrior,
    AutoregressivePriorConfig,
    CaptionEncoderConfig,
    dot_product,
)
from unclip.networks.prior_diffusion import DiffusionPrior, DiffusionPriorConfig, PriorCondition
from unclip.rng import Noise
from unclip.stages.prior import (
    choose,
    sample_autoregressive_prior,
    sample_categorical,
    sample_diffusion_prior,
    sample_top,
)

ROWS, CONTEXT, EMBEDDING, TEXT = 3, 5, 8, 6
CONFIG = AutoregressivePriorConfig(
    embedding=EMBEDDING,
    context=CONTEXT,
    text_width=TEXT,
    dimensions=4,
    buckets=7,
    dot_buckets=6,
    width=16,
    layers=2,
    heads=2,
)
ENCODED = replace(CONFIG, encoder=CaptionEncoderConfig(width=12, layers=1, heads=2))


def prior(config: AutoregressivePriorConfig = CONFIG) -> AutoregressivePrior:
    """Fitted to random embeddings; random weights, sharp enough that codes depend on what came before."""
    torch.manual_seed(0)
    network = AutoregressivePrior(config).eval()
    z = torch.randn(200, EMBEDDING)
    network.fit(z, dot_product(z, z + 2 * torch.randn(200, EMBEDDING)))
    with torch.no_grad():
        network.code_out.weight.mul_(3)
    return network.requires_grad_(False)


def condition(rows: int = ROWS, seed: int = 1) -> PriorCondition:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.ones(rows, CONTEXT, dtype=torch.bool)
    mask[0, 3:] = False
    return PriorCondition(
        text_embedding=torch.randn(rows, EMBEDDING, generator=generator),
        text_states=torch.randn(rows, CONTEXT, TEXT, generator=generator),
        text_mask=mask,
        keep=torch.ones(rows, dtype=torch.bool),
    )


def drawn(network: AutoregressivePrior, given: PriorCondition, noise: Noise, **settings: Any) -> Tensor:
    """One embedding per row."""
    *_, last = sample_autoregressive_prior(network, given, noise, **settings)
    return last.x


def sample_without_cache(
    network: AutoregressivePrior,
    given: PriorCondition,
    noise: Noise,
    *,
    guidance: float = 1.0,
    null: PriorCondition | None = None,
) -> Tensor:
    """The codes, each by a call of the whole network on all codes so far."""
    uniforms = noise.uniform(1 + CONFIG.dimensions)
    codes = torch.zeros(len(noise), CONFIG.dimensions, dtype=torch.int64)
    dot = sample_top(network(codes, codes[:, 0], given).dot, uniforms[:, 0], 0.5)
    for place in range(CONFIG.dimensions):
        logits = network(codes, dot, given).codes[:, place]
        without = network(codes, dot, null or given.null()).codes[:, place]
        codes[:, place] = sample_categorical(without + guidance * (logits - without), uniforms[:, 1 + place])
    return codes


@pytest.mark.parametrize("config", [CONFIG, ENCODED], ids=["states", "encoder"])
@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("negative", [None, condition(8, seed=9)], ids=["null", "negative"])
def test_sampling_with_the_cache_is_sampling_without_it(config, guidance, negative):
    network, given = prior(config), condition(8)
    codes = sample_without_cache(network, given, Noise(range(8)), guidance=guidance, null=negative)
    found = drawn(network, given, Noise(range(8)), guidance=guidance, null=negative)
    assert torch.equal(found, network.codes.decode(codes))
    assert len(codes.unique(dim=0)) > 4


def test_guidance_and_negative_captions_change_what_is_drawn():
    network, given = prior(), condition(8)

    def made(**changes: Any) -> Tensor:
        return drawn(network, given, Noise(range(8)), **changes)

    plain = made()
    assert torch.equal(plain, made())
    assert not torch.equal(plain, made(guidance=3.0))
    assert not torch.equal(made(guidance=3.0), made(guidance=3.0, null=condition(8, seed=9)))
    assert not torch.equal(plain, drawn(network, given.null(), Noise(range(8))))


def test_a_sample_does_not_depend_on_its_batch():
    network, given = prior(), condition(6)
    together = drawn(network, given, Noise(range(10, 16)), guidance=2.0)
    for row in range(6):
        alone = PriorCondition(
            given.text_embedding[row : row + 1],
            given.text_states[row : row + 1],
            given.text_mask[row : row + 1],
            given.keep[row : row + 1],
        )
        assert torch.equal(drawn(network, alone, Noise([10 + row]), guidance=2.0)[0], together[row])


def test_samples_follow_the_networks_own_distribution():
    """The first two codes of many samples against their joint probability, computed by the network."""
    network, given, count = prior(replace(CONFIG, dot_buckets=2)), condition(1), 4000
    # Both halves of the distribution of z_i·z_t are one bucket each.
    network.dot_out.weight.zero_()
    network.dot_out.bias.zero_()
    codes = network.codes.encode(drawn(network, given.repeat(count), Noise(range(count))))[:, :2]
    pairs = torch.cartesian_prod(torch.arange(7), torch.arange(7))
    upper = torch.ones(len(pairs), dtype=torch.int64)
    chances = network(pairs, upper, given.repeat(len(pairs))).codes.softmax(-1)
    expected = torch.stack([chances[:, k].gather(1, pairs[:, k : k + 1])[:, 0] for k in (0, 1)]).prod(0)
    observed = (codes[:, 0] * 7 + codes[:, 1]).bincount(minlength=49) / count
    # Five standard deviations of a frequency.
    assert ((observed - expected).abs() < 5 * (expected / count).sqrt() + 1e-3).all()
    assert expected.max() > 3 / 49


def test_it_learns_which_embeddings_go_with_a_caption():
    """Four kinds of captions, with embeddings around a centre each, and z_i·z_t of its own."""
    torch.manual_seed(0)
    centres, kinds = torch.randn(4, EMBEDDING), torch.arange(4).repeat(64)
    z = centres[kinds] + 0.1 * torch.randn(256, EMBEDDING)
    network = AutoregressivePrior(replace(CONFIG, buckets=16, dimensions=3))
    texts, states = torch.randn(4, EMBEDDING), torch.randn(4, CONTEXT, TEXT)
    network.fit(z, dot_product(z, texts[kinds]))

    def captions(kinds: Tensor) -> PriorCondition:
        seen = torch.ones(len(kinds), CONTEXT, dtype=torch.bool)
        return PriorCondition(texts[kinds], states[kinds], seen, seen[:, 0])

    codes, dot = network.codes.encode(z), network.dot(z, texts[kinds])
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(60):
        predicted = network(codes, dot, captions(kinds).drop(torch.rand(256) < 0.1))
        loss = cross_entropy(predicted.codes.flatten(0, 1), codes.flatten())
        loss = loss + cross_entropy(predicted.dot, dot)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        asked = drawn(network.eval(), captions(kinds), Noise(range(256)))
        unasked = drawn(network, captions(kinds).null(), Noise(range(256)))
    assert (torch.cdist(asked, centres).argmin(1) == kinds).float().mean() > 0.9
    shares = torch.cdist(unasked, centres).argmin(1).bincount(minlength=4) / 256
    assert shares.min() > 0.1


def test_the_dot_product_is_drawn_from_the_top_of_its_distribution():
    uniform = (torch.arange(600, dtype=torch.float64) + 0.5) / 600

    def counted(chances: list[float], top: float) -> list[int]:
        logits = torch.tensor(chances).log().expand(600, -1)
        return sample_top(logits, uniform, top).bincount(minlength=len(chances)).tolist()

    assert counted([1 / 6] * 6, 0.5) == [0, 0, 0, 200, 200, 200]
    assert counted([1 / 6] * 6, 1.0) == [100] * 6
    # Where half of it ends within a bucket, that one counts as far as it is above.
    assert counted([0.2, 0.55, 0.25], 0.5) == [0, 300, 300]
    for top in (0.0, 1.5):
        with pytest.raises(ValueError, match=f"top is {top}"):
            counted([0.5, 0.5], top)


def test_drawing_inverts_the_cumulative_distribution():
    logits = torch.tensor([0.1, 0.0, 0.2, 0.7]).log().expand(5, -1)
    uniform = torch.tensor([1e-12, 0.099, 0.101, 0.301, 1 - 2**-53], dtype=torch.float64)
    assert sample_categorical(logits, uniform).tolist() == [0, 0, 2, 3, 3]


def test_each_step_adds_one_component():
    network, given = prior(), condition()
    steps = list(sample_autoregressive_prior(network, given, Noise(range(ROWS))))
    assert [step.i for step in steps] == list(range(CONFIG.dimensions))
    before = network.codes.mean
    for index, step in enumerate(steps):
        # The components are orthogonal, so each step moves along its own only.
        along = (step.x - before) @ network.codes.components.T
        assert (along.abs() > 1e-5).nonzero()[:, 1].unique().tolist() in ([], [index])
        before = step.x


def test_both_priors_are_sampled_alike_and_keep_the_nearest_candidate():
    torch.manual_seed(0)
    diffusion = DiffusionPrior(
        DiffusionPriorConfig(
            embedding=EMBEDDING, context=CONTEXT, text_width=TEXT, width=16, layers=1, heads=2
        )
    )
    given = condition()
    network, several = prior(), given.repeat(4)
    noise = [Noise(range(4 * ROWS)) for _ in range(2)]
    first = drawn(network, several, noise[0], guidance=2.0)
    walk = sample_diffusion_prior(
        diffusion.eval().requires_grad_(False), several, noise[1], steps=8, guidance=2.0
    )
    for samples in (first, diffusion.unstandardise(sample(walk))):
        assert samples.shape == (4 * ROWS, EMBEDDING)
        chosen = choose(samples, given.text_embedding)
        assert chosen.shape == (ROWS, EMBEDDING)
        cosines = dot_product(samples, given.text_embedding.repeat_interleave(4, 0)).reshape(ROWS, 4)
        torch.testing.assert_close(dot_product(chosen, given.text_embedding), cosines.amax(1))
