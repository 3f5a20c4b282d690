"""Stable Diffusion 1 and 2, and Stable unCLIP, in diffusers' layout.

Keys are `component/name`. A Stable unCLIP of images (H) has a picture tower; one of text (L) has a prior with a tower of its
own. Safety checkers are left out, with a note in the log.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unclip.checkpoints.keymap import Table, row, with_leading
from unclip.config import shown
from unclip.errors import ModelError
from unclip.formats.autoencoder import autoencoder_part
from unclip.formats.diffusers_folder import prior_part
from unclip.formats.folder import licence_of, read_json, weight_files
from unclip.formats.key_maps import clip as clip_map
from unclip.formats.key_maps import latent_unet as unet_map
from unclip.formats.key_maps.latent_scheduler import LatentSchedule, read_schedule
from unclip.formats.key_maps.options import Options, Reference, only
from unclip.formats.preprocessing import of_folder
from unclip.formats.public import FOLDER, PublicModel, PublicPart, Reader
from unclip.formats.tokenizer import check_tower, check_vocabulary, content, read_tokenizer
from unclip.networks.autoencoder import AutoencoderConfig
from unclip.networks.clip import ClipConfig
from unclip.networks.text_decoder import TextDecoderConfig
from unclip.networks.text_encoder import TextEncoderConfig
from unclip.stages.sampling import DecoderSampling, PriorSampling, Sampling
from unclip.tokenizers.clip import END, ClipTokenizer

logger = logging.getLogger(__name__)

PLAIN = (
    "StableDiffusionPipeline",
    "StableDiffusionImg2ImgPipeline",
    "StableDiffusionInpaintPipeline",
    "StableDiffusionInpaintPipelineLegacy",
)
UNCLIP = ("StableUnCLIPPipeline", "StableUnCLIPImg2ImgPipeline")
PIPELINES = (*PLAIN, *UNCLIP)

NORMALIZER = Reference(name="StableUnCLIPImageNormalizer", honoured=frozenset({"embedding_dim"}))
NOISING = Reference(
    name="DDPMScheduler",
    honoured=frozenset({"num_train_timesteps"}),
    fixed={
        "beta_schedule": only("squaredcos_cap_v2", default="linear"),
        "trained_betas": only(None),
        "rescale_betas_zero_snr": only(False),
    },
    # It only adds noise.
    inert=frozenset(
        {"beta_start", "beta_end", "variance_type", "clip_sample", "prediction_type", "thresholding"}
    )
    | {
        "dynamic_thresholding_ratio",
        "clip_sample_range",
        "sample_max_value",
        "timestep_spacing",
        "steps_offset",
    },
)


def open_folder(folder: Path, reader: Reader = FOLDER) -> PublicModel:
    """All parts of a folder."""
    index = read_json(folder / "model_index.json")
    tokenizer = read_tokenizer(folder / "tokenizer")
    text = text_encoder(folder, tokenizer)
    autoencoder = autoencoder_part(folder / "vae")
    unclip = index.get("_class_name") in UNCLIP
    schedule = read_schedule(
        read_json(folder / "scheduler" / "scheduler_config.json"), f"{folder}/scheduler", patched=not unclip
    )
    embedding, levels = _augmentation(folder) if unclip else (None, 1000)
    decoder = decoder_config(
        read_json(folder / "unet" / "config.json"),
        autoencoder.config,
        schedule,
        f"{folder}/unet",
        embedding,
        levels,
    )
    linear = unet_map.is_linear(read_json(folder / "unet" / "config.json"), f"{folder}/unet")
    table, files = unet_map.table("unet/", linear=linear), {"unet/": weight_files(folder / "unet")}
    if embedding is not None:
        table = Table([*table.rows, *STATISTICS])
        files |= {"image_normalizer/": weight_files(folder / "image_normalizer")}
    parts = {
        "text": PublicPart(
            kind="text_encoder",
            config=text,
            table=clip_map.text_tower("text_encoder/"),
            files={"text_encoder/": weight_files(folder / "text_encoder")},
        ),
        "decoder": PublicPart(kind="text_decoder", config=decoder, table=table, files=files),
        "autoencoder": autoencoder,
    }
    if unclip:
        parts |= _embedding_parts(folder, tokenizer)
    if index.get("safety_checker") not in (None, [None, None]):
        logger.warning(
            "%s comes with a safety checker, which is not run: pictures are not filtered", folder.name
        )
    return PublicModel(
        format="stable unclip" if unclip else "stable diffusion",
        folder=folder,
        licence=licence_of(folder),
        parts=parts,
        tokenizer=lambda: tokenizer,
        defaults=defaults(schedule, unclip=unclip, prior="prior" in parts),
        space=clip_map.space_name(parts["clip"].config) if "clip" in parts else "",
    )


STATISTICS = [
    row("embedding_mean", "image_normalizer/mean", form=with_leading(1)),
    row("embedding_std", "image_normalizer/std", form=with_leading(1)),
]


def defaults(schedule: LatentSchedule, *, unclip: bool, prior: bool = False) -> Sampling:
    """Defaults of diffusers' pipelines, with the folder's sampler."""
    if not unclip:
        decoder = DecoderSampling(steps=50, sampler=schedule.sampler, guidance=7.5)
        return Sampling(prior=PriorSampling(kind="none", candidates=1), decoder=decoder)
    decoder = DecoderSampling(steps=20, sampler=schedule.sampler, guidance=10.0)
    if not prior:
        return Sampling(prior=PriorSampling(kind="none", candidates=1), decoder=decoder)
    settings = PriorSampling(kind="diffusion", steps=25, sampler="ddpm", guidance=4.0, candidates=1)
    return Sampling(prior=settings, decoder=decoder)


def decoder_config(
    unet: Mapping[str, Any],
    vae: AutoencoderConfig,
    schedule: LatentSchedule,
    where: str,
    embedding: int | None = None,
    levels: int = 1000,
) -> TextDecoderConfig:
    """Config of the decoder. Raises `ModelError` for a U-Net that does not fit the autoencoder or the embeddings."""
    net, channels = unet_map.read_config(unet, where), vae.latent_channels
    extra = net.in_channels - channels
    if extra not in (0, channels + 1) or net.out_channels != channels:
        what = {1: "a depth map", 3: "a picture to enlarge"}.get(
            extra, f"{extra} channels besides the latent's"
        )
        raise ModelError(
            f"{where}: the U-Net reads {net.in_channels} channels and gives {net.out_channels}, the vae's latent has "
            f"{channels}: {what} is not supported; inpainting reads {2 * channels + 1}"
        )
    vector = None if embedding is None else 2 * embedding
    if embedding is None and net.vector_width is not None:
        raise ModelError(
            f"{where}: projection_class_embeddings_input_dim is {net.vector_width}: the U-Net reads image embeddings, as those "
            f"of {' and '.join(UNCLIP)} do, and model_index.json names another pipeline"
        )
    if net.vector_width != vector:
        raise ModelError(
            f"{where}: projection_class_embeddings_input_dim is {net.vector_width}, image embeddings of {embedding} "
            f"need {vector}: the parts were not made for each other"
        )
    return TextDecoderConfig(
        net=net,
        size=_sample_size(unet, where) * vae.factor,
        channels=channels,
        embedding=embedding,
        noise_levels=levels,
        inpainting=extra > 0,
        process=schedule.process,
        clip_range=schedule.clip_range,
        grid=schedule.grid,
    )


def _sample_size(unet: Mapping[str, Any], where: str) -> int:
    """Side of the latents. As diffusers does, 64 in place of the 32 of files before 0.9, which was never meant."""
    size = Options(unet, where).take("sample_size", int, 64)
    version = str(unet.get("_diffusers_version", "0.9")).split(".")
    old = version[0] == "0" and version[1:2] and version[1].isdigit() and int(version[1]) < 9
    return 64 if old and size < 64 else size


def text_encoder(folder: Path, tokenizer: ClipTokenizer) -> TextEncoderConfig:
    """Config of the folder's text tower, with the token that its tokenizer pads with."""
    where = folder / "text_encoder"
    data = read_json(where / "config.json")
    width = Options(data, str(where)).take("projection_dim", int, 512)
    text = clip_map.text_config(data, embedding=width, end=tokenizer.end, where=str(where))
    check_vocabulary(tokenizer, text.vocabulary, where)
    check_tower(tokenizer, text.vocabulary, text.context, where)
    return TextEncoderConfig(text=text, pad=padding(folder / "tokenizer", tokenizer))


