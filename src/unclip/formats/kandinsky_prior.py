"""Kandinsky's priors in diffusers' layout: `KandinskyPriorPipeline` (2.1) and `KandinskyV22PriorPipeline` (2.2)."""

from pathlib import Path

from unclip.formats.diffusers_folder import clip_config, clip_part, prior_part
from unclip.formats.folder import licence_of
from unclip.formats.key_maps.clip import space_name
from unclip.formats.public import FOLDER, PublicModel, Reader
from unclip.formats.tokenizer import read_tokenizer
from unclip.stages.sampling import PriorSampling, Sampling

DEFAULTS = Sampling(prior=PriorSampling(steps=25, sampler="ddpm", guidance=4.0, candidates=1))


def open_folder(folder: Path, reader: Reader = FOLDER, *, prefix: str = "") -> PublicModel:
    """CLIP and prior of a folder; `prefix` begins the names of the folders within."""
    tokenizer = read_tokenizer(folder / f"{prefix}tokenizer")
    clip = clip_config(folder, tokenizer, vision=True, prefix=prefix)
    return PublicModel(
        format="kandinsky prior",
        folder=folder,
        licence=licence_of(folder),
        parts={
            "clip": clip_part(folder, clip, prefix),
            "prior": prior_part(folder, clip, "scheduler", prefix),
        },
        tokenizer=lambda: tokenizer,
        defaults=DEFAULTS,
        space=space_name(clip),
    )
