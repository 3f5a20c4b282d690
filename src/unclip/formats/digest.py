"""Digest of a public model that stays the same when config classes change.

Pictures record the digest, and version 0.1 hashed the `repr` of the configs. `stable_repr` writes them as 0.1 did: with
fields that were retired since, and without fields that were added since and have their default.
"""

import dataclasses
from typing import Any

FIELDS: dict[str, str] = {
    "ClipConfig": "kind embedding vision text normalize loss towers",
    "VisionConfig": "size patch width layers heads mlp_ratio activation pool mean std",
    "TextConfig": "vocabulary context end width layers heads activation",
    "DiffusionPriorConfig": "kind embedding context text_width width layers heads activation dropout_text=0.1 null timed "
    "clip_range process",
    "LaionPriorConfig": "kind embedding context layers heads head_channels mlp_ratio cosine rotary norm_in norm_out "
    "norm_inside project_out states text_tokens label_tokens image_tokens labels null clip_range process",
    "DecoderConfig": "kind net size embedding embedding_scale image_tokens caption inpainting dropout_image=0.1 "
    "dropout_caption=0.5 dropout_hint=0.5 augmentation uncertainty=False process",
    "CaptionConfig": "vocabulary context end width layers heads activation tower start",
    "UnetConfig": "kind in_channels out_channels channels multiples blocks attention_levels head_channels context_width "
    "vector_width scale_shift_norm resample norm groups dropout patch label_scale=1.0",
    "UpsamplerConfig": "kind net process low_size high_size degradation='blur' bsr_strength=1.0 blur_kernel=3 "
    "blur_sigma=0.6 blur_probability=1.0 noise_level=0.0 seam_level=0.0 seam_patch=8 crop_fraction=1.0 residual last_step",
    "ProcessConfig": "parametrization schedule steps sigma_data learned_variance sigma_min sigma_max",
}
"""Fields of each config class in version 0.1, in order; retired ones with the value that public formats had."""


def stable_repr(config: Any) -> str:
    """`repr` of a config as version 0.1 had it."""
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        return repr(config)
    name = type(config).__name__
    fields = {field.name: field for field in dataclasses.fields(config)}
    listed = FIELDS.get(name, " ".join(fields)).split()
    added = [
        field.name
        for field in fields.values()
        if field.name not in listed and getattr(config, field.name) != default_of(field)
    ]
    values = [
        one if "=" in one else f"{one}={stable_repr(getattr(config, one))}" for one in [*listed, *added]
    ]
    return f"{name}({', '.join(values)})"


def default_of(field: dataclasses.Field[Any]) -> Any:
    """Default of a dataclass field, `MISSING` if it has none."""
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
