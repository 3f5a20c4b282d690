"""`unclip accelerate`: a model's nets prepared for OpenVINO, and what that costs in likeness."""

import argparse
from dataclasses import asdict

from unclip.cli import console, options


def add(verbs) -> None:
    parser = options.verb(
        verbs,
        "accelerate",
        "prepare a model for the backend openvino, and report the likeness of its pictures",
    )
    options.add_model(parser)
    parser.add_argument(
        "--precision",
        choices=("float32", "bfloat16", "int8"),
        default="int8",
        help="what the nets compute in; int8 is calibrated on pictures that the model draws (default: int8)",
    )
    parser.add_argument(
        "--captions",
        metavar="FILE",
        help="draw the lines of a file; - reads stdin (default: eight captions of everyday things)",
    )
    parser.add_argument(
        "--size", type=options.positive, metavar="N", help="side of the pictures (default: the model's)"
    )
    options.add_seed(parser)
    parser.add_argument(
        "--set",
        dest="settings",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a sampling setting, such as steps=10; repeatable (default: the model's)",
    )
    options.add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    captions = None if arguments.captions is None else options.read_lines(arguments.captions)

    from unclip.generate.calibration import CAPTIONS, accelerate
    from unclip.stages.sampling import assigned

    found = accelerate(
        arguments.model,
        arguments.precision,
        captions=CAPTIONS if captions is None else captions,
        seed=1 if arguments.seed is None else arguments.seed,
        size=arguments.size,
        settings={"sampling": assigned(arguments.settings)},
        parts=dict(arguments.part),
        adapters=dict(arguments.adapter),
    )
    if arguments.json:
        console.result_json({**asdict(found), "accepted": found.accepted})
        return
    distance = "" if found.clip_distance is None else f", CLIP distance {found.clip_distance:.4f}"
    console.result(
        f"{found.precision}: {found.pictures} pictures, PSNR {found.psnr:.1f} dB (least {found.least_psnr:.1f}){distance}; "
        f"{found.seconds:.2f} s of processor time a picture, by torch in float32 {found.torch_seconds:.2f} s"
    )
