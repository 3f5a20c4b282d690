"""`unclip captions` and `unclip probe`, and strips of `unclip reconstruct`, on a tiny model with random weights."""

import io
import json
from pathlib import Path

import pytest

from unclip.images import open_picture, read_provenance

CAPTIONS = ("a red apple", "a blue cat", "flat style")


@pytest.fixture(scope="module")
def original(model, tmp_path_factory) -> Path:
    """A picture to start from."""
    from unclip.cli.main import main

    path = tmp_path_factory.mktemp("original") / "apple.png"
    command = ["generate", "a red apple", "-m", str(model), "-o", str(path), "--seed", "3", "--size", "16"]
    assert main(command) == 0
    return path


def test_captions_in_order(unclip, model, original, tmp_path, monkeypatch):
    code, out, err = unclip("captions", original, *CAPTIONS, "-m", model)
    assert (code, err) == (0, "")
    lines = [line.split(None, 2) for line in out.splitlines()]
    assert sorted(line[2] for line in lines) == sorted(CAPTIONS)
    assert [float(line[1]) for line in lines] == sorted((float(line[1]) for line in lines), reverse=True)
    assert sum(float(line[0].rstrip("%")) for line in lines) == pytest.approx(100, abs=0.1)
    file = tmp_path / "captions.txt"
    file.write_text("\n".join([*CAPTIONS[1:], "", CAPTIONS[1]]))
    expected = unclip("captions", original, *CAPTIONS, "-m", model, "--json").out
    for more in ((CAPTIONS[0], "--captions", file), ("--captions", "-")):
        monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(CAPTIONS)))
        assert unclip("captions", original, *more, "-m", model, "--json").out == expected
    nearest = json.loads(unclip("captions", original, *CAPTIONS, "-n", 1, "-m", model, "--json").out)
    assert nearest == json.loads(expected)[:1]
    assert nearest[0]["caption"] == lines[0][2]


def test_probe(unclip, model, original, tmp_path):
    options = ("-m", model, "-o", f"{tmp_path}/", "--seed", 5, "-n", 2, "--size", 16)
    code, out, err = unclip("probe", original, "i Pod", *CAPTIONS, *options)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert [lines[0], lines[4]] == ["before:", "after:"]
    assert sorted(line.split(None, 2)[2] for line in lines[1:4]) == sorted(CAPTIONS)
    written, *variations = map(Path, lines[8:])
    assert written == tmp_path / "apple-i-pod.png"
    assert open_picture(written).size == open_picture(original).size
    assert open_picture(written).tobytes() != open_picture(original).tobytes()
    assert variations[0].name == "apple-i-pod-vary-5.png"
    assert len(variations) == 2
    again = tmp_path / "again.png"
    redone = unclip("redo", variations[1], "--source", written, "-m", model, "-o", again)
    assert redone == (0, f"{again}\n", "unclip: every pixel is the same\n")
    assert unclip("probe", original, "i Pod", *CAPTIONS, *options).code == 1
    told = json.loads(unclip("probe", original, "i Pod", *CAPTIONS, *options, "--force", "--json").out)
    assert list(told) == ["written", "before", "after", "variations"]
    assert [one["path"] for one in told["variations"]] == [str(path) for path in variations]


@pytest.mark.parametrize(
    ("argv", "code", "told"),
    [
        (("captions", "apple.png"), 2, "nothing to choose from"),
        (("captions", "apple.png", " "), 2, "a caption is empty"),
        (("captions", "apple.png", "--captions", "nowhere.txt"), 1, "nowhere.txt"),
        (("captions", "nowhere.png", "a cat"), 1, "there is no file nowhere.png"),
        (("probe", "apple.png", " ", "a cat"), 2, "the word is empty"),
        (("probe", "apple.png", "iPod"), 2, "nothing to choose from"),
    ],
)
def test_bad_input(unclip, tmp_path, monkeypatch, argv, code, told):
    monkeypatch.chdir(tmp_path)
    outcome = unclip(*argv)
    assert (outcome.code, outcome.out) == (code, "")
    assert told in outcome.err


def test_a_strip_of_components_can_be_redone(unclip, model, original, tmp_path):
    others, strip, again = tmp_path / "others", tmp_path / "strip.png", tmp_path / "again.png"
    assert unclip("vary", original, "-n", 3, "-m", model, "-o", f"{others}/", "--seed", 5).code == 0
    options = ("-m", model, "--seed", 1, "--size", 16, "-o", strip)
    outcome = unclip("reconstruct", original, "--dimensions", "1,2", "--basis", others, *options)
    assert outcome == (0, f"{strip}\n", "")
    assert open_picture(strip).size == (32, 16)
    assert read_provenance(strip)["request"]["dimensions"] == [1, 2]
    outcome = unclip("redo", strip, "--source", original, "--source", others, "-m", model, "-o", again)
    assert outcome == (0, f"{again}\n", "unclip: every pixel is the same\n")
