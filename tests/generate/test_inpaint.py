"""Edits and outpainting: kept pixels exact, no seam, the prompt followed, every kind of mask, every bad one refused."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from unclip.errors import RequestError
from unclip.generate.image import Image as Result
from unclip.generate.model import Model
from unclip.generate.session import Session
from unclip.images import PictureError, to_tensor
from unclip.stages.conditioner import Condition
from unclip.stages.extent import Extent
from unclip.stages.inpainting import InpaintingReference, match_border, membrane
from unclip.stages.sampling import sampling
from unclip.stages.windows import Window, mirrored, plan_tiles, read_mask, window_of

PROMPT = "a red apple"
BOX = (10, 14, 26, 30)


def same(a: Result, b: Result) -> bool:
    return a.image.tobytes() == b.image.tobytes()


def mask_of(size: tuple[int, int], box: tuple[int, int, int, int]) -> Image.Image:
    mask = Image.new("L", size)
    mask.paste(255, box)
    return mask


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    """A wide picture in which no two pixels are the same."""
    y, x = np.mgrid[0:40, 0:56]
    return Image.fromarray(np.stack([x * 4, y * 6, (x * 7 + y * 13) % 256], axis=-1).astype(np.uint8))


@pytest.fixture(scope="module", params=[True, False], ids=["hint", "repaint"])
def painter(request, make_painter) -> Model:
    """A model whose decoder reads a hint, and one whose decoder does not."""
    return make_painter(request.param)


def test_kept_pixels_are_kept_to_the_bit(painter, photo):
    made = painter.edit(photo, BOX, PROMPT, n=2, seed=5)
    hole = np.asarray(mask_of(photo.size, BOX)) > 0
    for picture in made:
        assert picture.image.size == photo.size
        before, after = np.asarray(photo), np.asarray(picture.image)
        assert (before[~hole] == after[~hole]).all()
        assert (before[hole] != after[hole]).any(axis=-1).mean() > 0.9
    assert not same(*made)
    assert same(painter.edit(photo, BOX, PROMPT, seed=made[1].seed)[0], made[1])


def test_nothing_of_the_hole_shines_through(painter, photo):
    other = photo.copy()
    other.paste("magenta", BOX)
    assert same(*(painter.edit(one, BOX, PROMPT, seed=5)[0] for one in (photo, other)))


def test_every_form_of_a_mask_is_the_same_hole(painter, photo):
    see_through = photo.convert("RGBA")
    see_through.putalpha(mask_of(photo.size, BOX).point(lambda value: 255 - value))
    white = mask_of(photo.size, BOX)
    buffer = io.BytesIO()
    white.save(buffer, "PNG")
    clear = Image.new("RGBA", photo.size)
    clear.putalpha(white.point(lambda value: 255 - value))
    expected = painter.edit(photo, BOX, PROMPT, seed=5)[0]
    for picture, mask in ((photo, white), (photo, buffer.getvalue()), (photo, clear), (see_through, None)):
        made = painter.edit(picture, mask, PROMPT, seed=5)[0]
        assert same(made, expected)
        again = painter.redo(made.provenance, *([picture] if mask is None else [picture, mask]))
        assert same(again, made)
        assert again.provenance == made.provenance
    assert same(painter.redo(expected.provenance, photo), expected)


def test_the_decoder_reads_what_is_known_and_what_is_wanted(tiny, make_painter, photo):
    model, hints = make_painter(True), []
    decoder = tiny.networks(model)["decoder"]
    decoder.register_forward_pre_hook(lambda module, given: hints.append(given[2].hint))
    square = photo.crop((0, 0, 32, 32))
    first = model.edit(square, (8, 8, 24, 32), PROMPT, seed=5)[0]
    expected = torch.ones(16, 16)
    expected[4:16, 4:12] = 0
    for hint in hints:
        assert (hint[:, 3] == expected).all()
        assert (hint[:, :3] * (1 - hint[:, 3:]) == 0).all()
        assert hint[:, :3].abs().sum() > 0
    assert not same(model.edit(square, (8, 8, 24, 32), "a blue cat", seed=5)[0], first)
    led = [
        model.edit(square, BOX, PROMPT, seed=5, prior_guidance=3.0, negative=no)[0]
        for no in (None, "flat style")
    ]
    assert not same(*led)


def test_border_is_matched_inside_only():
    kept = torch.linspace(-0.5, 0.5, 64).expand(1, 3, 64, 64).clone()
    mask = torch.ones(1, 1, 64, 64)
    mask[..., 16:64, 16:64] = 0
    drawn = torch.where(mask > 0, kept, kept + 0.4)
    matched = match_border(drawn, InpaintingReference(kept, mask), reach=3)
    assert (matched - kept)[..., 40, 16].abs().max() < 0.15
    torch.testing.assert_close(matched[..., 50:, 50:], drawn[..., 50:, 50:], rtol=0, atol=1e-3)
    assert torch.equal(matched * mask, drawn * mask)
    # Without a reach all of the hole is brought to what lies around, and nothing is left of the difference.
    matched = match_border(drawn, InpaintingReference(kept, mask))
    torch.testing.assert_close(matched, kept, rtol=0, atol=0.05)
    assert torch.equal(match_border(drawn, InpaintingReference(kept, torch.zeros_like(mask)), reach=4), drawn)


def test_matching_does_not_cross_an_edge():
    """A thing on white goes on in the hole in another colour: it is brought to its own, and the white stays white."""
    kept = torch.ones(1, 3, 64, 64)
    kept[..., 20:44] = 0.2
    mask = torch.ones(1, 1, 64, 64)
    mask[..., :32, :] = 0
    drawn = kept.clone()
    drawn[..., :32, 20:44] = -0.3
    matched = match_border(drawn, InpaintingReference(kept, mask), reach=8)
    white = torch.ones(64, dtype=torch.bool)
    white[17:47] = False  # the border is a mean of 3 x 3 pixels
    assert (matched - 1)[..., :32, white].abs().max() < 0.01
    assert (matched - kept)[..., 31, 22:42].abs().max() < 0.1
    assert (matched - drawn)[..., 31, 22:42].min() > 0.4


def test_a_membrane_is_harmonic_and_keeps_what_is_fixed():
    """Between two walls it is the straight line; on every free pixel the mean of the neighbours."""
    values, fixed = torch.zeros(1, 1, 33, 65), torch.zeros(1, 1, 33, 65)
    fixed[..., 0], fixed[..., -1] = 1, 1
    values[..., 0], values[..., -1] = -1, 3
    surface = membrane(values, fixed)
    torch.testing.assert_close(surface, torch.linspace(-1, 3, 65).expand(1, 1, 33, 65), rtol=0, atol=0.08)
    falling = membrane(values, fixed, reach=4.0)[0, 0, 16]
    torch.testing.assert_close(falling[:12], -torch.exp(-torch.arange(12) / 4), rtol=0, atol=0.06)


@pytest.mark.parametrize("size", [7, 16, 40, 100])
def test_what_is_known_is_known_at_every_size(size):
    """A ramp whose hole holds something else: what is known of it is the ramp, and as much as can be is known."""
    ramp = torch.linspace(-0.5, 0.5, 40).expand(1, 3, 40, 40)
    mask = torch.ones(1, 1, 40, 40)
    mask[..., 10:30, 10:30] = 0
    known = InpaintingReference(torch.where(mask > 0, ramp, 1.0), mask).at(Extent(size, size))
    assert known.pixels.shape == (1, 3, size, size)
    place = (torch.arange(size) + 0.5) * 40 / size - 0.5
    expected = place.clamp(0, 39) / 39 - 0.5
    wrong = (known.pixels - expected).abs() * known.mask
    assert wrong.max() < 0.05
    hole = 1 - known.mask.mean()
    assert 0.25 <= hole <= ((size / 2 + 2) / size) ** 2


@pytest.mark.parametrize("inpainting", [True, False])
def test_the_upsampler_goes_on_from_the_kept_pixels(tiny, make_painter, photo, inpainting):
    """Its states hold them, but for the last step, whose estimate shows how far off it is."""
    model, states = make_painter(inpainting), []
    square = photo.crop((0, 0, 32, 32))
    upsampler = tiny.networks(model)["upsampler"]
    hook = upsampler.net.register_forward_pre_hook(lambda module, given: states.append(given))
    model.edit(square, (8, 8, 24, 32), PROMPT, seed=5, upsampler_steps=6)
    hook.remove()
    assert len(states) == 6
    kept = torch.ones(32, 32, dtype=torch.bool)
    kept[8:32, 8:24] = False
    x, label = states[-1][0][:, :3], states[-1][1] / 1000
    sigma = label / (1 - label)
    residue = (x[0] * (1 + sigma**2).sqrt() - to_tensor(square))[:, kept]
    assert residue.std().item() == pytest.approx(sigma.item(), rel=0.1)


def test_the_window_holds_the_hole():
    hole = torch.zeros(40, 100, dtype=torch.bool)
    hole[10:20, 60:90] = True
    assert window_of(hole) == Window.square(55, 0, 40)
    hole[:, 95:] = True
    assert window_of(hole) == Window.square(60, 0, 40)
    hole[0, 0] = True
    assert window_of(hole) == Window.square(0, -30, 100)


def test_hole_longer_than_the_picture_is_high(painter, photo):
    box = (2, 10, 54, 20)
    made = painter.edit(photo, box, PROMPT, seed=5)[0]
    hole = np.asarray(mask_of(photo.size, box)) > 0
    assert (np.asarray(photo)[~hole] == np.asarray(made.image)[~hole]).all()


def test_edited_pictures_are_marked_as_composites(painter, photo, tmp_path):
    made = painter.edit(photo, BOX, PROMPT, seed=5)[0]
    assert b"compositeWithTrainedAlgorithmicMedia" in made.png()
    assert "Size: 56x40" in made.parameters
    assert Result.open(made.save(tmp_path / "a.png")).provenance == made.provenance


@pytest.mark.parametrize(
    ("mask", "told"),
    [
        (None, "no transparent pixels"),
        (Image.new("L", (56, 40)), "the mask is empty: make the pixels to draw white, or transparent"),
        (Image.new("RGBA", (56, 40), (0, 0, 0, 255)), "the mask is empty"),
        (Image.new("L", (40, 56), 255), "mask is 40x56 and the picture 56x40"),
        ((0, 0, 57, 40), "does not lie in the picture"),
        ((9, 9, 9, 20), "does not lie in the picture"),
    ],
)
def test_bad_masks_are_refused(photo, mask, told):
    box = mask if isinstance(mask, tuple) else None
    with pytest.raises(RequestError, match=told):
        read_mask(photo, None if box else mask, box)


def test_bad_edits_are_refused(tiny_model, photo):
    with pytest.raises(RequestError, match="prompt is empty"):
        tiny_model.edit(photo, BOX, " ")
    with pytest.raises(PictureError, match="not a PNG"):
        tiny_model.edit(b"no picture", BOX, PROMPT)
    with pytest.raises(PictureError, match="not a PNG"):
        tiny_model.edit(photo, b"no picture", PROMPT)
    with pytest.raises(RequestError, match="the mask is 56x40 and the picture 40x56"):
        tiny_model.edit(photo.rotate(90, expand=True), photo, PROMPT)
    with pytest.raises(RequestError, match="give a mask or a box, not both"):
        tiny_model.edit(photo, photo, PROMPT, box=BOX)


@pytest.mark.parametrize("prompt", [PROMPT, None])
def test_outpainting_keeps_the_picture_and_adds_sides(painter, photo, prompt):
    sides = {"left": 5, "right": 50, "bottom": 24}
    made = painter.outpaint(photo, prompt, seed=5, steps=1, **sides)
    assert made.image.size == (56 + 55, 40 + 24)
    assert made.image.crop((5, 0, 61, 40)).tobytes() == photo.tobytes()
    assert len(made.image.crop((61, 0, 111, 40)).getcolors(10_000) or []) > 100
    again = painter.redo(made.provenance, photo)
    assert same(again, made)
    assert again.provenance == made.provenance


def test_a_caption_is_drafted_as_a_whole_and_each_square_has_its_part(tiny, make_painter, photo, monkeypatch):
    model, told = make_painter(True), []
    decoder = tiny.networks(model)["decoder"]
    encode = decoder.encode
    monkeypatch.setattr(decoder, "encode", lambda condition: told.append(condition) or encode(condition))
    square = photo.crop((0, 0, 40, 40))
    made = model.outpaint(square, PROMPT, right=40, seed=5)
    whole, *tiles = [condition for condition in told if condition.keep_image.all()]
    assert whole.keep_caption.all()
    assert torch.equal(whole.image_embedding[0], made.embedding)
    # All of the picture is in the left half of the square around the result, at half of its height.
    expected = torch.zeros(16, 16)
    expected[4:12, 0:8] = 1
    assert torch.equal(whole.hint[0, 3], expected)
    assert len(tiles) == 2
    assert not any(tile.keep_caption.any() for tile in tiles)
    assert not torch.equal(tiles[0].image_embedding, tiles[1].image_embedding)
    assert not same(made, model.outpaint(square, "a blue cat", right=40, seed=5))


def test_without_a_caption_the_draft_shows_what_the_mirrored_picture_means(painter, photo):
    square = photo.crop((0, 0, 40, 40))
    made = painter.outpaint(square, right=40, seed=5)
    wide = Image.new("RGB", (80, 40))
    wide.paste(square, (0, 0))
    wide.paste(square.transpose(Image.Transpose.FLIP_LEFT_RIGHT), (40, 0))
    # The result lies in the middle of the square around it: 20 rows above and below are like its own border.
    whole = Image.new("RGB", (80, 80))
    for top in [*range(20), *range(60, 80)]:
        row = min(max(top - 20, 0), 39)
        whole.paste(wide.crop((0, row, 80, row + 1)), (0, top))
    whole.paste(wide, (0, 20))
    torch.testing.assert_close(made.embedding, painter.embed_image(whole)[0])


def test_mirrored_as_often_as_it_takes():
    row = torch.arange(3.0).expand(3, 2, 3)
    found = mirrored(row, Window.square(-1, 0, 12), left=4, top=0, right=3, bottom=0)
    assert found[0, 0].tolist() == [2, 2, 2, 1, 0, 0, 1, 2, 2, 1, 0, 0]
    assert found[0, -1].tolist() == found[0, 0].tolist()


def test_squares_are_drawn_over_their_draft(make_painter, photo):
    """From its draft a square comes out nearer to it than from noise alone."""
    model = make_painter(True)
    square, draft = to_tensor(photo.crop((0, 0, 32, 32))), -torch.ones(3, 32, 32)
    draft[:, :, :16] = 1
    hole = torch.ones(32, 32, dtype=torch.bool)
    condition = Condition(z_i=model.embed_image(photo))
    settings = sampling(steps=10, guidance=1.0).over(model.defaults)
    session = Session(model.parts, settings, seed=0)

    def away(begun: torch.Tensor | None) -> float:
        made = [
            session.fill(
                square, hole, Window.square(0, 0, 32), condition, seed, extent=Extent(16, 16), draft=begun
            )
            for seed in range(8)
        ]
        return float(np.mean([(one - draft).square().mean().item() for one in made]))

    assert away(draft) < 0.9 * away(None)


def test_tiles_cover_the_hole_and_know_something():
    hole = torch.ones(100, 150, dtype=torch.bool)
    hole[30:70, 50:90] = False
    tiles = plan_tiles(hole, 40)
    for tile in tiles:
        assert tile.left >= 0
        assert tile.left + 40 <= 150
        square = hole[tile.top : tile.top + 40, tile.left : tile.left + 40]
        assert 0 < square.float().mean() <= 0.75
        square.fill_(False)
    assert not hole.any()
    assert len(plan_tiles(torch.tensor([[False] * 16 + [True] * 4] * 16), 16)) == 1


def test_bad_outpainting_is_refused(tiny_model, photo):
    for sides, told in (
        ({}, "nothing is to be added: give left, top, right or bottom in pixels"),
        ({"left": -1}, "left is -1: give a number from 0"),
        ({"right": 2_000_000}, "right is 2000000: give a number from 0 to 65536"),
        ({"right": 60_000, "bottom": 60_000}, "megapixels"),
        ({"right": 60_000}, "too many: add less at a time"),
    ):
        with pytest.raises(RequestError, match=told):
            tiny_model.outpaint(photo, PROMPT, **sides)
    with pytest.raises(RequestError, match="prompt is empty"):
        tiny_model.outpaint(photo, " ", right=8)
    with pytest.raises(RequestError, match="too small"):
        tiny_model.outpaint(Image.new("RGB", (100, 3)), PROMPT, top=5)


def test_progress_counts_to_one(painter, photo):
    for act in (
        lambda seen: painter.edit(photo, BOX, PROMPT, n=2, seed=5, on_progress=seen),
        lambda seen: painter.outpaint(photo, None, right=30, seed=5, on_progress=seen),
        lambda seen: painter.outpaint(photo, PROMPT, right=30, seed=5, steps=4, on_progress=seen),
    ):
        seen = []
        act(seen.append)
        assert seen[-1].fraction == 1.0
        assert len({event.fraction for event in seen}) == len(seen)
