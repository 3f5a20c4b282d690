"""Plots, tables and goals from a report of a tiny model; the prose around them is unchanged."""

import json
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from unclip.cli.main import main
from unclip.evaluate.ablations import ABLATIONS

PAGE = Path(__file__).parent.parent.parent / "docs" / "evaluation.md"


@pytest.fixture(scope="module")
def plots(script):
    """docs/plots.py."""
    return script("plots")


@pytest.fixture(scope="module")
def report(model, tmp_path_factory):
    """Report of `unclip evaluate` for the tiny model on the coloured shapes."""
    folder = tmp_path_factory.mktemp("report")
    options = [
        f"--set={one}"
        for one in (
            "count=6", "choices=4", "retrieval_count=12", "manipulated=2", "upsampled=2", "ablation_count=6"
        )
    ]  # fmt: skip
    argv = ["--recipe", "tiny", "-m", str(model), "--cache", str(folder), "--quiet", *options]
    assert (
        main(["evaluate", *argv, "--ablation", "all", "--manipulation", "all", "-o", str(folder / "a.json")])
        == 0
    )
    return json.loads((folder / "a.json").read_text())


def test_the_page_gets_every_plot_and_table(plots, report, tmp_path):
    page = Path(shutil.copy(PAGE, tmp_path / "evaluation.md"))
    written = plots.write(report, page)
    text = page.read_text(encoding="utf-8")
    assert text.partition(plots.BEGIN)[0] == PAGE.read_text(encoding="utf-8").partition(plots.BEGIN)[0]
    shown = re.findall(r"\]\((images/evaluation/[\w-]+\.png)\)", text)
    assert [str(path.relative_to(tmp_path)) for path in written[:-1]] == shown
    assert len(shown) == 1 + len(ABLATIONS)
    for name in shown:
        with Image.open(tmp_path / name) as picture:
            assert picture.width > 500
    share = report["captions_followed"]["shapes elsewhere"]["share"]
    assert re.search(rf"^\| shapes elsewhere \| 6 \| {share:.3f} \|", text, flags=re.MULTILINE)
    recall = report["retrieval"]["clip"]["image_to_text_recall_1"]
    assert re.search(rf"^\| the model's CLIP \| 12 \| {recall:.3f} \|", text, flags=re.MULTILINE)
    assert "flatters" in text
    again = [path.read_bytes() for path in written]
    assert [path.read_bytes() for path in plots.write(report, page)] == again


def test_goals_have_their_margins(plots, report):
    found = {goal.what: goal for goal in plots.goals(report)}
    assert len(found) == 11
    missing = [goal.what for goal in found.values() if goal.reached is None]
    assert missing == [
        f"{name}: followed, as a share of real drawings"
        for name in ("unseen concept x style", "unseen concept x colour", "unseen pairs")
    ]
    assert found[missing[0]].cells()[1] == "not measured"
    seen = found["captions seen in training: followed, as a share of real drawings"]
    expected = report["captions_followed"]["seen shapes"]["of_real"]
    assert (seen.by, seen.reached) == (pytest.approx(expected - 0.9), expected >= 0.9)


def test_a_goal_is_reached_or_missed_by_its_margin(plots):
    assert plots._at_least("a", 0.8, 0.75).cells()[3] == "reached"
    assert plots._at_least("a", 0.5, 0.75).cells()[3] == "missed by 0.25"
    rows = [
        {"changed": {"prior": name}, "followed": followed, "frechet": frechet}
        for name, followed, frechet in (("none", 0.2, 0.5), ("text", 0.3, 0.4), ("diffusion", 0.4, 0.3))
    ]
    assert plots._full_stack({"ablations": {"priors": rows}}).reached
    rows[1]["frechet"] = 0.2
    assert plots._full_stack({"ablations": {"priors": rows}}).reached is False
    assert plots._full_stack({"ablations": {}}).reached is None


def test_a_page_without_marks_is_refused(plots, report, tmp_path):
    page = tmp_path / "evaluation.md"
    page.write_text("# Evaluation\n")
    with pytest.raises(ValueError, match="lacks the mark"):
        plots.write(report, page)


def test_tables_are_markdown(plots):
    assert plots.markdown(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | ---: |\n| 1 | 2 |"


def test_a_sweep_of_nothing_but_zeros_is_drawn(plots):
    rows = [{"changed": {"guidance": guidance}, "followed": 0.0, "frechet": 0.2} for guidance in (1.0, 2.0)]
    rows = [row | {key: row.get(key, 0.0) for key in plots.MEASURES} for row in rows]
    figure = plots.plot_sweep(rows, "guidance")
    for axes in figure.axes:
        low, high = axes.get_ylim()
        assert low <= 0 < high
