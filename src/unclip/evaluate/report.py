"""Report of an evaluation: one JSON-able dictionary, and the same as a table of text."""

import hashlib
import importlib.metadata
import importlib.resources
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch

from unclip.config import to_dict
from unclip.evaluate.ablations import ABLATIONS, compare
from unclip.evaluate.estimate import cost
from unclip.evaluate.evaluation import Evaluation
from unclip.evaluate.manipulations import GOOD, MANIPULATIONS
from unclip.evaluate.metrics import (
    attributes_by_group,
    followed_by_group,
    held_out_retrieval,
    memorisation_by_set,
    set_distances,
    upsampling_quality,
)
from unclip.evaluate.naming import named_by_group

FORMAT = 2
"""Format 1, of version 0.1, had `weights` for `digest`, and flat `settings` for `sampling`."""


def evaluate(
    evaluation: Evaluation, ablations: Sequence[str] = (), manipulations: Sequence[str] = ()
) -> dict[str, Any]:
    """Report of all metrics, with what is needed to repeat them: digests, data, counts, seeds and versions."""
    # First, as it is quick and fails on unsuitable data.
    enlarged = upsampling_quality(evaluation)
    drawn = evaluation.draw()
    found: dict[str, Any] = {
        "format": FORMAT,
        **_provenance(evaluation),
        "captions_followed": {k: asdict(v) for k, v in followed_by_group(evaluation, drawn).items()},
        "attributes": {
            group: {name: asdict(value) for name, value in each.items()}
            for group, each in attributes_by_group(evaluation, drawn).items()
        },
        "naming": {group: asdict(value) for group, value in named_by_group(evaluation, drawn).items()},
        "distances": set_distances(evaluation, drawn),
        "retrieval": {"clip": held_out_retrieval(evaluation, evaluation.clip)},
        "memorisation": memorisation_by_set(evaluation, drawn),
        "upsampling": enlarged,
        "seconds_a_picture": drawn.seconds,
        "cost": asdict(cost(evaluation.model, _prompts(evaluation))),
    }
    if evaluation.independent:
        found["retrieval"]["judge"] = held_out_retrieval(evaluation, evaluation.judge)
    few = evaluation.smaller(evaluation.config.ablation_count)
    found["ablations"] = {
        name: [asdict(row) for row in compare(few, ABLATIONS[name](evaluation.model))] for name in ablations
    }
    found["manipulations"] = {name: MANIPULATIONS[name](evaluation) for name in manipulations}
    return found


def _prompts(evaluation: Evaluation) -> list[str]:
    """Three captions whose pictures are timed."""
    return [question.caption for question in evaluation.asked[0].questions.asked[:3]]


def _provenance(evaluation: Evaluation) -> dict[str, Any]:
    model, judge = evaluation.model, evaluation.judge
    return {
        "model": {"name": model.name, "digest": model.digest, "sampling": to_dict(model.defaults)},
        "judge": {"name": judge.name, "digest": judge.digest, "independent": evaluation.independent},
        "config": {**to_dict(evaluation.config), "data": None},
        "data": dict(evaluation.splits.fingerprints),
        "size": evaluation.size,
        "counts": {one.group.name: len(one.questions.asked) for one in evaluation.asked},
        "device": model.parts.device.type,
        "dtype": model.parts.number_type,
        "unclip": importlib.metadata.version("unclip"),
        "code": code_version(),
        "torch": torch.__version__,
    }


def code_version() -> str:
    """Twelve hexadecimal digits that change with the code of this package, as metrics may."""
    files = importlib.resources.files("unclip.evaluate").iterdir()
    sources = sorted((file.name, file.read_bytes()) for file in files if file.name.endswith(".py"))
    return hashlib.sha256(
        b"\0".join(part for name, text in sources for part in (name.encode(), text))
    ).hexdigest()[:12]


