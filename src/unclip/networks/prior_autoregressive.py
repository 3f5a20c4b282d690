"""The autoregressive prior: a causal transformer that predicts quantised CLIP image embeddings, code by code.

arXiv 2204.06125, section 2.2. Sizes of its two transformers: table 3.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from unclip.networks.embedding_codes import EmbeddingCodes, nearest_level, quantile_levels
from unclip.networks.prior_diffusion import PriorCondition
from unclip.nn.transformer import Activation, KeyValues, Transformer


@dataclass(frozen=True, kw_only=True)
class CaptionEncoderConfig:
    """A transformer that reads the states of CLIP's text tower once more, for the one that predicts."""

    width: int = 2048
    layers: int = 24
    heads: int = 32


@dataclass(frozen=True, kw_only=True)
class AutoregressivePriorConfig:
    """The transformer, the embeddings that it reads, and the codes that it predicts."""

    kind: Literal["prior_autoregressive"] = "prior_autoregressive"
    embedding: int = 512
    context: int = 77
    """Text tokens in the sequence, whose states are `text_width` wide."""
    text_width: int = 512
    dimensions: int = 319
    """Principal components of the embedding, one code each."""
    buckets: int = 1024
    """Codes of a component."""
    dot_buckets: int = 1024
    """Tokens for z_i·z_t."""
    width: int = 512
    layers: int = 12
    heads: int = 8
    activation: Activation = "gelu"
    encoder: CaptionEncoderConfig | None = None


class Predicted(NamedTuple):
    """Logits, float32: of z_i·z_t's token given the caption, and of each code given all that comes before it."""

    dot: Float[Tensor, "b u"]
    codes: Float[Tensor, "b k v"]


