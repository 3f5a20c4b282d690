"""Streams that are closed, gone or cannot encode a name stop nothing; foreign text steers no terminal; long names."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from unclip.cli import console, options
from unclip.cli.console import UsageError
from unclip.cli.redo import describe, difference
from unclip.images import save_picture, write_atomically

FAULTS = Path(__file__).parents[1] / "images" / "faults"
PROGRAM = "import sys; from unclip.cli.main import main; sys.exit(main())"
ESCAPES = "\x1b[2J\x1b]0;owned\x07 \x9b31m \x7f \u202egnp.exe \r \b \0 \u2028"


def run(*argv: object, **options) -> "subprocess.CompletedProcess[bytes]":
    """A command in a process of its own."""
    environment = {**os.environ, **options.pop("env", {})}
    command = [sys.executable, "-c", PROGRAM, *map(str, argv)]
    return subprocess.run(command, env=environment, check=False, timeout=300, **options)


# Streams


def test_a_batch_goes_on_where_names_cannot_be_encoded(small_model, tmp_path):
    """CJK prompts on a console of Windows, closed streams, a reader that went away: every picture is drawn."""
    prompts = FAULTS / "prompts_cjk.txt"
    argv = [
        "generate", "--prompts", prompts, "--model", small_model, "--seed", 1, "--device", "cpu", "-o",
    ]  # fmt: skip
    shown = run(*argv, f"{tmp_path}/a/", env={"PYTHONIOENCODING": "cp1252"}, capture_output=True)
    assert (shown.returncode, b"Traceback" in shown.stderr) == (0, False)
    assert shown.stdout.splitlines()[0].endswith(b"\\u72d0\\u72f8-1.png")
    closed = run(*argv, f"{tmp_path}/b/", stderr=subprocess.PIPE, preexec_fn=lambda: os.close(1))
    assert (closed.returncode, b"Traceback" in closed.stderr) == (0, False)
    both = run(*argv, f"{tmp_path}/c/", preexec_fn=lambda: os.closerange(0, 3))
    assert both.returncode == 0
    reading, writing = os.pipe()
    os.close(reading)
    gone = run(*argv, f"{tmp_path}/d/", stdout=writing, stderr=writing)
    os.close(writing)
    assert gone.returncode == 1
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert len(names) == 3
    for folder in "bcd":
        made = sorted((tmp_path / folder).iterdir())
        assert [path.name for path in made] == names
        # What goes to a closed stream goes nowhere, least of all into a picture.
        assert [path.read_bytes() for path in made] == [
            (tmp_path / "a" / name).read_bytes() for name in names
        ]


class Broken(io.StringIO):
    """A stream of an encoding, or with an error at each write."""

    encoding = "ascii"

    def __init__(self, error: Exception | None = None):
        super().__init__()
        self.error = error

    def write(self, text: str) -> int:
        if self.error is not None:
            raise self.error
        text.encode("ascii")
        return super().write(text)


@pytest.mark.parametrize("name", ["stdout", "stderr"])
@pytest.mark.parametrize("kind", ["none", "closed", "ascii", "gone", "full"])
def test_no_stream_raises(monkeypatch, name, kind):
    stream = {
        "none": None,
        "closed": Broken(),
        "ascii": Broken(),
        "gone": Broken(BrokenPipeError(32, "Broken pipe")),
        "full": Broken(OSError(28, "No space left on device")),
    }[kind]
    if kind == "closed":
        stream.close()
    monkeypatch.setattr(sys, name, stream)
    console.take_lost()
    console.result("größer 狐")
    console.tell("größer 狐")
    console.result_json({"a": "狐 🚀"})
    with console.Status() as status:
        status("狐")
    console.Progress()
    assert console.take_lost() == (name == "stdout" and kind in ("gone", "full"))
    if kind == "ascii":
        lines = stream.getvalue().splitlines()
        assert lines[0] == (
            "gr\\xf6\\xdfer \\u72d0" if name == "stdout" else "unclip: gr\\xf6\\xdfer \\u72d0"
        )
        if name == "stdout":
            assert json.loads("".join(lines[1:])) == {"a": "狐 🚀"}


# Foreign text


def picture(path: Path, **texts: str) -> Path:
    chunks = PngImagePlugin.PngInfo()
    for key, text in texts.items():
        chunks.add_itxt(key, text)
    Image.new("RGB", (8, 8)).save(path, pnginfo=chunks)
    return path


def test_show_prints_no_escapes_and_its_json_is_exact(unclip, tmp_path):
    provenance = {"recipe": 1, "prompt": ESCAPES, f"key {ESCAPES}": [ESCAPES]}
    path = save_picture(Image.new("RGB", (8, 8)), tmp_path / "a.png", provenance=provenance)
    code, out, err = unclip("show", path)
    assert (code, err) == (0, "")
    assert not set(out) & set("\x1b\x07\x9b\x7f\u202e\r\b\0\u2028")
    assert out.splitlines()[1].startswith(
        "prompt: \\x1b[2J\\x1b]0;owned\\x07 \\x9b31m \\x7f \\u202egnp.exe \\r \\x08 \\x00"
    )
    assert len(out.splitlines()) == 3
    code, out, err = unclip("show", path, "--json")
    assert json.loads(out) == provenance
    assert not set(out) & set("\x1b\x07\x9b\x7f\u202e\r\b\0\u2028")
    code, out, _ = unclip("show", FAULTS / "recipe_with_terminal_escapes.png")
    assert code == 0
    assert "\x1b" not in out


def test_errors_and_notes_print_no_escapes(unclip, tmp_path, capsys):
    path = tmp_path / "\x1b[2Jx\x9b.png"
    _, out, err = unclip("show", path)
    assert "\x1b" not in out + err
    assert "\x9b" not in err
    assert "\\x1b[2Jx\\x9b.png" in err
    console.result("a\tb\nc")
    console.tell("two\nlines\x1b")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("a\tb\nc\n", "unclip: two\nlines\\x1b\n")


def test_show_prints_the_parameters_of_other_programs(unclip, tmp_path):
    path = picture(tmp_path / "a.png", parameters="a fox\x1b[2J\nSteps: 20, Seed: 3")
    assert unclip("show", path) == (0, "parameters: a fox\\x1b[2J\nSteps: 20, Seed: 3\n", "")
    assert json.loads(unclip("show", path, "--json").out) == {
        "parameters": "a fox\x1b[2J\nSteps: 20, Seed: 3"
    }
    assert "carries no provenance" in unclip("show", picture(tmp_path / "b.png", Comment="x")).err
    assert "is empty (0 bytes)" in unclip("show", FAULTS / "zero.png").err


def test_redo_of_a_damaged_recipe_is_one_line(unclip):
    code, out, err = unclip("redo", FAULTS / "recipe_seed_is_text.png")
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert "seed: expected int, got '7'" in err or "seed: expected int" in err


def test_redo_says_how_far_pictures_are_apart():
    pixels = np.zeros((100, 100, 3), dtype=np.uint8)
    before, same = Image.fromarray(pixels), Image.fromarray(pixels.copy())
    assert describe(difference(before, same)) == "every pixel is the same"
    pixels[0, 0, 0], pixels[0, 1, 2], pixels[5, 5, 1] = 1, 3, 2
    apart = difference(before, Image.fromarray(pixels))
    assert apart == (3, 0.0001)
    assert describe(apart).startswith("the pixels differ by at most 3 of 255, 0.01% of the values do: ")
    assert "OMP_NUM_THREADS" in describe(apart)
    assert difference(before, Image.new("RGB", (9, 9))) is None
    assert difference(before, before.convert("RGBA")) == (0, 0.0)
    assert difference(Image.new("RGB", (4, 4)), Image.new("RGBA", (4, 4), (0, 0, 0, 254))) == (1, 0.25)


# Prompts and captions in files


def test_prompts_are_read_whatever_their_mark_and_refused_in_one_line(unclip, tmp_path, small_model):
    argv = ["generate", "--model", small_model, "--seed", 1, "--device", "cpu", "-o", f"{tmp_path}/"]
    code, out, _ = unclip(*argv, "--prompts", FAULTS / "prompts_with_bom.txt")
    assert code == 0
    assert Path(out.splitlines()[0]).name.partition("-1")[0] == "a-red-fox"
    code, out, err = unclip(*argv, "--prompts", FAULTS / "prompts_latin1.txt")
    assert (code, out) == (2, "")
    assert "prompts_latin1.txt is not UTF-8" in err
    assert len(err.splitlines()) == 1
    code, _, err = unclip("captions", FAULTS / "phone_mpo.jpg", "--captions", FAULTS / "prompts_latin1.txt")
    assert (code, "prompts_latin1.txt is not UTF-8" in err) == (2, True)


# Names


def test_names_up_to_the_limit_are_written_and_longer_ones_refused_before_drawing(
    unclip, tmp_path, small_model
):
    limit = os.pathconf(tmp_path, "PC_NAME_MAX")
    longest = tmp_path / ("狐" * ((limit - 4) // 3) + "a" * ((limit - 4) % 3) + ".png")
    assert write_atomically(longest, b"x").read_bytes() == b"x"
    assert options.writable(longest, force=True) == longest
    with pytest.raises(UsageError, match=f"takes {limit + 1} bytes, the file system allows {limit}"):
        options.writable(longest.with_stem("a" + longest.stem), force=True)
    argv = ["generate", "a red apple", "--model", small_model, "--device", "cpu", "--seed", 1, "-o"]
    code, out, err = unclip(*argv, tmp_path / ("a" * 245 + ".png"))
    assert (code, err) == (0, "")
    code, out, err = unclip(*argv, tmp_path / ("a" * 252 + ".png"), "-n", 1)
    assert (code, out) == (2, "")
    assert "the file system allows" in err
    # Numbers are added to the name of several pictures.
    code, out, err = unclip(*argv, tmp_path / ("a" * 250 + ".png"), "-n", 2)
    assert (code, out) == (2, "")
    # A folder that is to be made.
    assert unclip(*argv, tmp_path / "new" / ("a" * 300 + ".png")).code == 2
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".part")]


@pytest.fixture(scope="session")
def small_model(tiny_folder):
    """A model folder."""
    return tiny_folder
