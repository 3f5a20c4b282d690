"""The diffusion prior that LAION trained: lucidrains' `DiffusionPrior` (https://github.com/lucidrains/DALLE2-pytorch)."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

from unclip.diffusion.parametrization import ProcessConfig
from unclip.networks.prior_diffusion import EmbeddingDiffusion, PriorCondition
from unclip.nn.rotary_transformer import RotaryTransformer


@dataclass(frozen=True, kw_only=True)
class LaionPriorConfig:
    """The transformer, which is as wide as the embeddings, and the sequence that it reads."""

    kind: Literal["prior_laion"] = "prior_laion"
    embedding: int = 768
    context: int = 77
    """Places for text states in the sequence: shorter captions are padded with learned ones, longer ones are cut."""
    layers: int = 24
    heads: int = 32
    head_channels: int = 64
    mlp_ratio: float = 4.0
    cosine: bool = True
    """Whether attention compares directions alone (version 1.4.4 and later)."""
    rotary: bool = True
    norm_in: bool = False
    norm_out: bool = True
    norm_inside: bool = False
    """Norms before and after the transformer, and inside of its MLPs ("normformer")."""
    project_out: bool = True
    states: bool = True
    """Whether it reads the caption's states; one that does not sees the padding in their place."""
    text_tokens: int = 1
    label_tokens: int = 1
    image_tokens: int = 1
    """How many tokens the text embedding, the label and the noisy embedding are in the sequence."""
    labels: int | None = 1000
    """For how many labels there is a learned vector; None makes vectors of sinusoids."""
    null: Literal["learned", "empty"] = "learned"
    """What stands for no caption: learned vectors (version 1.9 and later), or the empty caption's encoding."""
    clip_range: float | None = None
    process: ProcessConfig = ProcessConfig(parametrization="x0", schedule="cosine")

    @property
    def text_width(self) -> int:
        """Text states are as wide as embeddings."""
        return self.embedding


class LaionPrior(EmbeddingDiffusion):
    """Reads [text states, text embedding, label, noisy z_i, query]; the query's output predicts z_i.

    Text embeddings are brought to unit length. The diffusion runs on image embeddings of length sqrt(d), so that their
    numbers have unit variance: `embedding_std` is what brings them back to the length that a decoder wants.

    Guidance leaves out the caption alone. The package leaves out the noisy z_i with it, and so forgets where the
    sampler is (its issue 285).
    """

    def __init__(self, config: LaionPriorConfig):
        super().__init__(config.embedding)
        self.config = config
        width = config.embedding
        self.text_in = _several(width, config.text_tokens)
        self.image_in = _several(width, config.image_tokens)
        self.label = (
            SinusoidLabel(width, config.label_tokens)
            if config.labels is None
            else nn.Embedding(config.labels, width * config.label_tokens)
        )
        self.query = nn.Parameter(torch.randn(width))
        self.null_states = nn.Parameter(torch.randn(config.context, width))
        learned = config.null == "learned"
        self.null_text = nn.Parameter(torch.randn(config.text_tokens, width)) if learned else None
        self.transformer = RotaryTransformer(
            width,
            config.layers,
            config.heads,
            config.head_channels,
            mlp_ratio=config.mlp_ratio,
            cosine=config.cosine,
            rotary=config.rotary,
            norm_in=config.norm_in,
            norm_out=config.norm_out,
            norm_inside=config.norm_inside,
            project_out=config.project_out,
        )
        self.embedding_std.fill_(width**-0.5)

    def forward(
        self, x: Float[Tensor, "b d"], label: Float[Tensor, " b"], condition: PriorCondition
    ) -> Float[Tensor, "b d"]:
        """Scaled noisy embeddings, labels, captions -> z_i of length sqrt(d), float32.

        Raises ValueError for a dropped caption where the prior learned nothing that stands for it.
        """
        text = nn.functional.normalize(condition.text_embedding, dim=-1)
        text = self._tokens(self.text_in(text), self.config.text_tokens)
        if self.null_text is not None:
            text = torch.where(condition.keep[:, None, None], text, self.null_text.to(text.dtype))
        elif not condition.keep.all():
            raise ValueError(
                "this prior learned no vector for a dropped caption: give it the empty caption's encoding instead"
            )
        if isinstance(self.label, nn.Embedding):
            label = label.round().long()
        timed = self._tokens(self.label(label).to(text.dtype), self.config.label_tokens)
        image = self._tokens(self.image_in(x.to(text.dtype)), self.config.image_tokens)
        query = repeat(self.query, "d -> b 1 d", b=len(x)).to(text.dtype)
        sequence = torch.cat([self._states(condition).to(text.dtype), text, timed, image, query], dim=1)
        return self.transformer(sequence)[:, -1].float()

    def _states(self, condition: PriorCondition) -> Float[Tensor, "b n d"]:
        """The caption's states, and in their places learned ones where there are none."""
        shown = condition.text_mask & condition.keep[:, None] & self.config.states
        missing = max(0, self.config.context - shown.shape[1])
        states = nn.functional.pad(condition.text_states, (0, 0, 0, missing))[:, : self.config.context]
        shown = nn.functional.pad(shown, (0, missing))[:, : self.config.context]
        return torch.where(shown[..., None], states, self.null_states.to(states.dtype))

    @staticmethod
    def _tokens(x: Float[Tensor, "b nd"], count: int) -> Float[Tensor, "b n d"]:
        return rearrange(x, "b (n d) -> b n d", n=count)


class SinusoidLabel(nn.Module):
    """A three-layer perceptron on the sines and cosines of a label, whose periods go from 2 pi to 20,000 pi."""

    def __init__(self, width: int, tokens: int):
        super().__init__()
        hidden = 2 * width * tokens
        self.width = width
        self.linear_1 = nn.Linear(width, hidden)
        self.linear_2 = nn.Linear(hidden, hidden)
        self.linear_3 = nn.Linear(hidden, width * tokens)

    def forward(self, label: Float[Tensor, " b"]) -> Float[Tensor, "b nd"]:
        """(b,) -> (b, tokens * width)."""
        half = self.width // 2
        steps = torch.arange(half, device=label.device, dtype=torch.float32) / (half - 1)
        angles = label.float()[:, None] * torch.exp(-math.log(10_000) * steps)
        sinusoids = torch.cat([angles.sin(), angles.cos()], dim=-1)
        hidden = nn.functional.silu(self.linear_1(sinusoids.to(self.linear_1.weight.dtype)))
        return self.linear_3(nn.functional.silu(self.linear_2(hidden)))


def _several(width: int, tokens: int) -> nn.Module:
    return nn.Linear(width, width * tokens) if tokens > 1 else nn.Identity()
