"""Components that several diffusers folders share: CLIP in two folders, and a prior with its scheduler."""

from pathlib import Path

from unclip.errors import ModelError
from unclip.formats.folder import read_json, weight_files
from unclip.formats.key_maps import clip as clip_map
from unclip.formats.key_maps import prior as prior_map
from unclip.formats.key_maps.options import Options
from unclip.formats.preprocessing import of_folder
from unclip.formats.public import PublicPart
from unclip.formats.tokenizer import check_tower
from unclip.networks.clip import ClipConfig
from unclip.tokenizers.clip import ClipTokenizer


def clip_config(folder: Path, tokenizer: ClipTokenizer, *, vision: bool, prefix: str = "") -> ClipConfig:
    """Config of a CLIP whose towers have folders of their own; its embeddings are not normalised.

    `prefix` begins the names of the folders.
    """
    text = read_json(folder / f"{prefix}text_encoder" / "config.json")
    tower = read_json(folder / f"{prefix}image_encoder" / "config.json") if vision else None
    preprocessing = None
    if tower is not None:
        preprocessing = of_folder(folder, clip_map.image_size(tower, str(folder)))
    config = clip_map.transformers_config(
        text,
        tower,
        embedding=Options(text, f"{folder}/text_encoder").take("projection_dim", int, 512),
        end=tokenizer.end,
        where=str(folder),
        normalize=False,
        preprocessing=preprocessing,
    )
    check_tower(tokenizer, config.text.vocabulary, config.text.context, folder / f"{prefix}text_encoder")
    return config


def clip_part(folder: Path, config: ClipConfig, prefix: str = "") -> PublicPart:
    """That CLIP."""
    towers = ["text_encoder"] + (["image_encoder"] if config.towers == "both" else [])
    table = clip_map.split_towers("text_encoder/", "image_encoder/" if len(towers) == 2 else None)
    files = {f"{tower}/": weight_files(folder / f"{prefix}{tower}") for tower in towers}
    return PublicPart(kind="clip", config=config, table=table, files=files)


def prior_part(folder: Path, clip: ClipConfig, scheduler: str, prefix: str = "") -> PublicPart:
    """A `PriorTransformer` and its scheduler, checked against its CLIP; `prefix` begins the names of the folders."""
    home = folder / f"{prefix}prior"
    config = prior_map.prior_config(
        read_json(home / "config.json"),
        read_json(folder / f"{prefix}{scheduler}" / "scheduler_config.json"),
        str(home),
    )
    if (config.embedding, config.context) != (clip.embedding, clip.text.context):
        raise ModelError(
            f"{folder}: the prior reads embeddings of {config.embedding} and {config.context} tokens, its CLIP gives "
            f"{clip.embedding} and {clip.text.context}"
        )
    files = {"prior/": weight_files(home)}
    return PublicPart(kind="prior_diffusion", config=config, table=prior_map.PRIOR, files=files)
