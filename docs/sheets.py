"""Sheets of pictures: commands of `unclip` that are run as they are shown, and their pictures laid out in rows."""

import contextlib
import functools
import hashlib
import io
import json
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

import unclip
from unclip.cli.main import main as run_unclip
from unclip.images import GENERATED, open_picture, read_provenance, write_atomically, xmp_packet

SHEETS, WORK = "docs/images/figures", "out/figures"
"""Folders of the finished sheets and of their single pictures, relative to the repository."""
GAP, LINE, FONT_SIZE, MARGIN = 6, 20, 14, 116
_DESCRIPTION = 0x010E  # EXIF tag (CIPA DC-008, table 4)


@dataclass(frozen=True)
class Row:
    """A row of a sheet: its label, then from left to right pictures, or commands that make pictures.

    A picture is the path of a file; `path#left,top,right,bottom` draws a frame on it.
    """

    label: str
    parts: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A sheet of pictures.

    `says` is the description on the page. `note` is written below each picture, formatted with the results in its
    provenance. Pictures of the commands in `before` are inputs of the rows and are not shown.
    """

    name: str
    title: str
    says: str
    rows: tuple[Row, ...]
    columns: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    note: str = ""
    cell: int = 128

    @property
    def commands(self) -> list[str]:
        """All commands, in order."""
        parts = [part for row in self.rows for part in row.parts]
        return [*self.before, *(part for part in parts if part.startswith("unclip "))]


class Workshop:
    """Runner of commands and maker of sheets, in the repository at `root`.

    Commands run as they are shown, except for another `model` than the bundled one and the number of decoder `steps`,
    where given.
    """

    def __init__(self, root: Path, model: str = "artwork", steps: int | None = None):
        self.root, self.model = root, unclip.load(model, device="cpu")
        self.options = [] if model == "artwork" else ["--model", model]
        self.options += [] if steps is None else ["--steps", str(steps)]

    @property
    def _by(self) -> list[str]:
        return [self.model.digest, *self.options]

    def file(self, figure: Figure) -> Path:
        """Path of the figure's sheet."""
        return self.root / SHEETS / f"{figure.name}.webp"

    def mark(self, figure: Figure) -> str:
        """Hash of what a sheet depends on: the figure without its description, the model, and this file."""
        drawn = replace(figure, title="", says="")
        data = f"{drawn!r}{self._by}".encode() + Path(__file__).read_bytes()
        return hashlib.sha256(data).hexdigest()[:16]

    def is_current(self, figure: Figure) -> bool:
        """Whether the sheet exists and was made by these commands and this model."""
        try:
            with Image.open(self.file(figure)) as sheet:
                return json.loads(sheet.getexif()[_DESCRIPTION])["mark"] == self.mark(figure)
        except (OSError, KeyError, ValueError):
            return False

    def make(self, figure: Figure, *, force: bool = False) -> Path:
        """Path of the figure's sheet, made from its commands; those that ran before are not run again unless `force`."""
        journal = self.root / WORK / figure.name / "made.json"
        made: dict[str, list[str]] = {}
        if journal.exists() and not force:
            record = json.loads(journal.read_text(encoding="utf-8"))
            made = record["made"] if record.get("by") == self._by else {}
        for command in figure.commands:
            if not all((self.root / path).is_file() for path in made.get(command, [WORK])):
                made[command] = self.run(command)
                journal.parent.mkdir(parents=True, exist_ok=True)
                record = json.dumps({"by": self._by, "made": made}, indent=1)
                write_atomically(journal, record.encode(), force=True)
        sheet = self.layout(figure, made)
        self.file(figure).parent.mkdir(parents=True, exist_ok=True)
        return write_atomically(self.file(figure), self.encode(sheet, figure), force=True)

    def run(self, command: str) -> list[str]:
        """Paths that a command of `unclip` wrote. Raises `RuntimeError` where it fails."""
        words = [*shlex.split(command)[1:], "--force", "--quiet", *self.options]
        with contextlib.chdir(self.root), contextlib.redirect_stdout(io.StringIO()) as out:
            code = run_unclip(words)
        if code:
            raise RuntimeError(f"{command!r} failed with exit code {code}")
        return out.getvalue().split()

    def layout(self, figure: Figure, made: dict[str, list[str]]) -> Image.Image:
        """The sheet: rows of pictures of one height with their labels, below the names of the columns."""
        rows = [[_show(self.root, path, figure) for path in _paths(row, made)] for row in figure.rows]
        labels = [_wrapped(row.label, MARGIN - GAP) for row in figure.rows]
        columns = [_wrapped(name, figure.cell) for name in figure.columns]
        top = max((len(lines) for lines in columns), default=0) * LINE
        width = MARGIN + max(sum(one.width + GAP for one in row) for row in rows)
        height = top + sum(max(one.height for one in row) + GAP for row in rows)
        sheet = Image.new("RGB", (width, height), "white")
        draw, x = ImageDraw.Draw(sheet), MARGIN
        for lines in columns:
            _write(draw, lines, x + figure.cell // 2, 0)
            x += figure.cell + GAP
        y = top
        for row, lines in zip(rows, labels):
            _write(draw, lines, MARGIN // 2, y + (figure.cell - LINE * len(lines)) // 2)
            x = MARGIN
            for one in row:
                sheet.paste(one, (x, y))
                x += one.width + GAP
            y += max(one.height for one in row) + GAP
        return sheet

    def encode(self, sheet: Image.Image, figure: Figure) -> bytes:
        """Bytes of the sheet as WebP; its metadata holds the commands and the mark for `is_current`."""
        exif = Image.Exif()
        made_by = {"mark": self.mark(figure), "digest": self.model.digest, "commands": figure.commands}
        exif[_DESCRIPTION] = json.dumps(made_by)
        buffer = io.BytesIO()
        sheet.save(buffer, "WEBP", quality=88, method=6, exif=exif, xmp=xmp_packet(GENERATED).encode())
        return buffer.getvalue()


def _paths(row: Row, made: dict[str, list[str]]) -> Iterator[str]:
    for part in row.parts:
        yield from made[part] if part.startswith("unclip ") else [part]


def _show(root: Path, part: str, figure: Figure) -> Image.Image:
    """A picture at the height of its row, with its frame or note."""
    path, _, box = part.partition("#")
    picture = open_picture(root / path).convert("RGB")
    if box:
        left, top, right, bottom = map(int, box.split(","))
        ImageDraw.Draw(picture).rectangle((left, top, right - 1, bottom - 1), outline="#d00000", width=4)
    side = min(figure.cell, picture.height)
    scale = side / picture.height
    picture = picture.resize((round(picture.width * scale), side), Image.Resampling.LANCZOS)
    # A thin border, as white drawings on a white sheet have no visible edge.
    ImageDraw.Draw(picture).rectangle((0, 0, picture.width - 1, picture.height - 1), outline="#dddddd")
    below = LINE if figure.note else 0
    shown = Image.new("RGB", (picture.width, figure.cell + below), "white")
    shown.paste(picture, (0, figure.cell - side))
    if figure.note and path.startswith(WORK):
        note = figure.note.format(**read_provenance(root / path)["results"])
        _write(ImageDraw.Draw(shown), [note], shown.width // 2, figure.cell)
    return shown


def _write(draw: ImageDraw.ImageDraw, lines: Sequence[str], middle: int, y: int) -> None:
    for number, line in enumerate(lines):
        draw.text(
            (middle, y + number * LINE + LINE // 2), line, fill="#222222", font=_font(FONT_SIZE), anchor="mm"
        )


def _wrapped(text: str, width: int) -> list[str]:
    """Lines of at most `width` pixels, broken between words."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and _font(FONT_SIZE).getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
