"""Options that several verbs share, and the checks of their values."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from unclip.cli.console import UsageError


def verb(
    verbs: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, help: str, **more
) -> argparse.ArgumentParser:
    """A sub-parser for the verb `name`, with the options that every verb has."""
    parser = verbs.add_parser(name, help=help, description=help[0].upper() + help[1:] + ".", **more)
    parser.add_argument("--debug", action="store_true", help="on failure, print the whole traceback")
    return parser


def whole(text: str) -> int:
    """A whole number; ranges are checked by the request."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None


def size(text: str) -> Any:
    """A side in pixels, or WIDTHxHEIGHT; as requests hold it: height first."""
    from unclip.stages.extent import read_size

    try:
        return read_size(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no size: give a side in pixels, or WIDTHxHEIGHT as in 768x512"
        ) from None


def real(text: str) -> float:
    """A finite number; ranges are checked by the request."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if value != value or value in (float("inf"), -float("inf")):
        raise argparse.ArgumentTypeError(f"{text} is not a finite number")
    return value


def listed(parse: Callable[[str], Any], count: int | None = None) -> Callable[[str], tuple[Any, ...]]:
    """Parser of values separated by commas, of any number or `count` of them."""

    def parse_all(text: str) -> tuple[Any, ...]:
        parts = text.split(",")
        if count not in (None, len(parts)):
            raise argparse.ArgumentTypeError(
                f"{text!r} has {len(parts)} values: give {count}, separated by commas"
            )
        return tuple(parse(part) for part in parts)

    return parse_all


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def add_cluster(parser: argparse.ArgumentParser) -> None:
    """Options of work on a Ray cluster."""
    parser.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="work on this Ray cluster, such as auto or ray://HOST:10001 (needs unclip[ray])",
    )
    parser.add_argument(
        "--ray-gpus",
        type=number,
        default=1.0,
        metavar="X",
        help="GPUs of each worker of the cluster; 0 computes on CPUs (default: 1)",
    )
    parser.add_argument(
        "--ray-workers",
        type=positive,
        metavar="N",
        help="workers of the cluster (default: as many as fit)",
    )


def add_quiet(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress on stderr")


def add_force(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-f", "--force", action="store_true", help="overwrite what is already there")


def add_seed(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--seed",
        type=seed,
        metavar="N",
        help="seed: the same one gives the same result (default: drawn, and printed)",
    )


def add_output(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument(
        "-o", "--output", metavar="PATH", help=f"a .png file, or a folder (default: {default})"
    )


def add_device(
    parser: argparse.ArgumentParser, *, default: str | None = None, dtype: str | None = None
) -> None:
    """Options of where and in what number type to compute; `default` and `dtype` are the defaults that the help names."""
    parser.add_argument(
        "--device", metavar="NAME", help=f"cpu, cuda, cuda:1, mps (default: {default or 'the best there is'})"
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "bfloat16-weights", "auto"),
        help=f"what the networks compute in; bfloat16-weights halves the memory and computes in float32, auto measures which of the first two is faster (default: {dtype or default or 'float32; of public models, auto'})",
    )


def add_backend(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--backend",
        choices=("torch", "openvino"),
        help="what computes U-Nets and transformers on patches; openvino, on the CPU, needs unclip[openvino] (default: torch)",
    )
    parser.add_argument(
        "--backend-precision",
        choices=("float32", "bfloat16", "int8"),
        help="what the backend openvino computes in; int8 after `unclip accelerate` (default: float32)",
    )


def add_offload(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--offload",
        action="store_true",
        help="keep only the network at work in memory; it is read from disk each time",
    )


def add_tile(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--tile",
        type=positive,
        metavar="PIXELS",
        help="side of what a latent model's autoencoder decodes at once; less memory, and a slightly other picture",
    )


def add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-m",
        "--model",
        default="artwork",
        metavar="NAME",
        help="bundled name, folder, or hub id that was pulled (default: artwork)",
    )
    add_parts(parser)


def add_parts(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--part",
        action=Once,
        default=[],
        type=part,
        metavar="NAME=MODEL",
        help="take a part from another model, such as prior=FOLDER or clip=FOLDER; repeatable",
    )
    add_adapters(parser)


class Once(argparse.Action):
    """Action of a repeatable option whose values are pairs: of two with one name, one would be lost."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        """Append a pair."""
        found = list(getattr(namespace, self.dest) or [])
        if any(name == values[0] for name, _ in found):
            raise argparse.ArgumentError(self, f"{values[0]} is given twice")
        setattr(namespace, self.dest, [*found, values])


def adapter(text: str) -> tuple[str, float]:
    """An adapter's file or folder, and its strength: 1, or the number after a colon."""
    path, colon, strength = text.rpartition(":")
    if colon:
        try:
            value = float(strength)
        except ValueError:
            return text, 1.0
        if value != value or value in (float("inf"), -float("inf")):
            raise argparse.ArgumentTypeError(f"the strength {strength} is not a finite number")
        return path, value
    return text, 1.0


