"""Optimisers: AdamW, and Muon on the hidden matrices (Jordan et al. 2024), under one learning-rate schedule."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim._muon import _zeropower_via_newtonschulz

from unclip.train.world import is_sharded, local


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW's settings, Muon's learning rate where it is used, and the schedule in shares of the run."""

    learning_rate: float = 1e-3
    muon_learning_rate: float | None = None
    """For matrices inside transformer blocks; None trains them with AdamW too."""
    muon_precision: Literal["bf16", "fp32"] = "bf16"
    """What Muon's iteration computes in. It makes all singular values of an update alike, those that are rounding alone too: in
    bfloat16 runs on other numbers of processes differ by as much as a step changes."""
    betas: tuple[float, float] = (0.9, 0.99)
    epsilon: float = 1e-8
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    warmup: float = 0.02
    decay: float = 0.3
    """The last share of the run, over which the rate falls to zero."""


def schedule(config: OptimizerConfig, progress: float) -> float:
    """The factor on every learning rate at `progress` in [0, 1]: linear warm-up, constant, linear to zero."""
    rise = progress / config.warmup if config.warmup else 1.0
    fall = (1.0 - progress) / config.decay if config.decay else 1.0
    return max(0.0, min(1.0, rise, fall))


def build_optimizers(
    parameters: Iterable[tuple[str, nn.Parameter]],
    config: OptimizerConfig,
    *,
    fused: bool,
) -> list[torch.optim.Optimizer]:
    """AdamW on everything, or AdamW and Muon; each group remembers its full rate as `peak`."""
    named = [(name, parameter) for name, parameter in parameters if parameter.requires_grad]
    hidden = [
        parameter
        for name, parameter in named
        if config.muon_learning_rate and is_hidden_matrix(name, parameter)
    ]
    chosen = {id(parameter) for parameter in hidden}
    rest = [parameter for _, parameter in named if id(parameter) not in chosen]
    # Decay shrinks matrices only: norms, biases and embeddings of one axis are left alone.
    large, small = [[p for p in rest if p.ndim >= 2]], [[p for p in rest if p.ndim < 2]]
    if any(is_sharded(p) for p in rest):
        # Shards and what is kept whole are updated by different kernels.
        large, small = (
            [[p for p in one if is_sharded(p)], [p for p in one if not is_sharded(p)]]
            for (one,) in (large, small)
        )
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(
            [
                *({"params": group, "weight_decay": config.weight_decay} for group in large),
                *({"params": group, "weight_decay": 0.0} for group in small),
            ],
            lr=config.learning_rate,
            betas=config.betas,
            eps=config.epsilon,
            fused=fused,
        )
    ]
    if hidden:
        assert config.muon_learning_rate is not None
        # "match_rms_adamw" gives a matrix's update the size that AdamW's would have (Liu et al. 2025).
        optimizers.append(
            StackedMuon(
                hidden,
                lr=config.muon_learning_rate,
                weight_decay=config.weight_decay,
                adjust_lr_fn="match_rms_adamw",
                exact=config.muon_precision == "fp32",
            )
        )
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return optimizers


class StackedMuon(torch.optim.Muon):
    """PyTorch's Muon; on a GPU the matrices of one shape are orthogonalised together, in a tenth of the kernels.

    The iteration makes all singular values of an update alike, those that are rounding alone too. exact: it computes in
    float32, where these stay below 1e-4 of the others; in bfloat16 they do not.
    """

    def __init__(self, params: Iterable[nn.Parameter], *, exact: bool = False, **settings: Any):
        super().__init__(params, **settings)
        self.exact = exact

    @torch.no_grad()
    def step(self, closure=None):  # pyright: ignore[reportIncompatibleMethodOverride]
        """Take one step; see `torch.optim.Muon`."""
        if any(is_sharded(p) for group in self.param_groups for p in group["params"]):
            step = sharded_step
        elif (
            all(p.device.type == "cuda" for group in self.param_groups for p in group["params"]) or self.exact
        ):
            step = stacked_step
        else:
            return super().step(closure)
        for group in self.param_groups:
            params, grads, buffers = [], [], []
            self._init_group(group, params, grads, buffers)
            if params:
                step(params, grads, buffers, group, exact=self.exact)
        return None


