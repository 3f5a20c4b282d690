"""Vector quantisation (VQ-VAE, van den Oord et al. 2017): nearest codes, straight-through gradients, restarts of unused codes."""

from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional as F

from unclip.rng import Noise


class Quantised(NamedTuple):
    """Latents replaced by their nearest codes."""

    latents: Float[Tensor, "b d h w"]
    """The codes; gradients pass to the latents as if nothing had been replaced."""
    indices: Int64[Tensor, "b h w"]
    codebook_loss: Float[Tensor, ""]
    """Mean squared distance of the codes to the latents, which moves the codes."""
    commitment_loss: Float[Tensor, ""]
    """The same distance, which moves the latents."""


def nearest(latents: Float[Tensor, "b d h w"], codes: Float[Tensor, "k d"]) -> Int64[Tensor, "b h w"]:
    """Index of the code that is nearest to each latent, the first of several."""
    flat = rearrange(latents.detach().float(), "b d h w -> (b h w) d")
    table = codes.detach().float()
    with torch.autocast(flat.device.type, enabled=False):
        distances = table.square().sum(1) - 2 * flat @ table.T
    return rearrange(
        distances.argmin(1), "(b h w) -> b h w", b=len(latents), h=latents.shape[-2], w=latents.shape[-1]
    )


def quantise(latents: Float[Tensor, "b d h w"], codes: Float[Tensor, "k d"]) -> Quantised:
    """Nearest codes of latents with both losses of equation 3, of the paper's three terms all but the reconstruction."""
    latents = latents.float()
    indices = nearest(latents, codes)
    chosen = rearrange(F.embedding(indices, codes), "b h w d -> b d h w")
    return Quantised(
        latents + (chosen - latents).detach(),
        indices,
        F.mse_loss(chosen, latents.detach()),
        F.mse_loss(latents, chosen.detach()),
    )


def use_of(indices: Int64[Tensor, "b h w"], codes: int) -> Bool[Tensor, " k"]:
    """Which codes occur."""
    return torch.bincount(indices.flatten(), minlength=codes) > 0


def perplexity(indices: Int64[Tensor, "b h w"], codes: int) -> Float[Tensor, ""]:
    """Number of codes that are used as often as if they were used evenly: exp of the entropy of their shares."""
    shares = torch.bincount(indices.flatten(), minlength=codes).float() / indices.numel()
    return (-(shares * shares.clamp(min=1e-12).log()).sum()).exp()


@torch.no_grad()
def restart(
    codes: Float[Tensor, "k d"], dead: Bool[Tensor, " k"], latents: Float[Tensor, "b d h w"], noise: Noise
) -> None:
    """Put latents, chosen by the first stream of `noise`, in the place of dead codes."""
    count = int(dead.sum())
    if count:
        flat = rearrange(latents.detach().float(), "b d h w -> (b h w) d")
        rows = noise.of(0).integers(len(flat), count)[0].to(flat.device)
        codes[dead] = flat[rows].to(codes)