def add_adapters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--adapter",
        action=Once,
        default=[],
        type=adapter,
        metavar="FILE[:STRENGTH]",
        help="add a low-rank adapter (LoRA) to the weights, at a strength (default: 1); repeatable",
    )


def part(text: str) -> tuple[str, str]:
    """A part's name and the model to take it from."""
    name, equals, model = text.partition("=")
    if not (name and equals and model):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=MODEL, such as prior=FOLDER")
    return name, model


def add_running(parser: argparse.ArgumentParser) -> None:
    """Options of all verbs that draw, beside seed, output and sampling."""
    add_force(parser)
    add_model(parser)
    add_device(parser)
    add_backend(parser)
    add_offload(parser)
    add_tile(parser)
    add_quiet(parser)
    add_json(parser)


def positive(text: str) -> int:
    """A whole number of at least 1."""
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is too small; give at least 1")
    return value


def number(text: str) -> float:
    """A finite number of at least 0."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not 0.0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is out of range; give 0 or more")
    return value


def duration(text: str) -> float:
    """Seconds, from a number with its unit: 90s, 25m, 1.5h."""
    value, unit = text[:-1], text[-1:]
    try:
        seconds = float(value) * {"s": 1, "m": 60, "h": 3600}[unit]
    except (ValueError, KeyError):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a duration; give one such as 90s, 25m or 3h"
        ) from None
    if not 0.0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is out of range; give more than nothing, such as 25m")
    return seconds


def seed(text: str) -> int:
    """A whole number in [0, 2^63)."""
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
    if not 0 <= value < 1 << 63:
        raise argparse.ArgumentTypeError(f"{value} is out of range; give 0 to 2^63 - 1")
    return value


def check_name(path: Path) -> None:
    """Raise `UsageError` for a file name that is too long for the file system of its folder."""
    folder = next((parent for parent in path.absolute().parents if os.path.isdir(parent)), Path("/"))
    try:
        most = os.pathconf(folder, "PC_NAME_MAX")
    except (OSError, AttributeError, ValueError):
        most = 255
    length = len(os.fsencode(path.name))
    if length > most:
        raise UsageError(
            f"{path.name[:32]}...{path.suffix}: the name takes {length} bytes, the file system allows {most}; give a "
            "shorter -o"
        )


def read_lines(file: str) -> list[str]:
    """The lines of a text file that are not blank, `-` for stdin. Raises `UsageError` for a file that is no text."""
    from unclip.text_files import TextError, read_lines

    try:
        return read_lines(file)
    except TextError as error:
        raise UsageError(str(error)) from None


def writable(path: Path, *, force: bool) -> Path:
    """`path`, with its folder made, once it is sure that the file may be written.

    Raises `UsageError` for a name that is too long for the file system, `OSError` where it exists and `force` is not
    given, and where its folder cannot be made or written to.
    """
    check_name(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name a file in it")
    if path.exists() and not force:
        raise FileExistsError(f"{path} exists; give --force to overwrite it, or another -o")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise type(error)(f"{path.parent} cannot be made ({error.strerror}); give another -o") from error
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(f"{path.parent} cannot be written to; give another -o")
    return path
