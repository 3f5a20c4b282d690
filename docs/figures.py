"""The figures of docs/figures.md: commands, run as the page shows them, and sheets of their pictures.

    python docs/figures.py                # the page, and the figures that are missing or were made otherwise
    python docs/figures.py diffs edits    # these figures
    python docs/figures.py --force        # all figures

Single pictures stay in out/figures/, so that an interrupted call can be continued.
"""

import argparse
import os
import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path

from sheets import SHEETS, WORK, Figure, Row, Workshop

import unclip
from unclip.images import write_atomically

ROOT = Path(__file__).resolve().parent.parent
PAGE, INPUTS, CAPTIONS = "docs/figures.md", "docs/images/inputs", "docs/captions.txt"


def figures(model: unclip.Model) -> list[Figure]:
    """All figures; the basis of principal components is the autoregressive prior's, if the model has one."""
    captions = (ROOT / CAPTIONS).read_text(encoding="utf-8").splitlines()
    own_basis = "prior_autoregressive" in model.parts.names
    basis = "" if own_basis else f" --basis {WORK}/components/basis"
    # 80 pictures have 79 principal components.
    most = model.parts.config("prior_autoregressive").dimensions if own_basis else 79
    dimensions = [*(count for count in (1, 2, 5, 10, 20, 40) if count < most), most]
    priors = {
        "caption alone": "--prior none",
        "text embedding": "--prior text",
        "diffusion prior": "--prior diffusion",
    }
    if own_basis:
        priors["autoregressive"] = "--prior autoregressive --candidates 1"
    return [
        Figure(
            name="samples",
            title="Random samples",
            says="Eight pictures of each caption, with the seeds that `--seed 1` gives; none is selected. Pictures in a row differ "
            "in what the caption leaves open.",
            rows=tuple(
                Row(caption, (f'unclip generate "{caption}" -n 8 --seed 1 -o {WORK}/samples/',))
                for caption in captions
            ),
            cell=112,
        ),
        Figure(
            name="reconstructions",
            title="Reconstructions",
            says="A drawing that is not in the training set, inverted to (z_i, x_T) and decoded by DDIM (section 3). More steps "
            "reconstruct it better; the PSNR is at the decoder's 64 px.",
            columns=("original", "5 steps", "10 steps", "25 steps", "50 steps"),
            rows=tuple(
                Row(
                    name,
                    (
                        f"{INPUTS}/{name}.png",
                        *(
                            f"unclip reconstruct {INPUTS}/{name}.png --steps {steps} --seed 1 -o {WORK}/reconstructions/{name}-{steps}.png"
                            for steps in (5, 10, 25, 50)
                        ),
                    ),
                )
                for name in ("apple", "face", "fox")
            ),
            note="{psnr:.1f} dB",
        ),
        Figure(
            name="components",
            title="Reconstructions from the first principal components",
            says="Pictures decoded from the first components of z_i with the same noise (section 4, figure 7). The kind of object "
            "appears with few components, details with more. "
            + (
                "The components are those of the autoregressive prior, computed on the training set."
                if own_basis
                else "The components are those of 80 pictures that the model generated from a list of captions."
            ),
            columns=("original", *map(str, dimensions)),
            rows=tuple(
                Row(
                    name,
                    (
                        f"{INPUTS}/{name}.png",
                        f"unclip components {INPUTS}/{name}.png {','.join(map(str, dimensions))}{basis} --seed 1 -o {WORK}/components/",
                    ),
                )
                for name in ("apple", "face", "car")
            ),
            before=()
            if own_basis
            else (
                f"unclip generate --prompts docs/basis.txt --size 64 --seed 1 -o {WORK}/components/basis/",
            ),
        ),
        Figure(
            name="variations",
            title="Variations",
            says="Pictures from z_i alone, each with other noise (section 3.1): what CLIP encodes of the drawing stays, the rest "
            "varies.",
            columns=("original",),
            rows=tuple(
                Row(
                    name,
                    (
                        f"{INPUTS}/{name}.png",
                        f"unclip vary {INPUTS}/{name}.png -n 6 --seed 1 -o {WORK}/variations/",
                    ),
                )
                for name in ("apple", "cat", "car", "tree")
            ),
        ),
        Figure(
            name="eta",
            title="From the reconstruction to variations",
            says="Variations from (z_i, x_T) by DDIM with noise: eta 0 is the reconstruction, and larger values keep less of "
            "x_T. All rows have the same seeds.",
            columns=("original",),
            rows=tuple(
                Row(
                    f"eta {eta:g}",
                    (
                        f"{INPUTS}/fox.png",
                        f"unclip vary {INPUTS}/fox.png --eta {eta:g} -n 5 --seed 1 -o {WORK}/eta/{eta:g}/",
                    ),
                )
                for eta in (0, 0.25, 0.5, 0.75, 1)
            ),
            cell=112,
        ),
        Figure(
            name="interpolations",
            title="Interpolations",
            says="From one drawing to another along the arc between their embeddings (section 3.2). With `inverted` noise x_T is "
            "interpolated as well, so that the ends are the reconstructions; with `fixed` noise only z_i changes.",
            columns=("from", *(f"{k / 6:.2f}" for k in range(7)), "to"),
            rows=tuple(
                Row(
                    f"{noise}",
                    (
                        f"{INPUTS}/{a}.png",
                        f"unclip interpolate {INPUTS}/{a}.png {INPUTS}/{b}.png -n 7 --noise {noise} --seed 1 -o {WORK}/interpolations/{noise}/",
                        f"{INPUTS}/{b}.png",
                    ),
                )
                for a, b in (("apple", "face"), ("car", "cat"))
                for noise in ("inverted", "fixed")
            ),
            cell=96,
        ),
        Figure(
            name="diffs",
            title="Text diffs",
            says="z_i turned towards the difference of two captions, with theta from 0 (the reconstruction) to 0.5 and x_T kept "
            "(section 3.3). The captions are in the commands.",
            columns=("original", *(f"theta {theta:g}" for theta in (0, 0.1, 0.2, 0.3, 0.4, 0.5))),
            rows=tuple(
                Row(
                    label,
                    (
                        f"{INPUTS}/{name}.png",
                        f'unclip text-diff {INPUTS}/{name}.png "{target}" --baseline "{source}" -n 6 --seed 1 -o {WORK}/diffs/',
                    ),
                )
                for label, name, source, target in (
                    ("red to green", "apple", "a red apple, noto style", "a green apple, noto style"),
                    ("fox to cat", "fox", "a fox, flat style", "a cat face, flat style"),
                    ("noto to 3d", "tree", "a tree, noto style", "a tree, 3d style"),
                    (
                        "smile to tears",
                        "face",
                        "a smiling face, noto style",
                        "a loudly crying face, noto style",
                    ),
                )
            ),
            cell=112,
        ),
        Figure(
            name="priors",
            title="Source of the image embedding",
            says="The decoder given the caption alone, the text embedding in place of the image embedding, or the prior's image "
            "embedding (section 5.1, figure 8), with the same captions and seeds.",
            columns=tuple(captions),
            rows=tuple(
                Row(
                    label,
                    (
                        f"unclip generate --prompts {CAPTIONS} {given} --seed 2 -o {WORK}/priors/{label.replace(' ', '-')}/",
                    ),
                )
                for label, given in priors.items()
            ),
        ),
        Figure(
            name="guidance",
            title="Guidance scale of the decoder",
            says="The same captions and seeds with increasing classifier-free guidance; 1 is off. Section 5.3 compares fidelity "
            "and diversity.",
            columns=tuple(captions),
            rows=tuple(
                Row(
                    f"{scale:g}",
                    (
                        f"unclip generate --prompts {CAPTIONS} --guidance {scale:g} --seed 2 -o {WORK}/guidance/{scale:g}/",
                    ),
                )
                for scale in (1, 1.5, 2.5, 4, 8)
            ),
        ),
        Figure(
            name="edits",
            title="Inpainting",
            says="The content of the frame is drawn so that the whole picture shows the caption; all other pixels are unchanged "
            "(GLIDE, section 2.4).",
            columns=("original",),
            rows=tuple(
                Row(
                    caption,
                    (
                        f"{INPUTS}/{name}.png#{box}",
                        f'unclip edit {INPUTS}/{name}.png "{caption}" --box {box} -n 5 --seed 1 -o {WORK}/edits/{name}/',
                    ),
                )
                for name, box, caption in (
                    ("face", "16,56,240,150", "a smiling face with sunglasses, noto style"),
                    ("car", "0,0,256,150", "a red truck, flat style"),
                    ("tree", "0,0,256,190", "a palm tree, noto style"),
                )
            ),
        ),
        Figure(
            name="outpainting",
            title="Outpainting",
            says="A drawing continued beyond its sides, in squares that overlap what is already drawn.",
            rows=(
                *(
                    Row(
                        label,
                        (
                            f"{INPUTS}/{name}.png",
                            f"unclip outpaint {INPUTS}/{name}.png {asked} --seed 1 -o {WORK}/outpainting/{name}.png",
                        ),
                    )
                    for label, name, asked in (
                        (
                            "with a caption",
                            "apple",
                            '"a red apple to the left of a green apple, noto style" --right 256',
                        ),
                        ("more of the same", "tree", "--left 128 --right 128"),
                    )
                ),
            ),
        ),
    ]


