"""The one training loss: which noise levels to train on, how much each counts, and the learned variance's term.

Algorithm 1 of DDPM (arXiv 2006.11239) is: draw x0, t and eps; take a gradient step on ||eps - F(x_t, t)||². Here t
is drawn as a sigma by a density, eps is what the parametrisation makes it, and the square is weighted.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unclip.diffusion.denoiser import per_sample
from unclip.diffusion.parametrization import Parametrization, Preconditioned, Process, flow_time
from unclip.diffusion.posterior import (
    bits_per_dimension,
    discretized_nll,
    gaussian_kl,
    interpolate_log,
    posterior_mean,
    variance_bounds,
    variance_floor,
)


@dataclass(frozen=True, kw_only=True)
class UniformTime:
    """Every time of the table equally often (DDPM, Algorithm 1); every flow time or log sigma on continuous ones."""

    kind: Literal["uniform_time"] = "uniform_time"

    def sigma(self, u: Float[Tensor, " b"], process: Process) -> Float[Tensor, " b"]:
        """The noise levels of uniform numbers `u` in [0, 1), float64."""
        u = u.double()
        if process.table is not None:
            times = (u * len(process.table)).long().clamp(max=len(process.table) - 1)
            return process.table.sigmas.to(u.device)[times]
        low, high = (flow_time(u.new_tensor([end])) for end in (process.sigma_min, process.sigma_max))
        t = low + u * (high - low)
        return t / (1 - t)


@dataclass(frozen=True, kw_only=True)
class LogNormal:
    """ln sigma ~ N(mean, std²): EDM (arXiv 2206.00364), table 1, P_mean and P_std."""

    kind: Literal["log_normal"] = "log_normal"
    mean: float = -1.2
    std: float = 1.2

    def sigma(self, u: Float[Tensor, " b"], process: Process) -> Float[Tensor, " b"]:
        """The noise levels of uniform numbers `u` in [0, 1), float64, clamped to the process's range."""
        z = torch.special.ndtri(u.double().clamp(1e-12, 1 - 1e-12))
        return (self.mean + self.std * z).exp().clamp(process.sigma_min, process.sigma_max)


@dataclass(frozen=True, kw_only=True)
class LogitNormal:
    """logit t ~ N(mean, std²) of the flow time t = sigma / (1 + sigma), arXiv 2403.03206, equation 19.

    As logit t = ln sigma, this is `LogNormal` under its other name. JiT (arXiv 2511.13720) counts time from the noise:
    its mean of -0.8 is 0.8 here.
    """

    kind: Literal["logit_normal"] = "logit_normal"
    mean: float = 0.0
    std: float = 1.0

    def sigma(self, u: Float[Tensor, " b"], process: Process) -> Float[Tensor, " b"]:
        """The noise levels of uniform numbers `u` in [0, 1), float64, clamped to the process's range."""
        return LogNormal(mean=self.mean, std=self.std).sigma(u, process)


Density = UniformTime | LogNormal | LogitNormal
WeightName = Literal["target", "x0", "eps", "v", "velocity", "edm", "min_snr"]


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """How a diffusion model is trained.

    `weight` names the quantity whose squared error is averaged: the network's own `target`, or `x0`, `eps`, `v`, the
    flow's `velocity`, whatever the network predicts. `edm` is EDM's weight, which makes every sigma count alike at the
    start of training; `min_snr` is the squared error of x0 times min(snr, gamma) (arXiv 2303.09556).
    """

    density: UniformTime | LogNormal | LogitNormal = UniformTime()
    weight: WeightName = "target"
    min_snr_gamma: float = 5.0
    velocity_floor: float = 0.05
    variance_weight: float = 0.001


def loss_weight(sigma: Float[Tensor, " b"], row: Parametrization, config: LossConfig) -> Float[Tensor, " b"]:
    """What the squared error of F is multiplied with: a weight of the error of x0, times c_out²."""
    out = row.coefficients(sigma).out.square()
    match config.weight:
        case "target":
            return torch.ones_like(sigma)
        case "x0":
            return out
        case "eps":
            return out / sigma**2
        case "v":
            return out * (1 + sigma**2) / sigma**2
        case "velocity":
            # x0 = x_t - t v. The floor under t is JiT's, and keeps the least noisy pictures from ruling the loss.
            return out / flow_time(sigma).clamp(min=config.velocity_floor) ** 2
        case "edm":
            return out * (sigma**2 + row.sigma_data**2) / (sigma * row.sigma_data) ** 2
        case "min_snr":
            return out * sigma.pow(-2).clamp(max=config.min_snr_gamma)


