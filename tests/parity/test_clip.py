"""CLIP against transformers' CLIPModel: the same weights, the same embeddings, states and loss."""

import pytest
import torch
from torch import Tensor
from transformers import CLIPConfig, CLIPModel

from unclip.networks.clip import Clip, ClipConfig, TextConfig, VisionConfig

END = 29
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
TOKENS = torch.tensor([[28, 3, 4, END, 0, 0, 0], [28, 5, END, END, END, END, END], [28, 6, 7, 8, 9, 10, END]])

TOP = {
    "text_model.embeddings.token_embedding.weight": "text.tokens.weight",
    "text_model.embeddings.position_embedding.weight": "text.positions",
    "text_projection.weight": "text.project.weight",
    "vision_model.embeddings.class_embedding": "vision.class_token",
    "vision_model.embeddings.patch_embedding.weight": "vision.patches.weight",
    "vision_model.embeddings.position_embedding.weight": "vision.positions",
    "visual_projection.weight": "vision.project.weight",
    "logit_scale": "logit_scale",
}
PREFIXES = {
    "text_model.final_layer_norm.": "text.norm_out.",
    "vision_model.pre_layrnorm.": "vision.norm_in.",
    "vision_model.post_layernorm.": "vision.norm_out.",
    "text_model.encoder.layers.": "text.transformer.blocks.",
    "vision_model.encoder.layers.": "vision.transformer.blocks.",
}
IN_BLOCKS = {
    ".layer_norm1.": ".norm_1.",
    ".layer_norm2.": ".norm_2.",
    ".self_attn.out_proj.": ".attention.out.",
    ".mlp.fc1.": ".mlp.0.",
    ".mlp.fc2.": ".mlp.2.",
}


def from_transformers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """CLIPModel's weights in our names; queries, keys and values are joined along their rows, in this order."""
    ours = {}
    for name, tensor in state.items():
        new = TOP.get(name, name)
        for table in (PREFIXES, IN_BLOCKS):
            for theirs, replacement in table.items():
                new = new.replace(theirs, replacement)
        ours[new] = tensor
    for query in [name for name in ours if ".q_proj." in name]:
        parts = [ours.pop(query.replace(".q_proj.", f".{letter}_proj.")) for letter in "qkv"]
        ours[query.replace(".self_attn.q_proj.", ".attention.qkv.")] = torch.cat(parts)
    return ours


def pair(activation: str, normalize: bool = True) -> tuple[Clip, CLIPModel]:
    theirs = CLIPModel(
        CLIPConfig(
            text_config={
                "vocab_size": 30,
                "max_position_embeddings": 7,
                "eos_token_id": END,
                "hidden_size": 24,
                "intermediate_size": 96,
                "num_hidden_layers": 3,
                "num_attention_heads": 3,
                "hidden_act": activation,
            },
            vision_config={
                "image_size": 12,
                "patch_size": 4,
                "hidden_size": 16,
                "intermediate_size": 64,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "hidden_act": activation,
            },
            projection_dim=10,
        )
    ).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if name != "logit_scale":
                noise = torch.randn(parameter.shape, generator=generator)
                norm_weight = "norm" in name and name.endswith("weight")
                parameter.copy_(0.3 * noise + norm_weight)
    ours = Clip(
        ClipConfig(
            embedding=10,
            vision=VisionConfig(
                size=12, patch=4, width=16, layers=2, heads=2, activation=activation, mean=MEAN, std=STD
            ),
            text=TextConfig(
                vocabulary=30, context=7, end=END, width=24, layers=3, heads=3, activation=activation
            ),
            normalize=normalize,
        )
    ).eval()
    ours.load_state_dict(from_transformers(theirs.state_dict()))
    return ours, theirs


def pictures() -> tuple[Tensor, Tensor]:
    """In [-1, 1], and as CLIP's image processor would hand them over."""
    x = torch.rand(3, 3, 12, 12, generator=torch.Generator().manual_seed(1)) * 2 - 1
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    return x, ((x + 1) / 2 - mean) / std


@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
@torch.no_grad()
def test_both_towers_and_the_loss(activation):
    ours, theirs = pair(activation)
    x, pixel_values = pictures()
    expected = theirs(input_ids=TOKENS, pixel_values=pixel_values, return_loss=True)
    image, text = ours.encode_image(x), ours.encode_text(TOKENS)
    torch.testing.assert_close(image, expected.image_embeds, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(text.embedding, expected.text_embeds, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours.loss(image, text.embedding), expected.loss, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
@torch.no_grad()
def test_embeddings_before_normalisation_and_hidden_states(activation):
    """What Karlo's prior and decoder read."""
    ours, theirs = pair(activation, normalize=False)
    x, pixel_values = pictures()
    vision = theirs.vision_model(pixel_values=pixel_values).pooler_output
    text = theirs.text_model(input_ids=TOKENS)
    encoding = ours.encode_text(TOKENS)
    near = {"atol": 1e-5, "rtol": 1e-5}
    torch.testing.assert_close(ours.encode_image(x), theirs.visual_projection(vision), **near)
    torch.testing.assert_close(encoding.states, text.last_hidden_state, **near)
    torch.testing.assert_close(encoding.embedding, theirs.text_projection(text.pooler_output), **near)


@torch.no_grad()
def test_the_comparison_can_fail():
    """The two activations differ by more than the tolerance, and so does a picture normalised in another way."""
    exact, _ = pair("gelu")
    quick, _ = pair("quick_gelu")
    x, pixel_values = pictures()
    assert (exact.encode_image(x) - quick.encode_image(x)).abs().max() > 1e-3
    assert (exact.encode_text(TOKENS).embedding - quick.encode_text(TOKENS).embedding).abs().max() > 1e-3
    assert (exact.encode_image(x) - exact.encode_image(pixel_values)).abs().max() > 1e-3
