"""Kandinsky's folders: what they hold, what is missing without the prior, and what does not fit."""

import json
import shutil

import pytest
import torch
from diffusers import KandinskyV22CombinedPipeline

import unclip
from unclip.checkpoints.quantize_model import quantize_model
from unclip.errors import ModelError, Unsupported
from unclip.formats.convert import convert
from unclip.formats.key_maps.kandinsky_scheduler import DDIM, DDPM, read_schedule
from unclip.formats.opened import open_model
from unclip.formats.pull import needed
from unclip.train.bundle import bundle

FEW = {"size": 64, "steps": 2, "prior_steps": 2, "seed": 1}


def test_a_decoder_alone(folders):
    model = unclip.load(folders["2.2", "decoder"], device="cpu")
    assert model.parts.names == ("decoder", "autoencoder")
    with pytest.raises(Unsupported, match=r"has no text encoder, which generate needs.*--part prior=FOLDER"):
        model.generate("a cat")
    with pytest.raises(Unsupported, match="has no image encoder"):
        model.vary("x.png")


def test_decoder_and_prior_of_different_versions(folders):
    with pytest.raises(ModelError, match=r"reads embeddings of width 20, the clip of .* gives 24"):
        unclip.load(folders["2.2", "decoder"], prior=folders["2.1", "prior"])


def test_the_prior_brings_clip_and_words(folders):
    opened = open_model(folders["2.1", "decoder"], parts={"prior": folders["2.1", "prior"]})
    assert set(opened.parts) == {"decoder", "autoencoder", "text", "clip", "prior"}
    assert opened.name == "kandinsky-2-1-decoder + kandinsky-2-1-prior"
    assert opened.licence == "apache-2.0"
    assert (opened.defaults.prior.steps, opened.defaults.prior.guidance) == (25, 4.0)
    assert (opened.defaults.decoder.steps, opened.defaults.decoder.sampler) == (100, "ddim")
    assert opened.tokenizer().context == 13
    assert opened.tokenizers["text"]().context == 77
    assert opened.digest != open_model(folders["2.1", "decoder"]).digest


def test_a_combined_folder(folders, pipelines, tmp_path):
    prior, decoder = pipelines["2.2", "prior"], pipelines["2.2", "decoder"]
    parts = {f"prior_{name}": part for name, part in prior.components.items()} | decoder.components
    KandinskyV22CombinedPipeline(**parts).save_pretrained(tmp_path / "combined")
    whole = unclip.load(tmp_path / "combined", device="cpu")
    pair = unclip.load(folders["2.2", "decoder"], prior=folders["2.2", "prior"], device="cpu")
    assert set(whole.parts.names) == set(pair.parts.names)
    made = [model.generate("a red cat", **FEW)[0].image.tobytes() for model in (whole, pair)]
    assert made[0] == made[1]


@pytest.mark.parametrize("version", ["2.1", "2.2"])
def test_converted_folders_draw_the_same(folders, tmp_path, version):
    """With the multilingual tokenizer in a file of its own."""
    names = {"decoder": folders[version, "decoder"], "prior": folders[version, "prior"]}
    made = {name: convert(folder, tmp_path / name) for name, folder in names.items()}
    drawn = []
    for one in (names, made):
        model = unclip.load(one["decoder"], prior=one["prior"], device="cpu", dtype="float32")
        drawn.append(model.generate("a red cat", **FEW)[0].image.tobytes())
    assert drawn[0] == drawn[1]
    manifest = json.loads((made["decoder"] / "model.json").read_text())
    assert list(manifest["tokenizers"]) == (["text"] if version == "2.1" else [])
    if version == "2.1":
        (made["decoder"] / "text_tokenizer.json").unlink()
        with pytest.raises(ModelError, match=r"text_tokenizer\.json is missing"):
            open_model(made["decoder"])


@pytest.mark.parametrize("version", ["2.1", "2.2"])
def test_offloaded_and_in_half_precision(folders, version):
    """Of CLIP only the tower that is asked is loaded, and nothing stays."""
    load = {"prior": folders[version, "prior"], "device": "cpu"}
    whole = unclip.load(folders[version, "decoder"], **load)
    model = unclip.load(folders[version, "decoder"], offload=True, **load)
    with model.parts.lend("clip", torch.nn.Module, only="vision") as clip:
        assert clip.text.tokens.weight.is_meta
        assert not clip.vision.project.weight.is_meta
    made = [one.generate("a red cat", **FEW)[0].image.tobytes() for one in (whole, model)]
    assert made[0] == made[1]
    assert model.parts._networks == {}
    half = unclip.load(folders[version, "decoder"], dtype="bfloat16", offload=True, **load)
    assert half.generate("a red cat", **FEW)[0].image.size == (64, 64)


def test_damaged_and_foreign_folders(folders, tmp_path):
    def copy(version: str, name: str):
        target = tmp_path / f"{version}-{name}-{len(list(tmp_path.iterdir()))}"
        return shutil.copytree(folders[version, name], target)

    damaged = copy("2.1", "decoder")
    (damaged / "tokenizer" / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match=r"tokenizer\.json is damaged"):
        open_model(damaged)
    (damaged / "tokenizer" / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"tokenizer\.json is missing"):
        open_model(damaged)
    foreign = copy("2.2", "decoder")
    index = json.loads((foreign / "model_index.json").read_text())
    index["_class_name"] = "KandinskyV22ControlnetPipeline"
    (foreign / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match="KandinskyV22ControlnetPipeline"):
        open_model(foreign)


