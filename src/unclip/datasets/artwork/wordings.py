"""Free wordings: what people write beside the caption grammar's own forms, such as "a photo of a cat" or "cat icon".

A model that is trained long enough to know the drawings by their plain captions learns these too.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from unclip.datasets.artwork import captions
from unclip.datasets.artwork.plan import Job, digest

#: `a` is the name with its article, `n` without.
_SINGLE = (
    "a picture of {a}",
    "an image of {a}",
    "a photo of {a}",
    "an illustration of {a}",
    "a drawing of {a}",
    "an icon of {a}",
    "{n} icon",
    "a cartoon of {a}",
    "{n} clip art",
    "{n} emoji",
    "a cute {n}",
    "a simple {n}",
    "a small {n}",
    "a big {n}",
    "one {n}",
    "the {n}",
    "{a} on a white background",
    "{a} on a plain background",
    "draw {a}",
    "a close-up of {a}",
    "{n}",
    "{a}",
    "a nice picture of {a}",
    "a sticker of {a}",
    "{a}, digital art",
    "a logo with {a}",
    "a painting of {a}",
    "a rendering of {a}",
    # What no drawing shows: it is to be passed over, not to turn the thing into something else.
    "{a} at night",
    "{a} in the sun",
    "{a} in the snow",
    "{a} on a table",
    "{a} in a field",
)

#: Ways to ask for a style; `s` is one of the wordings without a style, `n` and `a` as above.
_STYLED: dict[str, tuple[str, ...]] = {
    "3d": ("{s}, 3d", "{s}, 3d style", "{s} in 3d", "a 3d render of {a}", "3d {n}", "a 3d icon of {a}", "{s}, 3d render"),
    "flat": ("{s}, flat", "{s}, flat style", "a flat icon of {a}", "flat {n}", "{s}, flat design", "flat vector of {a}"),
    "noto": ("{s}, noto", "{s}, noto style", "{s} in noto style", "{s}, google emoji style", "noto emoji of {a}"),
    "twemoji": ("{s}, twemoji", "{s}, twemoji style", "{s} in twitter style", "twemoji {n}", "{s}, twitter emoji style"),
    "emojione": ("{s}, emojione", "{s}, emojione style", "{s} in emojione style", "emojione {n}"),
}  # fmt: skip

_LEFT = (
    "{a} on the left, {b} on the right",
    "{b} on the right of {a}",
    "{a} with {b} to its right",
    "on the left {a}, on the right {b}",
    "a picture of {a} to the left of {b}",
    "{a} beside {b}",
    "{a} with {b}",
    "{a} and {b}",
    "a picture of {a} and {b}",
)
_ABOVE = (
    "{a} on top of {b}",
    "{b} underneath {a}",
    "{a} at the top, {b} at the bottom",
    "a picture of {a} above {b}",
    "{a} over {b}",
    "{b} with {a} above it",
    "a picture of {a} and {b}",
)


def free(job: Job, count: int = 5) -> list[str]:
    """At most `count` further captions of a job of the artwork plan; which ones is fixed by its key's digest."""
    number = _number(job)
    if len(job.layers) == 2:
        return _pair(job.meta, count, number)
    drawing, colour = job.layers[0].drawing, job.layers[0].colour
    names = captions.names_of(drawing.concept)
    if colour is not None:
        names = [f"{colour} {captions.strip_colour(name)[1]}" for name in names]
    return _single(list(dict.fromkeys(names)), drawing.style, count, number)


def _number(job: Job) -> int:
    return int.from_bytes(digest("wording", job.key)[:6], "big")


def _single(names: Sequence[str], style: str, count: int, number: int) -> list[str]:
    found = []
    for index in range(count):
        name = names[(number + index) % len(names)] if index % 2 else names[0]
        words = {"n": name, "a": captions.article(name)}
        # Steps that share no divisor with the lists' lengths visit all of them.
        said = _SINGLE[(number // 7 + 13 * index) % len(_SINGLE)].format(**words)
        styled = _STYLED[style]
        form = "{s}" if index == 0 else styled[(number // 11 + index) % len(styled)]
        found.append(form.format(s=said, **words))
    return list(dict.fromkeys(found))


def _pair(meta: Mapping[str, Any], count: int, number: int) -> list[str]:
    between = " to the left of " if meta["relation"] == "left" else " above "
    first, _, second = str(meta["captions"][0]).rpartition(",")[0].partition(between)
    templates = _LEFT if meta["relation"] == "left" else _ABOVE
    style = captions.STYLE_PHRASES[meta["style"]][0]
    found = []
    for index in range(count):
        said = templates[(number + 2 * index) % len(templates)].format(a=first, b=second)
        found.append(said if index == 0 else f"{said}, {style}")
    return list(dict.fromkeys(found))
