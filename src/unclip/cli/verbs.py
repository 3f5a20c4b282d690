"""Table of the verbs that draw, each with its request, its arguments and the names of its results. Imports no torch."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from unclip.cli import console, options, outputs
from unclip.cli.console import UsageError
from unclip.cli.draw import Job, Verb, request_of

if TYPE_CHECKING:
    from unclip.generate.model import Model
    from unclip.generate.operations import Edit, Interpolate, TextDiff

PICTURE = ("picture", "PICTURE", "a PNG, JPEG or WebP file")
ON_A_PATH = "a .png file for a strip, .gif or .webp for an animation, or a folder for one file each"


def _generate(arguments: argparse.Namespace) -> Job:
    from unclip.generate.operations import Generate, Redraw

    prompts = read_prompts(arguments.prompt, arguments.prompts)
    if arguments.strength is not None and arguments.init is None:
        raise UsageError("--strength goes with --init FILE")
    number = arguments.n or 1
    repeated = [prompt for prompt in prompts for _ in range(number)]

    def stems(model: "Model", seed: int) -> list[str]:
        from unclip.generate.session import picture_seed

        return [
            f"{outputs.slug(prompt)}-{picture_seed(seed, index)}" for index, prompt in enumerate(repeated)
        ]

    if arguments.init is None:
        prompt = prompts[0] if len(prompts) == 1 else tuple(prompts)
        return Job(requests=[(request_of(arguments, Generate, prompt=prompt), [])], stems=stems)
    requests = [request_of(arguments, Redraw, prompt=prompt, n=1) for prompt in repeated]
    return Job(requests=[(request, [arguments.init]) for request in requests], stems=stems)


def _prompt_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--prompts",
        metavar="FILE",
        help="draw each line of a file instead, or each row of a .parquet with prompts or captions; - reads stdin",
    )
    parser.add_argument("--init", type=Path, metavar="FILE", help="image-to-image: start from this picture")
    parser.add_argument(
        "--strength",
        type=options.real,
        metavar="X",
        help="share of the noise levels that is redrawn of --init: near 0 keeps it, 1 hardly keeps its colours (default: 0.7)",
    )
    options.add_cluster(parser)


def _several(suffix: str, arguments: argparse.Namespace, number: int):
    def stems(model: "Model", seed: int) -> list[str]:
        from unclip.generate.session import picture_seed

        stem = arguments.picture.stem
        return [f"{stem}-{suffix}-{picture_seed(seed, index)}" for index in range(number)]

    return stems


def _vary(arguments: argparse.Namespace) -> Job:
    from unclip.generate.operations import Vary

    request = request_of(arguments, Vary)
    assert isinstance(request, Vary)
    return Job(requests=[(request, [arguments.picture])], stems=_several("vary", arguments, request.n))


def _redraw(arguments: argparse.Namespace) -> Job:
    from unclip.generate.operations import Redraw

    request = request_of(arguments, Redraw)
    assert isinstance(request, Redraw)
    return Job(requests=[(request, [arguments.picture])], stems=_several("redraw", arguments, request.n))


def _edit(arguments: argparse.Namespace) -> Job:
    from unclip.generate.operations import Edit

    if arguments.mask is not None and arguments.box is not None:
        raise UsageError("give --mask or --box, not both")
    request = request_of(arguments, Edit)
    assert isinstance(request, Edit)
    sources = [arguments.picture] + ([] if arguments.mask is None else [arguments.mask])
    _check_mask(request, sources)
    return Job(requests=[(request, sources)], stems=_several("edit", arguments, request.n))


def _check_mask(request: "Edit", paths: list[Path]) -> None:
    """Raise `RequestError` for a mask that does not fit, before the model is loaded."""
    from unclip.generate.sources import read_source
    from unclip.stages.windows import read_mask

    picture, *masks = (read_source(path).image for path in paths)
    read_mask(picture, masks[0] if masks else None, request.box)


def _mask_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--mask",
        type=Path,
        metavar="FILE",
        help="a picture of the same size, white or transparent where to draw (default: PICTURE's transparent pixels)",
    )


def _outpaint(arguments: argparse.Namespace) -> Job:
    from unclip.generate.operations import Outpaint

    request = request_of(arguments, Outpaint)
    return Job(
        requests=[(request, [arguments.picture])],
        stems=lambda model, seed: [f"{arguments.picture.stem}-outpaint-{seed}"],
    )


def _interpolate(arguments: argparse.Namespace) -> Job:
    from unclip.generate.operations import Interpolate

    request = request_of(arguments, Interpolate)
    assert isinstance(request, Interpolate)
    stem = f"{arguments.first.stem}-to-{arguments.last.stem}"
    return _path(arguments, request, [arguments.first, arguments.last], stem)


def _text_diff(arguments: argparse.Namespace) -> Job:
    from unclip.generate.operations import TextDiff

    request = request_of(arguments, TextDiff)
    assert isinstance(request, TextDiff)
    stem = f"{arguments.picture.stem}-to-{outputs.slug(request.target)}"
    return _path(arguments, request, [arguments.picture], stem)


def _path(
    arguments: argparse.Namespace, request: "Interpolate | TextDiff", sources: list[Path], stem: str
) -> Job:
    from unclip.generate.operations.path import path_thetas

    count = len(path_thetas(request.thetas, request.frames))
    width = len(str(count))
    apart = outputs.is_folder(arguments.output)
    stems = [f"{stem}-{index:0{width}}" for index in range(1, count + 1)] if apart else [stem]
    return Job(requests=[(request, sources)], stems=lambda model, seed: stems, joined=True)


def _upscale(arguments: argparse.Namespace) -> Job:
    from unclip.generate.operations import Upscale

    if arguments.steps is not None and arguments.upsampler_steps is None:
        arguments.upsampler_steps, arguments.steps = arguments.steps, None
    request = request_of(arguments, Upscale)
    assert isinstance(request, Upscale)

    def stems(model: "Model", seed: int) -> list[str]:
        from unclip.generate.sources import read_source
        from unclip.stages.cascade import plan_enlargement

        image = read_source(arguments.picture).image
        _, (width, height) = plan_enlargement(model.parts.cascade, *image.size, request.size)
        return [f"{arguments.picture.stem}-{width}x{height}"]

    return Job(requests=[(request, [arguments.picture])], stems=stems)


def _steps_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--steps", type=options.whole, metavar="N", help="sampler steps of every upsampler that takes part"
    )


def _reconstruct(arguments: argparse.Namespace) -> Job:
    from unclip.generate.operations import Reconstruct

    if arguments.dimensions is not None:
        return _components(arguments)
    if arguments.basis_folder is not None:
        raise UsageError("--basis says whose components --dimensions counts; give both")

    def finish(made: list[dict]) -> None:
        for one in made:
            console.tell(f"{one['results']['psnr']} dB from the original at the decoder's size")

    return Job(
        requests=[(request_of(arguments, Reconstruct), [arguments.picture])],
        stems=lambda model, seed: [f"{arguments.picture.stem}-reconstructed"],
        finish=finish,
    )


def _components(arguments: argparse.Namespace) -> Job:
    from unclip.generate.operations import Components

    others = [] if arguments.basis_folder is None else outputs.pictures_in(arguments.basis_folder)
    dimensions = tuple(dict.fromkeys(arguments.dimensions or ()))
    request = request_of(arguments, Components, dimensions=dimensions, basis="given" if others else "model")
    stem = arguments.picture.stem
    joined = len(dimensions) > 1 and arguments.output is not None
    return Job(
        requests=[(request, [arguments.picture, *others])],
        stems=lambda model, seed: [f"{stem}-{count}" for count in dimensions],
        joined=joined,
    )


def _basis_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--basis",
        dest="basis_folder",
        type=Path,
        metavar="FOLDER",
        help="pictures whose principal components to use (default: the autoregressive prior's)",
    )


def _dimensions_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dimensions",
        type=options.listed(options.whole),
        metavar="N,N,...",
        help="decode the first N principal components of the embedding instead: the verb `components`",
    )
    _basis_option(parser)
    parser.set_defaults(milliseconds=120)


DRAW = (
    Verb(
        name="generate",
        help="draw pictures of a prompt (text to image, or image-to-image with --init)",
        kind="generate",
        job=_generate,
        positional=(("prompt", "PROMPT?", "what to draw, in quotes"),),
        output="a .png file, or a folder (default: here, named after prompt and seed)",
        extra=_prompt_options,
    ),
    Verb(
        name="vary",
        help="draw variations of a picture",
        kind="vary",
        job=_vary,
        positional=(PICTURE,),
        pictures=("picture",),
        output="a .png file, or a folder (default: here, named after picture and seed)",
    ),
    Verb(
        name="interpolate",
        help="draw pictures between two pictures",
        kind="interpolate",
        job=_interpolate,
        positional=(("first", "FIRST", "a PNG, JPEG or WebP file"), ("last", "LAST", "another one")),
        pictures=("first", "last"),
        output=ON_A_PATH,
        path=True,
        grid=False,
    ),
)
EDIT = (
    Verb(
        name="edit",
        help="inpainting: draw a part of a picture under a prompt, keep all other pixels",
        kind="edit",
        job=_edit,
        positional=(PICTURE, ("prompt", "PROMPT", "what the whole result shows, in quotes")),
        pictures=("picture",),
        output="a .png file, or a folder (default: here, named after picture and seed)",
        extra=_mask_option,
    ),
    Verb(
        name="text-diff",
        aliases=("diff",),
        help="edit a picture along the difference of two captions",
        kind="text_diff",
        job=_text_diff,
        positional=(PICTURE, ("target", "TARGET", "caption that the picture is turned to, in quotes")),
        pictures=("picture",),
        output=ON_A_PATH,
        path=True,
        grid=False,
    ),
    Verb(
        name="outpaint",
        help="outpainting: continue a picture beyond its sides",
        kind="outpaint",
        job=_outpaint,
        positional=(
            PICTURE,
            ("prompt", "PROMPT?", "what the whole result shows (default: more of the same)"),
        ),
        pictures=("picture",),
        output="a .png file, or a folder (default: here, named after picture and seed)",
        grid=False,
    ),
    Verb(
        name="redraw",
        help="image-to-image: draw a prompt, starting from a picture",
        kind="redraw",
        job=_redraw,
        positional=(PICTURE, ("prompt", "PROMPT", "what the result shows, in quotes")),
        pictures=("picture",),
        output="a .png file, or a folder (default: here, named after picture and seed)",
    ),
    Verb(
        name="upscale",
        help="enlarge a picture of any shape with the upsamplers",
        kind="upscale",
        job=_upscale,
        positional=(PICTURE,),
        pictures=("picture",),
        output="a .png file, or a folder (default: here, named after the picture and its new size)",
        grid=False,
        extra=_steps_option,
    ),
)
INSPECT = (
    Verb(
        name="reconstruct",
        help="decode a picture from its own embedding and noise",
        kind="reconstruct",
        job=_reconstruct,
        positional=(PICTURE,),
        pictures=("picture",),
        grid=False,
        extra=_dimensions_options,
    ),
    Verb(
        name="components",
        help="decode a picture from the first principal components of its embedding",
        kind="components",
        job=_components,
        positional=(PICTURE, ("dimensions", "N,N,...", "numbers of components")),
        types={"dimensions": options.listed(options.whole)},
        hidden=("basis",),
        pictures=("picture",),
        output="a .png file (several N side by side), or a folder (default: here, one file each)",
        path=True,
        grid=False,
        extra=_basis_option,
    ),
)


def read_prompts(prompt: str | None, file: str | None) -> list[str]:
    """Prompts: the one given, or the lines of a file that are not blank. Raises `UsageError` for none, or both."""
    if (prompt is None) == (file is None):
        raise UsageError("say what to draw: either PROMPT or --prompts FILE")
    if file is not None and file.lower().endswith(".parquet"):
        from unclip.data.stream.rows import captions_of

        try:
            lines = captions_of(file)
        except ValueError as error:
            raise UsageError(str(error)) from None
    else:
        lines = [(prompt or "").strip()] if file is None else options.read_lines(file)
    prompts = [line for line in lines if line]
    if not prompts:
        raise UsageError(
            "the prompt is empty; say what to draw" if file is None else f"{file} holds no prompt"
        )
    return prompts
