"""The chain of latent unCLIP in about a minute on two CPU cores: the stages of `tiny`, with latents in place of pixels."""

from dataclasses import replace

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
    """As in `tiny`."""
    return replace(tiny.autoencoder(), recipe=NAME)


def latent_decoder() -> LatentDecoderTraining:
    """As in `tiny`."""
    return replace(tiny.latent_decoder(), recipe=NAME)
