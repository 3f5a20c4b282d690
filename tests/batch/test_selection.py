"""Selections by embeddings: near-duplicates against all pairs, scores against plain formulas, and what training sees of them."""

import json
import pickle
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from unclip.batch import dedup as dedup_module
from unclip.batch.dedup import Dedup, dedup
from unclip.batch.embedded import Embedded
from unclip.batch.filter import Limits, filter_by
from unclip.batch.heads import open_head
from unclip.batch.work import Collector, Outcome, UnitsFailed, Work, load_safely
from unclip.cli.main import main
from unclip.data.sample import TooManyBadSamples
from unclip.data.stream.disk_cache import DiskCache
from unclip.data.stream.faults import Faults
from unclip.data.stream.open import open_stream
from unclip.data.stream.selection import Selected, Selection, SelectionError
from unclip.data.stream.sidecar import IMAGE, Origin, encode_sidecar
from unclip.data.stream.store import LocalStore

WIDTH = 12
ORIGIN = Origin(kind=IMAGE, model="ab" * 32, preprocessing="64 px")


@pytest.fixture
def cache(tmp_path):
    return DiskCache(tmp_path / "cache", 50 << 20)


def clustered(count: int = 45, seed: int = 0) -> np.ndarray:
    """Rows with many near pairs, of lengths that are not 1."""
    generator = np.random.default_rng(seed)
    centres = generator.normal(size=(9, WIDTH))
    rows = centres[generator.integers(9, size=count)] + 0.25 * generator.normal(size=(count, WIDTH))
    return (rows * generator.uniform(0.5, 3, (count, 1))).astype(np.float16)


@pytest.fixture
def data(tmp_path, cache, write_shards):
    """`data(rows, ok)`: shards of ten pictures, with these rows in their sidecars."""

    def make(rows, ok=None, **more) -> Embedded:
        folder = write_shards(tmp_path / "data", len(rows))
        dataset = open_stream(folder, cache=cache)
        ok = np.ones(len(rows), bool) if ok is None else ok
        for number, unit in enumerate(dataset.units):
            # In another order than the samples, as rows are joined by key.
            order = np.random.default_rng(number).permutation(unit.size)
            keys = [dataset.keys(number)[place] for place in order]
            here = unit.start + order
            LocalStore(folder).put(
                ORIGIN.name(unit.name), encode_sidecar(ORIGIN, unit.name, keys, rows[here], ok[here])
            )
        return Embedded(dataset, folder, cache, **more)

    return make


