"""Indexes of shards that are damaged or made by others: refused by name, and the tar is read in their place."""

import io
import json
import logging
import tarfile

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load, save

from unclip.data.stream.disk_cache import DiskCache
from unclip.data.stream.faults import Faults
from unclip.data.stream.open import open_stream
from unclip.data.stream.tar_index import TarIndex, build_index


@pytest.fixture
def tar(tmp_path):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(buffer, "PNG")
    (tmp_path / "data").mkdir()
    with tarfile.open(tmp_path / "data" / "x-000.tar", "w") as tar:
        for name, data in (
            ("0.png", buffer.getvalue()),
            ("0.txt", b"one"),
            ("1.png", buffer.getvalue()),
            ("1.txt", b"two"),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return tmp_path / "data" / "x-000.tar"


def spans(*rows):
    return np.array(rows, dtype=np.int64)


CHANGES = {
    "before the beginning": {"picture": spans((-512, 10), (1024, 10))},
    "behind the end": {"txt": spans((10**15, 3), (512, 3))},
    "longer than the tar": {"picture": spans((512, 2**62), (512, 5))},
    "sums that overflow": {"picture": spans((2**62, 2**62), (2**63 - 1, 2**63 - 1))},
    "a negative length": {"picture": spans((512, -1), (512, 5))},
    "other numbers of samples": {"json": spans((0, 0))},
    "ends that fall": {"ends": np.array([2, 1], dtype=np.int64)},
    "ends behind the keys": {"ends": np.array([1, 99], dtype=np.int64)},
    "keys that are no text": {"keys": np.array([255, 254], dtype=np.uint8)},
    "another type": {"picture": np.zeros((2, 2), dtype=np.float32)},
}


@pytest.mark.parametrize("name", CHANGES)
def test_places_that_no_tar_has_are_refused_and_the_tar_is_read(tar, tmp_path, caplog, name):
    """They ended the run with "Invalid argument", or asked for more memory than there is."""
    data = build_index(tar).to_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    damaged = save(load(data) | CHANGES[name], header["__metadata__"])
    with pytest.raises(ValueError, match=r"^x\.index is no index of a shard"):
        TarIndex.from_bytes(damaged, "x.index")
    tar.with_suffix(".index").write_bytes(damaged)
    with caplog.at_level(logging.WARNING):
        found = open_stream(tar.parent, cache=DiskCache(tmp_path / "cache"), faults=Faults(1.0))
        assert [one.sample().captions for one in found.read([0, 1])] == [("one",), ("two",)]  # pyright: ignore[reportAttributeAccessIssue]
    assert "the tar was read instead" in caplog.text


def test_a_header_that_is_nested_deep_is_damage():
    text = b"[" * 100_000
    with pytest.raises(ValueError, match="is no index of a shard"):
        TarIndex.from_bytes(len(text).to_bytes(8, "little") + text, "x.index")
