"""The scripts in docs/, as modules; and a tiny model of the bundled one's sizes, whose pictures mean nothing."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

from unclip.checkpoints.io import save_model
from unclip.diffusion.parametrization import ProcessConfig
from unclip.models.clip import Clip, ClipConfig, TextConfig, VisionConfig
from unclip.models.decoder import CaptionConfig, Decoder, DecoderConfig
from unclip.models.patch_transformer import PatchTransformerConfig
from unclip.models.prior_diffusion import DiffusionPrior, DiffusionPriorConfig
from unclip.models.unet import UnetConfig
from unclip.models.upsampler import Upsampler, UpsamplerConfig
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
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder that draws 64 and 256 px, inpaints, and takes a few milliseconds a picture."""
    torch.manual_seed(0)
    tokenizer = ClipTokenizer.train(
        (ROOT / "docs" / "captions.txt").read_text().splitlines(), vocabulary=560, context=24
    )
    text = {"vocabulary": tokenizer.vocabulary, "context": tokenizer.context, "end": tokenizer.end}
    flow = ProcessConfig(parametrization="x0", schedule="flow")
    parts = {
        "clip": Clip(
            ClipConfig(
                embedding=128,
                vision=VisionConfig(size=64, patch=32, width=32, layers=1, heads=2),
                text=TextConfig(width=32, layers=1, heads=2, **text),
            )
        ),
        "prior": DiffusionPrior(
            DiffusionPriorConfig(embedding=128, context=24, text_width=32, width=32, layers=1, heads=2)
        ),
        "decoder": Decoder(
            DecoderConfig(
                net=PatchTransformerConfig(
                    size=64, in_channels=7, patch=32, width=32, layers=1, head_channels=16, context_width=32
                ),
                size=64,
                embedding=128,
                image_tokens=1,
                inpainting=True,
                caption=CaptionConfig(width=32, layers=1, heads=2, **text),
                process=flow,
            )
        ),
        "upsampler": Upsampler(
            UpsamplerConfig(
                net=UnetConfig(
                    in_channels=6, channels=32, multiples=(1,), blocks=1, patch=32, label_scale=1000.0
                ),
                process=flow,
            )
        ),
    }
    # Layers that start at zero would make every picture the same grey.
    with torch.no_grad():
        for network in parts.values():
            for parameter in network.parameters():
                if parameter.count_nonzero() == 0:
                    parameter.normal_(std=0.05)
    defaults = {"steps": 1, "prior_steps": 1, "upsampler_steps": 1, "candidates": 1, "guidance": 1.0}
    folder = tmp_path_factory.mktemp("docs") / "model"
    return save_model(folder, parts, name="tiny", tokenizer=tokenizer.to_json(), defaults=defaults)
