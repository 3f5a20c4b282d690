"""Configs: there and back through JSON, and errors that name the key."""

import json
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from unclip import config as configs
from unclip.config import ConfigError
from unclip.diffusion.parametrization import ProcessConfig
from unclip.networks.clip import ClipConfig, TextConfig, VisionConfig
from unclip.networks.decoder import CaptionConfig, DecoderConfig
from unclip.networks.patch_transformer import PatchTransformerConfig
from unclip.networks.prior_autoregressive import AutoregressivePriorConfig, CaptionEncoderConfig
from unclip.networks.prior_diffusion import DiffusionPriorConfig
from unclip.networks.unet import UnetConfig


@dataclass(frozen=True, kw_only=True)
class Circle:
    kind: Literal["circle"] = "circle"
    radius: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Square:
    kind: Literal["square"] = "square"
    side: int


@dataclass(frozen=True, kw_only=True)
class Drawing:
    name: str
    shape: Circle | Square = Circle()
    border: Circle | None = None
    corner: tuple[int, int] = (0, 0)
    colours: tuple[str, ...] = ()
    weights: dict[str, float] = field(default_factory=dict)
    solid: bool = False
    mode: Literal["fill", "line"] = "fill"
    extra: Any = None


FULL = Drawing(
    name="full",
    shape=Square(side=3),
    border=Circle(radius=2.5),
    corner=(1, 2),
    colours=("red", "blue"),
    weights={"a": 0.5},
    solid=True,
    mode="line",
    extra={"free": [1, None, "text"]},
)


def through_json(config):
    return configs.from_dict(type(config), json.loads(json.dumps(configs.to_dict(config))))


@pytest.mark.parametrize("drawing", [FULL, Drawing(name="defaults")], ids=lambda drawing: drawing.name)
def test_a_config_survives_json(drawing):
    assert through_json(drawing) == drawing


@pytest.mark.parametrize(
    "config",
    [
        ClipConfig(
            vision=VisionConfig(mean=(0.48, 0.45, 0.4), pool="mean"), text=TextConfig(end=3), loss="sigmoid"
        ),
        DiffusionPriorConfig(process=ProcessConfig(parametrization="x0", steps=50)),
        AutoregressivePriorConfig(encoder=CaptionEncoderConfig(width=64)),
        DecoderConfig(net=UnetConfig(attention_levels=(1, 2)), caption=CaptionConfig(layers=2)),
        DecoderConfig(net=PatchTransformerConfig(patch=4), caption=None, inpainting=True),
    ],
    ids=["clip", "prior", "autoregressive prior", "unet decoder", "patch decoder"],
)
def test_the_models_configs_survive_json(config):
    assert through_json(config) == config


def test_what_is_left_out_takes_its_default():
    assert configs.from_dict(Drawing, {"name": "x"}) == Drawing(name="x")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nmae": "x"}, r"^Drawing: unknown key 'nmae'; it has name, shape, border"),
        ({"shape": {"kind": "square", "side": 1, "radius": 1}}, r"^Drawing\.shape: unknown key 'radius'"),
        ({"shape": {"kind": "square"}}, r"^Drawing\.shape: the key 'side' is missing"),
        ({"shape": {"kind": "star"}}, r"^Drawing\.shape\.kind: 'star' is not one of 'circle', 'square'"),
        ({"shape": {"side": 1}}, r"^Drawing\.shape\.kind: None is not one of 'circle', 'square'"),
        ({"shape": 3}, r"^Drawing\.shape: expected an object with keys, got 3"),
        ({"border": {"kind": "square"}}, r"^Drawing\.border\.kind: 'square' is not one of 'circle'"),
        ({"corner": [1, 2, 3]}, r"^Drawing\.corner: expected 2 values, got 3"),
        ({"corner": [1, "2"]}, r"^Drawing\.corner\[1\]: expected int, got '2'"),
        ({"corner": 1}, r"^Drawing\.corner: expected a list, got 1"),
        ({"colours": "red"}, r"^Drawing\.colours: expected a list, got 'red'"),
        ({"weights": {"a": "b"}}, r"^Drawing\.weights\.a: expected float, got 'b'"),
        ({"weights": [1]}, r"^Drawing\.weights: expected an object, got \[1\]"),
        ({"solid": 1}, r"^Drawing\.solid: expected bool, got 1"),
        ({"mode": "both"}, r"^Drawing\.mode: 'both' is not one of 'fill', 'line'"),
        ({"name": None}, r"^Drawing\.name: expected str, got None"),
    ],
)
def test_errors_name_the_key_the_value_and_what_is_allowed(change, message):
    with pytest.raises(ConfigError, match=message):
        configs.from_dict(Drawing, {"name": "x", **change})


def test_a_missing_key_and_a_config_that_is_no_object():
    with pytest.raises(ConfigError, match=r"^Drawing: the key 'name' is missing"):
        configs.from_dict(Drawing, {})
    with pytest.raises(ConfigError, match=r"^Drawing: expected an object with keys, got 7"):
        configs.from_dict(Drawing, 7)


def test_numbers_keep_their_type():
    """JSON writes 2.0 as 2 in some hands; but 2.5 is no count, and true is no number."""
    assert isinstance(configs.from_dict(Circle, {"radius": 2}).radius, float)
    for value in (2.5, True):
        with pytest.raises(ConfigError, match="expected int"):
            configs.from_dict(Square, {"side": value})
    with pytest.raises(ConfigError, match="expected float, got True"):
        configs.from_dict(Circle, {"radius": True})


def test_override_reads_json_or_else_text_and_leaves_the_original():
    before = configs.to_dict(FULL)
    changed = configs.override(
        FULL,
        [
            "name=new name",
            "shape.side=7",
            "border=null",
            'colours=["green"]',
            "weights.a=2",
            "solid=false",
            "mode=fill",
        ],
    )
    assert changed == Drawing(
        name="new name",
        shape=Square(side=7),
        corner=(1, 2),
        colours=("green",),
        weights={"a": 2.0},
        extra=FULL.extra,
    )
    assert configs.to_dict(FULL) == before


def test_override_can_change_which_dataclass_a_field_holds():
    assert configs.override(FULL, ['shape={"kind": "circle", "radius": 4}']).shape == Circle(radius=4.0)


def test_later_overrides_win():
    assert configs.override(FULL, ["name=a", "name=b=c"]).name == "b=c"


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("name", "'name' is not of the form key.subkey=value"),
        ("=3", "'=3' is not of the form"),
        ("nmae=x", "nmae: there is no 'nmae'; choose from name, shape"),
        ("shape.radius=1", "shape.radius: there is no 'radius'; choose from kind, side"),
        ("form.side=1", "form.side: there is no 'form'; choose from name, shape"),
        ("name.first=x", "name.first: there is no 'first'; choose from nothing: it is a plain value"),
        ("name.first.letter=x", "name.first.letter: there is no 'first'; choose from nothing"),
        ("shape.side=big", r"Drawing\.shape\.side: expected int, got 'big'"),
        ("shape.kind=circle", r"Drawing\.shape: unknown key 'side'"),
    ],
)
def test_override_errors_name_the_path(assignment, message):
    with pytest.raises(ConfigError, match=message):
        configs.override(FULL, [assignment])
