"""The source tree, a line per file, made from the first lines of the modules' docstrings.

python docs/tree.py           # prints it; the documentation site shows it as a page
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COLUMN = 36


def tree(folder: Path, depth: int = 0) -> Iterator[str]:
    """Lines for `folder` and each module below it: files first, then folders, by name."""
    yield _line(f"{folder.name}/", folder / "__init__.py", depth)
    modules = [file for file in folder.glob("*.py") if file.name != "__init__.py"]
    for file in sorted(modules):
        yield _line(file.name, file, depth + 1)
    for child in sorted(path.parent for path in folder.glob("*/__init__.py")):
        yield from tree(child, depth + 1)


def _line(name: str, file: Path, depth: int) -> str:
    doc = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    summary = doc.partition("\n\n")[0].replace("\n", " ").rstrip(".")
    return f"{'  ' * depth + name:<{COLUMN}}{summary}".rstrip()


if __name__ == "__main__":
    sys.stdout.write("\n".join(tree(ROOT / "src" / "unclip")) + "\n")
