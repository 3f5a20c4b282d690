"""ECLIPSE's priors (arXiv 2312.04655): a `PriorTransformer` without a label, which predicts z_i in one step."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from unclip.checkpoints.keymap import Table, absent, row
from unclip.errors import ModelError
from unclip.formats.folder import licence_of, read_json, weight_files
from unclip.formats.key_maps import prior as prior_map
from unclip.formats.key_maps.options import Options
from unclip.formats.public import FOLDER, PublicModel, PublicPart, Reader
from unclip.networks.prior_diffusion import DiffusionPriorConfig
from unclip.stages.sampling import PriorSampling, Sampling

# Embeddings are not standardised; the class has buffers for it nevertheless, which are not used.
TABLE = Table(
    [
        *(one for one in prior_map.ROWS if not one.ours.startswith(("label.", "embedding_"))),
        row("embedding_mean", form=absent(0.0)),
        row("embedding_std", form=absent(1.0)),
    ],
    (r"clip_(mean|std)",),
)

# It was trained without dropping captions.
DEFAULTS = Sampling(prior=PriorSampling(steps=1, sampler="ddpm", guidance=1.0, candidates=1))


def read_config(data: Mapping[str, Any], where: str) -> DiffusionPriorConfig:
    """Config of the prior. Raises `ModelError` for a diffusion prior, which needs the rest of its folder."""
    if Options(data, where).take("additional_embeddings", int, 4) == 4:
        raise ModelError(
            f"{where} holds a diffusion prior without its scheduler and CLIP: give the whole model's folder, the one above"
        )
    return replace(prior_map.transformer_config(data, where, additional=3), timed=False)


def open_folder(folder: Path, reader: Reader = FOLDER) -> PublicModel:
    """The prior in a folder, without CLIP or tokenizer."""
    part = PublicPart(
        kind="prior_diffusion",
        config=read_config(read_json(folder / "config.json"), str(folder)),
        table=TABLE,
        files={"": weight_files(folder)},
    )
    return PublicModel(
        format="eclipse",
        folder=folder,
        licence=licence_of(folder),
        parts={"prior": part},
        tokenizer=None,
        defaults=DEFAULTS,
    )
