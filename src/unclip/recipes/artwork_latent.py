"""Drawings of 256 px from latents of 32 x 32 x 4, with no upsampler: `artwork`'s CLIP and prior, a small f8 autoencoder.

unclip data artwork SHARDS --size 256
unclip train all --recipe artwork_latent --data SHARDS --out runs/artwork_latent

The sizes are chosen for one GPU. No result of it has been measured yet.
"""

from dataclasses import replace

from unclip.diffusion.losses import LogitNormal, LossConfig
from unclip.diffusion.parametrization import ProcessConfig
from unclip.networks.autoencoder import AutoencoderConfig
from unclip.networks.decoder import CaptionConfig, DecoderConfig
from unclip.networks.discriminator import DiscriminatorConfig
from unclip.networks.patch_transformer import PatchTransformerConfig
from unclip.recipes import artwork
from unclip.stages import sampling as settings
from unclip.stages.sampling import Sampling
from unclip.train.config import DataConfig
from unclip.train.optim import OptimizerConfig
from unclip.train.tasks.autoencoder import AutoencoderTraining
from unclip.train.tasks.clip import ClipTraining
from unclip.train.tasks.decoder import LatentDecoderTraining
from unclip.train.tasks.prior import PriorTraining

NAME = "artwork_latent"
SIZE = 256


def sampling() -> Sampling:
    """The settings of `artwork`; others were not tried."""
    return settings.sampling(steps=16, guidance=2.5, prior_steps=12, prior_guidance=1.5)


def clip() -> ClipTraining:
    """As in `artwork`, on the same drawings at 64 px."""
    return replace(artwork.clip(), recipe=NAME)


def prior() -> PriorTraining:
    """As in `artwork`."""
    return replace(artwork.prior(), recipe=NAME)


def autoencoder() -> AutoencoderTraining:
    """5.6 M parameters on folded pixels, without levels of 256 and 128 px: a quarter of the cost of four levels of 32 to 128
    channels. It learns squares of 64 px, the side that the stage's CLIP sees; the judge takes no part."""
    return AutoencoderTraining(
        recipe=NAME,
        model=AutoencoderConfig(
            patch=4,
            channels=96,
            multiples=(1, 2),
            blocks=1,
            latent_channels=4,
            middle_attention=False,
            groups=16,
        ),
        crop=64,
        perceptual_weight=0.5,
        discriminator=DiscriminatorConfig(channels=32, layers=2, groups=8),
        discriminator_weight=0.25,
        discriminator_start=60_000,
        data=DataConfig(size=SIZE),
        optimizer=OptimizerConfig(learning_rate=1e-3, weight_decay=0.0),
        samples=199_680,
        batch=32,
        ema_decay=0.998,
    )


def latent_decoder() -> LatentDecoderTraining:
    """A transformer on 2 x 2 latents, 256 tokens: predicts x0 on the flow schedule."""
    return LatentDecoderTraining(
        recipe=NAME,
        model=DecoderConfig(
            size=SIZE,
            channels=4,
            factor=8,
            net=PatchTransformerConfig(
                in_channels=9, out_channels=4, size=32, patch=2, width=384, layers=12, context_width=256
            ),
            caption=CaptionConfig(width=192, layers=2, heads=3),
            inpainting=True,
            process=ProcessConfig(parametrization="x0", schedule="flow"),
        ),
        dropout_hint=0.9,
        data=DataConfig(size=SIZE),
        loss=LossConfig(density=LogitNormal(mean=0.0, std=1.0), weight="velocity"),
        optimizer=OptimizerConfig(learning_rate=1e-3, muon_learning_rate=2e-3, decay=0.5),
        samples=1_000_448,
        batch=128,
        ema_decay=0.998,
    )
