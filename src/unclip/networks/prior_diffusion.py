"""The diffusion prior: a causal transformer that denoises CLIP image embeddings (arXiv 2204.06125, section 2.2)."""

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float
from torch import Tensor, nn

from unclip.diffusion.conventions import GridConfig
from unclip.diffusion.parametrization import ProcessConfig
from unclip.nn.embeddings import LabelEmbedding
from unclip.nn.transformer import Activation, KeyValues, Transformer


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
    null: Literal["learned", "empty"] = "learned"
    """What stands for no caption: learned vectors, or the encoding of the empty caption (Karlo), which callers give."""
    timed: bool = True
    """Whether the sequence has a token for the label; a prior that answers in one step needs none (ECLIPSE)."""
    clip_range: float | None = None
    """Sampling clamps estimates of the standardised embedding to this range around 0; None lets them be."""
    process: ProcessConfig = ProcessConfig(parametrization="x0", schedule="cosine")
    grid: GridConfig | None = None
    """How the public pipeline spaces its steps; None spaces them evenly over the table, as unCLIP's scheduler does."""


@dataclass(frozen=True, eq=False)
class PriorCondition:
    """A batch of captions as CLIP encodes them; `keep` is False where the caption is dropped."""

    text_embedding: Float[Tensor, "b d"]
    text_states: Float[Tensor, "b n w"]
    text_mask: Bool[Tensor, "b n"]
    keep: Bool[Tensor, " b"]
    memory: tuple[Tensor, ...] | None = None
    """What `DiffusionPrior.precompute` made of it: of each block, the keys and values (b h 2n c) of all that is not noisy."""

    def null(self) -> "PriorCondition":
        """The same batch without captions."""
        return replace(self, keep=torch.zeros_like(self.keep), memory=None)

    def drop(self, mask: Bool[Tensor, " b"]) -> "PriorCondition":
        """Without the captions where `mask` is True."""
        return replace(self, keep=self.keep & ~mask, memory=None)

    def repeat(self, copies: int) -> "PriorCondition":
        """Each caption `copies` times, rows ordered (b copies)."""
        fields = (self.text_embedding, self.text_states, self.text_mask, self.keep)
        embedding, states, mask, keep = (repeat(field, "b ... -> (b k) ...", k=copies) for field in fields)
        return PriorCondition(embedding, states, mask, keep)

    def join(self, other: "PriorCondition") -> "PriorCondition":
        """Rows of this batch, then those of `other`."""
        pairs = zip(*((c.text_embedding, c.text_states, c.text_mask, c.keep) for c in (self, other)))
        embedding, states, mask, keep = (torch.cat(pair) for pair in pairs)
        return PriorCondition(embedding, states, mask, keep)


