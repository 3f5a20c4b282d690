"""Table of samplers with order, network calls per step, and whether they draw noise. Imports no torch.

The command line and request schemas read their choices from here; `unclip.diffusion.samplers` holds the functions.
"""

from typing import NamedTuple


class SamplerInfo(NamedTuple):
    """Properties of a sampler."""

    order: int
    """Order of convergence of the state, or of its variance for a stochastic sampler (tests/diffusion/test_exact.py)."""
    calls: int
    """Denoiser calls per step; the last step of a second-order method may take one less."""
    stochastic: bool
    """Whether noise is added during sampling."""
    title: str


SAMPLER_TABLE: dict[str, SamplerInfo] = {
    "ddim": SamplerInfo(1, 1, False, "DDIM (arXiv 2010.02502), Euler's method where eta is 0"),
    "ddpm": SamplerInfo(1, 1, True, "DDPM ancestral sampling (arXiv 2006.11239)"),
    "euler": SamplerInfo(1, 1, False, "Euler's method, on the grid of latent models (else as DDIM)"),
    "euler_ancestral": SamplerInfo(
        1, 1, True, "Euler's method with DDPM's noise, on the grid of latent models"
    ),
    "plms": SamplerInfo(2, 1, False, "PNDM's linear multistep method (arXiv 2202.09778)"),
    "heun": SamplerInfo(2, 2, False, "Heun's method (EDM, arXiv 2206.00364)"),
    "dpmpp_2m": SamplerInfo(2, 1, False, "DPM-Solver++ 2M (arXiv 2211.01095)"),
    "dpmpp_2m_sde": SamplerInfo(2, 1, True, "SDE-DPM-Solver++ 2M (arXiv 2211.01095)"),
}

SAMPLER_ALIASES = {"ancestral": "ddpm"}
"""Names of version 0.1, still accepted."""

SAMPLER_NAMES = tuple(SAMPLER_TABLE)


def canonical(name: str) -> str:
    """Current name of a sampler, given that or a name of version 0.1. Raises `ValueError` for an unknown name."""
    found = SAMPLER_ALIASES.get(name, name)
    if found not in SAMPLER_TABLE:
        raise ValueError(f"sampler {name!r} is not one of {', '.join(SAMPLER_NAMES)}")
    return found
