"""Building the artwork set from a small icon fixture: same bytes, strict splits, honest captions."""

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from unclip.data.dataset import open_dataset
from unclip.datasets.artwork import canvas, captions, drawings
from unclip.datasets.artwork.build import build
from unclip.datasets.artwork.canvas import Placement
from unclip.datasets.artwork.colours import map_colours, measure, recolouring
from unclip.datasets.artwork.plan import Layer, Plan, share

PACKAGES = Path(__file__).parent / "packages"
SMALL = {
    "packages": PACKAGES,
    "size": 48,
    "pairs": 100,
    "held_out_pairs": 0,
    "augmented": 12,
    "per_shard": 50,
}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build(tmp_path_factory.mktemp("artwork") / "set", workers=1, **SMALL)


@pytest.fixture(scope="module")
def records(built):
    """Split -> the JSON of its samples."""
    found = {}
    for split, count in built.counts.items():
        if count:
            data = open_dataset(built.folder, split=split)
            assert len(data) == count
            found[split] = [dict(data.info(index).meta) for index in range(count)]
    return found


def hashes(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def test_same_bytes_whatever_the_workers(built, tmp_path):
    again = build(tmp_path / "set", workers=2, **SMALL)
    assert hashes(again.folder) == hashes(built.folder)
    assert (again.counts, again.kinds) == (built.counts, built.kinds)


def test_counts(built, records):
    assert sum(built.counts.values()) == sum(built.kinds.values()) == sum(map(len, records.values()))
    assert built.drawings == built.kinds["plain"] == 35
    assert {"train", "heldout-style", "heldout-colour", "heldout-pair"} <= set(records)
    record = json.loads((built.folder / "artwork.json").read_text())
    assert record["counts"] == built.counts
    assert record["packages"]["@iconify-json/noto"] == "0.0.0-test"


def nouns(record):
    return frozenset(record["noun"].split(" + "))


def test_held_out_styles_are_not_in_train(records):
    units = {(r["concept"], r["style"]) for r in records["heldout-style"] + records.get("val", [])}
    assert units
    for record in records["train"] + records["heldout-pair"] + records["heldout-colour"]:
        assert not {(part, record["style"]) for part in record["concept"].split("+")} & units


def test_held_out_colours_are_not_in_train(records):
    held = {(r["noun"], r["colour"]) for r in records["heldout-colour"]}
    assert held
    for record in records["train"]:
        if record["kind"] == "pair":
            said = zip(record["noun"].split(" + "), record["colours"], strict=True)
        else:
            said = [(record["noun"], record["colour"])]
        assert not set(said) & held
    for noun, colour in held:
        text = f"{colour} {noun}"
        assert not any(text in caption for record in records["train"] for caption in record["captions"])


def test_held_out_pairs_are_not_in_train(records):
    held = {nouns(r) for r in records["heldout-pair"]}
    assert held
    assert not held & {nouns(r) for r in records["train"] if r["kind"] == "pair"}
    assert all(share("pair", *sorted(pair)) < 0.08 for pair in held)


def test_more_held_out_pairs_change_nothing_else(built, records, tmp_path):
    more = build(tmp_path / "set", workers=1, **{**SMALL, "held_out_pairs": 20})
    # 4 of each of the five styles, as far as the small fixture holds such pairs.
    assert more.counts.pop("heldout-pair") == built.counts["heldout-pair"] + 8
    assert more.counts.items() < built.counts.items()
    before, after = hashes(built.folder), hashes(more.folder)
    assert all(
        after[name] == before[name] for name in before if "pair" not in name and name != "artwork.json"
    )
    data = open_dataset(more.folder, split="heldout-pair")
    keys = {data.info(index).meta["key"] for index in range(len(data))}
    assert len(keys) == len(data)
    assert {record["key"] for record in records["heldout-pair"]} < keys


def test_metadata(records):
    for record in (r for rows in records.values() for r in rows):
        assert 0 < record["weight"] <= 1
        assert len(record["captions"]) >= 4
        assert len(record["augment"]) == 5
        assert any(record["augment"]) == (record["kind"] == "augmented")
        assert record["style"] in drawings.STYLES
        if record["kind"] == "recolour":
            assert all(record["colour"] in caption for caption in record["captions"])


def test_recoloured_pictures_show_their_colour(built):
    data = open_dataset(built.folder, split="train")
    checked = 0
    for index in range(len(data)):
        record = data.info(index).meta
        if record["kind"] != "recolour":
            continue
        pixels = data.picture(index, None).transpose(1, 2, 0)
        alpha = np.where((pixels > 250).all(axis=-1), 0, 255).astype(np.uint8)
        palette = measure(np.dstack([pixels, alpha]))
        assert palette is not None
        assert palette.name in (record["colour"], None), record["key"]
        checked += palette.name == record["colour"]
    assert checked > 40


def test_plain_pictures_are_the_drawings(built):
    """A drawing in the set equals a direct rasterisation of its SVG."""
    everything = {d.key: d for d in drawings.load_drawings(PACKAGES)}
    data = open_dataset(built.folder, split="train")
    index = next(i for i in range(len(data)) if data.info(i).meta["kind"] == "plain")
    drawing = everything[data.info(index).meta["key"].removesuffix("/plain")]
    svg = canvas.document([(drawing, drawing.body, Placement())])
    direct = np.asarray(canvas.rasterise(svg, 48)).transpose(2, 0, 1)
    np.testing.assert_array_equal(data.picture(index, None), direct)


def test_relations_are_where_captions_say():
    """'a left of b': the coloured masses really lie so."""
    everything = {d.key: d for d in drawings.load_drawings(PACKAGES)}
    star, apple = everything["flat/star"], everything["flat/red-apple"]
    layers = [
        (star, star.body, Placement(x=0.25, side=0.45)),
        (apple, apple.body, Placement(x=0.75, side=0.45)),
    ]
    pixels = np.asarray(canvas.rasterise(canvas.document(layers), 64)).astype(int)
    yellow = np.nonzero((pixels[..., 0] > 200) & (pixels[..., 1] > 150) & (pixels[..., 2] < 100))[1]
    red = np.nonzero((pixels[..., 0] > 150) & (pixels[..., 1] < 80))[1]
    assert yellow.max() < 32 < red.min()


def test_two_drawings_keep_their_own_gradients():
    """Both fixtures' 3d drawings use the id 'a' for their gradient."""
    everything = {d.key: d for d in drawings.load_drawings(PACKAGES)}
    tree, star = everything["3d/evergreen-tree"], everything["3d/star"]
    layers = [
        (tree, tree.body, Placement(x=0.25, side=0.45)),
        (star, star.body, Placement(x=0.75, side=0.45)),
    ]
    pixels = np.asarray(canvas.rasterise(canvas.document(layers), 64))
    green, yellow = pixels[36, 16], pixels[32, 48]
    assert green[1] > green[0]
    assert yellow[0] > 200
    assert yellow[2] < 100


def test_matching():
    found = drawings.load_drawings(PACKAGES)
    by_key = {d.key: d for d in found}
    assert "noto/old-star" not in by_key
    hand = by_key["3d/waving-hand-medium"]
    assert (hand.concept.label, hand.tones, hand.weight) == ("waving hand", ("medium",), 0.1)
    assert by_key["noto/waving-hand-medium-skin-tone"].concept.id == hand.concept.id
    # EmojiOne has no code points; this name is an alias in another set.
    assert by_key["emojione/glittering-star"].concept.label == "star"
    assert by_key["emojione/mystery-thing"].concept.label == "mystery thing"
    assert by_key["noto/flag-france"].weight < 0.2
    assert captions.noun_of(by_key["noto/automobile"].concept) == "car"


def test_people_flags_and_tones_are_not_recoloured():
    found = drawings.load_drawings(PACKAGES)
    palettes = {d.key: measure(canvas.pixels(canvas.document([(d, d.body, Placement())]), 64)) for d in found}
    plan = Plan(found, {key: palette for key, palette in palettes.items() if palette is not None})
    for drawing in found:
        if drawing.concept.group in ("people-body", "flags") or drawing.tones:
            assert plan.colours_to_try(drawing, 4) == []
    assert any(plan.colours_to_try(drawing, 4) for drawing in found)
    assert not plan.recolours({}, 4)


def test_a_concept_and_its_skin_tones_share_a_split():
    """Else a held-out person would be in train with another skin."""
    found = drawings.load_drawings(PACKAGES)
    hands = [d for d in found if d.concept.group == "people-body"]
    shades = {"light", "medium", "dark"}
    plain = {d.style: d for d in hands if not d.tones}
    drawn = [
        dataclasses.replace(d, name=f"{label}-{tone}", tones=(tone,) if tone else (), concept=dataclasses.replace(
            d.concept, id=f"X{number}", label=label))
        for d in plain.values() for tone in ("", *shades) for number, label in enumerate(
            ["waving hand", "man waving", "woman waving", *(f"person {i}" for i in range(40))])
    ]  # fmt: skip
    palette = measure(canvas.pixels(canvas.document([(hands[0], hands[0].body, Placement())]), 64))
    assert palette is not None
    plan = Plan(drawn, {d.key: palette for d in drawn})
    splits = {}
    for drawing in drawn:
        splits.setdefault((drawing.concept.id, drawing.style), set()).add(plan.unit_split(drawing))
    assert all(len(found) == 1 for found in splits.values())
    assert {"train", "heldout-style", "val"} == {split for found in splits.values() for split in found}


def test_augmentation_numbers_describe_the_placement():
    place = Placement(x=0.6, y=0.45, side=0.5, degrees=90.0, mirrored=True)
    assert place.augmentation == [-1.0, 1.5708, 0.1, -0.05, 1.0]
    assert Placement().augmentation == [0.0] * 5
    everything = {d.key: d for d in drawings.load_drawings(PACKAGES)}
    star = everything["flat/star"]
    small = measure(
        canvas.pixels(canvas.document([(star, star.body, Placement(x=0.3, y=0.7, side=0.5))]), 64)
    )
    assert small is not None
    left, top, right, bottom = small.box
    assert (left + right) / 2 == pytest.approx(0.3, abs=0.03)
    assert 0.4 < top < bottom < 1


def test_limit_keeps_whole_concepts(tmp_path):
    built = build(tmp_path / "set", workers=1, limit=12, **SMALL)
    assert built.drawings == 12
    data = open_dataset(built.folder)
    assert 0 < len(data) < 120


def test_the_lock_file_pins_every_package_and_no_address():
    lock = json.loads((Path(__file__).parents[3] / "artwork" / "package-lock.json").read_text())
    packages = {name.removeprefix("node_modules/"): one for name, one in lock["packages"].items() if name}
    assert set(drawings.versions(PACKAGES)) <= set(packages)
    assert all(one["version"] and one["integrity"].startswith("sha512-") for one in packages.values())
    assert not any("resolved" in one for one in packages.values())


def test_refusals(built, tmp_path):
    with pytest.raises(FileNotFoundError, match="npm ci --prefix artwork"):
        build(tmp_path / "new", packages=tmp_path)
    assert not (tmp_path / "new").exists()
    with pytest.raises(FileExistsError, match="holds shards already"):
        build(built.folder, workers=1, **SMALL)


def test_layers_default_to_the_drawing_as_it_is():
    drawing = drawings.load_drawings(PACKAGES)[0]
    layer = Layer(drawing=drawing)
    assert layer.place == Placement()
    palette = measure(canvas.pixels(canvas.document([(drawing, drawing.body, layer.place)]), 64))
    assert palette is not None
    assert map_colours(drawing.body, recolouring(palette, "black")) != drawing.body


def test_measured_colours_are_kept_for_the_next_build(built, tmp_path):
    first = build(tmp_path / "first", workers=1, measured=tmp_path / "measured.json", **SMALL)
    second = build(tmp_path / "second", workers=1, measured=tmp_path / "measured.json", **SMALL)
    assert hashes(first.folder) == hashes(second.folder) == hashes(built.folder)
    assert second.dropped == first.dropped == built.dropped


def test_free_wordings_come_beside_the_captions(built, records, tmp_path):
    more = build(tmp_path / "more", workers=1, wordings=4, **SMALL)
    assert more.counts == built.counts
    data = open_dataset(more.folder, split="train")
    for index, record in enumerate(records["train"]):
        captions_ = list(data.info(index).captions)
        assert captions_[: len(record["captions"])] == record["captions"]
        added = captions_[len(record["captions"]) :]
        assert len(captions_) == len(set(captions_))
        assert len(added) <= 4
        if record["kind"] == "pair":
            first = record["captions"][0].partition(" to the left of ")[0].partition(" above ")[0]
            assert all(first in caption for caption in added)
        elif record["recoloured"]:
            assert all(record["colour"] in caption for caption in added)


def test_light_drawings_can_be_left_out(tmp_path):
    few = build(tmp_path / "few", workers=1, lightest=0.5, **{**SMALL, "pairs": 0, "augmented": 0})
    data = open_dataset(few.folder, split="train")
    assert few.kinds["plain"] < 35
    assert all(data.info(index).weight >= 0.5 for index in range(len(data)))
