"""The autoregressive prior's stage: each code of the image embedding from those before it (arXiv 2204.06125, 2.2)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cross_entropy

from unclip.networks.embedding_codes import dimensions_for
from unclip.networks.prior_autoregressive import (
    AutoregressivePrior,
    AutoregressivePriorConfig,
    Predicted,
    dot_product,
)
from unclip.networks.prior_diffusion import PriorCondition
from unclip.rng import Noise
from unclip.stages.prior import sample_autoregressive_prior
from unclip.train.config import ClipDependent
from unclip.train.embed import ClipRun
from unclip.train.task import Built, Losses, Task, compiled
from unclip.train.tasks.captions import CaptionedBatches, CaptionedEmbeddings, condition_of

Network = Callable[..., Predicted]

#: Captions read to find the distribution of z_i·z_t, for each of its buckets.
CAPTIONS_PER_BUCKET = 64


@dataclass(frozen=True, kw_only=True)
class AutoregressivePriorTraining(ClipDependent):
    """A run of the autoregressive prior's stage."""

    stage: Literal["prior_autoregressive"] = "prior_autoregressive"
    model: AutoregressivePriorConfig
    dropout_text: float = 0.1
    """Share of samples that lose their caption, for classifier-free guidance."""
    reconstruction_error: float | None = 0.01
    """The fewest components that leave at most this share of the variance are kept; None: `model.dimensions` of them."""

    MOVED: ClassVar[Mapping[str, str]] = {
        "model.dropout_text": "dropout_text",
        "model.reconstruction_error": "reconstruction_error",
    }


class AutoregressivePriorTask(Task[AutoregressivePrior]):
    """The negative log-likelihood of the codes, captions dropped at times."""

    def __init__(
        self,
        config: AutoregressivePriorTraining,
        network: AutoregressivePrior,
        clip: ClipRun,
        device: torch.device,
    ):
        super().__init__()
        self.config, self.network, self.clip, self.device = config, network, clip, device
        # A compiled module is not registered: its weights are the network's.
        self.predict: Network
        object.__setattr__(self, "predict", compiled(config, device, network))

    def forward(self, batch: CaptionedEmbeddings, noise: Noise) -> Losses:
        """Nats a token: minus the logarithm of its predicted probability."""
        condition = condition_of(self.clip, batch.tokens)
        condition = condition.drop(noise.fork("drop").uniform() < self.config.dropout_text)
        return Losses(self._nats(batch.image_embedding, condition, self.predict).mean(), {})

    def _nats(
        self, image_embedding: Float[Tensor, "b d"], condition: PriorCondition, network: Network
    ) -> Float[Tensor, "b tokens"]:
        """Minus the log-probability of the token of z_i·z_t, and of each code."""
        codes = self.network.codes.encode(image_embedding)
        dot = self.network.dot(image_embedding, condition.text_embedding)
        predicted = network(codes, dot, condition)
        of_dot = cross_entropy(predicted.dot, dot, reduction="none")
        of_codes = cross_entropy(rearrange(predicted.codes, "b k v -> b v k"), codes, reduction="none")
        return torch.cat([of_dot[:, None], of_codes], dim=1)

    def validate(self, batches: CaptionedBatches) -> dict[str, float]:
        """Nats a code, over all and of the first, with and without captions, and of z_i·z_t; cosines of embeddings.

        Those are of true embeddings with sampled ones, with what their own codes keep of them, which is the most that
        can be reached, and, for scale, with the text's. Knowing nothing costs log(buckets) nats a code.
        """
        indices, held_out = batches.held_out_pairs(256)
        condition, truth = condition_of(self.clip, held_out.tokens), held_out.image_embedding
        of_dot, *nats = self._nats(truth, condition, self.network).mean(0).tolist()
        _, *without = self._nats(truth, condition.null(), self.network).mean(0).tolist()
        *_, last = sample_autoregressive_prior(
            self.network, condition, Noise(indices.tolist(), device=self.device)
        )
        drawn = last.x
        coded = self.network.codes.decode(self.network.codes.encode(truth))
        return {
            "loss": sum(nats) / len(nats),
            "loss_first": nats[0],
            "loss_without_caption": sum(without) / len(without),
            "loss_first_without_caption": without[0],
            "loss_dot": of_dot,
            "cosine_sampled_image": dot_product(drawn, truth).mean().item(),
            "cosine_sampled_text": dot_product(drawn, condition.text_embedding).mean().item(),
            "cosine_coded_image": dot_product(coded, truth).mean().item(),
            "cosine_image_text": dot_product(truth, condition.text_embedding).mean().item(),
        }


def build(config: AutoregressivePriorTraining, device: torch.device) -> Built:
    """The autoregressive prior, with CLIP's sizes and codes fitted to the training embeddings, and its data."""
    batches = CaptionedBatches(config, device)
    text, dimensions = batches.clip.clip.config.text, config.model.dimensions
    if config.reconstruction_error is not None:
        dimensions = dimensions_for(batches.train_embeddings, config.reconstruction_error)
    model = replace(
        config.model,
        embedding=batches.clip.embedding,
        text_width=text.width,
        context=text.context,
        dimensions=dimensions,
    )
    network = AutoregressivePrior(model).to(device)
    network.fit(batches.train_embeddings, _dots(batches, CAPTIONS_PER_BUCKET * model.dot_buckets))
    return Built(AutoregressivePriorTask(config, network, batches.clip, device), batches)


def _dots(batches: CaptionedBatches, count: int) -> Float[Tensor, " n"]:
    """z_i·z_t of at most `count` training pictures, evenly spread, with one of their captions each."""
    parts = []
    for indices in batches.train.spread(count, 256):
        pairs = batches.pairs(indices, Noise(indices.tolist()))
        text = condition_of(batches.clip, pairs.tokens).text_embedding
        parts.append(dot_product(pairs.image_embedding, text))
    return torch.cat(parts)
