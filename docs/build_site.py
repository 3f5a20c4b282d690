"""The documentation site: staged pages, the command-line reference from the parser, and the API from docstrings.

    python docs/build_site.py             # builds out/site/html and prints its path; every warning is an error

Pages are written so that they read well in the repository too. Staging adds what only the site has: equations in `$...$`
become MathML, links to files outside of docs/ become plain text, and a reference such as `diffusion/noise.py: NoiseTable`
becomes a link to the API reference.
"""

import argparse
import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
DOCS, SOURCE = ROOT / "docs", ROOT / "src"
PACKAGE = SOURCE / "unclip"

# Modules of the page `unclip`: what users of the Python interface import from the package itself.
PUBLIC = (
    "generate.model",
    "generate.request",
    "generate.operations.generate",
    "generate.operations.redraw",
    "generate.operations.vary",
    "generate.operations.interpolate",
    "generate.operations.text_diff",
    "generate.operations.edit",
    "generate.operations.outpaint",
    "generate.operations.upscale",
    "generate.operations.reconstruct",
    "generate.operations.components",
    "stages.sampling",
    "generate.image",
    "generate.progress",
    "errors",
)
TITLES = {
    "diffusion": "The diffusion core",
    "nn": "Layers",
    "networks": "Networks",
    "stages": "Stages",
    "generate": "Generation",
    "formats": "Public formats",
    "checkpoints": "Model folders",
    "data": "Data",
    "datasets": "Built-in data sets",
    "train": "Training",
    "recipes": "Recipes",
    "evaluate": "Evaluation",
    "serve": "Server",
    "images": "Picture files",
    "tokenizers": "Tokenizers",
}
REFERENCE = re.compile(r"`([\w/]+\.py)(?:: ([\w.]+))?`")


def stage(target: Path) -> None:
    """Fill `target` with a site's configuration and its pages."""
    pages = target / "docs"
    if target.exists():
        shutil.rmtree(target)
    for file in sorted(DOCS.rglob("*")):
        if file.is_file() and file.suffix in (".md", ".png", ".webp", ".css"):
            copy = pages / file.relative_to(DOCS)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
    reference = pages / "reference"
    (reference / "api").mkdir(parents=True)
    (reference / "cli.md").write_text(command_line(), encoding="utf-8")
    (reference / "source-tree.md").write_text(source_tree(), encoding="utf-8")
    (pages / "changelog.md").write_text((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), encoding="utf-8")
    for name, text in api_pages():
        (reference / "api" / f"{name}.md").write_text(text, encoding="utf-8")
    for page in pages.rglob("*.md"):
        if page.parent != reference / "api":
            page.write_text(for_the_site(page.read_text(encoding="utf-8"), page, pages), encoding="utf-8")
    names = [name for name, _ in api_pages()]
    listed = ", ".join(f'{{ "{_title(name)}" = "reference/api/{name}.md" }}' for name in names)
    config = (DOCS / "zensical.toml").read_text(encoding="utf-8")
    config = config.replace('{ "Python API" = [] }', f'{{ "Python API" = [{listed}] }}')
    (target / "zensical.toml").write_text(config.replace('"SOURCE"', f'"{SOURCE}"'), encoding="utf-8")


