"""A command run in this process, as the shell would see it."""

import json
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
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


@pytest.fixture(scope="session")
def model(tiny_folder: Path) -> Path:
    """A model folder with random weights, for commands that draw; pictures of 16 and 32 pixels."""
    return tiny_folder


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder made as a user makes one: four stages of the tiny recipe (cut short) and `unclip bundle`."""
    root = tmp_path_factory.mktemp("chain")
    for stage in ("clip", "prior", "decoder", "upsampler"):
        clip = ["--clip", root / "clip"] if stage in ("prior", "decoder") else []
        made = succeed(
            "train", stage, "--recipe", "tiny", "--out", root / stage, *clip, "--set", "samples=32", "--json"
        )
        assert json.loads(made) == {"model": str(root / stage / "model")}
    runs = [root / stage for stage in ("clip", "prior", "decoder", "upsampler")]
    quick = [
        argument
        for name in ("steps", "prior_steps", "upsampler_steps")
        for argument in ("--set", f"{name}=2")
    ]
    assert succeed("bundle", *runs, "-o", root / "tiny", *quick) == f"{root / 'tiny'}\n"
    return root / "tiny"


def succeed(*argv: object) -> str:
    """Run a command that must succeed, outside of any one test; its stdout."""
    with redirect_stdout(StringIO()) as out:
        assert main([str(argument) for argument in argv]) == 0
    return out.getvalue()
