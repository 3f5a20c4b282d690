"""The drawings of the artwork set: five SVG icon sets, and the emoji each drawing shows.

The icon sets come in the Iconify JSON format (`icons.json`: name -> SVG body, with default width and height); most
also carry `chars.json` (code points -> name). Names, keywords and groups come from `emojibase-data`.
A *concept* is one emoji without its skin tone; the same concept is drawn in up to five styles.
"""

import json
import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

logger = logging.getLogger(__name__)

#: style word -> npm package, in the order of the built set.
STYLES: dict[str, str] = {
    "3d": "@iconify-json/fluent-emoji",
    "flat": "@iconify-json/fluent-emoji-flat",
    "noto": "@iconify-json/noto",
    "twemoji": "@iconify-json/twemoji",
    "emojione": "@iconify-json/emojione",
}
NAMES_PACKAGE = "emojibase-data"

_TONES = {
    "1F3FB": "light",
    "1F3FC": "medium-light",
    "1F3FD": "medium",
    "1F3FE": "medium-dark",
    "1F3FF": "dark",
}
_NUMBERED_TONES: dict[str, str] = {
    f"tone{number}": tone for number, tone in enumerate(_TONES.values(), start=1)
}
_TONE_SLUG = re.compile(r"-(?:(?:medium-light|medium-dark|light|medium|dark)-skin-tone|tone[1-5])")
_SHORT_TONE_SLUG = re.compile(r"-(?:medium-light|medium-dark|light|medium|dark)$")


@dataclass(frozen=True, kw_only=True)
class Concept:
    """One emoji. id: its hexcode without skin tone; group and subgroup: Unicode's, as words of emojibase."""

    id: str
    label: str
    keywords: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    group: str = "other"
    subgroup: str = "other"

    @property
    def weight(self) -> float:
        """1 for everyday things, less for people's many variants, signs, letters and flags."""
        if self.group in ("flags", "component", "regional") or self.subgroup in ("keycap", "alphanum"):
            return 0.12
        if self.subgroup == "time" and ("o’clock" in self.label or "thirty" in self.label):
            return 0.12
        if self.subgroup in (
            "family",
            "person-symbol",
            "arrow",
            "av-symbol",
            "math",
            "gender",
            "punctuation",
        ):
            return 0.2
        if self.group == "symbols" and self.subgroup != "geometric":
            return 0.35
        if self.group == "people-body":
            return (
                0.4 if re.match(r"(wo)?m[ae]n\b", self.label) and self.label not in ("man", "woman") else 0.7
            )
        return 1.0


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """One SVG. tones: the skin tones it shows (words); width and height: of its own coordinate system."""

    style: str
    name: str
    concept: Concept
    tones: tuple[str, ...] = ()
    body: str = field(repr=False)
    width: float
    height: float

    @property
    def key(self) -> str:
        """Unique and stable: style and icon name."""
        return f"{self.style}/{self.name}"

    @property
    def weight(self) -> float:
        """How often training should see the drawing: its concept's weight, and little for each of the skin tones."""
        return 0.1 if self.tones else self.concept.weight


def _bare(hexcode: str) -> str:
    return "-".join(part for part in hexcode.upper().split("-") if part not in ("FE0F", "200D"))


def _without_tones(hexcode: str) -> str:
    return "-".join(part for part in hexcode.split("-") if part not in _TONES)


def _slug(label: str) -> str:
    text = label.lower().replace("’", "").replace("'", "").replace("“", "").replace("”", "")
    text = text.replace("ñ", "n").replace("é", "e").replace("ô", "o").replace("ã", "a").replace("å", "a")
    text = text.replace("ç", "c").replace("í", "i")
    return re.sub(r"[^a-z0-9]+", "-", text).strip("-")


