"""Which optimiser has which parameter, and at what rate."""

import pytest
import torch

from unclip.train.ema import Ema
from unclip.train.optim import OptimizerConfig, build_optimizers, schedule, set_rate


def test_schedule():
    config = OptimizerConfig(warmup=0.1, decay=0.5)
    found = [schedule(config, progress) for progress in (0.0, 0.05, 0.1, 0.3, 0.5, 0.75, 1.0)]
    assert found == pytest.approx([0, 0.5, 1, 1, 1, 0.5, 0])
    constant = OptimizerConfig(warmup=0.0, decay=0.0)
    assert [schedule(constant, progress) for progress in (0.0, 0.5, 1.0)] == [1, 1, 1]


def test_rates_are_shares_of_the_peak():
    parameter = torch.nn.Parameter(torch.zeros(2))
    (optimizer,) = build_optimizers([("a", parameter)], OptimizerConfig(learning_rate=0.2), fused=True)
    for factor in (0.5, 0.25, 1.0):
        set_rate([optimizer], factor)
        assert {group["lr"] for group in optimizer.param_groups} == {0.2 * factor}


@pytest.mark.parametrize("stage", ["clip", "prior", "decoder", "upsampler"])
def test_muon_has_hidden_matrices_only(small, begin, stage):
    model = begin(small(stage)).state.model
    config = OptimizerConfig(muon_learning_rate=0.01)
    optimizers = build_optimizers(model.named_parameters(), config, fused=True)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    owned = [
        [names[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]
        for optimizer in optimizers
    ]
    assert sorted(name for own in owned for name in own) == sorted(names.values())
    if stage == "upsampler":
        assert len(owned) == 1
        return
    adam, muon = owned
    assert muon
    assert all(".blocks." in name and name.endswith("weight") for name in muon)
    assert all(dict(model.named_parameters())[name].ndim == 2 for name in muon)
    # Embeddings, projections in and out, and all that is no matrix are AdamW's.
    assert not any(".blocks." in name and dict(model.named_parameters())[name].ndim == 2 for name in adam)


def test_decay_spares_what_is_no_matrix():
    net = torch.nn.Sequential(torch.nn.Conv2d(2, 2, 1), torch.nn.LayerNorm(2))
    (optimizer,) = build_optimizers(net.named_parameters(), OptimizerConfig(weight_decay=0.1), fused=True)
    decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert [decays[id(p)] for p in net.parameters()] == [0.1, 0.0, 0.0, 0.0]


def test_average():
    net = torch.nn.Linear(2, 2, bias=False)
    net.register_buffer("count", torch.tensor(3))
    ema = Ema(net, decay=0.5)
    expected = net.weight.detach().clone()
    for step in range(1, 12):
        torch.nn.init.normal_(net.weight)
        net.count += 1
        ema.update(net, step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * net.weight.detach()
    torch.testing.assert_close(ema.average["weight"], expected)
    assert ema.average["count"] == 14


def test_applied_average_leaves_no_trace():
    net = torch.nn.Linear(2, 2)
    ema = Ema(net, decay=0.9)
    torch.nn.init.normal_(net.weight)
    own = net.weight.detach().clone()

    def look() -> None:
        with ema.applied(net):
            assert not net.training
            assert torch.equal(net.weight, ema.average["weight"])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        look()
    assert net.training
    assert torch.equal(net.weight, own)
    assert not torch.equal(net.weight, ema.average["weight"])
