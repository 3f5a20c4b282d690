"""Pickled files that are made to harm, and files given as weights that are none."""

import gzip
import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from unclip.checkpoints.foreign import not_weights
from unclip.checkpoints.hub import bundled
from unclip.errors import ModelError
from unclip.formats import convert as converting
from unclip.formats import unpickle
from unclip.formats.convert import convert
from unclip.formats.convert import unpickle as converted
from unclip.formats.key_maps.clip import openai_config
from unclip.formats.opened import open_model
from unclip.formats.public import pickle_refused
from unclip.formats.weights import open_weights


def laughs(levels: int, width: int = 10) -> list:
    """A list of lists that refer to one list: `width ** levels` references in a few bytes."""
    data: list = [torch.zeros(1)]
    for _ in range(levels):
        data = [data] * width
    return data


def itself() -> dict:
    data: dict = {"weight": torch.zeros(1)}
    data["more"] = [data]
    return data


def wrapped_in_itself() -> dict:
    data: dict = {}
    data["state_dict"] = data
    return data


def nested(depth: int) -> list:
    data: list = [torch.zeros(1)]
    for _ in range(depth):
        data = [data]
    return data


class Program:
    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


def never_safe_off(message: str) -> bool:
    """One line, without torch's advice."""
    return "\n" not in message and not any(
        word in message for word in ("weights_only", "add_safe_globals", "torch.load", "allowlist")
    )


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (laughs(9), "refers to more than 200,000 values|two tensors"),
        ({"a": laughs(30, 2)}, "refers to more than 200,000 values"),
        (itself(), "nested more than 64 times, or holds itself"),
        (wrapped_in_itself(), "nested more than 64 times, or holds itself"),
        (nested(200), "nested more than 64 times"),
        ({"a.b": torch.zeros(1), "a": {"b": torch.zeros(1)}}, "two tensors have the name 'a.b'"),
        ({"x" * 2000: torch.zeros(1)}, "more than 1000 letters"),
        ({"weight": torch.zeros(1).expand(10**6, 10**6)}, "far more than the file holds"),
        ({str(n): torch.zeros(1).expand(4096, 4096) for n in range(8)}, "far more than the file holds"),
        ({"state_dict": {}}, "holds no tensors"),
    ],
)
def test_containers_that_refer_to_each_other_are_bounded(data, message):
    began = time.monotonic()
    with pytest.raises(ValueError, match=message):
        unpickle.tensors(data, limit=2**26)
    assert time.monotonic() - began < 60


def test_keys_that_would_take_for_ever_to_write_out():
    key: tuple = ()
    for _ in range(15):
        key = (key, key)
    assert list(unpickle.tensors({key: torch.zeros(1), 3: torch.zeros(1)})) == ["<tuple>", "3"]


def test_real_checkpoints_keep_their_names_and_order():
    weight = torch.randn(3)
    data = {"step": 3, "ema": {"b": weight, "a": [weight + 1, {"c": weight.view(3, 1)}]}}
    found = unpickle.tensors(data, limit=unpickle.SLACK)
    assert list(found) == ["ema.b", "ema.a.0", "ema.a.1.c"]
    assert torch.equal(found["ema.a.0"], weight + 1)


def refused(file: Path, room: Path) -> str:
    with pytest.raises(ModelError) as caught:
        converted([file], room)
    message = str(caught.value)
    assert message.startswith(str(file))
    assert never_safe_off(message), message
    return message


@pytest.fixture
def room(tmp_path) -> Path:
    (tmp_path / "room").mkdir()
    return tmp_path / "room"


def zipped(file: Path, pickled: bytes, method: int = zipfile.ZIP_STORED, **entries: bytes) -> Path:
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr("x/data.pkl", pickled)
        for name, data in entries.items():
            archive.writestr(
                {"data_0": "x/data/0", "constants": "x/constants.pkl"}.get(name, f"x/{name}"), data
            )
    return file


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path, room):
    file = tmp_path / "bomb.ckpt"
    zipped(file, pickle.dumps({}), zipfile.ZIP_DEFLATED, data_0=bytes(200 * 2**20))
    assert file.stat().st_size < 2**20
    assert "unpacks from 0.2 to 200 MiB, which no archive of torch does" in refused(file, room)


