"""Model folders: what is written comes back, what does not fit is named, what is damaged is refused."""

import json
import math
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from unclip.checkpoints import hub, io, registry
from unclip.checkpoints.io import build, load_model, load_part, save_model
from unclip.checkpoints.manifest import describe, read_manifest, verify
from unclip.checkpoints.quantize import dequantize, encode, quantize
from unclip.checkpoints.quantize_model import quantize_model
from unclip.errors import ModelError
from unclip.networks.clip import Clip, ClipConfig, TextConfig, VisionConfig
from unclip.networks.decoder import CaptionConfig, Decoder, DecoderConfig
from unclip.networks.inference import matrices
from unclip.networks.unet import UnetConfig
from unclip.stages.sampling import sampling

CONFIG = ClipConfig(
    embedding=16,
    vision=VisionConfig(size=16, patch=4, width=32, layers=1, heads=2, mean=(0.4, 0.5, 0.6)),
    text=TextConfig(vocabulary=600, context=8, end=599, width=32, layers=1, heads=2),
)


@pytest.fixture
def clip() -> Clip:
    torch.manual_seed(0)
    return Clip(CONFIG).eval()


@pytest.fixture
def folder(clip, tmp_path) -> Path:
    return save_model(
        tmp_path / "tiny",
        {"clip": clip},
        name="tiny",
        tokenizer='{"a": 1}',
        defaults={"steps": 3},
        licence="CC0-1.0",
    )


def edit_manifest(folder: Path, change) -> None:
    data = json.loads((folder / "model.json").read_text())
    change(data)
    (folder / "model.json").write_text(json.dumps(data))


def rewrite_weights(folder: Path, change) -> None:
    file = folder / "clip.safetensors"
    weights = load_file(file)
    change(weights)
    save_file(weights, file)
    edit_manifest(folder, lambda data: data["parts"]["clip"].update(size=file.stat().st_size))


def pictures() -> torch.Tensor:
    return torch.linspace(-1, 1, 2 * 3 * 16 * 16).reshape(2, 3, 16, 16)


def test_what_is_saved_comes_back_bit_for_bit(clip, folder):
    parts = load_model(folder)
    assert list(parts) == ["clip"]
    loaded = parts["clip"]
    assert isinstance(loaded, Clip)
    assert loaded.config == CONFIG
    assert not loaded.training
    assert all(torch.equal(loaded.state_dict()[name], value) for name, value in clip.state_dict().items())
    # Includes the tables that are computed from the config and never stored.
    assert torch.equal(loaded.encode_image(pictures()), clip.encode_image(pictures()))
    assert torch.equal(loaded.vision.mean.flatten(), torch.tensor([0.4, 0.5, 0.6]))


def test_weights_arrive_in_the_asked_type(folder):
    parts = load_model(folder, dtype=torch.bfloat16)
    for part in parts.values():
        half = {name for name, weight in part.named_parameters() if weight.dtype == torch.bfloat16}
        assert half == matrices(part)
        assert half


