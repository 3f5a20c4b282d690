"""`unclip models`: the models that came with the package, or what one folder holds."""

import argparse

from unclip.cli import console, options


def add(verbs) -> None:
    parser = options.verb(verbs, "models", "list the bundled models, or describe one")
    parser.add_argument("model", nargs="?", metavar="NAME", help="a bundled model or a folder")
    options.add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    from unclip.checkpoints.hub import bundled, resolve
    from unclip.checkpoints.manifest import describe

    if arguments.model is not None:
        folder = resolve(arguments.model)
        description = {**describe(folder), "folder": str(folder)}
        if arguments.json:
            console.result_json(description)
        else:
            _print(description)
        return
    descriptions = {name: {**describe(folder), "folder": str(folder)} for name, folder in bundled().items()}
    if arguments.json:
        console.result_json(descriptions)
        return
    for name, description in descriptions.items():
        console.result(f"{name:<12} {description['bytes'] / 1e6:6.1f} MB  {description['description']}")
    if not descriptions:
        console.tell("no model came with this installation; give a folder to the verbs that take --model")


def _print(description: dict) -> None:
    for key in ("name", "description", "licence", "weights", "folder"):
        if description[key]:
            console.result(f"{key:<12} {description[key]}")
    console.result(f"{'size':<12} {description['bytes'] / 1e6:.1f} MB")
    for name, part in description["parts"].items():
        console.result(f"  {name:<10} {part['bytes'] / 1e6:6.1f} MB  {part['storage']}  {part['kind']}")
    for name, value in description["defaults"].items():
        console.result(f"  default {name} = {value}")
