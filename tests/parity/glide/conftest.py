"""GLIDE small, with random weights and with the switches of the real one, in the classes of `reference.py`."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from unclip.formats.glide import GLIDE, Sizes, configs, table
from unclip.networks.glide import Glide, GlideConfig, GlideTextConfig, GlideUpsampler
from unclip.networks.unet import UnetConfig

CONTEXT = 12
SMALL: dict[str, Any] = {"channels": 32, "head": 16, "context": CONTEXT, "width": 24, "layers": 2, "heads": 4}


@pytest.fixture(scope="session")
def reference() -> ModuleType:
    """The module `reference.py`."""
    spec = importlib.util.spec_from_file_location("glide_reference", Path(__file__).with_name("reference.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@torch.no_grad()
def _filled(net: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Matrices N(0, 1/fan_in), biases N(0, 0.1), scales of norms 1 + N(0, 0.1), and a small last layer."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in net.named_parameters():
        drawn = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim >= 2:
            parameter.copy_(drawn * (0.3 if "embedding" in name else parameter[0].numel() ** -0.5))
        else:
            parameter.copy_(1 + 0.1 * drawn if name.endswith("weight") else 0.1 * drawn)
        if name.startswith("out.2."):
            parameter.mul_(0.3)
    return net.eval()


@pytest.fixture(scope="session")
def nets(reference, words) -> dict[str, torch.nn.Module]:
    """Reference nets of the four files, by their name."""
    given = SMALL | {"vocabulary": len(words[0])}
    inputs = {"base": 3, "base_inpaint": 7, "upsample": 6, "upsample_inpaint": 10}
    made = {}
    for seed, (name, channels) in enumerate(inputs.items()):
        shape = reference.UPSAMPLER if name.startswith("upsample") else {}
        made[name] = _filled(reference.Net(**(shape | given | {"inputs": channels})), seed)
    return made


@pytest.fixture(scope="session")
def words() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges in GPT-2's form: bytes, merges, and the end of the text."""
    from tokenizers import pre_tokenizers

    merges = [("c", "a"), ("ca", "t"), ("Ġ", "c"), ("r", "e"), ("re", "d"), ("Ġ", "red"), ("a", "Ġred")]
    pieces = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *map("".join, merges), "<|endoftext|>"]
    return {piece: index for index, piece in enumerate(pieces)}, merges


@pytest.fixture(scope="session")
def sizes(words) -> Sizes:
    """Configs of nets as small as the reference's."""
    text = GlideTextConfig(vocabulary=len(words[0]), context=CONTEXT, width=24, layers=2, heads=4)

    def small(config: UnetConfig) -> UnetConfig:
        own = {"channels": 32, "head_channels": 16, "context_width": 24, "vector_width": 128}
        return UnetConfig(**{**vars(config), **own})

    return Sizes(
        base=small(GLIDE.base), upsampler=small(GLIDE.upsampler), text=text, low_size=32, high_size=128
    )


def _ours(theirs: torch.nn.Module, config: Any) -> Glide:
    network = Glide(config) if isinstance(config, GlideConfig) else GlideUpsampler(config)
    state = theirs.state_dict()
    made = table(config).to_ours(network.state_dict(), list(state), state.__getitem__, "glide")
    network.load_state_dict(dict(made))
    return network.eval()


@pytest.fixture(scope="session")
def networks(nets, sizes) -> dict[str, Glide]:
    """Our networks with the reference's weights, by the same names."""
    made = {}
    for inpainting in (False, True):
        for config in configs(sizes, inpainting=inpainting):
            name = "base" if isinstance(config, GlideConfig) else "upsample"
            name += "_inpaint" * inpainting
            made[name] = _ours(nets[name], config)
    return made
