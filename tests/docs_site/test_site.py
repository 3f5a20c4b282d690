"""The documentation site is built without a warning, and what its pages say of the code is there."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

import unclip

ROOT = Path(__file__).parent.parent.parent
PAGES = sorted(page for page in (ROOT / "docs").rglob("*.md") if page.name != "log.md")


@pytest.fixture(scope="module")
def builder() -> ModuleType:
    """docs/build_site.py."""
    spec = importlib.util.spec_from_file_location("build_site", ROOT / "docs" / "build_site.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def site(builder: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; any warning fails."""
    return builder.build(tmp_path_factory.mktemp("site") / "site")


def test_every_page_is_built(site: Path) -> None:
    pages = {page.relative_to(ROOT / "docs").with_suffix(".html") for page in PAGES}
    assert not [page for page in pages if not (site / page).is_file()]


def test_every_verb_and_option_is_in_the_reference(site: Path) -> None:
    text = (site / "reference" / "cli.html").read_text(encoding="utf-8")
    surface = (ROOT / "tests" / "cli" / "surface.txt").read_text(encoding="utf-8")
    options = set(re.findall(r"--[a-z][a-z-]+", surface)) - {"--help"}
    assert len(options) > 40
    assert not [option for option in options if option not in text]


def test_every_public_name_is_in_the_reference(site: Path) -> None:
    text = (site / "reference" / "api" / "unclip.html").read_text(encoding="utf-8")
    names = [name for name in unclip.__all__ if not name.startswith("_")]
    assert not [name for name in names if f"unclip.{name}</code>" not in text]


def test_equations_are_mathml(site: Path) -> None:
    text = (site / "concepts.html").read_text(encoding="utf-8")
    assert text.count("<math") > 30
    assert "$" not in re.sub(r"<(code|script|style|pre)\b.*?</\1>", "", text, flags=re.DOTALL)


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    for page in ("index.html", "concepts.html", "reference/cli.html"):
        text = (site / page).read_text(encoding="utf-8")
        assert not re.findall(
            r"<(?:script|img|iframe)[^>]*src=\"https?:[^\"]*|<link[^>]*stylesheet[^>]*https?:[^\"]*", text
        )


@pytest.mark.parametrize("page", [pytest.param(page, id=page.stem) for page in PAGES])
def test_files_and_names_that_a_page_mentions_exist(builder: ModuleType, page: Path) -> None:
    assert not builder.missing_references(page)


def test_the_ten_questions_are_answered_by_two_files_at_most() -> None:
    page = (ROOT / "docs" / "howto" / "where-is.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([^|]+\?) \| ([^|]+) \| [^|]+ \|$", page, flags=re.MULTILINE)
    assert len(rows) == 10
    assert all(1 <= len(set(re.findall(r"[\w/]+\.py", files))) <= 2 for _, files in rows)
