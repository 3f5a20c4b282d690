"""Arguments of calls beside their requests: checked before anything is drawn, and nothing given is left out without a word."""

import logging
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

import unclip
from unclip.errors import RequestError
from unclip.generate.sequence import save_animation
from unclip.generate.stage_runner import StageRunner
from unclip.images import PictureError, open_picture
from unclip.stages.sampling import sampling
from unclip.tokenizers.clip import ClipTokenizer

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8))
VARY = unclip.Vary(seed=1)

CALLS = {
    "two boxes": (
        lambda model: model.edit(PICTURE, [0, 0, 8, 8], "a red apple", box=[0, 0, 4, 4]),
        "a box is given twice",
    ),
    "a path for a list": (
        lambda model: model.run(VARY, "fox.png"),
        "sources is a str: give a list of pictures",
    ),
    "a picture for a list": (lambda model: model.run(VARY, PICTURE), "sources is a Image: give a list"),
    "an array for a list": (
        lambda model: model.run(VARY, np.asarray(PICTURE)),
        "sources is a ndarray: give a list of pictures",
    ),
    "a path for a basis": (
        lambda model: model.components(PICTURE, [1], basis="fox.png"),
        "basis is a str: give a list of pictures",
    ),
    "a picture for a basis": (
        lambda model: model.components(PICTURE, [1], basis=PICTURE),
        "basis is a Image",
    ),
    "an array for a basis": (
        lambda model: model.components(PICTURE, [1], basis=np.zeros((2, 8, 8, 3), np.uint8)),
        "basis is a ndarray",
    ),
    "a number for a word": (
        lambda model: model.probe(PICTURE, 5, ["a", "b"]),
        "word: expected str, got 5",
    ),
    "a number for a function": (
        lambda model: model.generate("a red apple", on_progress=5),
        "on_progress is 5: give a function",
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_wrong_arguments_are_named(small, name):
    call, message = CALLS[name]
    with pytest.raises(RequestError, match=message):
        call(small)


def test_a_box_by_its_name_and_in_place_of_a_mask_are_the_same(small):
    pictures = [
        small.edit(PICTURE, [0, 0, 8, 8], "a red apple", seed=1),
        small.edit(PICTURE, None, "a red apple", box=[0, 0, 8, 8], seed=1),
    ]
    one, other = (np.asarray(made[0].image) for made in pictures)
    assert np.array_equal(one, other)


@pytest.mark.parametrize("value", ["120", 120.5, math.nan, None, True])
def test_milliseconds_are_a_whole_number(small, tmp_path, value):
    made = small.vary(PICTURE, seed=1)
    with pytest.raises(RequestError, match="milliseconds: expected int"):
        save_animation(made, tmp_path / "a.webp", milliseconds=value)
    save_animation(made, tmp_path / "a.webp", milliseconds=np.int64(120))


def test_captions_that_are_cut_are_warned_about(small, caplog):
    """Two that differ behind the context have one embedding."""
    long = "a red apple " * 8
    with caplog.at_level(logging.WARNING):
        small.nearest_captions(PICTURE, ["a red apple", long])
    (record,) = caplog.records
    assert "the model reads the first" in record.getMessage()


def test_every_tower_that_cuts_a_prompt_is_counted():
    """Kandinsky 2.1's own tower has another tokenizer than CLIP, and LAION's prior cuts what its CLIP has read."""
    words = ["a red apple and a blue cat"]
    read = {
        name: ClipTokenizer.train(words, vocabulary=540, context=context)
        for name, context in (("clip", 24), ("text", 6))
    }
    parts = SimpleNamespace(
        device=torch.device("cpu"),
        text_towers=("clip", "text"),
        names=("clip", "text", "prior"),
        tokenizer_of=read.__getitem__,
        config=lambda name: SimpleNamespace(context=8),
    )

    def runner_of(prior: str) -> StageRunner:
        runner = StageRunner.__new__(StageRunner)
        vars(runner).update(parts=parts, sampling=sampling(prior=prior))
        return runner

    runner = runner_of("diffusion")
    length = read["clip"].length(words[0])
    assert 8 < length <= 24
    found = runner.truncations(*words)
    assert [one.rpartition(" ")[2] for one in found] == ["4", "6"]
    assert runner.truncations("a cat") == []
    assert runner_of("none").truncations(*words) == found[:1]


def test_an_orientation_that_was_set_in_memory_is_applied():
    image = Image.fromarray(np.random.default_rng(1).integers(0, 255, (6, 4, 3), dtype=np.uint8))
    image.getexif()[0x0112] = 6
    assert np.array_equal(np.asarray(open_picture(image)), np.asarray(ImageOps.exif_transpose(image)))


def test_damage_is_described_without_objects_of_the_program():
    import io
    import struct
    import zlib

    def chunk(kind, body, crc=None):
        return (
            struct.pack(">I", len(body)) + kind + body + (crc or struct.pack(">I", zlib.crc32(kind + body)))
        )

    def png(colour, *chunks):
        head = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, colour, 0, 0, 0))
        rows = chunk(b"IDAT", zlib.compress(b"\0\1\2\3"[: 2 if colour == 3 else 4]))
        return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + rows + chunk(b"IEND", b"")

    assert open_picture(io.BytesIO(png(2))).size == (1, 1)
    broken = chunk(b"gAMA", struct.pack(">I", 45455), b"XXXX")
    with pytest.raises(PictureError, match=r"cannot be decoded \(its header or a chunk of it is broken\)"):
        open_picture(png(2, broken))
    with pytest.raises(PictureError, match=r"cannot be read: \w+"):
        open_picture(png(3))
