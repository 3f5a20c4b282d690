"""Sampling of the priors, P(z_i | y): the diffusion prior and the autoregressive prior (arXiv 2204.06125, section 2.2)."""

from collections.abc import Iterator

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from unclip.diffusion.conventions import GridConfig
from unclip.diffusion.denoiser import NoiseSource, Step
from unclip.diffusion.guidance import classifier_free_batched, clip
from unclip.diffusion.parametrization import Preconditioned
from unclip.diffusion.paths import start
from unclip.diffusion.samplers import SAMPLERS
from unclip.networks.prior_autoregressive import AutoregressivePrior
from unclip.networks.prior_diffusion import EmbeddingDiffusion, PriorCondition
from unclip.rng import Noise
from unclip.stages.finite import Watch
from unclip.stages.text import Captions

TOP = 0.5
"""Share of the distribution of z_i·z_t that the autoregressive prior samples its token from ("the top half", section 2.2)."""


def prior_condition(captions: Captions, copies: int = 1) -> PriorCondition:
    """The priors' condition: each caption `copies` times, rows ordered (caption copy)."""
    embedding, states, mask = captions.encoding
    keep = torch.ones(len(embedding), dtype=torch.bool, device=embedding.device)
    return PriorCondition(embedding, states, mask, keep).repeat(copies)


def sample_diffusion_prior(
    prior: EmbeddingDiffusion,
    condition: PriorCondition,
    noise: NoiseSource,
    *,
    steps: int,
    sampler: str = "ddpm",
    guidance: float = 1.0,
    null: PriorCondition | None = None,
    watch: Watch | None = None,
) -> Iterator[Step]:
    """Steps that sample one standardised image embedding per row; `noise` has a stream for each.

    Guidance leads away from `null`, by default no caption; 1 is off. `watch` sees whether the prior's answers are finite.
    """
    process = prior.config.process.build()
    model = Preconditioned(prior if watch is None else watch.over(prior), process)
    spaced: GridConfig | None = getattr(prior.config, "grid", None)
    if spaced is None or process.table is None:
        grid = process.grid(steps)
    else:
        grid = spaced.visits(process.table, sampler, steps).sigmas
    if guidance == 1:
        denoise = model.bind(prior.precompute(condition))
    else:
        null = prior.precompute(null or condition.null())
        denoise = classifier_free_batched(model, prior.precompute(condition), null, guidance)
    if (limit := prior.config.clip_range) is not None:
        denoise = clip(denoise, -limit, limit)
    x = start(noise.normal(prior.config.embedding).to(condition.text_embedding.device), grid[0])
    return SAMPLERS[sampler](denoise, x, grid, noise=noise)


def sample_autoregressive_prior(
    prior: AutoregressivePrior,
    condition: PriorCondition,
    noise: Noise,
    *,
    guidance: float = 1.0,
    null: PriorCondition | None = None,
    top: float = TOP,
    watch: Watch | None = None,
) -> Iterator[Step]:
    """Steps that sample one image embedding per row, one principal component each; `noise` has a stream for each.

    A step's `x` is the embedding of the codes so far, in CLIP's own scale, its other components at their mean. Keys and
    values are cached, so the transformer reads every token once. z_i·z_t is sampled from the `top` share of its
    distribution. Guidance leads the codes' logits away from `null`, by default no caption; 1 is off.
    """
    rows, guided = len(condition.keep), guidance != 1
    if guided:
        condition = condition.join(null or condition.null())
    uniforms = noise.uniform(1 + prior.config.dimensions)
    cache = prior.transformer.cache()
    tokens, keys = prior.prefix(condition)
    hidden = prior.extend(tokens, keys, cache)
    watch = Watch() if watch is None else watch
    watch.see(hidden)
    dot = sample_top(prior.dot_out(hidden[:rows]), uniforms[:, 0], top)
    tokens = prior.dot_token(torch.cat([dot, dot]) if guided else dot, condition)
    x = prior.codes.mean.expand(rows, -1)
    for index in range(prior.config.dimensions):
        keys = nn.functional.pad(keys, (0, 1), value=True)
        logits = prior.code_out(prior.extend(tokens, keys, cache)).float()
        if guided:
            given, without = logits.chunk(2)
            logits = without + guidance * (given - without)
        watch.see(logits)
        code = sample_categorical(logits, uniforms[:, 1 + index])
        x = x + prior.codes.step(index, code)
        yield Step(index, x, x)
        tokens = prior.code_in(torch.cat([code, code]) if guided else code)[:, None]


# Section 2.2: "two samples of z_i, and selecting the one with a higher dot product with z_t".
def choose(candidates: Float[Tensor, "bk d"], text_embedding: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
    """Of each caption's candidate image embeddings, rows ordered (caption candidate), the one nearest to its z_t.

    Nearest by the cosine, z_i·z_t of unit vectors.
    """
    z = rearrange(candidates, "(b k) d -> b k d", b=len(text_embedding))
    scores = nn.functional.cosine_similarity(z, text_embedding[:, None], dim=-1)
    return z[torch.arange(len(z), device=z.device), scores.argmax(dim=1)]


def sample_categorical(logits: Float[Tensor, "b v"], uniform: Float[Tensor, " b"]) -> Int[Tensor, " b"]:
    """One index per row, sampled from its softmax by inverting the cumulative distribution at numbers in (0, 1).

    In float64, which some devices lack, so on the CPU.
    """
    cumulative = logits.detach().cpu().double().softmax(-1).cumsum(-1)
    wanted = uniform.cpu().double()[:, None] * cumulative[:, -1:]
    # What is not finite has no place in the order: the last index stands in, and whoever watches the logits refuses it.
    return torch.searchsorted(cumulative, wanted)[:, 0].clamp(max=logits.shape[-1] - 1).to(logits.device)


def sample_top(logits: Float[Tensor, "b v"], uniform: Float[Tensor, " b"], top: float) -> Int[Tensor, " b"]:
    """`sample_categorical` from the `top` share of each distribution: 1 is all of it, 0.5 what lies above its median.

    Raises `ValueError` for a share that is not in (0, 1].
    """
    if not 0 < top <= 1:
        raise ValueError(f"top is {top}; it is a share in (0, 1], such as 0.5")
    return sample_categorical(logits, 1 - top + top * uniform)