def padding(folder: Path, tokenizer: ClipTokenizer) -> int:
    """Number of the token that a folder's tokenizer pads with; of two that its files name, transformers takes this."""
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        found = content(read_json(folder / name).get("pad_token") if (folder / name).is_file() else None)
        if found is None:
            continue
        if not isinstance(found, str):
            raise ModelError(f"{folder / name}: the pad_token is {shown(found)}, expected a text")
        number = tokenizer.end if found == END else tokenizer.backend.token_to_id(found)
        if number is None:
            raise ModelError(f"{folder / name}: the pad_token {found!r} is not in the vocabulary")
        return number
    return tokenizer.end


def _augmentation(folder: Path) -> tuple[int, int]:
    """Width of the image embeddings, and the number of levels that they are noised to."""
    where = f"{folder}/image_normalizer"
    options = Options(read_json(folder / "image_normalizer" / "config.json"), where)
    options.check(NORMALIZER)
    noising = read_json(folder / "image_noising_scheduler" / "scheduler_config.json")
    other = Options(noising, f"{folder}/image_noising_scheduler")
    other.require(_class_name="DDPMScheduler")
    other.check(NOISING)
    return options.take("embedding_dim", int, 768), other.take("num_train_timesteps", int, 1000)


def _embedding_parts(folder: Path, tokenizer: ClipTokenizer) -> dict[str, PublicPart]:
    """The picture tower of the variations pipeline, or the prior of the text pipeline with its tower."""
    if (folder / "image_encoder").is_dir():
        data = read_json(folder / "image_encoder" / "config.json")
        where = f"{folder}/image_encoder"
        width = Options(data, where).take("projection_dim", int, 512)
        vision = clip_map.vision_config(
            data,
            embedding=width,
            of="the width of the embeddings",
            where=where,
            preprocessing=of_folder(folder, clip_map.image_size(data, where)),
        )
        config = ClipConfig(embedding=width, vision=vision, normalize=False, towers="image")
        files = {"image_encoder/": weight_files(folder / "image_encoder")}
        return {
            "clip": PublicPart(
                kind="clip", config=config, table=clip_map.image_tower("image_encoder/"), files=files
            )
        }
    if not (folder / "prior").is_dir():
        raise ModelError(f"{folder} holds neither an image_encoder nor a prior: get the model again")
    own = read_tokenizer(folder / "prior_tokenizer")
    if own.to_json() != tokenizer.to_json():
        raise ModelError(f"{folder}: tokenizer and prior_tokenizer differ; only one vocabulary is read")
    where = folder / "prior_text_encoder"
    data = read_json(where / "config.json")
    width = Options(data, str(where)).take("projection_dim", int, 512)
    text = clip_map.text_config(data, embedding=width, end=own.end, where=str(where))
    check_tower(own, text.vocabulary, text.context, where)
    config = ClipConfig(embedding=width, text=text, normalize=False, towers="text")
    clip = PublicPart(
        kind="clip",
        config=config,
        table=clip_map.split_towers("prior_text_encoder/", None),
        files={"prior_text_encoder/": weight_files(where)},
    )
    return {"clip": clip, "prior": prior_part(folder, config, "prior_scheduler")}
