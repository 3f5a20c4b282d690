"""One door for requests: whatever is wrong in one, whoever made it, is one `RequestError` that names the field."""

import contextlib
import copy
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from unclip.config import ConfigError, check, read_field, shown
from unclip.errors import RequestError
from unclip.generate import image as images
from unclip.generate.model import build
from unclip.generate.operations import (
    REQUESTS,
    Components,
    Edit,
    Generate,
    Interpolate,
    Redraw,
    Upscale,
    Vary,
    read_request,
)
from unclip.generate.replay import read_replay
from unclip.generate.request import compact
from unclip.images import read_provenance
from unclip.stages.sampling import DEFAULTS, read_sampling, sampling

FAULTS = Path(__file__).parents[1] / "images" / "faults"
V0_1 = Path(__file__).parents[1] / "pins" / "v0_1" / "pictures"


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


WRONG: list[Any] = [
    "7", "", True, None, 1.5, -1, 10**30, 10**400, 10**5000, -(10**5000), math.nan, math.inf, [], [1], [[1]], ["a", None],
    {}, {"a": 1}, {"kind": []}, {"kind": {}}, nested(900), nested(100_000), {"a": nested(2000)}, "\ud800", "x" * 100_000,
    b"bytes", object(), 1j, {1: 2, "a": 3},
]  # fmt: skip

FULL = {
    "generate": {"prompt": "a", "negative": "b", "n": 1, "size": 64},
    "redraw": {"prompt": "a", "strength": 0.5, "n": 1, "size": 64},
    "vary": {"eta": 0.5, "n": 1, "size": 64},
    "interpolate": {"thetas": [0.5], "noise": "fixed", "size": 64},
    "text_diff": {"target": "a", "baseline": "b", "maximum": 0.5, "thetas": [0.5], "size": 64},
    "edit": {"prompt": "a", "box": [0, 0, 8, 8], "n": 1},
    "outpaint": {"prompt": "a", "left": 8, "top": 0, "right": 0, "bottom": 0},
    "upscale": {"size": 64},
    "reconstruct": {"size": 64},
    "components": {"dimensions": [1], "basis": "model", "size": 64},
}