def table(report: dict[str, Any]) -> str:
    """Table of a report: shares in per cent, real drawings beside generated ones."""
    judge = report["judge"]
    note = "" if judge["independent"] else "  (the model's own CLIP: not independent, these figures flatter)"
    lines = [
        f"{report['model']['name']} ({report['model']['digest']}), {report['size']} px",
        f"judge: {judge['name']} ({judge['digest']}){note}",
    ]
    rows = [_followed(name, row) for name, row in report["captions_followed"].items()]
    header = ["asked", "generated", "+-", "real", "of real", "chance"]
    lines += _block("captions followed, %", header, rows)
    rows = [
        _followed(f"{group}: {name}", row)
        for group, each in report["attributes"].items()
        for name, row in each.items()
    ]
    lines += _block("one attribute at a time, %", header, rows)
    rows = [
        [name, row["count"], *(_percent(row[key]) for key in ("share", "error", "real_share")), _ratio(row["of_real"]),
         _percent(row["kin_share"]), _percent(row["kin_real_share"]), _ratio(row["kin_of_real"])]
        for name, row in report.get("naming", {}).items()
    ]  # fmt: skip
    header = ["asked", "generated", "+-", "real", "of real", "among kin", "real", "of real"]
    lines += _block("named among all things, %", header, rows)
    rows = [
        [name, int(row["count"]), f"{row['frechet']:.4f}", f"{1000 * row['mmd']:.2f}",
         *(f"{row[key]:.3f}" for key in ("precision", "recall", "density", "coverage"))]
        for name, row in report["distances"].items()
    ]  # fmt: skip
    header = ["pictures", "Fréchet", "MMD x1000", "precision", "recall", "density", "coverage"]
    lines += _block("against held-out drawings", header, rows)
    keys = (
        "image_to_text_recall_1",
        "image_to_text_recall_5",
        "text_to_image_recall_1",
        "text_to_image_recall_5",
    )
    rows = [
        [name, int(row["count"]), *(_percent(row[key]) for key in keys)]
        for name, row in report["retrieval"].items()
    ]
    header = ["among", "image->text @1", "@5", "text->image @1", "@5"]
    lines += _block("held-out retrieval, %", header, rows)
    rows = [
        [f"{name}, {space}", f"{row['median']:.3f}", f"{row['held_out_median']:.3f}", _percent(row["closer"]),
         _percent(row["copies"]), _percent(row["held_out_copies"])]
        for name, each in report["memorisation"].items()
        for space, row in each.items()
    ]  # fmt: skip
    header = ["median", "held-out", "closer %", "copies %", "held-out %"]
    lines += _block("nearest training drawing", header, rows)
    if (found := report["upsampling"]) is not None:
        rows = [
            [name, f"{found[name]['psnr']:.2f}", f"{found[name]['perceptual']:.4f}"]
            for name in ("upsampler", "bicubic")
        ]
        lines += _block(
            f"{found['count']} drawings reduced and enlarged again", ["PSNR, dB", "perceptual"], rows
        )
    spent = report["cost"]
    row = [f"{spent['size']} px", f"{spent['seconds']:.2f}", f"{spent['process_seconds']:.2f}"]
    lines += _block("one picture alone", ["seconds", "processor s"], [row])
    for name, each in report["ablations"].items():
        rows = [
            [", ".join(f"{knob} {value}" for knob, value in row["changed"].items()), _percent(row["followed"]),
             f"{row['frechet']:.4f}", f"{1000 * row['mmd']:.2f}", f"{row['precision']:.3f}", f"{row['recall']:.3f}",
             "-" if row["seconds"] is None else f"{row['seconds']:.2f}"]
            for row in each
        ]  # fmt: skip
        header = ["followed %", "Fréchet", "MMD x1000", "precision", "recall", "s a picture"]
        lines += _block(name, header, rows)
    return "\n".join([*lines, *_manipulations(report["manipulations"])])


def _manipulations(found: dict[str, Any]) -> list[str]:
    lines = []
    if "reconstructions" in found:
        rows = [
            [f"{row['steps']} steps", f"{row['psnr']:.1f}", f"{row['least']:.1f}", _percent(row["good"])]
            for row in found["reconstructions"]["by_steps"]
        ]
        lines += _block("reconstructions", ["median PSNR, dB", "least", f"of {GOOD:g} dB, %"], rows)
        rows = [[name, "yes" if equal else "NO"] for name, equal in found["reconstructions"]["equal"].items()]
        lines += _block("the same as the reconstruction", [""], rows)
    if "diffs" in found:
        keys = ("started", "arrived", "moved", "moved_of_two")
        rows = [
            [name, row["count"], *(_percent(row[key]) for key in keys)]
            for name, row in found["diffs"].items()
        ]
        header = ["asked", "at the source", "then at the target", "both", "of these two"]
        lines += _block("text diffs: nearest caption, %", header, rows)
    if "edits" in found:
        keys = ("followed", "real_followed", "preferred", "preferred_before", "kept")
        row = [_percent(found["edits"][key]) for key in keys]
        header = ["followed", "real", "new over old", "before", "all else kept"]
        lines += _block("edited regions, %", header, [[f"{found['edits']['count']} drawings", *row]])
    return lines


def _followed(name: str, row: dict[str, Any]) -> list[object]:
    shares = [_percent(row[key]) for key in ("share", "error", "real_share")]
    return [name, row["count"], *shares, _ratio(row["of_real"]), _percent(row["chance"])]


def _ratio(ratio: float | None) -> str:
    return "-" if ratio is None else _percent(ratio)


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _block(title: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """Lines of a titled table, the first column left-aligned, the others right-aligned; none without rows."""
    if not rows:
        return []
    cells = [[title, *header], *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))])
        for row in cells
    ]
    return ["", *(line.rstrip() for line in lines)]
