"""Noise tables: the forward process of DDPM at T discrete times, kept as noise levels sigma."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, eq=False)
class NoiseTable:
    """The noise levels ``sigma_t = sqrt((1 - abar_t) / abar_t)`` of the times t = 0 .. T-1, ascending, float64."""

    sigmas: Float[Tensor, " t"]

    def __post_init__(self) -> None:
        if self.sigmas.dtype != torch.float64:
            raise ValueError(
                f"a noise table is kept in float64, not {self.sigmas.dtype}; call .double() first"
            )
        if len(self.sigmas) < 2 or not bool((self.sigmas[0] > 0) & (self.sigmas.diff() > 0).all()):
            raise ValueError("a noise table needs at least two noise levels, positive and strictly ascending")

    # DDPM (arXiv 2006.11239), section 2: alpha_t = 1 - beta_t, abar_t = alpha_1 * ... * alpha_t.
    @classmethod
    def from_betas(cls, betas: Float[Tensor, " t"]) -> "NoiseTable":
        """The table of a variance schedule ``beta_t`` in (0, 1)."""
        betas = betas.double()
        if not bool(((betas > 0) & (betas < 1)).all()):
            raise ValueError(
                f"every beta lies in (0, 1), but these run from {betas.min():g} to {betas.max():g}"
            )
        log_abar = torch.log1p(-betas).cumsum(0)
        return cls(torch.expm1(-log_abar).sqrt())

    # DDPM, section 4: beta from 1e-4 to 0.02 over 1000 steps; other lengths scaled as in Improved DDPM's code.
    @classmethod
    def linear(cls, steps: int = 1000) -> "NoiseTable":
        """DDPM's linear schedule; needs more than 20 steps, as beta is scaled by 1000 / steps."""
        scale = 1000 / steps
        return cls.from_betas(torch.linspace(scale * 1e-4, scale * 0.02, steps, dtype=torch.float64))

    # Latent diffusion (arXiv 2112.10752), the schedule of Stable Diffusion: linear in sqrt(beta).
    @classmethod
    def scaled_linear(cls, steps: int = 1000) -> "NoiseTable":
        """Latent diffusion's schedule, linear in the square root of beta from 0.00085 to 0.012."""
        root = torch.linspace(math.sqrt(0.00085), math.sqrt(0.012), steps, dtype=torch.float64)
        return cls.from_betas(1000 / steps * root.square())

    @classmethod
    def between(cls, first: float, last: float, steps: int, *, scaled: bool) -> "NoiseTable":
        """A schedule from the beta `first` to `last`, linear in beta or, `scaled`, in its square root."""
        if scaled:
            root = torch.linspace(math.sqrt(first), math.sqrt(last), steps, dtype=torch.float64)
            return cls.from_betas(root.square())
        return cls.from_betas(torch.linspace(first, last, steps, dtype=torch.float64))

    # Improved DDPM, equation 17: abar_t = f(t) / f(0), f(t) = cos²((t/T + s) / (1 + s) · pi/2), beta <= 0.999.
    @classmethod
    def cosine(cls, steps: int = 1000) -> "NoiseTable":
        """The cosine schedule, with s = 0.008; its last noise level is about 20 thousand at 1000 steps."""
        t = torch.arange(steps + 1, dtype=torch.float64) / steps
        f = torch.cos((t + 0.008) / 1.008 * math.pi / 2).square()
        return cls.from_betas((1 - f[1:] / f[:-1]).clamp(max=0.999))

    def __len__(self) -> int:
        return len(self.sigmas)

    @property
    def abar(self) -> Float[Tensor, " t"]:
        """``abar_t = prod(1 - beta)``, the share of the signal's variance that is left at time t."""
        return 1 / (1 + self.sigmas.square())

    def t_of(self, sigma: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """The time of a noise level, by linear interpolation in log sigma; clamped to [0, T-1]."""
        table = self.sigmas.to(sigma).log()
        log_sigma = sigma.log().clamp(table[0], table[-1])
        below = (torch.searchsorted(table, log_sigma, right=True) - 1).clamp(0, len(table) - 2)
        return below + (log_sigma - table[below]) / (table[below + 1] - table[below])

    def sigma_of(self, t: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """The noise level of a time in [0, T-1], whole or not: the inverse of `t_of`."""
        table = self.sigmas.to(t.device)
        t = t.to(table.dtype).clamp(0, len(table) - 1)
        below = t.floor().long().clamp(max=len(table) - 2)
        return torch.lerp(table[below].log(), table[below + 1].log(), t - below).exp()
