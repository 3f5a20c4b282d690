"""The ablation of priors includes the autoregressive one where the model has it, sampled as in the paper."""

import torch

from unclip.evaluate.ablations import compare, priors
from unclip.evaluate.evaluation import Evaluation
from unclip.generate.model import Model
from unclip.networks.prior_autoregressive import AutoregressivePrior, AutoregressivePriorConfig


def test_both_priors_are_compared(model, networks, judge, config, cache):
    torch.manual_seed(0)
    sizes = {"embedding": 16, "context": 12, "text_width": 32, "width": 16}
    prior = AutoregressivePrior(
        AutoregressivePriorConfig(dimensions=3, buckets=5, dot_buckets=4, layers=1, heads=2, **sizes)
    )
    prior.fit(torch.randn(50, 16), torch.rand(50))
    parts = {**networks, "prior_autoregressive": prior}
    both = Model.of(parts, model.parts.tokenizer, defaults=model.defaults)
    rows = compare(Evaluation(both, config(), judge=judge, cache=cache), priors(both))
    assert [row.changed for row in rows] == [
        {"prior": "none"},
        {"prior": "text"},
        {"prior": "diffusion"},
        {"prior": "autoregressive", "candidates": 1},
    ]
    assert len({row.frechet for row in rows}) == 4
