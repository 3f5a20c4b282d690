"""The sheet for naming by eye: what is on it, and that its key says so."""

import csv
import json
from dataclasses import replace

import pytest
from PIL import Image

from unclip.data.sample import Sample
from unclip.evaluate.config import SheetConfig
from unclip.evaluate.sheet import entries, write_sheet


def drawings(count):
    """Two drawings each of things that are everyday and other in turn."""
    names = ("cat", "sextant")
    return [
        Sample(
            key=f"{number}/{style}",
            captions=(f"thing {number}, {style}",),
            weight=1.0,
            meta={"noun": f"thing {number}", "label": names[number % 2], "kind": "plain"},
        )
        for number in range(count)
        for style in ("3d", "flat")
    ]


def test_each_thing_is_there_once():
    found = entries(drawings(40), SheetConfig(everyday=8, others=4, real=6), seed=0)
    kinds = [entry.kind for entry in found]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {"everyday": 8, "other": 4, "real": 6}
    nouns = [entry.sample.meta["noun"] for entry in found]
    assert len(set(nouns)) == len(nouns)
    real = [entry.sample.meta["label"] for entry in found if entry.kind == "real"]
    assert real.count("cat") == 4
    # Shuffled, and the same for the same seed alone.
    assert kinds != sorted(kinds)
    assert found == entries(drawings(40), SheetConfig(everyday=8, others=4, real=6), seed=0)
    assert found != entries(drawings(40), SheetConfig(everyday=8, others=4, real=6), seed=1)


@pytest.mark.parametrize("counts", [{"everyday": 0, "others": 0}, {"real": -1}])
def test_counts_are_checked(counts):
    with pytest.raises(ValueError, match="at least one drawn picture"):
        SheetConfig(**counts)


def test_files(model, config, cache, tmp_path):
    asked = replace(config(), sheet=SheetConfig(everyday=4, others=20, real=8))
    files = write_sheet(model, asked, tmp_path / "sheet", cache=cache)
    assert [file.name for file in files] == ["page-1.png", "page-2.png", "answers.csv", "key.json"]
    key = json.loads((tmp_path / "sheet" / "key.json").read_text())
    assert key["digest"] == model.digest
    # The shapes have no everyday things.
    assert [row["number"] for row in key["pictures"]] == list(range(1, 29))
    assert sum(row["kind"] == "real" for row in key["pictures"]) == 8
    with (tmp_path / "sheet" / "answers.csv").open() as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["number", "name"]
    assert len(rows) == 29
    page = Image.open(tmp_path / "sheet" / "page-1.png")
    assert len(page.getcolors(page.width * page.height)) > 50
    with pytest.raises(FileExistsError, match="another folder"):
        write_sheet(model, asked, tmp_path / "sheet", cache=cache)
