"""Folders in public formats that are damaged, incomplete or of another architecture: the error names what and where."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import unclip
from unclip.errors import ModelError
from unclip.formats.folder import licence_of
from unclip.formats.opened import open_model
from unclip.formats.registry import recognise


@pytest.fixture
def folder(karlo_folder, tmp_path) -> Path:
    """A copy that may be broken."""
    return Path(shutil.copytree(karlo_folder, tmp_path / "karlo"))


def change(file: Path, **values) -> None:
    data = json.loads(file.read_text()) | values
    file.write_text(json.dumps({name: value for name, value in data.items() if value is not ...}))


def weights(folder: Path, component: str) -> Path:
    (file,) = (folder / component).glob("*.safetensors")
    return file


def test_a_truncated_file(folder):
    file = weights(folder, "prior")
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ModelError, match=r"prior.*damaged"):
        open_model(folder).parts["prior"].load()


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda held: held | {"proj_in.weight": torch.zeros(3, 3)}, r"proj_in.weight has shape \(3, 3\)"),
        (lambda held: held | {"extra.weight": torch.zeros(1)}, "unknown weight prior/extra.weight"),
        (
            lambda held: {n: w for n, w in held.items() if n != "clip_mean"},
            "lacks the weight prior/clip_mean",
        ),
    ],
)
def test_weights_that_do_not_fit(folder, edit, message):
    file = weights(folder, "prior")
    save_file(edit(load_file(file)), file)
    with pytest.raises(ModelError, match=message):
        open_model(folder).parts["prior"].load()


@pytest.mark.parametrize(
    ("file", "values", "message"),
    [
        ("prior/config.json", {"added_emb_type": None}, "added_emb_type is None"),
        ("prior/config.json", {"additional_embeddings": 3}, "additional_embeddings is 3"),
        ("prior/config.json", {"num_layers": "two"}, "num_layers is 'two', expected int"),
        ("decoder/config.json", {"_class_name": "UNet3DModel"}, "'UNet3DModel' is not one of"),
        (
            "decoder/config.json",
            {"mid_block_type": "UNetMidBlock2DCrossAttn"},
            "mid_block_type is .UNetMidBlock2DCrossAttn",
        ),
        ("decoder/config.json", {"class_embed_type": None}, "class_embed_type is None"),
        ("decoder/config.json", {"cross_attention_dim": 48}, "cross_attention_dim is 24"),
        ("super_res_first/config.json", {"add_attention": True}, "add_attention is True"),
        ("super_res_last/config.json", {"layers_per_block": 2}, "different configs"),
        ("decoder_scheduler/scheduler_config.json", {"_class_name": "DDPMScheduler"}, "DDPMScheduler"),
        ("decoder_scheduler/scheduler_config.json", {"clip_sample_range": 2.0}, "clip_sample_range is 2.0"),
        ("text_encoder/config.json", {"hidden_act": "relu"}, "hidden_act 'relu'"),
        ("text_encoder/config.json", {"intermediate_size": 64}, "intermediate_size is 64"),
        ("model_index.json", {"_class_name": "StableDiffusionXLPipeline"}, "StableDiffusionXLPipeline"),
    ],
)
def test_another_architecture(folder, file, values, message):
    change(folder / file, **values)
    with pytest.raises(ModelError, match=message):
        recognise(folder)


@pytest.mark.parametrize("gone", ["decoder/config.json", "prior_scheduler", "tokenizer/tokenizer.json"])
def test_what_a_broken_off_download_left_out(folder, gone):
    path = folder / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(ModelError, match="missing: get the model again"):
        recognise(folder)


def test_no_weights(folder):
    weights(folder, "decoder").unlink()
    with pytest.raises(ModelError, match=r"decoder holds no weights"):
        recognise(folder)


def test_json_that_is_none(folder):
    (folder / "prior" / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"prior.config\.json is damaged"):
        recognise(folder)


def test_an_unknown_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="not a model folder"):
        unclip.load(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(FileNotFoundError, match="no known public format"):
        unclip.load(tmp_path)


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlanguage: en\nlicense: mit\n---\nlicense: none\n", "mit"),
        ("---\nlicense: other\nlicense_name: kandinsky-terms\n---\n", "kandinsky-terms"),
        ("---\ntags:\n- x\n---\nlicense: mit\n", ""),
        ("license: mit\n", ""),
    ],
)
def test_the_licence_is_what_the_card_says(tmp_path, card, licence):
    assert licence_of(tmp_path) == ""
    (tmp_path / "README.md").write_text(card)
    assert licence_of(tmp_path) == licence


def test_a_hub_id_that_was_not_pulled(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="unclip models pull kakaobrain/karlo-v1-alpha"):
        unclip.load("kakaobrain/karlo-v1-alpha")


def test_a_hub_id_that_was_pulled(karlo_folder, tmp_path, monkeypatch):
    """The cache as the hub's client leaves it."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    home, revision = tmp_path / "models--someone--karlo", "0123456789abcdef0123456789abcdef01234567"
    (home / "snapshots").mkdir(parents=True)
    (home / "snapshots" / revision).symlink_to(karlo_folder, target_is_directory=True)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(revision)
    system = unclip.load("someone/karlo", device="cpu")
    assert system.name == "someone/karlo"
    assert system.digest == unclip.load(karlo_folder, device="cpu").digest
    assert set(system.parts.names) == {"clip", "prior", "decoder", "upsampler"}


def test_half_precision_where_there_is_no_other(folder, karlo_folder):
    file = weights(folder, "prior")
    save_file({name: weight.half() for name, weight in load_file(file).items()}, file)
    file.rename(file.with_suffix(".fp16.safetensors"))
    half, whole = (open_model(one).parts["prior"].load().state_dict() for one in (folder, karlo_folder))
    assert {weight.dtype for weight in half.values()} == {torch.float32}
    assert all(torch.equal(weight, whole[name].half().float()) for name, weight in half.items())


def test_parts_mix_where_they_fit(karlo_folder, variation_folder):
    """The text-to-picture folder has no picture tower; the variations folder has one."""
    whole = open_model(karlo_folder, parts={"clip": variation_folder})
    alone = open_model(karlo_folder)
    assert whole.name == "karlo + karlo-image-variations"
    assert whole.digest != alone.digest
    assert alone.parts["clip"].config.towers == "text"
    assert whole.parts["clip"].config.towers == "both"
    clip = whole.parts["clip"].load()
    assert clip.encode_image(torch.zeros(1, 3, 16, 16)).shape == (1, 32)
    with pytest.raises(ModelError, match="'karlo-image-variations' has no prior"):
        open_model(karlo_folder, parts={"prior": variation_folder})


def test_parts_that_do_not_fit_are_both_named(karlo_folder, folder):
    other = folder.rename(folder.with_name("other"))
    for config in ("prior/config.json",):
        change(other / config, embedding_dim=48)
    for config in ("text_encoder/config.json",):
        change(other / config, projection_dim=48, hidden_size=48, intermediate_size=192)
    change(other / "text_proj/config.json", clip_embeddings_dim=48)
    with pytest.raises(
        ModelError, match=r"prior of 'other' reads embeddings of width 48, the clip of 'karlo' gives 32"
    ):
        open_model(karlo_folder, parts={"prior": other})