def page(listed: Sequence[Figure]) -> str:
    """Text of docs/figures.md: every figure with its description and commands."""
    parts = [
        "# Figures\n\n"
        "The figures of the paper (arXiv 2204.06125), made with the bundled model. `make figures` makes all of them, `make\n"
        "figures FIGURE=diffs` one. Each sheet was made by the commands below it, run in the folder of the repository; no\n"
        "picture is selected. The input drawings are not in the model's training set ([NOTICE](../NOTICE) credits them).\n"
        "`docs/figures.py` writes this page."
    ]
    for figure in listed:
        commands = "\n".join(f"    {command}" for command in figure.commands)
        picture = f"![{figure.title}]({SHEETS.removeprefix('docs/')}/{figure.name}.webp)"
        says = textwrap.fill(figure.says, 120)
        parts.append(f"## {figure.title}\n\n{says}\n\n{picture}\n\n{commands}")
    return "\n\n".join(parts) + "\n"


def main(argv: Sequence[str] | None = None) -> None:
    """Make the named figures, and the page."""
    parser = argparse.ArgumentParser(description="Make the figures of docs/figures.md.")
    parser.add_argument(
        "names", nargs="*", metavar="FIGURE", help="figures to make (default: those that are not up to date)"
    )
    parser.add_argument("--force", action="store_true", help="make figures that are up to date, too")
    parser.add_argument("--page", action="store_true", help="write the page only")
    parser.add_argument("--model", default="artwork", help="model to use (default: artwork)")
    parser.add_argument("--steps", type=int, metavar="N", help="decoder steps, for a quick preview")
    arguments = parser.parse_args(argv)
    workshop = Workshop(ROOT, arguments.model, arguments.steps)
    listed = {figure.name: figure for figure in figures(workshop.model)}
    if unknown := [name for name in arguments.names if name not in listed]:
        parser.error(f"there is no figure {unknown[0]!r}; choose from {', '.join(listed)}")
    write_atomically(ROOT / PAGE, page(list(listed.values())).encode(), force=True)
    for name in () if arguments.page else arguments.names or listed:
        if workshop.is_current(listed[name]) and not arguments.force:
            continue
        started, busy = time.monotonic(), time.process_time()
        file = workshop.make(listed[name], force=arguments.force)
        took = f"{time.monotonic() - started:.0f} s ({time.process_time() - busy:.0f} s of processor)"
        sys.stdout.write(f"{os.path.relpath(file)}  {file.stat().st_size / 1000:.0f} kB, {took}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
