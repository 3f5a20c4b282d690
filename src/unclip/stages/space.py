"""CLIP's embedding space: width, length and statistics of embeddings, identity by fingerprint, and arithmetic in it.

CLIPs of one width are easily confused: OpenAI's ViT-L/14 and OpenCLIP's both give 768 numbers that mean nothing to each
other's priors and decoders. A fingerprint of the CLIP's weights distinguishes them and survives quantisation.
"""

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from unclip.diffusion.paths import slerp
from unclip.errors import RequestError
from unclip.networks.clip import ClipConfig
from unclip.networks.embedding_codes import principal_components
from unclip.stages.fingerprint import are_apart

OPENAI_L = "OpenAI CLIP ViT-L/14"
OPENCLIP_BIG_G = "OpenCLIP ViT-bigG/14"
PROJECTION = "text.project.weight"
"""The weight of a CLIP that its fingerprint is computed from; CLIPs without an image tower have it too."""

COEFFICIENTS = 8
SAME = 1e-4
"""Relative distance below which two text embeddings have no direction between them."""


@dataclass(frozen=True, kw_only=True)
class EmbeddingSpace:
    """Space of the image embeddings z_i that a prior predicts and a decoder reads."""

    width: int = 0
    """Length of embeddings as vectors of numbers; 0 if unknown."""
    normalised: bool | None = None
    """Whether embeddings have unit length, or the length that the towers give; None if unknown (no CLIP at hand)."""
    name: str = ""
    """Name of the CLIP, where a public format names it."""
    fingerprint: tuple[float, ...] = ()
    """`fingerprint_of` the CLIP's weights; empty if unknown."""
    mean: Float[Tensor, " d"] | None = field(default=None, compare=False)
    """Mean and standard deviation of the training embeddings, which a diffusion prior stores."""
    std: Float[Tensor, " d"] | None = field(default=None, compare=False)

    @classmethod
    def of(cls, clip: ClipConfig) -> "EmbeddingSpace":
        """Space of a CLIP, from its config alone: width and length of its embeddings."""
        return cls(width=clip.embedding, normalised=clip.normalize)

    @property
    def rms_length(self) -> float | None:
        """Root mean square length of image embeddings, from their statistics; None without them."""
        if self.normalised:
            return 1.0
        if self.mean is None or self.std is None:
            return None
        return float((self.mean.double().square() + self.std.double().square()).sum().sqrt())

    @property
    def unit_scale(self) -> float | None:
        """Factor that brings embeddings to unit variance (`DecoderConfig.embedding_scale`); None without statistics."""
        return None if self.rms_length is None else self.width**0.5 / self.rms_length

    def project(self, z: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Embeddings at a length that the space has: on the unit sphere if it is normalised, otherwise unchanged."""
        return normalize(z, dim=-1) if self.normalised else z

    # Section 3.3 of arXiv 2204.06125: z_d = norm(z_t - z_t0).
    def difference(self, target: Float[Tensor, " d"], source: Float[Tensor, " d"]) -> Float[Tensor, " d"]:
        """Direction z_d from one text embedding to another, of unit length.

        Raises `RequestError` for embeddings that are too close to have one.
        """
        apart = target - source
        if apart.norm() < SAME * target.norm():
            raise RequestError(
                "the source and the target caption are the same to CLIP: there is no direction from one to the other"
            )
        return normalize(apart, dim=-1)

    def at_length_of(self, direction: Float[Tensor, " d"], z: Float[Tensor, " d"]) -> Float[Tensor, " d"]:
        """A unit direction at the length of an embedding, where the space is not normalised."""
        return direction * z.norm()

    def between(
        self, a: Float[Tensor, "*shape"], b: Float[Tensor, "*shape"], theta: float
    ) -> Float[Tensor, "*shape"]:
        """Spherical interpolation of two embeddings, exact at its ends: `between`."""
        return between(a, b, theta)

    def differs_from(self, other: "EmbeddingSpace") -> bool:
        """Whether two spaces are known to be different: by fingerprint if both have one, otherwise by name."""
        if self.fingerprint and other.fingerprint:
            return are_apart(self.fingerprint, other.fingerprint)
        return bool(self.name and other.name) and self.name != other.name

    def __str__(self) -> str:
        """Name and start of the fingerprint, for messages."""
        start = " ".join(f"{value:+.2f}" for value in self.fingerprint[:3])
        return " ".join(filter(None, [self.name or "an unnamed space", start and f"(fingerprint {start})"]))


class Basis(NamedTuple):
    """Mean and principal components of embeddings; components are rows in order of decreasing variance."""

    mean: Float[Tensor, " d"]
    components: Float[Tensor, "k d"]

    @classmethod
    def of(cls, embeddings: Float[Tensor, "n d"]) -> "Basis":
        """Basis of n embeddings, of n - 1 components at most. Raises `RequestError` for fewer than 2."""
        count = min(len(embeddings) - 1, embeddings.shape[1])
        if count < 1:
            raise RequestError(f"principal components need 2 pictures or more, not {len(embeddings)}")
        mean, _, components = principal_components(embeddings)
        return cls(mean.float(), components[:count].float())

    # Section 4 of arXiv 2204.06125, figure 7.
    def truncate(self, z: Float[Tensor, " d"], dimensions: int) -> Float[Tensor, " d"]:
        """The embedding rebuilt from its first components, at its original length."""
        kept = self.components[:dimensions]
        part = self.mean + einsum(kept, einsum(kept, z - self.mean, "k d, d -> k"), "k d, k -> d")
        return part * (z.norm() / part.norm().clamp(min=1e-12))


def between(a: Float[Tensor, "*shape"], b: Float[Tensor, "*shape"], theta: float) -> Float[Tensor, "*shape"]:
    """Spherical interpolation of two tensors as vectors (embeddings or noise), exact at theta 0 and 1."""
    if theta in (0, 1):
        return b if theta else a
    return slerp(a[None], b[None], theta)[0]


def fingerprint_of(projection: Float[Tensor, "d w"]) -> tuple[float, ...]:
    """Eight numbers of unit variance from a CLIP's text projection.

    They are its products with cosines of incommensurable frequencies. Storage in 16 or 8 bits hardly moves them; those
    of other weights are as far apart as random numbers.
    """
    flat = projection.detach().double().cpu().flatten()
    index = torch.arange(len(flat), dtype=torch.float64)
    frequencies = [math.pi * math.sqrt(2 + k) % 1 * math.pi for k in range(COEFFICIENTS)]
    products = [float(flat @ torch.cos(frequency * index)) for frequency in frequencies]
    scale = math.sqrt(2) / max(float(flat.norm()), 1e-30)
    return tuple(round(scale * product, 4) for product in products)
