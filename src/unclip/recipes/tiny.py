"""The whole chain in under two minutes on two CPU cores: coloured shapes at 16 px, upsampled to 32.

It proves that every stage learns, the paper's U-Net decoder included; its pictures are for tests.
"""

from dataclasses import replace

from unclip.data.degradation import DegradationConfig
from unclip.diffusion.losses import LogNormal, LossConfig, UniformTime
from unclip.diffusion.parametrization import ProcessConfig
from unclip.networks.clip import ClipConfig, TextConfig, VisionConfig
from unclip.networks.decoder import CaptionConfig, DecoderConfig
from unclip.networks.prior_autoregressive import AutoregressivePriorConfig
from unclip.networks.prior_diffusion import DiffusionPriorConfig
from unclip.networks.unet import UnetConfig
from unclip.networks.upsampler import UpsamplerConfig
from unclip.train.config import DataConfig
from unclip.train.optim import OptimizerConfig
from unclip.train.tasks.clip import ClipTraining
from unclip.train.tasks.decoder import DecoderTraining
from unclip.train.tasks.prior import PriorTraining
from unclip.train.tasks.prior_autoregressive import AutoregressivePriorTraining
from unclip.train.tasks.upsampler import UpsamplerTraining

_DATA = DataConfig(path="shapes", size=16)
_COSINE = ProcessConfig(parametrization="eps", schedule="cosine", learned_variance=True)


def clip() -> ClipTraining:
    """Both towers 32 wide."""
    return ClipTraining(
        recipe="tiny",
        model=ClipConfig(
            embedding=32,
            vision=VisionConfig(size=16, patch=4, width=32, layers=2, heads=2),
            text=TextConfig(context=16, width=32, layers=2, heads=2),
        ),
        data=_DATA,
        optimizer=OptimizerConfig(learning_rate=3e-3, weight_decay=0.01),
        samples=8_192,
        batch=64,
        ema_decay=0.95,
        vocabulary=600,
        precision="fp32",
    )


def prior() -> PriorTraining:
    """The paper's sequence and schedule, 64 wide."""
    return PriorTraining(
        recipe="tiny",
        model=DiffusionPriorConfig(width=64, layers=2, heads=2),
        data=_DATA,
        optimizer=OptimizerConfig(learning_rate=3e-3, muon_learning_rate=3e-3),
        samples=8_192,
        batch=64,
        ema_decay=0.98,
        precision="fp32",
    )


def prior_autoregressive() -> AutoregressivePriorTraining:
    """The paper's sequence, 64 wide."""
    return AutoregressivePriorTraining(
        recipe="tiny",
        model=AutoregressivePriorConfig(buckets=16, dot_buckets=8, width=64, layers=2, heads=2),
        data=_DATA,
        optimizer=OptimizerConfig(learning_rate=3e-3, muon_learning_rate=3e-3),
        samples=8_192,
        batch=64,
        ema_decay=0.98,
        precision="fp32",
    )


def decoder() -> DecoderTraining:
    """The paper's form: GLIDE's U-Net, eps and learned variance on the cosine schedule."""
    return DecoderTraining(
        recipe="tiny",
        model=DecoderConfig(
            size=16,
            net=UnetConfig(
                in_channels=7,
                out_channels=6,
                channels=32,
                multiples=(1, 1),
                blocks=1,
                attention_levels=(1,),
                head_channels=16,
                context_width=32,
                vector_width=128,
                groups=8,
            ),
            caption=CaptionConfig(width=32, layers=1, heads=2),
            inpainting=True,
            process=_COSINE,
        ),
        data=_DATA,
        loss=LossConfig(density=UniformTime(), weight="target"),
        optimizer=OptimizerConfig(learning_rate=2e-3),
        samples=10_240,
        batch=16,
        ema_decay=0.99,
        precision="fp32",
    )


def upsampler() -> UpsamplerTraining:
    """16 to 32 px, on crops of half the size; as in the artwork recipe, what is learned is the missing detail."""
    return UpsamplerTraining(
        recipe="tiny",
        model=UpsamplerConfig(
            net=UnetConfig(
                in_channels=6,
                out_channels=3,
                channels=16,
                multiples=(1, 2),
                blocks=1,
                norm="rms",
            ),
            process=ProcessConfig(parametrization="x0", schedule="flow"),
            residual=True,
            low_size=16,
            high_size=32,
        ),
        crop_fraction=0.5,
        data=_DATA,
        loss=LossConfig(density=LogNormal(mean=-1.2, std=1.2), weight="velocity"),
        optimizer=OptimizerConfig(learning_rate=2e-3),
        samples=4_096,
        batch=32,
        ema_decay=0.98,
        precision="fp32",
    )


def upsampler_1024() -> UpsamplerTraining:
    """32 to 64 px, in the place of the paper's 256 to 1024: the linear schedule and BSR."""
    first = upsampler()
    return replace(
        first,
        stage="upsampler_1024",
        model=replace(
            first.model,
            process=ProcessConfig(parametrization="x0", schedule="linear"),
            low_size=32,
            high_size=64,
        ),
        degradation=DegradationConfig(method="bsr", bsr_strength=0.25),
    )
