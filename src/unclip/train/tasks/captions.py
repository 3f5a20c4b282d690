"""Data and conditions of both priors: captions as tokens, and image embeddings of the frozen CLIP."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from unclip.networks.prior_diffusion import PriorCondition
from unclip.rng import Noise
from unclip.train.config import ClipDependent
from unclip.train.cut_captions import report_cut_captions
from unclip.train.embed import ClipRun
from unclip.train.source import evenly_spaced, on_device
from unclip.train.tasks.embedded import EmbeddedBatches


@dataclass(frozen=True, eq=False)
class CaptionedEmbeddings:
    """A batch: image embeddings, and the tokens of one caption each."""

    image_embedding: Float[Tensor, "b d"]
    tokens: Int64[Tensor, "b n"]


class CaptionedBatches(EmbeddedBatches):
    """Image embeddings by the finished CLIP stage, and captions, to learn from and to validate on."""

    def __init__(self, config: ClipDependent, device: torch.device):
        super().__init__(config, device)
        for source in (self.train, self.held_out):
            source.pass_over_pictures()
        report_cut_captions(self.train, self.clip.tokenizer)
        if device.type == "cuda":
            self.train.read_captions(self.clip.tokenizer)

    def batch(self, numbers: Int64[np.ndarray, " b"], noise: Noise) -> CaptionedEmbeddings:
        """The samples with these numbers, each with a caption drawn by `noise`."""
        return self.pairs(self.train.indices(numbers), noise)

    def pairs(self, indices: Int64[np.ndarray, " b"], noise: Noise) -> CaptionedEmbeddings:
        """Training pictures by index, each with a caption drawn by `noise`."""
        if self.train.has_tokens:
            rows = on_device(indices, self.device)
            return CaptionedEmbeddings(self.train_embeddings[rows], self.train.tokens(indices, noise).tokens)
        captions = self.train.captions(indices, noise)
        return self._of(self.train.rows(self.train_embeddings, indices), captions)

    def held_out_pairs(self, count: int) -> tuple[Int64[np.ndarray, " b"], CaptionedEmbeddings]:
        """At most `count` held-out pictures, each with its first caption, and their indices."""
        indices = evenly_spaced(count, len(self.held_out))
        rows = self.held_out.rows(self.held_out_embeddings, indices)
        return indices, self._of(rows, self.held_out.captions(indices))

    def _of(self, embeddings: Float[Tensor, "b d"], captions: list[str]) -> CaptionedEmbeddings:
        return CaptionedEmbeddings(embeddings, self.clip.tokenizer.encode(captions).to(self.device))


def condition_of(clip: ClipRun, tokens: Int64[Tensor, "b n"]) -> PriorCondition:
    """Captions as the frozen CLIP encodes them."""
    with torch.no_grad():
        text = clip.clip.encode_text(tokens)
    keep = torch.ones(len(tokens), dtype=torch.bool, device=tokens.device)
    return PriorCondition(text.embedding, text.states.float(), text.mask, keep)
