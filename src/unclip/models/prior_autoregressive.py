"""The autoregressive prior: a causal transformer that predicts quantised CLIP image embeddings, code by code.

arXiv 2204.06125, section 2.2. Sizes of its two transformers: table 3.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from unclip.diffusion.denoiser import Step
from unclip.models.embedding_codes import EmbeddingCodes, nearest_level, quantile_levels
from unclip.models.prior_diffusion import PriorCondition, nearest
from unclip.nn.transformer import Activation, Transformer
from unclip.rng import Noise


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
    reconstruction_error: float | None = 0.01
    """Training keeps the fewest components that leave at most this share of the variance; None: `dimensions` of them."""
    buckets: int = 1024
    """Codes of a component."""
    dot_buckets: int = 1024
    """Tokens for z_i·z_t; even, so that half of them are its top half."""
    width: int = 512
    layers: int = 12
    heads: int = 8
    activation: Activation = "gelu"
    encoder: CaptionEncoderConfig | None = None
    dropout_text: float = 0.1
    """The share of samples that lose their caption in training, for classifier-free guidance."""

    def __post_init__(self) -> None:
        """Raise ValueError for buckets that have no top half."""
        if self.dot_buckets < 2 or self.dot_buckets % 2:
            raise ValueError(f"dot_buckets is {self.dot_buckets}: give an even number")


class AutoregressivePrior(nn.Module):
    """Reads [text states, text embedding, quantised z_i·z_t, codes so far]; each output from that of z_i·z_t on predicts
    the next code.

    Codes and levels of z_i·z_t are fitted to the training set (`fit`) and travel with the weights. z_i·z_t is the
    cosine: CLIPs whose embeddings have other lengths than 1 are read alike.
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

    def draw_dot(self, uniform: Float[Tensor, " b"], top: float) -> Int[Tensor, " b"]:
        """A token of z_i·z_t from the `top` share of its distribution in training, by numbers in (0, 1).

        The buckets hold equally much of it, so the share of them is the share of it.
        """
        if not 0 < top <= 1:
            raise ValueError(f"top is {top}; it is a share in (0, 1], such as 0.5")
        count = self.config.dot_buckets
        return (count * (1 - top + top * uniform)).long().clamp(max=count - 1)

    def prefix(
        self, dot: Int[Tensor, " b"], condition: PriorCondition
    ) -> tuple[Float[Tensor, "b n w"], Bool[Tensor, "b n"]]:
        """What comes before the codes, and which of it may be looked at. A dropped caption takes its z_i·z_t along."""
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
        text, states, seen = self.text_in(condition.text_embedding), self.states_in(states), self.dot_in(dot)
        tokens = [
            torch.where(keep[..., None], states, self.null_state.to(states.dtype)),
            torch.where(keep, text, self.null_text.to(text.dtype))[:, None],
            torch.where(keep, seen, self.null_dot)[:, None],
        ]
        # A dropped caption shows all its (null) states, so that its length does not leak.
        shown = condition.text_mask | ~keep
        return torch.cat(tokens, dim=1), torch.cat([shown, shown.new_ones(len(shown), 2)], dim=1)

    def forward(
        self, codes: Int[Tensor, "b k"], dot: Int[Tensor, " b"], condition: PriorCondition
    ) -> Float[Tensor, "b k v"]:
        """The logits, float32, of each of `codes` given those before it, the token of z_i·z_t and the caption."""
        tokens, keys = self.prefix(dot, condition)
        tokens = torch.cat([tokens, self.code_in(codes[:, :-1])], dim=1)
        keys = nn.functional.pad(keys, (0, codes.shape[1] - 1), value=True)
        hidden = self.transformer(tokens + self.positions[: tokens.shape[1]], keys)
        return self.code_out(self.norm_out(hidden[:, -codes.shape[1] :])).float()

    def sample_steps(
        self,
        condition: PriorCondition,
        noise: Noise,
        *,
        guidance: float = 1.0,
        null: PriorCondition | None = None,
        top: float = 0.5,
    ) -> Iterator[Step]:
        """Sample one image embedding for each row, a principal component at each step; `noise` has a stream for each.

        A step's `x` is the embedding of the codes so far, in CLIP's own scale, its other components at their mean. The
        transformer reads every token once: keys and values are kept. Guidance leads the logits away from `null`, by
        default no caption; 1 is none. z_i·z_t is drawn from the `top` share of its distribution.
        """
        guided = guidance != 1
        device = condition.text_embedding.device
        uniforms = noise.uniform(1 + self.config.dimensions)
        dot = self.draw_dot(uniforms[:, 0], top).to(device)
        if guided:
            condition, dot = _both(condition, null or condition.null()), torch.cat([dot, dot])
        tokens, keys = self.prefix(dot, condition)
        cache = self.transformer.cache()
        x = self.codes.mean.expand(len(noise), -1)
        for index in range(self.config.dimensions):
            here = self.positions[keys.shape[1] - tokens.shape[1] : keys.shape[1]]
            hidden = self.transformer(tokens + here, keys, cache)
            logits = self.code_out(self.norm_out(hidden[:, -1])).float()
            if guided:
                given, without = logits.chunk(2)
                logits = without + guidance * (given - without)
            code = draw(logits, uniforms[:, 1 + index])
            x = x + self.codes.step(index, code)
            yield Step(index, x, x)
            tokens = self.code_in(torch.cat([code, code]) if guided else code)[:, None]
            keys = nn.functional.pad(keys, (0, 1), value=True)

    def sample(
        self,
        condition: PriorCondition,
        noise: Noise,
        *,
        candidates: int = 1,
        guidance: float = 1.0,
        null: PriorCondition | None = None,
        top: float = 0.5,
    ) -> Float[Tensor, "b d"]:
        """Sample `candidates` image embeddings for each caption, in CLIP's own scale, and keep the one nearest to it.

        `noise` has a stream for each candidate, ordered (b candidates), and `null` a row for each caption. The paper
        draws one: the token of z_i·z_t does here what the choice between two does for the diffusion prior.
        """
        steps = self.sample_steps(
            condition.repeat(candidates),
            noise,
            guidance=guidance,
            null=None if null is None else null.repeat(candidates),
            top=top,
        )
        *_, last = steps
        return nearest(rearrange(last.x, "(b k) d -> b k d", k=candidates), condition.text_embedding)


def dot_product(
    image_embedding: Float[Tensor, "b d"], text_embedding: Float[Tensor, "b d"]
) -> Float[Tensor, " b"]:
    """z_i·z_t of embeddings brought to length 1."""
    return cosine_similarity(image_embedding.float(), text_embedding.float(), dim=-1)


def draw(logits: Float[Tensor, "b v"], uniform: Float[Tensor, " b"]) -> Int[Tensor, " b"]:
    """One index for each row from its softmax, by numbers in (0, 1): the inverse of the cumulative distribution.

    In float64, which some devices lack, so on the CPU.
    """
    cumulative = logits.detach().cpu().double().softmax(-1).cumsum(-1)
    wanted = uniform.cpu().double()[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, wanted)[:, 0].to(logits.device)


def _table(count: int, width: int) -> nn.Embedding:
    table = nn.Embedding(count, width)
    nn.init.normal_(table.weight, std=width**-0.5)
    return table


def _both(first: PriorCondition, second: PriorCondition) -> PriorCondition:
    """The rows of both, those of `first` before."""
    pairs = zip(*((c.text_embedding, c.text_states, c.text_mask, c.keep) for c in (first, second)))
    return PriorCondition(*(torch.cat(pair) for pair in pairs))
