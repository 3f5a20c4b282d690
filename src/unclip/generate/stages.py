"""The stages of a system as functions of tensors: caption, prior, decoder, upsampler.

Each stage that samples is an iterator of steps, for the caller to follow.
"""

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from unclip.diffusion.denoiser import Denoiser, NoiseSource, Step
from unclip.diffusion.guidance import classifier_free_batched, clip, switch
from unclip.diffusion.parametrization import Preconditioned, Process, Spacing
from unclip.diffusion.paths import start
from unclip.diffusion.samplers import SAMPLERS
from unclip.generate.known import Known
from unclip.generate.settings import Settings
from unclip.networks.clip import Clip, TextEncoding
from unclip.networks.decoder import Decoder, DecoderCondition
from unclip.networks.prior_autoregressive import AutoregressivePrior
from unclip.networks.prior_diffusion import EmbeddingDiffusion, PriorCondition, nearest
from unclip.networks.upsampler import Upsampler
from unclip.rng import Noise, TorchNoise, derive
from unclip.tokenizers.clip import ClipTokenizer


class PromptTruncated(UserWarning):
    """A prompt has more tokens than the model reads; its end was ignored."""


class Captions(NamedTuple):
    """A batch of captions as the stages read them."""

    tokens: Int[Tensor, "b n"]
    encoding: TextEncoding

    def take(self, rows: Sequence[int]) -> "Captions":
        """The captions of the given rows."""
        index = torch.tensor(rows, device=self.tokens.device)
        return Captions(self.tokens[index], TextEncoding(*(field[index] for field in self.encoding)))


def warn_if_cut(tokenizer: ClipTokenizer, prompts: Sequence[str]) -> None:
    """Warn `PromptTruncated` for each prompt that the model will not read to its end."""
    for prompt in prompts:
        if (length := tokenizer.length(prompt)) > tokenizer.context:
            warnings.warn(
                f"the prompt {prompt[:40]!r}... has {length - 2} tokens, the model reads the first {tokenizer.context - 2}",
                PromptTruncated,
                stacklevel=3,
            )


def read_captions(
    clip_model: Clip, tokenizer: ClipTokenizer, prompts: Sequence[str], device: torch.device
) -> Captions:
    """Tokens and text embeddings; a prompt that is too long is cut."""
    tokens = tokenizer.encode(prompts).to(device)
    # One at a time: a caption's embedding must not depend, even by rounding, on those beside it.
    encodings = [clip_model.encode_text(row[None]) for row in tokens]
    return Captions(tokens, TextEncoding(*(torch.cat(fields) for fields in zip(*encodings))))


Seeds = Sequence[int] | TorchNoise
"""A seed for each picture, or the one stream that all stages of a picture share."""


def seeds_of(seeds: Sequence[int], settings: Settings) -> Seeds:
    """The seeds of a batch as `settings.random` wants them used."""
    return TorchNoise(seeds) if settings.random == "diffusers" else seeds


def walk(
    sampler: str,
    denoise: Denoiser,
    x: Float[Tensor, "b ..."],
    grid: Float[Tensor, " levels"],
    noise: NoiseSource,
    process: Process,
) -> Iterator[Step]:
    """The named sampler; DDPM's takes the variance that the model learned, if it learned one."""
    learned = sampler == "ddpm" and process.parametrization.learned_variance
    variance = {"variance": "learned"} if learned else {}
    return SAMPLERS[sampler](denoise, x, grid, noise=noise, **variance)


def sample_prior(
    prior: EmbeddingDiffusion,
    captions: Captions,
    seeds: Seeds,
    *,
    candidates: int,
    steps: int,
    sampler: str,
    guidance: float,
    negative: Captions | None = None,
) -> Iterator[Step]:
    """Sample `candidates` standardised image embeddings for each caption, rows ordered (b candidates).

    Each candidate has a stream of its own: with more of them the first ones stay what they were. `negative` takes the
    place of no caption as what guidance leads away from.
    """
    noise = (
        seeds
        if isinstance(seeds, TorchNoise)
        else Noise([derive(seed, "prior", k) for seed in seeds for k in range(candidates)])
    )
    return prior.sample_steps(
        prior_condition(captions, candidates),
        noise,
        steps=steps,
        sampler=sampler,
        guidance=guidance,
        null=None if negative is None else prior_condition(negative, candidates),
    )


def sample_prior_autoregressive(
    prior: AutoregressivePrior,
    captions: Captions,
    seeds: Seeds,
    *,
    candidates: int,
    guidance: float,
    negative: Captions | None = None,
) -> Iterator[Step]:
    """`sample_prior` for the autoregressive prior: a step for each principal component of the embedding."""
    if isinstance(seeds, TorchNoise):
        raise ValueError("diffusers has no autoregressive prior to agree with: set random to unclip")
    noise = Noise([derive(seed, "prior", k) for seed in seeds for k in range(candidates)])
    null = None if negative is None else prior_condition(negative, candidates)
    return prior.sample_steps(prior_condition(captions, candidates), noise, guidance=guidance, null=null)


