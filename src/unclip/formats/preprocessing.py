"""What public CLIPs do to a picture before their first layer, from the configs of their image processors.

CLIP's own processors resize a picture so that its shorter side has the tower's size (bicubic, antialiased), cut it to the
middle square and normalise it; some resize it to the square without regard to its shape. Anything else is refused by name.
Imports no torch.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from unclip.config import shown
from unclip.errors import ModelError
from unclip.formats.folder import read_json
from unclip.formats.key_maps.options import MOST, Options, Reference, only

RedGreenBlue = tuple[float, float, float]

# OpenAI's normalisation, which every public ViT CLIP uses.
MEAN: RedGreenBlue = (0.48145466, 0.4578275, 0.40821073)
STD: RedGreenBlue = (0.26862954, 0.26130258, 0.27577711)

Resize = Literal["shortest", "squash"]
Interpolation = Literal["bicubic", "bilinear"]


class Preprocessing(NamedTuple):
    """Mean and standard deviation of the channels in [0, 1], and how a picture becomes a square."""

    mean: RedGreenBlue = MEAN
    std: RedGreenBlue = STD
    resize: Resize = "shortest"
    interpolation: Interpolation = "bicubic"


TRANSFORMERS = Reference(
    name="CLIPImageProcessor",
    honoured=frozenset(
        {"size", "crop_size", "do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std"}
        | {"default_to_square", "do_center_crop", "resample"}
    ),
    fixed={
        "do_resize": only(True),
        "do_pad": only(None, False),
        "image_processor_type": only(
            "CLIPImageProcessor",
            "CLIPImageProcessorFast",
            "CLIPImageProcessorPil",
            "CLIPFeatureExtractor",
            None,
        ),
        "feature_extractor_type": only("CLIPFeatureExtractor", "CLIPImageProcessor", None),
    },
    # Colours are always converted here. The rest is about containers, devices and padding.
    inert=frozenset(
        {"do_convert_rgb", "pad_size", "data_format", "input_data_format", "device", "return_tensors"}
    )
    | {"disable_grouping", "image_seq_length"},
    closed=False,
)

OPENCLIP = Reference(
    name="OpenCLIP's preprocess_cfg",
    honoured=frozenset({"size", "mean", "std", "interpolation", "resize_mode"}),
    fixed={"mode": only("RGB")},
    # Pads what "longest" leaves.
    inert=frozenset({"fill_color"}),
)


_HOMES = ("feature_extractor", "image_processor", "prior_image_processor")
"""Folders of the processor within a model's."""
_RESAMPLE: dict[int | None, Interpolation] = {None: "bicubic", 3: "bicubic", 2: "bilinear"}
"""Pillow's numbers."""


def of_folder(folder: Path, size: int) -> Preprocessing:
    """Preprocessing from a folder in transformers' layout, OpenAI's if it names none.

    `size` is the side of the pictures that the tower reads. As transformers does, `processor_config.json` of version 5 is
    preferred to `preprocessor_config.json`. Raises `ModelError` for a damaged file, or an option that is not supported.
    """
    for home in (folder, *(folder / name for name in _HOMES)):
        file = home / "processor_config.json"
        if file.is_file() and isinstance(inner := read_json(file).get("image_processor"), dict):
            return _transformers(inner, size, f"{file}, image_processor")
        file = home / "preprocessor_config.json"
        if file.is_file():
            return _transformers(read_json(file), size, str(file))
    return Preprocessing()


def _transformers(data: Mapping[str, Any], size: int, where: str) -> Preprocessing:
    options = Options(data, where)
    options.check(TRANSFORMERS)
    for name, value in data.items():
        if name.startswith("do_") and value and name not in TRANSFORMERS.options:
            raise ModelError(
                f"{where}: the option {name!r} of {TRANSFORMERS.name} is not known to this version of unclip"
            )
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if options.take("do_normalize", bool, True):
        mean, std = _three(options, "image_mean", MEAN), _three(options, "image_std", STD)
    scale = options.take("rescale_factor", float, 1 / 255) if options.take("do_rescale", bool, True) else 1.0
    mean, std = _scaled(mean, std, 255 * scale, where)
    resample = data.get("resample")
    if not isinstance(resample, int | None) or resample not in _RESAMPLE:
        raise ModelError(
            f"{where}: resample is {shown(resample)}; pictures are resized by 3 (bicubic) or 2 (bilinear)"
        )
    return Preprocessing(mean, std, _resize(options, size), _RESAMPLE[resample])


