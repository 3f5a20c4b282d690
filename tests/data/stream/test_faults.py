"""Damage and failing stores: counted, named, bounded by a limit, never silent."""

import io
import shutil
import tarfile

import numpy as np
import pytest

from unclip.data.sample import TooManyBadSamples
from unclip.data.stream.dataset import Fault
from unclip.data.stream.faults import CORRUPT, DUPLICATE, MISSING_ROW, RETRIED, TRUNCATED, VANISHED, Faults
from unclip.data.stream.index import write_indexes
from unclip.data.stream.open import open_stream
from unclip.data.stream.reader import Reader
from unclip.data.stream.store import StoreFailure, StoreOptions

COUNT = 35
QUICK = StoreOptions(attempts=3, timeout=1.0, pause=0.01)


def indexed(folder):
    """The folder with indexes and shards.json beside its shards."""
    write_indexes(folder)
    return folder


def test_a_truncated_shard(tmp_path, cache, made):
    folder = indexed(made.tars(tmp_path / "data"))
    tar = folder / "set-train-00001.tar"
    tar.write_bytes(tar.read_bytes()[: tar.stat().st_size // 2])
    dataset = open_stream(folder, cache=cache, faults=Faults(1.0))
    assert len(dataset) == COUNT, "numbers stay what they were"
    found = dataset.read(range(10, 20))
    lost = [one for one in found if isinstance(one, Fault)]
    assert 3 <= len(lost) <= 7
    assert {one.kind for one in lost} == {TRUNCATED}
    assert lost[-1].key == "set-train-00001/000019"
    assert all(not isinstance(one, Fault) for one in dataset.read([*range(10), *range(20, 35)]))


def test_a_truncated_shard_without_index_says_what_is_lost(tmp_path, cache, made):
    folder = made.tars(tmp_path / "data")
    for path in folder.glob("*.idx"):
        path.unlink()
    tar = folder / "set-train-00001.tar"
    tar.write_bytes(tar.read_bytes()[: tar.stat().st_size // 2])
    with pytest.raises(TooManyBadSamples, match="set-train-00001"):
        open_stream(folder, cache=cache, faults=Faults(0.0))
    dataset = open_stream(folder, cache=cache, faults=Faults(1.0))
    assert len(dataset) < COUNT
    assert TRUNCATED in dataset.faults.counts


def test_a_vanished_shard(tmp_path, cache, made):
    folder = indexed(made.tars(tmp_path / "data"))
    (folder / "set-train-00002.tar").unlink()
    with pytest.raises(TooManyBadSamples, match=r"10 x vanished: set-train-00002\.tar"):
        open_stream(folder, cache=cache, faults=Faults(0.1, option="--set data.bad_share"))
    dataset = open_stream(folder, cache=cache, faults=Faults(0.3))
    assert len(dataset) == COUNT
    assert {one.kind for one in dataset.read(range(20, 30))} == {VANISHED}


def test_a_shard_that_vanishes_while_it_is_read(tmp_path, cache, s3, made):
    url = s3.upload(made.tars(tmp_path / "data"))
    dataset = open_stream(url, cache=cache)
    s3.delete(url, "set-train-00000.tar")
    found = dataset.read([0, 15])
    assert isinstance(found[0], Fault)
    assert found[0].kind == VANISHED
    assert found[1].picture == made.png(15)


def test_a_damaged_row_group(tmp_path, cache, made):
    pytest.importorskip("pyarrow")
    folder = made.storages["parquet"](tmp_path / "data")
    file = folder / "train-00000-of-00002.parquet"
    data = bytearray(file.read_bytes())
    # The pictures of the first row group, behind the header of their page.
    data[60:400] = bytes(340)
    file.write_bytes(data)
    found = open_stream(folder, cache=cache).read(range(12))
    assert {getattr(one, "kind", None) for one in found[:6]} == {CORRUPT}
    assert file.name in str(found[0])
    assert [one.picture for one in found[6:]] == [made.png(number) for number in range(6, 12)]


def test_a_parquet_file_that_vanishes_while_it_is_read(tmp_path, cache, made):
    pytest.importorskip("pyarrow")
    folder = made.storages["parquet"](tmp_path / "data")
    dataset = open_stream(folder, cache=cache)
    (folder / "train-00000-of-00002.parquet").unlink()
    found = dataset.read([0, 25])
    assert found[0].kind == VANISHED
    assert found[1].picture == made.png(25)


def test_a_truncated_object(tmp_path, cache, s3, made):
    folder = indexed(made.tars(tmp_path / "data"))
    url = s3.upload(folder)
    data = (folder / "set-train-00000.tar").read_bytes()
    s3.put(url, "set-train-00000.tar", data[: len(data) // 2])
    dataset = open_stream(url, cache=cache, faults=Faults(1.0), options=QUICK)
    found = dataset.read(range(10))
    assert {one.kind for one in found if isinstance(one, Fault)} == {TRUNCATED}
    assert found[0].picture == made.png(0)


def test_errors_of_a_store_are_tried_again_and_counted(tmp_path, cache, s3, made):
    url = s3.upload(made.tars(tmp_path / "data"))
    dataset = open_stream(url, cache=cache, options=QUICK)
    s3.failing += [503, 500]
    reader = Reader(dataset, 8)
    found = reader.get(np.array([3]))
    assert found.pictures[0, 0, 0, 0] == 3
    assert reader.faults.counts == {RETRIED: 2}
    assert "set-train-00000.tar" in reader.faults.summary()
    assert reader.faults.lost == 0


def test_a_store_that_keeps_failing_is_an_error_not_a_lost_sample(tmp_path, cache, s3, made):
    url = s3.upload(made.tars(tmp_path / "data"))
    dataset = open_stream(url, cache=cache, options=QUICK)
    s3.failing += [503] * 20
    with pytest.raises(StoreFailure, match=r"set-train-00000\.tar: no answer in 3 attempts"):
        dataset.read([3])
    s3.failing.clear()
    assert dataset.read([3])[0].picture == made.png(3)


def test_a_slow_store_is_one_that_fails(tmp_path, cache, s3, made):
    url = s3.upload(made.tars(tmp_path / "data"))
    dataset = open_stream(url, cache=cache, options=StoreOptions(attempts=2, timeout=0.3, pause=0.01))
    s3.delay = 1.0
    with pytest.raises(StoreFailure, match="no answer in 2 attempts"):
        dataset.read([3])


def test_a_listing_goes_on_where_it_failed(tmp_path, cache, s3, made):
    url = s3.upload(made.tars(tmp_path / "data"))
    s3.failing += [500]
    assert len(open_stream(url, cache=cache, options=QUICK)) == COUNT


def test_duplicate_keys(tmp_path, cache, made):
    folder = tmp_path / "data"
    folder.mkdir()
    with tarfile.open(folder / "a.tar", "w") as tar:
        for name, data in (
            ("x.png", made.png(1)),
            ("x.txt", b"one"),
            ("x.png", made.png(2)),
            ("y.png", made.png(3)),
            ("y.txt", b"y"),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    with pytest.raises(TooManyBadSamples, match=r"1 x duplicate key: a/x \(2\)"):
        open_stream(folder, cache=cache, faults=Faults(0.0))
    dataset = open_stream(folder, cache=cache)
    assert dataset.faults.counts == {DUPLICATE: 1}
    assert dataset.keys(0) == ["a/x", "a/y"]
    assert dataset.read([0])[0].picture == made.png(1), "the first is used"


@pytest.mark.parametrize("storage", ["tar", "folder", "parquet"])
def test_a_corrupt_picture(storage, tmp_path, cache, made):
    def picture(number):
        return made.png(number)[:40] if number == 7 else made.png(number)

    dataset = open_stream(made.storages[storage](tmp_path / "data", picture=picture), cache=cache)
    decoded = Reader(dataset, 8).get(np.arange(10))
    faults = [one for one in decoded.samples if isinstance(one, Fault)]
    assert [(one.kind, one.key) for one in faults] == [(CORRUPT, dataset.keys(0)[7])]
    assert decoded.pictures[6, 0, 0, 0] == 6


def test_a_picture_that_vanishes_from_a_folder(tmp_path, cache, made):
    folder = made.folder(tmp_path / "data")
    dataset = open_stream(folder, cache=cache)
    (folder / "0" / "003.png").unlink()
    assert [getattr(one, "kind", None) for one in dataset.read([2, 3])] == [None, VANISHED]


def test_a_damaged_index_is_an_error_with_its_remedy(tmp_path, cache, made):
    folder = indexed(made.tars(tmp_path / "data"))
    shutil.rmtree(cache.folder)
    cache.folder.mkdir()
    (folder / "shards.json").write_text("{}")
    with pytest.raises(ValueError, match="unclip data index"):
        open_stream(folder, cache=cache)


def test_faults_name_few_and_count_all():
    faults = Faults(0.01, option="--set data.bad_share", named=3)
    for number in range(100):
        faults.record(CORRUPT, f"{number}", "damaged")
    faults.record(RETRIED, "tar", "503", 1000)
    assert faults.lost == 100
    assert len(faults.names[CORRUPT]) == 3
    faults.check(100, 1_000_000)
    faults.record(MISSING_ROW, "last", "none")
    with pytest.raises(TooManyBadSamples, match=r"101 of 10,000 samples .* `--set data.bad_share=SHARE`"):
        faults.check(100, 1_000_000)
    faults.check(20_000, 1_000_000)
    with pytest.raises(ValueError, match=r"\[0, 1\], not 2"):
        Faults(2)
