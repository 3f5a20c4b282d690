"""Small nets for 64 px drawings of one or two objects, trained on two CPU cores in hours (on a GPU: `artwork_gpu`).

unclip train clip --recipe artwork --data SHARDS --out runs/artwork/clip      (and prior, decoder, upsampler)

The second upsampler learns from drawings of its own size: `unclip data artwork SHARDS --size 1024 --limit 300`.
"""

from unclip.data.degradation import DegradationConfig
from unclip.diffusion.losses import LogitNormal, LogNormal, LossConfig, UniformTime
from unclip.diffusion.parametrization import ProcessConfig
from unclip.networks.clip import ClipConfig, TextConfig, VisionConfig
from unclip.networks.decoder import CaptionConfig, DecoderConfig
from unclip.networks.patch_transformer import PatchTransformerConfig
from unclip.networks.prior_autoregressive import AutoregressivePriorConfig
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

EMBEDDING = 256
CONTEXT = 24


def sampling() -> Sampling:
    """What the model draws with: no other setting was measured to be better (docs/evaluation.md)."""
    return settings.sampling(steps=16, guidance=2.5, prior_steps=12, prior_guidance=1.5, upsampler_steps=4)


def clip() -> ClipTraining:
    """A ViT on 8 x 8 patches and a short text tower, 5 M parameters."""
    return ClipTraining(
        recipe="artwork",
        model=ClipConfig(
            embedding=EMBEDDING,
            vision=VisionConfig(size=64, patch=8, width=192, layers=6, heads=3),
            text=TextConfig(context=CONTEXT, width=192, layers=4, heads=3),
        ),
        data=DataConfig(shift=3),
        optimizer=OptimizerConfig(
            learning_rate=1e-3, muon_learning_rate=2e-3, weight_decay=0.05, betas=(0.9, 0.98)
        ),
        samples=199_680,
        batch=512,
        ema_decay=0.99,
    )


def prior() -> PriorTraining:
    """A small causal transformer that predicts the clean embedding on the cosine schedule."""
    return PriorTraining(
        recipe="artwork",
        model=DiffusionPriorConfig(width=256, layers=6, heads=4),
        loss=LossConfig(density=UniformTime(), weight="x0"),
        data=DataConfig(factors={"kind": {"augmented": 0.4, "pair": 0.6}, "everyday": {"false": 0.15}}),
        optimizer=OptimizerConfig(learning_rate=1e-3, muon_learning_rate=2e-3, weight_decay=0.02, decay=0.5),
        samples=204_800,
        batch=256,
        ema_decay=0.995,
    )


def prior_autoregressive() -> AutoregressivePriorTraining:
    """A causal transformer of the diffusion prior's size; one component of the embedding in 64 buckets at a time."""
    return AutoregressivePriorTraining(
        recipe="artwork",
        model=AutoregressivePriorConfig(buckets=64, dot_buckets=64, width=256, layers=6, heads=4),
        data=DataConfig(factors={"kind": {"augmented": 0.4, "pair": 0.6}, "everyday": {"false": 0.2}}),
        optimizer=OptimizerConfig(learning_rate=1e-3, muon_learning_rate=2e-3, weight_decay=0.02, decay=0.5),
        samples=57_600,
        # It wants steps: 100 of 256 taught it next to nothing.
        batch=48,
        ema_decay=0.995,
    )


def decoder() -> DecoderTraining:
    """A transformer on 8 x 8 patches: predicts x0 on the flow schedule, with the velocity's weight (JiT)."""
    return DecoderTraining(
        recipe="artwork",
        model=DecoderConfig(
            net=PatchTransformerConfig(
                in_channels=7, size=64, patch=8, width=320, layers=10, context_width=256
            ),
            caption=CaptionConfig(width=192, layers=2, heads=3),
            inpainting=True,
            process=ProcessConfig(parametrization="x0", schedule="flow"),
        ),
        dropout_hint=0.9,
        # Two cores have time for some 1,200 drawings, not for 15,000: single drawings of everyday things come first.
        # Where there is a GPU, set data.factors.everyday.false=1.
        data=DataConfig(
            factors={"kind": {"pair": 0.15, "augmented": 0.3, "recolour": 0.3}, "everyday": {"false": 0.1}}
        ),
        loss=LossConfig(density=LogitNormal(mean=0.8, std=0.8), weight="velocity"),
        optimizer=OptimizerConfig(learning_rate=1e-3, muon_learning_rate=2e-3, decay=0.5),
        samples=399_360,
        batch=128,
        ema_decay=0.99,
    )


def upsampler() -> UpsamplerTraining:
    """Convolutions on 4 x 4 folded pixels: cheap at 256 px on a CPU, trained on 64 px crops.

    It adds to the bicubic picture what that lacks, so a handful of steps do.
    """
    return UpsamplerTraining(
        recipe="artwork",
        model=UpsamplerConfig(
            net=UnetConfig(
                in_channels=6,
                out_channels=3,
                channels=64,
                multiples=(1, 1, 2),
                blocks=1,
                resample="conv",
                patch=4,
                norm="rms",
            ),
            process=ProcessConfig(parametrization="x0", schedule="flow"),
            residual=True,
        ),
        degradation=DegradationConfig(
            blur_probability=0.5,
            noise_level=0.05,
            # Seen in what the decoder draws: its patches differ in flat areas by a few of 255 levels.
            seam_level=0.06,
        ),
        loss=LossConfig(density=LogitNormal(mean=0.0, std=1.0), weight="velocity"),
        optimizer=OptimizerConfig(learning_rate=1e-3, weight_decay=0.0),
        samples=80_000,
        batch=32,
        ema_decay=0.998,
    )


def upsampler_1024() -> UpsamplerTraining:
    """256 to 1024 px, as the paper's second one on the linear schedule and with BSR, at a third of its strength: what
    it is given are drawings, clean but for what the first one got wrong.

    One folded pixel of the net is one pixel of the small picture.
    """
    return UpsamplerTraining(
        recipe="artwork",
        stage="upsampler_1024",
        model=UpsamplerConfig(
            net=UnetConfig(
                in_channels=6,
                out_channels=3,
                channels=64,
                multiples=(1, 1),
                blocks=1,
                resample="conv",
                patch=4,
                norm="rms",
            ),
            process=ProcessConfig(parametrization="x0", schedule="linear"),
            low_size=256,
            high_size=1024,
            residual=True,
        ),
        degradation=DegradationConfig(method="bsr", bsr_strength=0.33),
        crop_fraction=0.125,
        data=DataConfig(size=256),
        # The velocity's weight would spend nearly all on copying what hardly has noise.
        loss=LossConfig(density=LogNormal(mean=-0.5, std=1.5), weight="min_snr"),
        optimizer=OptimizerConfig(learning_rate=1e-3, weight_decay=0.0),
        samples=16_000,
        batch=16,
        ema_decay=0.995,
        validate_every=4_000,
        preview_every=8_000,
    )
