"""The figures of docs/figures.md. Each is some commands, run as the page shows them, and a sheet of what they drew.

    python docs/figures.py                # makes what is missing or was made by other weights or commands, and the page
    python docs/figures.py diffs edits    # only these figures
    python docs/figures.py --force        # all of them, anew

Single pictures stay in out/figures/, so that a stopped call goes on where it was.
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


def figures(model: unclip.System) -> list[Figure]:
    """All figures; the basis of principal components is the model's own where it has one."""
    captions = (ROOT / CAPTIONS).read_text(encoding="utf-8").splitlines()
    own_basis = "prior_autoregressive" in model.parts
    basis = "" if own_basis else f" --basis {WORK}/components/basis"
    # 80 pictures span 79.
    most = model.prior_autoregressive.config.dimensions if own_basis else 79
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
            says="Eight pictures of each caption, with the seeds that `--seed 1` gives: nothing is picked. What differs within a "
            "row is what the caption leaves open.",
            rows=tuple(
                Row(caption, (f'unclip generate "{caption}" -n 8 --seed 1 -o {WORK}/samples/',))
                for caption in captions
            ),
            cell=112,
        ),
        Figure(
            name="reconstructions",
            title="Reconstructions",
            says="A drawing that the model never saw, inverted to (z_i, x_T) and drawn again by DDIM (section 3). More steps bring "
            "it nearer; the PSNR is at the decoder's 64 px.",
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
            says="The picture that the first components of z_i hold, from one and the same noise (section 4, figure 7): what kind of "
            "thing it is comes first, what sets it apart last. "
            + (
                "The components are those of the training set."
                if own_basis
                else "The components are those of 80 pictures that the model drew of a list of captions."
            ),
            columns=("original", *map(str, dimensions)),
            rows=tuple(
                Row(
                    name,
                    (
                        f"{INPUTS}/{name}.png",
                        f"unclip reconstruct {INPUTS}/{name}.png --dimensions {','.join(map(str, dimensions))}{basis} --seed 1 -o {WORK}/components/",
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
            says="Pictures from z_i alone, each from other noise (section 3.1): what CLIP sees in the drawing stays, what it does not "
            "see varies.",
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
            title="From the same picture to variations of it",
            says="Variations from (z_i, x_T) by DDIM with noise: eta 0 is the reconstruction, and each step to 1 keeps less of what x_T "
            "says. All rows have the same seeds.",
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
            says="From one drawing to another along the arc between their embeddings (section 3.2). With `inverted` noise x_T goes "
            "along its own arc, so that the ends are the reconstructions; with `fixed` noise only the meaning changes.",
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
            says="z_i turned towards the difference of two captions, theta from 0 (the reconstruction) to 0.5, x_T kept (section 3.3). "
            "The captions are those of the commands.",
            columns=("original", *(f"theta {theta:g}" for theta in (0, 0.1, 0.2, 0.3, 0.4, 0.5))),
            rows=tuple(
                Row(
                    label,
                    (
                        f"{INPUTS}/{name}.png",
                        f'unclip diff {INPUTS}/{name}.png "{target}" --source "{source}" -n 6 --seed 1 -o {WORK}/diffs/',
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
            title="Is the prior worth it?",
            says="The decoder given the caption alone, the text embedding as if it were an image embedding, and what the prior makes of "
            "it (section 5.1, figure 8), with the same captions and seeds.",
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
            title="Guidance of the decoder",
            says="The same captions and seeds with more and more guidance: 1 is none. Section 5.3 asks what is gained in likeness "
            "and lost in variety.",
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
            title="Edits",
            says="What is within the frame is drawn anew so that the whole shows the caption; every other pixel is kept to the bit "
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
            says="A drawing continued beyond its sides, in squares that each see what is there already.",
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
    """docs/figures.md: every figure with what it shows and the commands that made it."""
    parts = [
        "# Figures\n\n"
        "The figures of the paper (arXiv 2204.06125), made with the bundled model. `make figures` makes them all, `make figures\n"
        "FIGURE=diffs` one. Each sheet was made by the commands below it, run as they stand here in the folder of the repository;\n"
        "nothing is picked. The drawings that are given to the model are not from its training set ([NOTICE](../NOTICE) credits\n"
        "them). This page is written by `docs/figures.py`."
    ]
    for figure in listed:
        commands = "\n".join(f"    {command}" for command in figure.commands)
        picture = f"![{figure.title}]({SHEETS.removeprefix('docs/')}/{figure.name}.webp)"
        says = textwrap.fill(figure.says, 120)
        parts.append(f"## {figure.title}\n\n{says}\n\n{picture}\n\n{commands}")
    return "\n\n".join(parts) + "\n"


def main(argv: Sequence[str] | None = None) -> None:
    """Make the figures that are asked for, and the page of all."""
    parser = argparse.ArgumentParser(description="Make the figures of docs/figures.md.")
    parser.add_argument(
        "names", nargs="*", metavar="FIGURE", help="which (default: all that are not up to date)"
    )
    parser.add_argument("--force", action="store_true", help="make them even if they are up to date")
    parser.add_argument("--page", action="store_true", help="write only the page")
    parser.add_argument("--model", default="artwork", help="another model than the bundled one")
    parser.add_argument("--steps", type=int, metavar="N", help="only so many decoder steps, for a quick look")
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
