"""Plots and tables of docs/evaluation.md, made from a report of `unclip evaluate`.

    unclip evaluate --data data/artwork --judge runs/artwork/judge --ablation all --manipulation all -o report.json
    python docs/plots.py report.json

Only the text between the page's two marks is replaced.
"""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from unclip.images import write_atomically

PAGE = Path(__file__).resolve().parent / "evaluation.md"
BEGIN, END = "<!-- report: python docs/plots.py report.json -->", "<!-- end of report -->"
# Okabe and Ito's colours, which are distinct for all kinds of colour vision.
BLUE, ORANGE, GREEN, GREY = "#0072b2", "#e69f00", "#009e73", "#999999"
MEASURES = {
    "followed": "captions followed ↑",
    "frechet": "Fréchet distance ↓",
    "precision": "precision ↑",
    "recall": "recall ↑",
}
"""Metrics of ablations: their keys and axis titles, with the direction of improvement."""

Report = dict[str, Any]


class Goal(NamedTuple):
    """A row of the table of goals: the metric, its measured value, the goal, and whether it is reached.

    `by` is the margin in the metric's own unit, negative for a missed goal; None for goals without a number.
    """

    what: str
    measured: str
    goal: str
    by: float | None = None
    reached: bool | None = None

    def cells(self) -> list[str]:
        """Cells of the row; "not measured" where the report lacks the metric."""
        if self.reached is None:
            return [self.what, "not measured", self.goal, ""]
        far = "reached" if self.reached else "missed"
        return [
            self.what,
            self.measured,
            self.goal,
            far if self.by is None or self.reached else f"{far} by {-self.by:.2f}",
        ]


def goals(report: Report) -> list[Goal]:
    """All goals of the project, with the model's results."""
    seen = [group["name"] for group in report["config"]["groups"] if group["seen"]]
    followed = report["captions_followed"]
    found = [_share(followed, "captions seen in training", seen, 0.90)]
    found += [
        _share(followed, name, [name], bar)
        for name, bar in (
            ("unseen concept x style", 0.75),
            ("unseen concept x colour", 0.75),
            ("unseen pairs", 0.50),
        )
    ]
    recall = report["retrieval"]["clip"]
    share = recall["image_to_text_recall_1"]
    among = f"{recall['count']:.0f}"
    found.append(_at_least(f"CLIP: a held-out drawing finds its caption among {among}", share, 0.60))
    found += [_full_stack(report), _memorisation(report), *_upsampling(report)]
    spent = report["cost"]
    seconds, what = spent["process_seconds"], f"one {spent['size']} px picture, model loaded"
    found.append(
        Goal(what, f"{seconds:.2f} s of processor time", "at most 4 s", 4.0 - seconds, seconds <= 4.0)
    )
    diffs = report["manipulations"].get("diffs")
    what = "text diffs move the embedding from the source caption to the target caption"
    found.append(
        Goal(what, "", "at least 0.70")
        if diffs is None
        else _at_least(f"{what}, {diffs['embedding']['count']} pairs", diffs["embedding"]["moved"], 0.70)
    )
    return found


def _at_least(what: str, value: float, bar: float) -> Goal:
    return Goal(what, f"{value:.2f}", f"at least {bar:.2f}", value - bar, value >= bar)


def _share(followed: Report, what: str, names: Sequence[str], bar: float) -> Goal:
    """Goal for captions followed in several groups together, as a share of real drawings' results."""
    name = f"{what}: followed, as a share of real drawings"
    rows = [followed[group] for group in names if group in followed]
    real = sum(row["real_share"] * row["count"] for row in rows)
    if not real:
        return Goal(name, "", f"at least {bar:.2f}")
    return _at_least(name, sum(row["share"] * row["count"] for row in rows) / real, bar)


def _full_stack(report: Report) -> Goal:
    what, goal = "the full stack against text embedding and caption alone", "better than both"
    rows = {row["changed"]["prior"]: row for row in report["ablations"].get("priors", [])}
    if not {"none", "text", "diffusion"} <= set(rows):
        return Goal(what, "", goal)
    full, text, none = (rows[name] for name in ("diffusion", "text", "none"))
    measured = "; ".join(
        f"{name} {full[key]:.3f} against {text[key]:.3f} and {none[key]:.3f}"
        for key, name in (("followed", "followed"), ("frechet", "Fréchet"))
    )
    better = all(
        full["followed"] > row["followed"] and full["frechet"] < row["frechet"] for row in (text, none)
    )
    return Goal(what, measured, goal, None, better)