def prior_condition(captions: Captions, copies: int = 1) -> PriorCondition:
    """The prior's condition: each caption `copies` times."""
    embedding, states, mask = captions.encoding
    keep = torch.ones(len(embedding), dtype=torch.bool, device=embedding.device)
    return PriorCondition(embedding, states, mask, keep).repeat(copies)


def choose(
    prior: EmbeddingDiffusion | AutoregressivePrior,
    samples: Float[Tensor, "bk d"],
    captions: Captions,
    *,
    unit: bool,
) -> Float[Tensor, "b d"]:
    """Of each caption's candidates the image embedding nearest to the text embedding, `unit` ones put on the sphere."""
    z = prior.unstandardise(samples.float())
    z = normalize(z, dim=-1) if unit else z
    z = rearrange(z, "(b k) d -> b k d", b=len(captions.tokens))
    return nearest(z, captions.encoding.embedding)


def decoder_condition(
    decoder: Decoder,
    image_embedding: Float[Tensor, "b d"] | None,
    tokens: Int[Tensor, "b n"] | None,
    hint: Float[Tensor, "b 4 h w"] | None = None,
) -> DecoderCondition:
    """What to draw; an embedding or caption that is None is dropped. At least one must be given."""
    given = image_embedding if image_embedding is not None else tokens
    if given is None:
        raise ValueError("the decoder needs an image embedding or a caption")
    yes = torch.ones(len(given), dtype=torch.bool, device=given.device)
    embedding, caption = image_embedding, decoder.config.caption
    if embedding is None:
        embedding = torch.zeros(len(given), decoder.config.embedding, device=given.device)
    keep_caption = yes if tokens is not None and caption is not None else ~yes
    if caption is None:
        tokens = None
    elif tokens is None:
        tokens = torch.zeros(len(given), caption.context, dtype=torch.int64, device=given.device)
    return DecoderCondition(
        image_embedding=embedding,
        tokens=tokens,
        keep_image=yes if image_embedding is not None else ~yes,
        keep_caption=keep_caption,
        hint=hint,
    )


def decoder_denoiser(
    decoder: Decoder,
    condition: DecoderCondition,
    *,
    guidance: float,
    interval: tuple[float, float] | None = None,
    negative: Int[Tensor, "b n"] | None = None,
) -> Denoiser:
    """The guided decoder on one batch of conditions, its estimates clipped to [-1, 1].

    Guidance leads away from no condition, or from the `negative` caption.
    """
    model = Preconditioned(decoder, decoder.config.process.build())
    context = decoder.encode(condition)
    if guidance == 1:
        return clip(model.bind(context))
    null = condition.null()
    if negative is not None and decoder.config.caption is not None:
        null = replace(null, tokens=negative, keep_caption=torch.ones_like(null.keep_caption))
    low, high = interval or (0.0, math.inf)
    return clip(classifier_free_batched(model, context, decoder.encode(null), guidance, interval=(low, high)))


def decode(
    decoder: Decoder,
    denoise: Denoiser,
    seeds: Seeds,
    *,
    steps: int,
    sampler: str,
    device: torch.device,
    spacing: Spacing | None = None,
) -> Iterator[Step]:
    """Sample pictures of the decoder's size, one for each seed."""
    noise = seeds if isinstance(seeds, TorchNoise) else Noise(seeds).fork("decoder")
    process = decoder.config.process.build()
    grid = process.grid(steps, spacing)
    size = decoder.config.size
    x = start(noise.normal(3, size, size), grid[0]).to(device)
    return walk(sampler, denoise, x, grid, noise, process)


def upsample(
    upsampler: Upsampler,
    low: Float[Tensor, "b 3 h w"],
    seeds: Seeds,
    *,
    steps: int,
    sampler: str,
    spacing: Spacing | None = None,
    known: Known | None = None,
) -> Iterator[Step]:
    """Sample large pictures, one for each small one in [-1, 1], around what is `known` of them."""
    config = upsampler.config
    noise = seeds if isinstance(seeds, TorchNoise) else Noise(seeds).fork(f"upsampler {config.high_size}")
    process = config.process.build()
    grid = process.grid(steps, spacing)
    condition = upsampler.condition(low)
    denoise = clip(Preconditioned(upsampler, process).bind(condition))
    if config.last_step:
        last = clip(Preconditioned(upsampler.last, process).bind(condition))
        denoise = switch(denoise, last, float(grid[-2]))
    if known is not None:
        denoise = known.kept_until_last(denoise, grid)
    height, width = (side * config.factor for side in low.shape[-2:])
    x = start(noise.normal(3, height, width), grid[0]).to(low.device)
    return walk(sampler, denoise, x, grid, noise, process)
