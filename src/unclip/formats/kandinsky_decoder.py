"""Kandinsky's decoders in diffusers' layout: folders of 2.1 and 2.2, with and without inpainting.

Such a folder holds the decoder, its autoencoder and, in 2.1, the multilingual text encoder. CLIP and the prior are in a
folder of their own: `unclip.load(decoder, prior=prior)`. A combined folder holds both, the prior's names after `prior_`.
"""

from dataclasses import replace
from pathlib import Path

from unclip.errors import ModelError
from unclip.formats import kandinsky_prior
from unclip.formats.folder import licence_of, read_json, weight_files
from unclip.formats.key_maps import kandinsky as kandinsky_map
from unclip.formats.key_maps import movq as movq_map
from unclip.formats.key_maps import multilingual as multilingual_map
from unclip.formats.key_maps.kandinsky_scheduler import read_schedule
from unclip.formats.public import FOLDER, PublicModel, PublicPart, Reader
from unclip.stages.sampling import DecoderSampling, Sampling
from unclip.stages.space import OPENAI_L, OPENCLIP_BIG_G
from unclip.tokenizers.multilingual import MultilingualTokenizer

CONTEXT = 77
"""Tokens of a caption in 2.1. The pipelines say so, whatever the tokenizer's file does."""

SPACES = {768: OPENAI_L, 1280: OPENCLIP_BIG_G}
"""Embedding spaces of 2.1 and 2.2, which no file names, by the width of z_i."""


def defaults(sampler: str) -> Sampling:
    """Defaults of the pipelines."""
    prior = replace(kandinsky_prior.DEFAULTS.prior, kind="diffusion")
    return Sampling(prior=prior, decoder=DecoderSampling(steps=100, sampler=sampler, guidance=4.0))


def open_folder(folder: Path, reader: Reader = FOLDER) -> PublicModel:
    """The parts of a folder."""
    movq = movq_map.read_config(read_json(folder / "movq" / "config.json"), f"{folder}/movq")
    schedule = read_schedule(read_json(folder / "scheduler" / "scheduler_config.json"), f"{folder}/scheduler")
    decoder = kandinsky_map.decoder_config(
        read_json(folder / "unet" / "config.json"),
        schedule,
        channels=movq.latent_channels,
        factor=movq.factor,
        context=CONTEXT,
        where=f"{folder}/unet",
    )
    parts = {
        "decoder": PublicPart(
            kind=decoder.kind,
            config=decoder,
            table=kandinsky_map.table(decoder),
            files={"unet/": weight_files(folder / "unet")},
        ),
        "autoencoder": PublicPart(
            kind=movq.kind,
            config=movq,
            table=movq_map.TABLE,
            files={"": weight_files(folder / "movq")},
        ),
    }
    model = PublicModel(
        format="kandinsky decoder",
        folder=folder,
        licence=licence_of(folder),
        parts=parts,
        tokenizer=None,
        defaults=defaults(schedule.sampler),
        space=SPACES.get(decoder.embedding, ""),
    )
    if decoder.text is not None:
        tokenizer = read_multilingual(folder / "tokenizer")
        parts["text"] = text_part(folder)
        model = replace(model, tokenizers={"text": lambda: tokenizer})
    if "prior_prior" not in read_json(folder / "model_index.json"):
        return model
    prior = kandinsky_prior.open_folder(folder, reader, prefix="prior_")
    return replace(model, parts={**prior.parts, **parts}, tokenizer=prior.tokenizer, space=prior.space)


def text_part(folder: Path) -> PublicPart:
    """The multilingual text encoder of 2.1."""
    home = folder / "text_encoder"
    config = multilingual_map.read_config(read_json(home / "config.json"), CONTEXT, str(home))
    return PublicPart(
        kind=config.kind,
        config=config,
        table=multilingual_map.table("text_encoder/"),
        files={"text_encoder/": weight_files(home)},
    )


def read_multilingual(folder: Path) -> MultilingualTokenizer:
    """XLM-R's tokenizer from `tokenizer.json`. Raises `ModelError` for a missing or damaged file."""
    file = folder / "tokenizer.json"
    try:
        return MultilingualTokenizer.from_backend(file.read_text(encoding="utf-8"), context=CONTEXT)
    except FileNotFoundError:
        raise ModelError(f"{file} is missing: get the model again") from None
    except ValueError as error:
        raise ModelError(f"{file} is damaged ({error}): get the model again") from error
