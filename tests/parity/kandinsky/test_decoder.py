"""Kandinsky's decoders against diffusers' `UNet2DConditionModel`: the same weights, the same predictions."""

from typing import Any

import pytest
import torch

from unclip.diffusion.conventions import GridConfig
from unclip.diffusion.parametrization import ProcessConfig
from unclip.errors import ModelError
from unclip.formats.key_maps import kandinsky as kandinsky_map
from unclip.formats.key_maps.kandinsky_scheduler import Schedule
from unclip.networks.clip import TextEncoding
from unclip.networks.kandinsky import KandinskyCondition, KandinskyDecoder

SCHEDULE = Schedule(
    process=ProcessConfig(parametrization="eps", schedule="linear", learned_variance=True),
    grid=GridConfig(),
    clip=None,
    sampler="ddpm",
)
CONTEXT = 7


def named(model: torch.nn.Module) -> dict[str, Any]:
    """The config as diffusers writes it."""
    return {
        "_class_name": type(model).__name__,
        **{k: list(v) if isinstance(v, tuple) else v for k, v in model.config.items()},
    }


def read(data: dict[str, Any]):
    return kandinsky_map.decoder_config(
        data, SCHEDULE, channels=4, factor=8, context=CONTEXT, where="the decoder"
    )


def ours(theirs: torch.nn.Module) -> KandinskyDecoder:
    network = KandinskyDecoder(read(named(theirs)))
    state = {f"unet/{name}": value for name, value in theirs.state_dict().items()}
    table = kandinsky_map.table(network.config)
    network.load_state_dict(dict(table.to_ours(network.state_dict(), list(state), state.__getitem__, "unet")))
    return network.eval()


@torch.no_grad()
@pytest.mark.parametrize("channels", [4, 9])
@pytest.mark.parametrize("version", ["2.1", "2.2"])
def test_predictions(unets, version, channels):
    theirs = unets[version, channels]
    assert len(theirs.state_dict()) == {"2.1": 726, "2.2": 724}[version]
    network, generator = ours(theirs), torch.Generator().manual_seed(0)
    config = network.config

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    x, hint, label = normal(2, 4, 16, 8), normal(2, 5, 16, 8), torch.tensor([999.0, 41.0])
    z_i = normal(2, config.embedding)
    added: dict[str, Any] = {"image_embeds": z_i}
    states, text = None, None
    if config.text is not None:
        states, pooled = normal(2, CONTEXT, config.text.width), normal(2, config.text.embedding)
        added["text_embeds"] = pooled
        # The mask of the caption takes no part.
        text = TextEncoding(pooled, states, torch.arange(CONTEXT) < torch.tensor([[3], [7]]))
    given = x if channels == 4 else torch.cat([x, hint], dim=1)
    expected = theirs(given, label, encoder_hidden_states=states, added_cond_kwargs=added).sample
    assert expected.std() > 0.1
    condition = KandinskyCondition(z_i, text, None if channels == 4 else hint)
    actual = network(x, label, network.encode(condition))
    torch.testing.assert_close(actual, expected, atol=1e-5 * expected.abs().max().item(), rtol=0)
    # The control: every condition is part of what was compared.
    other = network(x, label, network.encode(KandinskyCondition(z_i.flip(0), text, condition.hint)))
    assert (other - expected).abs().max() > 1e-2


@pytest.mark.parametrize("version", ["2.1", "2.2"])
def test_training_reads_the_tokens_itself(unets, version):
    network = ours(unets[version, 4])
    config = network.config
    text = None
    if config.text is not None:
        states, pooled = torch.ones(1, CONTEXT, config.text.width), torch.ones(1, config.text.embedding)
        text = TextEncoding(pooled, states, torch.ones(1, CONTEXT, dtype=torch.bool))
    condition = KandinskyCondition(torch.ones(1, config.embedding), text)
    x, label = torch.ones(1, 4, 8, 8), torch.tensor([7.0])
    trained = network(x, label, network.encode(condition))
    trained.mean().backward()
    assert all(weight.grad is not None for weight in network.parameters())
    with torch.no_grad():
        torch.testing.assert_close(network(x, label, network.encode(condition)), trained)


def test_every_option_is_listed(unets):
    names = {name for name in unets["2.2", 4].config if not name.startswith("_")}
    assert names == kandinsky_map.UNET.options


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"addition_embed_type": "image_hint"}, "a decoder that reads depth"),
        ({"encoder_hid_dim_type": "text_proj"}, "neither Kandinsky 2.2"),
        ({"encoder_hid_dim": None}, "encoder_hid_dim' is missing"),
        ({"in_channels": 8}, "in_channels is 8; over latents of 4 channels it is 4, or 9"),
        ({"out_channels": 4}, "must be 4 and 8 for this decoder, not 4 and 4"),
        ({"class_embed_type": "timestep"}, "class_embed_type is 'timestep'"),
        ({"down_block_types": ["CrossAttnDownBlock2D"] * 4}, "CrossAttnDownBlock2D"),
    ],
)
def test_another_architecture_is_refused(unets, change, message):
    with pytest.raises(ModelError, match=message):
        read(named(unets["2.2", 4]) | change)


def test_conditions_that_do_not_fit(unets):
    network = ours(unets["2.2", 4])
    with pytest.raises(ValueError, match="has 5 channels, this decoder reads 20"):
        network.encode(KandinskyCondition(torch.ones(1, 5)))
    with pytest.raises(ValueError, match="not trained to inpaint"):
        network.encode(KandinskyCondition(torch.ones(1, 20), hint=torch.ones(1, 5, 8, 8)))
    with pytest.raises(ValueError, match="this decoder reads captions"):
        ours(unets["2.1", 4]).encode(KandinskyCondition(torch.ones(1, 24)))
