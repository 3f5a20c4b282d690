"""A command run in this process, as the shell would see it."""

from collections.abc import Callable
from typing import NamedTuple

import pytest

from unclip.cli.main import main


class Outcome(NamedTuple):
    """What a command left behind: exit code, stdout, stderr."""

    code: int
    out: str
    err: str


@pytest.fixture
def unclip(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    """`unclip("show", "a.png")` runs the command line and returns its `Outcome`."""
    monkeypatch.setenv("COLUMNS", "100")

    def run(*argv: object) -> Outcome:
        capsys.readouterr()
        try:
            code = main([str(argument) for argument in argv])
        except SystemExit as leave:  # argparse leaves by itself on --help and on usage errors
            code = int(leave.code or 0)
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run
