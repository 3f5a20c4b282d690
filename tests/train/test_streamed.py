"""Training on data that are read as they are needed: the same weights after every interruption, faults replaced and counted."""

import hashlib
import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unclip import recipes
from unclip.batch.embed import embed_work
from unclip.batch.latents import latents_work
from unclip.batch.work import run_here
from unclip.config import override
from unclip.data.sample import TooManyBadSamples
from unclip.data.shards import ShardWriter
from unclip.data.stream.disk_cache import DiskCache
from unclip.data.stream.faults import CORRUPT, MISSING_ROW, TEXT
from unclip.data.stream.open import open_stream
from unclip.data.stream.selection import Decision, write_selection
from unclip.data.stream.sidecar import SidecarError, hash_of
from unclip.rng import Noise
from unclip.train.loop import train
from unclip.train.run_folder import DataChanged
from unclip.train.source import Source, is_held_out
from unclip.train.streamed import StreamedSource

CPU = torch.device("cpu")
STREAMED = ("data.reading=streamed", "data.workers=0", "data.bad_share=0.1")


def png(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((32, 32, 3), number, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def write(folder: Path, count: int = 120, picture=png, weight=lambda number: 1.0) -> Path:
    folder.mkdir()
    with ShardWriter(folder, "set", 20) as writer:
        for number in range(count):
            meta = {"captions": [f"shade {number}", f"grey {number % 7}"], "weight": weight(number)}
            writer.add({"png": picture(number), "json": json.dumps(meta).encode()})
    return folder


@pytest.fixture
def streamed(small, tmp_path):
    """`streamed(stage, folder, ...)`: a small config on streamed data."""

    def make(stage, folder, *further):
        return small(stage, f"data.path={folder}", f"data.cache={tmp_path / 'cache'}", *STREAMED, *further)

    return make


def shades(source, indices) -> list[int]:
    """The pictures' numbers, by their colour."""
    return ((source.pictures(indices)[:, 0, 0, 0] + 1) * 127.5).round().int().tolist()


def test_chosen_by_the_config(streamed, tmp_path):
    config = streamed("clip", write(tmp_path / "data"))
    assert type(Source(config, "train", CPU)) is StreamedSource
    assert type(Source(override(config, ["data.reading=auto"]), "train", CPU)) is Source
    assert (
        type(Source(override(config, ["data.reading=auto", "data.decoded_gib=0"]), "train", CPU))
        is StreamedSource
    )


def test_pictures_and_captions_belong_together_and_none_is_held_out(streamed, tmp_path):
    config = streamed("clip", write(tmp_path / "data"), "data.held_out=0.2")
    source, held_out = Source(config, "train", CPU), Source(config, "validation", CPU)
    indices = source.indices(np.arange(120))
    numbers = shades(source, indices)
    assert source.captions(indices) == [f"shade {number}" for number in numbers]
    keys = {source.dataset.keys(number // 20)[number % 20] for number in numbers}
    assert not any(is_held_out(key, 0.2) for key in keys)
    kept = shades(held_out, np.arange(len(held_out)))
    assert set(kept).isdisjoint(numbers)
    assert len(set(kept)) == len(kept) > 10


def test_what_a_number_shows_depends_on_nothing_else(streamed, tmp_path):
    config = streamed("clip", write(tmp_path / "data"))
    whole = Source(config, "train", CPU).indices(np.arange(64))
    for workers in (0, 2):
        other = Source(override(config, [f"data.workers={workers}"]), "train", CPU)
        parts = [other.indices(np.arange(start, start + 16)) for start in (32, 0, 48, 16)]
        other.reader.close()
        assert np.concatenate([parts[1], parts[3], parts[0], parts[2]]).tolist() == whole.tolist()


def test_bad_pictures_are_replaced_counted_and_bounded(streamed, tmp_path):
    folder = write(
        tmp_path / "data", picture=lambda number: b"no picture" if number in (5, 50) else png(number)
    )
    source = Source(streamed("clip", folder), "train", CPU)
    numbers = shades(source, source.indices(np.arange(120)))
    assert not {5, 50} & set(numbers)
    assert source.faults.counts[CORRUPT] >= 1
    assert set(source.faults.names[CORRUPT]) <= {"set-00000/000005", "set-00002/000050"}
    strict = Source(streamed("clip", folder, "data.bad_share=0"), "train", CPU)
    with pytest.raises(TooManyBadSamples, match=r"corrupt picture: set-0000.* `--set data.bad_share=SHARE`"):
        strict.indices(np.arange(120))


def test_weights_are_shares(streamed, tmp_path):
    folder = write(tmp_path / "data", 40, weight=lambda number: 0.25 if number < 20 else 1.0)
    source = Source(streamed("clip", folder, "data.held_out=0.01"), "train", CPU)
    parts = [shades(source, source.indices(np.arange(start, start + 120))) for start in range(0, 960, 120)]
    light = np.mean([number < 20 for part in parts for number in part])
    # Expected 0.2; three standard deviations of a binomial share.
    assert abs(light - 0.2) < 3 * (0.2 * 0.8 / 960) ** 0.5


def test_an_interrupted_run_ends_with_the_same_weights(streamed, tmp_path, begin):
    folder = write(tmp_path / "data")
    whole, stopped = (
        override(streamed("clip", folder), [f"out={tmp_path / name}"]) for name in ("whole", "stopped")
    )
    train(whole, device="cpu")
    begin(stopped).go(until=24)
    train(stopped, device="cpu")
    assert digest(tmp_path / "whole") == digest(tmp_path / "stopped")
    shutil.copy(folder / "set-00000.tar", folder / "set-00099.tar")
    with pytest.raises(DataChanged):
        begin(stopped)


def test_captions_that_were_edited_stop_a_run(streamed, tmp_path, begin):
    """A tar has the same size, samples and names after a caption of it was edited."""
    folder = write(tmp_path / "data")
    config = streamed("clip", folder)
    begin(config).go(until=24)
    tar = folder / "set-00002.tar"
    before = tar.read_bytes()
    assert before.count(b"shade 47") == 1
    tar.write_bytes(before.replace(b"shade 47", b"shade XX"))
    with pytest.raises(DataChanged):
        begin(config)


def digest(run: Path) -> str:
    return hashlib.sha256((run / "model" / "clip.safetensors").read_bytes()).hexdigest()


@pytest.mark.parametrize("stage", ["prior", "decoder"])
def test_embeddings_come_from_sidecars_by_key(streamed, tmp_path, clip_run, stage):
    folder = write(tmp_path / "data")
    config = streamed(stage, folder)
    with pytest.raises((SidecarError, ValueError), match=r"unclip embed"):
        train(override(config, [f"out={tmp_path / 'none'}"]), device="cpu")
    dataset = open_stream(folder, cache=DiskCache(tmp_path / "pieces", 50 << 20))
    work = embed_work(dataset, folder, model=str(clip_run / "model"), batch=16, device="cpu")
    assert run_here(work).done == 6
    (folder / work.origin.name("set-00003")).unlink()
    batches = begin_batches(override(config, ["data.bad_share=0.9"]))
    pictures = Source(override(config, ["data.bad_share=0.9"]), "train", CPU)
    indices = batches.train.indices(np.arange(40))
    # The prior decodes no pictures.
    assert (batches.train.reader.size == 0) == (stage == "prior")
    numbers = shades(pictures, indices)
    assert not any(60 <= number < 80 for number in numbers), "samples without a row were replaced"
    assert batches.train.faults.counts[MISSING_ROW] >= 1
    found = batches.train.rows(batches.train_embeddings, indices)
    expected = batches.clip.clip.encode_image(pictures.pictures(indices))
    assert (found - expected).abs().max() < 5e-3
    train(override(config, ["data.bad_share=0.9"]), device="cpu")


@pytest.mark.parametrize("stage", ["latent_decoder", "text_decoder", "kandinsky_decoder"])
def test_latents_come_from_sidecars_by_key_or_are_encoded(
    streamed, tmp_path, clip_run, autoencoder_run, stage, begin
):
    folder = write(tmp_path / "data")
    if stage == "kandinsky_decoder":
        config = replace(streamed("text_decoder", folder, "data.bad_share=0.9"), out=str(tmp_path / "none"))
        config = kandinsky(config)
    else:
        config = streamed(stage, folder, "data.bad_share=0.9")
    dataset = open_stream(folder, cache=DiskCache(tmp_path / "pieces", 50 << 20))
    assert run_here(embed_work(dataset, folder, model=str(clip_run / "model"), device="cpu")).done == 6
    encoded = begin_batches(config)
    indices = encoded.train.indices(np.arange(16))
    noise = Noise(range(16))
    first = encoded.images.learned(encoded.train, indices, noise)
    work = latents_work(dataset, folder, model=str(autoencoder_run / "model"), size=16, device="cpu")
    assert run_here(work).done == 6
    joined = begin_batches(config)
    assert joined.train.indices(np.arange(16)).tolist() == indices.tolist()
    assert (joined.images.learned(joined.train, indices, noise) - first).abs().max() < 5e-3
    held_out = np.arange(8)
    one, other = (each.images.held_out(each.held_out, held_out) for each in (joined, encoded))
    assert (one - other).abs().max() < 5e-3
    # Rows that are not there: samples are replaced and counted, and nothing is validated on them.
    (folder / work.origin.name("set-00003")).unlink()
    partial = begin_batches(config)
    numbers = shades(encoded.train, partial.train.indices(np.arange(60)))
    assert not any(60 <= number < 80 for number in numbers)
    assert partial.train.faults.counts[MISSING_ROW] >= 1
    assert len(partial.held_out) < len(joined.held_out)
    # Killed and resumed, with the same weights as straight through.
    straight, stopped = (override(config, [f"out={tmp_path / name}"]) for name in ("straight", "stopped"))
    train(straight, device="cpu")
    begin(stopped).go(until=24)
    train(stopped, device="cpu")
    weights = [
        (tmp_path / run / "model" / "decoder.safetensors").read_bytes() for run in ("straight", "stopped")
    ]
    assert weights[0] == weights[1]
    if stage == "text_decoder":
        # Mirror images are encoded: files hold pictures as they are.
        flipped = begin_batches(override(config, ["flip=true"]))
        assert flipped.train.reader.size == 16
        with pytest.raises(ValueError, match=r"holds latents of pictures as they are.*set flip to false"):
            begin_batches(override(config, ["flip=true", f"data.latents={folder}"]))
        with pytest.raises(SidecarError, match=r"no latents of 16 px: make them with `unclip latents`"):
            begin_batches(override(config, [f"data.latents={tmp_path / 'straight'}"]))
        other = tmp_path / "other"
        write(other)
        wrong = latents_work(dataset, other, model=str(autoencoder_run / "model"), size=16, device="cpu")
        wrong.origin = replace(wrong.origin, model="0" * 64)
        run_here(wrong)
        with pytest.raises(SidecarError, match=r"rows of the model 000000000000, and not of"):
            begin_batches(override(config, [f"data.latents={other}"]))


def kandinsky(like):
    """A small config of Kandinsky's decoder with the data, CLIP and autoencoder of another run."""
    net = ["channels=8", "groups=4", "multiples=[1]", "blocks=1", "attention_levels=[0]", "head_channels=8"]
    net = [f"model.net.{one}" for one in (*net, "context_width=8", "vector_width=32")]
    config = override(
        recipes.get("kandinsky", "kandinsky_decoder"), [*net, "model.size=16", "precision=fp32"]
    )
    shared = ("data", "clip", "autoencoder", "samples", "batch", "out")
    return replace(config, **{name: getattr(like, name) for name in shared})


def test_an_autoencoder_learns_streamed_pictures(streamed, tmp_path, begin):
    folder = write(
        tmp_path / "data", picture=lambda number: b"no picture" if number == 5 else speckled(number)
    )
    config = streamed("autoencoder", folder)
    straight, stopped = (override(config, [f"out={tmp_path / name}"]) for name in ("straight", "stopped"))
    train(straight, device="cpu")
    begin(stopped).go(until=24)
    train(stopped, device="cpu")
    weights = [
        (tmp_path / run / "model" / "autoencoder.safetensors").read_bytes() for run in ("straight", "stopped")
    ]
    assert weights[0] == weights[1]


def speckled(number: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def begin_batches(config):
    from unclip.train.task import build_task

    return build_task(config, CPU).batches


def test_what_streamed_data_cannot_do_is_refused_by_name(streamed, tmp_path):
    folder = write(tmp_path / "data")
    with pytest.raises(ValueError, match=r"data\.factors .* data\.reading=decoded"):
        Source(streamed("clip", folder, 'data.factors={"kind": {"pair": 0.5}}'), "train", CPU)
    with pytest.raises(ValueError, match=r"digests.*data\.reading=decoded"):
        _ = Source(streamed("clip", folder), "train", CPU).decoded.digests


def test_only_what_a_selection_keeps_is_seen(streamed, tmp_path, clip_run):
    folder = write(tmp_path / "data")
    dataset = open_stream(folder, cache=DiskCache(tmp_path / "pieces", 50 << 20))
    kept = {unit.name: np.array([n % 20 % 4 == 1 for n in range(20)]) for unit in dataset.units}
    kept["set-00002"][:] = False
    decisions = [
        Decision(
            unit.name,
            np.array([hash_of(key) for key in dataset.keys(number)], dtype=np.uint64),
            np.zeros(20),
            kept[unit.name],
        )
        for number, unit in enumerate(dataset.units)
    ]
    write_selection(tmp_path / "chosen", {"kind": "test"}, decisions)
    config = streamed("clip", folder, f"data.selection={tmp_path / 'chosen'}", "data.held_out=0.2")
    config = override(config, ["data.reading=auto"])
    source, held_out = Source(config, "train", CPU), Source(config, "validation", CPU)
    assert type(source) is StreamedSource
    expected = {n for n in range(120) if n % 20 % 4 == 1 and n // 20 != 2}
    seen = set(shades(source, source.indices(np.arange(100))))
    validated = set(shades(held_out, np.arange(len(held_out))))
    assert seen | validated == expected
    assert not seen & validated
    two = Source(override(config, ["data.workers=2"]), "train", CPU)
    assert two.indices(np.arange(16)).tolist() == source.indices(np.arange(16)).tolist()
    two.reader.close()
    train(config, device="cpu")
    with pytest.raises(ValueError, match=r"data\.selection is a setting of streamed data"):
        override(config, ["data.reading=decoded"])


def huggingface(folder: Path, splits: dict[str, range]) -> Path:
    """Parquet files as Hugging Face data sets have them."""
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    (folder / "data").mkdir(parents=True)
    for split, numbers in splits.items():
        images = [{"bytes": png(number), "path": f"{number}.png"} for number in numbers]
        table = pa.table({"image": images, "text": [f"shade {number}" for number in numbers]})
        parquet.write_table(table, folder / "data" / f"{split}-00000-of-00001.parquet")
    (folder / "README.md").write_text("# shades\n")
    return folder


def test_parquet_folders_are_streamed_by_their_splits(small, tmp_path):
    folder = huggingface(tmp_path / "hf", {"train": range(60), "val": range(60, 80), "test": range(80, 90)})
    config = small("clip", f"data.path={folder}", f"data.cache={tmp_path / 'cache'}", "data.workers=0")
    source, other = Source(config, "train", CPU), Source(config, "validation", CPU)
    assert type(source) is type(other) is StreamedSource
    assert sorted(shades(source, source.indices(np.arange(60)))) == list(range(60))
    assert sorted(shades(other, np.arange(len(other)))) == list(range(60, 80))
    train(config, device="cpu")


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_single_file_is_streamed(small, tmp_path, ending):
    if ending == "parquet":
        huggingface(tmp_path / "hf", {"train": range(40)})
        file = tmp_path / "hf" / "data" / "train-00000-of-00001.parquet"
    else:
        file = tmp_path / f"shades.{ending}"
        rows = [{"file_name": f"{number}.png", "text": f"shade {number}"} for number in range(40)]
        for number in range(40):
            (tmp_path / f"{number}.png").write_bytes(png(number))
        lines = (
            [json.dumps(row) for row in rows]
            if ending == "jsonl"
            else ["file_name,text", *(f"{row['file_name']},{row['text']}" for row in rows)]
        )
        file.write_text("\n".join(lines) + "\n")
    config = small("clip", f"data.path={file}", f"data.cache={tmp_path / 'cache'}", "data.workers=0")
    source, other = Source(config, "train", CPU), Source(config, "validation", CPU)
    assert type(source) is StreamedSource
    indices = source.indices(np.arange(64))
    seen = shades(source, indices)
    assert source.captions(indices) == [f"shade {number}" for number in seen]
    assert set(seen) | set(shades(other, np.arange(len(other)))) == set(range(40))
    # Embeddings lie beside the file.
    main_embed(file)
    assert list(file.parent.glob("*.image-*.safetensors"))


def main_embed(file: Path) -> None:
    from unclip.cli.main import main

    assert main(["embed", str(file), "--device", "cpu", "--quiet"]) == 0


def test_loose_pictures_without_a_caption_are_replaced_and_counted(streamed, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    for number in range(30):
        (folder / f"{number:02d}.png").write_bytes(png(number))
        if number != 7:
            (folder / f"{number:02d}.txt").write_text(f"shade {number}")
    source = Source(streamed("clip", folder, "data.held_out=0.1"), "train", CPU)
    assert 7 not in shades(source, source.indices(np.arange(90)))
    assert source.faults.counts[TEXT] >= 1
    assert source.faults.names[TEXT] == {"07.png": "has no caption"}
