"""Numbers of training configs: every setting of every stage has a range, and what is out of it is refused by name."""

import dataclasses
import json
import math
import types
import typing
from dataclasses import replace

import pytest

from unclip import recipes
from unclip.config import ConfigError, override, to_dict
from unclip.train.ranges import RANGES
from unclip.train.registry import STAGES, config_class

STRANGE = ("NaN", "Infinity", "-Infinity", "1e400")


def kinds(hint):
    """The types within a hint."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType, tuple):
        return [one for inner in typing.get_args(hint) if inner is not Ellipsis for one in kinds(inner)]
    return [hint]


def numbers_of(cls, found, seen):
    """Names of all settings of a config's class that are numbers, nested ones too."""
    if cls in seen:
        return
    seen.add(cls)
    for name, hint in typing.get_type_hints(cls).items():
        for kind in kinds(hint):
            if kind in (int, float):
                found.add(name)
            elif dataclasses.is_dataclass(kind):
                numbers_of(kind, found, seen)


def test_every_number_of_every_stage_has_a_range():
    """A new setting fails here, until it has one."""
    found: set[str] = set()
    seen: set[type] = set()
    for stage in STAGES:
        numbers_of(config_class(stage), found, seen)
    assert len(found) > 80
    assert found == set(RANGES)


def config_of(stage):
    for recipe in ("tiny", "tiny_latent", "kandinsky", "stable_diffusion"):
        try:
            return recipes.get(recipe, stage)
        except (ValueError, KeyError):
            continue
    raise AssertionError(stage)


def paths(node, before=()):
    for name, value in node.items():
        if isinstance(value, dict):
            yield from paths(value, (*before, name))
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield ".".join((*before, name)), value


@pytest.mark.parametrize("stage", STAGES)
def test_numbers_out_of_range_are_refused_by_name(stage):
    config = config_of(stage)
    looked_at = list(paths(to_dict(config)))
    assert len(looked_at) > 15
    for path, value in looked_at:
        name = path.rpartition(".")[2]
        low, high, _ = RANGES[name]
        wrong = [*STRANGE, *(["-1"] if low >= 0 else []), *(["0"] if low > 0 else [])]
        wrong += ["1.5", "2"] if high <= 1 else []
        for text in wrong:
            # Sizes of networks depend on each other, and their own checks may come first.
            words = "." if path.startswith(("model.", "discriminator.")) else name
            with pytest.raises(ValueError, match=words) as raised:
                override(config, [f"{path}={text}"])
            assert "\n" not in str(raised.value), (path, text)
        # What it is fits.
        override(config, [f"{path}={json.dumps(value)}"])


@pytest.mark.parametrize(
    ("stage", "change", "message"),
    [
        ("decoder", {"dropout_image": 5}, "dropout_image is 5"),
        ("decoder", {"ema_decay": 1.0}, "ema_decay is 1.0: give a number from 0 to below 1"),
        ("clip", {"checkpoint_seconds": math.nan}, "checkpoint_seconds is nan"),
        ("clip", {"samples": 10**30}, r"samples is 1000+: give"),
        ("clip", {"seed": 2**64}, "seed is 18446744073709551616"),
        ("prior", {"dropout_text": -0.1}, "dropout_text is -0.1: give a share from 0 to 1"),
    ],
)
def test_python_s_configs_are_checked_as_well(stage, change, message):
    """Dropped always, learned never: such runs went on to their end."""
    with pytest.raises(ConfigError, match=message):
        replace(config_of(stage), **change)


def test_nested_settings_are_named_with_their_path():
    config = config_of("clip")
    with pytest.raises(ConfigError, match=r"optimizer\.betas\[1\] is 1\.0: give a number from 0 to below 1"):
        replace(config, optimizer=replace(config.optimizer, betas=(0.9, 1.0)))
    with pytest.raises(ConfigError, match=r"model\.text\.heads is 0: give a whole number of at least 1"):
        replace(config, model=replace(config.model, text=replace(config.model.text, heads=0)))
