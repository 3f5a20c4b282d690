"""The caption grammar of the artwork set: natural names, articles, and several templates per picture."""

import re
from collections.abc import Sequence

from unclip.datasets.artwork.colours import COLOUR_WORDS
from unclip.datasets.artwork.drawings import Concept

#: Everyday names that neither the emoji's label nor its short code gives. The first is used most.
SYNONYMS: dict[str, tuple[str, ...]] = {
    "automobile": ("car",),
    "sport utility vehicle": ("SUV", "car"),
    "pizza": ("slice of pizza", "pizza slice"),
    "wrapped gift": ("gift", "present"),
    "beer mug": ("mug of beer", "glass of beer"),
    "hot beverage": ("cup of coffee", "hot drink"),
    "teacup without handle": ("cup of tea",),
    "hamburger": ("burger",),
    "shortcake": ("slice of cake", "strawberry cake"),
    "birthday cake": ("cake",),
    "french fries": ("fries",),
    "soccer ball": ("football",),
    "airplane": ("plane", "aeroplane"),
    "red heart": ("heart",),
    "evergreen tree": ("pine tree", "tree"),
    "deciduous tree": ("tree",),
    "running shoe": ("shoe", "sneaker"),
    "open book": ("book",),
    "bicycle": ("bike",),
    "motorcycle": ("motorbike",),
    "locomotive": ("steam train", "train"),
    "sailboat": ("boat", "sailing boat"),
    "crescent moon": ("moon",),
    "fire": ("flame",),
    "droplet": ("water drop", "drop of water"),
    "pile of poo": ("poop",),
    "jack-o-lantern": ("pumpkin", "halloween pumpkin"),
    "watermelon": ("slice of watermelon",),
    "cheese wedge": ("piece of cheese", "cheese"),
    "bread": ("loaf of bread",),
    "soft ice cream": ("ice cream", "ice cream cone"),
    "spouting whale": ("whale",),
    "tropical fish": ("fish",),
    "front-facing baby chick": ("baby chick", "chick"),
    "lady beetle": ("ladybug", "ladybird"),
    "honeybee": ("bee",),
    "wine glass": ("glass of wine",),
    "cocktail glass": ("cocktail",),
    "glass of milk": ("milk",),
    "ear of corn": ("corn", "sweetcorn"),
    "hot dog": ("hotdog",),
    "t-shirt": ("shirt", "tee shirt"),
    "woman’s hat": ("hat", "sun hat"),
    "top hat": ("hat",),
    "billed cap": ("cap", "baseball cap"),
    "mobile phone": ("phone", "smartphone"),
    "telephone": ("phone",),
    "light bulb": ("lightbulb",),
    "old key": ("key",),
    "alarm clock": ("clock",),
    "smiling face with sunglasses": ("face with sunglasses", "cool face"),
    "face with tears of joy": ("laughing face",),
    "smiling face with heart-eyes": ("face with heart eyes",),
    "delivery truck": ("truck", "lorry"),
    "house with garden": ("house",),
    "glowing star": ("star",),
    "globe showing Europe-Africa": ("globe", "planet earth"),
    "globe showing Americas": ("globe", "planet earth"),
    "globe showing Asia-Australia": ("globe", "planet earth"),
    "closed umbrella": ("umbrella",),
    "umbrella with rain drops": ("umbrella",),
    "chequered flag": ("race flag",),
    "racing car": ("race car",),
    "fried shrimp": ("shrimp",),
    "cooking": ("fried egg",),
    "oncoming automobile": ("car from the front",),
    "oncoming bus": ("bus from the front",),
    "dragon face": ("dragon head",),
}

#: Styles as prompts name them; the first is the canonical phrase, used most.
STYLE_PHRASES: dict[str, tuple[str, ...]] = {
    "3d": ("3d style", "fluent 3d style"),
    "flat": ("flat style", "flat vector style"),
    "noto": ("noto style", "noto emoji style"),
    "twemoji": ("twemoji style", "twitter emoji style"),
    "emojione": ("emojione style", "emoji one style"),
}

