"""Validation loss of a denoiser at fixed noise levels with fixed noise, which depends on the weights only."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from unclip.diffusion.losses import LossConfig, diffusion_loss
from unclip.diffusion.parametrization import Preconditioned, Process
from unclip.rng import Noise

LEVELS = 8


def losses_at_levels(
    denoiser: Preconditioned, x0: Float[Tensor, "b ..."], condition: Any, config: LossConfig, process: Process
) -> dict[str, float]:
    """`loss_0` ... `loss_7` at the (i + 1/2) / 8 quantiles of the training density, and their mean `loss`."""
    quantiles = (torch.arange(LEVELS, dtype=torch.float64, device=x0.device) + 0.5) / LEVELS
    losses = {}
    for level, sigma in enumerate(config.density.sigma(quantiles, process)):
        eps = Noise(range(len(x0)), device=x0.device).fork(level).normal(*x0.shape[1:])
        loss = diffusion_loss(denoiser, x0, eps, sigma.expand(len(x0)), condition, config)
        losses[f"loss_{level}"] = loss.mean().item()
    return {"loss": sum(losses.values()) / LEVELS, **losses}
