"""A run that goes on checks that its data and its tokenizer are those that it began with."""

import json
import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from unclip.checkpoints.io import load_model, save_model
from unclip.checkpoints.manifest import read_manifest
from unclip.config import override
from unclip.data.sample import TooManyBadSamples
from unclip.train.loop import train
from unclip.train.run_folder import DataChanged, RunFolder
from unclip.train.source import Source

CPU = torch.device("cpu")


def add(folder, number, caption):
    # Patterns of their own, so that no picture equals another.
    pixels = np.random.default_rng(number).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / f"{number:02}.png")
    (folder / f"{number:02}.txt").write_text(caption)


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(20):
        add(folder, number, f"a {('red', 'green')[number % 2]} square number {number}")
    return folder


@pytest.fixture
def half(small, pictures, begin, tmp_path):
    """A run of CLIP that was stopped after 16 of 48 samples, and its config."""
    config = small("clip", f"data.path={pictures}", f"data.cache={tmp_path / 'cache'}")
    begin(config).go(until=16)
    return config


def words(folder):
    for number in range(20, 30):
        add(folder, number, "an astronaut on the mountain under thunder thunder")


CHANGES = {
    "pictures added": (words, r"10 pictures were added \(.*and 7 more\)"),
    "one removed": (
        lambda folder: (folder / "03.png").unlink(),
        r"1 picture was removed, or cannot be read now \(03\.png\)",
    ),
    "one unreadable": (
        lambda folder: (folder / "03.png").write_bytes(b"broken"),
        r"1 picture was removed, or cannot be read now \(03\.png\)",
    ),
    "caption edited": (
        lambda folder: (folder / "05.txt").write_text("a blue circle"),
        r"1 picture was given other captions, weights or metadata \(05\.png\)",
    ),
    "picture edited": (
        lambda folder: shutil.copy(folder / "07.png", folder / "06.png"),
        r"1 picture was given other pixels \(06\.png\)",
    ),
    "one renamed": (
        lambda folder: [(folder / f"08{end}").rename(folder / f"zz{end}") for end in (".png", ".txt")],
        r"1 picture was added \(zz\.png\); 1 picture was removed, or cannot be read now \(08\.png\)",
    ),
}


@pytest.mark.filterwarnings("ignore::unclip.train.source.SkippedSamples")
@pytest.mark.parametrize("name", CHANGES)
def test_changed_data_are_refused_by_name_and_can_be_allowed(half, pictures, name):
    change, message = CHANGES[name]
    before = (RunFolder(half).path / "data.json").read_bytes()
    change(pictures)
    with pytest.raises(DataChanged, match=message) as raised:
        train(half, device="cpu")
    assert "data.changed=allow" in str(raised.value)
    assert (RunFolder(half).path / "data.json").read_bytes() == before
    assert train(override(half, ["data.changed=allow"]), device="cpu").is_dir()


def test_the_tokenizer_stays_with_the_run(half, pictures, tmp_path):
    out = RunFolder(half).path
    first = json.loads((out / "tokenizer.json").read_text())
    words(pictures)
    model = train(override(half, ["data.changed=allow"]), device="cpu")
    assert json.loads((model / "tokenizer.json").read_text()) == first
    other = train(override(half, [f"out={tmp_path / 'new'}"]), device="cpu")
    assert json.loads((other / "tokenizer.json").read_text()) != first


def test_the_same_content_is_the_same_data(half, pictures):
    for path in pictures.iterdir():
        os.utime(path, (0, 0))
    (pictures / "notes.md").write_text("no picture")
    train(half, device="cpu")


def test_a_run_without_a_checkpoint_begins_anew(small, pictures, begin):
    config = small("clip", f"data.path={pictures}")
    first = begin(config).batches.tokenizer_json
    words(pictures)
    run = begin(config)
    assert run.batches.tokenizer_json != first
    assert len(json.loads((run.folder.path / "data.json").read_text())["train"]) > 20


def test_a_run_of_an_older_version_goes_on(half):
    (RunFolder(half).path / "data.json").unlink()
    (RunFolder(half).path / "tokenizer.json").unlink()
    train(half, device="cpu")
    assert (RunFolder(half).path / "data.json").exists()


@pytest.mark.filterwarnings("ignore::unclip.train.source.SkippedSamples")
def test_the_order_of_a_table_counts(small, pictures, begin):
    rows = [{"file_name": f"{number:02}.png", "text": f"number {number}"} for number in range(20)]

    def write(rows):
        (pictures / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))

    write(rows)
    config = small(
        "upsampler", f"data.path={pictures}", "data.size=16", "model.high_size=16", "model.low_size=8"
    )
    begin(config).go(until=8)
    write(rows[::-1])
    with pytest.raises(DataChanged, match="the order of the pictures is another"):
        train(config, device="cpu")


