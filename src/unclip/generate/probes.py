"""What the encoder sees: the captions nearest to an embedding, and whether a written word deceives it (figure 5)."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from einops import einsum
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn.functional import normalize

from unclip.generate.picture import Picture
from unclip.generate.progress import Callback
from unclip.generate.settings import Settings
from unclip.generate.sources import PictureLike, read_source
from unclip.generate.system import System
from unclip.generate.variations import vary
from unclip.images.files import flatten


class Match(NamedTuple):
    """How well a caption fits: the cosine of the embeddings, and the share that CLIP gives it among those asked for."""

    caption: str
    cosine: float
    probability: float


class TypographicProbe(NamedTuple):
    """A picture with a word written on it, what CLIP made of it before and after, and variations of it."""

    written: Image.Image
    before: list[Match]
    after: list[Match]
    variations: list[Picture]


@torch.no_grad()
def nearest_captions(
    system: System,
    picture: PictureLike | Float[Tensor, " d"],
    captions: Sequence[str],
    *,
    k: int | None = None,
) -> list[Match]:
    """`System.nearest_captions`."""
    if not captions or not all(caption.strip() for caption in captions):
        raise ValueError("there are no captions to choose from, or one of them is empty")
    given = isinstance(picture, Tensor)
    z_i = picture if given else system.embed_image(read_source(picture).image)[0]
    unique = list(dict.fromkeys(captions))
    texts = normalize(system.embed_text(unique), dim=-1)
    cosines = einsum(texts, normalize(z_i.cpu().float(), dim=-1), "n d, d -> n")
    scale = system.clip.logit_scale.detach().float().exp().clamp(max=100.0).cpu()
    shares = (scale * cosines).softmax(0)
    order = cosines.argsort(descending=True)[:k].tolist()
    return [Match(unique[index], cosines[index].item(), shares[index].item()) for index in order]


def typographic_probe(
    system: System,
    picture: PictureLike,
    word: str,
    captions: Sequence[str],
    *,
    settings: Settings,
    n: int = 4,
    seed: int | None = None,
    size: int | None = None,
    callback: Callback | None = None,
) -> TypographicProbe:
    """`System.typographic_probe`."""
    image = read_source(picture).image
    written = write_word(image, word)
    before, after = (nearest_captions(system, one, captions) for one in (image, written))
    made = (
        list(vary(system, written, settings=settings, n=n, seed=seed, size=size, callback=callback))
        if n
        else []
    )
    return TypographicProbe(written, before, after, made)


def write_word(image: Image.Image, word: str) -> Image.Image:
    """`image` in RGB with a word in black on a white label across the middle, as on the paper's apple.

    Raises `ValueError` for an empty word.
    """
    if not word.strip():
        raise ValueError("the word is empty: say what to write on the picture")
    image = flatten(image).copy()
    draw = ImageDraw.Draw(image)
    # The largest letters with which the word takes four fifths of the width and a third of the height.
    left, top, right, bottom = draw.textbbox((0, 0), word, font=ImageFont.load_default(size=100))
    scale = min(0.8 * image.width / (right - left), image.height / 3 / (bottom - top))
    font = ImageFont.load_default(size=max(1.0, 100 * scale))
    left, top, right, bottom = draw.textbbox((0, 0), word, font=font)
    x, y = (image.width - right - left) / 2, (image.height - bottom - top) / 2
    margin = max(1, round((bottom - top) / 5))
    label = (x + left - margin, y + top - margin, x + right + margin, y + bottom + margin)
    draw.rectangle(label, fill="white", outline="black")
    draw.text((x, y), word, fill="black", font=font)
    return image