def read_json(path: Path) -> dict | list:
    """A JSON file; OSError names the file when it is missing or broken."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise OSError(f"cannot read {path}: {error}") from error


class Concepts:
    """All emoji of emojibase, found by code points or by the slugs that icon sets use as names."""

    def __init__(self, records: list[dict], groups: dict, shortcodes: dict):
        self.by_hexcode: dict[str, tuple[Concept, tuple[str, ...]]] = {}
        self.by_slug: dict[str, tuple[Concept, tuple[str, ...]]] = {}
        for record in records:
            hexcode = _bare(record["hexcode"])
            group = groups["groups"].get(str(record.get("group")), "regional")
            subgroup = groups["subgroups"].get(str(record.get("subgroup")), "regional")
            codes = shortcodes.get(record["hexcode"], [])
            codes = [codes] if isinstance(codes, str) else codes
            concept = Concept(
                id=hexcode,
                label=record["label"],
                keywords=tuple(record.get("tags", ())),
                names=tuple(code.replace("_", " ") for code in codes),
                group=group,
                subgroup=subgroup,
            )
            self._add(hexcode, record["label"], concept, ())
            for skin in record.get("skins", ()):
                bare = _bare(skin["hexcode"])
                tones = tuple(_TONES[part] for part in bare.split("-") if part in _TONES)
                self._add(bare, skin["label"], concept, tones)

    def _add(self, hexcode: str, label: str, concept: Concept, tones: tuple[str, ...]) -> None:
        self.by_hexcode[hexcode] = (concept, tones)
        self.by_slug.setdefault(_slug(label), (concept, tones))

    def learn(self, hexcode: str, slug: str) -> None:
        """Remember that an icon set calls these code points `slug`, for the sets without code points."""
        if (known := self.by_hexcode.get(_bare(hexcode))) is not None:
            self.by_slug.setdefault(slug, known)

    def learn_alias(self, alias: str, parent: str) -> None:
        """Remember another spelling of a slug; icon sets keep their former names as aliases."""
        if (known := self.by_slug.get(parent)) is not None:
            self.by_slug.setdefault(alias, known)

    def find(self, slug: str, hexcode: str | None) -> tuple[Concept, tuple[str, ...]] | None:
        """The concept and skin tones of an icon, by code points where known, else by name."""
        if hexcode is not None and (known := self.by_hexcode.get(_bare(hexcode))) is not None:
            return known
        spellings = [
            slug,
            slug.replace("flag-for-", "flag-"),
            slug.replace("flag-for-", ""),
            slug.replace("letter-", "regional-indicator-"),
            slug.replace("digit-", "keycap-"),
            slug.removesuffix("-face"),
            slug.replace("-cat-face", "-cat"),
        ]
        for spelling in spellings:
            if (known := self.by_slug.get(spelling)) is not None:
                return known
        return None


def load_concepts(packages: Path) -> Concepts:
    """Read emojibase-data below `packages` (a node_modules folder)."""
    root = packages / NAMES_PACKAGE
    records, groups = read_json(root / "en" / "data.json"), read_json(root / "meta" / "groups.json")
    shortcodes = read_json(root / "en" / "shortcodes" / "github.json")
    if not (isinstance(records, list) and isinstance(groups, dict) and isinstance(shortcodes, dict)):
        raise OSError(
            f"{root} is not laid out as emojibase-data 17: reinstall it with `npm ci --prefix artwork`"
        )
    return Concepts(records, groups, shortcodes)


def missing_packages(packages: Path) -> list[str]:
    """The npm packages that are not installed below `packages`."""
    return [
        name for name in (*STYLES.values(), NAMES_PACKAGE) if not (packages / name / "package.json").is_file()
    ]


def versions(packages: Path) -> dict[str, str]:
    """Package name -> installed version, for the record beside a built set."""
    found = {}
    for name in (*STYLES.values(), NAMES_PACKAGE):
        manifest = read_json(packages / name / "package.json")
        found[name] = str(manifest["version"]) if isinstance(manifest, dict) else "unknown"
    return found


def load_drawings(packages: Path) -> list[Drawing]:
    """Every visible drawing of the five sets, in a fixed order, each with its concept.

    Icons that Iconify marks hidden (old duplicates) are left out. Drawings that match no emoji keep a concept of their
    own, named after the icon. Raises FileNotFoundError saying what to install when packages are missing.
    """
    if missing := missing_packages(packages):
        raise FileNotFoundError(
            f"{packages} lacks {', '.join(missing)}: run `npm ci --prefix artwork` in the project's folder, or give the"
            " folder that holds the packages with --packages DIR"
        )
    concepts = load_concepts(packages)
    characters: dict[str, dict[str, str]] = {}
    for style, package in STYLES.items():
        path = packages / package / "chars.json"
        codes = read_json(path) if path.is_file() else {}
        characters[style] = {slug: code for code, slug in codes.items()} if isinstance(codes, dict) else {}
        for slug, code in characters[style].items():
            concepts.learn(code, slug)
    sets: dict[str, dict] = {}
    for style, package in STYLES.items():
        icons = read_json(packages / package / "icons.json")
        if not isinstance(icons, dict) or "icons" not in icons:
            raise OSError(f"{packages / package / 'icons.json'} is not an Iconify icon set")
        sets[style] = icons
        aliases = icons.get("aliases", {})
        for alias in sorted(aliases):
            concepts.learn_alias(alias, str(aliases[alias].get("parent")))
    # Fluent Emoji has no code points of its own, but the icon names of Fluent Emoji Flat.
    characters["3d"] = characters["3d"] or characters["flat"]
    drawings: list[Drawing] = []
    for style, icons in sets.items():
        before, matched = len(drawings), 0
        for drawing, known in _read_icons(style, icons, characters[style], concepts):
            drawings.append(drawing)
            matched += known
        logger.info("%s: %d drawings, %d matched to an emoji", style, len(drawings) - before, matched)
    return drawings


def _split_tones(slug: str, *, short: bool, concepts: Concepts) -> tuple[str, tuple[str, ...]]:
    """('skier', ('medium',)) of 'skier-medium-skin-tone', or with short=True of 'skier-medium' where 'skier' exists."""
    found = _TONE_SLUG.findall(slug)
    if found:
        words = [part[1:].removesuffix("-skin-tone") for part in found]
        return _TONE_SLUG.sub("", slug), tuple(_NUMBERED_TONES.get(str(word), str(word)) for word in words)
    shorter = _SHORT_TONE_SLUG.sub("", slug)
    if short and shorter != slug and concepts.find(shorter, None) is not None:
        return shorter, (slug[len(shorter) + 1 :],)
    return slug, ()


def _read_icons(
    style: str, icons: dict, characters: dict[str, str], concepts: Concepts
) -> Iterable[tuple[Drawing, bool]]:
    for slug in sorted(icons["icons"]):
        icon = icons["icons"][slug]
        if icon.get("hidden"):
            continue
        known = concepts.find(slug, characters.get(slug))
        if known is None:
            stripped, tones = _split_tones(slug, short=style in ("3d", "flat"), concepts=concepts)
            base = concepts.find(stripped, None) if stripped != slug else None
            concept = base[0] if base else Concept(id=f"icon-{stripped}", label=stripped.replace("-", " "))
        else:
            concept, tones = known
        yield (
            Drawing(
                style=style,
                name=slug,
                concept=concept,
                tones=tones,
                body=icon["body"],
                width=float(icon.get("width", icons.get("width", 16))),
                height=float(icon.get("height", icons.get("height", 16))),
            ),
            known is not None,
        )