_COLOUR_PREFIX = re.compile(rf"^({'|'.join(COLOUR_WORDS)}) (?=\w)")
_FACE_ANIMALS = ("animals-nature",)
#: Short codes that nobody would say.
_ODD = frozenset({
    "hatched chick", "feet", "leaves", "birthday", "mountain snow", "earth africa", "earth americas",
    "earth asia", "hocho", "barber", "bullettrain side", "bullettrain front", "busstop", "fuelpump",
    "rotating light", "city sunrise", "sunny", "stars", "partly sunny", "zap", "tada", "bamboo", "dolls",
    "flags", "rice scene", "medal military", "medal sports", "golf", "ski", "dart", "gun", "art",
    "swim brief", "womans clothes", "pouch", "shopping", "mans shoe", "womans hat", "mute", "speaker",
    "sound", "loud sound", "mega", "iphone", "calling", "minidisc", "vhs", "mag", "mag right",
    "izakaya lantern", "newspaper roll", "moneybag", "yen", "dollar", "euro", "pound",
    "mailbox with mail", "pencil", "date", "calendar", "lock with ink pen", "x ray", "smoking", "moyai",
    "no bell", "milk glass", "icecream", "hotsprings", "yo yo", "jack o lantern", "japan",
    "parasol on ground", "mortar board", "tophat", "tshirt", "ear of rice", "camera flash", "film strip",
    "european castle", "pinata",
})  # fmt: skip
_NO_ARTICLE = ("kiss", "keycap", "family")
_PLURALS = {"people", "men", "women", "children", "feet"}
_MASS = {"broccoli", "bacon", "rice", "spaghetti", "sushi", "popcorn", "salt", "butter", "garlic", "sake", "tofu", "fire",
         "rain", "snow", "fog", "lightning", "corn", "bread", "milk", "cooking", "yarn", "thread", "soap"}  # fmt: skip


def clean(text: str) -> str:
    """Straight quotes, and 'man: red hair' as 'man with red hair', 'flag: France' as 'flag of France'."""
    text = text.replace("’", "'").replace("“", "").replace("”", "").replace("⊛ ", "")
    if text.startswith("flag: "):
        return "flag of " + text[6:]
    if text.startswith("keycap: "):
        return "keycap " + text[8:]
    text = re.sub(r"^((?:wo)?man|person): (.*(?:hair|bald|beard).*)$", r"\1 with \2", text)
    return text.replace(":", ",")


def strip_colour(name: str) -> tuple[str | None, str]:
    """('red', 'apple') from 'red apple'; (None, name) where the name starts with no colour word."""
    match = _COLOUR_PREFIX.match(name)
    return (match.group(1), name[match.end() :]) if match else (None, name)


def names_of(concept: Concept) -> list[str]:
    """Natural names of a concept, the best first."""
    label = clean(concept.label)
    names = [label]
    if concept.label in SYNONYMS:
        found = [clean(name) for name in SYNONYMS[concept.label]]
        names = (
            found[:1] + names + found[1:] if concept.label in ("automobile", "red heart") else names + found
        )
    if label.endswith(" face") and concept.group in _FACE_ANIMALS:
        names.append(label.removesuffix(" face"))
    # Hand-chosen short codes are good everyday names for things, but terse or odd for faces, people and signs.
    if concept.group in ("animals-nature", "food-drink", "travel-places", "activities", "objects"):
        # Those with a colour ("red car") name the colour of somebody else's drawing.
        codes = [name for name in concept.names if re.fullmatch(r"[a-z][a-z ]{2,18}", name)]
        names += [name for name in codes if name not in _ODD and strip_colour(name)[0] is None]
    return list(dict.fromkeys(names))


def noun_of(concept: Concept) -> str:
    """The concept's main name without a leading colour word: what recolouring is said about."""
    return strip_colour(names_of(concept)[0])[1]


def article(name: str) -> str:
    """`name` with 'a', 'an', 'the', or nothing for plurals and uncountable things."""
    words = name.split()
    first, last = words[0], (name.split(" of ")[0] if " of " in name else name).split(" with ")[0].split()[-1]
    lower = first.lower()
    if first.lower() in ("the", "a", "an") or words[0].isdigit() or lower in _NO_ARTICLE:
        return name
    if name.startswith("flag of"):
        return "the " + name
    if name[0].isupper() and not name.isupper() and len(words) > 1 and words[1][0].isupper():
        return name
    if last.lower() in _MASS or {last.lower(), lower} & _PLURALS or re.search(r"(?<![usi])s$", last.lower()):
        return name
    vowel = lower[0] in "aeiou" and not re.match(r"(uni|use|euro|one\b|once|ufo|ewe|u-)", lower)
    vowel = vowel or bool(re.match(r"(hour|honest|heir|suv\b|atm\b|x-ray)", lower))
    return ("an " if vowel else "a ") + name


