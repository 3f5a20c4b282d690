"""Registry of model families, by the kind of the decoder's config. Modules are imported when needed."""

import importlib
from typing import Any

from unclip.stages.family import Family

FAMILIES: dict[str, tuple[str, str]] = {
    "decoder": ("unclip.stages.families.unclip", "UnclipFamily"),
    "decoder_kandinsky": ("unclip.stages.families.kandinsky", "KandinskyFamily"),
    "decoder_glide": ("unclip.stages.families.glide", "GlideFamily"),
    "text_decoder": ("unclip.stages.families.stable_diffusion", "StableDiffusionFamily"),
}
"""Kind of the decoder -> module and class."""


def family_of(config: Any, autoencoder: Any | None = None) -> Family:
    """Family of a decoder, from its config and that of the autoencoder beside it. Raises `ValueError` for an unknown kind."""
    if config.kind not in FAMILIES:
        raise ValueError(
            f"a decoder of the kind {config.kind!r} has no family: choose from {', '.join(FAMILIES)}"
        )
    module, name = FAMILIES[config.kind]
    return getattr(importlib.import_module(module), name)(config, autoencoder)
