"""A tiny model with random weights, and a judge of another shape, on the procedural shapes."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from unclip.checkpoints.io import save_model
from unclip.data.shapes import Shapes
from unclip.evaluate.config import EvaluationConfig
from unclip.evaluate.features import Encoder
from unclip.evaluate.questions import Group
from unclip.generate.model import Model
from unclip.networks.patch_transformer import PatchTransformerConfig
from unclip.stages.sampling import sampling
from unclip.tokenizers.clip import ClipTokenizer

DEFAULTS = sampling(steps=2, prior_steps=2, candidates=1, guidance=1.0)


@pytest.fixture(scope="session")
def tokenizer() -> ClipTokenizer:
    """Tokenizer trained on the shapes' captions."""
    shapes = Shapes()
    captions = [caption for index in range(48) for caption in shapes.info(index).captions]
    return ClipTokenizer.train(captions, vocabulary=560, context=12)


@pytest.fixture(scope="session")
def model_folder(tiny, tmp_path_factory: pytest.TempPathFactory, tokenizer: ClipTokenizer) -> Path:
    """Model folder with CLIP, prior and decoder of 16 px pictures."""
    torch.manual_seed(0)
    clip = tiny.clip(tokenizer)
    net = PatchTransformerConfig(size=16, patch=4, width=32, layers=1, head_channels=16, context_width=24)
    parts = tiny.shake({"clip": clip, "prior": tiny.prior(clip), "decoder": tiny.decoder(clip, net)})
    folder = tmp_path_factory.mktemp("evaluate") / "model"
    return save_model(folder, parts, name="random", tokenizer=tokenizer.to_json(), defaults=DEFAULTS)


@pytest.fixture(scope="session")
def model(model_folder: Path) -> Model:
    """The model of `model_folder`."""
    return Model.load(model_folder, device="cpu")


@pytest.fixture(scope="session")
def networks(model: Model) -> dict[str, nn.Module]:
    """The networks of `model`, to build others from."""
    found = {}
    for name in model.parts.names:
        with model.parts.lend(name, nn.Module) as found[name]:
            pass
    return found


@pytest.fixture(scope="session")
def judge(tiny, tokenizer: ClipTokenizer) -> Encoder:
    """A CLIP of another shape and seed, for 8 px pictures."""
    torch.manual_seed(1)
    return Encoder(tiny.clip(tokenizer, size=8, pool="mean"), tokenizer, name="judge")


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder for decoded pictures."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def config() -> Callable[..., EvaluationConfig]:
    """Factory of configs: eight captions of the shapes, seen and of another split."""

    def make(**changes: object) -> EvaluationConfig:
        given = {"count": 8, "choices": 5, "retrieval_count": 30, "batch": 5} | changes
        groups = (Group(name="seen", split="train", seen=True), Group(name="elsewhere", split="val"))
        return EvaluationConfig(data="shapes", groups=groups, **given)

    return make
