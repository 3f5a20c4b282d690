"""Verbs that draw: one parser and one `run` for all of them, over the table of `unclip.cli.verbs`."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unclip.cli import console, options, outputs
from unclip.cli.loading import load_for

if TYPE_CHECKING:
    from unclip.generate.model import Model
    from unclip.generate.progress import Progress
    from unclip.generate.request import Request


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a command line asks for: requests with the paths of their pictures, and names for the results."""

    requests: "Sequence[tuple[Request, Sequence[Path]]]"
    stems: "Callable[[Model, int], Sequence[str]]"
    """Names of the results, without suffix, given the model and the seed."""
    joined: bool = False
    """Whether the pictures of a path go into one strip or animation."""
    finish: Callable[[Any], None] = lambda made: None
    """Called with the pictures, for verbs that print more than paths."""


@dataclass(frozen=True, kw_only=True)
class Verb:
    """A verb that draws: its request, its positional arguments and how its `Job` is built."""

    name: str
    help: str
    kind: str
    """Kind of the request, a key of `unclip.generate.operations.BY_KIND`."""
    job: "Callable[[argparse.Namespace], Job]"
    aliases: tuple[str, ...] = ()
    positional: tuple[tuple[str, str, str], ...] = ()
    """(name, metavar, help) of each positional argument; a metavar ending in "?" is optional."""
    pictures: tuple[str, ...] = ()
    """Names of the positional arguments that are paths of pictures."""
    types: Mapping[str, Callable[[str], Any]] = field(default_factory=dict)
    """Parsers of positional arguments that are neither text nor pictures."""
    hidden: tuple[str, ...] = ()
    """Fields of the request without an option of their own."""
    output: str = "a .png file, or a folder (default: here, named after the picture)"
    path: bool = False
    """Whether the pictures lie on a path, and can go into a strip or an animation."""
    grid: bool = True
    extra: Callable[[argparse.ArgumentParser], None] = lambda parser: None


def add(verbs: Any, verb: Verb, *, stub: bool = False) -> None:
    """Add a verb's parser; a `stub` has no options, for command lines of other verbs."""
    parser = options.verb(verbs, verb.name, verb.help, aliases=verb.aliases)
    if stub:
        return

    from unclip.cli.request_options import add_fields, add_sampling
    from unclip.generate.operations import BY_KIND

    request = BY_KIND[verb.kind]
    for name, metavar, text in verb.positional:
        kind = Path if name in verb.pictures else verb.types.get(name, str)
        optional = "?" if metavar.endswith("?") else None
        parser.add_argument(name, type=kind, metavar=metavar.rstrip("?"), help=text, nargs=optional)
    add_fields(parser, request, (*(name for name, _, _ in verb.positional), *verb.hidden))
    verb.extra(parser)
    options.add_seed(parser)
    parser.add_argument("-o", "--output", metavar="PATH", help=verb.output)
    parser.set_defaults(grid=None)
    if verb.grid:
        parser.add_argument(
            "--grid", type=Path, metavar="FILE", help="write all pictures on one sheet, and only that"
        )
    if verb.path:
        parser.add_argument(
            "--milliseconds",
            type=options.positive,
            default=120,
            metavar="N",
            help="duration of each picture of an animation (default: 120)",
        )
    options.add_running(parser)
    group = parser.add_argument_group("sampling (the defaults are the model's)")
    add_sampling(group, request.stages)
    parser.set_defaults(run=lambda arguments: run(verb, arguments))


def request_of(arguments: argparse.Namespace, kind: "type[Request]", **more: Any) -> "Request":
    """Request of the command line. Raises `RequestError` for a value out of range; imports no torch."""
    from unclip.cli.request_options import given_fields, given_sampling

    given = {**given_fields(kind, arguments), **more}
    return kind(**given, seed=arguments.seed, sampling=given_sampling(arguments))


def run(verb: Verb, arguments: argparse.Namespace) -> None:
    """Run the requests of a command line: check, load, plan outputs, draw, save."""
    job = verb.job(arguments)
    if getattr(arguments, "ray", None) is not None:
        from unclip.cli import draw_on_ray

        draw_on_ray.run(job, arguments)
        return

    from unclip.generate.session import choose_seed, picture_seed
    from unclip.generate.sources import read_source

    sources = [[read_source(path) for path in paths] for _, paths in job.requests]
    model = load_for(arguments)
    for (request, _), given in zip(job.requests, sources):
        model.check(request, len(given))
    seed = choose_seed(arguments.seed)
    if arguments.seed is None:
        console.tell(f"seed {seed} was drawn; --seed {seed} draws the same again")
    joined = job.joined and not outputs.is_folder(arguments.output)
    stems = job.stems(model, seed)
    if joined:
        paths: list[Path | None] = [outputs.plan_joined(arguments, stems[0])]
    else:
        paths = outputs.plan(arguments, stems)
    with console.Progress(quiet=arguments.quiet) as progress:
        pictures = (
            picture
            for index, ((request, _), given) in enumerate(zip(job.requests, sources))
            for picture in model.run(
                replace(request, seed=picture_seed(seed, index)),
                [one.image for one in given],
                on_progress=reporter(progress, index, len(job.requests)),
            )
        )
        if joined:
            assert paths[0] is not None
            made = outputs.deliver_joined(pictures, paths[0], arguments)
        else:
            made = outputs.deliver(pictures, paths, arguments)
    job.finish(made)
    if arguments.json:
        console.result_json(made)


def reporter(progress: console.Progress, done: int = 0, requests: int = 1) -> "Callable[[Progress], None]":
    """Callback that shows which picture and stage is at work, after `done` of so many equal `requests`."""

    def report(event: "Progress") -> None:
        picture, pictures = done * event.pictures + event.first + 1, requests * event.pictures
        which = f"picture {picture} of {pictures}, " if pictures > 1 else ""
        progress.update((done + event.fraction) / requests, which + event.stage)

    return report