def _resize(options: Options, size: int) -> Resize:
    """How transformers' processor makes squares. Raises `ModelError` where it makes other shapes."""
    data, where = options.data, options.where
    given, square = data.get("size"), data.get("crop_size")
    whole = {"height": size, "width": size}
    if square not in (None, size, whole, {"shortest_edge": size}):
        raise ModelError(f"{where}: crop_size is {square!r}, the tower reads {size} x {size} pixels")
    if given == whole or (data.get("default_to_square") and given == size):
        return "squash"
    if data.get("default_to_square") and not isinstance(given, dict | None):
        raise ModelError(
            f"{where}: default_to_square is True with size {given!r}, the tower reads {size} x {size} pixels"
        )
    if given not in (None, size, {"shortest_edge": size}):
        raise ModelError(
            f"{where}: size is {given!r}; pictures are only resized to a shortest_edge, or to a height and a width, of "
            f"{size}, as the tower reads"
        )
    if not options.take("do_center_crop", bool, True):
        raise ModelError(
            f"{where}: do_center_crop is False with size {given!r}: the pictures are no squares; the tower reads "
            f"{size} x {size} pixels"
        )
    return "shortest"


def of_openclip(data: Mapping[str, Any], size: int, where: str) -> Preprocessing:
    """Preprocessing from OpenCLIP's `preprocess_cfg`. Raises `ModelError` as `of_folder`."""
    options = Options(data, f"{where}, preprocess_cfg")
    options.check(OPENCLIP)
    given = data.get("size")
    if given not in (None, size, [size], [size, size]):
        raise ModelError(f"{options.where}: size is {given!r}, the tower reads {size} x {size} pixels")
    # "random" is for training; pictures are then read with bicubic.
    interpolations: dict[Any, Interpolation] = {
        "bicubic": "bicubic",
        "random": "bicubic",
        "bilinear": "bilinear",
    }
    resizes: dict[Any, Resize] = {"shortest": "shortest", "squash": "squash"}
    return Preprocessing(
        _three(options, "mean", MEAN),
        _three(options, "std", STD),
        options.one_of("resize_mode", resizes, "shortest"),
        options.one_of("interpolation", interpolations, "bicubic"),
    )


def _three(options: Options, name: str, default: RedGreenBlue) -> RedGreenBlue:
    values = options.data.get(name)
    if values is None:
        return default
    values = list(values) if isinstance(values, list | tuple) else [values] * 3
    numbers = [
        one for one in values if isinstance(one, int | float) and type(one) is not bool and abs(one) <= MOST
    ]
    if len(numbers) != 3 or len(values) != 3 or not all(map(math.isfinite, numbers)):
        raise ModelError(f"{options.where} is damaged: {name} is not three numbers")
    if name.endswith("std") and 0 in numbers:
        raise ModelError(f"{options.where} is damaged: {name} is zero")
    return float(numbers[0]), float(numbers[1]), float(numbers[2])


def _scaled(
    mean: RedGreenBlue, std: RedGreenBlue, scale: float, where: str
) -> tuple[RedGreenBlue, RedGreenBlue]:
    """For values in [0, 1] that the processor multiplies by `scale` first."""
    if not math.isfinite(scale) or scale <= 0:
        raise ModelError(f"{where}: rescale_factor is {scale / 255!r}, expected a positive number")
    if math.isclose(scale, 1.0, rel_tol=1e-6):
        return mean, std
    first = tuple(one / scale for one in mean)
    second = tuple(one / scale for one in std)
    return (first[0], first[1], first[2]), (second[0], second[1], second[2])
