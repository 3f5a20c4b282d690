"""Pictures of a caption that begin with a given one: what is wanted of each, and each as it is finished."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unclip.generate.picture import Picture
from unclip.generate.progress import Callback, Reporter
from unclip.generate.recipe import recipe_of
from unclip.generate.settings import Settings, choose_seed, seed_of
from unclip.generate.sources import Source
from unclip.generate.stages import read_captions, warn_if_cut
from unclip.generate.system import System
from unclip.generate.text_to_image import check_count, embed, prior_steps
from unclip.images.tensors import to_image


class Wish(NamedTuple):
    """What is to be drawn: z_i or nothing, caption tokens or none, what to lead away from."""

    z_i: Float[Tensor, "1 d"] | None
    tokens: Int[Tensor, "1 n"] | None
    negative: Int[Tensor, "1 n"] | None


Draw = Callable[[Wish, int, Reporter, int], Float[Tensor, "3 h w"]]
"""Draws a wish with a seed; the reporter is told that it is picture so and so of the call."""


def draw_wishes(
    system: System,
    operation: str,
    prompt: str,
    draw: Draw,
    *,
    steps: int,
    settings: Settings,
    sources: Sequence[Source],
    size: int | tuple[int, int],
    n: int = 1,
    seed: int | None = None,
    negative: str | None = None,
    callback: Callback | None = None,
    **told: Any,
) -> Iterator[Picture]:
    """`n` pictures of the prompt by `draw`, which takes `steps` steps each; `told` goes into their recipes.

    Raises `ValueError` before the first is drawn.
    """
    if not prompt.strip():
        raise ValueError("the prompt is empty: say what the whole picture is to show")
    count = check_count(n)
    seed = choose_seed(seed)
    negative = negative if negative and negative.strip() else None
    warn_if_cut(system.tokenizer, [prompt, negative or ""])
    reporter = Reporter(callback, (prior_steps(system, settings) + steps) * count, count)

    def draw_all() -> Iterator[Picture]:
        for index in range(count):
            own = seed_of(seed, index)
            wish = read_wish(system, prompt, negative, own, settings, reporter, index)
            pixels = draw(wish, own, reporter, index)
            recipe = recipe_of(
                system,
                operation,
                seed=own,
                size=size,
                settings=settings,
                sources=sources,
                prior=True,
                prompt=prompt,
                negative=negative,
                **told,
            )
            yield picture_of(pixels, wish, recipe)

    return draw_all()


@torch.no_grad()
def read_wish(
    system: System,
    prompt: str,
    negative: str | None,
    seed: int,
    settings: Settings,
    reporter: Reporter,
    first: int = 0,
) -> Wish:
    """The captions as tokens, and z_i from the prior."""
    captions = read_captions(system.clip, system.tokenizer, [prompt], system.device)
    away = (
        None if negative is None else read_captions(system.clip, system.tokenizer, [negative], system.device)
    )
    z_i = embed(system, captions, [seed], settings, reporter, first, away)
    return Wish(z_i, captions.tokens, None if away is None else away.tokens)


def picture_of(pixels: Float[Tensor, "3 h w"], wish: Wish, recipe: dict[str, Any]) -> Picture:
    """A finished picture with what it was drawn from."""
    z_i = None if wish.z_i is None else wish.z_i[0].float().cpu()
    return Picture(image=to_image(pixels), recipe=recipe, embedding=z_i)
