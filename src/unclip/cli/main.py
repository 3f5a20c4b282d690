"""The entry point: verbs in groups, and what a user sees when something goes wrong."""

import argparse
import logging
import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from signal import SIGINT
from typing import Any

import unclip
from unclip.cli import (
    accelerate,
    bundle,
    captions,
    console,
    convert,
    data,
    doctor,
    draw,
    embed,
    evaluate,
    latents,
    models,
    probe,
    redo,
    serve,
    show,
    train,
    verbs,
    worker,
)
from unclip.cli.console import UsageError
from unclip.errors import RequestError

GROUPS: dict[str, tuple[Any, ...]] = {
    "draw": verbs.DRAW,
    "edit": verbs.EDIT,
    "inspect": (*verbs.INSPECT, captions, probe, show, redo),
    "serve": (serve, worker),
    "models": (models, convert, accelerate, doctor),
    "train": (data, embed, latents, train, bundle, evaluate),
}

EXIT_FAILURE, EXIT_USAGE = 1, 2


def build_parser(only: str | None = None) -> argparse.ArgumentParser:
    """Parser of the whole command line, or with the options of one verb `only`; building it imports no torch."""
    parser = _GroupedParser(
        prog="unclip",
        description="Draw pictures from text and pictures, and train the models that draw them.",
        epilog="`unclip VERB --help` lists the options of a verb.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    parser.add_argument(
        "--completion",
        action=_Completion,
        choices=("bash", "zsh", "fish", "tcsh"),
        metavar="SHELL",
        help="print a completion script for bash, zsh, fish or tcsh and exit",
    )
    subparsers = parser.add_subparsers(metavar="VERB", required=True, parser_class=argparse.ArgumentParser)
    for title, members in GROUPS.items():
        before = len(subparsers._choices_actions)
        for member in members:
            if isinstance(member, draw.Verb):
                draw.add(subparsers, member, stub=only not in (None, member.name, *member.aliases))
            elif member is probe:
                probe.add(subparsers, stub=only not in (None, "probe"))
            else:
                member.add(subparsers)
        parser.groups[title] = subparsers._choices_actions[before:]
    return parser


class _GroupedParser(argparse.ArgumentParser):
    """Parser whose help lists the verbs in groups."""

    def __init__(self, **options: Any):
        super().__init__(**options)
        self.groups: dict[str, list[argparse.Action]] = {}

    def format_help(self) -> str:
        """Help text with a section per group of verbs."""
        formatter = self._get_formatter()
        formatter.add_usage(self.usage, self._actions, self._mutually_exclusive_groups)
        formatter.add_text(self.description)
        for title, actions in self.groups.items():
            formatter.start_section(title)
            formatter.add_arguments(actions)
            formatter.end_section()
        formatter.start_section("options")
        formatter.add_arguments(action for action in self._actions if action.option_strings)
        formatter.end_section()
        formatter.add_text(self.epilog)
        return formatter.format_help()


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 1 (failure), 2 (usage), 130 (Ctrl-C), 143 (SIGTERM)."""
    console.prepare()
    given = sys.argv[1:] if argv is None else argv
    completing = any(word.startswith("--completion") for word in given)
    words = [word for word in given if not word.startswith("-")]
    parser = build_parser(None if completing else (words or [""])[0])
    arguments, unknown = parser.parse_known_args(argv)
    if unknown:
        words = "prompt" in arguments and not unknown[0].startswith("-")
        parser.error(
            f"unknown: {' '.join(unknown)}{' (put a prompt of several words in quotes)' if words else ''}"
        )
    arguments.given = list(given)
    try:
        _log_to_console(arguments.debug)
        with warnings.catch_warnings():
            if not arguments.debug:
                warnings.simplefilter("default", UserWarning)
                warnings.showwarning = _show_warning
            arguments.run(arguments)
        return EXIT_FAILURE if console.take_lost() else 0
    except KeyboardInterrupt as interrupt:
        console.tell(f"interrupted: {interrupt}" if str(interrupt) else "interrupted")
        # A training run that saved itself says which signal it was; shells expect 128 + that.
        return 128 + getattr(interrupt, "signal", SIGINT)
    except Exception as error:
        if arguments.debug:
            traceback.print_exc()
        else:
            console.tell(f"error: {_describe(error)}")
        return EXIT_USAGE if isinstance(error, UsageError | RequestError) else EXIT_FAILURE


def _describe(error: Exception) -> str:
    """What was wrong, without the traceback: our own messages as they are, surprises with their type."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, ValueError | OSError | ModuleNotFoundError) and str(error):
        return str(error)
    return f"{type(error).__name__}: {error} (this is unexpected; --debug shows where it happened)"


class _ConsoleHandler(logging.Handler):
    """Handler that writes log records as notes to stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        console.tell(
            f"note: {record.getMessage()}" if record.levelno >= logging.WARNING else record.getMessage()
        )


def _log_to_console(debug: bool) -> None:
    logger = logging.getLogger("unclip")
    logger.handlers = [handler for handler in logger.handlers if not isinstance(handler, _ConsoleHandler)]
    logger.addHandler(_ConsoleHandler())
    logger.setLevel(logging.DEBUG if debug else logging.INFO)


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


if __name__ == "__main__":
    sys.exit(main())
