"""The bundled model from one GPU in nine minutes: the artwork recipe's stages, larger batches, and ten times the samples.

python benchmarks/artwork_gpu.py --packages artwork/node_modules --work runs/gpu --budget 9m

or, with shards that are there already, `unclip train all --recipe artwork_gpu --data SHARDS --out runs/gpu --budget 9m`.
The decoder is trained twice: on 8 x 8 patches, where a sample costs a quarter and shapes are learned, and then, from
those weights, on 4 x 4 patches, which draw clean edges. All stages packed to int8 take less than 40 MB.
"""

from dataclasses import replace

from unclip.diffusion.losses import LogitNormal, LossConfig
from unclip.diffusion.parametrization import ProcessConfig
from unclip.networks.clip import ClipConfig, TextConfig, VisionConfig
from unclip.networks.decoder import CaptionConfig, DecoderConfig
from unclip.networks.patch_transformer import PatchTransformerConfig
from unclip.networks.prior_autoregressive import AutoregressivePriorConfig
from unclip.recipes import artwork
from unclip.recipes import judge as judges
from unclip.stages import sampling as settings
from unclip.stages.sampling import Sampling
from unclip.train.config import DataConfig
from unclip.train.optim import OptimizerConfig
from unclip.train.tasks.clip import ClipTraining
from unclip.train.tasks.decoder import DecoderTraining
from unclip.train.tasks.prior import PriorTraining
from unclip.train.tasks.prior_autoregressive import AutoregressivePriorTraining
from unclip.train.tasks.upsampler import UpsamplerTraining

#: Runs are short: a checkpoint on the way costs more than it saves.
_SELDOM = 600.0

#: How often the priors see each kind of picture, and what is not everyday.
_PRIORS = {"kind": {"augmented": 0.4, "pair": 0.3, "recolour": 0.6}, "everyday": {"false": 0.6}}


def sampling() -> Sampling:
    """What the model draws with."""
    return settings.sampling(steps=10, guidance=2.5, prior_steps=12, prior_guidance=1.5, upsampler_steps=4)


def clip() -> ClipTraining:
    """The artwork CLIP with a wider picture tower, 6.7 M parameters; four times as many negatives."""
    return replace(
        artwork.clip(),
        recipe="artwork_gpu",
        model=ClipConfig(
            embedding=artwork.EMBEDDING,
            vision=VisionConfig(size=64, patch=8, width=256, layers=5, heads=4),
            text=TextConfig(context=artwork.CONTEXT, width=192, layers=4, heads=3),
        ),
        data=DataConfig(shift=3, factors={"kind": {"pair": 0.4, "recolour": 0.6, "augmented": 0.6}}),
        optimizer=OptimizerConfig(
            learning_rate=1e-3,
            muon_learning_rate=2e-3,
            weight_decay=0.05,
            betas=(0.9, 0.98),
            clip_norm=1.0,
            decay=0.5,
        ),
        samples=2_070_528,
        batch=3072,
        ema_decay=0.99,
        checkpoint_seconds=_SELDOM,
        validate_every=466_944,
        preview_every=466_944,
    )


def prior() -> PriorTraining:
    """The artwork recipe's diffusion prior in batches of 3,072."""
    return replace(
        artwork.prior(),
        recipe="artwork_gpu",
        data=DataConfig(factors=_PRIORS),
        samples=2_359_296,
        batch=3072,
        checkpoint_seconds=_SELDOM,
        validate_every=500_000,
        preview_every=500_000,
    )


def prior_autoregressive() -> AutoregressivePriorTraining:
    """A narrower autoregressive prior, 2.8 M parameters: what is saved is the decoder's."""
    return replace(
        artwork.prior_autoregressive(),
        recipe="artwork_gpu",
        model=AutoregressivePriorConfig(buckets=64, dot_buckets=64, width=192, layers=6, heads=3),
        data=DataConfig(factors=_PRIORS),
        samples=399_360,
        batch=1024,
        checkpoint_seconds=_SELDOM,
        validate_every=200_000,
        preview_every=200_000,
    )


def _decoder(patch: int, batch: int) -> DecoderTraining:
    return replace(
        artwork.decoder(),
        recipe="artwork_gpu",
        model=DecoderConfig(
            net=PatchTransformerConfig(
                in_channels=7, size=64, patch=patch, width=384, layers=8, context_width=256
            ),
            caption=CaptionConfig(width=192, layers=2, heads=3),
            inpainting=True,
            process=ProcessConfig(parametrization="x0", schedule="flow"),
        ),
        dropout_image=0.15,
        dropout_caption=0.35,
        embedding_noise=0.35,
        data=DataConfig(
            factors={"kind": {"pair": 0.3, "augmented": 0.4, "recolour": 0.4}, "everyday": {"false": 0.6}}
        ),
        loss=LossConfig(density=LogitNormal(mean=0.8, std=0.8), weight="velocity"),
        batch=batch,
        ema_decay=0.998,
        checkpoint_seconds=_SELDOM,
    )


def decoder_coarse() -> DecoderTraining:
    """The decoder on 8 x 8 patches, from random weights; its rate falls little, as training continues on 4 x 4."""
    return replace(
        _decoder(8, 2048),
        optimizer=OptimizerConfig(learning_rate=1e-3, muon_learning_rate=3e-3, decay=0.2),
        samples=2_873_344,
        validate_every=1_000_000,
        preview_every=1_000_000,
    )


def decoder() -> DecoderTraining:
    """The decoder on 4 x 4 patches, from the coarse one's weights: 19 M parameters."""
    return replace(
        _decoder(4, 768),
        optimizer=OptimizerConfig(learning_rate=1e-3, muon_learning_rate=2e-3, decay=0.6),
        samples=1_140_480,
        validate_every=400_000,
        preview_every=400_000,
        seed=1,
    )


def upsampler() -> UpsamplerTraining:
    """The artwork recipe's first upsampler on crops by the million; seams are those of 4 x 4 patches."""
    recipe = artwork.upsampler()
    return replace(
        recipe,
        recipe="artwork_gpu",
        degradation=replace(recipe.degradation, seam_patch=4, noise_level=0.1),
        samples=1_000_448,
        batch=1024,
        checkpoint_seconds=_SELDOM,
        validate_every=250_000,
        preview_every=250_000,
    )


def upsampler_1024() -> UpsamplerTraining:
    """The artwork recipe's second upsampler."""
    return replace(artwork.upsampler_1024(), recipe="artwork_gpu")


def judge() -> ClipTraining:
    """The judge in batches of 2,048."""
    return replace(
        judges.clip(),
        samples=524_288,
        batch=2048,
        checkpoint_seconds=_SELDOM,
        validate_every=250_000,
        preview_every=250_000,
    )
