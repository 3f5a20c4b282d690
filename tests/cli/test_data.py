"""`unclip data` hands its options on, and says where the drawings come from when they are missing."""

import json
from pathlib import Path

from unclip.data.dataset import open_dataset

PACKAGES = Path(__file__).parent.parent / "datasets" / "artwork" / "packages"


def test_builds_shards(unclip, tmp_path):
    out = tmp_path / "set"
    options = (
        "--packages",
        PACKAGES,
        "--size",
        32,
        "--limit",
        2,
        "--workers",
        1,
        "--seed",
        3,
        "--quiet",
        "--json",
    )
    code, text, err = unclip("data", "artwork", out, *options)
    assert (code, err) == (0, "")
    told = json.loads(text)
    assert told["folder"] == str(out)
    data = open_dataset(out)
    assert len(data) == sum(told["counts"].values()) == sum(told["kinds"].values())
    assert data.picture(0, None).shape == (3, 32, 32)
    record = json.loads((out / "artwork.json").read_text())
    assert (record["options"]["limit"], record["options"]["seed"]) == (2, 3)


def test_missing_packages(unclip, tmp_path):
    code, out, err = unclip("data", "artwork", tmp_path / "set", "--packages", tmp_path / "none")
    assert (code, out) == (1, "")
    assert "npm ci" in err


def test_a_set_must_be_named(unclip):
    code, out, err = unclip("data")
    assert (code, out) == (2, "")
    assert "SET" in err