class EmbeddingDiffusion(nn.Module):
    """Base of diffusion priors: a network of noisy embeddings, labels and captions with a `config`.

    The diffusion runs on standardised embeddings, `(z_i - mean) / std`: both are buffers that travel with the weights.
    """

    config: Any
    embedding_mean: Tensor
    embedding_std: Tensor

    def __init__(self, embedding: int):
        super().__init__()
        self.register_buffer("embedding_mean", torch.zeros(embedding))
        self.register_buffer("embedding_std", torch.ones(embedding))

    def standardise(self, image_embedding: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        """z_i as CLIP gives it -> the space of the diffusion, of unit variance."""
        return (image_embedding - self.embedding_mean) / self.embedding_std

    def unstandardise(self, x0: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        """The inverse of `standardise`."""
        return x0 * self.embedding_std + self.embedding_mean

    def precompute(self, condition: PriorCondition) -> PriorCondition:
        """The condition with whatever the network can compute once before sampling, such as keys and values."""
        return condition


class DiffusionPrior(EmbeddingDiffusion):
    """Reads [text states, text embedding, label, noisy z_i, query]; the query's output predicts z_i."""

    def __init__(self, config: DiffusionPriorConfig):
        super().__init__(config.embedding)
        self.config = config
        width = config.width
        self.states_in = nn.Linear(config.text_width, width)
        self.text_in = nn.Linear(config.embedding, width)
        self.image_in = nn.Linear(config.embedding, width)
        self.label = LabelEmbedding(width) if config.timed else None
        self.query = nn.Parameter(width**-0.5 * torch.randn(width))
        learned = config.null == "learned"
        self.null_state = nn.Parameter(width**-0.5 * torch.randn(width)) if learned else None
        self.null_text = nn.Parameter(width**-0.5 * torch.randn(width)) if learned else None
        self.positions = nn.Parameter(width**-0.5 * torch.randn(config.context + 3 + config.timed, width))
        self.transformer = Transformer(
            width, config.layers, config.heads, activation=config.activation, causal=True
        )
        self.norm_out = nn.LayerNorm(width)
        self.image_out = nn.Linear(width, config.embedding)

    def forward(
        self, x: Float[Tensor, "b d"], label: Float[Tensor, " b"], condition: PriorCondition
    ) -> Float[Tensor, "b d"]:
        """Scaled noisy embeddings, labels, captions -> the raw prediction, float32."""
        timed = [] if self.label is None else [self.label(label)]
        noisy = self.image_in(x)
        query = repeat(self.query, "w -> b w", b=len(x)).to(noisy.dtype)
        tail = torch.stack([*timed, noisy, query], dim=1)
        length = tail.shape[1]
        shown = self._shown(condition)
        keys = torch.cat([shown, shown.new_ones(len(x), length)], dim=1)
        cache = None
        if condition.memory is None:
            head = self._head(condition)
            sequence = torch.cat([head, tail.to(head.dtype)], dim=1) + self.positions
        else:
            sequence = tail + self.positions[-length:]
            cache = [KeyValues(*memory.chunk(2, dim=2)) for memory in condition.memory]
        last = rearrange(self.transformer(sequence, keys, cache)[:, -1:], "b 1 w -> b w")
        return self.image_out(self.norm_out(last)).float()

    def precompute(self, condition: PriorCondition) -> PriorCondition:
        """The condition with the keys and values of the caption's tokens.

        They come first and see nothing of what follows, so they are the same at every step. In training, where each
        caption is read once, there is nothing to spare.
        """
        if torch.is_grad_enabled():
            return condition
        head = self._head(condition)
        cache = self.transformer.cache()
        self.transformer(head + self.positions[: head.shape[1]], self._shown(condition), cache)
        return replace(condition, memory=tuple(torch.cat(one.pair, dim=2) for one in cache if one.pair))

    def _head(self, condition: PriorCondition) -> Float[Tensor, "b n w"]:
        """The tokens of the caption: its states, and its embedding."""
        if condition.text_states.shape[1:] != (self.config.context, self.config.text_width):
            raise ValueError(
                f"the caption's states are {tuple(condition.text_states.shape[1:])} (tokens, width), this prior reads "
                f"{(self.config.context, self.config.text_width)}: take the CLIP that it was trained with"
            )
        states, text = self.states_in(condition.text_states), self.text_in(condition.text_embedding)
        if self.null_state is not None and self.null_text is not None:
            keep = condition.keep[:, None, None]
            states = torch.where(keep, states, self.null_state.to(states.dtype))
            text = torch.where(keep[:, 0], text, self.null_text.to(text.dtype))
        elif not condition.keep.all():
            raise ValueError(
                "this prior learned no vector for a dropped caption: give it the empty caption's encoding instead"
            )
        return torch.cat([states, text[:, None]], dim=1)

    def _shown(self, condition: PriorCondition) -> Bool[Tensor, "b n"]:
        """Which of the caption's tokens may be looked at; a dropped caption shows all its null states."""
        # So that its length does not leak.
        shown = condition.text_mask | ~condition.keep[:, None]
        return torch.cat([shown, shown.new_ones(len(shown), 1)], dim=1)
