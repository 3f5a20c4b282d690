"""A transformer on patches of pixels (DiT, Peebles and Xie 2022; JiT, Li and He 2025): cheap to train at 64 px."""

from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from unclip.nn.dot_product import attend
from unclip.nn.embeddings import LabelEmbedding, grid_positions


@dataclass(frozen=True, kw_only=True)
class PatchTransformerConfig:
    """One token a patch; `context` tokens join every attention as further keys and values."""

    kind: Literal["patch_transformer"] = "patch_transformer"
    size: int = 64
    in_channels: int = 3
    out_channels: int = 3
    patch: int = 8
    width: int = 384
    layers: int = 12
    head_channels: int = 64
    mlp_ratio: float = 4.0
    context_width: int | None = None


class HeadNorm(nn.RMSNorm):
    """Root mean square normalisation of queries or keys, in float32 whatever their type."""

    def forward(self, x: Float[Tensor, "b heads n c"]) -> Float[Tensor, "b heads n c"]:
        """Like `x`, in its type."""
        normalised = nn.functional.rms_norm(x.float(), self.normalized_shape, self.weight.float(), self.eps)
        return normalised.to(x.dtype)


class ModulatedAttention(nn.Module):
    """Self-attention with normalised queries and keys, over the picture's tokens and the context's."""

    def __init__(self, width: int, head_channels: int, context_width: int | None):
        super().__init__()
        if width % head_channels:
            raise ValueError(f"width {width} is not a multiple of head_channels {head_channels}")
        self.heads = width // head_channels
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.context_kv = None if context_width is None else nn.Linear(context_width, 2 * width, bias=False)
        self.query_norm = HeadNorm(head_channels, eps=1e-6)
        self.key_norm = HeadNorm(head_channels, eps=1e-6)
        self.out = nn.Linear(width, width, bias=False)

    def forward(
        self, x: Float[Tensor, "b n d"], context: Float[Tensor, "b m f"] | None = None
    ) -> Float[Tensor, "b n d"]:
        q, k, v = rearrange(self.qkv(x), "b n (three h c) -> three b h n c", three=3, h=self.heads)
        if self.context_kv is not None and context is not None:
            context_k, context_v = rearrange(
                self.context_kv(context), "b m (two h c) -> two b h m c", two=2, h=self.heads
            )
            k, v = torch.cat([context_k, k], dim=2), torch.cat([context_v, v], dim=2)
        attended = attend(self.query_norm(q), self.key_norm(k), v)
        return self.out(rearrange(attended, "b h n c -> b n (h c)"))


class ModulatedBlock(nn.Module):
    """A block whose norms are scaled, shifted and gated by the condition (adaLN-zero).

    The six vectors come from one projection that all blocks share, plus a learned offset of the block's own
    (PixArt-alpha, section 2.3): as good, at a fraction of the parameters.
    """

    def __init__(self, config: PatchTransformerConfig):
        super().__init__()
        width, hidden = config.width, int(config.width * config.mlp_ratio)
        self.norm_1 = nn.RMSNorm(width, eps=1e-6, elementwise_affine=False)
        self.attention = ModulatedAttention(width, config.head_channels, config.context_width)
        self.norm_2 = nn.RMSNorm(width, eps=1e-6, elementwise_affine=False)
        self.mlp_in = nn.Linear(width, hidden)
        self.mlp_out = nn.Linear(hidden, width)
        self.offset = nn.Parameter(torch.zeros(6, width))

    def forward(
        self,
        x: Float[Tensor, "b n d"],
        modulation: Float[Tensor, "b six d"],
        context: Float[Tensor, "b m f"] | None,
    ) -> Float[Tensor, "b n d"]:
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = (modulation + self.offset)[:, :, None].unbind(1)
        x = x + gate_1 * self.attention(self.norm_1(x) * (1 + scale_1) + shift_1, context)
        hidden = self.mlp_in(self.norm_2(x) * (1 + scale_2) + shift_2)
        return x + gate_2 * self.mlp_out(nn.functional.gelu(hidden, approximate="tanh"))


class PatchTransformer(nn.Module):
    """Patches in, patches out; the label and `vector` modulate every block, `context` is attended to."""

    def __init__(self, config: PatchTransformerConfig):
        super().__init__()
        if config.size % config.patch:
            raise ValueError(f"picture size {config.size} is not a multiple of the patch {config.patch}")
        self.config = config
        width, patch, side = config.width, config.patch, config.size // config.patch
        self.patches = nn.Linear(config.in_channels * patch**2, width)
        self.positions = nn.Parameter(grid_positions(side, side, width))
        self.label = LabelEmbedding(width, frequencies=256)
        self.modulation = nn.Linear(width, 6 * width)
        self.blocks = nn.ModuleList(ModulatedBlock(config) for _ in range(config.layers))
        self.norm_out = nn.RMSNorm(width, eps=1e-6, elementwise_affine=False)
        self.modulation_out = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, config.out_channels * patch**2)
        self._initialise()

    def _initialise(self) -> None:
        depth = (2 * self.config.layers) ** -0.5
        for name, parameter in self.blocks.named_parameters():
            if parameter.ndim == 2 and not name.endswith("offset"):
                residual = name.endswith(("attention.out.weight", "mlp_out.weight"))
                nn.init.normal_(parameter, std=(depth if residual else 1.0) * parameter.shape[1] ** -0.5)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)
        # Gates and output start at zero (adaLN-zero): at first the net is the identity of its residual stream.
        for layer in (self.modulation, self.modulation_out, self.out):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(
        self,
        x: Float[Tensor, "b c h w"],
        label: Float[Tensor, " b"],
        vector: Float[Tensor, "b d"] | None = None,
        context: Float[Tensor, "b m f"] | None = None,
    ) -> Float[Tensor, "b out h w"]:
        """Noisy pictures of the config's size, labels, conditions -> the raw output, in float32."""
        size, patch = self.config.size, self.config.patch
        if x.shape[-2:] != (size, size):
            raise ValueError(
                f"this patch transformer reads {size} x {size} pixels, got {tuple(x.shape[-2:])}"
            )
        if context is not None and self.config.context_width is None:
            raise ValueError("this patch transformer attends to no context: set context_width")
        tokens = rearrange(x, "b c (h p) (w q) -> b (h w) (c p q)", p=patch, q=patch)
        tokens = self.patches(tokens) + self.positions
        condition = self.label(label)
        condition = nn.functional.silu(condition if vector is None else condition + vector)
        modulation = rearrange(self.modulation(condition), "b (six d) -> b six d", six=6)
        tokens = self.inside(tokens, modulation, context)
        shift, scale = self.modulation_out(condition)[:, None].chunk(2, dim=-1)
        tokens = self.out(self.norm_out(tokens) * (1 + scale) + shift)
        return rearrange(
            tokens.float(), "b (h w) (c p q) -> b c (h p) (w q)", h=size // patch, p=patch, q=patch
        )

    def inside(
        self,
        tokens: Float[Tensor, "b n d"],
        modulation: Float[Tensor, "b six d"],
        context: Float[Tensor, "b m f"] | None,
    ) -> Float[Tensor, "b n d"]:
        """Tokens after all blocks; another program may take its place, as `Unet.inside`'s."""
        for block in self.blocks:
            tokens = block(tokens, modulation, context)
        return tokens
