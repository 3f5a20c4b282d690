"""`unclip show`: the provenance that a picture carries."""

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from unclip.cli import console, options


def add(verbs) -> None:
    parser = options.verb(verbs, "show", "print the provenance that a picture carries")
    parser.add_argument("picture", type=Path, metavar="PICTURE", help="a PNG file")
    options.add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    from unclip.images import PictureError, read_parameters, read_provenance

    try:
        provenance = read_provenance(arguments.picture)
    except PictureError:
        # Pictures of other programs say in one text how they were made.
        parameters = read_parameters(arguments.picture)
        if parameters is None:
            raise
        if arguments.json:
            console.result_json({"parameters": parameters})
        else:
            console.result(f"parameters: {parameters}")
        return
    if arguments.json:
        console.result_json(provenance)
        return
    for name, value in _flat(provenance):
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        console.result(console.escaped(f"{name}: {text}"))


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Pairs of a name such as `request.sampling.decoder.steps` and its value."""
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
