"""What both priors learn from: captions and image embeddings as the frozen CLIP gives them."""

from pathlib import Path

import torch

from unclip.networks.prior_diffusion import PriorCondition
from unclip.train.config import TrainConfig
from unclip.train.embed import ClipRun
from unclip.train.source import Source


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

    def condition(self, captions: list[str]) -> PriorCondition:
        """The captions as the frozen CLIP encodes them."""
        tokens = self.clip.tokenizer.encode(captions).to(self.device)
        with torch.no_grad():
            text = self.clip.clip.encode_text(tokens)
        keep = torch.ones(len(captions), dtype=torch.bool, device=self.device)
        return PriorCondition(text.embedding, text.states.float(), text.mask, keep)
