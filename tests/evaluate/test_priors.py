"""The comparison of priors takes in the autoregressive one where the model has it, drawn as the paper draws it."""

import torch
from torch import nn

from unclip.evaluate.ablations import compare, priors
from unclip.evaluate.evaluation import Evaluation
from unclip.generate.system import System
from unclip.networks.prior_autoregressive import AutoregressivePrior, AutoregressivePriorConfig


def test_both_priors_are_compared(system, judge, config, cache):
    torch.manual_seed(0)
    sizes = {"embedding": 16, "context": 12, "text_width": 32, "width": 16}
    prior = AutoregressivePrior(
        AutoregressivePriorConfig(dimensions=3, buckets=5, dot_buckets=4, layers=1, heads=2, **sizes)
    )
    prior.fit(torch.randn(50, 16), torch.rand(50))
    parts = {name: system.part(name, nn.Module) for name in system.parts}
    both = System.of({**parts, "prior_autoregressive": prior}, system.tokenizer, defaults=system.defaults)
    rows = compare(Evaluation(both, config(), judge=judge, cache=cache), priors(both))
    assert [row.changed for row in rows] == [
        {"prior": "none"},
        {"prior": "text"},
        {"prior": "diffusion"},
        {"prior": "autoregressive", "candidates": 1},
    ]
    assert len({row.frechet for row in rows}) == 4