def with_tones(name: str, tones: Sequence[str]) -> str:
    """'waving hand with medium skin tone'; two tones are joined by 'and'."""
    known = [tone for tone in dict.fromkeys(tones) if tone != "varied"]
    return f"{name} with {' and '.join(known)} skin tone" if known else name


def single(
    concept: Concept, style: str, *, colour: str | None = None, natural: str | None = None, tones: Sequence[str] = (),
    choose: int = 0,
) -> tuple[str, ...]:  # fmt: skip
    """Six to eight captions for one object.

    colour: the colour it was given by recolouring: every caption names it. natural: the colour word of the drawing as
    it came, named in some captions. choose: a number that rotates synonyms, keywords and phrases, so that a data set has
    them all. The canonical form `a NAME, STYLE style` makes up at least half.
    """
    names = names_of(concept)
    if colour is not None:
        names = list(dict.fromkeys(f"{colour} {strip_colour(name)[1]}" for name in names))
    names = [with_tones(name, tones) for name in names]
    main, other = names[0], names[choose % len(names)]
    third = names[(choose // 3 + 1) % len(names)]
    canonical, phrase = STYLE_PHRASES[style][0], STYLE_PHRASES[style][choose % 2]
    keywords = _keywords(concept, main, choose, colour)
    captions = [
        f"{article(main)}, {canonical}",
        f"{article(other)}, {canonical}",
        f"{article(third)}, {canonical}",
        article(main) if choose % 2 else main,
        f"{other}, {phrase}",
        [f"a drawing of {article(third)}", f"emoji of {article(main)}", f"an emoji of {article(other)}, {canonical}",
         f"{article(main)} in {phrase}"][choose % 4],
    ]  # fmt: skip
    if natural is not None and colour is None and not any(word in COLOUR_WORDS for word in main.split()):
        captions.append(f"{article(f'{natural} {other}')}, {canonical}")
        captions.append(article(f"{natural} {main}"))
    elif keywords:
        captions.append(f"{main}, {', '.join(keywords)}, {canonical}")
    if colour is not None and choose % 3 == 0:
        captions[4] = f"{article(strip_colour(main)[1])} in {colour}, {canonical}"
    return tuple(dict.fromkeys(captions))


def _keywords(concept: Concept, main: str, choose: int, colour: str | None) -> list[str]:
    words = [
        word
        for word in concept.keywords
        if word not in main.split() and not (colour and word in COLOUR_WORDS)
    ]
    start = choose % max(len(words) - 2, 1)
    return words[start : start + 3]


#: relation -> templates over a (first) and b (second, both with article), read as "a is <relation> b".
RELATIONS: dict[str, tuple[str, ...]] = {
    "left": (
        "{a} to the left of {b}",
        "{b} to the right of {a}",
        "{a} on the left and {b} on the right",
        "{a} next to {b}",
        "{a} and {b}",
        "{a} left of {b}",
        "{b} beside {a}",
        "{a} and {b} side by side",
    ),
    "above": (
        "{a} above {b}",
        "{b} below {a}",
        "{a} on top and {b} at the bottom",
        "{a} over {b}",
        "{b} under {a}",
        "{a} and {b}",
        "{b} beneath {a}",
    ),
}


def pair(first: str, second: str, relation: str, style: str, choose: int) -> tuple[str, ...]:
    """Captions for two objects on one canvas. `first` and `second` are names without article, colours included."""
    templates = RELATIONS[relation]
    words = {"a": article(first), "b": article(second)}
    canonical = STYLE_PHRASES[style][0]
    said = [template.format(**words) for template in templates]
    rotating = [said[2 + (choose + shift) % (len(said) - 2)] for shift in range(3)]
    return tuple(
        dict.fromkeys(
            [
                f"{said[0]}, {canonical}",
                f"{said[1]}, {canonical}",
                f"{rotating[0]}, {canonical}",
                f"{rotating[1]}, {canonical}",
                said[choose % 2],
                rotating[2],
            ]
        )
    )
