"""An autoencoder alone in diffusers' layout: the folder of an `AutoencoderKL`, such as the retrained ones for Stable Diffusion."""

from pathlib import Path

from unclip.formats.folder import licence_of, read_json, weight_files
from unclip.formats.key_maps import autoencoder as autoencoder_map
from unclip.formats.public import FOLDER, PublicModel, PublicPart, Reader


def open_folder(folder: Path, reader: Reader = FOLDER) -> PublicModel:
    """The autoencoder of a folder, to be taken as a part."""
    return PublicModel(
        format="autoencoder",
        folder=folder,
        licence=licence_of(folder),
        parts={"autoencoder": autoencoder_part(folder)},
        tokenizer=None,
    )


def autoencoder_part(folder: Path) -> PublicPart:
    """The autoencoder of a folder that holds `config.json` and weights."""
    config = autoencoder_map.read_config(read_json(folder / "config.json"), str(folder))
    return PublicPart(
        kind=config.kind,
        config=config,
        table=autoencoder_map.table("vae/"),
        files={"vae/": weight_files(folder)},
    )
