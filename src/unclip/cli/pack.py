"""`unclip pack`: trained stages joined to one model folder, stored small."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from unclip.cli import console, options
from unclip.cli.console import UsageError

if TYPE_CHECKING:
    from unclip.checkpoints.manifest import Manifest
    from unclip.checkpoints.quantize import Storage
    from unclip.stages.sampling import Sampling


def add(verbs) -> None:
    parser = options.verb(verbs, "pack", "join trained stages to one model folder, stored small")
    parser.add_argument(
        "sources", nargs="+", type=Path, metavar="FOLDER", help="finished runs, or model folders"
    )
    parser.add_argument(
        "-o", "--out", type=Path, required=True, metavar="FOLDER", help="where the model goes"
    )
    parser.add_argument("--name", metavar="NAME", help="the model's name (default: the folder's)")
    parser.add_argument("--description", default="", metavar="TEXT", help="one line for `unclip models`")
    parser.add_argument("--licence", default="", metavar="TEXT", help="the licence of the weights")
    parser.add_argument(
        "--storage",
        choices=("float32", "float16", "int8"),
        default="int8",
        help="how weights are stored (default: int8)",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a default for generating, such as steps=20",
    )
    options.add_force(parser)
    options.add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    from unclip.checkpoints.manifest import describe
    from unclip.stages.sampling import assigned

    try:
        defaults = assigned(arguments.set)
    except ValueError as error:
        raise UsageError(f"--set: {error}") from None
    folder = joined(
        arguments.sources,
        arguments.out,
        arguments.name or arguments.out.name,
        defaults=defaults,
        description=arguments.description,
        licence=arguments.licence,
        storage=arguments.storage,
        force=arguments.force,
    )
    if arguments.json:
        console.result_json({**describe(folder), "folder": str(arguments.out)})
    else:
        console.result(str(arguments.out))


def joined(
    sources: list[Path],
    out: Path,
    name: str,
    *,
    defaults: "Sampling | None" = None,
    description: str = "",
    licence: str = "",
    storage: "Storage" = "int8",
    force: bool = False,
) -> Path:
    """One model folder of the parts that `sources` hold. Raises what `find_parts` and `find_tokenizer` raise."""
    from unclip.checkpoints.io import load_part, save_model
    from unclip.stages.sampling import DEFAULTS

    found = find_parts(sources)
    return save_model(
        out,
        {part: load_part(source, manifest, part) for part, (source, manifest) in found.items()},
        name=name,
        tokenizer=find_tokenizer(found),
        defaults=DEFAULTS if defaults is None else defaults.over(DEFAULTS),
        description=description,
        licence=licence,
        space=next((manifest.space for _, manifest in found.values() if manifest.space), None),
        storage=storage,
        force=force,
    )


def find_parts(sources: list[Path]) -> "dict[str, tuple[Path, Manifest]]":
    """Which folder holds each part. Raises `UsageError` where two hold the same one, a run is not finished, or there is none."""
    from unclip.checkpoints.manifest import MANIFEST, read_manifest

    found: dict[str, tuple[Path, Manifest]] = {}
    for source in sources:
        folder = source / "model" if (source / "model" / MANIFEST).is_file() else source
        if (source / "config.json").is_file() and folder is source:
            raise UsageError(f"{source} is a run that is not finished: `unclip train` goes on with it")
        if not (folder / MANIFEST).is_file():
            console.tell(f"passed over {source}: it holds no model")
            continue
        manifest = read_manifest(folder)
        for name in manifest.parts:
            if name in found:
                raise UsageError(f"both {found[name][0]} and {folder} hold a {name!r}; leave one out")
            found[name] = folder, manifest
    if not found:
        raise UsageError("none of these folders holds a model; give finished runs of `unclip train`")
    return found


def find_tokenizer(found: "dict[str, tuple[Path, Manifest]]") -> str | None:
    """The one tokenizer of the parts' folders. Raises `UsageError` where they differ."""
    holders = {
        manifest.tokenizer.sha256: folder / manifest.tokenizer.file
        for folder, manifest in found.values()
        if manifest.tokenizer is not None
    }
    if len(holders) > 1:
        raise UsageError(
            f"these tokenizers differ, so the stages do not belong together: {', '.join(map(str, holders.values()))}"
        )
    return next(iter(holders.values())).read_text(encoding="utf-8") if holders else None
