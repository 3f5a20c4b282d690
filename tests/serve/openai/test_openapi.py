"""The OpenAPI document: valid, and what the server does."""

import json
import os

import httpx2 as httpx
import jsonschema
import pytest

from tests.serve.exploring import explore
from unclip.serve.openai.openapi import document
from unclip.serve.openai.options import Options

pytest.importorskip("schemathesis")
pytest.importorskip("hypothesis")

# Of the library itself, in some of its strategies.
pytestmark = pytest.mark.filterwarnings("ignore:Do not use the .random. module inside strategies")


@pytest.mark.parametrize("strict", [False, True])
def test_schemas_are_valid(strict):
    found = document(Options(strict=strict, secret=b"x"), (16, 32))
    for schema in found["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    size = found["paths"]["/v1/images/generations"]["post"]["requestBody"]["content"]["application/json"]
    named = size["schema"]["properties"]["size"]["enum"]
    assert named == (["auto", "16x16", "32x32"] if not strict else []) + ["256x256", "512x512", "1024x1024"]


def test_events_are_as_described(server):
    """The checks of schemathesis do not look into the text of an event."""
    schemas = httpx.get(f"{server.url}/openapi.json").json()["components"]["schemas"]
    content = schemas["ImageEvent"]["properties"]["data"]["contentSchema"]
    validator = jsonschema.Draft202012Validator({**content, "components": {"schemas": schemas}})
    body = {"prompt": "a red apple " * 9, "stream": True, "partial_images": 2, "size": "32x32"}
    answer = httpx.post(
        f"{server.url}/v1/images/generations",
        json=body,
        headers={"Authorization": f"Bearer {server.key}"},
        timeout=60,
    )
    found = [line.removeprefix("data: ") for line in answer.text.split("\n") if line.startswith("data: ")]
    for text in found:
        validator.validate(json.loads(text))
    assert "warnings" in json.loads(found[-1])
    with pytest.raises(jsonschema.ValidationError):
        validator.validate({**json.loads(found[-1]), "size": 3})


def test_schemathesis_finds_nothing(server):
    explore(server.url, server.key, "/openapi.json", 8)


@pytest.mark.slow
def test_schemathesis_finds_nothing_in_many_examples(server):
    explore(server.url, server.key, "/openapi.json", int(os.environ.get("UNCLIP_EXAMPLES", "500")))