def provenance_2(kind: str) -> dict[str, Any]:
    return {
        "provenance": 2,
        "request": {"kind": kind, "seed": 1, "sampling": compact(DEFAULTS), **FULL[kind]},
        "size": [64, 64],
        "sources": ["a"],
        "results": {"psnr": 1.0},
        "warnings": ["w"],
        "composite": True,
        "model": "artwork",
        "digest": "5a554e3c8228",
        "unclip": "0.1.0",
        "device": "cpu",
        "dtype": "float32",
        "torch": "2",
        "layout": "strip",
    }


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Path of every value of a JSON document, objects and lists too."""
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        found += places(item, (*path, key))
    return found


def changed(data: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    made = copy.deepcopy(data)
    node: Any = made
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return made


def outcome(data: Any) -> RequestError | None:
    """The `RequestError` for provenance, None where it is read; any other exception fails the test."""
    caught = None
    try:
        read_replay(data)
    except RequestError as error:
        caught = error
    assert len(str(caught)) < 1000
    assert "\n" not in str(caught)
    return caught


@pytest.mark.parametrize("kind", FULL)
def test_every_field_of_every_request_refuses_what_is_wrong_by_name(kind):
    assert len(FULL) == len(REQUESTS)
    data = provenance_2(kind)
    assert outcome(data) is None
    for path in places(data):
        # What is the same for all requests is tried with one of them.
        if kind != "generate" and (path[0] != "request" or "sampling" in path[1:-1]):
            continue
        named = [key for key in path if isinstance(key, str)]
        refused = 0
        for value in WRONG:
            error = outcome(changed(data, path, value))
            if error is not None:
                refused += 1
                last = "format" if path == ("provenance",) else named[-1]
                assert last in str(error) or "seed" in str(error), (path, shown(value), str(error))
        assert refused >= (0 if path[0] == "results" and len(path) > 1 else 8), path
        made = copy.deepcopy(data)
        node: Any = made
        for key in path[:-1]:
            node = node[key]
        del node[path[-1]]
        outcome(made)


@pytest.mark.parametrize(
    "stem",
    [
        "generate",
        "redraw",
        "vary-eta",
        "interpolate",
        "text-diff",
        "edit-box",
        "outpaint",
        "upscale-size",
        "reconstruct",
        "pca-strip",
    ],
)
def test_every_field_of_version_0_1_refuses_what_is_wrong_by_name(stem):
    """Recipes that version 0.1 wrote, each field in turn replaced; what all of them have with one of them."""
    recipe, common = (read_provenance(V0_1 / f"{name}.png") for name in (stem, "generate"))
    assert outcome(recipe) is None
    strict = 0
    for name in recipe if stem == "generate" else ["seed", "operation", *sorted(set(recipe) - set(common))]:
        errors = [outcome({**recipe, name: value}) for value in WRONG]
        for value, error in zip(WRONG, errors):
            assert error is None or ("format" if name == "recipe" else name) in str(error), (
                name,
                shown(value),
                str(error),
            )
        strict += sum(error is not None for error in errors) >= 8
        outcome({key: value for key, value in recipe.items() if key != name})
    assert strict >= (20 if stem == "generate" else 2)


def test_what_is_no_provenance_is_refused():
    for value in WRONG:
        assert isinstance(outcome(value), RequestError)
    with pytest.raises(RequestError, match="seed: expected int, got '7'"):
        read_replay(read_provenance(FAULTS / "recipe_seed_is_text.png"))
    with pytest.raises(RequestError, match="its request has no seed"):
        read_replay(changed(provenance_2("vary"), ("request", "seed"), None))


@pytest.mark.parametrize("kind", FULL)
def test_requests_from_json_refuse_what_is_wrong(kind):
    data = provenance_2(kind)["request"]
    for path in places(data):
        for value in WRONG:
            with contextlib.suppress(RequestError):
                read_request(changed(data, path, value))
    for value in WRONG:
        with pytest.raises(RequestError):
            read_request(value)


def test_short_names_are_in_the_message():
    for name, value in (
        ("prior_steps", "5"),
        ("upsampler_steps", 0),
        ("candidates", 1.0),
        ("guidance", "x"),
        ("prior", "y"),
    ):
        with pytest.raises(RequestError, match=f"^{name}[: ]"):
            sampling(**{name: value})
    for value in WRONG:
        if value is not None and value != {}:
            with pytest.raises(RequestError):
                read_sampling(value)
            with pytest.raises(RequestError):
                build(Generate, {"prompt": "a", "sampling": value})


def test_what_is_left_out_is_named():
    with pytest.raises(RequestError, match="Generate needs 'prompt'"):
        build(Generate, {"n": 2})
    with pytest.raises(RequestError, match="TextDiff needs 'target'"):
        build(REQUESTS[4], {})


# Numbers of numpy and torch


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_numbers_of_other_libraries_are_converted(library):
    if library == "numpy":
        whole, real, many = np.int64, np.float32, np.array
    else:
        whole, real, many = torch.tensor, (lambda x: torch.tensor(x, dtype=torch.float32)), torch.tensor
    given: list[tuple[Any, dict[str, Any], dict[str, Any]]] = [
        (Vary, {"n": whole(2), "eta": real(0.5), "seed": whole(7)}, {"n": 2, "eta": 0.5, "seed": 7}),
        (Edit, {"prompt": "a", "box": many([0, 1, 8, 9])}, {"prompt": "a", "box": (0, 1, 8, 9)}),
        (Interpolate, {"thetas": many([0.0, 0.25])}, {"thetas": (0.0, 0.25)}),
        (
            Redraw,
            {"prompt": "a", "steps": whole(3), "guidance": real(2.5)},
            {"prompt": "a", "steps": 3, "guidance": 2.5},
        ),
        (Redraw, {"prompt": "a", "strength": whole(1)}, {"prompt": "a", "strength": 1.0}),
        (Components, {"dimensions": many([1, 2])}, {"dimensions": (1, 2)}),
        (Upscale, {"size": whole(128)}, {"size": 128}),
    ]
    made = [build(kind, options) for kind, options, _ in given]
    expected = [build(kind, options) for kind, _, options in given]
    assert made == expected
    assert json.dumps([compact(one) for one in made]) == json.dumps([compact(one) for one in expected])
    assert type(made[0].seed) is int
    assert type(made[0].eta) is float
    assert sampling(steps=whole(3), guidance=real(2.5)) == sampling(steps=3, guidance=2.5)


@pytest.mark.parametrize(
    "value",
    [np.float64(2.0), np.bool_(True), True, np.array([2, 3]), np.array([[2]]), torch.tensor(2.0), torch.tensor(True), torch.ones(2, 2), np.zeros(10**6), np.str_("2"), np.datetime64("2026-01-01")],
    ids=repr,
)  # fmt: skip
def test_other_values_are_no_whole_numbers(value):
    with pytest.raises(RequestError, match="seed"):
        build(Generate, {"prompt": "a", "seed": value})


def test_constructors_convert_as_well():
    """In a process of its own: here, the types of all arguments are checked before the class can convert them."""
    program = (
        "import numpy as np, torch, unclip\n"
        "one = unclip.Vary(n=np.int64(2), eta=torch.tensor(0.5), seed=np.uint8(7))\n"
        "assert one == unclip.Vary(n=2, eta=0.5, seed=7) and type(one.seed) is int\n"
        "unclip.DecoderSampling(steps=np.array(3), guidance=np.float32(2))\n"
        "try: unclip.Vary(n=True)\n"
        "except unclip.RequestError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "n: expected int, got True\n", "")


def test_results_with_such_numbers_are_saved_and_made_again(small, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    made = [
        small.generate(
            "a red apple", seed=np.uint64(3), n=np.int8(1), steps=torch.tensor(1), batch_size=np.int64(1)
        )[0],
        small.vary(pixels, seed=torch.tensor(3), n=np.int32(1), eta=np.float16(0.5))[0],
        small.edit(pixels, np.array([4, 4, 12, 12]), "a blue cat", seed=1)[0],
        small.edit(pixels, [4, 4, 12, 12], "a blue cat", seed=1)[0],
        small.outpaint(pixels, left=np.int64(4), seed=np.int64(1)),
    ]
    assert made[2].image.tobytes() == made[3].image.tobytes()
    for index, one in enumerate(made):
        path = one.save(tmp_path / f"{index}.png")
        carried = read_provenance(path)
        again = small.redo(carried, *([pixels] if index else []))
        assert again.image.tobytes() == one.image.tobytes()
        assert again.provenance == carried
    matches = small.nearest_captions(pixels, ("a", "b", "c"), k=2)
    assert len(matches) == 2


def test_redo_draws_no_more_than_it_returns(small):
    carried = small.vary(np.zeros((32, 32, 3), np.uint8), seed=1, n=1)[0].provenance
    seen = []
    many = changed(carried, ("request", "n"), 500)
    small.redo(many, np.zeros((32, 32, 3), np.uint8), on_progress=lambda event: seen.append(event.first))
    assert set(seen) == {0}


# Text, ranges and messages


def test_text_that_cannot_be_encoded_is_refused():
    for field, make in {
        "prompt": lambda text: Generate(prompt=text),
        "prompt ": lambda text: Generate(prompt=("fine", text)),
        "negative": lambda text: Redraw(prompt="a", negative=text),
    }.items():
        with pytest.raises(RequestError, match=f"^{field.strip()} holds '.udc80' at character 3"):
            make("a \udc80")


def test_zero_bytes_are_no_text():
    for wrong in ({"prompt": "a\0b"}, {"prompt": ["a", "b\0"]}, {"prompt": "a", "negative": "\0"}):
        with pytest.raises(RequestError, match=r"(prompt|negative) holds a zero byte at character [12]"):
            read_request({"kind": "generate", **wrong})


def test_ranges_of_seeds():
    assert Generate(prompt="a", seed=2**63 - 1).seed == 2**63 - 1
    for seed in (-1, 2**63, 10**400, 10**5000, np.uint64(2**64 - 1)):
        with pytest.raises(RequestError, match="seed is"):
            build(Generate, {"prompt": "a", "seed": seed})


def test_values_in_messages_are_short():
    assert shown("x" * 1000).endswith("...")
    assert len(shown("x" * 1000)) == 120
    assert shown(10**5000) == "a value of type int"
    assert shown(nested(100_000)) == "a value of type list"
    with pytest.raises(ConfigError, match="strength: a value of type int is too large for a float"):
        read_field(Redraw, "strength", 10**5000)


def test_pictures_with_damaged_provenance_can_be_looked_at():
    for path in places(provenance_2("edit")):
        for value in WRONG[:-8]:
            picture = images.Image(
                image=Image.new("RGB", (8, 8)), provenance=changed(provenance_2("edit"), path, value)
            )
            assert isinstance(picture.parameters, str)
            with contextlib.suppress(RequestError):
                assert isinstance(picture.seed, int)


def test_a_check_leaves_good_requests_as_they_are():
    request = Generate(prompt="a", seed=3)
    before = dict(vars(request))
    check(request)
    assert dict(vars(request)) == before
