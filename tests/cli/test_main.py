"""The frame of the command line: its frozen surface, exit codes, streams, and how fast it answers."""

import argparse
import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from unclip.generate.manipulations import Manipulations

from unclip.cli import main as program
from unclip.cli.console import UsageError

SURFACE = Path(__file__).with_name("surface.txt")


def surface() -> str:
    """Every command with its arguments and options, one a line."""
    lines = [f"{command} {_spelling(action)}" for command, parser in commands() for action in _own(parser)]
    return "\n".join(lines) + "\n"


def commands() -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """The program, its verbs, and theirs."""
    waiting = [("unclip", program.build_parser())]
    for command, parser in waiting:
        yield command, parser
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                waiting += [(f"{command} {name}", verb) for name, verb in action.choices.items()]


def _own(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    hidden = (argparse._SubParsersAction, argparse._HelpAction)
    return [action for action in parser._actions if not isinstance(action, hidden)]


def _spelling(action: argparse.Action) -> str:
    name = ", ".join(action.option_strings) or f"<{action.dest}>"
    return f"{name} {{{','.join(map(str, action.choices))}}}" if action.choices else name


def test_surface_is_the_committed_one():
    message = f"the command line changed: if that is meant, run `UNCLIP_RENEW=1 pytest {__file__}` and commit"
    if os.environ.get("UNCLIP_RENEW"):
        SURFACE.write_text(surface())
    assert surface() == SURFACE.read_text(), message


def test_every_manipulation_is_a_function_a_method_and_a_verb():
    """`invert` and what draws from its (z_i, x_T) are one verb; components and `--init` are options of another."""
    homes = {
        "invert": ("inversion", "reconstruct"),
        "reconstruct": ("reconstruct", "reconstruct"),
        "vary": ("variations", "vary"),
        "interpolate": ("interpolate", "interpolate"),
        "text_diff": ("text_diff", "diff"),
        "edit": ("inpaint", "edit"),
        "outpaint": ("outpaint", "outpaint"),
        "redraw": ("redraw", "generate"),
        "upscale": ("upscale", "upscale"),
        "pca_reconstructions": ("pca", "reconstruct"),
        "nearest_captions": ("probes", "captions"),
        "typographic_probe": ("probes", "probe"),
    }
    assert {name for name in vars(Manipulations) if not name.startswith("_")} == set(homes)
    verbs = {command.removeprefix("unclip ") for command, _ in commands()}
    for name, (module, verb) in homes.items():
        assert callable(getattr(importlib.import_module(f"unclip.generate.{module}"), name))
        assert verb in verbs


def test_every_option_says_what_it_does():
    silent = [
        f"{command} {_spelling(action)}"
        for command, parser in commands()
        for action in _own(parser)
        if not action.help
    ]
    assert silent == []


def test_building_the_parser_imports_nothing_heavy():
    heavy = ["torch", "numpy", "PIL", "safetensors", "tokenizers", "einops", "jaxtyping", "tqdm", "shtab"]
    code = (
        f"import sys, unclip.cli.main as m; m.build_parser(); print([n for n in {heavy} if n in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert found == "[]"


def test_installed_program_is_this_one():
    (script,) = entry_points(group="console_scripts", name="unclip")
    assert script.load() is program.main


def test_help_goes_to_stdout_and_succeeds(unclip):
    code, out, err = unclip("--help")
    assert (code, err) == (0, "")
    assert all(verb.__name__.rsplit(".", 1)[1] in out for verb in program.VERBS)


def test_version(unclip):
    code, out, err = unclip("--version")
    assert (code, err) == (0, "")
    assert out.startswith("unclip 0.")


@pytest.mark.parametrize(
    "argv", [(), ("paint",), ("show",), ("show", "a.png", "--colour"), ("--completion", "dos")]
)
def test_wrong_usage_is_2_and_on_stderr(unclip, argv):
    code, out, err = unclip(*argv)
    assert (code, out) == (2, "")
    assert "usage: unclip" in err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "tcsh"])
def test_completion_knows_every_verb(unclip, shell):
    code, out, err = unclip("--completion", shell)
    assert (code, err) == (0, "")
    assert all(verb.__name__.rsplit(".", 1)[1] in out for verb in program.VERBS)


def run_raising(unclip, monkeypatch, error: BaseException, *more: str):
    def fail(arguments: argparse.Namespace) -> None:
        raise error

    # The verb's own `run` is replaced, because no real input makes a correct program fail unexpectedly.
    monkeypatch.setattr("unclip.cli.show.run", fail)
    return unclip("show", "a.png", *more)


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (
            UsageError("size 7 is too small; give at least 8"),
            2,
            "unclip: error: size 7 is too small; give at least 8\n",
        ),
        (ValueError("no such thing"), 1, "unclip: error: no such thing\n"),
        (
            FileNotFoundError(2, "No such file or directory", "x.png"),
            1,
            "unclip: error: x.png: No such file or directory\n",
        ),
        (KeyboardInterrupt(), 130, "unclip: interrupted\n"),
        (
            RuntimeError("boom"),
            1,
            "unclip: error: RuntimeError: boom (this is unexpected; --debug shows where it happened)\n",
        ),
    ],
)
def test_failures_have_their_code_and_one_line(unclip, monkeypatch, error, code, told):
    assert run_raising(unclip, monkeypatch, error) == (code, "", told)


def test_debug_shows_the_traceback(unclip, monkeypatch):
    code, out, err = run_raising(unclip, monkeypatch, ValueError("no such thing"), "--debug")
    assert (code, out) == (1, "")
    assert "Traceback" in err
    assert "ValueError: no such thing" in err
