"""Embedding a data set: rows equal the model's own, units are whole or not done, bad pictures have no row."""

import io
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import save_file

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


def test_a_shard_that_was_written_again_is_embedded_again(tmp_path, cache, write_shards):
    folder = write_shards(tmp_path / "data")
    run_here(work_on(folder, tmp_path / "out", cache))
    before = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    assert run_here(work_on(folder, tmp_path / "out", cache)).before == 3
    # As many samples of the same names, other pictures.
    write_shards(folder, picture=lambda number: write_shards.png(number + 100))
    work = work_on(folder, tmp_path / "out", cache)
    assert run_here(work).done == 3
    after = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    assert after.keys() == before.keys()
    assert all(after[name] != before[name] for name in before)


def test_a_picture_of_a_folder_that_was_replaced(tmp_path, cache, write_shards):
    folder = tmp_path / "data"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.png").write_bytes(write_shards.png(number))
        (folder / f"{number}.txt").write_text("a picture")
    # Beside the pictures: a sidecar is none of them.
    first = open_stream(folder, cache=cache)
    assert run_here(work_on(folder, folder, cache)).done == 1
    assert open_stream(folder, cache=cache).fingerprint == first.fingerprint
    assert run_here(work_on(folder, folder, cache)).before == 1
    (folder / "1.png").write_bytes(write_shards.png(50))
    assert open_stream(folder, cache=cache).fingerprint != first.fingerprint
    work = work_on(folder, folder, cache)
    assert run_here(work).done == 1
    rows, _ = Sidecars(folder, IMAGE, work.origin.model, cache).rows([work.units[0]], ["1.png"])
    expected = unclip.load("artwork", device="cpu").embed_image([folder / "1.png"]).numpy()
    assert np.abs(rows - expected).max() < 2e-3 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("factor", "message"), [(float("nan"), "not finite"), (1e7, "float16 does not hold")]
)
def test_embeddings_that_are_no_numbers_fail_the_unit(factor, message, tmp_path, write_shards, capsys):
    model = tmp_path / "model"
    shutil.copytree(Path(unclip.__file__).parent / "bundled" / "artwork", model)
    with safe_open(model / "clip.safetensors", "np") as file:
        tensors, metadata = {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118
    tensors["vision.project.weight.scale"] = (
        tensors["vision.project.weight.scale"].astype(np.float32) * factor
    )
    save_file(tensors, model / "clip.safetensors", metadata)
    described = json.loads((model / "model.json").read_text())
    described["parts"]["clip"]["config"]["normalize"] = False
    (model / "model.json").write_text(json.dumps(described))
    folder = write_shards(tmp_path / "data")
    arguments = ["embed", str(folder), "-o", str(tmp_path / "out"), "--model", str(model), "--device", "cpu"]
    assert main(arguments) == 1
    found = capsys.readouterr().err
    assert message in found
    assert "set-train-00000/000000" in found
    assert not (tmp_path / "out").exists()


def test_a_picture_without_embedding_is_named(tmp_path, write_shards, capsys):
    folder = write_shards(
        tmp_path / "data", picture=lambda number: write_shards.png(number)[: 30 if number == 3 else None]
    )
    assert main(["embed", str(folder), "--device", "cpu", "--bad-share", "0.1"]) == 0
    found = capsys.readouterr()
    assert "1 of 10 pictures have no embedding: set-train-00000/000003" in found.err


def test_nothing_to_embed_is_an_error(tmp_path, capsys):
    (tmp_path / "notes.md").write_text("no picture")
    assert main(["embed", str(tmp_path), "--device", "cpu"]) != 0
    assert "there is nothing to embed" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["folder", "tar", "parquet"])
def test_pictures_need_no_captions(tmp_path, cache, write_shards, kind):
    data = tmp_path / "data"
    data.mkdir()
    for number in range(5):
        (tmp_path / f"{number}.png").write_bytes(write_shards.png(number))
        if kind == "folder":
            shutil.copy(tmp_path / f"{number}.png", data)
    if kind == "tar":
        with tarfile.open(data / "set-000.tar", "w") as tar:
            for number in range(5):
                tar.add(tmp_path / f"{number}.png", f"{number}.png")
    if kind == "parquet":
        pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        images = [{"bytes": write_shards.png(number), "path": f"{number}.png"} for number in range(5)]
        parquet.write_table(pa.table({"image": images}), data / "set.parquet")
    assert main(["embed", str(data), "--device", "cpu", "--quiet", "--out", str(tmp_path / "out")]) == 0
    (file,) = (tmp_path / "out").iterdir()
    with safe_open(file, "np") as found:
        assert found.get_tensor("ok").tolist() == [True] * 5
        assert found.get_tensor("rows").any(1).all()
