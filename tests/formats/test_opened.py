"""Opened models: parts of different embedding spaces, sizes or lengths are refused, and both are named."""

import json
import re
from dataclasses import replace

import pytest
import torch

from unclip.checkpoints.io import save_model
from unclip.checkpoints.manifest import read_manifest
from unclip.checkpoints.quantize_model import quantize_model
from unclip.diffusion.parametrization import ProcessConfig
from unclip.errors import ModelError
from unclip.formats.fit import check_fit
from unclip.formats.open_part import OpenPart
from unclip.formats.opened import open_model
from unclip.networks.clip import Clip, ClipConfig, TextConfig, VisionConfig
from unclip.networks.decoder import CaptionConfig, DecoderConfig
from unclip.networks.prior_autoregressive import AutoregressivePriorConfig
from unclip.networks.prior_diffusion import DiffusionPrior, DiffusionPriorConfig
from unclip.networks.unet import UnetConfig
from unclip.networks.upsampler import UpsamplerConfig
from unclip.stages.sampling import DEFAULTS, sampling
from unclip.stages.space import EmbeddingSpace, fingerprint_of

CLIP = ClipConfig(
    embedding=16,
    vision=VisionConfig(size=16, patch=8, width=32, layers=1, heads=2),
    text=TextConfig(vocabulary=600, context=8, end=599, width=32, layers=1, heads=2),
)
PRIOR = DiffusionPriorConfig(embedding=16, context=8, text_width=32, width=32, layers=1, heads=2)


@pytest.fixture
def folders(tmp_path):
    """Two models of one size whose CLIPs were not trained together."""
    for seed, name in enumerate(("one", "two")):
        torch.manual_seed(seed)
        parts = {"clip": Clip(CLIP), "prior": DiffusionPrior(PRIOR)}
        save_model(tmp_path / name, parts, name=name, tokenizer="{}")
    return tmp_path


def test_equal_widths_are_not_enough(folders):
    with pytest.raises(ModelError) as caught:
        open_model(folders / "one", parts={"prior": folders / "two"})
    said = str(caught.value)
    assert "the prior of 'two' was made for the embeddings of" in said
    assert "the clip of 'one' for those of" in said
    # Both of them together are at home with each other.
    both = open_model(folders / "one", parts={"prior": folders / "two", "clip": folders / "two"})
    assert both.parts["clip"].space().fingerprint == read_manifest(folders / "two").space.fingerprint


def test_a_part_that_was_trained_alone_remembers_its_clip(folders):
    space = read_manifest(folders / "two").space
    save_model(folders / "prior", {"prior": DiffusionPrior(PRIOR)}, name="alone", space=space)
    with pytest.raises(ModelError, match="the prior of 'alone' was made for the embeddings of"):
        open_model(folders / "one", parts={"prior": folders / "prior"})
    assert open_model(folders / "two", parts={"prior": folders / "prior"}).parts["prior"].model == "alone"


def test_packing_and_older_folders_keep_their_space(folders):
    quantize_model(folders / "one", folders / "small", storage="int8")
    assert read_manifest(folders / "small").space == read_manifest(folders / "one").space
    file = folders / "small" / "model.json"
    data = json.loads(file.read_text())
    del data["space"]
    file.write_text(json.dumps(data))
    mixed = open_model(folders / "one", parts={"prior": folders / "small"})
    assert mixed.parts["prior"].model == "one"
    assert mixed.parts["prior"].space().fingerprint != read_manifest(folders / "one").space.fingerprint
    with pytest.raises(ModelError, match="not made for each other"):
        open_model(folders / "two", parts={"prior": folders / "small"})


