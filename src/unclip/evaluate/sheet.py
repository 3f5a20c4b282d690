"""A sheet for naming by eye: drawn pictures and real drawings, shuffled and numbered, with the key in a file of its own.

A judge network can be flattered; a person who names what he sees, without the captions, cannot.
"""

import csv
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image, ImageDraw, ImageFont

from unclip.data.sample import Sample
from unclip.datasets.artwork.everyday import is_everyday
from unclip.evaluate.config import EvaluationConfig, SheetConfig
from unclip.evaluate.pictures import draw_pictures
from unclip.evaluate.splits import Splits
from unclip.generate.model import Model
from unclip.images import from_uint8, grid, resize, to_image, write_atomically
from unclip.rng import derive

COLUMNS, ROWS = 6, 4
SIDE, MARGIN = 160, 24
"""Pixels of a picture on the sheet, and of the strip above it that has its number."""


class Entry(NamedTuple):
    """A picture of the sheet: "everyday", "other" or "real", with the drawing that it is of or was asked by."""

    kind: str
    row: int
    sample: Sample


def entries(samples: Sequence[Sample], counts: SheetConfig, seed: int) -> list[Entry]:
    """The pictures of a sheet, shuffled: each of another thing, as far as there are things enough.

    Real drawings are of everyday and other things in the proportion of the drawn ones.
    """
    plain = [row for row, sample in enumerate(samples) if sample.meta.get("kind", "plain") == "plain"]
    plain.sort(key=lambda row: derive(seed, "sheet", samples[row].key))
    things: dict[str, int] = {}
    for row in plain:
        things.setdefault(_thing(samples[row]), row)
    everyday = [row for row in things.values() if is_everyday(samples[row].meta)]
    others = [row for row in things.values() if not is_everyday(samples[row].meta)]
    drawn_everyday, drawn_others = everyday[: counts.everyday], others[: counts.others]
    share = counts.everyday / (counts.everyday + counts.others)
    left_everyday, left_others = everyday[counts.everyday :], others[counts.others :]
    real = left_everyday[: round(share * counts.real)]
    real += left_others[: counts.real - len(real)]
    found = [
        Entry(kind, row, samples[row])
        for kind, rows in (("everyday", drawn_everyday), ("other", drawn_others), ("real", real))
        for row in rows
    ]
    return sorted(found, key=lambda entry: derive(seed, "shuffle", entry.sample.key))


def write_sheet(
    model: Model,
    config: EvaluationConfig,
    folder: Path,
    *,
    pictures: Path | None = None,
    cache: Path | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> list[Path]:
    """The files of a sheet in `folder`: numbered pages, `answers.csv` to fill in, and `key.json`, not to be looked at before.

    Pictures are drawn with the model's default sampling, one fixed seed each, at the decoder's size, and shown like the real
    drawings. Raises `FileExistsError` where the folder has a sheet, before anything is drawn.
    """
    for name in ("key.json", "answers.csv"):
        if (folder / name).exists():
            raise FileExistsError(f"{folder / name} exists: name another folder for the sheet")
    size = model.sizes[0]
    split = Splits(config.data, size, cache, bad_share=config.bad_share)[config.train]
    chosen = entries(split.samples, config.sheet, config.seed)
    asked = [entry for entry in chosen if entry.kind != "real"]
    if not asked:
        raise ValueError(f"{config.data}, {config.train}: there are no plain drawings to ask for")
    pairs = [(entry.sample.captions[0], _seed(config.seed, entry.sample)) for entry in asked]
    drawn = draw_pictures(
        model,
        pairs,
        model.defaults,
        folder=pictures,
        batch=config.batch,
        report=lambda done, of: report(f"drawing: {done} of {of} pictures"),
    )
    made = iter(drawn.pixels)
    shown = [
        to_image(from_uint8(split.pictures([entry.row])[0] if entry.kind == "real" else next(made)))
        for entry in chosen
    ]
    files = _pages(shown, folder)
    key = [_of_key(number, entry, config.seed) for number, entry in enumerate(chosen, 1)]
    files.append(write_atomically(folder / "answers.csv", _form(len(chosen)).encode()))
    text = json.dumps({"model": model.name, "digest": model.digest, "pictures": key}, indent=1)
    files.append(write_atomically(folder / "key.json", (text + "\n").encode()))
    return files


def _thing(sample: Sample) -> str:
    return str(sample.meta.get("noun", sample.captions[0]))


def _seed(seed: int, sample: Sample) -> int:
    return derive(seed, "sheet picture", sample.key) & 0xFFFFFFFF


def _of_key(number: int, entry: Entry, seed: int) -> dict[str, Any]:
    found = {"number": number, "kind": entry.kind, "thing": _thing(entry.sample)}
    caption = {"caption": entry.sample.captions[0]}
    return found | caption | ({} if entry.kind == "real" else {"seed": _seed(seed, entry.sample)})


def _form(count: int) -> str:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["number", "name"])
    rows.writerows([number, ""] for number in range(1, count + 1))
    return text.getvalue()


def _pages(shown: Sequence[Image.Image], folder: Path) -> list[Path]:
    cells, files = [_cell(number, picture) for number, picture in enumerate(shown, 1)], []
    for page, start in enumerate(range(0, len(cells), COLUMNS * ROWS), 1):
        data = io.BytesIO()
        grid(cells[start : start + COLUMNS * ROWS], COLUMNS, gap=12).save(data, "PNG")
        files.append(write_atomically(folder / f"page-{page}.png", data.getvalue(), force=True))
    return files


def _cell(number: int, picture: Image.Image) -> Image.Image:
    cell = Image.new("RGB", (SIDE, SIDE + MARGIN), "white")
    cell.paste(resize(picture, SIDE), (0, MARGIN))
    ImageDraw.Draw(cell).text((2, 4), str(number), fill="black", font=ImageFont.load_default(16))
    return cell
