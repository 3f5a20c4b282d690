"""The multilingual text encoder of Kandinsky 2.1 against diffusers' `MultilingualCLIP`."""

import pytest
import torch
from diffusers.pipelines.kandinsky.text_encoder import MCLIPConfig, MultilingualCLIP

from unclip.errors import ModelError
from unclip.formats.key_maps.multilingual import read_config, table
from unclip.networks.multilingual import Multilingual

CONTEXT = 13


@pytest.fixture(scope="module")
def theirs(spread) -> MultilingualCLIP:
    config = MCLIPConfig(
        transformerDimSize=28,
        imageDimSize=24,
        vocab_size=50,
        hidden_size=28,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=52,
        max_position_embeddings=CONTEXT + 2,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
    )
    return spread(MultilingualCLIP(config), 4)


@torch.no_grad()
def test_embeddings_and_states(theirs):
    network = Multilingual(read_config(theirs.config.to_dict(), CONTEXT, "text_encoder"))
    state = {f"text/{name}": value for name, value in theirs.state_dict().items()}
    made = table("text/").to_ours(network.state_dict(), list(state), state.__getitem__, "text")
    network.load_state_dict(dict(made))
    tokens = torch.randint(3, 50, (3, CONTEXT), generator=torch.Generator().manual_seed(0))
    for row, length in enumerate((2, 6, CONTEXT)):
        tokens[row, length:] = 1
    mask = (tokens != 1).long()
    embedding, states = theirs(tokens, mask)
    assert embedding.std() > 0.1
    actual = network.encode_text(tokens)
    torch.testing.assert_close(actual.embedding, embedding, atol=1e-5, rtol=0)
    torch.testing.assert_close(actual.states, states, atol=1e-5, rtol=0)
    assert torch.equal(actual.mask, mask.bool())
    with pytest.raises(ValueError, match="captions have 5 tokens, this text encoder reads 13"):
        network.encode_text(tokens[:, :5])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_act": "relu"}, "hidden_act is 'relu'"),
        ({"layer_norm_eps": 1e-12}, "layer_norm_eps is 1e-12"),
        ({"transformerDimensions": 32}, "transformerDimensions is 32, its hidden_size is 28"),
        ({"max_position_embeddings": 12}, "12 positions reach 10 tokens"),
    ],
)
def test_another_architecture_is_refused(theirs, change, message):
    with pytest.raises(ModelError, match=message):
        read_config(theirs.config.to_dict() | change, CONTEXT, "text_encoder")
