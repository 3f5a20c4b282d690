"""The diffusion prior against diffusers' PriorTransformer with Karlo's switches: the same weights, the same answer."""

import pytest
import torch
from diffusers import PriorTransformer
from torch import Tensor

from unclip.networks.prior_diffusion import DiffusionPrior, DiffusionPriorConfig, PriorCondition

RENAMED = {
    "time_embedding.": "label.",
    "proj_in.": "image_in.",
    "encoder_hidden_states_proj.": "states_in.",
    "embedding_proj.": "text_in.",
    "norm_out.": "norm_out.",
    "proj_to_clip_embeddings.": "image_out.",
    "transformer_blocks.": "transformer.blocks.",
}
IN_BLOCKS = {
    ".norm1.": ".norm_1.",
    ".norm3.": ".norm_2.",
    ".attn1.to_out.0.": ".attention.out.",
    ".ff.net.0.proj.": ".mlp.0.",
    ".ff.net.2.": ".mlp.2.",
}


def from_diffusers(state: dict[str, Tensor], ours: dict[str, Tensor]) -> dict[str, Tensor]:
    """PriorTransformer's weights in our names. Karlo knows no learned null caption: `ours` lends it."""
    renamed = {name: ours[name] for name in ("null_state", "null_text")}
    for name, tensor in state.items():
        for theirs, replacement in RENAMED.items():
            if name.startswith(theirs):
                name = replacement + name.removeprefix(theirs)
                break
        for theirs, replacement in IN_BLOCKS.items():
            name = name.replace(theirs, replacement)
        renamed[name] = tensor
    renamed["query"] = renamed.pop("prd_embedding")[0, 0]
    renamed["positions"] = renamed.pop("positional_embedding")[0]
    renamed["embedding_mean"] = renamed.pop("clip_mean")[0]
    renamed["embedding_std"] = renamed.pop("clip_std")[0]
    for query in [name for name in renamed if ".attn1.to_q." in name]:
        parts = [renamed.pop(query.replace("to_q", f"to_{letter}")) for letter in "qkv"]
        renamed[query.replace("attn1.to_q", "attention.qkv")] = torch.cat(parts)
    return renamed


@pytest.fixture(scope="module")
def both() -> tuple[DiffusionPrior, PriorTransformer]:
    theirs = PriorTransformer(
        num_attention_heads=2, attention_head_dim=8, num_layers=2, embedding_dim=12, num_embeddings=5
    ).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(0.3 * noise + ("norm" in name and name.endswith("weight")))
    ours = DiffusionPrior(
        DiffusionPriorConfig(embedding=12, context=5, text_width=12, width=16, layers=2, heads=2)
    ).eval()
    ours.load_state_dict(from_diffusers(theirs.state_dict(), ours.state_dict()))
    return ours, theirs


def inputs() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "hidden_states": torch.randn(3, 12, generator=generator),
        "timestep": torch.tensor([0, 421, 999]),
        "proj_embedding": torch.randn(3, 12, generator=generator),
        "encoder_hidden_states": torch.randn(3, 5, 12, generator=generator),
        "attention_mask": torch.arange(5) < torch.tensor([[5], [3], [1]]),
    }


@torch.no_grad()
def ask(prior: DiffusionPrior, given: dict[str, Tensor]) -> Tensor:
    condition = PriorCondition(
        given["proj_embedding"],
        given["encoder_hidden_states"],
        given["attention_mask"],
        torch.ones(3, dtype=torch.bool),
    )
    return prior(given["hidden_states"], given["timestep"].float(), condition)


@torch.no_grad()
def test_predictions_and_the_scale_of_embeddings(both):
    ours, theirs = both
    expected = theirs(**inputs()).predicted_image_embedding
    torch.testing.assert_close(ask(ours, inputs()), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours.unstandardise(expected), theirs.post_process_latents(expected))


@torch.no_grad()
def test_the_comparison_can_fail(both):
    ours, theirs = both
    other = inputs() | {"attention_mask": torch.ones(3, 5, dtype=torch.bool)}
    difference = (ask(ours, other) - theirs(**inputs()).predicted_image_embedding).abs().amax(1)
    assert (difference > 1e-3).tolist() == [False, True, True]