class Layers(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.linear, self.table, self.norm = (
            nn.Linear(width, width),
            nn.Embedding(3, width),
            nn.LayerNorm(width),
        )
        nn.init.trunc_normal_(self.linear.weight)
        self.register_buffer("ramp", torch.arange(width).float().mul_(2), persistent=False)


def test_building_for_loading_draws_no_random_numbers_but_computes_tables():
    before = torch.get_rng_state()
    layers = build(Layers, 4)
    assert torch.equal(torch.get_rng_state(), before)
    assert layers.ramp.tolist() == [0, 2, 4, 6]
    assert layers.linear.weight.is_meta
    # Outside of it, layers are made as ever.
    assert torch.empty(2).device.type == "cpu"
    assert Layers(4).linear.weight.isfinite().all()


def test_the_manifest_tells_all_without_torch(folder):
    program = (
        "import sys; from pathlib import Path; from unclip.checkpoints import hub, manifest;"
        f"print(manifest.describe(Path({str(folder)!r}))['name'], len(hub.bundled()) >= 0, 'torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["tiny", "True", "False"]
    summary = describe(folder)
    assert summary["licence"] == "CC0-1.0"
    assert summary["defaults"] == {"prior": {}, "decoder": {"steps": 3}, "upsamplers": []}
    assert summary["bytes"] == sum(f.stat().st_size for f in folder.iterdir() if f.name != "model.json")
    assert summary["parts"]["clip"]["kind"] == "clip"


def test_the_digest_follows_the_weights(clip, tmp_path):
    marks = []
    for name in ("a", "b", "c"):
        if name == "c":
            with torch.no_grad():
                clip.logit_scale += 1
        folder = save_model(tmp_path / name, {"clip": clip}, name=name)
        marks.append(read_manifest(folder).digest)
    assert marks[0] == marks[1] != marks[2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.update(extra=torch.zeros(1)), "holds the weight extra, unknown to Clip"),
        (
            lambda w: (w.pop("text.positions"), w.pop("logit_scale")),
            "lacks the weight logit_scale and 1 more",
        ),
        (
            lambda w: w.update({"logit_scale": torch.zeros(2)}),
            r"logit_scale has shape \(2,\), the config asks for \(\)",
        ),
    ],
)
def test_weights_that_do_not_fit_are_named(folder, change, message):
    rewrite_weights(folder, change)
    with pytest.raises(ModelError, match=message):
        load_model(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(format=3), "format 3, this version reads 1 and 2"),
        (lambda d: d.update(surprise=1), "unknown key 'surprise'"),
        (lambda d: d["parts"]["clip"].update(kind="vqgan"), "unknown kind of part 'vqgan'"),
        (lambda d: d["parts"]["clip"]["config"].update(widht=1), "clip: ClipConfig: unknown key 'widht'"),
        (lambda d: d["parts"]["clip"].update(file="../clip.safetensors"), "only plain names"),
        (lambda d: d["parts"]["clip"].update(file="a\\b"), "only plain names"),
        (lambda d: d["parts"]["clip"].update(file="gone.safetensors"), r"gone\.safetensors is missing"),
        (lambda d: d["parts"]["clip"].update(size=7), "bytes instead of 7: it is damaged"),
        (lambda d: d.pop("name"), "'name' is missing"),
        (lambda d: d["defaults"].update(steps=3), "unknown key 'steps'|unknown setting 'decoder'"),
        (lambda d: d["defaults"]["decoder"].update(sampler="bogus"), "sampler is 'bogus': choose from ddim"),
    ],
)
def test_a_wrong_manifest_is_refused(folder, change, message):
    edit_manifest(folder, change)
    with pytest.raises(ModelError, match=message):
        load_model(folder)


def as_format_1(folder: Path, defaults: dict) -> None:
    """Rewrite a folder's manifest as version 0.1 wrote it."""

    def change(data):
        data.update(format=1, defaults=defaults)
        data["space"] = {"name": data["space"]["name"], "sketch": data["space"]["fingerprint"]}

    edit_manifest(folder, change)


def test_folders_of_format_1_are_read_with_the_same_digest(folder):
    now = read_manifest(folder)
    flat = {
        "prior": "diffusion",
        "prior_steps": 12,
        "steps": 3,
        "sampler": "euler",
        "guidance_interval": None,
    }
    as_format_1(folder, flat | {"second_upsampler_steps": 15})
    before = read_manifest(folder)
    assert before.digest == now.digest
    assert before.space == now.space
    assert before.defaults == sampling(
        prior="diffusion", prior_steps=12, steps=3, sampler="ddim", second_upsampler_steps=15
    )
    edit_manifest(folder, lambda data: data["defaults"].update(stepz=3))
    with pytest.raises(ModelError, match=r"model\.json: unknown setting 'stepz'"):
        read_manifest(folder)


def test_folders_are_written_in_format_2(folder):
    data = json.loads((folder / "model.json").read_text())
    assert data["format"] == 2
    assert data["defaults"] == {"prior": {}, "decoder": {"steps": 3}, "upsamplers": []}
    assert set(data["space"]) == {"name", "fingerprint"}


def test_the_bundled_model_keeps_its_digest():
    """Pictures record it: they could not be made again."""
    assert read_manifest(hub.bundled()["artwork"]).digest == "a0c61847fd38"


def test_retired_config_fields_are_ignored_and_stay_in_the_digest(folder, monkeypatch):
    digest = read_manifest(folder).digest

    def retire(data):
        config = data["parts"]["clip"]["config"]
        config["dropout"] = 0.1
        config["vision"]["masked"] = True

    edit_manifest(folder, retire)
    with pytest.raises(ModelError, match="unknown key"):
        load_model(folder)
    monkeypatch.setitem(registry.RETIRED, "clip", frozenset({"dropout", "vision.masked"}))
    assert load_model(folder)["clip"].config == CONFIG
    assert read_manifest(folder).digest != digest


