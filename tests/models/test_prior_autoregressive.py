"""The autoregressive prior: what each prediction may see, and that sampling is its distribution, whatever the shortcut."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from unclip.checkpoints.io import load_model, save_model
from unclip.models.prior_autoregressive import (
    AutoregressivePrior,
    AutoregressivePriorConfig,
    CaptionEncoderConfig,
    dot_product,
    draw,
)
from unclip.models.prior_diffusion import DiffusionPrior, DiffusionPriorConfig, PriorCondition
from unclip.rng import Noise

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


def some_codes() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    return (
        torch.randint(CONFIG.buckets, (ROWS, CONFIG.dimensions), generator=generator),
        torch.randint(CONFIG.dot_buckets, (ROWS,), generator=generator),
    )


def moved(before: Tensor, after: Tensor) -> list[bool]:
    """For each code, whether its logits changed by more than rounding."""
    return [bool(change > 1e-4) for change in (before - after).abs().amax(dim=(0, 2))]


@pytest.mark.parametrize("config", [CONFIG, ENCODED], ids=["states", "encoder"])
def test_a_code_is_predicted_from_those_before_it_and_from_the_whole_prefix(config):
    network, (codes, dot), given = prior(config), some_codes(), condition()
    logits = network(codes, dot, given)
    assert logits.shape == (ROWS, CONFIG.dimensions, CONFIG.buckets)
    for place in range(CONFIG.dimensions):
        changed = codes.clone()
        changed[:, place] = (changed[:, place] + 1) % CONFIG.buckets
        assert moved(logits, network(changed, dot, given)) == [k > place for k in range(CONFIG.dimensions)]
    every = [True] * CONFIG.dimensions
    assert moved(logits, network(codes, (dot + 1) % CONFIG.dot_buckets, given)) == every
    assert moved(logits, network(codes, dot, replace(given, text_embedding=-given.text_embedding))) == every
    assert moved(logits, network(codes, dot, replace(given, text_states=-given.text_states))) == every


@pytest.mark.parametrize("config", [CONFIG, ENCODED], ids=["states", "encoder"])
def test_padding_and_dropped_captions_are_not_seen(config):
    network, (codes, dot), given = prior(config), some_codes(), condition()
    states = given.text_states.clone()
    states[0, 3:] += 1
    padded = replace(given, text_states=states)
    torch.testing.assert_close(network(codes, dot, padded), network(codes, dot, given))
    states[0, 2] += 1
    assert moved(network(codes, dot, padded), network(codes, dot, given)) == [True] * CONFIG.dimensions

    dropped = given.drop(torch.tensor([True, False, False]))
    other = condition(seed=5).drop(torch.tensor([True, True, True]))
    without = network(codes, (dot + 1) % CONFIG.dot_buckets, other)
    torch.testing.assert_close(network(codes, dot, dropped)[0], without[0])
    assert (network(codes, dot, dropped)[1:] - without[1:]).abs().max() > 1e-3


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
    dot = network.draw_dot(uniforms[:, 0], 0.5)
    codes = torch.zeros(len(dot), CONFIG.dimensions, dtype=torch.int64)
    for place in range(CONFIG.dimensions):
        logits = network(codes, dot, given)[:, place]
        without = network(codes, dot, null or given.null())[:, place]
        codes[:, place] = draw(without + guidance * (logits - without), uniforms[:, 1 + place])
    return codes


@pytest.mark.parametrize("config", [CONFIG, ENCODED], ids=["states", "encoder"])
@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("negative", [None, condition(8, seed=9)], ids=["null", "negative"])
def test_sampling_with_the_cache_is_sampling_without_it(config, guidance, negative):
    network, given = prior(config), condition(8)
    codes = sample_without_cache(network, given, Noise(range(8)), guidance=guidance, null=negative)
    *_, last = network.sample_steps(given, Noise(range(8)), guidance=guidance, null=negative)
    assert torch.equal(last.x, network.codes.decode(codes))
    assert len(codes.unique(dim=0)) > 4


def test_guidance_and_negative_captions_change_what_is_drawn():
    network, given = prior(), condition(8)

    def drawn(**changes) -> Tensor:
        return network.sample(given, Noise(range(8)), **changes)

    plain = drawn()
    assert torch.equal(plain, drawn())
    assert not torch.equal(plain, drawn(guidance=3.0))
    assert not torch.equal(drawn(guidance=3.0), drawn(guidance=3.0, null=condition(8, seed=9)))
    assert not torch.equal(plain, network.sample(given.null(), Noise(range(8))))


def test_a_sample_does_not_depend_on_its_batch():
    network, given = prior(), condition(6)
    together = network.sample(given, Noise(range(10, 16)), guidance=2.0)
    for row in range(6):
        alone = PriorCondition(
            given.text_embedding[row : row + 1],
            given.text_states[row : row + 1],
            given.text_mask[row : row + 1],
            given.keep[row : row + 1],
        )
        assert torch.equal(network.sample(alone, Noise([10 + row]), guidance=2.0)[0], together[row])


def test_samples_follow_the_networks_own_distribution():
    """The first two codes of many samples against their joint probability, computed by the network."""
    network, count = prior(), 4000
    given = condition(1)
    fixed = replace(network.config, dot_buckets=2)
    single = AutoregressivePrior(fixed).eval()
    single.load_state_dict({**network.state_dict(), "dot_levels": torch.tensor([0.0, 1.0]), "dot_in.weight": network.dot_in.weight[:2]})  # fmt: skip
    steps = single.sample_steps(given.repeat(count), Noise(range(count)))
    with torch.no_grad():
        *_, last = steps
    codes = single.codes.encode(last.x)[:, :2]
    pairs = torch.cartesian_prod(torch.arange(7), torch.arange(7))
    dot = torch.ones(len(pairs), dtype=torch.int64)  # the upper of two buckets
    with torch.no_grad():
        probabilities = single(pairs, dot, given.repeat(len(pairs))).softmax(-1)
    expected = torch.stack([probabilities[:, k].gather(1, pairs[:, k : k + 1])[:, 0] for k in (0, 1)]).prod(0)
    observed = (codes[:, 0] * 7 + codes[:, 1]).bincount(minlength=49) / count
    # Five standard deviations of a frequency.
    assert ((observed - expected).abs() < 5 * (expected / count).sqrt() + 1e-3).all()
    assert expected.max() > 3 / 49


def test_the_dot_product_is_drawn_from_the_top_of_its_distribution():
    network = prior()
    uniform = (torch.arange(600, dtype=torch.float64) + 0.5) / 600
    assert network.draw_dot(uniform, 0.5).bincount(minlength=6).tolist() == [0, 0, 0, 200, 200, 200]
    assert network.draw_dot(uniform, 1.0).bincount(minlength=6).tolist() == [100] * 6
    assert network.draw_dot(torch.tensor([1 - 2**-53], dtype=torch.float64), 0.5).tolist() == [5]
    for top in (0.0, 1.5):
        with pytest.raises(ValueError, match=f"top is {top}"):
            network.draw_dot(uniform, top)


def test_the_dot_products_token_rises_with_it():
    network, text = prior(), torch.randn(1, EMBEDDING, generator=torch.Generator().manual_seed(3))
    other = torch.randn(1, EMBEDDING, generator=torch.Generator().manual_seed(4))
    mixed = torch.lerp(-text, text, torch.linspace(0, 1, 50)[:, None]) + 0.3 * other
    tokens = network.dot(mixed, text.expand(50, -1)).tolist()
    assert tokens == sorted(tokens)
    assert {0, 5} <= set(tokens)


def test_drawing_inverts_the_cumulative_distribution():
    logits = torch.tensor([0.1, 0.0, 0.2, 0.7]).log().expand(5, -1)
    uniform = torch.tensor([1e-12, 0.099, 0.101, 0.301, 1 - 2**-53], dtype=torch.float64)
    assert draw(logits, uniform).tolist() == [0, 0, 2, 3, 3]


def test_each_step_adds_one_component():
    network, given = prior(), condition()
    steps = list(network.sample_steps(given, Noise(range(ROWS))))
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
    for network in (prior(), diffusion.eval().requires_grad_(False)):
        drawn = network.sample(given, Noise(range(4 * ROWS)), candidates=4, guidance=2.0)
        assert drawn.shape == (ROWS, EMBEDDING)
        several = network.sample(given.repeat(4), Noise(range(4 * ROWS)), candidates=1, guidance=2.0)
        cosines = dot_product(several, given.text_embedding.repeat_interleave(4, 0)).reshape(ROWS, 4)
        torch.testing.assert_close(dot_product(drawn, given.text_embedding), cosines.amax(1))


@pytest.mark.parametrize("storage", ["float32", "int8"])
def test_components_and_levels_travel_with_the_model(tmp_path, storage):
    network = prior(replace(ENCODED, buckets=64, dot_buckets=32))
    save_model(tmp_path / "model", {"prior_autoregressive": network}, name="test", storage=storage)
    again = load_model(tmp_path / "model")["prior_autoregressive"]
    assert isinstance(again, AutoregressivePrior)
    assert again.config == network.config
    given, noise = condition(), Noise(range(ROWS))
    if storage == "float32":
        assert torch.equal(again.sample(given, noise), network.sample(given, Noise(range(ROWS))))
    codes = torch.randint(64, (20, 4), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(again.codes.decode(codes), network.codes.decode(codes), atol=0.02, rtol=0)


def test_errors_name_the_value_and_the_remedy():
    with pytest.raises(ValueError, match=r"\(5, 7\) \(tokens, width\), this prior reads \(5, 6\)"):
        prior().sample(replace(condition(), text_states=torch.zeros(ROWS, CONTEXT, 7)), Noise(range(ROWS)))
    with pytest.raises(ValueError, match="dot_buckets is 5: give an even number"):
        replace(CONFIG, dot_buckets=5)
