"""What public CLIPs do to a picture before their first layer: normalisation is read, another way of resizing is refused.

Pictures are resized here so that the shorter side has the tower's size (bicubic, antialiased), cut to the middle square and
normalised, which is what CLIP's own processors do. Imports no torch.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unclip.errors import ModelError
from unclip.formats.folder import read_json
from unclip.formats.key_maps.options import Options, Reference, only

RedGreenBlue = tuple[float, float, float]

# OpenAI's normalisation, which every public ViT CLIP uses.
MEAN: RedGreenBlue = (0.48145466, 0.4578275, 0.40821073)
STD: RedGreenBlue = (0.26862954, 0.26130258, 0.27577711)

TRANSFORMERS = Reference(
    name="CLIPImageProcessor",
    honoured=frozenset(
        {"size", "crop_size", "do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std"}
        | {"default_to_square"}
    ),
    fixed={
        "do_resize": only(True),
        "do_center_crop": only(True),
        # Pillow's number of bicubic.
        "resample": only(3, None),
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
    honoured=frozenset({"size", "mean", "std"}),
    fixed={
        "mode": only("RGB"),
        # "random" is for training; pictures are then read with bicubic.
        "interpolation": only("bicubic", "random", None),
        "resize_mode": only("shortest", None),
    },
    # Pads what "longest" leaves.
    inert=frozenset({"fill_color"}),
)


def of_folder(folder: Path, size: int) -> tuple[RedGreenBlue, RedGreenBlue]:
    """Mean and standard deviation from a folder in transformers' layout, OpenAI's if it names none.

    `size` is the side of the pictures that the tower reads. As transformers does, `processor_config.json` of version 5 is
    preferred to `preprocessor_config.json`. Raises `ModelError` for a damaged file, or an option that is not supported.
    """
    for home in (folder, folder / "feature_extractor", folder / "image_processor"):
        file = home / "processor_config.json"
        if file.is_file() and isinstance(inner := read_json(file).get("image_processor"), dict):
            return _transformers(inner, size, f"{file}, image_processor")
        file = home / "preprocessor_config.json"
        if file.is_file():
            return _transformers(read_json(file), size, str(file))
    return MEAN, STD


def _transformers(data: Mapping[str, Any], size: int, where: str) -> tuple[RedGreenBlue, RedGreenBlue]:
    options = Options(data, where)
    options.check(TRANSFORMERS)
    for name, value in data.items():
        if name.startswith("do_") and value and name not in TRANSFORMERS.options:
            raise ModelError(
                f"{where}: the option {name!r} of {TRANSFORMERS.name} is not known to this version of unclip"
            )
    shortest, square = data.get("size"), data.get("crop_size")
    if data.get("default_to_square") and not isinstance(shortest, dict | None):
        raise ModelError(f"{where}: default_to_square is True; pictures are only resized to keep their shape")
    if shortest not in (None, size, {"shortest_edge": size}):
        raise ModelError(
            f"{where}: size is {shortest!r}; pictures are only resized to a shortest_edge of {size}, as the tower reads"
        )
    if square not in (None, size, {"height": size, "width": size}, {"shortest_edge": size}):
        raise ModelError(f"{where}: crop_size is {square!r}, the tower reads {size} x {size} pixels")
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if options.take("do_normalize", bool, True):
        mean, std = _three(options, "image_mean", MEAN), _three(options, "image_std", STD)
    scale = options.take("rescale_factor", float, 1 / 255) if options.take("do_rescale", bool, True) else 1.0
    return _scaled(mean, std, 255 * scale, where)


def of_openclip(data: Mapping[str, Any], size: int, where: str) -> tuple[RedGreenBlue, RedGreenBlue]:
    """Mean and standard deviation from OpenCLIP's `preprocess_cfg`. Raises `ModelError` as `of_folder`."""
    options = Options(data, f"{where}, preprocess_cfg")
    options.check(OPENCLIP)
    given = data.get("size")
    if given not in (None, size, [size], [size, size]):
        raise ModelError(f"{options.where}: size is {given!r}, the tower reads {size} x {size} pixels")
    return _three(options, "mean", MEAN), _three(options, "std", STD)


def _three(options: Options, name: str, default: RedGreenBlue) -> RedGreenBlue:
    values = options.data.get(name)
    if values is None:
        return default
    values = list(values) if isinstance(values, list | tuple) else [values] * 3
    numbers = [one for one in values if isinstance(one, int | float) and not isinstance(one, bool)]
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
