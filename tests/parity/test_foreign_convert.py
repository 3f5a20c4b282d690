"""`unclip convert`: pickled Karlo as a model folder of ours that draws the same; programs in pickles are refused."""

import json
import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import unclip
from unclip.checkpoints import convert as converting
from unclip.checkpoints.convert import convert
from unclip.checkpoints.manifest import ModelError, read_manifest
from unclip.checkpoints.unpickle import read, tensors

QUICK = {"prior_steps": 2, "steps": 2, "upsampler_steps": 2}


def as_pickle(folder: Path, component: str) -> Path:
    (file,) = (folder / component).glob("*.safetensors")
    pickled = file.with_suffix(".bin")
    torch.save(load_file(file), pickled)
    file.unlink()
    return pickled


def test_a_folder_with_pickles_is_converted_and_draws_the_same(karlo_folder, tmp_path):
    source = tmp_path / "karlo"
    shutil.copytree(karlo_folder, source)
    as_pickle(source, "prior")
    # The tag of the oldest folders, and half precision beside full.
    index = json.loads((source / "model_index.json").read_text())
    index["text_proj"][0] = "unclip"
    (source / "model_index.json").write_text(json.dumps(index))
    shutil.copy(
        source / "decoder" / "diffusion_pytorch_model.safetensors",
        source / "decoder" / "diffusion_pytorch_model.fp16.safetensors",
    )
    with pytest.raises(ModelError, match=r"pickled.*unclip convert"):
        unclip.load(source)
    folder = convert(source, tmp_path / "ours", name="karlo-tiny")
    manifest = read_manifest(folder)
    assert (manifest.name, manifest.licence) == ("karlo-tiny", "creativeml-openrail-m")
    assert set(manifest.parts) == {"clip", "prior", "decoder", "upsampler"}
    (theirs,) = unclip.load(karlo_folder, device="cpu").generate("a red cat", seed=1, **QUICK)
    (ours,) = unclip.load(folder, device="cpu").generate("a red cat", seed=1, **QUICK)
    assert theirs.image.tobytes() == ours.image.tobytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["karlo", "ours"]


class Program:
    """What a pickle can hide: unpickling calls `os.system`."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("kind", ["torch", "plain"])
def test_programs_in_pickles_are_refused_and_never_run(tmp_path, kind):
    data, file = {"weight": torch.zeros(2), "hidden": Program(tmp_path / "mark")}, tmp_path / "evil.bin"
    if kind == "torch":
        torch.save(data, file)
    else:
        file.write_bytes(pickle.dumps(data))
    with pytest.raises(Exception, match=r"(?i)weights_only|unsupported|not allowed|invalid"):
        read(file)
    assert not (tmp_path / "mark").exists()
    assert not Path(f"{file}.safetensors").exists()


def test_a_damaged_pickle_is_named_and_leaves_nothing(karlo_folder, tmp_path):
    source = tmp_path / "karlo"
    shutil.copytree(karlo_folder, source)
    pickled = as_pickle(source, "text_proj")
    pickled.write_bytes(pickled.read_bytes()[:1000])
    with pytest.raises(ModelError, match=r"text_proj.*cannot be read as weights"):
        convert(source, tmp_path / "ours")
    assert [path.name for path in tmp_path.iterdir()] == ["karlo"]


def test_what_a_checkpoint_wraps_is_taken_out():
    weight = torch.randn(2)
    wrapped = {"epoch": 3, "state_dict": {"model.a": weight, "model.b": weight}, "optimizer": {"lr": 0.1}}
    found = tensors(wrapped)
    assert list(found) == ["model.a", "model.b"]
    # The same memory under two names, which safetensors does not write.
    assert found["model.a"].data_ptr() != found["model.b"].data_ptr()
    assert list(tensors((weight, weight + 1))) == ["0", "1"]
    with pytest.raises(ValueError, match="no tensors"):
        tensors({"a": 1})


class Inner(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.register_buffer("count", torch.tensor([5]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x) + self.count


class Outer(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = Inner()
        self.scale = nn.Parameter(torch.randn(4).half())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_torchscript_archive_is_read_without_its_code(tmp_path):
    """OpenAI ships CLIP so."""
    model = Outer()
    torch.jit.script(model).save(str(tmp_path / "archive.pt"))
    found = tensors(read(tmp_path / "archive.pt"))
    expected = model.state_dict()
    assert {name: weight for name, weight in found.items() if name in expected}.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_originals_need_one_file_of_each(tmp_path):
    (tmp_path / "prior-ckpt-step=1.ckpt").write_bytes(b"")
    with pytest.raises(
        FileNotFoundError, match=r"pickled weights, such as prior-ckpt-step=1\.ckpt: `unclip convert`"
    ):
        unclip.load(tmp_path)
    with pytest.raises(ModelError, match=r"0 files ViT-L-14\.pt"):
        convert(tmp_path, tmp_path / "out")


def test_statistics_get_their_names(tmp_path):
    save_file({"0": torch.zeros(3), "1": torch.ones(3)}, tmp_path / "stats.safetensors")
    named = load_file(converting._named_statistics(tmp_path / "stats.safetensors"))
    assert {name: values.tolist() for name, values in named.items()} == {"mean": [0.0] * 3, "std": [1.0] * 3}


def test_what_is_there_is_not_overwritten(karlo_folder, tmp_path):
    with pytest.raises(FileExistsError, match="exists"):
        convert(karlo_folder, tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        convert(tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(ModelError, match="no public format"):
        convert(tmp_path, tmp_path / "out")
