"""Registry of formats: recognised without torch, opened by one module each, tried in a fixed order."""

import importlib
import json
import subprocess
import sys

import pytest

from unclip.checkpoints.io import save_model
from unclip.errors import ModelError
from unclip.formats import registry
from unclip.formats.folder import weight_files
from unclip.formats.registry import FORMATS, format_name, format_of, resolve
from unclip.networks.clip import Clip, ClipConfig, TextConfig, VisionConfig


def test_every_format_has_a_name_of_its_own_and_a_module_that_opens_it():
    assert len({one.name for one in FORMATS}) == len(FORMATS)
    for one in FORMATS:
        assert callable(importlib.import_module(f"unclip.formats.{one.module}").open_folder)


def test_formats_are_recognised_without_torch(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "PriorTransformer"}))
    program = (
        "import sys; from pathlib import Path; from unclip.formats import registry, pull;"
        f"print(registry.format_name(Path({str(tmp_path)!r})), 'torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["eclipse", "prior", "False"]


@pytest.mark.parametrize(
    ("file", "data", "name"),
    [
        ("model_index.json", {"_class_name": "UnCLIPPipeline"}, "karlo"),
        ("model_index.json", {"_class_name": "UnCLIPImageVariationPipeline"}, "karlo"),
        ("model_index.json", {"_class_name": "KandinskyPriorPipeline"}, "kandinsky prior"),
        ("model_index.json", {"_class_name": "KandinskyV22PriorPipeline"}, "kandinsky prior"),
        ("config.json", {"model_type": "clip"}, "clip"),
        ("config.json", {"model_type": "bert"}, ""),
        ("config.json", {"_class_name": "PriorTransformer"}, "eclipse prior"),
        ("open_clip_config.json", {}, "openclip"),
        ("prior_config.json", {}, "laion prior"),
        ("prior/prior_config.json", {}, "laion prior"),
        ("model.json", {}, "unclip"),
    ],
)
def test_formats_are_told_by_their_configs(tmp_path, file, data, name):
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(json.dumps(data))
    assert format_name(tmp_path) == name
    (tmp_path / file).write_text("{")
    assert format_name(tmp_path) in ("", name)


def test_a_clip_in_two_layouts_is_read_from_the_one_that_is_not_pickled(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip"}))
    (tmp_path / "open_clip_config.json").write_text("{}")
    (tmp_path / "open_clip_pytorch_model.bin").touch()
    (tmp_path / "model.safetensors").touch()
    assert format_name(tmp_path) == "clip"
    (tmp_path / "open_clip_model.safetensors").touch()
    assert format_name(tmp_path) == "openclip"


def test_formats_of_pickled_files_are_for_conversion_alone(tmp_path):
    (tmp_path / "prior-ckpt-step=1.ckpt").touch()
    (tmp_path / "ViT-B-32.pt").touch()
    assert format_of(tmp_path) is None
    assert format_of(tmp_path, convert=True).name == "karlo original"
    assert format_of(tmp_path / "ViT-B-32.pt") is None
    assert format_of(tmp_path / "ViT-B-32.pt", convert=True).name == "openai clip"


def test_an_unknown_pipeline_is_named_with_those_that_are_known(tmp_path):
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "FluxPipeline"}))
    with pytest.raises(
        ModelError, match=r"FluxPipeline of diffusers; supported: UnCLIPPipeline, .*V22PriorPipeline"
    ):
        format_of(tmp_path)


def test_resolving_names_and_folders(tmp_path, monkeypatch):
    shape = {"width": 8, "layers": 1, "heads": 1}
    clip = Clip(ClipConfig(vision=VisionConfig(size=8, **shape), text=TextConfig(vocabulary=9, **shape)))
    folder = save_model(tmp_path / "tiny", {"clip": clip}, name="tiny")
    assert resolve(folder) == folder
    assert resolve(str(folder)) == folder
    monkeypatch.setattr(registry, "bundled", lambda: {"tiny": folder})
    assert resolve("tiny") == folder
    with pytest.raises(
        FileNotFoundError, match="there is no model 'tony': give a folder, or a bundled model: tiny"
    ):
        resolve("tony")
    with pytest.raises(FileNotFoundError, match=r"has no model\.json"):
        resolve(folder.parent)


def test_what_an_unknown_folder_holds_is_said(tmp_path):
    """Models one level below, parts without their index, and weights under a name that is not read."""
    (home := tmp_path / "models").mkdir()
    for index in range(7):
        (home / f"m{index}").mkdir()
        (home / f"m{index}" / "model_index.json").write_text("{}")
    with pytest.raises(
        FileNotFoundError, match="holds the model folders m0, m1, m2, m3, m4 and 2 more, give one"
    ):
        resolve(home)
    for part in ("unet", "vae"):
        (tmp_path / "half" / part).mkdir(parents=True)
        (tmp_path / "half" / part / "config.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=r"it holds unet, vae without the model_index\.json"):
        resolve(tmp_path / "half")
    (tmp_path / "half" / "unet" / "diffusion_pytorch_model.non_ema.safetensors").touch()
    with pytest.raises(
        ModelError, match=r"holds no weights under the names .*, but diffusion_.*non_ema\.safetensors"
    ):
        weight_files(tmp_path / "half" / "unet")
    with pytest.raises(ModelError, match="vae holds no weights: get the model again"):
        weight_files(tmp_path / "half" / "vae")
