"""The frame of the command line: its frozen surface, exit codes, streams, and how fast it answers."""

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import unclip
from unclip.cli import main as program
from unclip.cli.console import UsageError
from unclip.errors import RequestError
from unclip.generate.model import Model
from unclip.generate.operations import REQUESTS

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


def verb_names() -> list[str]:
    """Names of the verbs, in the order of the help."""
    members = [member for group in program.GROUPS.values() for member in group]
    return [getattr(member, "name", None) or member.__name__.rsplit(".", 1)[1] for member in members]


def test_every_operation_is_a_request_a_method_and_a_verb():
    """`invert` is `reconstruct` on the command line; captions and probes have verbs of their own."""
    kinds = {str(request.__dataclass_fields__["kind"].default): request for request in REQUESTS}
    verbs = {command.removeprefix("unclip ") for command, _ in commands()}
    for kind, request in kinds.items():
        assert request.__module__ == f"unclip.generate.operations.{kind}"
        assert callable(getattr(Model, kind))
        assert kind.replace("_", "-") in verbs
        assert getattr(unclip, request.__name__) is request
    others = {"invert": "reconstruct", "nearest_captions": "captions", "probe": "probe", "redo": "redo"}
    assert set(others.values()) <= verbs
    assert all(callable(getattr(Model, name)) for name in others)


def test_old_verbs_are_aliases():
    parsers = dict(commands())
    assert parsers["unclip diff"] is parsers["unclip text-diff"]


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


HEAVY = ("torch", "numpy", "PIL", "safetensors", "tokenizers", "einops", "pydantic")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("generate", "a cat", "--sampler", "bogus"), "invalid choice: 'bogus' (choose from 'ddim', "),
        (("generate", "a cat", "--prior", "bogus"), "invalid choice: 'bogus'"),
        (("generate", "a cat", "--size", "0"), "size is 0: give a number from 1 to 65536"),
        (("generate", "a cat", "--steps", "1001"), "steps is 1001: give a number from 1 to 1000"),
        (("generate", "a cat", "-n", "0"), "n is 0: give a number from 1 to 10000"),
        (("generate", " "), "the prompt is empty"),
        (("vary", "a.png", "--eta", "2"), "eta is 2.0: give a number from 0 to 1"),
        (("edit", "a.png", "a cat", "--box", "1,2,3"), "has 3 values: give 4"),
        (("interpolate", "a.png", "b.png", "--noise", "pink"), "invalid choice: 'pink'"),
        (("outpaint", "a.png"), "nothing is to be added"),
        (("components", "a.png", "0"), "dimensions is 0: give a number from 1"),
        (("text-diff", "a.png", "a cat", "--thetas", "0,1.5"), "thetas is 1.5: give a number from 0 to 1"),
        (("generate", "a cat", "--random", "diffusers", "--candidates", "2"), "set candidates to 1"),
        (("vary", "a.png", "--guidance-interval", "1,x"), "'x' is not a number"),
    ],
)
def test_a_bad_value_is_refused_without_importing_torch(argv, message):
    code = (
        "import sys; from unclip.cli.main import main\n"
        f"try: code = main({list(argv)!r})\n"
        "except SystemExit as leave: code = leave.code\n"
        f"print(code, [name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "2 []"
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_importing_the_operations_does_not_import_torch():
    code = (
        "import sys, unclip.generate.operations, unclip.stages.sampling, unclip.generate.schema;"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_installed_program_is_this_one():
    (script,) = entry_points(group="console_scripts", name="unclip")
    assert script.load() is program.main


def test_help_goes_to_stdout_and_lists_the_verbs_in_groups(unclip):
    code, out, err = unclip("--help")
    assert (code, err) == (0, "")
    assert [line[:-1] for line in out.splitlines() if line.endswith(":")] == [*program.GROUPS, "options"]
    listed = [line.split()[0] for line in out.splitlines() if line.startswith("  ") and line[2] != " "]
    assert [name for name in listed if not name.startswith("-")] == verb_names()
    assert all(name in out for name in verb_names())


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
    assert all(name in out for name in verb_names())


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
        (RequestError("n is 0: give a number from 1"), 2, "unclip: error: n is 0: give a number from 1\n"),
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
