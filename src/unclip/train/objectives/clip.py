"""CLIP's objective: each picture finds its caption in the batch, each caption its picture."""

from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Int64
from PIL import Image
from torch import Tensor

from unclip.config import from_dict, to_dict
from unclip.evaluate.retrieval import fitting_captions, retrieval
from unclip.models.clip import Clip, ClipConfig
from unclip.rng import Noise
from unclip.tokenizers.clip import ClipTokenizer
from unclip.train.config import TrainConfig
from unclip.train.objective import Losses, compiled
from unclip.train.source import Source, spread


class ClipObjective:
    """Learns the tokenizer from the captions, then trains both towers on pairs."""

    def __init__(self, config: TrainConfig, device: torch.device):
        assert isinstance(config.model, ClipConfig)
        self.train = Source(config, "train", device)
        self.held_out = Source(config, "validation", device)
        text = config.model.text
        self.tokenizer = (
            ClipTokenizer.from_json((Path(config.init) / "tokenizer.json").read_text(encoding="utf-8"))
            if config.init
            else ClipTokenizer.train(
                self.train.all_captions(), vocabulary=config.vocabulary, context=text.context
            )
        )
        self.tokenizer_json, self.space = self.tokenizer.to_json(), None
        self.model = Clip(fitted(config.model, self.tokenizer)).to(device)
        self.device = device
        # On a GPU the step's captions are chosen there.
        self.resident = device.type == "cuda"
        if self.resident:
            self.train.read_captions(self.tokenizer)
        self.encode_image = compiled(config, device, self.model.encode_image)
        self.encode_text = compiled(config, device, self.model.encode_text)

    def loss(self, numbers: Int64[np.ndarray, " b"], noise: Noise) -> Losses:
        """The contrastive loss of one (micro-)batch; a caption that fits a picture too is no negative of it."""
        indices = self.train.indices(numbers)
        if self.resident:
            chosen = self.train.tokens(indices, noise)
            tokens, fitting = chosen.tokens, chosen.fitting()
        else:
            captions = self.train.captions(indices, noise)
            tokens = self.tokenizer.encode(captions).to(self.device)
            fitting = self._fitting(self.train, indices, captions, tokens)
        image = self.encode_image(self.train.pictures(indices, noise))
        text = self.encode_text(tokens).embedding
        loss = self.model.loss(image, text, fitting)
        return Losses(loss, {"temperature": self.model.logit_scale.detach().neg().exp()})

    def validate(self) -> dict[str, float]:
        """Loss and recall at 1 among up to 512 held-out drawings; any caption that fits a drawing is right."""
        indices = spread(512, len(self.held_out))
        captions = self.held_out.captions(indices)
        tokens = self.tokenizer.encode(captions).to(self.device)
        chunks = range(0, len(indices), 128)
        image = torch.cat(
            [self.model.encode_image(self.held_out.pictures(indices[i : i + 128])) for i in chunks]
        )
        text = torch.cat([self.model.encode_text(tokens[i : i + 128]).embedding for i in chunks])
        fitting = self._fitting(self.held_out, indices, captions, tokens)
        loss = self.model.loss(image, text, fitting).item()
        return {"loss": loss, **retrieval(image, text, fitting, at=(1,))}

    def _fitting(
        self,
        source: Source,
        indices: Int64[np.ndarray, " b"],
        captions: list[str],
        tokens: Int64[Tensor, "b n"],
    ) -> Bool[Tensor, "b b"]:
        """Which captions (columns) fit which pictures (rows): any of a picture's own, or one that reads the same."""
        own = fitting_captions([source.resident.samples[index] for index in indices], captions)
        return same_tokens(tokens) | own.to(self.device)

    def preview(self) -> Image.Image | None:
        """Nothing to see: CLIP draws no pictures."""
        return None


def same_tokens(tokens: Int64[Tensor, "b n"]) -> Bool[Tensor, "b b"]:
    """Which pairs of captions have the same tokens."""
    return (rearrange(tokens, "b n -> b 1 n") == rearrange(tokens, "b n -> 1 b n")).all(-1)


def fitted(config: ClipConfig, tokenizer: ClipTokenizer) -> ClipConfig:
    """The config with the vocabulary that the tokenizer really has."""
    data = to_dict(config)
    data["text"] |= {"vocabulary": tokenizer.vocabulary, "end": tokenizer.end}
    return from_dict(ClipConfig, data)