def test_retired_weights_are_ignored(tmp_path):
    """Version 0.1 wrote a copy of CLIP's text tower into the files of Karlo's decoder."""
    net = UnetConfig(
        out_channels=6, channels=16, multiples=(1,), blocks=1, groups=8, context_width=8, vector_width=8
    )
    caption = CaptionConfig(vocabulary=9, context=4, end=8, width=8, layers=1, heads=1, tower="clip")
    decoder = Decoder(DecoderConfig(net=net, size=8, embedding=8, caption=caption))
    folder = save_model(tmp_path / "karlo", {"decoder": decoder}, name="karlo")
    file = folder / "decoder.safetensors"
    tower = {
        "caption.tower.tokens.weight": torch.ones(9, 8, dtype=torch.int8),
        "caption.tower.tokens.weight.scale": torch.ones(9),
        "caption.tower.positions": torch.zeros(4, 8),
    }
    save_file(load_file(file) | tower, file)
    edit_manifest(folder, lambda data: data["parts"]["decoder"].update(size=file.stat().st_size))
    loaded = load_model(folder)["decoder"].state_dict()
    assert loaded.keys() == decoder.state_dict().keys()
    assert all(torch.equal(weight, loaded[name]) for name, weight in decoder.state_dict().items())
    save_file(load_file(file) | {"caption.towers": torch.zeros(1)}, file)
    edit_manifest(folder, lambda data: data["parts"]["decoder"].update(size=file.stat().st_size))
    with pytest.raises(ModelError, match=r"holds the weight caption\.towers, unknown to Decoder"):
        load_model(folder)


def test_damage_is_found(folder):
    file = folder / "clip.safetensors"
    whole = file.read_bytes()
    assert verify(folder).name == "tiny"
    flipped = bytearray(whole)
    flipped[-5] ^= 1
    file.write_bytes(flipped)
    with pytest.raises(ModelError, match=r"clip\.safetensors has SHA-256"):
        verify(folder)
    for size in (0, 5, 200, len(whole) - 1):
        file.write_bytes(whole[:size])
        with pytest.raises(ModelError, match=r"clip\.safetensors has \d+ bytes instead of"):
            load_model(folder)
        edit_manifest(folder, lambda data, size=size: data["parts"]["clip"].update(size=size))
        with pytest.raises(ModelError, match=r"clip\.safetensors is (damaged|empty)"):
            load_model(folder)
        edit_manifest(folder, lambda data: data["parts"]["clip"].update(size=len(whole)))
    (folder / "model.json").write_text("{")
    with pytest.raises(ModelError, match=r"model\.json is damaged"):
        read_manifest(folder)


def test_a_header_of_absurd_size_is_refused(folder):
    file = folder / "clip.safetensors"
    file.write_bytes(b"\xff" * 7 + b"\x7f" + b"{}")
    edit_manifest(folder, lambda data: data["parts"]["clip"].update(size=10))
    with pytest.raises(ModelError, match="damaged"):
        load_model(folder)


def test_saving_is_all_or_nothing(clip, folder):
    with pytest.raises(FileExistsError, match="exists"):
        save_model(folder, {"clip": clip}, name="second")
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    with pytest.raises(ValueError, match="Linear is not a registered part"):
        save_model(folder, {"clip": clip, "more": nn.Linear(1, 1)}, name="second", force=True)
    with torch.no_grad():
        clip.text.positions[0, 0] = math.nan
    with pytest.raises(ValueError, match=r"text\.positions holds NaN"):
        save_model(folder, {"clip": clip}, name="second", force=True)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    assert [path.name for path in folder.parent.iterdir()] == ["tiny"]


