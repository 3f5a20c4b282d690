"""Probes of CLIP: the captions nearest to an embedding, and typographic attacks (arXiv 2204.06125, figure 5)."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from einops import einsum
from jaxtyping import Float
from PIL import Image as PillowImage
from PIL import ImageDraw, ImageFont
from torch import Tensor
from torch.nn.functional import normalize

from unclip.config import read_value
from unclip.errors import RequestError
from unclip.generate.image import Images
from unclip.generate.request import check_characters
from unclip.generate.session import Session
from unclip.generate.sources import PictureLike, read_source
from unclip.images.files import flatten
from unclip.networks.clip import Clip


class Match(NamedTuple):
    """A caption's fit: the cosine of the embeddings, and its probability among the captions asked about."""

    caption: str
    cosine: float
    probability: float


class TypographicProbe(NamedTuple):
    """A picture with a word written on it, CLIP's nearest captions before and after, and variations of it."""

    written: PillowImage.Image
    before: list[Match]
    after: list[Match]
    variations: Images


@torch.no_grad()
def nearest_captions(
    session: Session,
    picture: PictureLike | Float[Tensor, " d"] | Any,
    captions: Sequence[str],
    k: int | None = None,
) -> list[Match]:
    """Captions by their cosine with a picture or an image embedding, best first; all of them, or the first `k`.

    Raises `RequestError` for no captions, an empty one, a `k` below 1, and an embedding of another width or with numbers that
    are not finite.
    """
    captions = read_value(tuple[str, ...], captions, "captions", error=RequestError)
    k = read_value(int | None, k, "k", error=RequestError)
    if not captions or not all(caption.strip() for caption in captions):
        raise RequestError("there are no captions to choose from, or one of them is empty")
    for caption in captions:
        check_characters(caption, "captions")
    if k is not None and k < 1:
        raise RequestError(f"k is {k}: give a number of captions from 1, or leave it out for all")
    if isinstance(picture, Tensor):
        _check_embedding(picture, session.parts.config("clip").embedding)
    given = isinstance(picture, Tensor)
    z_i = picture if given else session.embed_images([read_source(picture)])[0]
    unique = list(dict.fromkeys(captions))
    session.warn_if_truncated(*unique)
    texts = normalize(session.embed_text(unique).cpu(), dim=-1)
    cosines = einsum(texts, normalize(z_i.cpu().float(), dim=-1), "n d, d -> n")
    with session.parts.lend("clip", Clip) as clip:
        scale = clip.logit_scale.detach().float().exp().clamp(max=100.0).cpu()
    probabilities = (scale * cosines).softmax(0)
    order = cosines.argsort(descending=True)[:k].tolist()
    return [Match(unique[index], cosines[index].item(), probabilities[index].item()) for index in order]


def _check_embedding(z_i: Tensor, width: int) -> None:
    if z_i.shape != (width,):
        raise RequestError(
            f"the embedding has the shape {tuple(z_i.shape)}: give one of ({width},), such as embed_image(picture)[0]"
        )
    if not bool(torch.isfinite(z_i).all()) or not bool(z_i.any()):
        raise RequestError(
            "the embedding holds numbers that are not finite, or zeros alone: it has no direction"
        )


def _drawn(letter: str) -> bytes:
    """Pixels of a letter in Pillow's own font; all letters that it lacks have the same."""
    image = PillowImage.new("L", (64, 64))
    ImageDraw.Draw(image).text((8, 8), letter, fill=255, font=ImageFont.load_default(size=40))
    return image.tobytes()


def check_word(word: str | Any) -> None:
    """Raise `RequestError` for what is no word that can be written: another type, nothing, and letters that the font lacks."""
    word = read_value(str, word, "word", error=RequestError)
    if not word.strip():
        raise RequestError("the word is empty: say what to write on the picture")
    check_characters(word, "word")
    lacking = (_drawn("\uffff"), _drawn(" "))
    for letter in word:
        if not letter.isspace() and _drawn(letter) in lacking:
            raise RequestError(
                f"the word holds {letter!r}, which the font that is written with lacks: give letters of ASCII"
            )


def write_word(image: PillowImage.Image, word: str | Any) -> PillowImage.Image:
    """RGB picture with a word in black on a white label across the middle, as on the paper's apple.

    Raises `RequestError` for an empty word, and for letters that Pillow's own font lacks.
    """
    check_word(word)
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
