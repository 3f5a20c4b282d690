"""One word at a time: does a picture show the style, colour, arrangement and colour-to-thing pairing that it should?

Each caption of the artwork set is set against captions that differ from it in that one respect. Two of the questions are
the paper's "red cube on top of a blue cube" (section 7.1): what CLIP's embedding alone binds badly.
"""

from unclip.data.sample import Sample
from unclip.datasets.artwork.captions import STYLE_PHRASES, article, strip_colour
from unclip.datasets.artwork.colours import PALETTE

_BETWEEN = {"left": " to the left of ", "above": " above "}


def style_ending(sample: Sample) -> str | None:
    """How the captions end that name a drawing's style plainly: ", 3d style". None where it has no style of the artwork's."""
    phrases = STYLE_PHRASES.get(sample.meta.get("style", ""))
    return None if phrases is None else f", {phrases[0]}"


def alternatives(sample: Sample, caption: str) -> dict[str, tuple[str, ...]]:
    """For each respect that a drawing's caption names: that caption, then those that differ in it alone.

    `style` and `colour` have all other styles and colours as alternatives; `arrangement` the two things changed over;
    `binding` their two colours changed over. Empty for a drawing that is not of the artwork set.
    """
    meta, ending = sample.meta, style_ending(sample)
    if ending is None or not caption.endswith(ending):
        return {}
    what, style = caption.removesuffix(ending), ending.removeprefix(", ")
    styles = [phrases[0] for phrases in STYLE_PHRASES.values() if phrases[0] != style]
    found = {"style": [f"{what}, {other}" for other in styles]}
    if meta.get("kind") == "pair":
        found |= _of_pair(what, meta["relation"], style)
    elif meta.get("recoloured"):
        found |= _of_colour(what, style)
    return {name: (caption, *others) for name, others in found.items()}


def _of_colour(what: str, style: str) -> dict[str, list[str]]:
    colour, thing = strip_colour(_without_article(what))
    if colour is None:
        return {}
    others = [article(f"{other} {thing}") for other in PALETTE if other != colour]
    return {"colour": [f"{other}, {style}" for other in others]}


def _of_pair(what: str, relation: str, style: str) -> dict[str, list[str]]:
    between = _BETWEEN[relation]
    first, found, second = what.partition(between)
    if not found or between in second:
        return {}
    changed = {"arrangement": [f"{second}{between}{first}, {style}"]}
    (one, this), (other, that) = (strip_colour(_without_article(name)) for name in (first, second))
    if one is not None and other is not None and one != other:
        swapped = article(f"{other} {this}"), article(f"{one} {that}")
        changed["binding"] = [f"{swapped[0]}{between}{swapped[1]}, {style}"]
    return changed


def _without_article(name: str) -> str:
    first, _, rest = name.partition(" ")
    return rest if first in ("a", "an", "the") and rest else name
