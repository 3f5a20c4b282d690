"""Digests of public models: pictures record them, so they must not change with the config classes."""

import hashlib
from dataclasses import dataclass, fields, make_dataclass, replace

import pytest

from unclip.diffusion.parametrization import ProcessConfig
from unclip.formats.digest import FIELDS, stable_repr
from unclip.networks.clip import ClipConfig
from unclip.networks.decoder import CaptionConfig, DecoderConfig
from unclip.networks.prior_diffusion import DiffusionPriorConfig
from unclip.networks.prior_laion import LaionPriorConfig
from unclip.networks.unet import UnetConfig
from unclip.networks.upsampler import UpsamplerConfig

NET = UnetConfig(
    in_channels=3,
    out_channels=6,
    channels=320,
    blocks=3,
    attention_levels=(1, 2, 3),
    context_width=1536,
    vector_width=1280,
)
UPSAMPLER = UpsamplerConfig(
    net=UnetConfig(in_channels=6, scale_shift_norm=False),
    process=ProcessConfig(parametrization="eps", schedule="cosine"),
    last_step=True,
)


@pytest.mark.parametrize(
    ("config", "recorded"),
    [
        (ClipConfig(embedding=768, normalize=False), "b0f7321bbee6f7ce"),
        (DiffusionPriorConfig(null="empty", clip_range=10.0), "7d43107fd4b4ea84"),
        (LaionPriorConfig(), "8e84bc5b2ae0ac42"),
        (
            DecoderConfig(net=NET, embedding=768, caption=CaptionConfig(tower="clip", start=49406)),
            "87436925131a704a",
        ),
        (UPSAMPLER, "6e64d670a04958ca"),
    ],
)
def test_configs_are_written_as_version_0_1_wrote_them(config, recorded):
    """The hashes were computed from `repr` in version 0.1."""
    assert hashlib.sha256(stable_repr(config).encode()).hexdigest()[:16] == recorded


def test_every_field_shows():
    for name, value in {"embedding": 7, "null": "empty", "clip_range": 7.0, "timed": False}.items():
        changed = replace(DiffusionPriorConfig(), **{name: value})
        assert stable_repr(changed) != stable_repr(DiffusionPriorConfig())


def test_fields_that_are_added_show_where_they_differ_from_their_default():
    added = make_dataclass(
        "ProcessConfig", [("shift", float, 1.0)], bases=(ProcessConfig,), frozen=True, kw_only=True
    )
    plain = stable_repr(ProcessConfig(parametrization="eps"))
    assert stable_repr(added(parametrization="eps")) == plain
    assert stable_repr(added(parametrization="eps", shift=3.0)) == plain[:-1] + ", shift=3.0)"


def test_classes_that_came_later_are_written_whole():
    @dataclass
    class Later:
        width: int = 3

    assert "Later" not in FIELDS
    assert stable_repr(Later()) == "Later(width=3)"
    assert [field.name for field in fields(Later)] == ["width"]