def _memorisation(report: Report) -> Goal:
    """Goal for memorisation: the share of pictures that are far nearer to one training drawing than to all others."""
    what, goal = "copies of training drawings", "no more than among held-out drawings"
    rows = [row for each in report["memorisation"].values() for row in each.values()]
    if not rows:
        return Goal(what, "", goal)
    worst = max(rows, key=lambda row: row["copies"] - row["held_out_copies"])
    measured = f"{worst['copies']:.3f} against {worst['held_out_copies']:.3f}"
    return Goal(what, measured, goal, None, worst["copies"] <= worst["held_out_copies"])


def _upsampling(report: Report) -> Iterator[Goal]:
    found = report["upsampling"]
    for key, name, sign in (
        ("psnr", "PSNR in dB", 1),
        ("perceptual", "distance in the judge's features", -1),
    ):
        what, goal = f"real drawings reduced and upsampled: {name}", "better than bicubic"
        if found is None:
            yield Goal(what, "", goal)
            continue
        ours, theirs = found["upsampler"][key], found["bicubic"][key]
        by = sign * (ours - theirs)
        yield Goal(what, f"{ours:.3f} against {theirs:.3f}", goal, by, by > 0)


def plot_captions(report: Report) -> Figure:
    """Plot of captions followed per group, with real drawings and chance for comparison."""
    figure, (axes,) = _panels(1, width=8.0)
    rows = report["captions_followed"]
    places = range(len(rows))
    axes.barh(
        [place - 0.2 for place in places],
        [row["share"] for row in rows.values()],
        height=0.4,
        xerr=[row["error"] for row in rows.values()],
        color=BLUE,
        label="generated",
    )
    real = [row["real_share"] for row in rows.values()]
    axes.barh([place + 0.2 for place in places], real, height=0.4, color=GREY, label="real drawings")
    for place, row in zip(places, rows.values()):
        axes.plot([row["chance"]] * 2, [place - 0.4, place + 0.4], color="black", linewidth=1)
    axes.set_yticks(list(places), list(rows))
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel("share of captions that the judge picks (black: by chance)")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False)
    return figure


def plot_bars(rows: Sequence[Report]) -> Figure:
    """Bar plot of an ablation of unordered settings, such as the priors."""
    figure, panels = _panels(len(MEASURES))
    names = [str(next(iter(row["changed"].values()))) for row in rows]
    for axes, (key, title) in zip(panels, MEASURES.items()):
        axes.bar(names, [row[key] for row in rows], color=BLUE)
        axes.set_title(title)
        axes.tick_params(axis="x", rotation=30)
    return figure


def plot_sweep(rows: Sequence[Report], setting: str) -> Figure:
    """Line plot of an ablation of one number."""
    figure, panels = _panels(len(MEASURES))
    for axes, (key, title) in zip(panels, MEASURES.items()):
        axes.plot([row["changed"][setting] for row in rows], [row[key] for row in rows], "o-", color=BLUE)
        # The axis begins at 0, as otherwise a difference of one picture looks large.
        low, high = axes.get_ylim()
        axes.set_ylim(min(0, low), 1.1 * max(0, high))
        axes.set_title(title)
        axes.set_xlabel(setting.replace("_", " "))
    return figure


def plot_samplers(rows: Sequence[Report]) -> Figure:
    """Plot of steps by sampler, counted in decoder calls; Heun's method takes two per step."""
    figure, panels = _panels(len(MEASURES))
    for axes, (key, title) in zip(panels, MEASURES.items()):
        for name, colour in zip(
            dict.fromkeys(row["changed"]["sampler"] for row in rows), (BLUE, ORANGE, GREEN)
        ):
            own = [row for row in rows if row["changed"]["sampler"] == name]
            calls = [row["changed"]["steps"] * (2 if name == "heun" else 1) for row in own]
            axes.plot(calls, [row[key] for row in own], "o-", color=colour, label=name)
        axes.set_title(title)
        axes.set_xscale("log")
        axes.set_xticks([5, 10, 20, 50, 100], ["5", "10", "20", "50", "100"])
        axes.minorticks_off()
        axes.set_xlabel("calls of the decoder")
    panels[0].legend(frameon=False)
    return figure


