"""Plan of the artwork set: which pictures are made of which drawings, and which of them are held out.

Splits are fixed by hashes of names, never by a random state: adding a drawing moves no other.

- `val`: plain drawings, 2% of the (concept, style) units.
- `heldout-style`: plain drawings of 4% of the (concept, style) units whose concept is drawn in three styles or more.
- `heldout-colour`: recoloured drawings of 8% of the (noun, colour) combinations that no drawing has by nature.
- `heldout-pair`: two drawings on one canvas, for 8% of the combinations of two nouns.

Nothing held out occurs in `train` in any form.
"""

import hashlib
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from unclip.datasets.artwork import captions
from unclip.datasets.artwork.canvas import Placement
from unclip.datasets.artwork.colours import PALETTE, Palette
from unclip.datasets.artwork.drawings import Drawing

SPLITS = ("train", "val", "heldout-style", "heldout-colour", "heldout-pair")

#: Things people ask for first; a third of the objects in two-object pictures come from here.
EVERYDAY = (
    "cat", "cat face", "dog", "dog face", "automobile", "rocket", "red apple", "green apple", "house", "deciduous tree",
    "evergreen tree", "soccer ball", "balloon", "umbrella", "bicycle", "airplane", "sailboat", "banana", "pizza", "rose",
    "sunflower", "star", "red heart", "sun", "crown", "gem stone", "wrapped gift", "birthday cake", "hot beverage",
    "light bulb", "key", "open book", "guitar", "basketball", "fish", "tropical fish", "bird", "owl", "frog", "butterfly",
    "turtle", "elephant", "rabbit", "horse", "cow", "pig face", "chair", "bed", "couch and lamp", "bus", "delivery truck",
    "locomotive", "strawberry", "lemon", "carrot", "hamburger", "cookie", "ghost", "robot", "mushroom", "cactus", "bell",
)  # fmt: skip

_SCENE_GROUPS = ("animals-nature", "food-drink", "travel-places", "activities", "objects")
_NO_SCENE = ("time", "transport-sign", "place-map", "warning", "hotel")
#: Drawings that carry text or a direction must not be mirrored.
_DIRECTED = re.compile(
    r"left|right|clock|button|letter|calendar|book|newspaper|number|keycap|flag|hundred|sign|arrow"
)

#: How many pairs are looked at for each more that is to be held out; about one in twelve is.
_TRIES = 100


def share(*parts: object) -> float:
    """A number in [0, 1) fixed by the parts."""
    return int.from_bytes(digest(*parts)[:7], "big") / 2**56


def digest(*parts: object) -> bytes:
    """SHA-256 of the parts, for orders and seeds that do not depend on what else exists."""
    return hashlib.sha256("\x1f".join(str(part) for part in parts).encode()).digest()


def _number(*parts: object) -> int:
    return int.from_bytes(digest(*parts)[:6], "big")


