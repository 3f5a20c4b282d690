"""The command line and the JSON Schema are made of the same fields: names, descriptions, ranges and choices agree."""

import argparse
from dataclasses import fields
from typing import Any

import pytest

from unclip.cli import main as program
from unclip.cli import verbs
from unclip.cli.request_options import NOT_OPTIONS
from unclip.config import parameters
from unclip.errors import RequestError
from unclip.generate.operations import BY_KIND
from unclip.generate.schema import schema, schema_of
from unclip.stages.sampling import FLAT_NAMES, sampling

DRAWING = {verb.kind: verb for verb in (*verbs.DRAW, *verbs.EDIT, *verbs.INSPECT)}
HOMES = {"prior": "PriorSampling", "decoder": "DecoderSampling", "upsamplers": "UpsamplerSampling"}


def options(kind: str) -> dict[str, argparse.Action]:
    """Arguments of a verb, by the name of their value."""
    parser = program.build_parser()
    (verbs_of,) = (one for one in parser._actions if isinstance(one, argparse._SubParsersAction))
    return {action.dest: action for action in verbs_of.choices[DRAWING[kind].name]._actions}


def inner(entry: dict[str, Any]) -> dict[str, Any]:
    """The alternative of a JSON Schema that is not null; items of an array."""
    found = next((one for one in entry.get("anyOf", [entry]) if one.get("type") != "null"), entry)
    return found


def test_every_kind_has_a_verb():
    assert set(DRAWING) == set(BY_KIND)


@pytest.mark.parametrize("kind", BY_KIND)
def test_fields_are_options_with_the_schemas_description_and_default(kind):
    made, properties = options(kind), schema_of(BY_KIND[kind])["properties"]
    hidden = (*NOT_OPTIONS, *DRAWING[kind].hidden)
    positional = [name for name, _, _ in DRAWING[kind].positional]
    for field in fields(BY_KIND[kind]):
        entry = properties[field.name]
        if field.name in hidden:
            continue
        if field.name in positional:
            assert not made[field.name].option_strings
            continue
        action = made[field.name]
        assert action.help is not None
        assert action.help.startswith(entry["description"])
        if entry.get("default") not in (None, "", []):
            assert action.help.endswith(f"(default: {entry['default']})")
        if "enum" in inner(entry):
            assert list(action.choices or ()) == inner(entry)["enum"]


@pytest.mark.parametrize("kind", BY_KIND)
def test_sampling_settings_are_options_with_the_schemas_description_and_choices(kind):
    made, definitions = options(kind), schema_of(BY_KIND[kind])["$defs"]
    stages = BY_KIND[kind].stages
    for name, path in FLAT_NAMES.items():
        if path[0] not in (*stages, "random", "fast"):
            assert name not in made or kind == "upscale"
            continue
        entry = definitions[HOMES.get(path[0], "Sampling")]["properties"][path[-1]]
        action = made[name]
        assert f"--{name.replace('_', '-')}" in action.option_strings
        assert action.help is not None
        assert action.help.startswith(entry["description"])
        if "enum" in inner(entry):
            allowed = list(action.choices or ())
            assert allowed[: len(inner(entry)["enum"])] == inner(entry)["enum"]


@pytest.mark.parametrize("kind", BY_KIND)
def test_ranges_of_the_schema_are_those_that_requests_are_checked_against(kind):
    properties = schema_of(BY_KIND[kind])["properties"]
    for name, param in parameters(BY_KIND[kind]).items():
        limits = inner(properties[name])
        assert limits.get("minimum") == param.ge
        assert limits.get("exclusiveMinimum") == param.gt
        assert limits.get("maximum") == param.le


def test_the_schema_tells_requests_apart_by_kind():
    found = schema()
    assert set(found["discriminator"]["mapping"]) == set(BY_KIND)
    assert len(found["oneOf"]) == len(BY_KIND)


@pytest.mark.parametrize("name", [name for name in FLAT_NAMES if name.endswith("steps")])
def test_short_names_are_checked(name):
    with pytest.raises(RequestError, match="steps is 0: give a number from 1 to 1000"):
        sampling(**{name: 0})
