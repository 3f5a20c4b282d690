"""The paper's sizes and training settings (arXiv 2204.06125, table 3).

    unclip train decoder --recipe dalle2 --data SHARDS --set clip=runs/dalle2/clip

Settings that the paper does not state are marked as chosen here. Two things differ: CLIP is trained without sharpness-aware
minimisation; and the prior and the text tower share one context length, since the prior reads the tower's states.
"""

from unclip.data.degradation import DegradationConfig
from unclip.diffusion.losses import LossConfig, UniformTime
from unclip.diffusion.parametrization import ProcessConfig
from unclip.networks.clip import ClipConfig, TextConfig, VisionConfig
from unclip.networks.decoder import CaptionConfig, DecoderConfig
from unclip.networks.prior_autoregressive import AutoregressivePriorConfig, CaptionEncoderConfig
from unclip.networks.prior_diffusion import DiffusionPriorConfig
from unclip.networks.unet import UnetConfig
from unclip.networks.upsampler import UpsamplerConfig
from unclip.stages import sampling as settings
from unclip.stages.sampling import Sampling
from unclip.train.config import DataConfig
from unclip.train.optim import OptimizerConfig
from unclip.train.tasks.clip import ClipTraining
from unclip.train.tasks.decoder import DecoderTraining
from unclip.train.tasks.prior import PriorTraining
from unclip.train.tasks.prior_autoregressive import AutoregressivePriorTraining
from unclip.train.tasks.upsampler import UpsamplerTraining

EMBEDDING = 1024
CONTEXT = 256
VOCABULARY = 49_408

_SIMPLE = LossConfig(density=UniformTime(), weight="target")


def sampling() -> Sampling:
    """The steps of table 3 and, of the decoder, the guidance of its best FID on COCO; the prior is not guided.

    Its variance is DDPM's here, where the paper's is analytic.
    """
    return settings.sampling(
        prior_steps=64,
        prior_sampler="ddpm",
        steps=250,
        sampler="ddpm",
        guidance=1.25,
        upsampler_steps=27,
        upsampler_sampler="ddim",
        second_upsampler_steps=15,
        second_upsampler_sampler="ddim",
    )


def clip() -> ClipTraining:
    """ViT-H/16 at 256 px and a text tower of 24 blocks, 1024 wide.

    Batch, decay and epochs are those of the first CLIP (arXiv 2103.00020, table 18: 32 epochs of 400 M pairs), which
    the paper refers to; the learning rate is the paper's.
    """
    return ClipTraining(
        recipe="dalle2",
        model=ClipConfig(
            embedding=EMBEDDING,
            vision=VisionConfig(size=256, patch=16, width=1280, layers=32, heads=16),
            text=TextConfig(vocabulary=VOCABULARY, context=CONTEXT, width=1024, layers=24, heads=16),
        ),
        data=DataConfig(size=256),
        optimizer=OptimizerConfig(learning_rate=3e-4, betas=(0.9, 0.98), epsilon=1e-6, weight_decay=0.2),
        samples=12_800_000_000,
        batch=32_768,
        vocabulary=VOCABULARY,
        ema_decay=0.9999,
    )


def prior() -> PriorTraining:
    """24 blocks, 2048 wide, 32 heads, on 256 text tokens."""
    return PriorTraining(
        recipe="dalle2",
        model=DiffusionPriorConfig(
            embedding=EMBEDDING,
            context=CONTEXT,
            text_width=1024,
            width=2048,
            layers=24,
            heads=32,
        ),
        dropout_text=0.1,
        data=DataConfig(size=256),
        loss=_SIMPLE,
        optimizer=_adam(1.1e-4, beta2=0.96, epsilon=1e-6, weight_decay=6.0e-2),
        samples=600_000 * 4096,
        batch=4096,
        ema_decay=0.9999,
    )