def test_another_clip_is_refused(small, begin):
    config = small("prior")
    begin(config).go(until=8)
    record = json.loads((RunFolder(config).path / "data.json").read_text())
    assert record["clip"]
    (RunFolder(config).path / "data.json").write_text(json.dumps({**record, "clip": "0" * 16}))
    with pytest.raises(DataChanged, match="the CLIP that it learns from is another"):
        train(config, device="cpu")


def written_again(run, parts, tokenizer):
    save_model(run / "model", parts, name=read_manifest(run / "model").name, tokenizer=tokenizer, force=True)


@torch.no_grad()
def trained_further(run):
    """Another model in a finished run's folder, of the same sizes."""
    parts, tokenizer = load_model(run / "model"), run / "model" / "tokenizer.json"
    for part in parts.values():
        next(part.parameters()).add_(0.01)
    written_again(run, parts, tokenizer.read_text() if tokenizer.exists() else None)


def other_words(run):
    """The same weights with another tokenizer of the same size."""
    data = json.loads((run / "model" / "tokenizer.json").read_text())
    first, second = list(data["vocabulary"])[40:42]
    data["vocabulary"] |= {first: data["vocabulary"][second], second: data["vocabulary"][first]}
    written_again(run, load_model(run / "model"), json.dumps(data))


@pytest.mark.parametrize(
    ("stage", "teacher", "change", "message"),
    [
        ("latent_decoder", "autoencoder", trained_further, "the autoencoder whose latents it learns"),
        ("text_decoder", "autoencoder", trained_further, "the autoencoder whose latents it learns"),
        ("kandinsky_decoder", "autoencoder", trained_further, "the autoencoder whose latents it learns"),
        ("text_decoder", "clip", trained_further, "the text tower that reads its captions"),
        ("autoencoder", "clip", trained_further, "the CLIP that it learns from"),
        ("prior", "clip", other_words, "the tokenizer of its captions"),
    ],
)
def test_what_a_run_learns_from_is_that_which_it_began_with(
    small, begin, clip_run, autoencoder_run, tmp_path, stage, teacher, change, message
):
    """Latents of another autoencoder are other numbers of the same shape, which nothing else would notice."""
    own = tmp_path / "teacher"
    shutil.copytree({"clip": clip_run, "autoencoder": autoencoder_run}[teacher], own)
    config = small(stage, f"{teacher}={own}")
    begin(config).go(until=8)
    begin(config)
    change(own)
    with pytest.raises(DataChanged, match=f"{message} is another"):
        train(config, device="cpu")
    assert train(override(config, ["data.changed=allow"]), device="cpu").is_dir()


def test_what_an_older_version_did_not_note_is_not_compared(small, begin):
    config = small("latent_decoder")
    begin(config).go(until=8)
    file = RunFolder(config).path / "data.json"
    record = json.loads(file.read_text())
    file.write_text(json.dumps({name: record[name] for name in ("format", "clip", "train", "validation")}))
    train(config, device="cpu")


def test_the_share_of_bad_samples_is_an_option(small, pictures):
    for number in (3, 4, 5):
        (pictures / f"{number:02}.txt").unlink()
    with pytest.raises(TooManyBadSamples, match=r"3 of 20 .*--set data\.bad_share=0\.15"):
        Source(small("clip", f"data.path={pictures}"), "train", CPU)
    with pytest.warns(UserWarning, match="3 bad samples"):
        Source(small("clip", f"data.path={pictures}", "data.bad_share=0.15"), "train", CPU)
    for share in ("-0.1", "1.5"):
        with pytest.raises(ValueError, match=r"data\.bad_share is"):
            small("clip", f"data.bad_share={share}")


@pytest.mark.filterwarnings("ignore::unclip.train.source.SkippedSamples")
def test_metadata_of_any_type_have_factors(small, pictures):
    for number in range(20):
        record = {"caption": "x", "label": 5, "kind": [number % 2], "weight": 1}
        (pictures / f"{number:02}.json").write_text(json.dumps(record))
    factors = 'data.factors={"kind": {"[1]": 0.5}, "everyday": {"false": 0.25}}'
    source = Source(small("clip", f"data.path={pictures}", factors), "train", CPU)
    assert set(source.order.weights.tolist()) == {0.125, 0.25}
