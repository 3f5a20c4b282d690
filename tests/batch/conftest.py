"""Shards of small captioned pictures."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unclip.data.shards import ShardWriter


def png(number: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (3, 4, 3), np.uint8).repeat(12, 0).repeat(10, 1)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def write_shards() -> Callable[..., Path]:
    def write(folder: Path, count: int = 25, per_shard: int = 10, picture=png) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        with ShardWriter(folder, "set-train", per_shard) as writer:
            for number in range(count):
                caption = json.dumps({"caption": f"picture {number}"}).encode()
                writer.add({"png": picture(number), "json": caption})
        return folder

    write.png = png
    return write
