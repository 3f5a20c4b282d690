"""Embedding a data set: rows equal the model's own, units are whole or not done, bad pictures have no row."""

import io

import numpy as np
import pytest
from PIL import Image

import unclip
from unclip.batch.embed import embed_work
from unclip.batch.work import run_here
from unclip.cli.main import main
from unclip.data.stream.disk_cache import DiskCache
from unclip.data.stream.open import open_stream
from unclip.data.stream.sidecar import IMAGE, Sidecars


@pytest.fixture
def cache(tmp_path):
    return DiskCache(tmp_path / "cache", 50 << 20)


def work_on(folder, out, cache, **more):
    return embed_work(open_stream(folder, cache=cache), out, model="artwork", batch=4, device="cpu", **more)


def test_rows_are_the_models_own_embeddings(tmp_path, cache, write_shards):
    work = work_on(write_shards(tmp_path / "data"), tmp_path / "out", cache)
    outcome = run_here(work)
    assert (outcome.done, outcome.before, outcome.failed) == (3, 0, {})
    keys = work.dataset.keys(2)
    rows, ok = Sidecars(tmp_path / "out", IMAGE, work.origin.model, cache).rows(
        [work.units[2]] * len(keys), keys
    )
    assert ok.all()
    pictures = [Image.open(io.BytesIO(write_shards.png(number))) for number in range(20, 25)]
    expected = unclip.load("artwork", device="cpu").embed_image(pictures).numpy()
    assert np.abs(rows - expected).max() < 2e-3 * np.abs(expected).max()


def test_goes_on_with_what_is_not_whole(tmp_path, cache, write_shards):
    work = work_on(write_shards(tmp_path / "data"), tmp_path / "out", cache)
    run_here(work)
    files = sorted((tmp_path / "out").iterdir())
    good = [file.read_bytes() for file in files]
    files[0].write_bytes(good[0][:-7])
    files[2].unlink()
    outcome = run_here(work)
    assert (outcome.done, outcome.before) == (2, 1)
    assert [file.read_bytes() for file in files] == good


def test_bad_pictures_have_no_row_and_are_bounded(tmp_path, cache, write_shards):
    def picture(number):
        return write_shards.png(number)[: 30 if number in (3, 4) else None]

    folder = write_shards(tmp_path / "data", picture=picture)
    outcome = run_here(work_on(folder, tmp_path / "out", cache))
    assert list(outcome.failed) == ["set-train-00000"]
    assert "2 of 10 samples are bad" in outcome.failed["set-train-00000"]
    assert "set-train-00000/000003" in outcome.failed["set-train-00000"]
    assert outcome.done == 2
    work = work_on(folder, tmp_path / "out", cache, bad_share=0.2)
    assert (run_here(work).done, work.dataset.units[0].size) == (1, 10)
    found = Sidecars(tmp_path / "out", IMAGE, work.origin.model, cache)
    _, ok = found.rows(["set-train-00000"] * 10, work.dataset.keys(0))
    assert np.flatnonzero(~ok).tolist() == [3, 4]


def test_the_command(tmp_path, write_shards, capsys):
    folder = write_shards(tmp_path / "data")
    assert main(["embed", str(folder), "--device", "cpu", "--batch", "8"]) == 0
    assert capsys.readouterr().out == "3 units done, 0 were done before\n"
    assert len(list(folder.glob("*.image-*.safetensors"))) == 3
    assert main(["embed", str(folder), "--device", "cpu", "--batch", "8", "--json"]) == 0
    assert '"before": 3' in capsys.readouterr().out


def test_a_failed_unit_fails_the_command(tmp_path, write_shards, capsys):
    folder = write_shards(tmp_path / "data", picture=lambda number: b"no picture")
    assert main(["embed", str(folder), "--device", "cpu", "-o", str(tmp_path / "out")]) == 1
    assert "3 units failed, such as set-train-00000" in capsys.readouterr().err


def test_indexes_by_the_command(tmp_path, write_shards, capsys):
    folder = write_shards(tmp_path / "data")
    assert main(["data", "index", str(folder)]) == 0
    assert capsys.readouterr().out == "25 samples\n"
    assert (folder / "shards.json").exists()
