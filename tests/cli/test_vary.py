"""`unclip vary`, `interpolate`, `diff` and `reconstruct` on a tiny model with random weights, and `redo` of what they made."""

import json
from pathlib import Path

import pytest
from PIL import Image

from unclip.images import open_picture, read_provenance


@pytest.fixture(scope="module")
def original(model, tmp_path_factory) -> Path:
    """A picture to start from."""
    from unclip.cli.main import main

    path = tmp_path_factory.mktemp("original") / "apple.png"
    assert main(["generate", "a red apple", "-m", str(model), "-o", str(path), "--seed", "3"]) == 0
    return path


def test_vary(unclip, model, original, tmp_path):
    code, out, err = unclip("vary", original, "-n", 2, "-m", model, "-o", f"{tmp_path}/", "--seed", 5)
    assert (code, err) == (0, "")
    first, second = map(Path, out.split())
    assert first.name == "apple-vary-5.png"
    assert read_provenance(first)["request"]["kind"] == "vary"
    assert open_picture(first).tobytes() != open_picture(second).tobytes()
    again = tmp_path / "again.png"
    code, out, err = unclip("redo", second, "--source", original, "-m", model, "-o", again)
    assert (code, out, err) == (0, f"{again}\n", "unclip: every pixel is the same\n")


def test_vary_around_its_own_noise(unclip, model, original, tmp_path):
    options = ("-m", model, "-o", tmp_path / "a.png", "--seed", 5, "--steps", 2, "--json")
    code, out, _ = unclip("vary", original, "-n", 1, "--eta", 0.5, *options)
    assert code == 0
    (made,) = json.loads(out)
    request = made["request"]
    assert request["eta"] == 0.5
    assert request["sampling"]["decoder"] == {"steps": 2, "sampler": "ddim", "guidance": 1.0}


def test_reconstruct(unclip, model, original, tmp_path):
    path = tmp_path / "a.png"
    code, out, err = unclip("reconstruct", original, "-m", model, "-o", path, "--steps", 2, "--seed", 1)
    assert (code, out) == (0, f"{path}\n")
    assert f"{read_provenance(path)['results']['psnr']} dB" in err


def test_reconstruct_from_components(unclip, model, original, tmp_path):
    others = tmp_path / "others"
    assert unclip("vary", original, "-n", 5, "-m", model, "-o", f"{others}/", "--seed", 5).code == 0
    options = ("-m", model, "--seed", 1, "--size", 16, "-o", f"{tmp_path}/")
    code, out, err = unclip("reconstruct", original, "--dimensions", "1,4", "--basis", others, *options)
    assert (code, err) == (0, "")
    first, second = map(Path, out.split())
    assert [first.name, second.name] == ["apple-1.png", "apple-4.png"]
    assert [read_provenance(path)["request"]["dimensions"] for path in (first, second)] == [[1], [4]]
    same = ("-m", model, "--seed", 1, "--size", 16, "-o", f"{tmp_path}/new/", "--basis", others)
    code, out, err = unclip("components", original, "1,4", *same)
    assert (code, err) == (0, "")
    for path, old in zip(map(Path, out.split()), (first, second), strict=True):
        assert open_picture(path).tobytes() == open_picture(old).tobytes()


@pytest.mark.parametrize(
    ("argv", "code", "told"),
    [
        (("--basis", "."), 2, "give both"),
        (("--dimensions", "1,x"), 2, "'x' is not a whole number"),
        (("--dimensions", "1", "--basis", "nowhere"), 2, "no such folder"),
        (("--dimensions", "1", "--basis", "."), 2, "it holds 0 pictures"),
        (("--dimensions", "1"), 1, "has no autoregressive prior, which components needs"),
    ],
)
def test_bad_components(unclip, model, original, tmp_path, monkeypatch, argv, code, told):
    monkeypatch.chdir(tmp_path)
    outcome = unclip("reconstruct", original, "-m", model, *argv)
    assert (outcome.code, outcome.out) == (code, "")
    assert told in outcome.err


