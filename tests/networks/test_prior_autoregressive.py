"""The autoregressive prior: what each prediction may see, and that components travel with the weights."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from unclip.checkpoints.io import load_model, save_model
from unclip.networks.prior_autoregressive import (
    AutoregressivePrior,
    AutoregressivePriorConfig,
    CaptionEncoderConfig,
    dot_product,
)
from unclip.networks.prior_diffusion import PriorCondition

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
    logits = network(codes, dot, given).codes
    assert logits.shape == (ROWS, CONFIG.dimensions, CONFIG.buckets)
    for place in range(CONFIG.dimensions):
        changed = codes.clone()
        changed[:, place] = (changed[:, place] + 1) % CONFIG.buckets
        assert moved(logits, network(changed, dot, given).codes) == [
            k > place for k in range(CONFIG.dimensions)
        ]
    every = [True] * CONFIG.dimensions
    assert moved(logits, network(codes, (dot + 1) % CONFIG.dot_buckets, given).codes) == every
    assert (
        moved(logits, network(codes, dot, replace(given, text_embedding=-given.text_embedding)).codes)
        == every
    )
    assert moved(logits, network(codes, dot, replace(given, text_states=-given.text_states)).codes) == every


def test_the_dot_product_is_predicted_from_the_caption_alone():
    network, (codes, dot), given = prior(), some_codes(), condition()
    logits = network(codes, dot, given).dot
    assert logits.shape == (ROWS, CONFIG.dot_buckets)
    other = (codes + 1) % CONFIG.buckets, (dot + 1) % CONFIG.dot_buckets
    torch.testing.assert_close(network(*other, given).dot, logits)
    for changed in (
        replace(given, text_embedding=-given.text_embedding),
        replace(given, text_states=-given.text_states),
        given.null(),
    ):
        assert (network(codes, dot, changed).dot - logits).abs().amax(1).min() > 1e-3


@pytest.mark.parametrize("config", [CONFIG, ENCODED], ids=["states", "encoder"])
def test_padding_and_dropped_captions_are_not_seen(config):
    network, (codes, dot), given = prior(config), some_codes(), condition()
    states = given.text_states.clone()
    states[0, 3:] += 1
    padded = replace(given, text_states=states)
    torch.testing.assert_close(network(codes, dot, padded).codes, network(codes, dot, given).codes)
    states[0, 2] += 1
    assert (
        moved(network(codes, dot, padded).codes, network(codes, dot, given).codes)
        == [True] * CONFIG.dimensions
    )

    dropped = given.drop(torch.tensor([True, False, False]))
    other = condition(seed=5).drop(torch.tensor([True, True, True]))
    without = network(codes, (dot + 1) % CONFIG.dot_buckets, other).codes
    torch.testing.assert_close(network(codes, dot, dropped).codes[0], without[0])
    assert (network(codes, dot, dropped).codes[1:] - without[1:]).abs().max() > 1e-3


def test_the_dot_products_token_rises_with_it():
    network, text = prior(), torch.randn(1, EMBEDDING, generator=torch.Generator().manual_seed(3))
    other = torch.randn(1, EMBEDDING, generator=torch.Generator().manual_seed(4))
    mixed = torch.lerp(-text, text, torch.linspace(0, 1, 50)[:, None]) + 0.3 * other
    tokens = network.dot(mixed, text.expand(50, -1)).tolist()
    assert tokens == sorted(tokens)
    assert {0, 5} <= set(tokens)


@pytest.mark.parametrize("storage", ["float32", "int8"])
def test_components_and_levels_travel_with_the_model(tmp_path, storage):
    network = prior(replace(ENCODED, buckets=64, dot_buckets=32))
    save_model(tmp_path / "model", {"prior_autoregressive": network}, name="test", storage=storage)
    again = load_model(tmp_path / "model")["prior_autoregressive"]
    assert isinstance(again, AutoregressivePrior)
    assert again.config == network.config
    if storage == "float32":
        given, (codes, dot) = condition(), some_codes()
        assert torch.equal(again(codes, dot, given).codes, network(codes, dot, given).codes)
        assert torch.equal(again(codes, dot, given).dot, network(codes, dot, given).dot)
    codes = torch.randint(64, (20, 4), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(again.codes.decode(codes), network.codes.decode(codes), atol=0.02, rtol=0)


def test_errors_name_the_value_and_the_remedy():
    with pytest.raises(ValueError, match=r"\(5, 7\) \(tokens, width\), this prior reads \(5, 6\)"):
        prior()(*some_codes(), replace(condition(), text_states=torch.zeros(ROWS, CONTEXT, 7)))
