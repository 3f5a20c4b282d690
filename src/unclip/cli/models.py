"""`unclip models`: list the models on this machine; pull, verify and remove those of the hub."""

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from unclip.cli import console, options

if TYPE_CHECKING:
    from unclip.formats.opened import OpenModel


def add(verbs) -> None:
    parser = options.verb(verbs, "models", "list, show, pull, verify and remove models")
    options.add_json(parser)
    parser.set_defaults(run=run_list)
    actions = parser.add_subparsers(title="actions (default: list)", metavar="ACTION")

    listing = options.verb(actions, "list", "list bundled and pulled models")
    listing.add_argument(
        "--known",
        action="store_true",
        help="public models that can be pulled, with size and licence, instead",
    )
    options.add_json(listing)
    listing.set_defaults(run=run_list)

    show = options.verb(actions, "show", "describe a model: parts, licence, size, default settings")
    show.add_argument("model", metavar="NAME", help="bundled name, folder, or hub id that was pulled")
    options.add_json(show)
    show.set_defaults(run=run_show)

    pull = options.verb(actions, "pull", "download a model from the hub, or resume a download")
    pull.add_argument("model", metavar="ID", help="hub id, such as kakaobrain/karlo-v1-alpha")
    options.add_json(pull)
    pull.set_defaults(run=run_pull)

    verify = options.verb(actions, "verify", "compare all files of a model with their hashes")
    verify.add_argument("model", metavar="NAME", help="bundled name, folder, or hub id that was pulled")
    verify.set_defaults(run=run_verify)

    remove = options.verb(actions, "rm", "delete a pulled model from the hub's cache")
    remove.add_argument("model", metavar="ID", help="hub id")
    remove.set_defaults(run=run_remove)


def run_list(arguments: argparse.Namespace) -> None:
    from unclip.checkpoints.hub import bundled
    from unclip.checkpoints.manifest import describe
    from unclip.formats.pull import cached, size_of
    from unclip.formats.registry import format_name

    if getattr(arguments, "known", False):
        _list_known(arguments.json)
        return
    found = {name: {**describe(folder), "folder": str(folder)} for name, folder in bundled().items()}
    for hub_id, folder in cached().items():
        kind = format_name(folder)
        found[hub_id] = {"name": hub_id, "description": kind, "bytes": size_of(folder), "folder": str(folder)}
    if arguments.json:
        console.result_json(found)
        return
    width = max([12, *map(len, found)])
    for name, description in found.items():
        console.result(f"{name:<{width}} {description['bytes'] / 1e6:8.1f} MB  {description['description']}")
    if not found:
        console.tell("this installation has no bundled model: give a folder to commands that take --model")


def _list_known(as_json: bool) -> None:
    from dataclasses import asdict

    from unclip.checkpoints.hub import pulled
    from unclip.formats.known import ELSEWHERE, KNOWN

    here = {hub_id: pulled(hub_id) is not None for hub_id in KNOWN}
    if as_json:
        console.result_json(
            {hub_id: {**asdict(one), "pulled": here[hub_id]} for hub_id, one in KNOWN.items()}
        )
        return
    width = max(map(len, KNOWN))
    for hub_id, one in KNOWN.items():
        mark = ", pulled" if here[hub_id] else ""
        needs = "".join(f", with {other}" for _, other in one.needs)
        console.result(
            f"{hub_id:<{width}} {one.gigabytes:5.1f} GB  {one.licence:<21}  {one.what}{needs}{mark}"
        )
    console.tell(ELSEWHERE)


def run_show(arguments: argparse.Namespace) -> None:
    from unclip.checkpoints.manifest import MANIFEST, describe
    from unclip.formats.registry import resolve

    folder = resolve(arguments.model)
    described = describe(folder) if (folder / MANIFEST).is_file() else _describe_public(arguments.model)
    description = {**described, "folder": str(folder)}
    if arguments.json:
        console.result_json(description)
    else:
        _print(description)