def test_a_prior_alone_is_known_by_name():
    def space(**given) -> EmbeddingSpace:
        return EmbeddingSpace(width=16, **given)

    def part(model: str, config: object, made_for: EmbeddingSpace) -> OpenPart:
        return OpenPart(model=model, config=config, load=lambda: None, space=lambda: made_for)

    prior = part("LAION", PRIOR, space(name="OpenAI CLIP ViT-L/14"))
    clip = part("Karlo", CLIP, space(name="OpenAI CLIP ViT-L/14", fingerprint=(0.5,) * 8))
    check_fit({"clip": clip, "prior": prior})
    check_fit({"clip": replace(clip, space=lambda: space(fingerprint=(0.5,) * 8)), "prior": prior})
    other = replace(clip, space=lambda: space(name="OpenCLIP ViT-bigG/14", fingerprint=(0.5,) * 8))
    with pytest.raises(
        ModelError, match=r"OpenAI CLIP ViT-L/14, the clip of 'Karlo' .* OpenCLIP ViT-bigG/14"
    ):
        check_fit({"clip": other, "prior": prior})


NET = UnetConfig(channels=16)
UPSAMPLING = UnetConfig(channels=16, in_channels=6)
DECODER = DecoderConfig(
    net=NET,
    size=64,
    embedding=16,
    caption=CaptionConfig(vocabulary=600, context=8, end=599, width=32, layers=1, heads=2),
)
AUTOREGRESSIVE = AutoregressivePriorConfig(embedding=16, context=8, text_width=32)
EPS = ProcessConfig(parametrization="eps")
PARTS = {
    "clip": CLIP,
    "prior": PRIOR,
    "prior_autoregressive": AUTOREGRESSIVE,
    "decoder": DECODER,
    "upsampler": UpsamplerConfig(net=UPSAMPLING, process=EPS, low_size=64, high_size=256),
    "upsampler_1024": UpsamplerConfig(net=UPSAMPLING, process=EPS, low_size=256, high_size=1024),
}


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        (
            "prior",
            {"embedding": 24},
            "the prior of 'other' reads embeddings of width 24, the clip of 'base' gives 16",
        ),
        ("prior", {"text_width": 24}, "reads text states of width 24, the clip of 'base' gives 32"),
        ("prior", {"context": 77}, "reads captions of so many tokens: 77, the clip of 'base' gives 8"),
        (
            "prior_autoregressive",
            {"embedding": 24},
            "the prior_autoregressive of 'other' reads embeddings of width 24",
        ),
        (
            "prior_autoregressive",
            {"text_width": 24},
            "reads text states of width 24, the clip of 'base' gives 32",
        ),
        (
            "prior_autoregressive",
            {"context": 77},
            "captions of so many tokens: 77, the clip of 'base' gives 8",
        ),
        ("decoder", {"embedding": 24}, "the decoder of 'other' reads embeddings of width 24"),
        (
            "decoder",
            {"caption": replace(DECODER.caption, vocabulary=700)},
            "the decoder of 'other' reads a vocabulary of 700, the clip of 'base' gives 600",
        ),
        (
            "decoder",
            {"caption": replace(DECODER.caption, context=77)},
            "the decoder of 'other' reads captions of so many tokens: 77, the clip of 'base' gives 8",
        ),
        (
            "decoder",
            {"size": 32},
            "the upsampler of 'base' reads pictures of side 64, the decoder of 'other' gives 32",
        ),
        (
            "upsampler",
            {"low_size": 32},
            "the upsampler of 'other' reads pictures of side 32, the decoder of 'base' gives 64",
        ),
        (
            "upsampler",
            {"high_size": 128},
            "the upsampler_1024 of 'base' reads pictures of side 256, the upsampler of 'other' gives 128",
        ),
    ],
)
def test_sizes_that_do_not_fit_are_both_named(name, changes, message):
    parts = {part: OpenPart(model="base", config=config, load=lambda: None) for part, config in PARTS.items()}
    check_fit(parts)
    parts[name] = OpenPart(model="other", config=replace(PARTS[name], **changes), load=lambda: None)
    with pytest.raises(ModelError, match=re.escape(message)):
        check_fit(parts)