def in_order(embedded: Embedded) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Keys, rows and usable rows in the order of the sidecars, which is that of the comparison."""
    of_hash = {}
    from unclip.data.stream.sidecar import hash_of

    for number in range(len(embedded.dataset.units)):
        of_hash |= {hash_of(key): key for key in embedded.dataset.keys(number)}
    units = list(embedded)
    keys = [of_hash[int(one)] for unit in units for one in unit.hashes]
    return keys, np.concatenate([unit.rows for unit in units]), np.concatenate([one.usable for one in units])


def kept_keys(embedded: Embedded, out, cache) -> set[str]:
    chosen = Selected(embedded.dataset, Selection(out, cache))
    found = [record.key for record in chosen.read(range(len(chosen)))]
    assert found == [key for unit in range(len(chosen.units)) for key in chosen.keys(unit)]
    assert len(set(found)) == len(found)
    return set(found)


def all_pairs(keys, rows, usable, threshold) -> set[str]:
    """The plain form: each sample against every one that is kept before it."""
    rows = rows.astype(np.float64)
    rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    kept: list[int] = []
    for number in np.flatnonzero(usable):
        if all(rows[number] @ rows[other] < threshold for other in kept):
            kept.append(int(number))
    return {keys[number] for number in kept}


@pytest.mark.parametrize("tile", [4096, 7, 1])
@pytest.mark.parametrize("threshold", [0.5, 0.9, 0.97])
def test_near_duplicates_are_those_of_all_pairs(data, tmp_path, cache, monkeypatch, tile, threshold):
    monkeypatch.setattr(dedup_module, "TILE", tile)
    ok = np.arange(45) % 13 != 5
    embedded = data(clustered(), ok, faults=Faults(0.5))
    made = dedup(embedded, Dedup(threshold=threshold), tmp_path / "out")
    expected = all_pairs(*in_order(embedded), threshold)
    assert 5 < len(expected) < 42
    assert kept_keys(embedded, tmp_path / "out", cache) == expected
    assert (made["samples"], sum(made["kept"].values())) == (45, len(expected))
    assert embedded.faults.lost == np.sum(~ok)


def test_blocks_keep_equal_rows_together_and_lose_nothing_else(data, tmp_path, cache):
    rows = clustered(60)
    rows[30:] = rows[:30]
    embedded = data(rows)
    dedup(embedded, Dedup(threshold=1.0, blocks=5), tmp_path / "equal")
    assert len(kept_keys(embedded, tmp_path / "equal", cache)) == 30
    dedup(embedded, Dedup(threshold=0.9, blocks=5), tmp_path / "near")
    found = kept_keys(embedded, tmp_path / "near", cache)
    # Blocks can only miss pairs; every sample that is left out has a neighbour that is kept.
    keys, rows, usable = in_order(embedded)
    assert len(found) >= len(all_pairs(keys, rows, usable, 0.9))
    unit = rows.astype(np.float64) / np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    kept = np.array([key in found for key in keys])
    assert ((unit[~kept] @ unit[kept].T).max(1) >= 0.9 - 1e-4).all()


@pytest.mark.parametrize("layers", [1, 3])
def test_heads_are_the_plain_formula(data, tmp_path, cache, layers):
    torch.manual_seed(0)
    widths = [WIDTH, 8, 5, 1] if layers == 3 else [WIDTH, 1]
    tensors = {}
    for number, (before, after) in enumerate(pairwise(widths)):
        tensors[f"layers.{2 * number}.weight"] = torch.randn(after, before)
        tensors[f"layers.{2 * number}.bias"] = torch.randn(after)
    save_file(tensors, tmp_path / "head.safetensors", {"activation": "relu"})
    embedded = data(clustered())
    keys, rows, _ = in_order(embedded)
    x = torch.from_numpy(rows).float()
    x = x / x.norm(dim=1, keepdim=True)
    for number in range(layers):
        x = x @ tensors[f"layers.{2 * number}.weight"].T + tensors[f"layers.{2 * number}.bias"]
        x = x.clamp(min=0) if number + 1 < layers else x
    low, high = x[:, 0].quantile(torch.tensor([0.31, 0.83])).tolist()
    head = open_head(str(tmp_path / "head.safetensors"))
    filter_by(embedded, head, Limits(at_least=low, at_most=high), tmp_path / "out")
    expected = {key for key, value in zip(keys, x[:, 0].tolist()) if low <= value <= high}
    assert kept_keys(embedded, tmp_path / "out", cache) == expected
    assert 10 < len(expected) < 40


def test_a_selection_of_a_selection(data, tmp_path, cache):
    embedded = data(clustered())
    dedup(embedded, Dedup(threshold=0.9), tmp_path / "first")
    before = kept_keys(embedded, tmp_path / "first", cache)
    (tmp_path / "half_rows.py").write_text("def positive(rows):\n    return rows[:, 0] > 0\n")
    sys.path.insert(0, str(tmp_path))
    try:
        head = open_head("half_rows:positive")
    finally:
        sys.path.remove(str(tmp_path))
    within = Embedded(
        embedded.dataset, tmp_path / "data", cache, selection=Selection(tmp_path / "first", cache)
    )
    filter_by(within, head, Limits(), tmp_path / "second")
    keys, rows, _ = in_order(embedded)
    expected = {key for key, row in zip(keys, rows) if row[0] > 0} & before
    assert kept_keys(embedded, tmp_path / "second", cache) == expected
    assert 0 < len(expected) < len(before)


def elsewhere(work: Work) -> Outcome:
    """A work as a cluster does it: by copies of it that were sent, its units in another order."""
    copy, outcome = pickle.loads(pickle.dumps(work)), Outcome()
    collector, encode = Collector(work, outcome, len(work.units), lambda done, of: None), copy.encoder()
    for unit in reversed(range(len(work.units))):
        for part in load_safely(copy, unit):
            collector.add(part if part.error is not None else pickle.loads(pickle.dumps(encode(part))))
    return outcome


def files_of(folder) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_other_machines_give_the_same_bytes(data, tmp_path, cache):
    ok = np.arange(45) % 13 != 5
    embedded = data(clustered(), ok, faults=Faults(0.5))
    rule = Dedup(threshold=0.9, blocks=3)
    dedup(embedded, rule, tmp_path / "here")
    dedup(embedded, rule, tmp_path / "there", scratch=tmp_path, run=elsewhere)
    assert files_of(tmp_path / "there") == files_of(tmp_path / "here")
    save_file({"weight": torch.ones(1, WIDTH)}, tmp_path / "head.safetensors")
    head, limits = open_head(str(tmp_path / "head.safetensors")), Limits(at_least=0)
    within = Embedded(
        embedded.dataset,
        tmp_path / "data",
        cache,
        selection=Selection(tmp_path / "here", cache),
        faults=Faults(0.5),
    )
    filter_by(within, head, limits, tmp_path / "scored")
    filter_by(within, head, limits, tmp_path / "scored there", elsewhere)
    assert files_of(tmp_path / "scored there") == files_of(tmp_path / "scored")
    assert within.faults.lost == np.sum(~ok)


def test_a_head_that_differs_on_another_machine_is_an_error(tmp_path):
    file = tmp_path / "head.safetensors"
    save_file({"weight": torch.ones(1, WIDTH)}, file)
    sent = pickle.dumps(open_head(str(file)))
    assert pickle.loads(sent).score(np.ones((2, WIDTH), np.float32)).shape == (2,)
    save_file({"weight": torch.zeros(1, WIDTH)}, file)
    with pytest.raises(ValueError, match="copy the same file to all machines"):
        pickle.loads(sent)


def test_a_scratch_that_another_machine_does_not_see_is_named(data, tmp_path):
    def without_its_disk(work: Work) -> Outcome:
        work.files = [file.with_name("gone") for file in work.files]
        return elsewhere(work)

    with pytest.raises(UnitsFailed, match="give a --scratch that all machines see"):
        dedup(data(clustered()), Dedup(threshold=0.9), tmp_path / "out", run=without_its_disk)
    assert not (tmp_path / "out").exists()


def test_what_is_there_is_kept_and_another_rule_refused(data, tmp_path):
    embedded = data(clustered())
    made = dedup(embedded, Dedup(threshold=0.9), tmp_path / "out")
    times = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").iterdir()}
    assert dedup(embedded, Dedup(threshold=0.9), tmp_path / "out") == made
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "out").iterdir()} == times
    with pytest.raises(SelectionError, match="by another rule"):
        dedup(embedded, Dedup(threshold=0.8), tmp_path / "out")


def test_errors_say_what_to_do(data, tmp_path, cache):
    embedded = data(clustered(), np.arange(45) > 5)
    with pytest.raises(TooManyBadSamples, match="6 of 45 samples"):
        dedup(embedded, Dedup(threshold=0.9), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(SelectionError, match="unclip data dedup"):
        Selection(tmp_path / "out", cache)
    with pytest.raises(ValueError, match="cannot be cut into 99 blocks"):
        dedup(embedded, Dedup(threshold=0.9, blocks=99), tmp_path / "out")
    embedded = Embedded(embedded.dataset, tmp_path / "data", cache, faults=Faults(1.0))
    save_file({"weight": torch.ones(2, 7)}, tmp_path / "head.safetensors")
    head = str(tmp_path / "head.safetensors")
    with pytest.raises(ValueError, match="gives 2 scores"):
        open_head(head)
    with pytest.raises(ValueError, match="reads embeddings of 7 numbers, and these have 12"):
        filter_by(embedded, open_head(head, output=1), Limits(at_least=0), tmp_path / "out")
    save_file({"weight": torch.ones(1, WIDTH)}, tmp_path / "head.safetensors")
    with pytest.raises(ValueError, match="--at-least"):
        filter_by(embedded, open_head(head), Limits(), tmp_path / "out")
    save_file({"0.weight": torch.ones(3, WIDTH), "1.weight": torch.ones(1, 3)}, tmp_path / "head.safetensors")
    with pytest.raises(ValueError, match="--activation"):
        open_head(head)
    with pytest.raises(ValueError, match=r"neither a \.safetensors file nor MODULE:FUNCTION"):
        open_head("nothing")
    (tmp_path / "data" / ORIGIN.name("set-train-00002")).unlink()
    with pytest.raises(ValueError, match="no embeddings of set-train-00002"):
        dedup(embedded, Dedup(threshold=0.9), tmp_path / "out")


def test_a_selection_of_other_data_is_an_error(data, tmp_path, cache, write_shards):
    embedded = data(clustered())
    dedup(embedded, Dedup(threshold=0.9), tmp_path / "out")
    chosen = Selection(tmp_path / "out", cache)
    with pytest.raises(SelectionError, match="made for other data: it has no set-train-00005"):
        Selected(open_stream(write_shards(tmp_path / "more", 60), cache=cache), chosen)
    (unit,) = open_stream(write_shards(tmp_path / "less", 3), cache=cache).units
    other = Selected(open_stream(tmp_path / "less", cache=cache), chosen)
    with pytest.raises(SelectionError, match=f"{unit.name} has .* the data have changed"):
        other.keys(0)


def test_the_commands(data, tmp_path, capsys):
    rows = clustered(50)
    rows[25:] = rows[:25]
    data(rows)
    save_file({"weight": torch.ones(1, WIDTH)}, tmp_path / "head.safetensors")
    folder, first, second = (str(tmp_path / name) for name in ("data", "first", "second"))
    assert main(["data", "dedup", folder, "-o", first, "--threshold", "1"]) == 0
    assert capsys.readouterr().out == "25 of 50 samples kept\n"
    head = ["--by", str(tmp_path / "head.safetensors"), "--at-least", "0"]
    assert main(["data", "filter", folder, "-o", second, "--selection", first, *head, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    normal = rows[:25].astype(np.float32)
    assert (found["samples"], found["kept"]) == (50, int((normal.sum(1) >= 0).sum()))
    assert main(["data", "dedup", folder, "-o", first, "--threshold", "1", "--ray", "auto"]) == 2
    assert "--scratch" in capsys.readouterr().err
    assert main(["data", "dedup", folder, "-o", first, "--threshold", "2"]) == 2
    assert "--" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["kept", "scores"])
def test_dedup_reserves_its_scratch_files(data, tmp_path, monkeypatch, name):
    """A memory-mapped file that has no room would end the process where it is written to."""
    from unclip.disk import DiskFull, reserve

    def refuse(file, size, **more):
        if file.name == name:
            raise DiskFull(28, "there is no room", str(file))
        reserve(file, size, **more)

    monkeypatch.setattr(dedup_module, "reserve", refuse)
    with pytest.raises(DiskFull, match="no room"):
        dedup(data(clustered()), Dedup(threshold=0.9), tmp_path / "out", scratch=tmp_path)
    assert not list(tmp_path.glob("unclip-dedup-*"))
