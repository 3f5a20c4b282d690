"""Options that the server and its workers share."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from unclip.cli import options
from unclip.cli.console import UsageError

if TYPE_CHECKING:
    from unclip.serve.settings import Settings

EXTRA = ("starlette", "uvicorn", "sqlalchemy", "obstore", "pydantic", "prometheus_client", "python_multipart")


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-m",
        "--model",
        action="append",
        default=[],
        type=named_model,
        metavar="[NAME=]MODEL",
        help="model to offer: bundled name, folder or pulled hub id, under a name of its own if given; repeatable; "
        "the first is the default (default: artwork)",
    )
    parser.add_argument(
        "--database",
        metavar="URL",
        help="sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME (default: a file in --folder)",
    )
    parser.add_argument(
        "--store",
        metavar="URL",
        help="where pictures are kept: a folder, or s3://BUCKET/PREFIX (default: a folder in --folder)",
    )
    parser.add_argument(
        "--folder", metavar="FOLDER", help="database and pictures (default: the user's data folder)"
    )
    options.add_device(parser)
    options.add_backend(parser)
    options.add_offload(parser)
    parser.add_argument(
        "--memory",
        type=gigabytes,
        metavar="GB",
        help="weights that a worker keeps loaded; the least recently used model makes room (default: no limit)",
    )
    parser.add_argument(
        "--batch",
        type=options.positive,
        metavar="N",
        help="pictures of one model and sampling that are drawn together (default: 1 on the CPU, 8 elsewhere)",
    )


def named_model(text: str) -> tuple[str, str]:
    """A model's name and where it is."""
    name, equals, spec = text.partition("=")
    if not equals:
        return text.rstrip("/").rpartition("/")[2] or text, text
    if not (name and spec):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=MODEL, such as small=FOLDER")
    return name, spec


def gigabytes(text: str) -> int:
    """Bytes of a number of gigabytes."""
    value = options.number(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text} is no memory: give gigabytes, such as 8")
    return int(value * 1e9)


def settings_of(arguments: argparse.Namespace, **more: Any) -> "Settings":
    """Settings of the options. Raises `UsageError` where the extra is missing, a device or a model's name is wrong."""
    require_extra()
    from unclip.serve.settings import Settings

    if arguments.device is not None:
        from unclip.cli.loading import read_device

        read_device(arguments.device)
    models = dict(arguments.model)
    if len(models) < len(arguments.model):
        raise UsageError("two models have one name: give another with --model NAME=MODEL")
    given = {
        "models": models or {"artwork": "artwork"},
        "database": arguments.database,
        "store": arguments.store,
        "device": arguments.device,
        "dtype": arguments.dtype,
        "backend": arguments.backend,
        "backend_precision": arguments.backend_precision,
        "offload": arguments.offload,
        "memory": arguments.memory,
        "batch": arguments.batch,
        **({} if arguments.folder is None else {"folder": arguments.folder}),
        **more,
    }
    return Settings(**given)


def require_extra(extra: str = "serve", packages: Sequence[str] = EXTRA) -> None:
    """Raise `UsageError` unless an extra's packages are installed."""
    from importlib.util import find_spec

    for name in packages:
        if find_spec(name) is None:
            raise UsageError(f"the server needs {name}: pip install 'unclip[{extra}]'")
