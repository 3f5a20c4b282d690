"""Embedding spaces: rounding does not change a sketch, other weights do, and parts of different spaces are refused."""

import json
import re
from dataclasses import replace

import pytest
import torch

from unclip.checkpoints.io import save_model
from unclip.checkpoints.manifest import ModelError, Space, read_manifest
from unclip.checkpoints.opened import OpenPart, check_fit, open_model
from unclip.checkpoints.pack import pack
from unclip.checkpoints.quantize import dequantize, quantize
from unclip.checkpoints.space import describe, differ, sketch
from unclip.diffusion.parametrization import ProcessConfig
from unclip.networks.clip import Clip, ClipConfig, TextConfig, VisionConfig
from unclip.networks.decoder import CaptionConfig, DecoderConfig
from unclip.networks.prior_autoregressive import AutoregressivePriorConfig
from unclip.networks.prior_diffusion import DiffusionPrior, DiffusionPriorConfig
from unclip.networks.unet import UnetConfig
from unclip.networks.upsampler import UpsamplerConfig

CLIP = ClipConfig(
    embedding=16,
    vision=VisionConfig(size=16, patch=8, width=32, layers=1, heads=2),
    text=TextConfig(vocabulary=600, context=8, end=599, width=32, layers=1, heads=2),
)
PRIOR = DiffusionPriorConfig(embedding=16, context=8, text_width=32, width=32, layers=1, heads=2)


def drawn(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_a_sketch_survives_rounding_and_tells_weights_apart():
    matrix = drawn(0, 768, 768) * 0.02
    space = Space(sketch=sketch(matrix))
    for rounded in (matrix.half(), matrix.bfloat16(), dequantize(*quantize(matrix)), 3 * matrix):
        assert not differ(space, Space(sketch=sketch(rounded)))
    for seed in range(1, 5):
        assert differ(space, Space(sketch=sketch(drawn(seed, 768, 768))))
    # Numbers of unit variance, whatever the size: 40 of them.
    many = torch.tensor([sketch(drawn(seed, 24, 16)) for seed in range(5)])
    assert 0.7 < many.std() < 1.3


def test_names_decide_where_a_sketch_is_missing():
    named, sketched = Space(name="a"), Space(name="a", sketch=(1.0,) * 8)
    assert not differ(named, sketched)
    assert differ(Space(name="b"), sketched)
    assert not differ(Space(), sketched)
    # One CLIP under two names.
    assert not differ(Space(name="b", sketch=(1.001,) * 8), sketched)
    assert describe(sketched) == "a (sketch +1.00 +1.00 +1.00)"
    assert describe(Space(name="b")) == "b"


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
    assert both.parts["clip"].space().sketch == read_manifest(folders / "two").space.sketch


def test_a_part_that_was_trained_alone_remembers_its_clip(folders):
    space = read_manifest(folders / "two").space
    save_model(folders / "prior", {"prior": DiffusionPrior(PRIOR)}, name="alone", space=space)
    with pytest.raises(ModelError, match="the prior of 'alone' was made for the embeddings of"):
        open_model(folders / "one", parts={"prior": folders / "prior"})
    assert open_model(folders / "two", parts={"prior": folders / "prior"}).parts["prior"].model == "alone"


def test_packing_and_older_folders_keep_their_space(folders):
    pack(folders / "one", folders / "small", storage="int8")
    assert read_manifest(folders / "small").space == read_manifest(folders / "one").space
    file = folders / "small" / "model.json"
    data = json.loads(file.read_text())
    del data["space"]
    file.write_text(json.dumps(data))
    mixed = open_model(folders / "one", parts={"prior": folders / "small"})
    assert mixed.parts["prior"].model == "one"
    assert mixed.parts["prior"].space().sketch != read_manifest(folders / "one").space.sketch
    with pytest.raises(ModelError, match="not made for each other"):
        open_model(folders / "two", parts={"prior": folders / "small"})


def test_a_prior_alone_is_known_by_name():
    def part(model: str, config: object, space: Space) -> OpenPart:
        return OpenPart(model=model, config=config, load=lambda: None, space=lambda: space)

    prior = part("LAION", PRIOR, Space(name="OpenAI CLIP ViT-L/14"))
    clip = part("Karlo", CLIP, Space(name="OpenAI CLIP ViT-L/14", sketch=(0.5,) * 8))
    check_fit({"clip": clip, "prior": prior})
    check_fit({"clip": replace(clip, space=lambda: Space(sketch=(0.5,) * 8)), "prior": prior})
    other = replace(clip, space=lambda: Space(name="OpenCLIP ViT-bigG/14", sketch=(0.5,) * 8))
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
