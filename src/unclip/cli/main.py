"""The entry point: the verbs, and what a user sees when something goes wrong."""

import argparse
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from signal import SIGINT

import unclip
from unclip.cli import (
    bundle,
    captions,
    console,
    convert,
    data,
    diff,
    doctor,
    edit,
    evaluate,
    generate,
    interpolate,
    models,
    outpaint,
    probe,
    reconstruct,
    redo,
    show,
    train,
    upscale,
    vary,
)
from unclip.cli.console import UsageError

VERBS = (
    generate,
    vary,
    interpolate,
    diff,
    edit,
    outpaint,
    upscale,
    reconstruct,
    captions,
    probe,
    show,
    redo,
    models,
    convert,
    data,
    train,
    evaluate,
    bundle,
    doctor,
)

EXIT_FAILURE, EXIT_USAGE = 1, 2


def build_parser() -> argparse.ArgumentParser:
    """The whole command line; building it imports nothing heavy."""
    parser = argparse.ArgumentParser(
        prog="unclip",
        description="Draw pictures from text, and train what draws them.",
        epilog="`unclip VERB --help` tells the options of a verb.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    parser.add_argument(
        "--completion",
        action=_Completion,
        choices=("bash", "zsh", "fish", "tcsh"),
        metavar="SHELL",
        help="print a completion script for bash, zsh, fish or tcsh and exit",
    )
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    for verb in VERBS:
        verb.add(verbs)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 1 (failure), 2 (usage), 130 (Ctrl-C), 143 (SIGTERM)."""
    parser = build_parser()
    arguments, unknown = parser.parse_known_args(argv)
    if unknown:
        words = "prompt" in arguments and not unknown[0].startswith("-")
        parser.error(
            f"unknown: {' '.join(unknown)}{' (put a prompt of several words in quotes)' if words else ''}"
        )
    try:
        with warnings.catch_warnings():
            if not arguments.debug:
                warnings.simplefilter("default", UserWarning)
                warnings.showwarning = _show_warning
            arguments.run(arguments)
        sys.stdout.flush()
        return 0
    except KeyboardInterrupt as interrupt:
        console.tell(f"interrupted: {interrupt}" if str(interrupt) else "interrupted")
        # A training run that saved itself says which signal it was; shells expect 128 + that.
        return 128 + getattr(interrupt, "signal", SIGINT)
    except BrokenPipeError:
        # The reader of our output went away (`unclip models | head`): not an error of ours, and nothing to say.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILURE
    except Exception as error:
        if arguments.debug:
            traceback.print_exc()
        else:
            console.tell(f"error: {_describe(error)}")
        return EXIT_USAGE if isinstance(error, UsageError) else EXIT_FAILURE


def _describe(error: Exception) -> str:
    """What was wrong, without the traceback: our own messages as they are, surprises with their type."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, ValueError | OSError | ModuleNotFoundError) and str(error):
        return str(error)
    return f"{type(error).__name__}: {error} (this is unexpected; --debug shows where it happened)"


def _show_warning(message, category, filename, lineno, file=None, line=None) -> None:
    # Warnings of this package are meant for the user; those of its dependencies for whoever works on it.
    if category.__module__.startswith("unclip.") or Path(filename).is_relative_to(unclip.__path__[0]):
        console.tell(f"note: {message}")


class _Version(argparse.Action):
    """Prints the version; reading it from the package's metadata waits until it is asked for."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        from importlib.metadata import version

        console.result(f"unclip {version('unclip')}")
        parser.exit()


class _Completion(argparse.Action):
    """Prints a script that teaches the shell the verbs and options: `eval "$(unclip --completion bash)"`."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        import shtab

        console.result(shtab.complete(parser, str(values)))
        parser.exit()
