"""Stable Diffusion 1's sizes and training settings (arXiv 2112.10752; the repositories of latent diffusion and of its release).

    unclip train autoencoder --recipe stable_diffusion --data SHARDS --clip CLIP -o runs/sd/autoencoder
    unclip train text_decoder --recipe stable_diffusion --data SHARDS --clip CLIP -o runs/sd/decoder --set autoencoder=runs/sd/autoencoder

CLIP is a model with OpenAI's ViT-L/14, whose text tower the decoder reads; its image tower is the perceptual distance, in
place of LPIPS on VGG. Nothing here was run at full size by this project.
"""

from unclip.diffusion.losses import LossConfig, UniformTime
from unclip.networks.autoencoder import AutoencoderConfig
from unclip.networks.clip import ClipConfig, TextConfig, VisionConfig
from unclip.networks.discriminator import DiscriminatorConfig
from unclip.networks.latent_unet import LatentUnetConfig
from unclip.networks.text_decoder import TextDecoderConfig
from unclip.train.config import DataConfig
from unclip.train.optim import OptimizerConfig
from unclip.train.tasks.autoencoder import AutoencoderTraining
from unclip.train.tasks.clip import ClipTraining
from unclip.train.tasks.text_decoder import TextDecoderTraining


def clip() -> ClipTraining:
    """OpenAI's ViT-L/14 (arXiv 2103.00020, table 20)."""
    return ClipTraining(
        recipe="stable_diffusion",
        model=ClipConfig(
            embedding=768,
            vision=VisionConfig(size=224, patch=14, width=1024, layers=24, heads=16, activation="quick_gelu"),
            text=TextConfig(width=768, layers=12, heads=12, activation="quick_gelu"),
        ),
        data=DataConfig(size=224),
        optimizer=OptimizerConfig(learning_rate=4e-4, betas=(0.9, 0.98), epsilon=1e-6, weight_decay=0.2),
        samples=12_800_000_000,
        batch=32_768,
        vocabulary=49_408,
        ema_decay=0.9999,
    )


def autoencoder() -> AutoencoderTraining:
    """kl-f8: 83.7 M parameters, 4 channels at an eighth of the size; the discriminator begins after 50,000 steps of 12."""
    rate = 4.5e-6 * 12
    return AutoencoderTraining(
        recipe="stable_diffusion",
        model=AutoencoderConfig(),
        kl_weight=1e-6,
        discriminator=DiscriminatorConfig(norm="batch"),
        discriminator_weight=0.5,
        discriminator_start=50_001 * 12,
        discriminator_optimizer=OptimizerConfig(learning_rate=rate, betas=(0.5, 0.9), weight_decay=0.0),
        data=DataConfig(size=256),
        optimizer=OptimizerConfig(
            learning_rate=rate, betas=(0.5, 0.9), weight_decay=0.0, warmup=0.0, decay=0.0
        ),
        samples=12 * 500_000,
        batch=12,
        ema_decay=0.9999,
    )


def text_decoder() -> TextDecoderTraining:
    """The U-Net of version 1: 859.5 M parameters, eps on the scaled linear schedule, a tenth of the captions empty."""
    return TextDecoderTraining(
        recipe="stable_diffusion",
        model=TextDecoderConfig(net=LatentUnetConfig(), size=512),
        dropout=0.1,
        data=DataConfig(size=512),
        loss=LossConfig(density=UniformTime(), weight="target"),
        optimizer=OptimizerConfig(learning_rate=1e-4, betas=(0.9, 0.999), weight_decay=0.01, decay=0.0),
        samples=2048 * 432_000,
        batch=2048,
        ema_decay=0.9999,
    )
