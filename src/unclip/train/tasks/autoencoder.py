"""The autoencoder's stage: latents that pictures can be rebuilt from (latent diffusion, arXiv 2112.10752, section 3.1).

The loss is a pixel and a perceptual distance, a regulariser of the latents (KL, or a codebook), and from `discriminator_start`
on the score of a patch discriminator, which is trained beside. Both networks' losses are added: each sees the other's weights
as constants, so that one backward pass gives both gradients.
"""

import math
from abc import abstractmethod
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float, Int64
from PIL import Image
from torch import Tensor, nn

from unclip.formats.opened import open_model
from unclip.images import grid, to_image
from unclip.networks.autoencoder import Autoencoder, AutoencoderConfig, Posterior
from unclip.networks.clip import Clip
from unclip.networks.discriminator import (
    DiscriminatorConfig,
    PatchDiscriminator,
    SharedBatchNorm,
    adaptive_weight,
    frozen,
    hinge,
)
from unclip.networks.movq import Movq, MovqConfig
from unclip.networks.perceptual import activation_distance, moved
from unclip.nn.codebook import Quantised, perplexity, quantise, restart, use_of
from unclip.rng import Noise
from unclip.train.batches import SampleBatches
from unclip.train.config import ClipDependent, TrainConfig
from unclip.train.embed import ClipRun
from unclip.train.optim import OptimizerConfig
from unclip.train.source import Source, evenly_spaced
from unclip.train.task import Built, Group, Losses, Task

VALIDATED = 64
STATISTICS = 1024
"""At most so many training pictures give the mean and standard deviation of latents."""


