"""Ranges of the numbers in training configs, by the name of the setting: one out of range would train something else without a word."""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

from unclip.config import ConfigError, shown

MOST = 2**53
"""The largest whole number of a setting."""

Range = tuple[float, float, str]
"""The least and the largest number, and the range in words. A least number above 0 that is written as `TINY` stands for "above 0"."""
TINY = 5e-324

_COUNT: Range = (1, MOST, "a whole number of at least 1")
_WHOLE: Range = (0, MOST, "a whole number of at least 0")
_SHARE: Range = (0, 1, "a share from 0 to 1")
_FACTOR: Range = (0, math.inf, "a number of at least 0")
_ABOVE: Range = (TINY, math.inf, "a number above 0")
_DECAY: Range = (0, math.nextafter(1, 0), "a number from 0 to below 1")
_SEED: Range = (-(2**63), 2**63 - 1, "a whole number of 64 bits")
_ANY: Range = (-math.inf, math.inf, "a finite number")


def _ranges() -> dict[str, Range]:
    names = {
        _COUNT: """batch blocks blur_kernel buckets channels checkpoints_kept codes context context_width crop dimensions dot_buckets
            embedding factor groups head_channels heads high_size in_channels latent_channels layers low_size micro_batch
            multiples noise_levels out_channels patch preview_every rank replicas samples seam_patch size steps substeps text_width
            transformer_layers validate_every vector_width vocabulary width widths""",
        _WHOLE: """attention_levels augmentation discriminator_start end image_tokens offset perceptual_shift prefetch
            restart_after shift start workers""",
        _SHARE: """bad_share blur_probability decay dropout dropout_caption dropout_hint dropout_image dropout_text
            held_out warmup""",
        _FACTOR: """blur_sigma bsr_strength checkpoint_seconds codebook_weight commitment_weight decoded_gib discriminator_weight
            embedding_noise epsilon guidance kl_weight learning_rate muon_learning_rate noise_level noise_offset perceptual_weight
            seam_level variance_weight weight_decay""",
        _ABOVE: """alpha cache_gib clip clip_norm clip_range crop_fraction embedding_scale min_snr_gamma mlp_ratio
            reconstruction_error scale sigma_data sigma_max sigma_min std threshold timeout velocity_floor""",
        _DECAY: "betas ema_decay",
        _SEED: "seed",
        _ANY: "mean",
    }
    return {name: found for found, listed in names.items() for name in listed.split()}


RANGES = _ranges()
"""Name of a setting -> its range. A test compares the names with those of all stages' configs."""


def check_ranges(config: Any, where: str = "") -> None:
    """Raise `ConfigError`, naming the setting, for a number that is not finite or out of its range, in nested configs too."""
    for name, value in _numbers(config, where):
        low, high, words = RANGES.get(name.rpartition(".")[2].partition("[")[0], _ANY)
        if not math.isfinite(value) or not low <= value <= high:
            raise ConfigError(f"{name} is {shown(value)}: give {words}")


def _numbers(config: Any, where: str) -> Iterator[tuple[str, float]]:
    for field in dataclasses.fields(config):
        value, name = getattr(config, field.name), f"{where}{field.name}"
        if dataclasses.is_dataclass(value):
            yield from _numbers(value, f"{name}.")
        elif isinstance(value, Mapping):
            # Factors of samples have names of the user's; their own class checks them.
            continue
        elif isinstance(value, tuple):
            yield from ((f"{name}[{place}]", one) for place, one in enumerate(value) if _is_number(one))
        elif _is_number(value):
            yield name, value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
