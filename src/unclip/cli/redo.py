"""`unclip redo`: a picture made again from its provenance."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from unclip.cli import console, options, outputs
from unclip.cli.console import UsageError
from unclip.cli.draw import reporter

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

    from unclip.generate.replay import Replay


def add(verbs) -> None:
    parser = options.verb(verbs, "redo", "make a picture again from the provenance that it carries")
    parser.add_argument("picture", type=Path, metavar="PICTURE", help="a PNG file that unclip made")
    parser.add_argument(
        "--source",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="a picture that it was made from, or a folder of them; repeatable, in the recorded order",
    )
    options.add_output(parser, "the picture's name with -again")
    options.add_force(parser)
    parser.add_argument(
        "-m",
        "--model",
        metavar="NAME",
        help="bundled name, folder, or hub id that was pulled (default: the recorded one)",
    )
    options.add_parts(parser)
    parser.add_argument(
        "--any-weights", action="store_true", help="use the model even if its digest is another one"
    )
    options.add_device(parser, default="the recorded one")
    options.add_backend(parser)
    options.add_offload(parser)
    options.add_quiet(parser)
    options.add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    from unclip.cli.loading import load
    from unclip.generate.image import Image
    from unclip.generate.sources import read_source

    before = Image.open(arguments.picture)
    replay = _replay_of(before.provenance, arguments)
    path = options.writable(name_output(arguments.output, arguments.picture), force=arguments.force)
    given = [outputs.pictures_in(path) if path.is_dir() else [path] for path in arguments.source]
    sources = [read_source(path).image for paths in given for path in paths]
    try:
        model = load(
            arguments.model or replay.base,
            arguments.device or replay.device,
            arguments.dtype or replay.dtype,
            offload=arguments.offload,
            parts={**replay.parts, **dict(arguments.part)},
            adapters=dict(arguments.adapter),
            backend=arguments.backend or replay.backend,
            backend_precision=arguments.backend_precision
            or (None if arguments.backend else replay.backend_precision),
            packed=None if arguments.dtype else replay.packed,
        )
    except FileNotFoundError as error:
        if arguments.model is not None:
            raise
        raise UsageError(
            f"{arguments.picture} was made by {replay.model!r}, which is not found here; give its folder: --model FOLDER"
        ) from error
    with console.Progress(quiet=arguments.quiet) as progress:
        after = model.redo(
            before.provenance,
            *sources,
            on_progress=reporter(progress),
            any_weights=arguments.any_weights,
        )
    after.save(path, force=arguments.force)
    apart = difference(before.image, after.image)
    identical = apart is not None and apart.most == 0
    console.tell(describe(apart))
    if arguments.json:
        measured = {} if apart is None else {"difference": apart._asdict()}
        console.result_json({"path": str(path), "identical": identical, **measured, **after.provenance})
    else:
        console.result(str(path))


def _replay_of(provenance: Mapping[str, Any], arguments: argparse.Namespace) -> "Replay":
    """What a picture's provenance records; of a picture put together from several, what its first drawn piece records."""
    from unclip.generate.composed import is_composed, read_composed
    from unclip.generate.replay import read_replay

    if not is_composed(provenance):
        return read_replay(provenance)
    replays = read_composed(provenance).replays
    if not replays:
        raise UsageError(
            f"{arguments.picture} is put together from given pictures alone: there is nothing to make again"
        )
    names = list(dict.fromkeys(f"{one.model!r} ({one.digest})" for one in replays))
    if len(names) > 1 and not arguments.any_weights:
        raise UsageError(
            f"the pieces of {arguments.picture} were made by {', '.join(names)}: one model is used; for similar pictures, "
            "give --any-weights"
        )
    return replays[0]


class Difference(NamedTuple):
    """How far two pictures are apart: the largest difference of a value, of 255, and the share of values that differ."""

    most: int
    share: float


def difference(before: "PillowImage", after: "PillowImage") -> Difference | None:
    """How far two pictures are apart; None where they differ in size."""
    import numpy as np

    if before.size != after.size:
        return None
    mode = before.mode if before.mode == after.mode else "RGBA"
    old, new = (np.asarray(image.convert(mode), dtype=np.int16) for image in (before, after))
    apart = np.abs(old - new)
    return Difference(int(apart.max()), float((apart > 0).mean()))


def describe(apart: Difference | None) -> str:
    """The difference of the new picture from the old one in words."""
    if apart is None:
        return "the picture has another size"
    if apart.most == 0:
        return "every pixel is the same"
    share = f"{apart.share:.2%}" if apart.share >= 0.0001 else f"{apart.share:.4%}"
    return (
        f"the pixels differ by at most {apart.most} of 255, {share} of the values do: sums are rounded in another way with "
        "another number of threads (OMP_NUM_THREADS), device or version of torch"
    )


def name_output(output: str | None, picture: Path) -> Path:
    """Path of the new picture: never the old one's unless it is named."""
    if output is None:
        return picture.with_stem(f"{picture.stem}-again")
    return Path(output) / picture.name if outputs.is_folder(output) else Path(output)
