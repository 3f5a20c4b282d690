"""Every figure is made, at a tiny scale; the page names every figure, and its commands parse."""

import json
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

import unclip
from unclip.cli.main import build_parser

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "figures.md"
NAMES = re.findall(r"images/figures/(\w+)\.webp", PAGE.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def sheets(script):
    """docs/sheets.py."""
    return script("sheets")


@pytest.fixture(scope="module")
def figures(script, sheets):
    """docs/figures.py."""
    return script("figures")


@pytest.fixture(scope="module")
def workshop(sheets, model, tmp_path_factory):
    """A folder like the repository's, and the tiny model."""
    root = tmp_path_factory.mktemp("repository")
    shutil.copytree(ROOT / "docs" / "images" / "inputs", root / "docs" / "images" / "inputs")
    for name in ("captions.txt", "basis.txt"):
        shutil.copy(ROOT / "docs" / name, root / "docs")
    return sheets.Workshop(root, str(model), steps=1)


@pytest.mark.parametrize("name", NAMES)
def test_every_figure_is_made(figures, workshop, name):
    figure = next(one for one in figures.figures(workshop.model) if one.name == name)
    file = workshop.make(figure)
    assert workshop.is_current(figure)
    with Image.open(file) as sheet:
        assert sheet.height >= len(figure.rows) * figure.cell
        made_by = json.loads(sheet.getexif()[0x010E])
        assert "trainedAlgorithmicMedia" in sheet.info["xmp"].decode()
    assert made_by["commands"] == figure.commands
    assert made_by["digest"] == workshop.model.digest


def test_existing_figures_are_not_made_again(figures, workshop, sheets):
    figure = next(one for one in figures.figures(workshop.model) if one.name == "outpainting")
    first = workshop.make(figure).read_bytes()
    single = next((workshop.root / sheets.WORK / "outpainting").glob("*.png"))
    Image.new("RGB", (512, 256), "red").save(single)
    assert workshop.make(figure).read_bytes() != first
    # With force, or where a picture is missing, the command runs again and gives the same pictures.
    assert workshop.make(figure, force=True).read_bytes() == first
    single.unlink()
    assert workshop.make(figure).read_bytes() == first


def test_other_commands_make_a_figure_out_of_date(sheets, workshop):
    rows = (sheets.Row("a", ("docs/images/inputs/fox.png",)),)
    figure = sheets.Figure(name="fox", title="", says="", rows=rows)
    assert not workshop.is_current(figure)
    workshop.make(figure)
    assert workshop.is_current(figure)
    assert workshop.is_current(replace(figure, title="Fox", says="A fox."))
    assert not workshop.is_current(sheets.Figure(name="fox", title="", says="", rows=rows * 2))


def test_a_command_that_fails_raises(sheets, workshop):
    figure = sheets.Figure(
        name="none", title="", says="", rows=(sheets.Row("", ("unclip vary nowhere.png -o out/",)),)
    )
    with pytest.raises(RuntimeError, match=r"nowhere\.png.* failed with exit code 1"):
        workshop.make(figure)


def test_an_unknown_figure_is_refused(figures, capsys):
    with pytest.raises(SystemExit, match="2"):
        figures.main(["cubes"])
    assert "there is no figure 'cubes'; choose from samples, " in capsys.readouterr().err


def test_the_page_is_up_to_date(figures):
    assert figures.page(figures.figures(unclip.load("artwork"))) == PAGE.read_text(encoding="utf-8"), (
        "run `python docs/figures.py --page`"
    )


def test_the_page_names_every_figure_and_its_commands_parse(figures):
    listed = figures.figures(unclip.load("artwork"))
    assert [figure.name for figure in listed] == NAMES
    commands = [command for figure in listed for command in figure.commands]
    assert len(commands) > 40
    text = PAGE.read_text(encoding="utf-8")
    for command in commands:
        assert f"    {command}\n" in text
        build_parser().parse_args(shlex.split(command)[1:])
