"""The diffusion prior: a causal transformer that denoises CLIP image embeddings (arXiv 2204.06125, section 2.2)."""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float
from torch import Tensor, nn

from unclip.diffusion.parametrization import ProcessConfig
from unclip.nn.embeddings import LabelEmbedding
from unclip.nn.transformer import Activation, Transformer


@dataclass(frozen=True, kw_only=True)
class DiffusionPriorConfig:
    """The transformer, and the embeddings that it reads and predicts."""

    kind: Literal["prior_diffusion"] = "prior_diffusion"
    embedding: int = 512
    context: int = 77
    """Text tokens in the sequence, whose states are `text_width` wide."""
    text_width: int = 512
    width: int = 512
    layers: int = 12
    heads: int = 8
    activation: Activation = "gelu"
    dropout_text: float = 0.1
    """The share of samples that lose their caption in training, for classifier-free guidance."""
    process: ProcessConfig = ProcessConfig(parametrization="x0", schedule="cosine")


@dataclass(frozen=True, eq=False)
class PriorCondition:
    """A batch of captions as CLIP encodes them; `keep` is False where the caption is dropped."""

    text_embedding: Float[Tensor, "b d"]
    text_states: Float[Tensor, "b n w"]
    text_mask: Bool[Tensor, "b n"]
    keep: Bool[Tensor, " b"]

    def null(self) -> "PriorCondition":
        """The same batch without captions."""
        return replace(self, keep=torch.zeros_like(self.keep))

    def drop(self, mask: Bool[Tensor, " b"]) -> "PriorCondition":
        """Without the captions where `mask` is True."""
        return replace(self, keep=self.keep & ~mask)


class DiffusionPrior(nn.Module):
    """Reads [text states, text embedding, label, noisy z_i, query]; the query's output predicts z_i.

    The diffusion runs on standardised embeddings, `(z_i - mean) / std`: both are buffers that travel with the weights.
    """

    embedding_mean: Tensor
    embedding_std: Tensor

    def __init__(self, config: DiffusionPriorConfig):
        super().__init__()
        self.config = config
        width = config.width
        self.states_in = nn.Linear(config.text_width, width)
        self.text_in = nn.Linear(config.embedding, width)
        self.image_in = nn.Linear(config.embedding, width)
        self.label = LabelEmbedding(width)
        self.query = nn.Parameter(width**-0.5 * torch.randn(width))
        self.null_state = nn.Parameter(width**-0.5 * torch.randn(width))
        self.null_text = nn.Parameter(width**-0.5 * torch.randn(width))
        self.positions = nn.Parameter(width**-0.5 * torch.randn(config.context + 4, width))
        self.transformer = Transformer(
            width, config.layers, config.heads, activation=config.activation, causal=True
        )
        self.norm_out = nn.LayerNorm(width)
        self.image_out = nn.Linear(width, config.embedding)
        self.register_buffer("embedding_mean", torch.zeros(config.embedding))
        self.register_buffer("embedding_std", torch.ones(config.embedding))

    def standardise(self, image_embedding: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        """z_i as CLIP gives it -> the space of the diffusion, of unit variance."""
        return (image_embedding - self.embedding_mean) / self.embedding_std

    def unstandardise(self, x0: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        """The inverse of `standardise`."""
        return x0 * self.embedding_std + self.embedding_mean

    def forward(
        self, x: Float[Tensor, "b d"], label: Float[Tensor, " b"], condition: PriorCondition
    ) -> Float[Tensor, "b d"]:
        """Scaled noisy embeddings, labels, captions -> the raw prediction, float32."""
        keep = condition.keep[:, None, None]
        states = torch.where(keep, self.states_in(condition.text_states), self.null_state.to(x.dtype))
        text = torch.where(keep[:, 0], self.text_in(condition.text_embedding), self.null_text.to(x.dtype))
        tail = torch.stack(
            [
                text,
                self.label(label),
                self.image_in(x),
                repeat(self.query, "w -> b w", b=len(x)).to(text.dtype),
            ],
            dim=1,
        )
        sequence = torch.cat([states, tail.to(states.dtype)], dim=1) + self.positions
        # A dropped caption shows all its (null) states, so that its length does not leak.
        shown = condition.text_mask | ~condition.keep[:, None]
        keys = torch.cat([shown, shown.new_ones(len(x), 4)], dim=1)
        last = rearrange(self.transformer(sequence, keys)[:, -1:], "b 1 w -> b w")
        return self.image_out(self.norm_out(last)).float()