def stacked_step(
    params: list[Tensor], grads: list[Tensor], buffers: list[Tensor], group: dict, *, exact: bool = False
) -> None:
    """Muon's step with the settings of `group` (Nesterov's momentum, "match_rms_adamw"), stack by stack of one shape."""
    momentum, rate = group["momentum"], group["lr"]
    torch._foreach_lerp_(buffers, grads, 1 - momentum)  # pyright: ignore[reportPrivateImportUsage]
    updates = torch._foreach_lerp(grads, buffers, momentum)  # pyright: ignore[reportPrivateImportUsage]
    torch._foreach_mul_(params, 1 - rate * group["weight_decay"])  # pyright: ignore[reportPrivateImportUsage]
    shapes: dict[torch.Size, list[int]] = {}
    for index, parameter in enumerate(params):
        shapes.setdefault(parameter.shape, []).append(index)
    for shape, chosen in shapes.items():
        stack = orthogonal(torch.stack([updates[index] for index in chosen]), group, exact=exact)
        torch._foreach_add_(  # pyright: ignore[reportPrivateImportUsage]
            [params[index] for index in chosen],
            list(stack.float().unbind()),
            alpha=-rate * 0.2 * max(shape) ** 0.5,
        )


def sharded_step(
    params: list[Tensor], grads: list[Tensor], buffers: list[Tensor], group: dict, *, exact: bool = False
) -> None:
    """`stacked_step` of matrices whose rows are spread over processes: each process orthogonalises some of them."""
    from unclip.train.parallel import orthogonalised

    momentum, rate = group["momentum"], group["lr"]
    updates = []
    for parameter, grad, buffer in zip(params, grads, buffers):
        local(buffer).lerp_(local(grad), 1 - momentum)
        updates.append(local(grad).lerp(local(buffer), momentum))
        local(parameter).mul_(1 - rate * group["weight_decay"])

    def on_whole(matrix: Float[Tensor, "m n"]) -> Float[Tensor, "m n"]:
        if exact or matrix.device.type == "cuda":
            return orthogonal(matrix[None], group, exact=exact)[0].to(matrix.dtype)
        steps = group["ns_coefficients"], group["ns_steps"], group["eps"]
        return _zeropower_via_newtonschulz(matrix, *steps).to(matrix.dtype)

    for parameter, update in zip(params, orthogonalised(params, updates, on_whole)):
        local(parameter).add_(update, alpha=-rate * 0.2 * max(parameter.shape) ** 0.5)


def orthogonal(stack: Float[Tensor, "k m n"], group: dict, *, exact: bool = False) -> Float[Tensor, "k m n"]:
    """Newton-Schulz's iteration, in bfloat16 as PyTorch's Muon does it, or in float32, on all matrices of a stack at once."""
    a, b, c = group["ns_coefficients"]
    tall = stack.shape[1] > stack.shape[2]
    x = stack.float() if exact else stack.bfloat16()
    x = x.mT if tall else x
    x = x / x.flatten(1).norm(dim=1).clamp(min=group["eps"])[:, None, None]
    for _ in range(group["ns_steps"]):
        gram = x @ x.mT
        update = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, update, x, beta=a)
    return x.mT if tall else x


def is_hidden_matrix(name: str, parameter: Tensor) -> bool:
    """Whether Muon may have it: a weight matrix of a layer inside a stack of blocks."""
    return parameter.ndim == 2 and ".blocks." in f".{name}" and name.endswith(".weight")


def set_rate(optimizers: Iterable[torch.optim.Optimizer], factor: float) -> None:
    """Set every group's learning rate to `factor` of its peak."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * factor