def test_parts_that_read_embeddings_of_another_length_are_refused(folders):
    """Karlo's and Kandinsky's parts take CLIP's embeddings as they come; CLIP alone gives those of unit length."""
    torch.manual_seed(0)
    parts = {"clip": Clip(replace(CLIP, normalize=False)), "prior": DiffusionPrior(PRIOR)}
    save_model(folders / "raw", parts, name="raw", tokenizer="{}")
    message = "the prior of 'raw' reads embeddings as long as they come, the clip of 'one' gives them of unit length"
    with pytest.raises(ModelError, match=message):
        open_model(folders / "one", parts={"prior": folders / "raw"})
    # The other way round it fits: a CLIP gives what the one in its place did.
    mixed = open_model(folders / "raw", parts={"clip": folders / "one"})
    assert mixed.parts["clip"].config.normalize is False
    assert mixed.parts["clip"].load().config.normalize is False


def test_an_opened_model_states_roles_and_settings_without_loading_weights(folders):
    for file in folders.glob("one/*.safetensors"):
        file.write_bytes(bytes(file.stat().st_size))
    model = open_model(folders / "one")
    assert {name: part.role for name, part in model.parts.items()} == {"clip": "clip", "prior": "prior"}
    assert model.digest == read_manifest(folders / "one").digest
    assert model.defaults == DEFAULTS
    parts = {name: OpenPart(model="x", config=config, load=lambda: None) for name, config in PARTS.items()}
    parts["a second enlarger"] = parts.pop("upsampler_1024")
    assert replace(model, parts=parts).named("upsampler") == ["upsampler", "a second enlarger"]
    assert replace(model, parts=parts).named("prior") == ["prior", "prior_autoregressive"]
    # Roles, not names, decide what must fit.
    parts["a second enlarger"] = replace(
        parts["a second enlarger"], config=replace(PARTS["upsampler_1024"], low_size=128)
    )
    with pytest.raises(ModelError, match="the a second enlarger of 'x' reads pictures of side 128"):
        check_fit(parts)


def test_settings_of_a_folder_fill_up_the_defaults_and_a_prior_brings_its_own(folders):
    parts = {"clip": Clip(CLIP), "prior": DiffusionPrior(PRIOR)}
    given = {"steps": 3, "prior_steps": 4, "prior": "text", "guidance": 7.0}
    save_model(folders / "three", parts, name="three", tokenizer="{}", defaults=given)
    model = open_model(folders / "three")
    assert model.defaults == sampling(**given).over(DEFAULTS)
    mixed = open_model(folders / "one", parts={"clip": folders / "three", "prior": folders / "three"})
    assert mixed.defaults == sampling(prior_steps=4).over(DEFAULTS)


def test_the_space_has_width_length_and_the_statistics_of_the_prior(folders):
    torch.manual_seed(3)
    clip, prior = Clip(replace(CLIP, normalize=False)), DiffusionPrior(PRIOR)
    prior.embedding_mean.normal_()
    prior.embedding_std.fill_(0.5)
    save_model(folders / "raw", {"clip": clip, "prior": prior}, name="raw", tokenizer="{}")
    space = open_model(folders / "raw").space()
    assert (space.width, space.normalised) == (16, False)
    assert space.fingerprint == fingerprint_of(clip.text.project.weight)
    assert torch.equal(space.mean, prior.embedding_mean)
    assert space.rms_length == pytest.approx((prior.embedding_mean.square().sum() + 16 * 0.25).sqrt().item())
    # A prior that was saved without statistics has none.
    assert open_model(folders / "one").space().mean is None
    assert open_model(folders / "one").space().rms_length == 1.0
    alone = save_model(folders / "alone", {"prior": prior}, name="alone")
    assert open_model(alone).space().normalised is None
    assert open_model(alone).space().rms_length == pytest.approx(space.rms_length)