def test_a_pickle_that_asks_for_memory_is_refused(tmp_path, room):
    # bytearray(2 ** 38), which torch's reader allows.
    program = b"\x80\x02cbuiltins\nbytearray\n\x8a\x06" + (2**38).to_bytes(6, "little") + b"\x85R."
    assert "far more memory than weights" in refused(
        zipped(tmp_path / "memory.ckpt", program, version=b"3\n"), room
    )


def test_a_pickle_that_runs_for_ever_is_ended(tmp_path):
    """Hashing a tuple of tuples takes twice the time for each level."""
    program = b"\x80\x02})" + b"".join(b"q\x00h\x00\x86" for _ in range(60)) + b"K\x01s."
    file = zipped(tmp_path / "time.ckpt", program, version=b"3\n")
    code = "import sys; from unclip.formats import unpickle; unpickle.SECONDS = 3; sys.exit(unpickle.main(sys.argv[1:]))"
    done = subprocess.run([sys.executable, "-c", code, str(file), str(tmp_path / "out")], check=False)
    assert done.returncode == -signal.SIGXCPU
    assert "far more time than weights" in converting._ended(done.returncode)
    assert "ended with -11" in converting._ended(-11)


@pytest.mark.parametrize("kind", ["torch", "pickle", "archive"])
def test_programs_are_named_and_not_run(tmp_path, room, kind):
    file, mark = tmp_path / "evil.ckpt", tmp_path / "mark"
    data = {"weight": torch.zeros(1), "hidden": Program(mark)}
    if kind == "torch":
        torch.save(data, file)
    elif kind == "pickle":
        file.write_bytes(pickle.dumps(data, protocol=2))
    else:
        zipped(file, pickle.dumps(Program(mark)), constants=b"")
    message = refused(file, room)
    assert ("_load_from_bytes" if kind == "pickle" else "system") in message
    assert not mark.exists()


