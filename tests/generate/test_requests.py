"""Requests: JSON and back, refusals whoever makes them, and sampling settings resolved over a model's defaults."""

import json
import subprocess
import sys
from typing import Any

import pytest

from unclip.config import to_dict
from unclip.errors import RequestError
from unclip.generate.operations import (
    BY_KIND,
    Components,
    Edit,
    Generate,
    Interpolate,
    Outpaint,
    Reconstruct,
    Redraw,
    TextDiff,
    Upscale,
    Vary,
    read_request,
)
from unclip.generate.replay import read_replay
from unclip.generate.request import Request, compact
from unclip.stages.sampling import (
    DEFAULTS,
    DecoderSampling,
    Sampling,
    UpsamplerSampling,
    read_sampling,
    sampling,
)

SETTINGS = sampling(
    steps=4, sampler="heun", prior="text", upsampler_steps=1, second_upsampler_steps=2, fast=True
)
REQUESTS: list[Request] = [
    Generate(prompt=("a red apple", "a blue cat"), negative="flat", n=3, size=64, seed=7, sampling=SETTINGS),
    Redraw(prompt="a red apple", strength=0.3, n=2, sampling=SETTINGS),
    Vary(n=2, eta=0.5, seed=1, sampling=sampling(guidance_interval=(0.5, 8.0))),
    Interpolate(frames=3, noise="fixed", size=32),
    Interpolate(thetas=(0.0, 0.25)),
    TextDiff(target="a blue cat", baseline="a red apple", maximum=0.25, frames=4),
    Edit(prompt="a red apple", box=(1, 2, 3, 4), n=2),
    Outpaint(left=4, bottom=2),
    Upscale(size=300),
    Reconstruct(seed=2**62),
    Components(dimensions=(1, 4), basis="given"),
]


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda one: one.kind)
def test_json_and_back(request_):
    for data in (to_dict(request_), compact(request_)):
        assert read_request(json.loads(json.dumps(data))) == request_


def test_every_kind_is_here():
    assert {one.kind for one in REQUESTS} == set(BY_KIND)


# Field values that no request may have, and what is said; `{}` stands for everything that is required.
BAD: list[tuple[str, dict[str, Any], str]] = [
    ("generate", {"n": 0}, "n is 0: give a number from 1 to 10000"),
    ("generate", {"n": "many"}, "n: expected int, got 'many'"),
    ("generate", {"prompt": 7}, "prompt: expected str, got 7"),
    ("generate", {"prompt": []}, "prompt is empty: say what to draw"),
    ("generate", {"seed": 2**63}, "seed is 9223372036854775808: give a number from 0"),
    ("generate", {"size": 0}, "size is 0: give a number from 1 to 65536"),
    ("generate", {"colour": "red"}, "unknown key 'colour'; it has .*prompt"),
    ("generate", {"sampling": {"decoder": {"steps": 0}}}, "steps is 0: give a number from 1 to 1000"),
    (
        "generate",
        {"sampling": {"decoder": {"sampler": "magic"}}},
        "sampler is 'magic': choose from ddim, ddpm",
    ),
    ("generate", {"sampling": {"decoder": {"speed": 1}}}, "unknown key 'speed'; it has steps, sampler"),
    ("generate", {"sampling": {"prior": {"kind": "magic"}}}, "'magic' is not one of 'diffusion'"),
    ("generate", {"sampling": {"prior": {"candidates": 0}}}, "candidates is 0: give a number from 1 to 256"),
    ("vary", {"eta": -0.5}, r"eta is -0\.5: give a number from 0 to 1"),
    ("interpolate", {"noise": "pink"}, "'pink' is not one of 'inverted', 'fixed'"),
    ("interpolate", {"frames": 1}, "frames is 1: give a number from 2"),
    ("text_diff", {"target": " "}, "target caption is empty"),
    ("text_diff", {"thetas": [2]}, r"thetas is 2\.0: give a number from 0 to 1"),
    ("edit", {"box": [1, 2, 3]}, "box: expected 4 values, got 3"),
    ("outpaint", {"left": -1}, "left is -1: give a number from 0"),
    ("outpaint", {"left": 0}, "nothing is to be added: give left, top, right or bottom"),
    ("redraw", {"strength": 0}, r"strength is 0\.0: give more than 0 and at most 1"),
    ("upscale", {"size": -4}, "size is -4: give a number from 1"),
    ("components", {"dimensions": [0]}, "dimensions is 0: give a number from 1"),
    ("components", {"dimensions": []}, "dimensions has 0 values"),
    ("reconstruct", {"seed": 1.5}, "seed: expected int, got 1.5"),
]
NEEDED: dict[str, dict[str, Any]] = {
    "generate": {"prompt": "a cat"},
    "redraw": {"prompt": "a cat"},
    "edit": {"prompt": "a cat"},
    "text_diff": {"target": "a cat"},
    "outpaint": {"left": 1},
    "components": {"dimensions": [1]},
}


