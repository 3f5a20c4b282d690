"""Kept pixels stay exact as they look: alpha and colour profiles survive edits, outpainting and enlargement."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from unclip.generate.sources import read_source
from unclip.images import flatten, open_picture

FAULTS = Path(__file__).parents[1] / "images" / "faults"
BOX = (8, 8, 24, 28)


@pytest.fixture(scope="module")
def colours() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (32, 40, 3), dtype=np.uint8)


def soft(colours: np.ndarray) -> np.ndarray:
    """The colours with an alpha that falls from 255 at the left to 0 at the right, in all steps."""
    alpha = np.linspace(255, 0, colours.shape[1]).round().astype(np.uint8)
    return np.dstack([colours, np.broadcast_to(alpha, colours.shape[:2])])


def inside(shape: tuple[int, ...], box: tuple[int, int, int, int] = BOX) -> np.ndarray:
    hole = np.zeros(shape[:2], dtype=bool)
    hole[box[1] : box[3], box[0] : box[2]] = True
    return hole


def mask_of(hole: np.ndarray) -> Image.Image:
    return Image.fromarray(hole.astype(np.uint8) * np.uint8(255))


@pytest.mark.parametrize("how", ["box", "mask", "own"])
def test_an_edit_keeps_the_alpha_of_kept_pixels_to_the_bit(small, colours, how):
    pixels = soft(colours)
    hole = pixels[..., 3] == 0 if how == "own" else inside(pixels.shape)
    given = {"box": BOX, "mask": mask_of(hole), "own": None}[how]
    made = small.edit(Image.fromarray(pixels), given, "a red apple", seed=1)[0]
    after = np.asarray(made.image)
    assert made.image.mode == "RGBA"
    assert np.array_equal(after[~hole], pixels[~hole])
    assert (after[hole][:, 3] == 255).all()
    assert (after[hole][:, :3] != pixels[hole][:, :3]).any(axis=-1).mean() > 0.9
    again = small.redo(made.provenance, pixels, *([given] if how == "mask" else []))
    assert np.array_equal(np.asarray(again.image), after)
    # What a soft eraser thinned is kept unless a mask says otherwise, and the picture says so.
    assert any("partly transparent" in warning for warning in made.warnings) == (how == "own")


def test_drawn_pixels_are_those_of_the_picture_on_white(small, colours):
    """The model sees what a viewer sees: the alpha changes what is kept, not what is drawn."""
    image = Image.fromarray(soft(colours))
    clear, plain = (small.edit(one, BOX, "a blue cat", seed=2)[0].image for one in (image, flatten(image)))
    hole = inside(colours.shape)
    assert np.array_equal(np.asarray(clear)[hole][:, :3], np.asarray(plain)[hole])


def test_an_edit_of_an_opaque_picture_stays_rgb(small, colours):
    opaque = Image.fromarray(colours)
    alone = small.edit(opaque, BOX, "a blue cat", seed=2)[0].image
    with_alpha = small.edit(opaque.convert("RGBA"), BOX, "a blue cat", seed=2)[0].image
    assert (alone.mode, with_alpha.mode) == ("RGB", "RGB")
    assert alone.tobytes() == with_alpha.tobytes()
    hole = inside(colours.shape)
    assert np.array_equal(np.asarray(alone)[~hole], colours[~hole])
    erased = opaque.convert("RGBA")
    erased.putalpha(mask_of(~hole))
    # A hard eraser leaves nothing transparent behind.
    assert small.edit(erased, None, "a blue cat", seed=2)[0].image.mode == "RGB"


def test_outpainting_keeps_alpha_to_the_bit(small, colours):
    pixels = soft(colours)
    made = small.outpaint(pixels, left=8, bottom=6, seed=1)
    after = np.asarray(made.image)
    assert (made.image.mode, made.image.size) == ("RGBA", (48, 38))
    assert np.array_equal(after[:32, 8:], pixels)
    assert (after[:, :8, 3] == 255).all()
    assert (after[32:, :, 3] == 255).all()
    assert small.outpaint(colours, left=8, seed=1).image.mode == "RGB"
    assert np.array_equal(np.asarray(small.redo(made.provenance, pixels).image), after)


def test_enlarging_keeps_alpha(small, colours):
    pixels = soft(colours)
    made = small.upscale(pixels, seed=1).image
    expected = Image.fromarray(pixels[..., 3]).resize((80, 64), Image.Resampling.BICUBIC)
    assert (made.mode, made.size) == ("RGBA", (80, 64))
    assert np.array_equal(np.asarray(made)[..., 3], np.asarray(expected))
    even = np.dstack([colours, np.full(colours.shape[:2], 77, np.uint8)])
    assert np.unique(np.asarray(small.upscale(even, seed=1).image)[..., 3]).tolist() == [77]
    # Colours are enlarged as they are, not as they show on white.
    opaque = small.upscale(colours, seed=1).image
    assert opaque.mode == "RGB"
    assert np.array_equal(np.asarray(small.upscale(even, seed=1).image)[..., :3], np.asarray(opaque))


def test_enlarging_a_cut_out_shape_leaves_no_seam():
    """Colours go on under what is clear: beside a green shape there is green, not white."""
    from unclip.stages.transparency import colours as colours_of

    image = Image.new("RGBA", (32, 32), (255, 0, 255, 0))
    image.paste((0, 128, 0, 255), (8, 8, 24, 24))
    filled = colours_of(image)
    assert ((filled[:, 4:28, 4:28] + 1) * 127.5 - 128).abs()[1].max() < 8
    assert filled[0].max() < -0.9


def test_colours_of_a_profile_look_the_same_in_kept_pixels(small):
    with Image.open(FAULTS / "wide_gamut.png") as image:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
        shown = np.asarray(
            ImageCms.profileToProfile(
                image.convert("RGB"),
                profile,
                ImageCms.createProfile("sRGB"),
                renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
                flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
            )
        )
    box = (50, 50, 70, 80)
    hole = inside(shown.shape, box)
    made = small.edit(FAULTS / "wide_gamut.png", box, "a blue cat", seed=1)[0]
    assert np.array_equal(np.asarray(made.image)[~hole], shown[~hole])
    wider = small.outpaint(FAULTS / "wide_gamut.png", right=16, seed=1)
    assert np.array_equal(np.asarray(wider.image)[:, :128], shown)
    # The result holds sRGB and says nothing else.
    assert np.array_equal(np.asarray(open_picture(wider.png())), np.asarray(wider.image))


def test_the_file_that_showed_the_fault(small):
    source = read_source(FAULTS / "soft_alpha.png").image
    before = np.asarray(source)
    made = small.edit(FAULTS / "soft_alpha.png", None, "a blue sky", seed=1)[0].image
    kept = before[..., 3] > 0
    assert made.mode == "RGBA"
    assert np.array_equal(np.asarray(made)[kept], before[kept])
