"""Text to picture: P(x | y) = P(x | z_i, y) P(z_i | y), stage by stage (arXiv 2204.06125, section 2)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from unclip.generate.enlarge import enlarge, enlarge_steps
from unclip.generate.picture import RECIPE_FORMAT, Picture
from unclip.generate.progress import Callback, Reporter
from unclip.generate.recipe import Redo, recipe_of
from unclip.generate.settings import Settings, check_seed, choose_seed, seed_of
from unclip.generate.stages import (
    Captions,
    Seeds,
    choose,
    decode,
    decoder_condition,
    decoder_denoiser,
    read_captions,
    sample_prior,
    sample_prior_autoregressive,
    seeds_of,
    warn_if_cut,
)
from unclip.generate.system import System
from unclip.images.tensors import to_image
from unclip.networks.prior_autoregressive import AutoregressivePrior

MAX_PICTURES = 10_000


class Order(NamedTuple):
    """One picture that is to be drawn."""

    prompt: str
    negative: str | None
    seed: int


def generate_each(
    system: System,
    prompts: Sequence[str],
    *,
    settings: Settings,
    n: int = 1,
    seed: int | None = None,
    size: int | None = None,
    negative: str | None = None,
    callback: Callback | None = None,
    batch_size: int | None = None,
) -> Iterator[Picture]:
    """`System.generate`, yielding pictures as they are finished: who stops early keeps what is done."""
    if not prompts or not all(prompt.strip() for prompt in prompts):
        raise ValueError("the prompt is empty: say what to draw")
    check_count(n * len(prompts))
    size = check_size(system, size)
    seed = choose_seed(seed)
    negative = negative if negative and negative.strip() else None
    repeated = [prompt for prompt in prompts for _ in range(n)]
    orders = [Order(prompt, negative, seed_of(seed, k)) for k, prompt in enumerate(repeated)]
    warn_if_cut(system.tokenizer, [*prompts, negative or ""])
    return _in_batches(system, orders, settings, size, callback, check_batch_size(system, batch_size))


def again(redo: Redo) -> Picture:
    """A picture made again from its recipe."""
    system = redo.system
    order = Order(redo.told("prompt"), redo.recipe.get("negative"), check_seed(redo.told("seed")))
    size = check_size(system, redo.told("size"))
    return next(_in_batches(system, [order], redo.settings, size, redo.callback, 1))


def check_recipe(
    system: System, recipe: Mapping[str, Any], operation: str, *, any_weights: bool = False
) -> None:
    """Raise `ValueError` unless `system` can follow the recipe of an `operation`."""
    if recipe.get("recipe") != RECIPE_FORMAT:
        raise ValueError(
            f"the recipe has format {recipe.get('recipe')!r}, this version follows {RECIPE_FORMAT}"
        )
    if recipe.get("operation") != operation:
        raise ValueError(f"the recipe is of {recipe.get('operation')!r}, not of {operation!r}")
    if recipe.get("weights") != system.weights and not any_weights:
        raise ValueError(
            f"the picture was made by {recipe.get('model')!r} with weights {recipe.get('weights')}, this is "
            f"{system.name!r} with {system.weights}: load that model, or allow other weights for a similar picture"
        )


def check_count(count: int) -> int:
    """`count`, if so many pictures can be asked for. Raises `ValueError` otherwise."""
    if not 1 <= count <= MAX_PICTURES:
        raise ValueError(f"{count} pictures were asked for: ask for 1 to {MAX_PICTURES}")
    return count


def check_size(system: System, size: int | None) -> int:
    """The side to draw: what the first upsampler makes unless given, as further ones take long.

    Raises `ValueError` for one that the model cannot make.
    """
    sizes = system.sizes
    if size is None:
        return sizes[:2][-1]
    if size not in sizes:
        raise ValueError(f"{system.name!r} makes pictures of {', '.join(map(str, sizes))} pixels, not {size}")
    return size


def check_batch_size(system: System, batch_size: int | None) -> int:
    """How many pictures to compute together. Raises `ValueError` for less than 1."""
    if batch_size is None:
        # Rounding depends on the batch, and the CPU gains little from large ones: alone, a picture is always the same.
        return 1 if system.device.type == "cpu" else 4
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}: give 1 or more")
    return batch_size


def _in_batches(
    system: System,
    orders: Sequence[Order],
    settings: Settings,
    size: int,
    callback: Callback | None,
    together: int,
) -> Iterator[Picture]:
    batches = [orders[first : first + together] for first in range(0, len(orders), together)]
    steps = prior_steps(system, settings) + settings.steps + enlarge_steps(system, settings, size)
    reporter = Reporter(callback, steps * len(batches), len(orders))
    for index, batch in enumerate(batches):
        yield from draw(system, batch, settings, size, reporter, index * together)


@torch.inference_mode()
def draw(
    system: System, orders: Sequence[Order], settings: Settings, size: int, reporter: Reporter, first: int = 0
) -> list[Picture]:
    """One batch of pictures of `size` pixels, through all stages."""
    seeds = seeds_of([order.seed for order in orders], settings)
    captions = _captions(system, [order.prompt for order in orders])
    negatives = [order.negative for order in orders]
    negative = _captions(system, [text or "" for text in negatives]) if any(negatives) else None
    embedding = embed(system, captions, seeds, settings, reporter, first, negative)
    decoder = system.decoder
    with system.precision(decoder):
        denoise = decoder_denoiser(
            decoder,
            decoder_condition(decoder, embedding, captions.tokens),
            guidance=settings.guidance,
            interval=settings.guidance_interval,
            negative=None if negative is None else negative.tokens,
        )
        sampler = decode(
            decoder, denoise, seeds, steps=settings.steps, sampler=settings.sampler, device=system.device
        )
        small = reporter.follow(sampler, "decoder", settings.steps, first)
    pixels = enlarge(system, small, seeds, size, settings, reporter, first)
    return [
        Picture(
            image=to_image(pixels[k]),
            recipe=_recipe(system, order, size, settings),
            embedding=None if embedding is None else embedding[k].float().cpu().clone(),
        )
        for k, order in enumerate(orders)
    ]


def embed(
    system: System,
    captions: Captions,
    seeds: Seeds,
    settings: Settings,
    reporter: Reporter,
    first: int = 0,
    negative: Captions | None = None,
) -> Float[Tensor, "b d"] | None:
    """The image embedding to draw for each caption, from where `settings.prior` says."""
    if settings.prior == "none":
        return None
    if settings.prior == "text":
        return captions.encoding.embedding
    guided: dict[str, Any] = {"candidates": settings.candidates, "guidance": settings.prior_guidance}
    if settings.prior == "autoregressive":
        prior = system.prior_autoregressive
    else:
        prior = system.prior
        if negative is None and prior.config.null == "empty":
            negative = _captions(system, [""] * len(captions.tokens))
        guided |= {"steps": settings.prior_steps, "sampler": settings.prior_sampler}
    # Asked for while CLIP is in memory.
    unit = system.clip.config.normalize
    with system.precision(prior):
        if isinstance(prior, AutoregressivePrior):
            sampler = sample_prior_autoregressive(prior, captions, seeds, negative=negative, **guided)
        else:
            sampler = sample_prior(prior, captions, seeds, negative=negative, **guided)
        samples = reporter.follow(sampler, "prior", prior_steps(system, settings), first)
    return choose(prior, samples, captions, unit=unit)


def prior_steps(system: System, settings: Settings) -> int:
    """How many steps the prior that `settings` asks for takes; the autoregressive one's are its own."""
    if settings.prior == "diffusion":
        return settings.prior_steps
    return system.prior_autoregressive.config.dimensions if settings.prior == "autoregressive" else 0


def _recipe(system: System, order: Order, size: int, settings: Settings) -> dict[str, Any]:
    return recipe_of(
        system,
        "generate",
        seed=order.seed,
        size=size,
        settings=settings,
        prior=True,
        prompt=order.prompt,
        prompt_truncated=system.tokenizer.length(order.prompt) > system.tokenizer.context or None,
        negative=order.negative,
    )


def _captions(system: System, prompts: Sequence[str]) -> Captions:
    unique = list(dict.fromkeys(prompts))
    read = read_captions(system.clip, system.tokenizer, unique, system.device)
    return read.take([unique.index(prompt) for prompt in prompts])
