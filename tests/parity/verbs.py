"""Every verb that draws, from the command line, on a model of a public family: it works, or names the part that is missing."""

import io
import re
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
from PIL import Image

from unclip.cli.main import main

IMAGE, TEXT, UPSAMPLER = "has no image encoder", "has no text encoder", "has no upsampler"
EMBEDDING = "has no (decoder that reads image embeddings|image encoder)"


def command(*arguments: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command line."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            code = main([str(one) for one in arguments])
        except SystemExit as leave:
            code = int(leave.code or 0)
    return code, out.getvalue(), err.getvalue()


def opened(path: Path) -> Image.Image:
    """Pixels of a file, which is closed."""
    with Image.open(path) as image:
        return image.convert("RGB")


def check_verbs(
    model: Sequence[object],
    expected: Mapping[str, str],
    folder: Path,
    *,
    side: int,
    shape: tuple[int, int] | None,
    quick: Sequence[object],
) -> None:
    """Run all verbs. `expected` has a pattern of the error of each one that the model cannot do.

    `model` names it, `quick` are options of few steps, and `shape` is the width and height of what is drawn, of models that
    are not bound to squares of `side`.
    """
    noise = np.random.default_rng(0).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    width, height = shape or (side, side)
    size = ("--size", f"{width}x{height}")
    (basis := folder / "basis").mkdir()
    one, other = basis / "one.png", basis / "other.png"
    for path, turned in ((one, noise), (other, noise[::-1])):
        Image.fromarray(turned).resize((width, height), Image.Resampling.BICUBIC).save(path)
    half, model = width // 2, [*model, "--dtype", "float32"]
    given = {
        "generate": ("generate", "a red cat", *size),
        "negative": ("generate", "a red cat", "--negative", "a dog", *size),
        "init": ("generate", "a red cat", "--init", one, "--strength", "0.9", *size),
        "redraw": ("redraw", one, "a red cat", *size),
        "vary": ("vary", one, "-n", 1, *size),
        "eta": ("vary", one, "-n", 1, "--eta", 0.5, *size),
        "interpolate": ("interpolate", one, other, "-n", 2, *size),
        "line": ("interpolate", one, other, "-n", 2, "--path", "line", "--noise", "fixed", *size),
        "text diff": ("text-diff", one, "a dog", "--baseline", "a red cat", "-n", 2, *size),
        "reconstruct": ("reconstruct", one, *size),
        "edit": ("edit", one, "a red cat", "--box", f"4,4,{half},{height - 4}", "-n", 1),
        "outpaint": ("outpaint", one, "a red cat", "--right", 8),
        "more": ("outpaint", one, "--left", 8),
        "components": ("components", one, "1", "--basis", basis, *size),
        "upscale": ("upscale", one),
    }
    assert set(expected) <= set(given)
    for name, (verb, *arguments) in given.items():
        made = folder / f"{name.replace(' ', '-')}.png"
        few = () if verb == "upscale" else quick
        code, _, err = command(verb, *arguments, *model, "--seed", 1, "-o", made, *few)
        if name in expected:
            assert code == 1, (name, err)
            assert re.search(expected[name], " ".join(err.split())), (name, err)
            assert "Traceback" not in err
            assert not made.exists()
            continue
        assert code == 0, (name, err)
        drawn = opened(made)
        pictures = 2 if name in ("interpolate", "line", "text diff") else 1
        added = 8 if verb == "outpaint" else 0
        if verb != "upscale":
            assert drawn.size == (width * pictures + added, height), name
        if name == "edit":
            box = (half, 0, width, height)
            assert drawn.crop(box).tobytes() == opened(one).crop(box).tobytes()
    code, _, err = command("redo", folder / "generate.png", *model, "-o", folder / "again.png")
    assert code == 0, err
    assert opened(folder / "again.png").tobytes() == opened(folder / "generate.png").tobytes()