def _panels(count: int, width: float = 12.0) -> tuple[Figure, list[Axes]]:
    figure, panels = pyplot.subplots(1, count, figsize=(width, 3.0), layout="constrained", squeeze=False)
    for axes in panels[0]:
        axes.spines[["top", "right"]].set_visible(False)
    return figure, list(panels[0])


PLOTS: dict[str, Callable[[Sequence[Report]], Figure]] = {
    "priors": plot_bars,
    "guidance": lambda rows: plot_sweep(rows, "guidance"),
    "prior-guidance": lambda rows: plot_sweep(rows, "prior_guidance"),
    "candidates": lambda rows: plot_sweep(rows, "candidates"),
    "samplers": plot_samplers,
}
"""Plots by the name of the ablation."""


def section(report: Report, folder: str = "images/evaluation") -> str:
    """Markdown of a report; its plots are in `folder`."""
    judge = report["judge"]
    by = f"the judge `{judge['name']}` ({judge['digest']}), which takes no part in sampling"
    if not judge["independent"]:
        by = "the model's own CLIP, which flatters the model, as no judge was given"
    counts = ", ".join(f"{count} {name}" for name, count in report["counts"].items())
    parts = [
        f"Model `{report['model']['name']}` ({report['model']['digest']}) at {report['size']} px, judged by {by}. "
        f"Captions: {counts}. Seed {report['config']['seed']}, {report['device']}, {report['dtype']}, torch "
        f"{report['torch']}, unclip {report['unclip']}, code {report['code']}.",
        "## Goals",
        markdown(["metric", "measured", "goal", ""], [goal.cells() for goal in goals(report)]),
        "## Captions followed",
        f"![Captions followed, by group]({folder}/captions.png)",
        markdown(
            ["asked", "captions", "followed", "±", "real drawings", "share of real", "by chance"],
            [_followed(name, row) for name, row in report["captions_followed"].items()],
        ),
    ]
    attributes = [
        _followed(f"{group}: {name}", row)
        for group, each in report["attributes"].items()
        for name, row in each.items()
    ]
    if attributes:
        header = [
            "one attribute at a time",
            "captions",
            "right",
            "±",
            "real drawings",
            "share of real",
            "by chance",
        ]
        parts.append(markdown(header, attributes))
    if named := report.get("naming"):
        header = ["asked", "pictures", "named", "±", "real drawings", "share of real"]
        header += ["among kin", "real drawings", "share of real"]
        parts += [
            "## Named among all things",
            markdown(header, [_named(name, row) for name, row in named.items()]),
        ]
    parts += ["## Retrieval between held-out drawings and their captions", markdown(*_retrieval(report))]
    parts += ["## Distances to held-out drawings", markdown(*_distances(report))]
    parts += ["## Nearest training drawings", markdown(*_memory(report))]
    titles = {
        "priors": "Source of the image embedding",
        "guidance": "Guidance scale of the decoder",
        "prior-guidance": "Guidance scale of the prior",
        "candidates": "Candidates of the prior",
        "samplers": "Steps by sampler",
    }
    for name, rows in report["ablations"].items():
        title = titles.get(name, name)
        parts += [f"## {title}", f"![{title}]({folder}/{name}.png)", markdown(*_ablation(rows))]
    parts += list(_manipulations(report["manipulations"]))
    return "\n\n".join(parts)


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown table with all columns but the first right-aligned."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [list(header), rule, *map(list, rows)])


def _named(name: str, row: Report) -> list[str]:
    ratios = ["" if row[key] is None else f"{row[key]:.2f}" for key in ("of_real", "kin_of_real")]
    shares = [f"{row[key]:.3f}" for key in ("share", "error", "real_share", "kin_share", "kin_real_share")]
    return [name, str(row["count"]), *shares[:3], ratios[0], *shares[3:], ratios[1]]


def _followed(name: str, row: Report) -> list[str]:
    of_real = "" if row["of_real"] is None else f"{row['of_real']:.2f}"
    shares = [f"{row[key]:.3f}" for key in ("share", "error", "real_share")]
    return [name, str(row["count"]), *shares, of_real, f"{row['chance']:.3f}"]


