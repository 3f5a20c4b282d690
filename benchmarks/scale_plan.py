"""What training the paper's five stages at full size takes, computed without a GPU; `scale_page.py` writes docs/scale.md of it.

Networks run on fake tensors, which have shapes but no memory: parameters, operations of a step, and the activations that the
backward pass needs are counted, not estimated. What a cluster does with them (efficiency, failures, bandwidths, prices) is
assumed, in the constants below. `cluster_simulation.py` plays a run with failures.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from cluster_simulation import Cluster, Run, best_interval
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

import unclip.nn.dot_product
from unclip import recipes
from unclip.networks.clip import Clip
from unclip.networks.decoder import Decoder, DecoderCondition
from unclip.networks.prior_autoregressive import AutoregressivePrior
from unclip.networks.prior_diffusion import DiffusionPrior, PriorCondition
from unclip.networks.upsampler import Upsampler, UpsamplerCondition
from unclip.nn.dropout import seed_dropout
from unclip.rng import Noise
from unclip.train.task import BLOCKS, checkpoint_blocks

GPU_PEAK = 989e12
"""bfloat16 operations a second of an H100 SXM without sparsity (NVIDIA's data sheet)."""
GPU_MEMORY = 80e9
GPU_PRICE = 2.5
"""Dollars for an H100-hour."""
A100_PEAK = 312e12
TRANSFORMER_MFU, UNET_MFU = 0.35, 0.20
GPU_HOURS_PER_FAILURE = 16_384 * 54 * 24 / 419
STATE = 4 + 4 + 8 + 4
"""Bytes of a parameter's shard: weight, gradient, two moments and the average, all float32."""
KEPT = 4 + 8 + 4
"""Bytes of a parameter in a checkpoint: weight, moments, average."""
HOST_RATE, DISK_RATE, STORE_RATE = 10e9, 2e9, 20e9
"""Bytes a second: from a GPU to its host, from a machine to the store, and into the store from all machines."""
LOCAL_FREE = 0.85
"""Share of a GPU's memory that a plan may fill; the rest is for kernels' scratch space and fragmentation."""


class Counted(NamedTuple):
    """What one sample of a network costs."""

    parameters: int
    in_blocks: int
    largest_block: int
    forward: float
    """Operations of one sample's forward pass."""
    activations: float
    """Bytes that a sample's backward pass needs."""
    checkpointed: float
    """The same with activation checkpointing: the inputs of blocks, and the inside of the largest."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A stage of the plan: how it is counted, and what it is trained on."""

    name: str
    recipe: str
    gpus: int
    mfu: float
    sample_bytes: float
    """Bytes that a sample is read as: a picture of the training size as JPEG or WebP, or an embedding, and its caption."""
    stored: float
    """Pairs that are stored."""
    checkpointing: bool
    frozen: float = 0.0
    """Operations of frozen networks' forward passes for one sample: CLIP's text tower for the prior's captions."""


STAGES = (
    Stage(
        name="CLIP",
        recipe="clip",
        gpus=512,
        mfu=TRANSFORMER_MFU,
        sample_bytes=20e3,
        stored=650e6,
        checkpointing=True,
    ),
    Stage(
        name="prior",
        recipe="prior",
        gpus=128,
        mfu=TRANSFORMER_MFU,
        sample_bytes=2148,
        stored=650e6,
        checkpointing=True,
    ),
    Stage(
        name="decoder",
        recipe="decoder",
        gpus=256,
        mfu=UNET_MFU,
        sample_bytes=4.2e3,
        stored=250e6,
        checkpointing=False,
    ),
    Stage(
        name="upsampler, 256 px",
        recipe="upsampler",
        gpus=64,
        mfu=UNET_MFU,
        sample_bytes=20e3,
        stored=250e6,
        checkpointing=False,
    ),
    Stage(
        name="upsampler, 1024 px",
        recipe="upsampler_1024",
        gpus=64,
        mfu=UNET_MFU,
        sample_bytes=200e3,
        stored=250e6,
        checkpointing=False,
    ),
)
"""GPU counts are chosen here. Pairs are the paper's: 650 M for the encoder, 250 M for the rest (appendix C). A picture is read
as WebP: about 20 kB at 256 px, 2 kB at 64 px (the decoder reads an embedding of 2 kB too), 200 kB at 1024 px; a caption takes 100 bytes."""

SHARDS = 8
"""Processes that share one copy: the GPUs of a machine, which NVLink joins. Between machines only gradients travel."""


def calls(recipe: str) -> tuple[Callable[[], nn.Module], Callable[[nn.Module, int], Any], Any]:
    """Of a stage: what builds its network, what runs a batch of a size through it, and its config."""
    config = recipes.get("dalle2", recipe)
    model: Any = config.model

    def tokens(batch: int, length: int) -> Tensor:
        return torch.ones(batch, length, dtype=torch.long)

    def keep(batch: int) -> Tensor:
        return torch.ones(batch, dtype=torch.bool)

    def prior_condition(batch: int) -> PriorCondition:
        states = torch.zeros(batch, model.context, model.text_width)
        return PriorCondition(
            torch.zeros(batch, model.embedding), states, tokens(batch, model.context).bool(), keep(batch)
        )

    def run_clip(network: Any, batch: int) -> Any:
        size = model.vision.size
        return (
            network.encode_image(torch.zeros(batch, 3, size, size)),
            network.encode_text(tokens(batch, model.text.context)).embedding,
        )

    def run_prior(network: Any, batch: int) -> Any:
        return network(torch.zeros(batch, model.embedding), torch.zeros(batch), prior_condition(batch))

    def run_codes(network: Any, batch: int) -> Any:
        return network(tokens(batch, model.dimensions), tokens(batch, 1)[:, 0], prior_condition(batch))

    def run_decoder(network: Any, batch: int) -> Any:
        given = DecoderCondition(
            torch.zeros(batch, model.embedding),
            tokens(batch, model.caption.context),
            keep(batch),
            keep(batch),
        )
        return network(
            torch.zeros(batch, 3, model.size, model.size), torch.zeros(batch), network.encode(given)
        )

    def run_upsampler(network: Any, batch: int) -> Any:
        crop = torch.zeros(batch, 3, config.crop_size, config.crop_size)  # pyright: ignore[reportAttributeAccessIssue]
        return network(crop, torch.zeros(batch), UpsamplerCondition(crop, torch.zeros(batch)))

    runs = {
        "clip": (Clip, run_clip),
        "prior": (DiffusionPrior, run_prior),
        "prior_autoregressive": (AutoregressivePrior, run_codes),
        "decoder": (Decoder, run_decoder),
    }
    kind, run = runs.get(recipe, (Upsampler, run_upsampler))
    return lambda: kind(model), run, config


def count(build: Callable[[], nn.Module], run: Callable[[nn.Module, int], Any]) -> Counted:
    """Count a network: operations by one forward pass, activations by what a second sample adds."""

    def seeded(network: nn.Module, batch: int) -> Any:
        seed_dropout(network, Noise(torch.zeros(batch, dtype=torch.long)))
        return run(network, batch)

    # As on a GPU, attention is fused: its table of scores is never stored.
    unclip.nn.dot_product.SHORT = 0
    with FakeTensorMode(), torch.autocast("cpu", torch.bfloat16):
        network = build()
        parameters = sum(one.numel() for one in network.parameters())
        blocks: list[nn.Module] = [one for one in network.modules() if isinstance(one, BLOCKS)]
        sizes = [sum(one.numel() for one in block.parameters()) for block in blocks]
        with FlopCounterMode(display=False) as counter:
            seeded(network, 1)
        stored = [_saved(network, seeded, batch) for batch in (1, 2)]
        inside = _inside(network, seeded)
        checkpoint_blocks(network)
        inputs = [_inputs(blocks, network, seeded, batch) for batch in (1, 2)]
        outside = [_saved(network, seeded, batch) for batch in (1, 2)]
    kept = (inputs[1] - inputs[0]) + max(outside[1] - outside[0], 0.0) + inside
    return Counted(
        parameters, sum(sizes), max(sizes), float(counter.get_total_flops()), stored[1] - stored[0], kept
    )


def _saved(network: nn.Module, run: Callable[[nn.Module, int], Any], batch: int) -> float:
    """Bytes of the distinct tensors that autograd saves in a forward pass."""
    seen: dict[int, int] = {}
    alive: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in seen:
            seen[storage._cdata] = storage.nbytes()
            alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        alive.append(run(network, batch))
    return float(sum(seen.values()))


def _inside(network: nn.Module, run: Callable[[nn.Module, int], Any]) -> float:
    """Bytes that the backward pass of the block with the largest activations needs, for one sample: a bound by outputs."""
    sizes: dict[nn.Module, float] = {}

    def note(module: nn.Module, given: Any, found: Any) -> None:
        # Every layer of a block keeps at most its input and its output.
        tensors = [one for one in (*given, found) if isinstance(one, Tensor)]
        owner = owners[module]
        sizes[owner] = sizes.get(owner, 0.0) + sum(one.numel() * 2.0 for one in tensors)

    owners = {
        layer: block
        for block in network.modules()
        if isinstance(block, BLOCKS)
        for layer in block.modules()
        if layer is not block and not list(layer.children())
    }
    hooks = [layer.register_forward_hook(note) for layer in owners]
    run(network, 1)
    for hook in hooks:
        hook.remove()
    return max(sizes.values())


def _inputs(
    blocks: list[nn.Module], network: nn.Module, run: Callable[[nn.Module, int], Any], batch: int
) -> float:
    """Bytes of the distinct inputs of all blocks."""
    seen: dict[int, int] = {}
    alive: list[Tensor] = []

    def note(module: nn.Module, given: Any) -> None:
        for one in given:
            if isinstance(one, Tensor) and one.untyped_storage()._cdata not in seen:
                seen[one.untyped_storage()._cdata] = one.untyped_storage().nbytes()
                alive.append(one)

    hooks = [block.register_forward_pre_hook(note) for block in blocks]
    alive.append(run(network, batch))
    for hook in hooks:
        hook.remove()
    return float(sum(seen.values()))


@dataclass(frozen=True)
class Plan:
    """A stage's run on a cluster."""

    stage: Stage
    counted: Counted
    batch: int
    samples: int

    @property
    def step_flops(self) -> float:
        """Operations of a sample's training step: forward, backward, and a second forward where activations are computed again."""
        return (4 if self.stage.checkpointing else 3) * self.counted.forward + self.stage.frozen

    @property
    def useful_flops(self) -> float:
        """The same without what is computed again: what efficiency is a share of."""
        return 3 * self.counted.forward + self.stage.frozen

    @property
    def replicas(self) -> int:
        """Groups of processes that hold a whole copy each."""
        return self.stage.gpus // SHARDS

    @property
    def on_gpu(self) -> int:
        """Samples of a batch on a GPU."""
        return -(-self.batch // self.stage.gpus)

    @property
    def state_bytes(self) -> float:
        """Bytes on a GPU beside activations, at most.

        Shards; two blocks gathered ahead and a block's gradients, and all that is in no block with its gradients, in float32; and
        the bfloat16 copies of weights that autocast keeps for the backward pass, unless that pass makes them again.
        """
        counted = self.counted
        copies = 0 if self.stage.checkpointing else 2 * counted.parameters
        gathered = 4 * 3 * counted.largest_block + (4 + 4) * (counted.parameters - counted.in_blocks)
        return STATE * counted.parameters / SHARDS + gathered + copies

    @property
    def activation_bytes(self) -> float:
        """Bytes of a GPU's activations, of a micro-batch that fits."""
        each = self.counted.checkpointed if self.stage.checkpointing else self.counted.activations
        return each * self.on_gpu / self.micro

    @property
    def micro(self) -> int:
        """Micro-batches that a batch is divided into, so that it fits."""
        each = self.counted.checkpointed if self.stage.checkpointing else self.counted.activations
        room = LOCAL_FREE * GPU_MEMORY - self.state_bytes
        most = max(1, int(room / each))
        return -(-self.on_gpu // most)

    @property
    def step_seconds(self) -> float:
        """Seconds of a step."""
        return self.batch * self.useful_flops / (self.stage.gpus * GPU_PEAK * self.stage.mfu)

    @property
    def hours(self) -> float:
        """Hours of the run, without failures."""
        return self.samples / self.batch * self.step_seconds / 3600

    @property
    def gpu_hours(self) -> float:
        """GPU-hours of the run, without failures."""
        return self.hours * self.stage.gpus

    @property
    def checkpoint_bytes(self) -> float:
        """Bytes of a checkpoint."""
        return KEPT * self.counted.parameters

    @property
    def network_bytes(self) -> float:
        """Bytes that a GPU sends to other machines in a step: its shard's gradients, reduced and spread again, in float32."""
        return 2 * 4 * self.counted.parameters / SHARDS * (self.replicas - 1) / self.replicas

    @property
    def read_rate(self) -> float:
        """Bytes a second that all loaders read."""
        return self.batch / self.step_seconds * self.stage.sample_bytes

    @property
    def cluster(self) -> Cluster:
        """The cluster, as the simulation has it."""
        return Cluster(gpus=self.stage.gpus, gpu_hours_per_failure=GPU_HOURS_PER_FAILURE)

    def run(self, interval: float) -> Run:
        """The run, as the simulation has it, with a checkpoint every `interval` seconds."""
        # The copy to the host's memory stops training; the rest is written meanwhile.
        staged = self.checkpoint_bytes / self.stage.gpus / HOST_RATE
        write = self.checkpoint_bytes / min(self.stage.gpus / 8 * DISK_RATE, STORE_RATE) + 20.0
        return Run(work=self.hours * 3600, interval=interval, pause=0.5 + staged, write=write)

    @property
    def interval(self) -> float:
        """Seconds between checkpoints."""
        run = self.run(600.0)
        return best_interval(run.pause, run.write, self.cluster.seconds_between_failures)


def plans() -> list[Plan]:
    """The plans of all stages."""
    found = []
    text = 0.0
    for stage in STAGES:
        build, run, config = calls(stage.recipe)
        counted = count(build, run)
        if stage.recipe == "clip":
            clip_config: Any = config.model
            with FakeTensorMode(), FlopCounterMode(display=False) as counter:
                tower = Clip(clip_config)
                tower.encode_text(torch.ones(1, clip_config.text.context, dtype=torch.long))
            text = float(counter.get_total_flops())
        if stage.recipe == "prior":
            stage = replace(stage, frozen=text)
        found.append(Plan(stage, counted, config.batch, config.samples))
    return found


def sd2_forward(side: int) -> float:
    """Operations of a forward pass of Stable Diffusion 2's U-Net on a latent of `side`, with 77 text tokens."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    with FakeTensorMode(), FlopCounterMode(display=False) as counter:
        network = UNet2DConditionModel(
            block_out_channels=(320, 640, 1280, 1280),
            cross_attention_dim=1024,
            attention_head_dim=(5, 10, 20, 20),  # pyright: ignore[reportArgumentType]
            use_linear_projection=True,
        )
        network(torch.zeros(1, 4, side, side), torch.zeros(1), torch.zeros(1, 77, 1024))
    return float(counter.get_total_flops())
