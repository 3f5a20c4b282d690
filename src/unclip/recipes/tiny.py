"""The whole chain in under two minutes on two CPU cores: coloured shapes at 16 px, upsampled to 32.

It proves that every stage learns, the paper's U-Net decoder included; its pictures are for tests. `latent_decoder` and
`text_decoder` draw latents of the autoencoder, 8 x 8 x 4, in place of the decoder; the chain `tiny_latent` has the first.
"""

from dataclasses import replace

from unclip.data.degradation import DegradationConfig
from unclip.diffusion.losses import LogNormal, LossConfig, UniformTime
from unclip.diffusion.parametrization import ProcessConfig
from unclip.networks.autoencoder import AutoencoderConfig
from unclip.networks.clip import ClipConfig, TextConfig, VisionConfig
from unclip.networks.decoder import CaptionConfig, DecoderConfig
from unclip.networks.discriminator import DiscriminatorConfig
from unclip.networks.kandinsky import KandinskyConfig
from unclip.networks.latent_unet import LatentUnetConfig
from unclip.networks.prior_autoregressive import AutoregressivePriorConfig
from unclip.networks.prior_diffusion import DiffusionPriorConfig
from unclip.networks.text_decoder import TextDecoderConfig
from unclip.networks.unet import UnetConfig
from unclip.networks.upsampler import UpsamplerConfig
from unclip.train.config import DataConfig
from unclip.train.optim import OptimizerConfig
from unclip.train.tasks.autoencoder import AutoencoderTraining
from unclip.train.tasks.clip import ClipTraining
from unclip.train.tasks.decoder import DecoderTraining, LatentDecoderTraining
from unclip.train.tasks.prior import PriorTraining
from unclip.train.tasks.prior_autoregressive import AutoregressivePriorTraining
from unclip.train.tasks.text_decoder import KandinskyDecoderTraining, TextDecoderTraining
from unclip.train.tasks.upsampler import UpsamplerTraining

_DATA = DataConfig(path="shapes", size=16)
_COSINE = ProcessConfig(parametrization="eps", schedule="cosine", learned_variance=True)
_EPS = ProcessConfig(parametrization="eps", schedule="cosine")
_SIMPLE = LossConfig(density=UniformTime(), weight="target")


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


def autoencoder() -> AutoencoderTraining:
    """Latents of 4 channels at half the size; the discriminator begins when half of the run is over."""
    return AutoencoderTraining(
        recipe="tiny",
        model=AutoencoderConfig(
            channels=16, multiples=(1, 2), blocks=1, latent_channels=4, middle_attention=False, groups=8
        ),
        perceptual_weight=0.1,
        perceptual_shift=1,
        discriminator=DiscriminatorConfig(channels=16, layers=1, groups=4),
        discriminator_weight=0.1,
        discriminator_start=2_048,
        data=_DATA,
        optimizer=OptimizerConfig(learning_rate=2e-3, weight_decay=0.0),
        samples=4_096,
        batch=32,
        ema_decay=0.98,
        precision="fp32",
    )


def latent_decoder() -> LatentDecoderTraining:
    """GLIDE's U-Net, eps on the cosine schedule."""
    return LatentDecoderTraining(
        recipe="tiny",
        model=DecoderConfig(
            size=16,
            channels=4,
            factor=2,
            net=UnetConfig(
                in_channels=9,
                out_channels=4,
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
            process=_EPS,
        ),
        data=_DATA,
        loss=_SIMPLE,
        optimizer=OptimizerConfig(learning_rate=2e-3),
        samples=10_240,
        batch=32,
        ema_decay=0.99,
        precision="fp32",
    )


def text_decoder() -> TextDecoderTraining:
    """Stable Diffusion's U-Net over the states of CLIP's text tower."""
    return TextDecoderTraining(
        recipe="tiny",
        model=TextDecoderConfig(
            size=16,
            net=LatentUnetConfig(
                channels=32,
                multiples=(1, 1),
                blocks=1,
                attention_levels=(1,),
                heads=(2, 2),
                context_width=32,
                groups=8,
            ),
            context=16,
            process=_EPS,
        ),
        data=_DATA,
        loss=_SIMPLE,
        optimizer=OptimizerConfig(learning_rate=2e-3),
        samples=10_240,
        batch=32,
        ema_decay=0.99,
        precision="fp32",
    )


def kandinsky_decoder() -> KandinskyDecoderTraining:
    """Kandinsky 2.2's U-Net and schedule, with a learned variance."""
    return KandinskyDecoderTraining(
        recipe="tiny",
        model=KandinskyConfig(
            embedding=32,
            image_tokens=4,
            size=16,
            net=UnetConfig(
                in_channels=4,
                out_channels=8,
                channels=32,
                multiples=(1, 1),
                blocks=1,
                attention_levels=(1,),
                head_channels=16,
                context_width=32,
                vector_width=128,
                groups=8,
            ),
            process=ProcessConfig(
                parametrization="eps", schedule="linear", betas=(0.00085, 0.012), learned_variance=True
            ),
        ),
        data=_DATA,
        loss=_SIMPLE,
        optimizer=OptimizerConfig(learning_rate=2e-3),
        samples=10_240,
        batch=32,
        ema_decay=0.99,
        precision="fp32",
    )
