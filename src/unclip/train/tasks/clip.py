"""CLIP's stage: contrastive training of both towers on pictures and captions (arXiv 2103.00020)."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from unclip.config import from_dict, to_dict
from unclip.evaluate.retrieval import retrieval
from unclip.networks.clip import Clip, ClipConfig
from unclip.rng import Noise
from unclip.tokenizers.clip import ClipTokenizer
from unclip.train.batches import SampleBatches
from unclip.train.begin import tokenizer_of
from unclip.train.config import TrainConfig
from unclip.train.cut_captions import report_cut_captions
from unclip.train.run_folder import kept_tokenizer
from unclip.train.source import Source, evenly_spaced
from unclip.train.task import Built, Losses, Task, compiled
from unclip.train.tasks.clip_loss import CaptionNames, names_of, pair_loss


@dataclass(frozen=True, kw_only=True)
class ClipTraining(TrainConfig):
    """A run of CLIP's stage."""

    stage: Literal["clip"] = "clip"
    model: ClipConfig
    vocabulary: int = 4096
    """Tokens of the byte-pair encoding that is learned from the captions."""


@dataclass(frozen=True, eq=False)
class PairBatch:
    """Pictures and the tokens of one caption each."""

    pictures: Float[Tensor, "b 3 h w"]
    tokens: Int64[Tensor, "b n"]
    captions: CaptionNames

    @property
    def fitting(self) -> Bool[Tensor, "b b"]:
        """Which captions (columns) fit which pictures (rows): any of a picture's own, or one with the same tokens."""
        return self.captions.fits(self.captions)


class PairBatches(SampleBatches):
    """Pictures and captions; the tokenizer is learned from the training captions, or taken over with `init`.

    A begun run keeps the tokenizer that it began with.
    """

    def __init__(self, config: ClipTraining, device: torch.device):
        super().__init__(config, device)
        kept = kept_tokenizer(config.out)
        if kept is None and config.init:
            kept = tokenizer_of(config.init)
        self.tokenizer = (
            ClipTokenizer.from_json(kept)
            if kept is not None
            else ClipTokenizer.train(
                self.train.all_captions(), vocabulary=config.vocabulary, context=config.model.text.context
            )
        )
        self.tokenizer_json = self.tokenizer.to_json()
        report_cut_captions(self.train, self.tokenizer)
        if device.type == "cuda":
            self.train.read_captions(self.tokenizer)

    def batch(self, numbers: Int64[np.ndarray, " b"], noise: Noise) -> PairBatch:
        """The samples with these numbers: pictures shifted and captions drawn by `noise`."""
        return self._pairs(self.train, self.train.indices(numbers), noise)

    def held_out_pairs(self, count: int) -> PairBatch:
        """At most `count` held-out pictures, each with its first caption."""
        return self._pairs(self.held_out, evenly_spaced(count, len(self.held_out)), None)

    def _pairs(self, source: Source, indices: Int64[np.ndarray, " b"], noise: Noise | None) -> PairBatch:
        if noise is not None and source.has_tokens:
            chosen = source.tokens(indices, noise)
            names = CaptionNames(chosen.number, chosen.number, chosen.own)
            return PairBatch(source.pictures(indices, noise), chosen.tokens, names)
        captions = source.captions(indices, noise)
        tokens = self.tokenizer.encode(captions)
        own = [source.decoded.samples[index].captions for index in indices]
        most = max(map(len, own))
        padded = [text for texts in own for text in (*texts, *texts[-1:] * (most - len(texts)))]
        names = CaptionNames(
            names_of([row.numpy().tobytes() for row in tokens]).to(self.device),
            names_of(captions).to(self.device),
            names_of(padded).to(self.device).reshape(len(own), most),
        )
        return PairBatch(source.pictures(indices, noise), tokens.to(self.device), names)


class ClipTask(Task[Clip]):
    """The contrastive loss of a batch; captions that fit a picture are never its negatives."""

    def __init__(self, config: ClipTraining, network: Clip, device: torch.device):
        super().__init__()
        self.network = network
        self.encode_image = compiled(config, device, network.encode_image)
        self.encode_text = compiled(config, device, network.encode_text)

    def forward(self, batch: PairBatch, noise: Noise) -> Losses:
        """The loss of the micro-batch's pairs among themselves, in all processes."""
        image = self.encode_image(batch.pictures)
        text = self.encode_text(batch.tokens).embedding
        loss = pair_loss(self.network, image, text, batch.captions, self.division)
        return Losses(loss, {"temperature": self.network.logit_scale.detach().neg().exp()})

    def validate(self, batches: PairBatches) -> dict[str, float]:
        """Loss and recall at 1 among up to 512 held-out pictures; any caption that fits a picture is right."""
        held_out = batches.held_out_pairs(512)
        chunks = [slice(start, start + 128) for start in range(0, len(held_out.tokens), 128)]
        image = torch.cat([self.network.encode_image(held_out.pictures[chunk]) for chunk in chunks])
        text = torch.cat([self.network.encode_text(held_out.tokens[chunk]).embedding for chunk in chunks])
        loss = self.network.loss(image, text, held_out.fitting).item()
        return {"loss": loss, **retrieval(image, text, held_out.fitting, at=(1,))}


def build(config: ClipTraining, device: torch.device) -> Built:
    """CLIP and its data."""
    batches = PairBatches(config, device)
    network = Clip(fitted(config.model, batches.tokenizer)).to(device)
    return Built(ClipTask(config, network, device), batches)


def fitted(config: ClipConfig, tokenizer: ClipTokenizer) -> ClipConfig:
    """The config with the vocabulary that the tokenizer really has."""
    data = to_dict(config)
    data["text"] |= {"vocabulary": tokenizer.vocabulary, "end": tokenizer.end}
    return from_dict(ClipConfig, data)
