"""What both priors learn from: captions and image embeddings as the frozen CLIP gives them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from unclip.models.clip import TextEncoding
from unclip.models.prior_diffusion import PriorCondition
from unclip.rng import Noise
from unclip.train.config import TrainConfig
from unclip.train.embed import ClipRun
from unclip.train.objective import compiled
from unclip.train.source import Source, on_device


class CaptionedEmbeddings:
    """The finished CLIP stage, and the image embeddings of all pictures to learn from and to validate on."""

    def __init__(self, config: TrainConfig, device: torch.device):
        self.config, self.device = config, device
        self.clip = ClipRun(config, device)
        self.tokenizer_json, self.space = self.clip.tokenizer_json, self.clip.space
        self.train = Source(config, "train", device)
        self.held_out = Source(config, "validation", device)
        cache = Path(config.out).parent / "embeddings"
        self.train_embeddings = self.clip.image_embeddings(self.train, cache)
        self.held_out_embeddings = self.clip.image_embeddings(self.held_out, cache)

        self.encode_text = compiled(config, device, self.clip.clip.encode_text)
        self.resident = device.type == "cuda"
        if self.resident:
            self.train.read_captions(self.clip.tokenizer)

    def drawn_condition(self, indices: Int64[np.ndarray, " b"], noise: Noise) -> PriorCondition:
        """One caption of each training picture, drawn with `noise`, as the frozen CLIP encodes it."""
        if not self.resident:
            return self.condition(self.train.captions(indices, noise))
        return self._encoded(self.train.tokens(indices, noise).tokens, self.encode_text)

    def train_images(self, indices: Int64[np.ndarray, " b"]) -> Float[Tensor, "b d"]:
        """The embeddings of some training pictures."""
        return self.train_embeddings[on_device(indices, self.device)]

    def condition(self, captions: list[str]) -> PriorCondition:
        """The captions as the frozen CLIP encodes them."""
        tokens = self.clip.tokenizer.encode(captions).to(self.device)
        return self._encoded(tokens, self.clip.clip.encode_text)

    def _encoded(
        self, tokens: Int64[Tensor, "b n"], encode_text: Callable[..., TextEncoding]
    ) -> PriorCondition:
        with torch.no_grad():
            text = encode_text(tokens)
        keep = torch.ones(len(tokens), dtype=torch.bool, device=self.device)
        return PriorCondition(text.embedding, text.states.float(), text.mask, keep)