@pytest.mark.parametrize(
    ("program", "entries"),
    [
        (b"\x80\x05\x95\xff", {"version": b"3\n"}),
        (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.", {"constants": b""}),
        (b"\x80\x02N" + b"\x85" * 1_000_000 + b".", {"version": b"3\n"}),
        (b"\x80\x02N" + b"\x85" * 1_000_000 + b".", {"constants": b""}),
        (b"\x80\x02(X\x07\x00\x00\x00storageNNNNtQ.", {"constants": b""}),
    ],
)
def test_broken_pickles_end_in_one_line(tmp_path, room, program, entries):
    assert "cannot be read as weights" in refused(zipped(tmp_path / "x.ckpt", program, **entries), room)


def test_the_reader_confines_itself(tmp_path):
    file = tmp_path / "a.bin"
    file.write_bytes(b"x")
    code = (
        "import resource, sys, pathlib; from unclip.formats.unpickle import confine; confine(pathlib.Path(sys.argv[1]));"
        "print(*(resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_DATA, resource.RLIMIT_CPU)))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=True)
    data, seconds = map(int, done.stdout.split())
    assert 2**30 < data < 2**33
    assert 60 <= seconds < 200


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
PAGE = b"<!DOCTYPE html>\n<html><head><title>403</title></head></html>"
NOT_WEIGHTS = [
    (POINTER, "is a pointer of git-lfs.*git lfs pull"),
    (PAGE, "is a web page.*download the file again"),
    (b"\n\n<html>", "is a web page"),
    (b"", "is empty"),
    (b'{"error": "Repository not found"}', "is text .*Repository not found"),
    (b"Invalid username or password.", "is text .*Invalid username"),
    (gzip.compress(b"weights", mtime=0), "is a gzip archive.*unpack it first"),
    (b"GGUF\x03" + bytes(40), "GGUF file of llama.cpp"),
    (b"\x89HDF\r\n\x1a\n" + bytes(40), "HDF5 file of Keras"),
    (b"\x89PNG\r\n\x1a\n" + bytes(40), "is a picture"),
    (b"%PDF-1.7", "PDF document"),
]


@pytest.mark.parametrize(("content", "message"), NOT_WEIGHTS)
@pytest.mark.parametrize("suffix", [".safetensors", ".bin", ".ckpt"])
def test_files_that_are_not_weights_are_named(tmp_path, room, content, message, suffix):
    file = tmp_path / f"model{suffix}"
    file.write_bytes(content)
    with pytest.raises(ModelError, match=message) as caught, open_weights({"": [file]}):
        pass
    assert never_safe_off(str(caught.value))
    if suffix != ".safetensors":
        assert re.search(message, refused(file, room))
        assert re.search(message, str(pickle_refused(file, tmp_path)))


def test_what_may_hold_weights_is_left_alone(tmp_path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "a.bin")
    torch.save({"a": torch.zeros(1)}, tmp_path / "b.bin", _use_new_zipfile_serialization=False)
    save_file({"a": torch.zeros(1)}, tmp_path / "c.safetensors")
    assert [not_weights(file) for file in sorted(tmp_path.iterdir())] == [""] * 3
    assert not_weights(tmp_path / "nowhere") == ""
    with zipfile.ZipFile(tmp_path / "d.ckpt", "w") as archive:
        archive.writestr("model/readme.txt", "x")
    assert "zip archive with 'model/readme.txt'" in not_weights(tmp_path / "d.ckpt")


def test_a_pointer_in_place_of_a_config(tmp_path):
    (tmp_path / "model_index.json").write_bytes(POINTER)
    with pytest.raises(ModelError, match=r"model_index\.json is a pointer of git-lfs"):
        open_model(tmp_path)
    (tmp_path / "model_index.json").write_text("[" * 100_000)
    with pytest.raises(ModelError, match="nested too deeply"):
        open_model(tmp_path)


def test_a_pointer_in_a_model_folder(tmp_path):
    folder = shutil.copytree(
        bundled()["tiny"] if "tiny" in bundled() else next(iter(bundled().values())), tmp_path / "m"
    )
    file = next(folder.glob("decoder*.safetensors"))
    file.write_bytes(POINTER)
    with pytest.raises(ModelError, match=r"decoder.* is a pointer of git-lfs"):
        open_model(folder)


def test_a_file_where_a_folder_is_meant(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(FileNotFoundError, match=r"is a file, where a model is a folder: .* whole folder"):
        open_model(tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    for name in ("model.safetensors", "config.json"):
        with pytest.raises(FileNotFoundError, match=f"give the folder that holds it, {tmp_path}"):
            open_model(tmp_path / name)
    torch.save({}, tmp_path / "x.ckpt")
    with pytest.raises(FileNotFoundError, match="`unclip convert` reads pickled files of OpenAI's CLIP"):
        open_model(tmp_path / "x.ckpt")
    (tmp_path / "page.safetensors").write_bytes(PAGE)
    with pytest.raises(FileNotFoundError, match="it is a web page"):
        open_model(tmp_path / "page.safetensors")


def test_one_parts_folder(tmp_path):
    for name, data in {
        "decoder/config.json": {"_class_name": "UNet2DConditionModel"},
        "text_encoder/config.json": {"model_type": "clip_text_model"},
        "prior_scheduler/scheduler_config.json": {"_class_name": "UnCLIPScheduler"},
        "prior/config.json": {"_class_name": "PriorTransformer"},
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps(data))
    with pytest.raises(
        FileNotFoundError, match="holds a single UNet2DConditionModel of diffusers, give the folder"
    ):
        open_model(tmp_path / "decoder")
    with pytest.raises(ModelError, match="prior holds a diffusion prior without its scheduler"):
        open_model(tmp_path / "prior")
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "UnCLIPPipeline"}))
    for part, kind in {
        "decoder": "UNet2DConditionModel",
        "text_encoder": "clip_text_model",
        "prior_scheduler": "UnCLIPScheduler",
    }.items():
        with pytest.raises(FileNotFoundError, match=rf"one part \({kind}\) of the model in {tmp_path}, give"):
            open_model(tmp_path / part)
        with pytest.raises(ModelError, match=r"in no known public format: it is one part"):
            convert(tmp_path / part, tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("model.diffusion_model.input_blocks.0.0.weight", "checkpoint of Stable Diffusion"),
        ("visual.layer1.0.conv1.weight", "CLIP with a ResNet"),
        ("net.causal_transformer.norm.g", "LAION's prior: give its folder"),
        ("model.prd_emb", "Karlo's prior: give the folder with all"),
        ("down_blocks.0.resnets.0.conv1.weight", "U-Net of diffusers"),
        ("text_model.embeddings.token_embedding.weight", "CLIP of transformers"),
        ("encoder.weight", "lacks visual.proj and holds 1 weights such as encoder.weight, which no known"),
    ],
)
def test_unknown_checkpoints_are_named(name, message):
    with pytest.raises(ModelError, match=f"does not hold OpenAI's CLIP: .*{message}"):
        openai_config({name: torch.zeros(1)}, "x.pt")