class Uncertainty(nn.Module):
    """u(sigma), learned to be the logarithm of the loss that is expected at a noise level.

    The loss becomes loss / exp(u) + u, so that every level counts alike however well it is solved already (Kendall et
    al. 2018; EDM2, arXiv 2312.02696).
    """

    def __init__(self, frequencies: int = 8):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2 * frequencies))
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, loss: Float[Tensor, " b"], sigma: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """The loss of each sample, weighed."""
        # Waves of ln sigma, the longest of 16: noise levels lie between exp(-6) and exp(5).
        waves = torch.arange(1, len(self.weight) // 2 + 1, device=loss.device) * (math.pi / 8)
        angles = sigma.log().to(loss)[:, None] * waves
        u = (torch.cat([angles.cos(), angles.sin()], dim=1) * self.weight).sum(1) + self.bias
        return loss * (-u).exp() + u


def diffusion_loss(
    model: Preconditioned,
    x0: Float[Tensor, "b ..."],
    eps: Float[Tensor, "b ..."],
    sigma: Float[Tensor, " b"],
    condition: Any = None,
    config: LossConfig | None = None,
) -> Float[Tensor, " b"]:
    """The loss of each sample: the weighted mean square of ``F - target``, plus the term of the learned variance.

    `x0` is clean data, `eps` standard normal noise of its shape, `sigma` drawn from `config.density`. With a learned
    variance, sigma has to lie on the process's table, and x0 in [-1, 1].
    """
    config = config or LossConfig()
    row = model.parametrization
    x = x0 + per_sample(sigma, x0) * eps
    raw = model.raw(x, sigma, condition)
    prediction = raw.chunk(2, dim=1)[0] if row.learned_variance else raw
    square = (prediction - row.target(x0, eps, sigma)).square().flatten(1).mean(1)
    loss = loss_weight(sigma, row, config).to(square) * square
    if row.learned_variance:
        loss = loss + config.variance_weight * learned_variance_bound(model, raw, x, x0, sigma)
    return loss


# Improved DDPM (arXiv 2102.09672), equation 16: L_hybrid = L_simple + lambda L_vlb, the mean's gradient stopped.
def learned_variance_bound(
    model: Preconditioned,
    raw: Float[Tensor, "b ..."],
    x: Float[Tensor, "b ..."],
    x0: Float[Tensor, "b ..."],
    sigma: Float[Tensor, " b"],
) -> Float[Tensor, " b"]:
    """T times the bound's term at this time, in bits per dimension: an estimate of L_vlb that trains the variance only.

    Raises ValueError when the process has no table.
    """
    table = model.process.table
    if table is None:
        raise ValueError("a learned variance needs a discrete noise schedule; use 'cosine' or 'linear'")
    mean, variance = raw.chunk(2, dim=1)
    denoised = model.denoised(torch.cat([mean.detach(), variance], dim=1), x, sigma)
    assert denoised.var_frac is not None
    levels = torch.cat([table.sigmas.new_zeros(1), table.sigmas]).to(sigma)
    sigma_next = levels[table.t_of(sigma).round().long()]
    here, after = (s.reshape(-1, *(1,) * (x.ndim - 1)) for s in (sigma, sigma_next))
    small, large = variance_bounds(here, after)
    small = small.clamp(min=variance_floor(*table.sigmas[:2].tolist()))
    log_var = interpolate_log(denoised.var_frac, small, large)
    model_mean = posterior_mean(x, denoised.x0, here, after)
    kl = gaussian_kl(posterior_mean(x, x0, here, after), small.log().to(x), model_mean, log_var)
    term = torch.where(after > 0, kl, discretized_nll(x0, model_mean, log_var))
    return len(table) * bits_per_dimension(term)
