"""Noise streams of a batch of pictures: one per stage and picture, a pure function of the picture's seed."""

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor

from unclip.diffusion.denoiser import NoiseSource
from unclip.errors import RequestError
from unclip.rng import Noise, TorchNoise, derive


class Seeds:
    """Seeds of a batch, as `random` turns them into noise, drawn on `device` if it is CUDA, else on the CPU.

    "unclip" gives every stage a stream of its own; "diffusers" gives one `torch.Generator` per picture that all stages
    share in the order of their draws, so that a seed gives the picture that diffusers draws; these are on the CPU always.
    """

    def __init__(self, seeds: Sequence[int], random: str = "unclip", device: torch.device | None = None):
        self.values = list(seeds)
        # Drawn beside the networks' other work, with nothing to copy. Other devices lack float64.
        self.device = device if device is not None and device.type == "cuda" else torch.device("cpu")
        self._shared = TorchNoise(self.values) if random == "diffusers" else None

    def __len__(self) -> int:
        return len(self.values)

    def stage(self, purpose: str) -> NoiseSource:
        """Noise of a stage, named by `purpose`."""
        return Noise(self.values, self.device).fork(purpose) if self._shared is None else self._shared

    def prior(self, candidates: int) -> NoiseSource:
        """Noise of the diffusion prior, rows ordered (picture candidate); more candidates leave the first ones as they are."""
        return self._prior(candidates, self.device) if self._shared is None else self._shared

    def prior_streams(self, candidates: int) -> Noise:
        """Uniform and normal noise of the autoregressive prior, which diffusers does not have; on the CPU.

        Raises `RequestError` for diffusers' order of draws.
        """
        if self._shared is not None:
            raise RequestError("diffusers has no autoregressive prior to agree with: set random to unclip")
        return self._prior(candidates, torch.device("cpu"))

    def prior_pairs(self, candidates: int) -> NoiseSource:
        """Noise of the diffusion prior for prompts and then as many negative prompts, rows ordered (prompt candidate).

        The prompts' is that of `prior`. diffusers draws a prompt's and its negative prompt's one after the other.
        """
        if self._shared is not None:
            return _Pairs(self._shared)
        negative = Seeds([derive(seed, "negative prompt") for seed in self.values], device=self.device)
        return _Stacked(self.prior(candidates), negative.prior(candidates))

    def _prior(self, candidates: int, device: torch.device) -> Noise:
        return Noise([derive(seed, "prior", k) for seed in self.values for k in range(candidates)], device)


class _Pairs:
    """Two rows from each row of a source, drawn one after the other: rows ordered (two row)."""

    def __init__(self, source: NoiseSource):
        self.source = source

    def normal(self, *shape: int) -> Tensor:
        """Standard normals of shape (2 b, *shape)."""
        return rearrange(self.source.normal(2, *shape), "b two ... -> (two b) ...")


class _Stacked:
    """The rows of two sources, one behind the other."""

    def __init__(self, first: NoiseSource, second: NoiseSource):
        self.first, self.second = first, second

    def normal(self, *shape: int) -> Tensor:
        """Standard normals of shape (b, *shape) for the rows of both."""
        return torch.cat([self.first.normal(*shape), self.second.normal(*shape)])
