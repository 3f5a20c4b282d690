"""README and documentation agree with the code: commands parse, Python runs, figures are those measured, links lead somewhere."""

import itertools
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from unclip.cli.main import build_parser

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
# Entries of the log are records: their commands are those of the version that they were run with.
RECORDS = {"log.md"}
PAGES = [README, *sorted(page for page in (ROOT / "docs").rglob("*.md") if page.name not in RECORDS)]
WITH_PYTHON = [page for page in PAGES if "```python\n" in page.read_text(encoding="utf-8")]


def named(pages: list[Path]) -> list:
    return [pytest.param(page, id=page.relative_to(ROOT).as_posix()) for page in pages]


def commands(page: Path) -> list[str]:
    """Every command of a page that begins with `unclip`, in text or in a block; not those with `...`."""
    text = page.read_text(encoding="utf-8")
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    quoted = re.findall(r"`(unclip [^`]+)`", prose.replace("\n", " "))
    blocks = re.findall(r"^    (unclip (?:.+\\\n)*.+)$", text, flags=re.MULTILINE)
    found = [re.sub(r"\\\n\s*", "", command) for command in [*quoted, *blocks]]
    return [
        command for command in found if not any(word in command for word in ("...", "VERB", "FOLDER MODEL"))
    ]


def parsed(command: str) -> None:
    words = shlex.split(command, comments=True)[1:]
    # What the shell does with the command's output is no word of it.
    words = list(itertools.takewhile(lambda word: word not in (">", "|", "&&"), words))
    if len(words) == 1:
        words.append("--help")  # a verb that is only named
    if {"--help", "--version"} & set(words):
        with pytest.raises(SystemExit, match="0"):
            build_parser().parse_args(words)
        return
    try:
        build_parser().parse_args(words)
    except SystemExit:
        pytest.fail(f"does not parse: {command}")


@pytest.mark.parametrize("page", named(PAGES))
def test_commands_parse(page: Path) -> None:
    for command in commands(page):
        parsed(command)


def test_there_are_commands_to_check() -> None:
    assert len(commands(README)) >= 15
    assert sum(len(commands(page)) for page in PAGES) >= 100


def test_the_readme_is_short() -> None:
    assert 60 <= len(README.read_text(encoding="utf-8").splitlines()) <= 100


@pytest.mark.parametrize("page", named(WITH_PYTHON))
def test_python_runs(page: Path, tmp_path: Path) -> None:
    """The blocks marked `python` of a page, one after the other in one process; those marked `py` are sketches."""
    text = page.read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL))
    shutil.copytree(ROOT / "docs" / "images" / "inputs", tmp_path / "docs" / "images" / "inputs")
    (tmp_path / "page.py").write_text(code, encoding="utf-8")
    process = subprocess.run(
        [sys.executable, "-W", "error", "page.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr
    if page == README:
        assert len(list(tmp_path.glob("apple-*.png"))) == 4
        assert re.search(r"z_i·z_t = 0\.\d\d", process.stdout)


def shares(text: str) -> list[str]:
    """The shares of captions followed, of a page with the table of three rows."""
    shown = text.partition("| captions followed, as a share")[2].partition("\n\n")[0]
    return re.findall(r"\| ([\d.]+)(?= \|)", shown)


def test_the_figures_are_those_of_the_evaluation() -> None:
    page = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    followed = page.partition("## Captions followed")[2].partition("\n| one ")[0]
    measured = re.findall(r"^\| [^|]+ \| \d+ \| .* \| ([\d.]+) \| [\d.]+ \|$", followed, flags=re.MULTILINE)
    assert len(measured) == 6
    for name in ("results.md", "model-card.md"):
        assert shares((ROOT / "docs" / name).read_text(encoding="utf-8")) == measured, name
    unseen = ", ".join(measured[1::2])
    assert f"| {unseen} | `unclip evaluate`" in README.read_text(encoding="utf-8")


@pytest.mark.parametrize("page", named(PAGES))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(
        r"^```.*?^```$|^    .*$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL
    )
    links = re.findall(r"\]\(((?!https?:)[^)#\s]+)", text)
    assert not [link for link in links if not (page.parent / link).exists()]