def _retrieval(report: Report) -> tuple[list[str], list[list[str]]]:
    ways = {"image_to_text": "picture to caption", "text_to_image": "caption to picture"}
    names = {"clip": "the model's CLIP", "judge": "the judge"}
    rows = [
        [
            names[name],
            f"{row['count']:.0f}",
            *(f"{row[f'{way}_recall_{k}']:.3f}" for way in ways for k in (1, 5)),
        ]
        for name, row in report["retrieval"].items()
    ]
    return ["encoder", "among", *(f"{way}, at {k}" for way in ways.values() for k in (1, 5))], rows


def _distances(report: Report) -> tuple[list[str], list[list[str]]]:
    keys = ("frechet", "mmd", "precision", "recall", "density", "coverage")
    names = {"generated": "generated", "real": "real drawings (floor)"}
    rows = [
        [names[name], f"{row['count']:.0f}", *(f"{row[key]:.4f}" for key in keys)]
        for name, row in report["distances"].items()
    ]
    return ["set", "pictures", "Fréchet", "MMD", *keys[2:]], rows


def _memory(report: Report) -> tuple[list[str], list[list[str]]]:
    keys = ("median", "held_out_median", "closer", "copies", "held_out_copies")
    rows = [
        [f"{name} captions, by {space}", *(f"{row[key]:.3f}" for key in keys)]
        for name, each in report["memorisation"].items()
        for space, row in each.items()
    ]
    header = [
        "pictures",
        "median distance",
        "held-out drawings'",
        "nearer than 95 % of those",
        "copies",
        "held-out copies",
    ]
    return header, rows


def _ablation(rows: Sequence[Report]) -> tuple[list[str], list[list[str]]]:
    keys = ("followed", "frechet", "mmd", "precision", "recall")
    cells = [
        [
            ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in row["changed"].items()),
            *(f"{row[key]:.4f}" if key == "mmd" else f"{row[key]:.3f}" for key in keys),
            "" if row["seconds"] is None else f"{row['seconds']:.2f}",
        ]
        for row in rows
    ]
    return ["setting", "followed", "Fréchet", "MMD", "precision", "recall", "s a picture"], cells


def _manipulations(found: Report) -> Iterator[str]:
    if "reconstructions" in found:
        rows = [
            [f"{row['steps']}", f"{row['psnr']:.1f}", f"{row['least']:.1f}", f"{row['good']:.2f}"]
            for row in found["reconstructions"]["by_steps"]
        ]
        yield "## Reconstructions"
        yield markdown(["steps each way", "median PSNR, dB", "least", "share of 25 dB and more"], rows)
        equal = [name for name, same in found["reconstructions"]["equal"].items() if same]
        yield f"Bit-identical to the reconstruction: {', '.join(equal) or 'nothing'}."
    if "diffs" in found:
        keys = ("started", "arrived", "moved", "moved_of_two")
        rows = [[name, *(f"{row[key]:.2f}" for key in keys)] for name, row in found["diffs"].items()]
        yield "## Text diffs"
        header = [
            "of the",
            "nearest at the start: source",
            "at the end: target",
            "both",
            "both, of these two captions",
        ]
        yield markdown(header, rows)
    if "edits" in found:
        keys = ("followed", "real_followed", "preferred", "preferred_before", "kept")
        header = [
            "drawings",
            "region followed",
            "real drawings' region",
            "new caption over old",
            "before",
            "all else kept",
        ]
        yield "## Edits"
        yield markdown(
            header, [[str(found["edits"]["count"]), *(f"{found['edits'][key]:.2f}" for key in keys)]]
        )


def write(report: Report, page: Path = PAGE) -> list[Path]:
    """Paths of the plots beside the page, and of the page with its new section. Raises `ValueError` without the marks."""
    before, begun, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not begun or not ended:
        raise ValueError(f"{page} lacks the mark {END if begun else BEGIN}")
    folder = page.parent / "images" / "evaluation"
    folder.mkdir(parents=True, exist_ok=True)
    plots = {"captions": plot_captions(report)}
    plots |= {name: PLOTS[name](rows) for name, rows in report["ablations"].items()}
    files = []
    for name, figure in plots.items():
        files.append(folder / f"{name}.png")
        figure.savefig(files[-1], dpi=110, metadata={"Software": None})
        pyplot.close(figure)
    text = f"{before}{BEGIN}\n\n{section(report)}\n\n{END}{after}"
    return [*files, write_atomically(page, text.encode(), force=True)]


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python docs/plots.py report.json")
    for path in write(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))):
        sys.stdout.write(f"{path}\n")
