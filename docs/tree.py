"""The tree at the README's end, a line a file, made from the first lines of the modules' docstrings.

python docs/tree.py           # writes it into README.md
"""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- tree: python docs/tree.py -->\n", "<!-- end of tree -->\n"
COLUMN = 36


def tree(folder: Path, depth: int = 0) -> Iterator[str]:
    """A line for `folder` and each module below it: files first, then folders, by name."""
    yield _line(f"{folder.name}/", folder / "__init__.py", depth)
    modules = [file for file in folder.glob("*.py") if file.name != "__init__.py"]
    for file in sorted(modules):
        yield _line(file.name, file, depth + 1)
    for child in sorted(path.parent for path in folder.glob("*/__init__.py")):
        yield from tree(child, depth + 1)


def updated(readme: str) -> str:
    """The README with its tree made new. Raises ValueError where a mark is missing."""
    before, begun, rest = readme.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not begun or not ended:
        raise ValueError(f"README.md lacks the mark {(END if begun else BEGIN).strip()}")
    listed = "\n".join(tree(ROOT / "src" / "unclip"))
    return f"{before}{BEGIN}\n```\n{listed}\n```\n\n{END}{after}"


def _line(name: str, file: Path, depth: int) -> str:
    doc = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    says = doc.partition("\n\n")[0].replace("\n", " ").rstrip(".")
    return f"{'  ' * depth + name:<{COLUMN}}{says}".rstrip()


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(updated(readme.read_text(encoding="utf-8")), encoding="utf-8")
