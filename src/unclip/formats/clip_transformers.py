"""CLIP in transformers' layout: both towers in one file, `CLIPModel`."""

from pathlib import Path

from unclip.formats.folder import licence_of, normalisation_of, read_json, weight_files
from unclip.formats.key_maps.clip import TRANSFORMERS, transformers_config
from unclip.formats.public import FOLDER, PublicModel, PublicPart, Reader
from unclip.formats.tokenizer import read_tokenizer


def open_folder(folder: Path, reader: Reader = FOLDER) -> PublicModel:
    """The CLIP of a folder."""
    data = read_json(folder / "config.json")
    tokenizer = read_tokenizer(folder)
    config = transformers_config(
        data.get("text_config") or {},
        data.get("vision_config") or {},
        embedding=int(data.get("projection_dim") or 512),
        end=tokenizer.end,
        where=str(folder),
        normalisation=normalisation_of(folder),
    )
    part = PublicPart(kind="clip", config=config, table=TRANSFORMERS, files={"": weight_files(folder)})
    return PublicModel(
        format="clip",
        folder=folder,
        licence=licence_of(folder),
        parts={"clip": part},
        tokenizer=lambda: tokenizer,
    )
