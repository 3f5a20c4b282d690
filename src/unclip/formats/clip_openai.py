"""OpenAI's CLIP: one file, a TorchScript archive or a state dict, without config and tokenizer."""

from pathlib import Path

from unclip.formats.key_maps.clip import openai_config, openai_table, space_name
from unclip.formats.public import FOLDER, PublicModel, PublicPart, Reader
from unclip.formats.tokenizer import check_vocabulary
from unclip.formats.weights import open_weights
from unclip.tokenizers.clip import ClipTokenizer


def open_folder(file: Path, reader: Reader = FOLDER) -> PublicModel:
    """The CLIP of a file, with the reader's tokenizer."""
    (weights,) = reader.safe([file])
    with open_weights({"": [weights]}) as readers:
        config = openai_config({name: read() for name, read in readers.items()}, str(file))
    part = PublicPart(kind="clip", config=config, table=openai_table(), files={"": (weights,)})
    tokenizer = reader.required_tokenizer(ClipTokenizer)
    check_vocabulary(tokenizer, config.text.vocabulary, file)
    # The one for larger images was trained further, so its embeddings are its own.
    space = space_name(config) if config.vision.size == 224 else ""
    return PublicModel(
        format="openai",
        folder=file,
        licence="",
        parts={"clip": part},
        tokenizer=lambda: tokenizer,
        space=space,
    )
