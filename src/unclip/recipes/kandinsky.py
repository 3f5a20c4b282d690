"""Kandinsky 2.2's sizes (arXiv 2310.03502): a prior over OpenCLIP's ViT-bigG, MoVQ, and a decoder of image embeddings.

    unclip train autoencoder --recipe kandinsky --data SHARDS --clip CLIP -o runs/k/autoencoder
    unclip train kandinsky_decoder --recipe kandinsky --data SHARDS --clip CLIP -o runs/k/decoder --set autoencoder=runs/k/autoencoder

CLIP is a model with that CLIP. The paper states few training settings; those that it does not state are chosen here. Nothing
here was run at full size by this project.
"""

from unclip.diffusion.losses import LossConfig, UniformTime
from unclip.diffusion.parametrization import ProcessConfig
from unclip.networks.discriminator import DiscriminatorConfig
from unclip.networks.kandinsky import KandinskyConfig
from unclip.networks.movq import MovqConfig
from unclip.networks.prior_diffusion import DiffusionPriorConfig
from unclip.networks.unet import UnetConfig
from unclip.train.config import DataConfig
from unclip.train.optim import OptimizerConfig
from unclip.train.tasks.autoencoder import AutoencoderTraining
from unclip.train.tasks.prior import PriorTraining
from unclip.train.tasks.text_decoder import KandinskyDecoderTraining

_SIMPLE = LossConfig(density=UniformTime(), weight="target")


def prior() -> PriorTraining:
    """20 blocks, 2048 wide, 32 heads, on 77 text tokens of 1280 numbers."""
    return PriorTraining(
        recipe="kandinsky",
        model=DiffusionPriorConfig(
            embedding=1280, context=77, text_width=1280, width=2048, layers=20, heads=32
        ),
        data=DataConfig(size=224),
        loss=_SIMPLE,
        optimizer=OptimizerConfig(learning_rate=1e-5, betas=(0.9, 0.999), weight_decay=0.0, decay=0.0),
        samples=1_000_000 * 1024,
        batch=1024,
        ema_decay=0.9999,
    )


def autoencoder() -> AutoencoderTraining:
    """MoVQ of 67.8 M parameters: 16,384 codes of 4 numbers, a decoder that normalises by the latents."""
    return AutoencoderTraining(
        recipe="kandinsky",
        model=MovqConfig(),
        discriminator=DiscriminatorConfig(layers=2, norm="batch"),
        discriminator_weight=0.8,
        discriminator_optimizer=OptimizerConfig(learning_rate=1e-4, betas=(0.5, 0.9), weight_decay=0.0),
        data=DataConfig(size=256),
        optimizer=OptimizerConfig(
            learning_rate=1e-4, betas=(0.5, 0.9), weight_decay=0.0, warmup=0.0, decay=0.0
        ),
        samples=48 * 200_000,
        batch=48,
        ema_decay=0.9999,
    )


def kandinsky_decoder() -> KandinskyDecoderTraining:
    """Version 2.2's U-Net: 1,253 M parameters with its projections, on the linear schedule of 0.00085 to 0.012."""
    return KandinskyDecoderTraining(
        recipe="kandinsky",
        model=KandinskyConfig(
            net=UnetConfig(
                in_channels=4,
                out_channels=8,
                channels=384,
                multiples=(1, 2, 3, 4),
                blocks=3,
                attention_levels=(1, 2, 3),
                head_channels=64,
                context_width=768,
                vector_width=1536,
            ),
            process=ProcessConfig(
                parametrization="eps", schedule="linear", betas=(0.00085, 0.012), learned_variance=True
            ),
        ),
        data=DataConfig(size=512),
        loss=_SIMPLE,
        optimizer=OptimizerConfig(learning_rate=1e-5, betas=(0.9, 0.999), weight_decay=0.0, decay=0.0),
        samples=1_000_000 * 512,
        batch=512,
        ema_decay=0.9999,
    )