def run_pull(arguments: argparse.Namespace) -> None:
    from unclip.checkpoints.hub import pulled
    from unclip.formats.known import KNOWN
    from unclip.formats.pull import PICKLED, look_up, pull

    if (known := KNOWN.get(arguments.model)) is not None:
        folders = f" (folders {', '.join(known.reads)})" if known.reads else ""
        console.tell(
            f"{known.hub_id}: {known.what}; about {known.gigabytes:g} GB{folders}, licence {known.licence}"
        )
    remote = look_up(arguments.model)
    console.tell(
        f"{remote.hub_id}: {len(remote.files)} files, {remote.size / 1e9:.2f} GB, "
        f"licence {remote.licence or 'unknown: see its page at the hub'}"
    )
    folder = pull(remote)
    if pickled := [name for name in remote.files if name.endswith(PICKLED)]:
        console.tell(f"{pickled[0]} is pickled: `unclip convert {remote.hub_id} -o FOLDER` reads it safely")
    if known is not None:
        for _, other in known.needs:
            missing = "" if pulled(other) else f"; `unclip models pull {other}` gets it"
            console.tell(f"it works together with {other}{missing}: `{known.command}`")
    if arguments.json:
        console.result_json(
            {"name": remote.hub_id, "licence": remote.licence, "bytes": remote.size, "folder": str(folder)}
        )
    else:
        console.result(str(folder))


def run_verify(arguments: argparse.Namespace) -> None:
    from unclip.checkpoints.hub import pulled
    from unclip.checkpoints.manifest import MANIFEST, verify
    from unclip.formats.pull import verify_pulled
    from unclip.formats.registry import resolve

    folder = resolve(arguments.model)
    if (folder / MANIFEST).is_file():
        count = len(verify(folder).files)
    elif folder == pulled(arguments.model):
        count = verify_pulled(arguments.model)
    else:
        raise ValueError(
            f"{folder} has no hashes to compare with: only pulled models and model folders have them; `unclip convert` writes one"
        )
    console.result(f"{arguments.model}: {count} files match their hashes")


def run_remove(arguments: argparse.Namespace) -> None:
    from unclip.formats.pull import remove

    console.result(f"{arguments.model}: removed, {remove(arguments.model) / 1e6:.1f} MB")


def _describe_public(model: str) -> dict:
    from unclip.checkpoints.manifest import without_none
    from unclip.formats.opened import open_model
    from unclip.formats.pull import size_of
    from unclip.formats.registry import resolve

    opened = open_model(model)
    return {
        "name": opened.name,
        "description": "in a public format",
        "licence": opened.licence,
        "digest": opened.digest,
        "bytes": size_of(resolve(model)),
        "dtype": _computes_in(opened),
        "parts": {name: {"kind": part.config.kind} for name, part in opened.parts.items()},
        "defaults": without_none(opened.defaults),
    }


def _computes_in(opened: "OpenModel") -> str:
    """The number type that a public model computes in by default on this machine."""
    from unclip.generate.number_type import number_type
    from unclip.generate.placement import best_device, decisive_layers

    configs = [part.config for part in opened.parts.values()]
    return str(number_type("auto", best_device(), decisive_layers(configs))).removeprefix("torch.")


def _print(description: dict) -> None:
    for key in ("name", "description", "licence", "digest", "folder", "dtype"):
        if description.get(key):
            console.result(f"{key:<12} {description[key]}")
    console.result(f"{'size':<12} {description['bytes'] / 1e6:.1f} MB")
    for name, part in description["parts"].items():
        size = f"{part['bytes'] / 1e6:6.1f} MB  {part['storage']}  " if "bytes" in part else ""
        console.result(f"  {name:<10} {size}{part['kind']}")
    for name, value in _flat(description["defaults"]):
        console.result(f"  default {name} = {value}")


def _flat(settings: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted name and value of each nested setting."""
    if not isinstance(settings, dict | list):
        yield prefix.removesuffix("."), settings
        return
    items = settings.items() if isinstance(settings, dict) else enumerate(settings)
    if isinstance(settings, list) and not any(isinstance(value, dict) for value in settings):
        yield prefix.removesuffix("."), settings
        return
    for name, value in items:
        yield from _flat(value, f"{prefix}{name}.")