def test_every_option_of_the_schedulers_is_listed(pipelines):
    for name, reference in (("2.2", DDPM), ("2.1", DDIM)):
        config = pipelines[name, "decoder"].scheduler.config
        assert {option for option in config if not option.startswith("_")} == reference.options


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"_class_name": "PNDMScheduler"}, "'PNDMScheduler' is not one of DDPMScheduler, DDIMScheduler"),
        (
            {"thresholding": True, "_class_name": "DDIMScheduler", "clip_sample": False},
            "thresholding is True",
        ),
        ({"clip_sample": True, "_class_name": "DDIMScheduler"}, "clip_sample is True"),
        ({"_class_name": "DDIMScheduler"}, "clip_sample is True"),
        ({"thresholding": True, "sample_max_value": 0.5}, "sample_max_value 0.5"),
        ({"beta_schedule": "squaredcos_cap_v2"}, "not one of linear, scaled_linear"),
        ({"variance_type": "fixed_large"}, "variance_type is 'fixed_large'"),
        ({"prediction_type": "sample"}, "prediction_type is 'sample'"),
        ({"timestep_spacing": "odd"}, "timestep_spacing is 'odd'"),
        ({"unheard_of": 1}, "the option 'unheard_of' of DDPMScheduler is not known"),
    ],
)
def test_another_schedule_is_refused(change, message):
    with pytest.raises(ModelError, match=message):
        read_schedule({"_class_name": "DDPMScheduler"} | change, "scheduler")


def test_schedules():
    """Of the published files."""
    found = read_schedule(
        {
            "_class_name": "DDPMScheduler",
            "beta_start": 0.00085,
            "beta_end": 0.012,
            "beta_schedule": "linear",
            "steps_offset": 1,
            "clip_sample": True,
        },
        "scheduler",
    )
    table = found.process.build().table
    assert table is not None
    assert float(table.sigmas[-1]) == pytest.approx(25.14611, abs=1e-4)
    assert float(table.abar[-1]) == pytest.approx(0.00157896, abs=1e-7)
    assert (found.clip, found.sampler) == (1.0, "ddpm")
    levels = found.grid.visits(table, "ddpm", 50).sigmas
    assert torch.equal(levels[:-1], table.sigmas[torch.arange(981, 0, -20)])


def test_an_autoencoder_is_needed(folders):
    model = unclip.load(folders["2.2", "decoder"], prior=folders["2.2", "prior"], device="cpu")
    del model.parts._parts["autoencoder"]
    with pytest.raises(Unsupported, match="draws latents, and the model has no autoencoder"):
        model.generate("a cat")


def test_what_pulling_takes():
    """Of a repository as the hub's: one copy of each component's weights, and no schedulers' weights that there are none of."""
    listed = ["model_index.json", "README.md", "unet/config.json", "movq/config.json"]
    listed += [
        f"{part}/diffusion_pytorch_model{end}"
        for part in ("unet", "movq")
        for end in (".safetensors", ".bin")
    ]
    listed += ["unet/diffusion_pytorch_model.fp16.safetensors", "scheduler/scheduler_config.json"]
    listed += ["text_encoder/config.json", "text_encoder/pytorch_model.bin", "text_encoder/model.safetensors"]
    listed += ["tokenizer/tokenizer.json", "tokenizer/sentencepiece.bpe.model", "example.png"]
    assert [name for name in needed(listed) if "." in name and not name.endswith((".json", ".md"))] == [
        "movq/diffusion_pytorch_model.safetensors",
        "text_encoder/model.safetensors",
        "unet/diffusion_pytorch_model.safetensors",
    ]
    assert "tokenizer/tokenizer.json" in needed(listed)


def test_a_batch_draws_what_single_calls_draw(folders):
    """To rounding, with the grey picture's embedding and with those of negative prompts."""
    model = unclip.load(folders["2.1", "decoder"], prior=folders["2.1", "prior"], device="cpu")
    for negative in (None, "a dog"):
        given = FEW | {"negative": negative, "sampler": "ddim", "guidance": 2.0}
        both = model.generate(["a cat", "a red cat"], batch_size=2, **given)
        for one in both:
            prompt = one.provenance["request"]["prompt"]
            (alone,) = model.generate(prompt, **given | {"seed": one.seed})
            torch.testing.assert_close(one.embedding, alone.embedding, atol=1e-4, rtol=0)


def test_a_bundle_and_one_stored_small_keep_the_text_encoder_s_tokenizer(folders, tmp_path):
    """And the settings and the licence of the folders that they are made of."""
    sources = [convert(folders["2.1", name], tmp_path / name) for name in ("decoder", "prior")]
    whole = bundle(sources, tmp_path / "whole", "whole", storage="float32")
    small = tmp_path / "small"
    quantize_model(whole, small, storage="float16")
    apart = unclip.load(sources[0], prior=sources[1], device="cpu")
    made = apart.generate("a red cat", **FEW)[0].image.tobytes()
    assert unclip.load(whole, device="cpu").generate("a red cat", **FEW)[0].image.tobytes() == made
    for folder in (whole, small):
        opened = open_model(folder, check=True)
        assert opened.tokenizers["text"]().to_json() == apart.parts.tokenizer_of("text").to_json()
        assert opened.defaults.decoder == apart.defaults.decoder
        assert opened.licence == "apache-2.0"
    assert bundle(sources, tmp_path / "mit", "mit", licence="mit")
    assert open_model(tmp_path / "mit").licence == "mit"
