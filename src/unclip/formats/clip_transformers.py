"""CLIP in transformers' layout: both towers in one file, `CLIPModel`."""

from pathlib import Path
from typing import Any

from unclip.formats.folder import licence_of, read_json, weight_files
from unclip.formats.key_maps.clip import BOTH, TRANSFORMERS, image_size, transformers_config
from unclip.formats.key_maps.options import Options
from unclip.formats.preprocessing import of_folder
from unclip.formats.public import FOLDER, PublicModel, PublicPart, Reader
from unclip.formats.tokenizer import check_tower, read_tokenizer


def open_folder(folder: Path, reader: Reader = FOLDER) -> PublicModel:
    """The CLIP of a folder."""
    data = read_json(folder / "config.json")
    options = Options(data, str(folder / "config.json"))
    options.check(BOTH)
    text, vision = _tower(options, "text_config"), _tower(options, "vision_config")
    positions = Options(text, f"{folder}, text").take("max_position_embeddings", int, 77)
    tokenizer = read_tokenizer(folder, default=positions)
    config = transformers_config(
        text,
        vision,
        embedding=options.take("projection_dim", int, 512),
        end=tokenizer.end,
        where=str(folder),
        preprocessing=of_folder(folder, image_size(vision, str(folder))),
    )
    check_tower(tokenizer, config.text.vocabulary, config.text.context, folder)
    part = PublicPart(kind="clip", config=config, table=TRANSFORMERS, files={"": weight_files(folder)})
    return PublicModel(
        format="clip",
        folder=folder,
        licence=licence_of(folder),
        parts={"clip": part},
        tokenizer=lambda: tokenizer,
    )


def _tower(options: Options, name: str) -> dict[str, Any]:
    """Config of a tower. Old files have the same under another name too, which prevails; the width of the embeddings is the
    model's, not the tower's.
    """
    config = options.take(name, dict, {}) | options.take(f"{name}_dict", dict, {})
    return {key: value for key, value in config.items() if key != "projection_dim"}