class AutoregressivePrior(nn.Module):
    """Reads [text states, text embedding, quantised z_i·z_t, codes]; from the text embedding on, each output predicts
    the next token.

    Codes and levels of z_i·z_t are fitted to the training set (`fit`) and travel with the weights. z_i·z_t is the
    cosine: CLIPs whose embeddings have other lengths than 1 are read alike. Its token is predicted as well, since the
    pictures of some captions fit better than those of others: "the top half of the distribution" is that of the
    caption's own, and never asks for what no picture of that caption has.
    """

    dot_levels: Tensor

    def __init__(self, config: AutoregressivePriorConfig):
        super().__init__()
        self.config = config
        width, encoder = config.width, config.encoder
        self.codes = EmbeddingCodes(config.embedding, config.dimensions, config.buckets)
        self.register_buffer("dot_levels", torch.zeros(config.dot_buckets))
        if encoder is None:
            self.encoder = self.encoder_positions = None
            self.states_in = nn.Linear(config.text_width, width)
        else:
            self.encoder_in = nn.Linear(config.text_width, encoder.width)
            self.encoder_positions = nn.Parameter(
                encoder.width**-0.5 * torch.randn(config.context, encoder.width)
            )
            self.encoder = Transformer(
                encoder.width, encoder.layers, encoder.heads, activation=config.activation
            )
            self.encoder_norm = nn.LayerNorm(encoder.width)
            self.states_in = nn.Linear(encoder.width, width)
        self.text_in = nn.Linear(config.embedding, width)
        self.dot_in = _table(config.dot_buckets, width)
        self.code_in = _table(config.buckets, width)
        self.null_state = nn.Parameter(width**-0.5 * torch.randn(width))
        self.null_text = nn.Parameter(width**-0.5 * torch.randn(width))
        self.null_dot = nn.Parameter(width**-0.5 * torch.randn(width))
        # The last code is predicted, but never read.
        self.positions = nn.Parameter(
            width**-0.5 * torch.randn(config.context + 1 + config.dimensions, width)
        )
        self.transformer = Transformer(
            width, config.layers, config.heads, activation=config.activation, causal=True
        )
        self.norm_out = nn.LayerNorm(width)
        self.dot_out = nn.Linear(width, config.dot_buckets)
        self.code_out = nn.Linear(width, config.buckets)

    @torch.no_grad()
    def fit(self, image_embeddings: Float[Tensor, "n d"], dots: Float[Tensor, " m"]) -> None:
        """Take components and levels from the training embeddings, and from z_i·z_t of (some of) their captions.

        Raises ValueError for fewer of them than buckets.
        """
        self.codes.fit(image_embeddings)
        self.dot_levels.copy_(quantile_levels(dots[None], self.config.dot_buckets)[0])

    def dot(
        self, image_embedding: Float[Tensor, "b d"], text_embedding: Float[Tensor, "b d"]
    ) -> Int[Tensor, " b"]:
        """The token of z_i·z_t."""
        dots = dot_product(image_embedding, text_embedding)
        return nearest_level(self.dot_levels[None], dots[None])[0]

    def unstandardise(self, x0: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        """`x0` itself: this prior samples in CLIP's own scale, unlike the diffusion prior."""
        return x0

    def prefix(self, condition: PriorCondition) -> tuple[Float[Tensor, "b n w"], Bool[Tensor, "b n"]]:
        """The caption's tokens, and which of them may be looked at."""
        config = self.config
        if condition.text_states.shape[1:] != (config.context, config.text_width):
            raise ValueError(
                f"the caption's states are {tuple(condition.text_states.shape[1:])} (tokens, width), this prior reads "
                f"{(config.context, config.text_width)}: take the CLIP that it was trained with"
            )
        states = condition.text_states
        if self.encoder is not None and self.encoder_positions is not None:
            states = self.encoder_in(states) + self.encoder_positions
            states = self.encoder_norm(self.encoder(states, condition.text_mask))
        keep = condition.keep[:, None]
        text, states = self.text_in(condition.text_embedding), self.states_in(states)
        tokens = [
            torch.where(keep[..., None], states, self.null_state.to(states.dtype)),
            torch.where(keep, text, self.null_text.to(text.dtype))[:, None],
        ]
        # A dropped caption shows all its (null) states, so that its length does not leak.
        shown = condition.text_mask | ~keep
        return torch.cat(tokens, dim=1), nn.functional.pad(shown, (0, 1), value=True)

    def dot_token(self, dot: Int[Tensor, " b"], condition: PriorCondition) -> Float[Tensor, "b 1 w"]:
        """The token of z_i·z_t; a dropped caption takes it along."""
        return torch.where(condition.keep[:, None], self.dot_in(dot), self.null_dot)[:, None]

    def forward(
        self, codes: Int[Tensor, "b k"], dot: Int[Tensor, " b"], condition: PriorCondition
    ) -> Predicted:
        """The logits of `dot` and of each of `codes`, given the caption and what comes before."""
        tokens, keys = self.prefix(condition)
        start = tokens.shape[1] - 1
        tokens = torch.cat([tokens, self.dot_token(dot, condition), self.code_in(codes[:, :-1])], dim=1)
        keys = nn.functional.pad(keys, (0, tokens.shape[1] - keys.shape[1]), value=True)
        hidden = self.norm_out(self.transformer(tokens + self.positions[: tokens.shape[1]], keys)[:, start:])
        return Predicted(self.dot_out(hidden[:, 0]).float(), self.code_out(hidden[:, 1:]).float())

    def extend(
        self, tokens: Float[Tensor, "b n w"], keys: Bool[Tensor, "b m"], cache: list[KeyValues]
    ) -> Float[Tensor, "b w"]:
        """The normalised last output after further tokens; `keys` covers cached tokens too."""
        end = keys.shape[1]
        hidden = self.transformer(tokens + self.positions[end - tokens.shape[1] : end], keys, cache)
        return self.norm_out(hidden[:, -1])


def dot_product(
    image_embedding: Float[Tensor, "b d"], text_embedding: Float[Tensor, "b d"]
) -> Float[Tensor, " b"]:
    """z_i·z_t of embeddings brought to length 1."""
    return cosine_similarity(image_embedding.float(), text_embedding.float(), dim=-1)


def _table(count: int, width: int) -> nn.Embedding:
    table = nn.Embedding(count, width)
    nn.init.normal_(table.weight, std=width**-0.5)
    return table
