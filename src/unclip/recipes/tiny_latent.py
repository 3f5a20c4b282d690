"""The chain of latent unCLIP in about a minute on two CPU cores: the stages of `tiny`, with latents in place of pixels."""

from dataclasses import replace

from unclip.diffusion.losses import LogitNormal, LossConfig
from unclip.diffusion.parametrization import ProcessConfig
from unclip.recipes import tiny
from unclip.train.tasks.autoencoder import AutoencoderTraining
from unclip.train.tasks.clip import ClipTraining
from unclip.train.tasks.decoder import LatentDecoderTraining
from unclip.train.tasks.prior import PriorTraining

NAME = "tiny_latent"


def clip() -> ClipTraining:
    """As in `tiny`."""
    return replace(tiny.clip(), recipe=NAME)


def prior() -> PriorTraining:
    """As in `tiny`."""
    return replace(tiny.prior(), recipe=NAME)


def autoencoder() -> AutoencoderTraining:
    """As in `tiny`, five times as long: after 4,096 samples colours are not apart (18 dB), after these they are (34)."""
    return replace(tiny.autoencoder(), recipe=NAME, samples=20_480, discriminator_start=14_336)


def latent_decoder() -> LatentDecoderTraining:
    """The U-Net of `tiny`, x0 on the flow schedule: eps draws nothing yet after so few samples."""
    config = tiny.latent_decoder()
    return replace(
        config,
        recipe=NAME,
        model=replace(config.model, process=ProcessConfig(parametrization="x0", schedule="flow")),
        loss=LossConfig(density=LogitNormal(mean=0.0, std=1.0), weight="velocity"),
        samples=20_480,
    )
