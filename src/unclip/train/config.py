"""What a training run is: a model, data, an optimiser, and how long. A recipe is a function that returns one."""

from dataclasses import dataclass, field
from typing import Literal, get_args

from unclip.diffusion.losses import LossConfig
from unclip.models.clip import ClipConfig
from unclip.models.decoder import DecoderConfig
from unclip.models.prior_autoregressive import AutoregressivePriorConfig
from unclip.models.prior_diffusion import DiffusionPriorConfig
from unclip.models.upsampler import UpsamplerConfig
from unclip.train.optim import OptimizerConfig

Stage = Literal["clip", "prior", "decoder", "upsampler", "upsampler_1024", "prior_autoregressive"]
STAGES: tuple[Stage, ...] = get_args(Stage)


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which pictures and captions, and how they are read."""

    path: str = ""
    """A folder of pictures or of tar shards; "shapes" draws coloured shapes."""
    split: str | None = "train"
    """The split that is learned, of shards named NAME-SPLIT-NUMBER.tar; None: all shards. Other data has no splits."""
    validation: str | None = "val"
    """The split to validate on; None: a held-out share of what is learned, as with data that has no splits."""
    held_out: float = 0.05
    """That share, in (0, 1): which pictures it holds, at least one, is decided by a hash of their keys."""
    size: int = 64
    cache: str | None = None
    """Where decoded pictures are kept; None: beside the run."""
    kinds: dict[str, float] = field(default_factory=dict)
    """Factors in (0, 1] on the weights of samples, by the `kind` in their metadata: how often each kind is seen."""
    uncommon: float = 1.0
    """A factor in (0, 1] on the weights of artwork that shows more than everyday things (`data.everyday`)."""
    embedding_noise: float = 0.0
    """The decoder's image embeddings lean by up to this factor towards those of other pictures, as a prior's do."""
    shift: int = 0
    """Augmentation of the pictures that CLIP sees: moved by up to so many pixels, the edge filled with white."""

    def __post_init__(self) -> None:
        """Raise ValueError for a share that leaves nothing."""
        if not 0 < self.held_out < 1:
            raise ValueError(f"held_out is {self.held_out}; it is a share between 0 and 1, such as 0.05")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One stage's training, whole: the same config and data give the same weights."""

    recipe: str
    stage: Stage
    model: ClipConfig | DiffusionPriorConfig | AutoregressivePriorConfig | DecoderConfig | UpsamplerConfig
    data: DataConfig = field(default_factory=DataConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    samples: int = 100_000
    """Length of the run in samples seen, so that it means the same at every batch size."""
    batch: int = 64
    micro_batch: int | None = None
    """Samples held in memory at once; their gradients are accumulated to a batch. None: the whole batch.

    A caption's negatives in CLIP's loss are those of its micro-batch only: there, a smaller one is another loss.
    """
    ema_decay: float = 0.998
    keep: Literal["last", "best"] = "last"
    """Which average becomes the model: that of the last step, or of the validation with the least loss."""
    seed: int = 0
    precision: Literal["bf16", "fp32"] = "bf16"
    """What activations are computed in (autocast); weights, optimiser and average are float32 always."""
    compile: bool | None = None
    """Whether the networks are compiled; None: on CUDA, where it pays soonest."""
    out: str = ""
    """The run's folder."""
    clip: str | None = None
    """Run folder of the CLIP stage, which the priors and the decoder read embeddings and tokenizer from."""
    init: str | None = None
    """A model folder, such as a finished run's OUT/model, with whose weights the run begins; None: random ones.

    CLIP takes over the tokenizer too. A run that was interrupted goes on by itself: this is for a new one.
    """
    vocabulary: int = 4096
    """Tokens of the byte-pair encoding that the CLIP stage learns from the captions."""
    validate_every: int = 20_000
    """Samples between validations."""
    preview_every: int = 20_000
    """Samples between grids of pictures."""
    checkpoint_seconds: float = 120.0
    checkpoints_kept: int = 2

    def __post_init__(self) -> None:
        """Raise ValueError for numbers that make no run."""
        for name in ("samples", "batch", "micro_batch", "validate_every", "preview_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")
        if self.checkpoints_kept < 2:
            raise ValueError(
                f"checkpoints_kept is {self.checkpoints_kept}; keep at least 2, as one may be damaged"
            )
