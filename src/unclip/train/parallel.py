"""A task spread over processes: copies whose gradients are averaged (DDP), or weights in shards (FSDP2, HSDP).

DDP keeps a whole copy in each process. FSDP2 keeps a shard of every weight, gradient, moment and average, and gathers a
block's weights while the block computes. HSDP does so within groups of processes, and averages gradients between the
groups. A reader of the loop can skip this file: with one process, `Parallel` is the task itself.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.nn.parallel import DistributedDataParallel

from unclip.checkpoints.io import build
from unclip.networks.adapter import Adapter
from unclip.nn.attention import PixelAttention
from unclip.train.config import ParallelConfig
from unclip.train.ema import holding
from unclip.train.task import BLOCKS, Losses, Task, checkpoint_blocks
from unclip.train.world import Division, World, local, whole


class Parallel:
    """A task on all processes of a world, as its config lays it out.

    Build optimisers and averages after it: sharding replaces the parameters.
    """

    def __init__(self, task: Task[Any], config: ParallelConfig, world: World):
        self.task, self.world = task, world
        self.module: nn.Module = task
        self.unsharded: set[nn.Parameter] = set()
        """Parameters of sharded tasks that are kept whole: those without an axis to be cut along, and `Task.kept_whole`."""
        if config.activation_checkpointing:
            checkpoint_blocks(task)
        self.sharded = world.size > 1 and config.layout == "fsdp"
        self.replicas = config.replicas
        self._settled = world.size == 1 or self.sharded
        if self.sharded:
            self._shard(config)
        elif world.size > 1:
            device = world.device if world.device.type == "cuda" else None
            # No buffer changes in training. Older versions of PyTorch call this setting by the other name.
            known = inspect.signature(DistributedDataParallel).parameters
            name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
            settings: dict[str, Any] = {name: False}
            self.module = DistributedDataParallel(
                task, device_ids=device and [device], gradient_as_bucket_view=True, **settings
            )
            if config.reduce == "bf16":
                from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook

                self.module.register_comm_hook(None, bf16_compress_hook)

    def _shard(self, config: ParallelConfig) -> None:
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

        mesh = mesh_of(config, self.world)
        task = self.task
        # Shards are rows of plain memory.
        task.to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
        self.unsharded = {
            one for name, one in task.named_parameters() if one.ndim == 0 or name in task.kept_whole
        }
        reduce = torch.bfloat16 if config.reduce == "bf16" else torch.float32
        policy = MixedPrecisionPolicy(reduce_dtype=reduce, cast_forward_inputs=False)
        for block in [module for module in task.modules() if isinstance(module, BLOCKS)]:
            fully_shard(block, mesh=mesh, mp_policy=policy, ignored_params=self.unsharded)
            if isinstance(block, PixelAttention):
                _gather_to_read(block)
        fully_shard(task, mesh=mesh, mp_policy=policy, ignored_params=self.unsharded)
        for name in ("validate", "preview"):
            register_fsdp_forward_method(task, name)

    def forward(self, batch: Any, noise: Any, division: Division) -> Losses:
        """The task's losses of this process's part of a micro-batch."""
        self.task.division = division
        return self.module(batch, noise)

    @contextmanager
    def accumulating(self, *, last: bool) -> Iterator[None]:
        """Context of a micro-batch: copies exchange their gradients at the batch's last one only, shards at each."""
        ddp = isinstance(self.module, DistributedDataParallel)
        with nullcontext() if last or not ddp else self.module.no_sync():  # pyright: ignore[reportCallIssue]
            yield

    def settle(self, first_pass: Callable[[], Any]) -> None:
        """Run `first_pass` (a forward and backward pass) once, if that is needed, and forget its gradients.

        DDP groups gradients by the order in which the first pass brings them, and the order of a sum depends on the
        groups. So the pass is done before the first step of every process, and a resumed run adds up like a straight one.
        What the pass counts, such as a norm's statistics or the use of codes, is forgotten too.
        """
        if not self._settled:
            self._settled = True
            parameters = dict(self.task.named_parameters())
            changed = [*self.task.buffers(), *(parameters[name] for name in self.task.kept_whole)]
            before = [one.detach().clone() for one in changed]
            first_pass()
            self.task.zero_grad(set_to_none=True)
            with torch.no_grad():
                for one, value in zip(changed, before):
                    one.copy_(value)

    def clip(self, parameters: Sequence[nn.Parameter], most: float) -> Float[Tensor, ""]:
        """Clip the gradients of these parameters by their common norm; the norm before."""
        if not self.sharded:
            return nn.utils.clip_grad_norm_(parameters, most)
        gradients, copies = [], []
        for one in parameters:
            if one.grad is not None and one in self.unsharded:
                one.grad = self.world.sum(one.grad) / self.world.size
                copies.append(one.grad)
            elif one.grad is not None:
                # Shards as plain tensors: what DTensor would work out for a long list of them takes longer than the sum.
                gradients.append(local(one.grad))
        squares = torch.zeros((), device=self.world.device)
        if gradients:
            squares = _squares(gradients)
        squares = self.world.sum(squares) / self.replicas
        if copies:
            squares = squares + _squares(copies)
        norm = squares.sqrt()
        factor = (most / (norm + 1e-6)).clamp(max=1.0)
        torch._foreach_mul_([*gradients, *copies], factor)  # pyright: ignore[reportPrivateImportUsage]
        return norm

    @contextmanager
    def holding(self, average: Mapping[str, Tensor]) -> Iterator[None]:
        """Context in which the task's network holds `average`, whole, in the main process; all processes enter it.

        So does its adapter, if it has one.
        """
        if not self.sharded:
            with holding(self.task, average):
                yield
            return
        task = self.task
        sharded = {name: getattr(task, name) for name in ("network", "adapter") if hasattr(task, name)}
        weights = {name: self._gathered(average, name) for name in sharded}
        if self.world.is_main:
            network = build(type(task.network), task.network.config)
            network.load_state_dict(weights["network"], assign=True)
            task.network = network.eval()
            if "adapter" in sharded:
                task.adapter = Adapter(network, sharded["adapter"].config)
                task.adapter.load_state_dict(weights["adapter"], assign=True)
        try:
            yield
        finally:
            for name, module in sharded.items():
                setattr(task, name, module)

    def _gathered(self, weights: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
        """The whole weights of a part of the task on the CPU; empty in all processes but the main one."""
        gathered: dict[str, Tensor] = {}
        for name, weight in weights.items():
            if name.startswith(f"{part}."):
                # One after the other, so that no GPU holds more than one whole weight.
                full = whole(weight.detach())
                if self.world.is_main:
                    gathered[name.removeprefix(f"{part}.")] = full.cpu().contiguous()
        return gathered


def _squares(gradients: list[Tensor]) -> Float[Tensor, ""]:
    """The sum of squares of all numbers."""
    norms = torch._foreach_norm(gradients)  # pyright: ignore[reportPrivateImportUsage]
    return torch.stack(list(norms)).square().sum()


def _gather_to_read(attention: PixelAttention) -> None:
    """Let an attention gather its weights also when it reads context tokens ahead of the steps of a preview.

    They are given up again after its next forward pass.
    """
    read = attention.read

    def gathered(context: Tensor) -> Any:
        attention.unshard()  # pyright: ignore[reportCallIssue]
        return read(context)

    attention.read = gathered


def mesh_of(config: ParallelConfig, world: World) -> DeviceMesh:
    """Processes as (shards), or (replicas, shards). Raises ValueError where the replicas do not divide them."""
    kind, replicas = world.device.type, config.replicas
    if world.size % replicas:
        raise ValueError(
            f"parallel.replicas is {replicas}, which does not divide {world.size} processes: choose a divisor"
        )
    if replicas == 1:
        return init_device_mesh(kind, (world.size,), mesh_dim_names=("shard",))
    return init_device_mesh(kind, (replicas, world.size // replicas), mesh_dim_names=("replicate", "shard"))


def orthogonalised(
    matrices: Sequence[Tensor],
    updates: Sequence[Tensor],
    orthogonal: Callable[[Float[Tensor, "m n"]], Float[Tensor, "m n"]],
) -> list[Tensor]:
    """This process's rows of `orthogonal(update)`; `updates` are its rows of each, laid out as `matrices` are.

    Each process puts together every n-th matrix of a shape, computes it, and sends the rows back.
    """
    found = list(updates)
    shapes: dict[torch.Size, list[int]] = {}
    for index, matrix in enumerate(matrices):
        shapes.setdefault(matrix.shape, []).append(index)
    for shape, chosen in shapes.items():
        mesh: DeviceMesh = matrices[chosen[0]].device_mesh  # pyright: ignore[reportAttributeAccessIssue]
        group = mesh.get_group("shard")
        count, rank = dist.get_world_size(group), dist.get_rank(group)
        # Shards are as `torch.chunk` cuts them: the last ones may be short or empty.
        rows = -(-shape[0] // count)
        for start in range(0, len(chosen), count):
            places = chosen[start : start + count]
            sent = found[places[0]].new_zeros(count, rows, shape[1])
            for row, place in zip(sent, places):
                row[: len(found[place])] = found[place]
            parts = torch.empty_like(sent)
            dist.all_to_all_single(parts, sent, group=group)
            results = torch.zeros_like(sent)
            if rank < len(places):
                mine = parts.flatten(0, 1)[: shape[0]]
                results.flatten(0, 1)[: shape[0]] = orthogonal(mine)
            dist.all_to_all_single(parts, results, group=group)
            for row, place in zip(parts, places):
                found[place] = row[: len(found[place])].clone()
    return found
