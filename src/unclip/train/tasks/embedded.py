"""Data of the stages that learn from a finished CLIP: pictures and their embeddings."""

from pathlib import Path

import torch

from unclip.train.batches import SampleBatches
from unclip.train.config import ClipDependent
from unclip.train.embed import ClipRun


class EmbeddedBatches(SampleBatches):
    """Pictures, and the image embedding of each by the frozen CLIP. A base of `unclip.train.batches.Batches`."""

    def __init__(self, config: ClipDependent, device: torch.device):
        self.clip = ClipRun(config, device)
        super().__init__(config, device)
        self.tokenizer_json, self.space = self.clip.tokenizer_json, self.clip.space
        cache = Path(config.out).parent / "embeddings"
        self.train_embeddings = self.clip.image_embeddings(self.train, cache)
        self.held_out_embeddings = self.clip.image_embeddings(self.held_out, cache)
