"""Tables of what `gpu.py` measured."""

from collections.abc import Sequence
from typing import Any


def described(entry: dict[str, Any]) -> str:
    """A row in words, while others are measured."""
    name = ", ".join(str(entry[key]) for key in ("part", "what", "how", "batch") if entry[key])
    if entry["status"] != "done":
        return f"{name}: {entry['status']}, {entry['why']}"
    unit = "samples" if entry["part"] == "training" else "pictures"
    return f"{name}: {entry['rate']:.4g} {unit}/s, {entry['share']:.1%} of the peak"


def table(result: dict[str, Any]) -> str:
    """The JSON as Markdown: a table of pictures, one of training, and what is missing."""
    side = result["matrix"]
    parts = [
        f"{result['device']}, torch {result['torch']}, {result['date']}. A product of {side} x {side} matrices in "
        f"{result['dtype']}: {result['peak']:.3g} TFLOP/s."
    ]
    done = [row for row in result["rows"] if row["status"] == "done"]
    pictures = [
        {
            "model": row["part"],
            "by": row["what"],
            "how": row["how"],
            "batch": row["batch"],
            "s a picture": f"{row['each']:.4f}",
            "pictures/s": f"{row['rate']:.2f}",
            "TFLOP a picture": f"{row['teraflop']:.3g}",
            **_common(row),
        }
        for row in done
        if row["part"] != "training"
    ]
    training = [
        {
            "stage": row["what"],
            "how": row["how"],
            "batch": row["batch"],
            "samples/s": f"{row['rate']:,.0f}",
            "GFLOP a sample": f"{1000 * row['teraflop']:.2f}",
            **_common(row),
        }
        for row in done
        if row["part"] == "training"
    ]
    parts += [_markdown(rows) for rows in (pictures, training) if rows]
    missing = [f"- {described(row)}" for row in result["rows"] if row["status"] != "done"]
    return "\n\n".join([*parts, *(["\n".join(missing)] if missing else [])])


def _common(row: dict[str, Any]) -> dict[str, str]:
    memory = {"peak MiB": row.get("peak_mib"), "reserved MiB": row.get("reserved_mib")}
    return {
        "share of peak": f"{row['share']:.1%}",
        **{name: "" if value is None else f"{value:,.0f}" for name, value in memory.items()},
        "first s": f"{row['first']:.1f}",
    }


def _markdown(rows: Sequence[dict[str, object]]) -> str:
    lines = [f"| {' | '.join(map(str, row.values()))} |" for row in rows]
    return "\n".join([f"| {' | '.join(rows[0])} |", "|" + "---|" * len(rows[0]), *lines])
