"""A text tower on its own, whose states a latent decoder reads by cross-attention (Stable Diffusion)."""

from dataclasses import dataclass, field
from typing import Literal

from jaxtyping import Int
from torch import Tensor, nn

from unclip.networks.clip import TextConfig, TextEncoding, TextTower


@dataclass(frozen=True, kw_only=True)
class TextEncoderConfig:
    """CLIP's text tower without its projection, and the token that captions are padded with.

    The tower ends after as many blocks as `text.layers` says, then its final norm: Stable Diffusion 2 reads the last but
    one block of OpenCLIP's ViT-H, 23 of 24. As every state is read, `pad` changes pictures: 1.x pads with the end token,
    2.x with 0.
    """

    kind: Literal["text_encoder"] = "text_encoder"
    text: TextConfig = field(default_factory=TextConfig)
    pad: int = 0

    @property
    def width(self) -> int:
        """Width of the states."""
        return self.text.width

    @property
    def context(self) -> int:
        """Number of tokens of a caption."""
        return self.text.context


class TextEncoder(nn.Module):
    """The tower; its states are read, and its embedding is the state at the end token."""

    def __init__(self, config: TextEncoderConfig):
        super().__init__()
        self.config = config
        self.text = TextTower(config.text, None)

    def encode_text(self, tokens: Int[Tensor, "b n"]) -> TextEncoding:
        """Tokens -> states after the final norm, and the one at the end token as embedding."""
        return self.text(tokens)