def _random(*parts: object) -> random.Random:
    return random.Random(_number(*parts))


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A drawing, the colour it is given (None: as it is), its palette (for recolouring), and where it goes."""

    drawing: Drawing
    colour: str | None = None
    palette: Palette | None = None
    place: Placement = Placement()


@dataclass(frozen=True, kw_only=True)
class Job:
    """One picture to make: its layers, the split it belongs to, and the content of its JSON member."""

    key: str
    split: str
    layers: tuple[Layer, ...]
    meta: dict


class Plan:
    """Decides everything from drawings, their palettes, and the recolourings that were checked.

    palettes: drawing key -> measured colours. Every method is a pure function of names, palettes and the seed.
    """

    def __init__(self, drawings: Sequence[Drawing], palettes: dict[str, Palette], seed: int = 0):
        self.palettes, self.seed = palettes, seed
        self.drawings = [drawing for drawing in drawings if drawing.key in palettes]
        self.nouns = {drawing.concept.id: captions.noun_of(drawing.concept) for drawing in self.drawings}
        self.styles: dict[str, set[str]] = {}
        self.natural: dict[str, set[str]] = {}
        #: concept -> every noun its captions use: held-out combinations are checked against all of them.
        self.called = {
            drawing.concept.id: {
                captions.strip_colour(name)[1] for name in captions.names_of(drawing.concept)
            }
            for drawing in self.drawings
        }
        for drawing in self.drawings:
            self.styles.setdefault(drawing.concept.id, set()).add(drawing.style)
            word = captions.strip_colour(captions.clean(drawing.concept.label))[0]
            seen = {colour for colour in (palettes[drawing.key].name, word) if colour is not None}
            for noun in self.called[drawing.concept.id]:
                self.natural.setdefault(noun, set()).update(seen)

    def unit_split(self, drawing: Drawing) -> str:
        """Where a drawing belongs as it is: train, val or heldout-style. Skin tones go with their concept."""
        if drawing.concept.weight < 0.5 or drawing.concept.id.startswith("icon-"):
            return "train"
        number = share("unit", drawing.concept.id, drawing.style)
        if number < 0.04:
            return "heldout-style" if len(self.styles[drawing.concept.id]) >= 3 else "train"
        return "val" if number < 0.06 else "train"

    def colour_split(self, drawing: Drawing, colour: str) -> str | None:
        """Where a recolouring belongs: heldout-colour, train, or nowhere (None) where a synonym is held out."""
        held = {noun for noun in self.called[drawing.concept.id] if self._colour_held_out(noun, colour)}
        return "heldout-colour" if self.nouns[drawing.concept.id] in held else None if held else "train"

    def _colour_held_out(self, noun: str, colour: str) -> bool:
        return colour not in self.natural[noun] and share("colour", noun, colour) < 0.08

    def pair_split(self, first: Drawing, second: Drawing) -> str | None:
        """Where a scene of two nouns belongs, whatever their order, colours and style; None as in `colour_split`."""
        held = {
            frozenset((one, other))
            for one in self.called[first.concept.id]
            for other in self.called[second.concept.id]
            if share("pair", *sorted((one, other))) < 0.08
        }
        main = frozenset((self.nouns[first.concept.id], self.nouns[second.concept.id]))
        return "heldout-pair" if main in held else None if held else "train"

    def colours_to_try(self, drawing: Drawing, count: int) -> list[str]:
        """Up to `count` colours to give a drawing, held-out ones among them at their natural rate; [] if none fits."""
        palette, concept = self.palettes[drawing.key], drawing.concept
        if drawing.tones or drawing.weight < 1 or not palette.recolourable or concept.group == "people-body":
            return []
        if self.unit_split(drawing) != "train" or concept.group in (
            "flags",
            "component",
            "other",
            "regional",
        ):
            return []
        if concept.group == "smileys-emotion" and concept.subgroup not in ("heart", "cat-face", "monkey-face",
                                                                           "face-costume"):  # fmt: skip
            count = max(1, count // 3)
        own = {palette.name, captions.strip_colour(captions.clean(concept.label))[0]}
        others = [colour for colour in PALETTE if colour not in own]
        return sorted(others, key=lambda colour: digest("try", self.seed, drawing.key, colour))[:count]

    def single(self, drawing: Drawing, split: str, kind: str, weight: float, *, colour: str | None = None,
               place: Placement | None = None) -> Job:  # fmt: skip
        """A picture of one drawing."""
        palette = self.palettes[drawing.key]
        place = place or Placement()
        key = f"{drawing.key}/{kind}" + (f"/{colour}" if colour else "")
        natural = palette.name if drawing.concept.group != "people-body" and not drawing.tones else None
        said = captions.single(
            drawing.concept, drawing.style, colour=colour, natural=natural, tones=drawing.tones,
            choose=_number("caption", self.seed, key),
        )  # fmt: skip
        meta = {
            "captions": said,
            "concept": drawing.concept.id,
            "label": drawing.concept.label,
            "noun": self.nouns[drawing.concept.id],
            "style": drawing.style,
            "kind": kind,
            "colour": colour or natural,
            "recoloured": colour is not None,
            "tones": list(drawing.tones),
            "weight": round(weight, 4),
            "augment": place.augmentation,
            "key": key,
        }
        layer = Layer(drawing=drawing, colour=colour, palette=palette, place=place)
        return Job(key=key, split=split, layers=(layer,), meta=meta)

    def plain(self) -> list[Job]:
        """Every drawing as it is."""
        return [self.single(d, self.unit_split(d), "plain", d.weight) for d in self.drawings]

    def recolours(self, checked: dict[str, list[str]], per_drawing: int) -> list[Job]:
        """Recoloured drawings: `checked` maps drawing keys to the colours that came out right."""
        jobs = []
        for drawing in self.drawings:
            for colour in checked.get(drawing.key, [])[:per_drawing]:
                if (split := self.colour_split(drawing, colour)) is not None:
                    jobs.append(self.single(drawing, split, "recolour", 0.5, colour=colour))
        return jobs

    def augmented(self, count: int, checked: dict[str, list[str]]) -> list[Job]:
        """About `count` scaled, shifted, turned, mirrored copies of training drawings, some of them recoloured."""
        candidates = [d for d in self.drawings if d.weight >= 0.7 and self.unit_split(d) == "train"]
        candidates.sort(key=lambda d: digest("augment", self.seed, d.key))
        jobs = []
        for drawing in candidates[:count]:
            draw = _random("augmentation", self.seed, drawing.key)
            side = draw.uniform(0.62, 0.98)
            room = (1 - side) / 2
            directed = _DIRECTED.search(drawing.concept.label.lower()) or drawing.concept.group == "symbols"
            place = Placement(
                x=0.5 + draw.uniform(-room, room), y=0.5 + draw.uniform(-room, room), side=side,
                degrees=draw.uniform(-14, 14), mirrored=not directed and draw.random() < 0.5,
            )  # fmt: skip
            allowed = [c for c in checked.get(drawing.key, []) if self.colour_split(drawing, c) == "train"]
            colour = draw.choice(allowed) if allowed and draw.random() < 0.25 else None
            jobs.append(self.single(drawing, "train", "augmented", 0.5, colour=colour, place=place))
        return jobs

    def scene_objects(self) -> dict[str, list[Drawing]]:
        """style -> drawings fit for a scene: plain training drawings of things with short names."""
        found: dict[str, list[Drawing]] = {}
        for drawing in self.drawings:
            concept = drawing.concept
            if concept.group not in _SCENE_GROUPS and concept.subgroup not in (
                "heart",
                "cat-face",
                "monkey-face",
            ):
                continue
            if concept.subgroup in _NO_SCENE or drawing.weight < 1 or self.unit_split(drawing) != "train":
                continue
            if len(self.styles[concept.id]) < min(3, len({d.style for d in self.drawings})):
                continue
            if len(self.nouns[concept.id].split()) > 3 or self.palettes[drawing.key].coverage < 0.12:
                continue
            found.setdefault(drawing.style, []).append(drawing)
        return found

    def pairs(self, count: int, checked: dict[str, list[str]], held_out: int = 0) -> list[Job]:
        """About `count` pictures of two drawings of one style, beside or above each other, and `held_out` more of
        held-out combinations, which are some 8% of the first ones too."""
        objects = self.scene_objects()
        jobs: list[Job] = []
        for style, pool in sorted(objects.items()):
            everyday = [d for d in pool if d.concept.label in EVERYDAY] or pool
            tried, more = count // len(objects), held_out // len(objects)
            for number in range(tried + _TRIES * more):
                if number >= tried and not more:
                    break
                draw = _random("pair", self.seed, style, number)
                first, second = (draw.choice(everyday if draw.random() < 0.35 else pool) for _ in range(2))
                split = self.pair_split(first, second)
                if self.called[first.concept.id] & self.called[second.concept.id] or split is None:
                    continue
                if number >= tried:
                    if split == "train":
                        continue
                    more -= 1
                jobs.append(self._pair(first, second, split, number, draw, checked))
        return jobs

    def _pair(self, first: Drawing, second: Drawing, split: str, number: int, draw: random.Random,
              checked: dict[str, list[str]]) -> Job:  # fmt: skip
        style, relation = first.style, "left" if draw.random() < 0.65 else "above"
        layers, names, colours = [], [], []
        for position, drawing in enumerate((first, second)):
            palette = self.palettes[drawing.key]
            allowed = [c for c in checked.get(drawing.key, []) if self.colour_split(drawing, c) == "train"]
            colour = draw.choice(allowed) if allowed and draw.random() < 0.4 else None
            options = captions.names_of(drawing.concept)
            name = options[0] if draw.random() < 0.6 else draw.choice(options)
            said = colour or (palette.name if draw.random() < 0.4 else None)
            if said is not None:
                name = f"{said} {captions.strip_colour(name)[1]}"
            names.append(name)
            colours.append(said)
            side = draw.uniform(0.42, 0.49)
            along, across = 0.25 + 0.5 * position + draw.uniform(-0.01, 0.01), 0.5 + draw.uniform(-0.08, 0.08)
            x, y = (along, across) if relation == "left" else (across, along)
            layers.append(
                Layer(drawing=drawing, colour=colour, palette=palette, place=Placement(x=x, y=y, side=side))
            )
        key = f"{style}/pair/{number:05d}"
        meta = {
            "captions": captions.pair(
                names[0], names[1], relation, style, _number("caption", self.seed, key)
            ),
            "concept": f"{first.concept.id}+{second.concept.id}",
            "label": f"{first.concept.label} + {second.concept.label}",
            "noun": f"{self.nouns[first.concept.id]} + {self.nouns[second.concept.id]}",
            "style": style,
            "kind": "pair",
            "relation": relation,
            "colour": None,
            "colours": colours,
            "recoloured": any(layer.colour is not None for layer in layers),
            "weight": 0.4,
            "augment": Placement().augmentation,
            "key": key,
        }
        return Job(key=key, split=split, layers=tuple(layers), meta=meta)
