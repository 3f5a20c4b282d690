"""`unclip convert`: pickled Karlo as a model folder of ours that draws the same; programs in pickles are refused."""

import json
import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import unclip
from unclip.checkpoints.manifest import read_manifest
from unclip.errors import ModelError
from unclip.formats import convert as converting
from unclip.formats import karlo_original
from unclip.formats.convert import convert
from unclip.formats.opened import open_model
from unclip.formats.unpickle import read, tensors

QUICK = {"prior_steps": 2, "steps": 2, "upsampler_steps": 2}


def as_pickle(folder: Path, component: str) -> Path:
    """A component's weights pickled, under the name that they have there."""
    (file,) = (folder / component).glob("*.safetensors")
    pickled = file.with_name("pytorch_model.bin" if file.stem == "model" else "diffusion_pytorch_model.bin")
    held = load_file(file)
    if file.stem == "model":
        # Files of that age have the table of positions.
        tower = "text" if component == "text_encoder" else "vision"
        held[f"{tower}_model.embeddings.position_ids"] = torch.arange(7)[None]
    torch.save(held, pickled)
    file.unlink()
    return pickled


def pickled(folder: Path, target: Path) -> Path:
    """A copy of a folder, as the oldest ones are: all of its weights pickled, and a tag that diffusers has lost."""
    shutil.copytree(folder, target)
    for component in sorted(file.parent.name for file in target.glob("*/*.safetensors")):
        as_pickle(target, component)
    index = json.loads((target / "model_index.json").read_text())
    index["text_proj"][0] = "unclip"
    (target / "model_index.json").write_text(json.dumps(index))
    return target


def test_a_folder_with_pickles_is_converted_and_draws_the_same(karlo_folder, tmp_path, same_model):
    source = pickled(karlo_folder, tmp_path / "karlo")
    # Half precision beside full.
    (source / "decoder" / "diffusion_pytorch_model.fp16.bin").write_bytes(b"not to be read")
    with pytest.raises(ModelError, match=r"pickled.*unclip convert"):
        unclip.load(source)
    folder = convert(source, tmp_path / "ours", name="karlo-tiny")
    manifest = read_manifest(folder)
    assert (manifest.name, manifest.licence) == ("karlo-tiny", "creativeml-openrail-m")
    assert set(manifest.parts) == {"clip", "prior", "decoder", "upsampler"}
    assert same_model(open_model(folder, check=True), open_model(karlo_folder))
    (theirs,) = unclip.load(karlo_folder, device="cpu").generate("a red cat", seed=1, **QUICK)
    (ours,) = unclip.load(folder, device="cpu").generate("a red cat", seed=1, **QUICK)
    assert theirs.image.tobytes() == ours.image.tobytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["karlo", "ours"]


def test_the_variations_folder_is_converted(variation_folder, tmp_path, same_model):
    source = pickled(variation_folder, tmp_path / "karlo")
    folder = convert(source, tmp_path / "ours")
    assert set(read_manifest(folder).parts) == {"clip", "decoder", "upsampler"}
    assert same_model(open_model(folder, check=True), open_model(variation_folder))


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


def test_conversion_refuses_programs_and_leaves_nothing(karlo_folder, tmp_path):
    source = Path(shutil.copytree(karlo_folder, tmp_path / "karlo"))
    file = as_pickle(source, "prior")
    torch.save(torch.load(file) | {"hidden": Program(tmp_path / "mark")}, file)
    with pytest.raises(
        ModelError, match=r"prior.*cannot be read as weights: it holds .*system, which is not for weights"
    ):
        convert(source, tmp_path / "ours")
    assert [path.name for path in tmp_path.iterdir()] == ["karlo"]


def test_programs_in_torchscript_archives_are_refused_and_never_run(tmp_path):
    """They are read without torch's own reader, which would refuse all of them."""
    file = tmp_path / "evil.pt"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("evil/data.pkl", pickle.dumps(Program(tmp_path / "mark")))
        archive.writestr("evil/constants.pkl", pickle.dumps(()))
    with pytest.raises(pickle.UnpicklingError, match=r"system is not for weights"):
        read(file)
    assert not (tmp_path / "mark").exists()


def test_pickles_are_read_in_a_process_of_their_own(tmp_path, monkeypatch):
    files = [tmp_path / "a.bin", tmp_path / "b.bin"]
    for number, file in enumerate(files):
        torch.save({"weight": torch.full((2,), float(number))}, file)
    ran = []
    run = subprocess.run
    monkeypatch.setattr(
        subprocess, "run", lambda command, **given: ran.append(command) or run(command, **given)
    )
    made = converting.unpickle(files, tmp_path)
    assert [load_file(made[file])["weight"].tolist() for file in files] == [[0.0, 0.0], [1.0, 1.0]]
    ((program, *words),) = ran
    assert (program, words[:2]) == (sys.executable, ["-m", "unclip.formats.unpickle"])


@pytest.mark.parametrize("written", ["what was pickled", "the model"])
def test_a_full_disk_is_told_and_leaves_nothing(karlo_folder, tmp_path, written):
    """No file may grow beyond what is allowed: to a program the same as a disk without room."""
    source = Path(shutil.copytree(karlo_folder, tmp_path / "karlo"))
    message, allowed = r"no room for the weights: it needs .*make room.*decoder\.safetensors", 200_000
    if written == "what was pickled":
        as_pickle(source, "prior")
        message, allowed = r"prior.*could not be written beside the model .*room on the disk", 20_000
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (allowed, limits[1]))
    try:
        with pytest.raises(OSError, match=message):
            convert(source, tmp_path / "ours")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert [path.name for path in tmp_path.iterdir()] == ["karlo"]


def test_a_damaged_pickle_is_named_and_leaves_nothing(karlo_folder, tmp_path):
    source = Path(shutil.copytree(karlo_folder, tmp_path / "karlo"))
    as_pickle(source, "prior")
    file = as_pickle(source, "text_proj")
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ModelError, match=r"text_proj.*is a damaged archive: get it again"):
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
    named = load_file(karlo_original.named_statistics(tmp_path / "stats.safetensors"))
    assert {name: values.tolist() for name, values in named.items()} == {"mean": [0.0] * 3, "std": [1.0] * 3}


def test_what_is_there_is_not_overwritten(karlo_folder, tmp_path):
    with pytest.raises(FileExistsError, match="exists"):
        convert(karlo_folder, tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        convert(tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(ModelError, match="no known public format"):
        convert(tmp_path, tmp_path / "out")
