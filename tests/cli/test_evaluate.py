"""`unclip evaluate` on a real, barely trained model: the report on stdout and in a file, and what it refuses."""

import json

import pytest


def test_report(unclip, chain, tmp_path):
    out = tmp_path / "report.json"
    common = (
        "evaluate",
        "--recipe",
        "tiny",
        "-m",
        chain,
        "--pictures",
        tmp_path / "pictures",
        "--cache",
        tmp_path / "cache",
    )
    small = [f"--set={one}" for one in ("count=8", "choices=4", "retrieval_count=8", "upsampled=2")]
    code, text, err = unclip(*common, *small, "-o", out)
    assert code == 0, err
    report = json.loads(out.read_text())
    assert report["model"]["name"] == "tiny"
    assert report["counts"] == {"seen shapes": 8, "shapes elsewhere": 8}
    assert report["judge"]["independent"] is False
    assert "seen shapes" in text
    assert "unclip: 16 pictures to draw, about " in err
    assert report["upsampling"]["count"] == 2
    assert report["manipulations"] == {}
    # Kept pictures are read again, and give the same numbers.
    code, text, err = unclip(*common, *small, "--json", "--quiet")
    assert (code, err) == (0, "")
    again = json.loads(text)
    assert again["seconds_a_picture"] > 0
    assert again["captions_followed"] == report["captions_followed"]
    assert again["distances"] == report["distances"]


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (("--recipe", "artwork"), 2, "--data FOLDER"),
        (("--recipe", "none"), 2, "tiny"),
        (("--recipe", "tiny", "--ablation", "colour"), 2, "guidance"),
        (("--recipe", "tiny", "--manipulation", "fold"), 2, "reconstructions, diffs, edits, all"),
        (("--recipe", "tiny", "--set", "choices=1"), 2, "at least 2"),
        (("--recipe", "tiny", "--judge", "nowhere"), 1, "nowhere"),
        (("--recipe", "tiny", "--ray", "auto"), 2, "--ray needs --pictures FOLDER"),
        (("--recipe", "tiny", "--ray", "auto", "--pictures", "p", "--part", "clip=x"), 2, "--part"),
        (("--recipe", "artwork", "--data", "nowhere"), 1, "nowhere"),
    ],
)
def test_bad_input(unclip, chain, tmp_path, monkeypatch, argv, code, message):
    monkeypatch.chdir(tmp_path)
    outcome = unclip("evaluate", "-m", chain, *argv)
    assert (outcome.code, outcome.out) == (code, "")
    assert message in outcome.err
    assert "Traceback" not in outcome.err