def test_interpolate_as_a_strip_that_can_be_redone(unclip, model, original, tmp_path):
    other, strip, again = tmp_path / "other.png", tmp_path / "strip.png", tmp_path / "again.png"
    unclip("generate", "a blue cat", "-m", model, "-o", other, "--seed", 4)
    options = ("-m", model, "-n", 3, "--steps", 2, "--size", 16, "--seed", 1)
    assert unclip("interpolate", original, other, *options, "-o", strip) == (0, f"{strip}\n", "")
    assert open_picture(strip).size == (3 * 16, 16)
    assert read_provenance(strip)["request"]["thetas"] == [0, 0.5, 1]
    code, _, err = unclip("redo", strip, "--source", original, "--source", other, "-m", model, "-o", again)
    assert (code, err) == (0, "unclip: every pixel is the same\n")


def test_interpolate_one_by_one_and_animated(unclip, model, original, tmp_path):
    options = ("-m", model, "-n", 2, "--steps", 2, "--size", 16, "--seed", 1, "--noise", "fixed")
    code, out, _ = unclip("interpolate", original, original, *options, "-o", f"{tmp_path}/")
    assert code == 0
    assert [Path(path).name for path in out.split()] == ["apple-to-apple-1.png", "apple-to-apple-2.png"]
    for name in ("a.gif", "a.webp"):
        assert unclip("interpolate", original, original, *options, "-o", tmp_path / name).code == 0
        with Image.open(tmp_path / name) as picture:
            assert picture.size == (16, 16)


def test_diff(unclip, model, original, tmp_path):
    strip = tmp_path / "a.png"
    options = ("-m", model, "-n", 2, "--steps", 2, "--size", 16, "--seed", 1, "--maximum", 0.4, "-o", strip)
    code, out, _ = unclip("diff", original, "two green cars", "--source", "a red apple", *options, "--json")
    assert code == 0
    (made,) = json.loads(out)
    request = made["request"]
    assert (request["target"], request["baseline"]) == ("two green cars", "a red apple")
    assert (request["kind"], request["thetas"]) == ("text_diff", [0, 0.4])
    assert read_provenance(strip)["request"] == request
    again = unclip(
        "text-diff", original, "two green cars", "--baseline", "a red apple", *options, "--json", "--force"
    )
    assert json.loads(again.out)[0]["request"] == request


@pytest.mark.parametrize(
    ("argv", "code", "told"),
    [
        (("a cat", "--maximum", 2), 2, "maximum is 2.0: give a number from 0 to 1"),
        ((" ",), 2, "target caption is empty: say what to draw"),
        (("a cat", "-n", 1), 2, "frames is 1: give a number from 2"),
        (("a cat", "--thetas", "0,2"), 2, "thetas is 2.0: give a number from 0 to 1"),
        (("a cat", "-o", "a.jpg"), 2, "PNG"),
        (("a cat", "--source", "a cat"), 2, "the same to CLIP"),
    ],
)
def test_bad_diffs(unclip, model, original, tmp_path, monkeypatch, argv, code, told):
    monkeypatch.chdir(tmp_path)
    outcome = unclip("diff", original, *argv, "-m", model)
    assert (outcome.code, outcome.out) == (code, "")
    assert told in outcome.err


@pytest.mark.parametrize(
    ("argv", "code", "told"),
    [
        (("--eta", 2), 2, "eta is 2.0: give a number from 0 to 1"),
        (
            ("--eta", 0.5, "--sampler", "dpmpp_2m"),
            2,
            "'dpmpp_2m' cannot be inverted: leave it out, or give 'ddim'",
        ),
        (("--prior-steps", 3), 2, "--prior-steps"),
        (("-n", 0), 2, "n is 0: give a number from 1"),
    ],
)
def test_bad_options(unclip, model, original, tmp_path, argv, code, told):
    outcome = unclip("vary", original, "-m", model, "-o", f"{tmp_path}/", *argv)
    assert (outcome.code, outcome.out) == (code, "")
    assert told in outcome.err