@pytest.mark.parametrize(("kind", "changes", "message"), BAD)
def test_bad_json_is_refused_with_field_and_remedy(kind, changes, message):
    data = {"kind": kind, **NEEDED.get(kind, {}), **changes}
    with pytest.raises(RequestError, match=message):
        read_request(data)
    complete = {"seed": 1, "size": 16, "thetas": [0.5], "strength": 0.5}
    known = {name: value for name, value in complete.items() if name in BY_KIND[kind].__dataclass_fields__}
    provenance = {"provenance": 2, "request": {**known, **data}, "digest": "0"}
    with pytest.raises(RequestError, match=message):
        read_replay(provenance)


def test_bad_values_are_refused_in_python_without_a_type_checker():
    """In a process of its own: here a run-time type checker raises before requests check themselves."""
    code = (
        "import json, sys; from unclip.errors import RequestError; from unclip.generate.operations import BY_KIND\n"
        "from unclip.config import from_dict\n"
        "for kind, needed, changes in json.load(sys.stdin):\n"
        "    try: BY_KIND[kind](**{**needed, **changes})\n"
        "    except RequestError as error: print(error)\n"
        "    else: print('made', kind, changes)\n"
    )
    direct = [one for one in BAD if "colour" not in one[1] and "sampling" not in one[1]]
    cases = [(kind, NEEDED.get(kind, {}), changes) for kind, changes, _ in direct]
    done = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(cases), capture_output=True, text=True, check=True
    )
    import re

    lines = done.stdout.splitlines()
    assert len(lines) == len(direct)
    for line, (_, _, message) in zip(lines, direct):
        assert re.search(message, line)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"kind": "paint"}, "the request has the kind 'paint'; this version knows generate, redraw"),
        ({}, "the request has the kind None"),
        ("generate", "the request has the kind None"),
        ({"kind": "generate"}, "the key 'prompt' is missing"),
    ],
)
def test_what_is_no_request_is_refused(data, message):
    with pytest.raises(RequestError, match=message):
        read_request(data)


@pytest.mark.parametrize(
    ("provenance", "message"),
    [
        ({}, "the provenance has format None, this version reads 1 and 2"),
        ({"provenance": 99}, "the provenance has format 99, this version reads 1 and 2"),
        ({"recipe": 7}, "the provenance has format 7"),
        ({"provenance": 2, "request": {"kind": "upscale", "size": 32}}, "damaged: its request has no seed"),
        ({"provenance": 2, "request": {"kind": "vary", "seed": 1}}, "damaged: its request has no size"),
        (
            {"provenance": 2, "request": {"kind": "interpolate", "seed": 1, "size": 16}},
            "damaged: its request has no thetas",
        ),
        (
            {"provenance": 2, "request": {"kind": "upscale", "seed": 1, "size": 32}, "sources": [7]},
            "damaged: its sources are not a list of hashes",
        ),
        ({"recipe": 1, "operation": "dream"}, "made by 'dream', which this version does not know"),
        ({"recipe": 1, "operation": "vary", "size": 16}, "damaged: its request has no seed"),
        ({"recipe": 1, "operation": "vary", "seed": 1, "size": 16, "steps": 0}, "steps is 0"),
        (
            {"recipe": 1, "operation": "generate", "seed": 1, "size": 16, "prompt": "a", "prior": "magic"},
            "'magic'",
        ),
    ],
)
def test_damaged_provenance_is_refused(provenance, message):
    with pytest.raises(RequestError, match=message):
        read_replay(provenance)


