"""Fixtures: the scripts in docs/ as modules, and a tiny model of the sizes of the bundled one."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

from unclip.checkpoints.io import save_model
from unclip.networks.patch_transformer import PatchTransformerConfig
from unclip.networks.unet import UnetConfig
from unclip.networks.upsampler import Upsampler, UpsamplerConfig
from unclip.tokenizers.clip import ClipTokenizer

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="session")
def script() -> Callable[[str], ModuleType]:
    """`script("tree")` imports docs/tree.py."""

    def load(name: str) -> ModuleType:
        if name not in sys.modules:
            spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
            assert spec is not None
            assert spec.loader is not None
            sys.modules[name] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(sys.modules[name])
        return sys.modules[name]

    return load


@pytest.fixture(scope="session")
def model(tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder that draws 64 and 256 px, inpaints, and takes a few milliseconds a picture."""
    torch.manual_seed(0)
    tokenizer = ClipTokenizer.train(
        (ROOT / "docs" / "captions.txt").read_text().splitlines(), vocabulary=560, context=24
    )
    clip = tiny.clip(tokenizer, embedding=128, size=64, patch=32)
    net = PatchTransformerConfig(
        size=64, in_channels=7, patch=32, width=32, layers=1, head_channels=16, context_width=32
    )
    upsampler = UpsamplerConfig(
        net=UnetConfig(in_channels=6, channels=32, multiples=(1,), blocks=1, patch=32),
        process=tiny.flow,
    )
    parts = tiny.shake(
        {
            "clip": clip,
            "prior": tiny.prior(clip),
            "decoder": tiny.decoder(clip, net, image_tokens=1, inpainting=True),
            "upsampler": Upsampler(upsampler),
        }
    )
    defaults = {"steps": 1, "prior_steps": 1, "upsampler_steps": 1, "candidates": 1, "guidance": 1.0}
    folder = tmp_path_factory.mktemp("docs") / "model"
    return save_model(folder, parts, name="tiny", tokenizer=tokenizer.to_json(), defaults=defaults)
