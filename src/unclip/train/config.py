"""Configs of training runs: data, optimiser and length; each stage adds its own settings (`train/tasks/`).

A recipe is a function that returns one. `read_config` reads one from JSON, `change` applies `--set` assignments.
"""

import dataclasses
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, TypeVar

from unclip.config import ConfigError, from_dict, override, to_dict
from unclip.networks.adapter import AdapterConfig
from unclip.train.optim import OptimizerConfig
from unclip.train.ranges import check_ranges
from unclip.train.registry import config_class

logger = logging.getLogger(__name__)

C = TypeVar("C", bound="TrainConfig")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which pictures and captions, and how they are read."""

    path: str = ""
    """A folder of pictures, tar shards or parquet files, a table of pictures, or a URL of these; "shapes" draws coloured shapes."""
    split: str | None = "train"
    """The split that is learned, of shards named NAME-SPLIT-NUMBER.tar or SPLIT-NUMBER.parquet; None: all. Other data has no splits."""
    validation: str | None = "val"
    """The split to validate on; None: a held-out share of what is learned, as with data that has no splits."""
    held_out: float = 0.05
    """That share, in (0, 1): which pictures it holds, at least one, is decided by a hash of their keys."""
    size: int = 64
    cache: str | None = None
    """Where decoded pictures are kept; None: beside the run."""
    factors: dict[str, dict[str, float]] = field(default_factory=dict)
    """Factors in (0, 1] on the weights of samples, by a field of their metadata and its value: how often each is seen.

    `{"kind": {"pair": 0.4}}` shows samples whose `kind` is "pair" less often. Fields that a data set computes from its
    metadata count as well (`unclip.datasets.DERIVED`), such as `everyday` of the artwork set: "true" or "false".
    """
    bad_share: float = 0.01
    """Share of bad samples (unreadable, without a caption) from which on a run stops; one is passed over in any case."""
    changed: Literal["refuse", "allow"] = "refuse"
    """Whether a begun run goes on with other pictures or captions than those it began with. "allow": it does, with its
    first tokenizer; its weights are then no function of its config and data."""
    reading: Literal["auto", "decoded", "streamed"] = "auto"
    """Whether pictures are decoded once and kept, or read as they are needed, in an order of its own. "auto": object stores
    (s3://...), single tables and parquet files with pictures are streamed, and folders of more than `decoded_gib`."""
    decoded_gib: float = 64.0
    """GiB of files above which "auto" streams."""
    workers: int = 2
    """Processes that read streamed data."""
    cache_gib: float = 20.0
    """GiB of streamed data that are kept on this disk, in `cache`."""
    embeddings: str | None = None
    """Folder or URL with the sidecar files of `unclip embed`, for streamed data; None: beside the data."""
    latents: str | None = None
    """Folder or URL with the sidecar files of `unclip latents`, for streamed data; None: beside the data. Where there are none,
    pictures are encoded as they are read."""
    selection: str | None = None
    """Folder or URL with the selection that `unclip data dedup` or `unclip data filter` wrote: only what it keeps is seen.
    "auto" streams such data."""
    shift: int = 0
    """Augmentation of the pictures that CLIP sees: moved by up to so many pixels, the edge filled with white."""

    def __post_init__(self) -> None:
        """Raise ValueError for a share or a factor out of range; factors of 1 are left out."""
        if not 0 < self.held_out < 1:
            raise ValueError(f"held_out is {self.held_out}; it is a share between 0 and 1, such as 0.05")
        if not 0 <= self.bad_share <= 1:
            raise ValueError(f"data.bad_share is {self.bad_share}; it is a share from 0 to 1, such as 0.05")
        if self.decoded_gib < 0 or self.workers < 0 or not self.cache_gib > 0:
            raise ValueError(
                f"data.decoded_gib ({self.decoded_gib}), data.workers ({self.workers}) and data.cache_gib ({self.cache_gib}) "
                "cannot be negative, nor the last 0"
            )
        if self.selection is not None and self.reading == "decoded":
            raise ValueError("data.selection is a setting of streamed data: leave data.reading=decoded out")
        kept: dict[str, dict[str, float]] = {}
        for name, values in self.factors.items():
            for value, factor in values.items():
                if not 0 < factor <= 1:
                    raise ValueError(f"data.factors.{name}.{value} is {factor}; give a factor in (0, 1]")
                if factor < 1:
                    kept.setdefault(name, {})[value] = factor
        object.__setattr__(self, "factors", kept)


@dataclass(frozen=True, kw_only=True)
class ParallelConfig:
    """How a run is spread over processes. A run may be resumed with other settings: weights differ by rounding only."""

    layout: Literal["ddp", "fsdp"] = "ddp"
    """What each process holds of the network, its moments and its average: a whole copy, or a shard (FSDP2)."""
    replicas: int = 1
    """With "fsdp": groups of processes that each hold all shards (HSDP); between groups only gradients travel."""
    activation_checkpointing: bool = False
    """Whether the activations inside of blocks are computed again in the backward pass instead of kept."""
    reduce: Literal["fp32", "bf16"] = "fp32"
    """What gradients are added up in between processes. Weights travel as float32."""
    timeout: float = 1800.0
    """Seconds that processes wait for each other before the run ends with an error."""

    def __post_init__(self) -> None:
        """Raise ValueError for numbers that lay out no run."""
        if self.replicas < 1:
            raise ValueError(f"parallel.replicas is {self.replicas}; it must be at least 1")
        if not self.timeout > 0:
            raise ValueError(f"parallel.timeout is {self.timeout}; give seconds, such as 1800")
        if self.layout == "ddp" and self.replicas != 1:
            raise ValueError("parallel.replicas is a setting of parallel.layout=fsdp")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One run of one stage, whole: the same config and data give the same weights.

    Stages derive their own config from it; `stage` is the name in `train.registry.STAGES`.
    """

    recipe: str
    stage: str
    model: Any
    """Config of the network."""
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    samples: int = 100_000
    """Length of the run in samples seen, so that it means the same at every batch size."""
    batch: int = 64
    micro_batch: int | None = None
    """Samples held in memory at once; their gradients are accumulated to a batch. None: the whole batch.

    Several processes hold it together, each a part. A caption's negatives in CLIP's loss are those of its micro-batch,
    in all processes: there, a smaller one is another loss.
    """
    ema_decay: float = 0.998
    keep: Literal["last", "best"] = "last"
    """Which average becomes the model: that of the last step, or of the validation with the least loss."""
    seed: int = 0
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """What activations are computed in (autocast); weights, optimiser and average are float32 always.

    "auto" is the faster one on this machine (`unclip.nn.precision`). The choice is recorded in the run's folder, and a
    resumed run keeps it.
    """
    compile: bool | None = None
    """Whether the networks are compiled; None: on CUDA, where it pays soonest."""
    out: str = ""
    """The run's folder."""
    adapter: AdapterConfig | None = None
    """Train a low-rank adapter (LoRA) beside the weights of `init`, which stay as they are; None: the weights themselves."""
    init: str | None = None
    """A model folder, such as a finished run's OUT/model, with whose weights the run begins; None: random ones.

    A model in a public format does as well. CLIP takes over the tokenizer too. An interrupted run resumes by itself: this is for a new one.
    """
    validate_every: int = 20_000
    """Samples between validations."""
    preview_every: int = 20_000
    """Samples between grids of pictures."""
    checkpoint_seconds: float = 120.0
    checkpoints_kept: int = 2
    prefetch: int = 2
    """Micro-batches prepared ahead on a background thread; 0: none. Weights do not depend on it."""

    loggers: tuple[str, ...] = ()
    """Loggers beside the run's folder: "tensorboard", or MODULE:CLASS of a `train.metrics.MetricsLogger`."""

    MOVED: ClassVar[Mapping[str, str]] = {
        "data.kinds": "data.factors.kind",
        "data.uncommon": "data.factors.everyday.false",
    }
    """Paths of settings in version 0.1 -> their paths now."""

    OF_LENGTH: ClassVar[tuple[str, ...]] = ("samples", "validate_every", "preview_every")
    """Settings that follow from the run's length: a begun run keeps those that it has."""

    def lasting(self, samples: int) -> "TrainConfig":
        """The run with another length."""
        return replace(self, samples=samples)

    @property
    def costly_from(self) -> int:
        """The sample from which on a step costs all that it ever does."""
        return 0

    def costly(self) -> "TrainConfig":
        """The run with steps that cost from the start what later ones do, to measure them."""
        return self

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
        if self.adapter is not None and not self.init:
            raise ValueError("adapter is for the weights of a model: set init to it")
        if self.prefetch < 0:
            raise ValueError(f"prefetch is {self.prefetch}; it must be at least 0")
        check_ranges(self)


@dataclass(frozen=True, kw_only=True)
class ClipDependent(TrainConfig):
    """A run that reads embeddings, text and tokenizer from a trained CLIP."""

    clip: str = ""
    """Run folder of the CLIP stage, or a model folder with a CLIP."""


#: Settings that every config of version 0.1 had, whether its stage read them or not.
_ONCE_COMMON = ("clip", "loss", "vocabulary")


def read_config(data: Mapping[str, Any]) -> TrainConfig:
    """Run config from its JSON, as this version or 0.1 wrote it. Raises `ConfigError` naming what does not fit."""
    cls: type[TrainConfig] = config_class(data.get("stage", ""))
    found: dict[str, Any] = json.loads(json.dumps(data))
    for old, new in _moved(cls).items():
        _move(found, old.split("."), new.split("."))
    fields = {one.name for one in dataclasses.fields(cls)}
    for name in _ONCE_COMMON:
        if name not in fields:
            found.pop(name, None)
    # Labels are in timestep units since; 0.1 scaled them in the network.
    net = (found.get("model") or {}).get("net")
    if isinstance(net, dict):
        net.pop("label_scale", None)
    return from_dict(cls, found)


def change(config: C, assignments: Sequence[str]) -> C:
    """A copy of `config` with `a.b=value` assignments applied (`unclip.config.override`).

    Paths of version 0.1 are accepted, with a warning in the log. Raises `ConfigError` for a path that does not exist or
    a value that does not fit.
    """
    renamed = [_renamed(config, one) for one in assignments]
    factors = [one for one in renamed if one.startswith("data.factors.")]
    if factors:
        data = to_dict(config)
        for assignment in factors:
            path, _, text = assignment.partition("=")
            _put(data, path.split("."), _value(text))
        config = from_dict(type(config), data)
    return override(config, [one for one in renamed if one not in factors])


def _renamed(config: TrainConfig, assignment: str) -> str:
    path, equals, text = assignment.partition("=")
    for old, new in _moved(type(config)).items():
        if path == old or path.startswith(f"{old}."):
            found = new + path.removeprefix(old)
            logger.warning("%s is now called %s", path, found)
            return f"{found}{equals}{text}"
    return assignment


def _moved(cls: type[TrainConfig]) -> dict[str, str]:
    return {**TrainConfig.MOVED, **cls.MOVED}


def _move(data: dict[str, Any], old: list[str], new: list[str]) -> None:
    node: Any = data
    for name in old[:-1]:
        node = node.get(name)
        if not isinstance(node, dict):
            return
    if old[-1] in node:
        value = node.pop(old[-1])
        # What took an old name's place is newer than what the old name says.
        _put(data, new, value)


def _put(data: dict[str, Any], path: list[str], value: Any) -> None:
    node = data
    for name in path[:-1]:
        node = node.setdefault(name, {})
        if not isinstance(node, dict):
            raise ConfigError(f"{'.'.join(path)}: {name!r} is a plain value")
    node[path[-1]] = value


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