@pytest.mark.parametrize(
    ("kind", "least", "most"),
    [("generate", 0, 0), ("vary", 1, 1), ("interpolate", 2, 2), ("edit", 1, 2), ("components", 1, 99)],
)
def test_the_number_of_pictures_is_checked(tiny_model, kind, least, most):
    request = read_request({"kind": kind, **NEEDED.get(kind, {})})
    for count in {least, most} - {99}:
        BY_KIND[kind].sources.check(kind, count)
    for count in {least - 1, most + 1} - {-1, 100}:
        with pytest.raises(RequestError, match=f"{kind} takes .*; {count} pictures were given"):
            tiny_model.check(request, count)


def test_settings_are_resolved_over_the_models_defaults():
    given = Generate(prompt="a cat", sampling=sampling(steps=7, candidates=1)).resolve(DEFAULTS)
    assert (given.decoder.steps, given.prior.candidates) == (7, 1)
    assert given.decoder.guidance == DEFAULTS.decoder.guidance
    assert given.upsamplers == DEFAULTS.upsamplers
    assert Generate(prompt="a cat").resolve(DEFAULTS) == DEFAULTS


def test_fast_takes_fewer_steps_where_none_are_given():
    fast = Generate(prompt="a cat", sampling=sampling(fast=True, prior_steps=12)).resolve(DEFAULTS)
    expected = DEFAULTS.faster()
    assert fast.prior.steps == 12
    assert (fast.decoder, fast.upsamplers) == (expected.decoder, expected.upsamplers)
    assert fast.fast is None


@pytest.mark.parametrize(
    "request_",
    [Reconstruct(), Interpolate(), TextDiff(target="a cat"), Vary(eta=0.5)],
    ids=lambda one: one.kind,
)
def test_inversion_has_settings_of_its_own(request_):
    resolved = request_.resolve(DEFAULTS)
    assert resolved.decoder == DecoderSampling(steps=25, sampler="ddim", guidance=1.0)
    assert resolved.upsamplers == DEFAULTS.upsamplers
    given = type(request_)(**{**to_dict(request_), "sampling": sampling(steps=50, guidance=2.0)})
    assert given.resolve(DEFAULTS).decoder == DecoderSampling(steps=50, sampler="ddim", guidance=2.0)
    other = type(request_)(**{**to_dict(request_), "sampling": sampling(sampler="heun")})
    with pytest.raises(RequestError, match="sampler 'heun' cannot be inverted: leave it out, or give 'ddim'"):
        other.resolve(DEFAULTS)


def test_without_inversion_the_models_settings_hold():
    assert Vary().resolve(DEFAULTS) == DEFAULTS
    assert Interpolate(noise="fixed").resolve(DEFAULTS) == DEFAULTS


def test_the_last_upsamplers_settings_serve_further_ones():
    three = Sampling(upsamplers=tuple(UpsamplerSampling(steps=steps) for steps in (1, 2)))
    assert [three.upsampler(index).steps for index in range(4)] == [1, 2, 2, 2]


def test_merging_keeps_what_is_open_and_fast():
    merged = sampling(steps=3, fast=True).merged(sampling(guidance=2.0, upsampler_steps=4))
    assert merged == sampling(steps=3, guidance=2.0, upsampler_steps=4, fast=True)


def test_old_names_of_samplers_are_read():
    assert sampling(prior_sampler="ancestral") == sampling(prior_sampler="ddpm")
    assert read_sampling({"prior": "text", "sampler": "euler"}) == sampling(prior="text", sampler="ddim")


def test_flat_settings_of_0_1_and_nested_ones_are_read():
    flat = {"prior": "text", "steps": 4, "second_upsampler_steps": 9, "guidance_interval": [0.5, 2.0]}
    assert read_sampling(flat) == sampling(**flat)
    nested = to_dict(sampling(**flat))
    assert read_sampling(nested) == sampling(**flat)
    with pytest.raises(RequestError, match="unknown setting 'speed'; choose from prior, prior_steps"):
        sampling(speed=3)
