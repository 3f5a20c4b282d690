"""Stable Diffusion 1 and 2, and Stable unCLIP, in one file, `.ckpt` or `.safetensors`, which `unclip convert` reads.

The file holds weights alone. Whether the U-Net of a version 2 predicts eps or v is not in it, and has to be said; Stable unCLIP
predicts v. What Stable unCLIP L standardises embeddings by is in a file of Karlo's, which lies beside it.
"""

from pathlib import Path

import torch
from safetensors import safe_open

from unclip.checkpoints.io import build
from unclip.diffusion.conventions import GridConfig
from unclip.diffusion.parametrization import ProcessConfig
from unclip.errors import ModelError
from unclip.formats.karlo_original import named_statistics
from unclip.formats.key_maps import clip as clip_map
from unclip.formats.key_maps import latent_file as file_map
from unclip.formats.key_maps import unclip_file as unclip_map
from unclip.formats.key_maps.latent_scheduler import LatentSchedule
from unclip.formats.public import FOLDER, PublicModel, PublicPart, Reader
from unclip.formats.stable_diffusion import defaults
from unclip.formats.tokenizer import check_vocabulary
from unclip.networks.text_decoder import TextDecoder, TextDecoderConfig
from unclip.networks.text_encoder import TextEncoderConfig
from unclip.tokenizers.clip import ClipTokenizer


def open_folder(file: Path, reader: Reader = FOLDER) -> PublicModel:
    """The model of a file, with the reader's tokenizer and what it says of the prediction."""
    tokenizer = reader.required_tokenizer(ClipTokenizer)
    (weights,) = reader.safe([file])
    shapes = _shapes(weights)
    where = str(file)
    version = file_map.version_of(shapes, where)
    text = file_map.text_config(shapes, version, where)
    check_vocabulary(tokenizer, text.vocabulary, file)
    vae, net = file_map.autoencoder_config(shapes, where), file_map.unet_config(shapes, version, where)
    embedding = None if net.vector_width is None else net.vector_width // 2
    prediction = "v" if embedding is not None and reader.prediction is None else reader.prediction
    schedule = _schedule(prediction, version, where)
    extra = net.in_channels - vae.latent_channels
    if extra not in (0, vae.latent_channels + 1):
        raise ModelError(
            f"{where}: the U-Net reads {net.in_channels} channels; only {vae.latent_channels}, and "
            f"{2 * vae.latent_channels + 1} for inpainting, are supported"
        )
    config = TextDecoderConfig(
        net=net,
        size=768 if schedule.process.parametrization == "v" else 512,
        channels=vae.latent_channels,
        context=text.context,
        embedding=embedding,
        noise_levels=1000 if embedding is None else _noise_levels(weights, where),
        inpainting=extra > 0,
        process=schedule.process,
        grid=schedule.grid,
    )
    averaged = reader.averaged and any(
        name.startswith(f"{file_map.AVERAGED}diffusion_model") for name in shapes
    )
    shell = {
        name: one for name, one in build(TextDecoder, config).state_dict().items() if name.startswith("net.")
    }
    table = file_map.decoder_table(net, shell, linear=file_map.is_linear(shapes, where), averaged=averaged)
    encoder = TextEncoderConfig(text=text, pad=text.end if version == 1 else 0)
    files, own = {"": (weights,)}, {"": (weights,)}
    parts, space = {}, ""
    if embedding is not None:
        apart = unclip_map.needs_statistics(shapes, embedding)
        if apart:
            own |= {"stats/": (_statistics(file, reader),)}
        table = unclip_map.decoder_table(table, shapes, apart=apart)
        if unclip_map.has_tower(shapes):
            clip = unclip_map.clip_config(shapes, where)
            _check_width(clip.embedding, embedding, where)
            parts["clip"] = PublicPart(
                kind="clip", config=clip, table=unclip_map.clip_table(clip), files=files
            )
            space = clip_map.space_name(clip)
    return PublicModel(
        format="stable diffusion file",
        folder=file,
        licence="",
        parts={
            "text": PublicPart(
                kind="text_encoder",
                config=encoder,
                table=file_map.text_table(version, text.layers),
                files=files,
            ),
            "decoder": PublicPart(kind="text_decoder", config=config, table=table, files=own),
            "autoencoder": PublicPart(
                kind="autoencoder", config=vae, table=file_map.autoencoder_table(vae), files=files
            ),
            **parts,
        },
        tokenizer=lambda: tokenizer,
        defaults=defaults(schedule, unclip=embedding is not None),
        space=space,
    )


def _noise_levels(weights: Path, where: str) -> int:
    name = f"{unclip_map.AUGMENTOR}alphas_cumprod"
    with safe_open(weights, framework="pt") as stored:
        return unclip_map.noise_levels(stored.get_tensor(name) if name in stored.keys() else None, where)  # noqa: SIM118


def _statistics(file: Path, reader: Reader) -> Path:
    """Mean and standard deviation of the embeddings of a Stable unCLIP L, from the file beside it."""
    beside = file.with_name(unclip_map.STATISTICS)
    if not beside.is_file():
        raise ModelError(
            f"{file} standardises image embeddings by numbers that are not in it: put {unclip_map.STATISTICS}, one of Karlo's "
            "files, beside it"
        )
    (read,) = reader.safe([beside])
    return named_statistics(read)


def _check_width(given: int, needed: int, where: str) -> None:
    if given != needed:
        raise ModelError(
            f"{where}: its picture tower gives embeddings of {given}, its U-Net reads {needed}: the parts were not made for "
            "each other"
        )


def _shapes(file: Path) -> dict[str, torch.Tensor]:
    """Shape of each weight, as tensors without memory."""
    with safe_open(file, framework="pt") as stored:
        names: list[str] = list(stored.keys())
        return {name: torch.empty(stored.get_slice(name).get_shape(), device="meta") for name in names}


def _schedule(prediction: str | None, version: int, where: str) -> LatentSchedule:
    """Version 1 predicts eps unless said otherwise. Raises `ModelError` for a version 2 of which nothing is said."""
    if prediction is None and version == 2:
        raise ModelError(
            f"{where} is a Stable Diffusion 2 and does not say what its U-Net predicts: give --prediction v for one of 768 "
            "pixels (2.0-v, 2.1), or --prediction eps for a base or inpainting one of 512"
        )
    v = prediction == "v"
    return LatentSchedule(
        process=ProcessConfig(parametrization="v" if v else "eps", schedule="scaled_linear"),
        grid=GridConfig(offset=1),
        sampler="ddim" if v else "plms",
        clip_range=None,
    )
