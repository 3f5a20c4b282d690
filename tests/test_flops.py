"""Training costs are counted, and docs/training.md has the counts."""

import runpy
from pathlib import Path

import pytest
import torch
from torch import nn

from unclip import recipes

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def flops() -> dict:
    """benchmarks/flops.py."""
    return runpy.run_path(str(ROOT / "benchmarks" / "flops.py"))


def test_a_layer_costs_two_operations_per_weight(flops: dict) -> None:
    layer, x = nn.Linear(3, 5), torch.zeros(flops["BATCH"], 3)
    assert flops["counted"](layer, lambda: layer(x)) == (2 * 3 * 5, 3 * 5 + 5)


@pytest.mark.parametrize("name", recipes.CHAINS["artwork"])
def test_the_page_has_the_counts(flops: dict, name: str) -> None:
    config = recipes.get("judge", "clip") if name == "judge" else recipes.get("artwork", name)
    found = flops["cost"](config, recipes.get("artwork", "clip").model)
    step = 3 * found.forward
    row = (
        f"| {name} | {found.parameters / 1e6:.1f} M | {step / 1e9:.2f} | {config.samples:,} "
        f"| {step * config.samples / 1e15:.2f} |"
    )
    assert row in PAGE
