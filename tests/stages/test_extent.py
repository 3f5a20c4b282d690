"""Sizes of pictures that models of any shape draw."""

import pytest

from unclip.errors import RequestError
from unclip.serve.openai.backend import Served
from unclip.serve.openai.options import Options
from unclip.serve.openai.sizes import Output, read_output
from unclip.serve.reuse import commands
from unclip.stages.extent import MAX_SIDE, Extent, check_size, drawn_at, read_size, rounded, whole


@pytest.mark.parametrize(
    ("window", "drawn"),
    [
        ((512, 512), (512, 512)),
        ((512, 768), (512, 768)),
        ((500, 750), (448, 680)),  # no multiples of 8: about as many pixels as the model was made for
        ((96, 96), (512, 512)),
        ((3000, 1000), (904, 296)),
        ((1, 4000), (8, MAX_SIDE)),
    ],
)
def test_windows_are_drawn_near_the_size_that_the_model_was_made_for(window, drawn):
    found = drawn_at(Extent(*window), 8, 512**2)
    assert all(side % 8 == 0 for side in found)
    if window == (500, 750):
        assert 0.95 < found.area / 512**2 < 1.05
        assert found.width / found.height == pytest.approx(1.5, rel=0.02)
    elif window == (3000, 1000):
        assert found.area == pytest.approx(512**2, rel=0.05)
        assert found.height / found.width == pytest.approx(3, rel=0.03)
    else:
        assert found == Extent(*drawn)


def test_the_window_of_a_whole_picture_reaches_to_the_next_multiples():
    assert whole(Extent(500, 750), 8, 512**2) == Extent(504, 752)
    assert whole(Extent(500, 750), 64, 512**2) == Extent(512, 768)
    assert whole(Extent(50, 70), 64, 512**2) == Extent(50, 70)
    assert whole(Extent(5000, 700), 8, 512**2) == Extent(5000, 700)


def test_nearest_multiples():
    assert rounded(Extent(3, 100), 64) == Extent(64, 128)
    assert rounded(Extent(95, 97), 64) == Extent(64, 128)
    assert rounded(Extent(9999, 10), 48) == Extent(4080, 48)


@pytest.mark.parametrize(
    ("text", "size"), [("64", 64), ("768x512", (512, 768)), ("64x64", 64), ("64X32", (32, 64))]
)
def test_sizes_of_the_command_line(text, size):
    assert read_size(text) == size


@pytest.mark.parametrize("text", ["", "x", "64x", "x64", "64x64x64", "a", "64*64"])
def test_texts_that_are_no_size(text):
    with pytest.raises(ValueError, match="invalid literal"):
        read_size(text)


def test_squares_alone():
    options = {"name": "tiny", "step": None, "sizes": [16, 32]}
    assert check_size((32, 32), **options) == 32
    with pytest.raises(
        RequestError, match="makes square pictures of 16, 32 pixels, not 48x32: 32 is the nearest"
    ):
        check_size((32, 48), **options)
    with pytest.raises(RequestError, match="makes pictures of 16, 32 pixels, not 20: 16 is the nearest"):
        check_size(20, **options)


def test_the_compatible_api_draws_any_shape_near_what_the_model_was_made_for():
    any_shape = Served(name="sd", sizes=(512,), default_size=512, step=8)
    squares = Served(name="tiny", sizes=(64, 256), default_size=256)
    found = read_output("1536x1024", any_shape, Options(), any_shape=True)
    assert found.size == (1536, 1024)
    assert isinstance(found.drawn, tuple)
    assert found.drawn[1] / found.drawn[0] == pytest.approx(1.5, rel=0.03)
    assert read_output("768x512", any_shape, Options(), any_shape=True) == Output((768, 512), (512, 768))
    assert read_output("1024x1024", any_shape, Options(), any_shape=True) == Output((1024, 1024), 512)
    refused = [
        ("768x512", squares, Options(), True),
        ("768x512", any_shape, Options(), False),
        ("768x512", any_shape, Options(strict=True), True),
        ("99999x8", any_shape, Options(), True),
        ("0x8", any_shape, Options(), True),
        ("٣x٣", any_shape, Options(), True),
    ]
    for text, model, options, shape in refused:
        with pytest.raises(Exception, match="The size is not supported by this model"):
            read_output(text, model, options, any_shape=shape)


def test_recorded_sizes_are_shown_in_the_forms_that_people_run():
    found = commands({"kind": "generate", "prompt": "x", "size": [512, 768]}, "sd", "http://127.0.0.1")
    assert "--size 768x512" in found["cli"]
    assert "size=[512, 768]" in found["python"]
