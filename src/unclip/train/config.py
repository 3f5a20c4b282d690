"""What a training run is: a model, data, an optimiser, and how long. A recipe is a function that returns one."""

from dataclasses import dataclass, field
from typing import Literal

from unclip.diffusion.losses import LossConfig
from unclip.models.clip import ClipConfig
from unclip.models.decoder import DecoderConfig
from unclip.models.prior_diffusion import DiffusionPriorConfig
from unclip.models.upsampler import UpsamplerConfig
from unclip.train.optim import OptimizerConfig

Stage = Literal["clip", "prior", "decoder", "upsampler"]
STAGES: tuple[Stage, ...] = ("clip", "prior", "decoder", "upsampler")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which pictures and captions, and how they are read."""

    path: str = ""
    """A folder of pictures or of tar shards; "shapes" draws coloured shapes."""
    split: str = "train"
    validation: str = "val"
    size: int = 64
    cache: str | None = None
    """Where decoded pictures are kept; None: beside the run."""
    shift: int = 0
    """Augmentation: pictures are moved by up to so many pixels, the edge filled with white."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One stage's training, whole: the same config and data give the same weights."""

    recipe: str
    stage: Stage
    model: ClipConfig | DiffusionPriorConfig | DecoderConfig | UpsamplerConfig
    data: DataConfig = field(default_factory=DataConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    samples: int = 100_000
    """Length of the run in samples seen, so that it means the same at every batch size."""
    batch: int = 64
    micro_batch: int | None = None
    """Samples held in memory at once; their gradients are accumulated to a batch. None: the whole batch."""
    ema_decay: float = 0.998
    seed: int = 0
    precision: Literal["bf16", "fp32"] = "bf16"
    compile: bool = False
    out: str = ""
    clip: str | None = None
    """Run folder of the CLIP stage, which the prior and the decoder read embeddings and tokenizer from."""
    vocabulary: int = 4096
    """Tokens of the byte-pair encoding that the CLIP stage learns from the captions."""
    validate_every: int = 20_000
    preview_every: int = 20_000
    checkpoint_seconds: float = 120.0
    checkpoints_kept: int = 2

    def __post_init__(self) -> None:
        """Raise ValueError for numbers that make no run."""
        for name in ("samples", "batch", "validate_every", "preview_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.checkpoints_kept < 2:
            raise ValueError(
                f"checkpoints_kept is {self.checkpoints_kept}; keep at least 2, as one may be damaged"
            )