@dataclass(frozen=True, kw_only=True)
class AutoencoderTraining(ClipDependent):
    """A run of the autoencoder's stage. `clip` is the network of the perceptual distance."""

    stage: Literal["autoencoder"] = "autoencoder"
    model: AutoencoderConfig | MovqConfig
    """With Gaussian latents, or with a codebook (MoVQ)."""
    pixel_loss: Literal["l1", "l2"] = "l1"
    perceptual_weight: float = 1.0
    perceptual_shift: int = 4
    """Pictures are moved by up to so many pixels before they are compared, so that no grid of patches shows."""
    kl_weight: float = 1e-6
    """Times the KL divergence in nats for each number of a picture: latent diffusion's weight."""
    codebook_weight: float = 1.0
    commitment_weight: float = 0.25
    restart_after: int = 4096
    """Codes that no picture used for so many samples become latents of the batch; 0: never."""
    discriminator: DiscriminatorConfig | None = field(default_factory=DiscriminatorConfig)
    discriminator_weight: float = 0.5
    """Of the adversarial loss, once its gradient is as long as the others' at the last layer."""
    discriminator_start: int = 0
    """Samples before the discriminator is trained and heard."""
    discriminator_optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(learning_rate=1e-4, betas=(0.5, 0.9), weight_decay=0.0)
    )
    trained: Literal["all", "decoder"] = "all"
    """"decoder" leaves the latents as they are, so that decoders of one encoder can be exchanged."""
    flip: bool = False
    """Whether half of the visits show the mirror image."""
    crop: int | None = None
    """Side of the square of each picture that is learned, at a random place, in pixels; None: the whole picture."""

    def __post_init__(self) -> None:
        """Raise ValueError for weights below 0, and a picture that does not fit the autoencoder."""
        super().__post_init__()
        for name in ("perceptual_weight", "kl_weight", "codebook_weight", "commitment_weight"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 0")
        if self.trained == "decoder" and not self.init:
            raise ValueError("trained is 'decoder', which needs the autoencoder that it belongs to: set init")
        for name, side in (("data.size", self.data.size), ("crop", self.crop or self.model.factor)):
            if side % self.model.factor:
                raise ValueError(
                    f"{name} is {side}; for this autoencoder it must be a multiple of {self.model.factor}"
                )
        if self.crop is not None and not 0 < self.crop <= self.data.size:
            raise ValueError(
                f"crop is {self.crop}; give at most the side of the pictures, {self.data.size}, or null"
            )

    OF_LENGTH: ClassVar[tuple[str, ...]] = (*ClipDependent.OF_LENGTH, "discriminator_start")

    def lasting(self, samples: int) -> "AutoencoderTraining":
        """A run of so many samples; the discriminator begins after the same share of them."""
        start = round(self.discriminator_start / self.samples * samples)
        return replace(self, samples=samples, discriminator_start=start)

    @property
    def costly_from(self) -> int:
        """The sample that the discriminator begins with."""
        return 0 if self.discriminator is None else self.discriminator_start

    def costly(self) -> "AutoencoderTraining":
        """The run with the discriminator from the start."""
        return replace(self, discriminator_start=0)


@dataclass(frozen=True, eq=False)
class PictureBatch:
    """Pictures in [-1, 1]."""

    pictures: Float[Tensor, "b 3 h w"]
    first: int
    """Number of the first sample of the whole batch, of which this may be a part."""


class PictureBatches(SampleBatches):
    """Pictures, mirrored at times."""

    def __init__(self, config: AutoencoderTraining, device: torch.device):
        super().__init__(config, device)
        self.config = config
        # Of the perceptual distance.
        self.clip = ClipRun(config, device) if config.perceptual_weight else None

    def batch(self, numbers: Int64[np.ndarray, " b"], noise: Noise) -> PictureBatch:
        """The samples with these numbers."""
        config = self.config
        pictures = self._learned(self.train.indices(numbers), noise)
        if config.flip:
            mirrored = noise.fork("flip").uniform().to(pictures.device) < 0.5
            pictures = torch.where(mirrored[:, None, None, None], pictures.flip(-1), pictures)
        return PictureBatch(pictures, int(numbers[0]) // config.batch * config.batch)

    def _learned(self, indices: Int64[np.ndarray, " b"], noise: Noise) -> Float[Tensor, "b 3 h w"]:
        """Training pictures by index, or a square of each."""
        crop, size = self.config.crop, self.config.data.size
        if crop is None or crop == size:
            return self.train.pictures(indices)
        return self.train.squares(indices, noise.fork("crop").integers(size - crop + 1, 2), crop)


class Rebuilt(Task[Any]):
    """Losses that Gaussian and quantised autoencoders share."""

    def __init__(
        self, config: AutoencoderTraining, network: nn.Module, clip: Clip | None, device: torch.device
    ):
        super().__init__()
        self.config, self.network, self.device = config, network, device
        # In a list, so that the frozen CLIP is no part of the task's state.
        self._clip = [clip]
        self.discriminator = (
            None if config.discriminator is None else PatchDiscriminator(config.discriminator).to(device)
        )
        if config.trained == "decoder":
            for name, parameter in network.named_parameters():
                parameter.requires_grad_(name.startswith(("decoder.", "post_quant.", "from_latents.")))

    @abstractmethod
    def rebuild(self, pictures: Tensor, noise: Noise | None) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Reconstructions, the regulariser's loss, and numbers to write down; without noise, as in sampling."""

    def follow(self, config: TrainConfig) -> None:
        """Let the discriminator begin where `config` has it."""
        assert isinstance(config, AutoencoderTraining)
        self.config = config

    def groups(self, config: TrainConfig) -> list[Group]:
        """The autoencoder's parameters, and the discriminator's."""
        named = [(name, one) for name, one in self.named_parameters() if one.requires_grad]
        own = [(name, one) for name, one in named if not name.startswith("discriminator.")]
        found = [Group(own, config.optimizer)]
        if self.discriminator is not None:
            others = [(name, one) for name, one in named if name.startswith("discriminator.")]
            found.append(Group(others, self.config.discriminator_optimizer))
        return found

    def forward(self, batch: PictureBatch, noise: Noise) -> Losses:
        """The sum of all losses of the batch, and each alone."""
        config, x = self.config, batch.pictures
        drawn, regulariser, numbers = self.rebuild(x, noise)
        distance, found = self._distance(x, drawn, noise)
        loss = distance + regulariser
        # All micro-batches of a batch, on all processes, begin together.
        if self.discriminator is not None and batch.first >= config.discriminator_start:
            for module in self.discriminator.modules():
                if isinstance(module, SharedBatchNorm):
                    module.gather = self.division.gather if self.division.size > 1 else None
            with frozen(self.discriminator):
                adversarial = -self.discriminator(drawn).mean()
            last = self.network.decoder.exit.weight
            share = self.division.share
            weight = adaptive_weight(distance * share, adversarial * share, last, self.division.total)
            scores = hinge(self.discriminator(x), self.discriminator(drawn.detach()))
            loss = loss + config.discriminator_weight * weight * adversarial + scores
            found |= {"adversarial": adversarial, "adaptive_weight": weight, "discriminator": scores}
        elif self.discriminator is not None:
            # Gradients of zero, as copies of a task on several processes wait for those of all weights.
            loss = loss + 0.0 * sum(one.sum() for one in self.discriminator.parameters())
        return Losses(loss, {name: value.detach() for name, value in {**found, **numbers}.items()})

    def _distance(self, x: Tensor, drawn: Tensor, noise: Noise | None) -> tuple[Tensor, dict[str, Tensor]]:
        """Pixel and perceptual distance, weighted and added, and each alone."""
        config, clip = self.config, self._clip[0]
        pixel = (x - drawn).abs().mean() if config.pixel_loss == "l1" else (x - drawn).square().mean()
        found = {"pixel": pixel}
        if clip is None:
            return pixel, found
        most = config.perceptual_shift
        if noise is not None and most:
            offsets = noise.fork("perceptual").integers(2 * most + 1, 2) - most
            x, drawn = moved(x, offsets, most), moved(drawn, offsets, most)
        found["perceptual"] = activation_distance(clip, x, drawn).mean()
        return pixel + config.perceptual_weight * found["perceptual"], found

    def validate(self, batches: PictureBatches) -> dict[str, float]:
        """Distances of held-out pictures to their reconstructions by the mean latent, and the PSNR in dB."""
        indices = evenly_spaced(VALIDATED, len(batches.held_out))
        sums: dict[str, float] = {}
        for some in np.array_split(indices, -(-len(indices) // max(1, self.config.batch))):
            x = batches.held_out.pictures(some)
            drawn, regulariser, numbers = self.rebuild(x, None)
            distance, found = self._distance(x, drawn, None)
            found |= {"loss": distance + regulariser, **numbers, "psnr": psnr(x, drawn).mean()}
            for name, value in found.items():
                sums[name] = sums.get(name, 0.0) + value.item() * len(some)
        return {name: value / len(indices) for name, value in sums.items()}

    def preview(self, batches: PictureBatches) -> Image.Image:
        """Held-out pictures, and below each its reconstruction."""
        x = batches.held_out.pictures(evenly_spaced(16, len(batches.held_out)))
        drawn = self.rebuild(x, None)[0].clamp(-1, 1)
        rows = [row for i in range(0, len(x), 8) for row in (x[i : i + 8], drawn[i : i + 8])]
        return grid([to_image(picture) for row in rows for picture in row], columns=min(8, len(x)))

    def save(self, folder: Path, *, part: str, name: str, batches: PictureBatches) -> Path:
        """With the mean and standard deviation of each channel of the latents in the config, for diffusion."""
        config = self.network.config
        if self.config.trained == "all":
            # What was put together from shards is in the host's memory.
            mean, std = statistics(self.network.to(self.device), batches.train)
            config = replace(config, scale=1.0, mean=mean, std=std)
        else:
            assert self.config.init is not None
            kept = open_model(self.config.init).parts["autoencoder"].config
            config = replace(config, scale=kept.scale, mean=kept.mean, std=kept.std)
        self.network.config = config
        return super().save(folder, part=part, name=name, batches=batches)


class GaussianTask(Rebuilt):
    """Latents with a posterior that is held near N(0, I) by a small weight."""

    network: Autoencoder

    def rebuild(self, pictures: Tensor, noise: Noise | None) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """By a sample of the posterior, or its mean."""
        posterior = self.network.encode(pictures)
        latent = posterior.mean
        if noise is not None:
            latent = posterior.sample(noise.fork("latent").normal(*latent.shape[1:]).to(latent))
        kl = posterior.kl().mean() / pictures[0].numel()
        return self.network.decode(latent), self.config.kl_weight * kl, {"kl": kl}


class QuantisedTask(Rebuilt):
    """Latents that are codes of a book."""

    network: Movq
    # Restarts write rows of it.
    kept_whole = ("network.codes.weight",)

    def __init__(self, config: AutoencoderTraining, network: Movq, clip: Clip | None, device: torch.device):
        super().__init__(config, network, clip, device)
        # Samples since each code was used; part of the state, so that a resumed run restarts the same codes.
        self.register_buffer(
            "idle", torch.zeros(network.codes.num_embeddings, dtype=torch.int64, device=device)
        )

    def rebuild(self, pictures: Tensor, noise: Noise | None) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """By the nearest codes; in training, codes that were idle for long are put in places of latents first."""
        config, codes = self.config, self.network.codes.weight
        latents = self.network.encode(pictures)
        if noise is not None and self.training and config.trained == "all":
            self._restart(latents, noise)
        found: Quantised = quantise(latents, codes)
        loss = config.codebook_weight * found.codebook_loss + config.commitment_weight * found.commitment_loss
        numbers = {"commitment": found.commitment_loss, "codes_used": perplexity(found.indices, len(codes))}
        if noise is not None and self.training:
            idle, indices = self.get_buffer("idle"), self.division.gather(found.indices)
            idle.add_(len(indices)).masked_fill_(use_of(indices, len(codes)), 0)
        return self.network.decode(found.latents), loss, numbers

    def _restart(self, latents: Tensor, noise: Noise) -> None:
        idle, after = self.get_buffer("idle"), self.config.restart_after
        if after:
            dead, first = idle >= after, noise.fork("restart")
            # The same on all processes: by the latents of all, and the stream of the first sample.
            first.keys = self.division.gather(first.keys)
            restart(self.network.codes.weight, dead, self.division.gather(latents.detach()), first)
            idle.masked_fill_(dead, 0)


def psnr(x: Float[Tensor, "b 3 h w"], drawn: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
    """Peak signal-to-noise ratio of each picture in [-1, 1] to its reconstruction, clamped, in decibels."""
    error = (x - drawn.clamp(-1, 1)).square().flatten(1).mean(1)
    return 10 * torch.log10(4 / error.clamp(min=1e-10))


@torch.no_grad()
def statistics(network: Any, source: Source) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel of sampled latents, over evenly spaced training pictures."""
    count, total, squares = 0, 0.0, 0.0
    for some in source.spread(STATISTICS, 16):
        found = network.encode(source.pictures(some))
        if isinstance(found, Posterior):
            noise = Noise(some.tolist()).fork("statistics").normal(*found.mean.shape[1:])
            found = found.sample(noise.to(found.mean))
        flat = found.double().transpose(0, 1).flatten(1)
        count += flat.shape[1]
        total, squares = total + flat.sum(1), squares + flat.square().sum(1)
    assert isinstance(total, Tensor)
    assert isinstance(squares, Tensor)
    mean = total / count
    std = (squares / count - mean.square()).clamp(min=0).sqrt()
    if bool((std <= 1e-8).any()) or not math.isfinite(float(std.sum())):
        raise ValueError(
            f"a channel of the latents is the same in all pictures (standard deviations {std.tolist()}): train longer, or "
            "with fewer latent channels"
        )
    return tuple(round(v, 6) for v in mean.tolist()), tuple(round(v, 6) for v in std.tolist())


def build(config: AutoencoderTraining, device: torch.device) -> Built:
    """The autoencoder, its discriminator and its data."""
    batches = PictureBatches(config, device)
    clip = None if batches.clip is None else batches.clip.clip
    if isinstance(config.model, MovqConfig):
        network: nn.Module = Movq(config.model).to(device)
        return Built(QuantisedTask(config, network, clip, device), batches)
    network = Autoencoder(config.model).to(device)
    return Built(GaussianTask(config, network, clip, device), batches)
