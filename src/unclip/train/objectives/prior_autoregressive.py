"""The autoregressive prior's objective: each code of the image embedding from those before it (arXiv 2204.06125, 2.2)."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Int64
from PIL import Image
from torch import Tensor
from torch.nn.functional import cross_entropy

from unclip.models.embedding_codes import dimensions_for
from unclip.models.prior_autoregressive import (
    AutoregressivePrior,
    AutoregressivePriorConfig,
    Predicted,
    dot_product,
)
from unclip.models.prior_diffusion import PriorCondition
from unclip.rng import Noise
from unclip.train.config import TrainConfig
from unclip.train.objective import Losses, compiled
from unclip.train.objectives.captioned import CaptionedEmbeddings
from unclip.train.source import spread

Network = Callable[..., Predicted]

#: Captions read to find the distribution of z_i·z_t, for each of its buckets.
CAPTIONS_PER_BUCKET = 64


class AutoregressivePriorObjective(CaptionedEmbeddings):
    """Frozen CLIP embeddings and captions in, codes of image embeddings out."""

    def __init__(self, config: TrainConfig, device: torch.device):
        super().__init__(config, device)
        assert isinstance(config.model, AutoregressivePriorConfig)
        text, dimensions = self.clip.clip.config.text, config.model.dimensions
        if config.model.reconstruction_error is not None:
            dimensions = dimensions_for(self.train_embeddings, config.model.reconstruction_error)
        model = replace(
            config.model,
            embedding=self.clip.embedding,
            text_width=text.width,
            context=text.context,
            dimensions=dimensions,
        )
        self.model: AutoregressivePrior = AutoregressivePrior(model).to(device)
        self.model.fit(self.train_embeddings, self._dots(CAPTIONS_PER_BUCKET * model.dot_buckets))
        self.network = compiled(config, device, self.model)

    def _dots(self, count: int) -> Float[Tensor, " n"]:
        """z_i·z_t of at most `count` training pictures, evenly spread, with one of their captions each."""
        parts = []
        for indices in np.array_split(spread(count, len(self.train)), -(-count // 256)):
            if len(indices):
                captions = self.train.captions(indices, Noise(indices.tolist()))
                parts.append(dot_product(self.train_images(indices), self.condition(captions).text_embedding))
        return torch.cat(parts)

    def loss(self, numbers: Int64[np.ndarray, " b"], noise: Noise) -> Losses:
        """Nats a token: minus the logarithm of its predicted probability, captions dropped at times."""
        indices = self.train.indices(numbers)
        condition = self.drawn_condition(indices, noise)
        condition = condition.drop(noise.fork("drop").uniform() < self.model.config.dropout_text)
        return Losses(self._nats(self.train_images(indices), condition, self.network).mean(), {})

    def _nats(
        self, image_embedding: Float[Tensor, "b d"], condition: PriorCondition, network: Network
    ) -> Float[Tensor, "b tokens"]:
        """Minus the log-probability of the token of z_i·z_t, and of each code."""
        codes = self.model.codes.encode(image_embedding)
        dot = self.model.dot(image_embedding, condition.text_embedding)
        predicted = network(codes, dot, condition)
        of_dot = cross_entropy(predicted.dot, dot, reduction="none")
        of_codes = cross_entropy(rearrange(predicted.codes, "b k v -> b v k"), codes, reduction="none")
        return torch.cat([of_dot[:, None], of_codes], dim=1)

    def validate(self) -> dict[str, float]:
        """Nats a code, over all and of the first, with and without captions, and of z_i·z_t; cosines of embeddings.

        Those are of true embeddings with sampled ones, with what their own codes keep of them, which is the most that
        can be reached, and, for scale, with the text's. Knowing nothing costs log(buckets) nats a code.
        """
        indices = spread(256, len(self.held_out))
        condition = self.condition(self.held_out.captions(indices))
        truth = self.held_out_embeddings[torch.from_numpy(indices).to(self.device)]
        of_dot, *nats = self._nats(truth, condition, self.model).mean(0).tolist()
        _, *without = self._nats(truth, condition.null(), self.model).mean(0).tolist()
        drawn = self.model.sample(condition, Noise(indices.tolist(), device=self.device))
        coded = self.model.codes.decode(self.model.codes.encode(truth))
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

    def preview(self) -> Image.Image | None:
        """Nothing to see: embeddings are no pictures."""
        return None
