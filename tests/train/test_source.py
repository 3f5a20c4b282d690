"""What is learned from and what is held out."""

import numpy as np
import pytest
import torch
from PIL import Image

from unclip.config import override
from unclip.data.sample import TooManyBadSamples
from unclip.data.shards import ShardWriter
from unclip.rng import Noise
from unclip.train.loop import train
from unclip.train.source import SkippedSamples, Source, chosen_by_key, evenly_spaced, shifted

CPU = torch.device("cpu")


@pytest.fixture
def pictures(tmp_path):
    """A user's own folder: 20 pictures of one grey each, with captions."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(20):
        Image.new("RGB", (16, 16), (number, number, number)).save(folder / f"{number:02}.png")
        (folder / f"{number:02}.txt").write_text(f"grey number {number}\nno colour\n")
    return folder


def keys(source):
    return [sample.key for sample in source.decoded.samples]


def test_a_folder_without_splits_is_divided_by_its_keys(small, pictures):
    config = small("clip", f"data.path={pictures}", "data.held_out=0.25")
    learned, held_out = (Source(config, part, CPU) for part in ("train", "validation"))
    assert sorted(keys(learned) + keys(held_out)) == [f"{number:02}.png" for number in range(20)]
    assert 1 <= len(held_out) <= 10
    # The pictures belong to their captions still.
    for source in (learned, held_out):
        greys = (source.pictures_between(0, len(source))[:, 0, 0, 0] + 1) * 127.5
        numbers = [int(caption.split()[-1]) for caption in source.captions(np.arange(len(source)))]
        assert greys.round().tolist() == numbers
    assert learned.fingerprint != held_out.fingerprint


def test_a_folder_without_splits_can_be_trained_on(small, pictures):
    train(small("clip", f"data.path={pictures}", "samples=16"), device="cpu")


def test_bad_pictures_are_counted_named_and_passed_over(small, pictures):
    (pictures / "03.png").write_bytes(b"broken")
    config = small("clip", f"data.path={pictures}", "samples=16")
    with pytest.warns(SkippedSamples, match=r"pictures: skipped 1 bad sample: 03\.png \(the picture is not"):
        learned = Source(config, "train", CPU)
    with pytest.warns(SkippedSamples, match=r"03\.png"):
        held_out = Source(config, "validation", CPU)
    assert sorted(keys(learned) + keys(held_out)) == [f"{n:02}.png" for n in range(20) if n != 3]
    with pytest.warns(SkippedSamples):
        train(config, device="cpu")


def test_too_many_bad_pictures_stop_the_run(small, pictures):
    (pictures / "03.png").write_bytes(b"broken")
    (pictures / "04.txt").unlink()
    with pytest.raises(
        TooManyBadSamples, match=r"2 of 20 samples are bad.*04\.png \(has no caption\).*03\.png"
    ):
        train(small("clip", f"data.path={pictures}", "samples=16"), device="cpu")


def test_pictures_that_are_added_move_no_other_ones():
    names = [f"picture {number}" for number in range(1000)]
    few, many = chosen_by_key(names[:400], 0.05), chosen_by_key(names, 0.05)
    assert (few == many[:400]).all()
    assert 30 <= many.sum() <= 70


@pytest.mark.parametrize("share", [1e-9, 0.05, 1 - 1e-9])
def test_nobody_gets_nothing(share):
    for count in (2, 3, 10):
        chosen = chosen_by_key([str(number) for number in range(count)], share)
        assert 1 <= chosen.sum() <= count - 1
    with pytest.raises(ValueError, match="at least 2"):
        chosen_by_key(["alone"], share)


def test_shards_with_splits(small, tmp_path, pictures):
    shards = tmp_path / "shards"
    shards.mkdir()
    for split, numbers in (("train", range(6)), ("test", range(6, 9))):
        with ShardWriter(shards, f"greys-{split}") as writer:
            for number in numbers:
                writer.add({"png": (pictures / f"{number:02}.png").read_bytes(), "txt": b"grey"})
    config = small("clip", f"data.path={shards}", "data.validation=test")
    assert [len(Source(config, part, CPU)) for part in ("train", "validation")] == [6, 3]
    config = override(config, ["data.validation=null"])
    assert sum(len(Source(config, part, CPU)) for part in ("train", "validation")) == 6
    config = override(config, ["data.split=null"])
    assert sum(len(Source(config, part, CPU)) for part in ("train", "validation")) == 9
    with pytest.raises(ValueError, match="no split 'val'; it has test, train"):
        Source(override(config, ["data.split=train", "data.validation=val"]), "validation", CPU)


def test_no_data(small):
    with pytest.raises(ValueError, match="names no data"):
        Source(small("clip", "data.path="), "train", CPU)


def test_a_sample_is_a_function_of_its_number(small):
    source = Source(small("clip", "data.shift=2"), "train", CPU)
    numbers = np.arange(470, 490)  # past the end of the first epoch
    indices = source.indices(numbers)
    noise = Noise(torch.from_numpy(numbers))
    pictures, captions = source.pictures(indices, noise), source.captions(indices, noise)
    for row, number in enumerate(numbers.tolist()):
        index, alone = source.indices(np.array([number])), Noise([number])
        assert index == indices[row]
        assert source.key(number) == source.decoded.samples[index[0]].key
        assert torch.equal(source.pictures(index, alone)[0], pictures[row])
        assert source.captions(index, alone) == [captions[row]]
    assert len({source.key(number) for number in range(480)}) == 480
    # Captions differ between visits, and all of a picture's are used.
    drawn = [source.captions(np.array([0]), Noise([number]))[0] for number in range(60)]
    assert set(drawn) == set(source.decoded.samples[0].captions)


def test_shifted():
    pixels = torch.randint(0, 255, (3, 3, 5, 5), dtype=torch.uint8)
    down, right, both = shifted(pixels, torch.tensor([[2, 0], [0, 1], [-1, -2]]))
    assert torch.equal(down[:, 2:], pixels[0, :, :3])
    assert (down[:, :2] == 255).all()
    assert torch.equal(right[:, :, 1:], pixels[1, :, :, :4])
    assert (right[:, :, 0] == 255).all()
    assert torch.equal(both[:, :4, :3], pixels[2, :, 1:, 2:])
    assert (both[:, 4] == 255).all()
    assert (both[:, :, 3:] == 255).all()
    assert torch.equal(shifted(pixels, torch.zeros(3, 2, dtype=torch.int64)), pixels)


def test_spread():
    assert evenly_spaced(3, 11).tolist() == [0, 5, 10]
    assert evenly_spaced(20, 4).tolist() == [0, 1, 2, 3]


def test_squares_are_pieces_of_the_pictures(small):
    source = Source(small("clip"), "train", CPU)
    indices, corners = np.array([3, 0, 3]), torch.tensor([[0, 0], [2, 5], [8, 8]])
    squares = source.squares(indices, corners, 8)
    whole = source.pictures(indices)
    for square, picture, (top, left) in zip(squares, whole, corners.tolist(), strict=True):
        assert torch.equal(square, picture[:, top : top + 8, left : left + 8])


def test_pictures_smaller_than_what_is_learned_are_refused(small, pictures):
    with pytest.raises(
        ValueError, match="the pictures have 16 pixels a side, and this stage learns what 32 look"
    ):
        train(small("upsampler", f"data.path={pictures}"), device="cpu")