def prior_autoregressive() -> AutoregressivePriorTraining:
    """A caption encoder of 24 blocks, 2048 wide, and 24 blocks, 1664 wide, on 319 components in 1024 buckets.

    The table counts 1 B parameters, these two transformers have 2.0 B; and a context of 384 tokens, too short for 256
    caption tokens and 319 codes: the paper does not state how much of the caption is read. Here all tokens are.
    """
    return AutoregressivePriorTraining(
        recipe="dalle2",
        model=AutoregressivePriorConfig(
            embedding=EMBEDDING,
            context=CONTEXT,
            text_width=1024,
            dimensions=319,
            buckets=1024,
            dot_buckets=1024,
            width=1664,
            layers=24,
            heads=26,
            encoder=CaptionEncoderConfig(width=2048, layers=24, heads=32),
        ),
        reconstruction_error=0.01,
        dropout_text=0.1,
        data=DataConfig(size=256),
        optimizer=_adam(1.6e-4, beta2=0.91, epsilon=1e-10, weight_decay=4.0e-2),
        samples=1_000_000 * 4096,
        batch=4096,
        ema_decay=0.999,
    )


def decoder() -> DecoderTraining:
    """GLIDE's U-Net of 512 channels and its text transformer; eps and learned variance on the cosine schedule."""
    return DecoderTraining(
        recipe="dalle2",
        model=DecoderConfig(
            net=UnetConfig(
                in_channels=3,
                out_channels=6,
                channels=512,
                multiples=(1, 2, 3, 4),
                blocks=3,
                attention_levels=(1, 2, 3),
                head_channels=64,
                context_width=2048,
                vector_width=2048,
                dropout=0.1,
            ),
            size=64,
            embedding=EMBEDDING,
            embedding_scale=EMBEDDING**0.5,
            image_tokens=4,
            caption=CaptionConfig(vocabulary=VOCABULARY, context=CONTEXT, width=2048, layers=24, heads=32),
            process=ProcessConfig(parametrization="eps", schedule="cosine", learned_variance=True),
        ),
        dropout_image=0.1,
        dropout_caption=0.5,
        data=DataConfig(size=64),
        loss=_SIMPLE,
        optimizer=_adam(1.2e-4),
        samples=800_000 * 2048,
        batch=2048,
        ema_decay=0.9999,
    )


def upsampler() -> UpsamplerTraining:
    """64 to 256 px: 320 channels; small pictures are blurred in training."""
    return UpsamplerTraining(
        recipe="dalle2",
        model=UpsamplerConfig(
            net=UnetConfig(in_channels=6, channels=320, multiples=(1, 2, 3, 4), blocks=3, dropout=0.1),
            process=ProcessConfig(parametrization="eps", schedule="cosine"),
            low_size=64,
            high_size=256,
        ),
        data=DataConfig(size=64),
        loss=_SIMPLE,
        optimizer=_adam(1.2e-4),
        samples=1_000_000 * 1024,
        batch=1024,
        ema_decay=0.9999,
    )


def upsampler_1024() -> UpsamplerTraining:
    """256 to 1024 px: 192 channels, the linear schedule; small pictures go through BSR in training."""
    return UpsamplerTraining(
        recipe="dalle2",
        stage="upsampler_1024",
        model=UpsamplerConfig(
            net=UnetConfig(in_channels=6, channels=192, multiples=(1, 1, 2, 2, 4, 4), blocks=2),
            process=ProcessConfig(parametrization="eps", schedule="linear"),
            low_size=256,
            high_size=1024,
        ),
        degradation=DegradationConfig(method="bsr"),
        data=DataConfig(size=256),
        loss=_SIMPLE,
        optimizer=_adam(1.0e-4),
        samples=1_000_000 * 512,
        batch=512,
        ema_decay=0.9999,
    )


def _adam(
    learning_rate: float, *, beta2: float = 0.999, epsilon: float = 1e-8, weight_decay: float = 0.0
) -> OptimizerConfig:
    # A constant rate: the paper states neither warm-up nor decay.
    return OptimizerConfig(
        learning_rate=learning_rate,
        betas=(0.9, beta2),
        epsilon=epsilon,
        weight_decay=weight_decay,
        warmup=0.0,
        decay=0.0,
    )
