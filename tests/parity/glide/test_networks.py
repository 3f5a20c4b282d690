"""GLIDE's four networks against the reference beside this file, and every weight of the released sizes."""

import pytest
import torch
from torch.nn import functional as F

from unclip.checkpoints.io import build
from unclip.formats import glide
from unclip.networks.glide import Glide, GlideCondition

COUNTS = {"base": 385_030_726, "base_inpaint": 385_037_638, "upsample": 398_361_286}
COUNTS["upsample_inpaint"] = 398_368_198


@torch.no_grad()
@pytest.mark.parametrize("name", list(COUNTS))
def test_predictions(nets, networks, name):
    net, network, generator = nets[name], networks[name], torch.Generator().manual_seed(0)
    context, padding = network.config.text.context, network.config.text.padding
    tokens = torch.randint(padding, (3, context), generator=generator)
    lengths = torch.tensor([0, 5, context])
    mask = torch.arange(context) < lengths[:, None]
    side = 32 if name.startswith("base") else 64
    x = torch.randn(3, 3, side, side, generator=generator)
    times = torch.tensor([999, 500, 3])
    read, hint, low = [x], None, None
    if name.endswith("inpaint"):
        pixels = torch.rand(3, 3, side, side, generator=generator) * 2 - 1
        known = (torch.rand(3, 1, side, side, generator=generator) < 0.5).float()
        hint = torch.cat([pixels * known, known], dim=1)
        read += [pixels * known, known]
    if name.startswith("upsample"):
        low = torch.rand(3, 3, side // 4, side // 4, generator=generator) * 2 - 1
        eighths = ((low + 1) * 127.5).round() / 127.5 - 1
        read.append(F.interpolate(eighths, (side, side), mode="bilinear", align_corners=False))
    expected = net(torch.cat(read, dim=1), times, tokens, mask)
    assert expected.std() > 0.05
    given = GlideCondition(torch.where(mask, tokens, padding), hint, low)
    actual = network(x, times.float(), network.encode(given))
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0)
    # The controls: every condition is part of what was compared.
    changes = [GlideCondition(given.tokens.roll(1, 0), hint, low)]
    changes += [GlideCondition(given.tokens, -hint, low)] if hint is not None else []
    changes += [GlideCondition(given.tokens, hint, -low)] if low is not None else []
    for other in changes:
        assert (network(x, times.float(), network.encode(other)) - expected).abs().max() > 1e-3


@pytest.mark.parametrize("name", list(COUNTS))
def test_every_weight_at_full_size(reference, name):
    inpainting = name.endswith("inpaint")
    config = glide.configs(glide.GLIDE, inpainting=inpainting)[int(name.startswith("upsample"))]
    shape = reference.UPSAMPLER if name.startswith("upsample") else {}
    with torch.device("meta"):
        theirs = reference.Net(**shape | {"inputs": config.net.in_channels}).state_dict()
    ours = glide.table(config).to_theirs(build(Glide, config).state_dict())
    assert {key: value.shape for key, value in ours.items()} == {
        key: value.shape for key, value in theirs.items()
    }
    assert sum(value.numel() for value in ours.values()) == COUNTS[name]


def test_conditions_that_do_not_fit(networks):
    tokens = torch.zeros(1, networks["base"].config.text.context, dtype=torch.int64)
    with pytest.raises(ValueError, match="reads no small pictures"):
        networks["base"].encode(GlideCondition(tokens, low=torch.zeros(1, 3, 8, 8)))
    with pytest.raises(ValueError, match="needs small pictures"):
        networks["upsample"].encode(GlideCondition(tokens))
    with pytest.raises(ValueError, match="not trained to inpaint"):
        networks["base"].encode(GlideCondition(tokens, hint=torch.zeros(1, 4, 32, 32)))
    with pytest.raises(ValueError, match="captions have 3 tokens, this text encoder reads 12"):
        networks["base"].encode(GlideCondition(tokens[:, :3]))