def build(target: Path) -> Path:
    """Folder of the built HTML. Raises `RuntimeError` with the builder's output for any warning."""
    stage(target)
    program = [
        sys.executable,
        "-m",
        "zensical",
        "build",
        "--strict",
        "--clean",
        "-f",
        str(target / "zensical.toml"),
    ]
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "NO_COLOR": "1"}
    done = subprocess.run(program, cwd=target, env=environment, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    if done.returncode != 0 or "warning" in said.lower():
        raise RuntimeError(f"the site was not built:\n{said}")
    return target / "html"


# Pages made from the code


def command_line() -> str:
    """The page of the command line, from its parser."""
    os.environ["COLUMNS"] = "84"
    from unclip.cli.main import build_parser

    parser = build_parser()
    lines = ["# Command line", "", f"{parser.description} This page is generated from the parser.", ""]
    lines += ["```text", parser.format_help().rstrip(), "```", ""]
    verbs = _verbs(parser)
    groups: dict[str, list[Any]] = getattr(parser, "groups", {})
    for title, actions in groups.items():
        lines += [f"## {title.capitalize()}", ""]
        for action in actions:
            lines += _verb(verbs[action.dest.partition(" ")[0]], 3)
    return "\n".join(lines)


def _verbs(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    found = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return {name: verb for action in found for name, verb in action.choices.items()}


def _verb(parser: argparse.ArgumentParser, level: int) -> Iterator[str]:
    name = parser.prog.removeprefix("unclip ")
    yield from (f"{'#' * level} {name}", "", _escaped(parser.description or ""), "")
    yield from ("```text", parser.format_usage().removeprefix("usage: ").rstrip(), "```", "")
    for group in parser._action_groups:
        rows = [
            action
            for action in group._group_actions
            if action.help != argparse.SUPPRESS
            and not isinstance(action, argparse._HelpAction | argparse._SubParsersAction)
        ]
        if rows:
            heading = (group.title or "options").capitalize()
            yield from (f"| {_escaped(heading)} | |", "| --- | --- |")
            yield from (f"| {_spelled(action)} | {_escaped(action.help or '')} |" for action in rows)
            yield ""
    for inner in dict.fromkeys(_verbs(parser).values()):
        yield from _verb(inner, level + 1)


def _spelled(action: argparse.Action) -> str:
    value = action.metavar if isinstance(action.metavar, str) else None
    if value is None and action.choices is not None:
        value = "{" + ",".join(map(str, action.choices)) + "}"
    if not action.option_strings:
        return f"`{value or action.dest}`"
    takes = action.nargs != 0
    shown = f" {value or action.dest.upper()}" if takes else ""
    return ", ".join(f"`{option}{shown}`".replace("|", "\\|") for option in action.option_strings)


def _escaped(text: str) -> str:
    text = text.replace("%(default)s", "").replace("%%", "%")
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


def source_tree() -> str:
    """The page of the source tree, a line per file."""
    spec = importlib.util.spec_from_file_location("tree", DOCS / "tree.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    listed = "\n".join(module.tree(PACKAGE))
    says = "Every module of `src/unclip/` with the first line of its docstring. This page is generated from the code."
    return f"# Source tree\n\n{says}\n\n```text\n{listed}\n```\n"


def api_pages() -> Iterator[tuple[str, str]]:
    """(name, text) of every page of the API reference."""
    yield "unclip", _api_page("The package `unclip`", PUBLIC, _public_names())
    for package in [name for name in TITLES if (PACKAGE / name / "__init__.py").exists()]:
        folder = PACKAGE / package
        files = [file for file in sorted(folder.rglob("*.py")) if not file.name.startswith("_")]
        modules = [".".join(file.relative_to(PACKAGE).with_suffix("").parts) for file in files]
        modules = [module for module in modules if module not in PUBLIC]
        yield (
            package,
            _api_page(f"{TITLES[package]}: `unclip.{package}`", modules, _says(folder / "__init__.py")),
        )
    yield "base", _api_page("Base modules", ("config", "rng"), "")


def _title(name: str) -> str:
    return {"unclip": "unclip", "base": "Base modules"}.get(name) or f"{TITLES[name]}"


def _api_page(title: str, modules: tuple[str, ...] | list[str], says: str) -> str:
    blocks = "\n\n".join(f"::: unclip.{module}" for module in modules)
    return f"# {title}\n\n{says}\n\n{blocks}\n"


def _public_names() -> str:
    from unclip import _HOMES

    names = {
        name: f"unclip.{module.removeprefix('unclip.')}" for module, found in _HOMES.items() for name in found
    }
    operations = {
        name: module for module in PUBLIC for name in defined(PACKAGE / f"{module.replace('.', '/')}.py")
    }
    lines = ["`import unclip` loads no torch; each name is imported when it is first used.", ""]
    for name in sorted(names, key=str.lower):
        home = f"unclip.{operations[name]}" if name in operations else names[name]
        lines.append(f"- [`unclip.{name}`][{home}.{name}]")
    return "\n".join(lines)


def _says(file: Path) -> str:
    """A module's docstring, its indented blocks kept as text."""
    return ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""


# Pages written by hand


def for_the_site(text: str, page: Path, pages: Path) -> str:
    """Markdown of the site from that of the repository; code blocks are left as they are."""
    parts = re.split(r"(^```.*?^```$|(?:^(?: {4}|\t)[^\n]*\n)+)", text, flags=re.MULTILINE | re.DOTALL)
    return "".join(part if index % 2 else _prose(part, page, pages) for index, part in enumerate(parts))


def _prose(text: str, page: Path, pages: Path) -> str:
    text = re.sub(r"\$\$(.+?)\$\$", lambda found: _math(found[1], "block"), text, flags=re.DOTALL)
    text = re.sub(
        r"(?<![\w$\\])\$(?=\S)([^$\n]+?)(?<=\S)\$(?!\w)", lambda found: _math(found[1], "inline"), text
    )
    text = re.sub(
        r"(?<!!)\[([^\]]+)\]\(((?!https?:|#)[^)#]+)(#[^)]*)?\)", lambda found: _link(found, page, pages), text
    )
    return REFERENCE.sub(_linked, text)


def _math(latex: str, display: Any) -> str:
    from latex2mathml.converter import convert

    made = convert(latex.strip(), display=display)
    # In a span, as Markdown takes an element of its own at the start of a line for a block.
    return f"\n{made}\n" if display == "block" else f"<span>{made}</span>"


def _link(found: re.Match[str], page: Path, pages: Path) -> str:
    target = (page.parent / found[2]).resolve()
    if target.is_relative_to(pages.resolve()):
        return found[0]
    inside = found[1] if "`" in found[1] else f"`{found[1]}`"
    return inside


def _linked(found: re.Match[str]) -> str:
    path, name = PACKAGE / found[1], found[2]
    if not path.exists():
        return found[0]
    module = "unclip." + ".".join(Path(found[1]).with_suffix("").parts)
    documented = module.removeprefix("unclip.").split(".")[0] in (*TITLES, "errors", "config", "rng")
    if not documented or path.name.startswith("__"):
        return found[0]
    shown = name is not None and not any(part.startswith("_") for part in name.split("."))
    return f"[{found[0]}][{module}{f'.{name}' if shown else ''}]"


def defined(file: Path) -> set[str]:
    """Names that a module defines, those of classes with a dot."""
    found: set[str] = set()

    def read(nodes: list[ast.stmt], prefix: str) -> None:
        for node in nodes:
            names: list[str] = []
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                names = [node.name]
            elif isinstance(node, ast.Assign):
                names = [target.id for target in node.targets if isinstance(target, ast.Name)]
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                names = [node.target.id]
            found.update(prefix + name for name in names)
            if isinstance(node, ast.ClassDef):
                read(node.body, f"{prefix}{node.name}.")

    read(ast.parse(file.read_text(encoding="utf-8")).body, "")
    return found


def missing_references(page: Path) -> list[str]:
    """References to files or names that do not exist, of a page."""
    lost = []
    for path, name in REFERENCE.findall(page.read_text(encoding="utf-8")):
        homes = [PACKAGE / path, ROOT / path, DOCS / path]
        file = next((home for home in homes if home.is_file()), None)
        if file is None or (name and name not in defined(file)):
            lost.append(f"{path}: {name}" if name else path)
    return lost


if __name__ == "__main__":
    sys.stdout.write(f"{build(ROOT / 'out' / 'site') / 'index.html'}\n")
