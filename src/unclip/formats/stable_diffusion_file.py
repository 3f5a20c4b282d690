"""Stable Diffusion 1 and 2 in one file, `.ckpt` or `.safetensors`, which `unclip convert` reads.

The file holds weights alone. Whether the U-Net of a version 2 predicts eps or v is not in it, and has to be said.
"""

from pathlib import Path

import torch
from safetensors import safe_open

from unclip.checkpoints.io import build
from unclip.diffusion.conventions import GridConfig
from unclip.diffusion.parametrization import ProcessConfig
from unclip.errors import ModelError
from unclip.formats.key_maps import latent_file as file_map
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
    if net.vector_width is not None:
        raise ModelError(
            f"{where} holds Stable unCLIP, whose image encoder is another file: take the model in diffusers' layout"
        )
    schedule = _schedule(reader.prediction, version, where)
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
        inpainting=extra > 0,
        process=schedule.process,
        grid=schedule.grid,
    )
    averaged = reader.averaged and any(
        name.startswith(f"{file_map.AVERAGED}diffusion_model") for name in shapes
    )
    shell = build(TextDecoder, config).state_dict()
    table = file_map.decoder_table(net, shell, linear=file_map.is_linear(shapes, where), averaged=averaged)
    encoder = TextEncoderConfig(text=text, pad=text.end if version == 1 else 0)
    files = {"": (weights,)}
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
            "decoder": PublicPart(kind="text_decoder", config=config, table=table, files=files),
            "autoencoder": PublicPart(
                kind="autoencoder", config=vae, table=file_map.autoencoder_table(vae), files=files
            ),
        },
        tokenizer=lambda: tokenizer,
        defaults=defaults(schedule, unclip=False),
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