def test_a_full_disk_is_told_and_leaves_nothing(clip, folder):
    """No file may grow beyond what is allowed: to a program the same as a disk without room."""
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"no room for the model: it needs .*make room.*tiny'$"):
            save_model(folder, {"clip": clip}, name="second", force=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    assert [path.name for path in folder.parent.iterdir()] == ["tiny"]


def test_overwriting_replaces_models_only(clip, folder):
    save_model(folder, {"clip": clip}, name="second", force=True)
    assert sorted(file.name for file in folder.iterdir()) == ["clip.safetensors", "model.json"]
    precious = folder.parent / "photos"
    precious.mkdir()
    (precious / "holiday.jpg").touch()
    with pytest.raises(FileExistsError, match="not a model folder"):
        save_model(precious, {"clip": clip}, name="second", force=True)


def test_files_are_readable_as_the_umask_says(clip, tmp_path):
    before = os.umask(0o027)
    try:
        folder = save_model(tmp_path / "shared", {"clip": clip}, name="shared", tokenizer="{}")
    finally:
        os.umask(before)
    assert {file.name: file.stat().st_mode & 0o777 for file in folder.iterdir()} == dict.fromkeys(
        ["clip.safetensors", "model.json", "tokenizer.json"], 0o640
    )


def test_weights_are_written_from_where_they_are(tmp_path, monkeypatch):
    """Those that share memory get their own; a gigabyte more than needed is a gigabyte too much for small machines."""
    whole = torch.arange(12.0)
    given = {"a": whole, "b": whole, "rows": whole.reshape(3, 4)[1:], "turned": torch.eye(3)[:, :2].T}
    seen = {}

    def save(tensors, *rest, **named):
        seen.update({name: tensor.data_ptr() for name, tensor in tensors.items()})
        save_file(tensors, *rest, **named)

    monkeypatch.setattr(io, "save_file", save)
    io.write_weights(tmp_path / "a.safetensors", given)
    assert seen["a"] == whole.data_ptr() != seen["b"]
    found = load_file(tmp_path / "a.safetensors")
    assert found.keys() == given.keys()
    assert all(torch.equal(weight, given[name]) for name, weight in found.items())


def test_a_missing_part_is_named(folder):
    with pytest.raises(ModelError, match="has no 'decoder': it has clip"):
        load_part(folder, read_manifest(folder), "decoder")


def test_every_registered_kind_exists_and_says_so_in_its_config():
    for kind in registry.KINDS:
        config, network = registry.classes(kind)
        assert issubclass(network, nn.Module)
        assert next(f.default for f in config.__dataclass_fields__.values() if f.name == "kind") == kind


def test_quantising_is_off_by_half_a_step_at_most():
    torch.manual_seed(0)
    weight = torch.randn(12, 5, 3, 3) * torch.logspace(-6, 3, 12)[:, None, None, None]
    weight[4] = 0
    values, scale = quantize(weight)
    assert values.dtype == torch.int8
    assert values.abs().amax((1, 2, 3)).tolist() == [127] * 4 + [0] + [127] * 7
    error = (dequantize(values, scale) - weight).abs()
    assert (error <= scale[:, None, None, None] / 2 * (1 + 1e-5)).all()
    # Uniform rounding noise of a normal row with maximum near 2.5 deviations: about 2.5 / 127 / sqrt(12).
    assert 0.002 < (error.norm() / weight.norm()) < 0.012
    again = quantize(dequantize(values, scale))
    assert torch.equal(again[0], values)


def test_packing_is_small_and_the_error_is_measured(clip, folder, tmp_path):
    with torch.no_grad():
        clip.text.positions[0, 0] = 1e6
    save_model(folder, {"clip": clip}, name="tiny", tokenizer="{}", force=True)
    reports = {
        storage: quantize_model(folder, tmp_path / storage, storage=storage)["clip"]
        for storage in ("int8", "float16", "float32")
    }
    assert reports["float32"].relative_error == 0
    assert 0 < reports["float16"].relative_error < 1e-3
    assert reports["int8"].bytes_after < 0.45 * reports["int8"].bytes_before
    for storage in reports:
        loaded = load_model(tmp_path / storage)["clip"].state_dict()
        packed = verify(tmp_path / storage)
        assert packed.parts["clip"].storage == storage
        assert packed.tokenizer is not None
        # Beyond float16's range a weight is stored as it is.
        assert loaded["text.positions"][0, 0] == 1e6
        names = [
            name for name, value in clip.state_dict().items() if value.ndim >= 2 and name != "text.positions"
        ]
        errors = [
            (loaded[name] - clip.state_dict()[name]).norm() / clip.state_dict()[name].norm() for name in names
        ]
        assert max(errors) < {"int8": 0.012, "float16": 5e-4, "float32": 1e-9}[storage]


def test_packing_twice_changes_nothing(folder, tmp_path):
    quantize_model(folder, tmp_path / "a")
    report = quantize_model(tmp_path / "a", tmp_path / "b")["clip"]
    assert report.bytes_before == report.bytes_after
    assert report.relative_error < 1e-6


def test_integers_are_stored_as_they_are():
    stored = encode({"a": torch.arange(5000).reshape(2, -1), "b": torch.zeros(2)}, "int8")
    assert stored["a"].dtype == torch.int64
    assert stored["b"].dtype == torch.float16


def test_what_a_killed_process_left_beside_a_model_is_cleared(tmp_path):
    def made(name):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
        return tmp_path / name

    def age(folder):
        for one in (folder / "file", folder):
            os.utime(one, (1, 1))

    abandoned, fresh = made(".model.0123abcd.new"), made(".model.89ab0123.new")
    moved, others = made(".model.ffffffff.old"), made(".other.0123abcd.new")
    for folder in (abandoned, moved, others):
        age(folder)
    # Killed between two renames: the old model is back, and is not overwritten.
    with pytest.raises(FileExistsError):
        save_model(tmp_path / "model", {}, name="model")
    assert (tmp_path / "model" / "file").read_text() == moved.name
    assert {one.name for one in tmp_path.iterdir()} == {"model", fresh.name, others.name}
