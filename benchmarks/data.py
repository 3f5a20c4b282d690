"""Samples per second of reading data sets into a step that does nothing, beside webdataset and datasets on the same files.

    pip install webdataset datasets 'unclip[cloud,parquet]' 'moto[s3,server]' psutil
    python benchmarks/data.py --samples 10000 --folder /tmp/unclip-data                          # 5 minutes on 2 cores
    python benchmarks/data.py --samples 100000 --side 64 --linked --folder /tmp/unclip-data      # about 10
    python benchmarks/data.py --samples 1000000 --side 64 --linked --folder /tmp/unclip-data     # about an hour, 6 GB

With --linked, files after the first are hard links to the first ones, so that a million samples fit a small disk; loaders
cannot know. Writes JPEG pictures of 256 px with captions (folder, tar shards, parquet), then measures, one after the other and each in a
process of its own: pictures at 64 px with their captions, in random order, in batches of 256, with 2 workers, for one
epoch. Every loader decodes the same JPEG bytes to the same size with Pillow: RGB, upright, the middle square, averaged. Processor time is
that of the process and its workers, over all of it; samples per second depend more on what else the machine does. "Once" is processor
time spent before the epoch on files that are kept: `datasets` makes Arrow of parquet; unclip takes rows out of parquet as it reads, in the first
epoch, which is the one measured. Memory is the proportional set size of the process and its
workers, read four times a second: the largest, and its growth over the second half of the epoch.
"""

import argparse
import importlib
import io
import json
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

SIZE, BATCH, WORKERS, PER_SHARD = 64, 256, 2, 1000


LINKED = 10
"""So many shards have contents of their own, where the others are links."""
MOST_ON_S3 = 200_000
"""The test server holds all shards in memory."""


def picture(number: int, side: int) -> bytes:
    """A JPEG: soft shapes and some noise, about 12 KB at 256 px, like a photograph of that size."""
    from PIL import Image

    rng = np.random.default_rng(number)
    small = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).resize(
        (side, side), Image.Resampling.BICUBIC
    )
    pixels = np.asarray(small).astype(np.int16) + rng.integers(-12, 13, (side, side, 3))
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def write(root: Path, count: int, side: int, linked: bool) -> None:
    """The same samples three times; pictures repeat after 2,000, as only their decoding takes time.

    linked: files after the first ones are links to these.
    """
    from unclip.data.shards import ShardWriter
    from unclip.data.stream.index import write_indexes

    if (root / "done").exists():
        return
    import pyarrow as pa
    from pyarrow import parquet

    kept = [picture(number, side) for number in range(min(count, 2000))]
    shards = min(count, LINKED * PER_SHARD) if linked else count
    folder, tars, tables = root / "folder", root / "tar", root / "parquet"
    for one in (folder, tars, tables):
        one.mkdir(parents=True, exist_ok=True)
    with ShardWriter(tars, "set-train", PER_SHARD) as writer:
        for number in range(count):
            data, caption = kept[number % len(kept)], f"picture number {number}"
            path = folder / f"{number // 1000:04d}" / f"{number:08d}.jpg"
            path.parent.mkdir(exist_ok=True)
            if linked and number >= len(kept):
                first = folder / f"{number % len(kept) // 1000:04d}" / f"{number % len(kept):08d}.jpg"
                for suffix in (".jpg", ".txt"):
                    os.link(first.with_suffix(suffix), path.with_suffix(suffix))
            else:
                path.write_bytes(data)
                path.with_suffix(".txt").write_text(caption)
            if number < shards:
                writer.add({"jpg": data, "txt": caption.encode()})
    for part in range(-(-shards // PER_SHARD), -(-count // PER_SHARD)):
        os.link(tars / f"set-train-{part % LINKED:05d}.tar", tars / f"set-train-{part:05d}.tar")
    written: list[Path] = []
    for part, first in enumerate(range(0, count, PER_SHARD * 5)):
        name = f"train-{part:05d}-of-{-(-count // (PER_SHARD * 5)):05d}.parquet"
        if linked and written:
            os.link(written[0], tables / name)
            continue
        numbers = range(first, min(first + PER_SHARD * 5, count))
        table = pa.table(
            {
                "image": [{"bytes": kept[n % len(kept)], "path": f"{n}.jpg"} for n in numbers],
                "text": [f"picture number {n}" for n in numbers],
            }
        )
        parquet.write_table(table, tables / name, row_group_size=100)
        written.append(tables / name)
    write_indexes(tars)
    (root / "done").touch()


def small(data: bytes) -> np.ndarray:
    """What each of the other loaders decodes with: upright, RGB, middle square, 64 px by averaging, as ours.

    Ours also checks the size before it decodes, and converts colour profiles, which these pictures do not have.
    """
    from PIL import Image, ImageOps

    image = Image.open(io.BytesIO(data))
    ImageOps.exif_transpose(image, in_place=True)
    image = image.convert("RGB")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    image = image.crop((left, top, left + side, top + side)).resize((SIZE, SIZE), Image.Resampling.BOX)
    return np.asarray(image).transpose(2, 0, 1)


def ours(place: str) -> Iterator[int]:
    from unclip.data.permutation import PermutedOrder
    from unclip.data.stream.disk_cache import DiskCache
    from unclip.data.stream.open import open_stream
    from unclip.data.stream.reader import Reader

    cache = DiskCache(Path(os.environ["BENCHMARK_CACHE"]) / "pieces", 20 << 30)
    dataset = open_stream(place, cache=cache)
    order = PermutedOrder(len(dataset), 0, block=4096, window=65536)
    starts = range(0, len(dataset), BATCH)
    reader = Reader(dataset, SIZE, workers=WORKERS)
    requests = (order.indices(start, min(start + BATCH, len(dataset))) for start in starts)
    try:
        for decoded in reader.batches(requests):
            yield len(decoded.samples)
    finally:
        reader.close()


def with_webdataset(place: str) -> Iterator[int]:
    """Shards in random order and a shuffle buffer of 1,000, by its own loader."""
    import webdataset  # pyright: ignore[reportMissingImports]

    wds: Any = webdataset

    tars = sorted(str(path) for path in Path(place).glob("*.tar"))
    dataset = (
        wds.WebDataset(tars, shardshuffle=len(tars), seed=0)
        .shuffle(1000)
        .to_tuple("jpg", "txt")
        .map_tuple(small, bytes.decode)
        .batched(BATCH)
    )
    for pictures, _ in wds.WebLoader(dataset, batch_size=None, num_workers=WORKERS):
        yield len(pictures)


def with_datasets(place: str) -> Iterator[int]:
    """Parquet as an Arrow data set in random order (its own cache is made before the clock starts)."""
    import torch

    dataset = arrow(place).shuffle(seed=0)
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=BATCH, num_workers=WORKERS, collate_fn=collated, prefetch_factor=4
    )
    for pictures, _ in loader:
        yield len(pictures)


def with_datasets_streaming(place: str) -> Iterator[int]:
    """Parquet as a stream with a shuffle buffer of 1,000."""
    import torch
    from datasets import Image, load_dataset  # pyright: ignore[reportMissingImports]

    files = sorted(str(path) for path in Path(place).glob("*.parquet"))
    streamed: Any = load_dataset("parquet", data_files=files, split="train", streaming=True)
    dataset: Any = streamed.cast_column("image", Image(decode=False)).shuffle(seed=0, buffer_size=1000)
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=BATCH, num_workers=WORKERS, collate_fn=collated, prefetch_factor=4
    )
    for pictures, _ in loader:
        yield len(pictures)


def arrow(place: str) -> Any:
    from datasets import Image, load_dataset  # pyright: ignore[reportMissingImports]

    files = sorted(str(path) for path in Path(place).glob("*.parquet"))
    cache = Path(os.environ["BENCHMARK_CACHE"]) / "arrow"
    dataset = load_dataset("parquet", data_files=files, split="train", cache_dir=str(cache))
    return dataset.cast_column("image", Image(decode=False))


def collated(rows: list[dict[str, Any]]) -> tuple[np.ndarray, list[str]]:
    return np.stack([small(row["image"]["bytes"]) for row in rows]), [row["text"] for row in rows]


LOADERS: dict[str, tuple[Callable[[str], Iterator[int]], str]] = {
    "folder, unclip": (ours, "folder"),
    "tar, unclip": (ours, "tar"),
    "tar, webdataset": (with_webdataset, "tar"),
    "parquet, unclip": (ours, "parquet"),
    "parquet, datasets (Arrow)": (with_datasets, "parquet"),
    "parquet, datasets (streamed)": (with_datasets_streaming, "parquet"),
    "S3 tar, unclip": (ours, "s3"),
}


def memory() -> float:
    """MiB of this process and its children: pages that several share count once."""
    import psutil

    own = psutil.Process()
    total = 0
    for one in [own, *own.children(recursive=True)]:
        try:
            total += one.memory_full_info().pss
        except (psutil.Error, OSError):
            continue
    return total / 2**20


def processor_time() -> float:
    """Seconds of this process and of its children that have ended."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


def measure(name: str, place: str) -> None:
    """One loader, in this process; prints JSON."""
    loader, _ = LOADERS[name]
    # What each of them imports is not counted, nor the Arrow file that `datasets` makes of parquet first.
    importlib.import_module("torch")
    importlib.import_module({"with_webdataset": "webdataset"}.get(loader.__name__, "unclip.data.permutation"))
    once = processor_time()
    if loader is with_datasets:
        importlib.import_module("datasets")
        once = processor_time()
        arrow(place)
    once = processor_time() - once
    if loader is with_datasets_streaming:
        importlib.import_module("datasets")
    readings: list[tuple[float, float]] = []
    idle = processor_time()
    stopped = threading.Event()

    def watch() -> None:
        while not stopped.wait(0.25):
            readings.append((time.monotonic(), memory()))

    threading.Thread(target=watch, daemon=True).start()
    began = time.monotonic()
    seen, first, after_first = 0, 0.0, 0
    for count in loader(place):
        seen += count
        if not first:
            first, after_first = time.monotonic(), seen
    ended = time.monotonic()
    stopped.set()
    middle, quarter = began + (ended - began) / 2, (ended - began) / 4
    spent = processor_time() - idle
    early = [value for at, value in readings if middle - quarter <= at <= middle]
    late = [value for at, value in readings if at >= ended - quarter]
    growth = float(np.median(late) - np.median(early)) if early and late else float("nan")
    result = {
        "samples": seen,
        "seconds": ended - began,
        "processor": 1000 * spent / seen,
        "once": 1000 * once / seen,
        "rate": (seen - after_first) / (ended - first),
        "first": first - began,
        "peak": max((value for _, value in readings), default=float("nan")),
        "growth": growth,
    }
    print(json.dumps(result))


def s3_server(folder: Path, port: int) -> None:
    """A server that speaks S3's protocol, and holds the tar shards in memory."""
    import logging
    import urllib.request

    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    WSGIRequestHandler.protocol_version = "HTTP/1.1"
    app = DomainDispatcherApplication(create_backend_app)
    server = make_server("127.0.0.1", port, app, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    put = f"http://127.0.0.1:{port}/bench"
    urllib.request.urlopen(urllib.request.Request(put, method="PUT")).close()
    for path in sorted(folder.iterdir()):
        header = {"Content-Type": "application/octet-stream"}
        url = f"{put}/tar/{path.name}"
        request = urllib.request.Request(url, data=path.read_bytes(), headers=header, method="PUT")
        urllib.request.urlopen(request).close()
    (folder.parent / f"s3-{port}").touch()
    threading.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--side", type=int, default=256, help="of the pictures in pixels (default: 256)")
    parser.add_argument(
        "--linked", action="store_true", help="hard links in place of most files (whole thousands)"
    )
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--only", nargs="*", help="loaders whose name contains one of these")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(*arguments.measure)
        return
    if arguments.linked and arguments.samples % (PER_SHARD * 5):
        parser.error(f"--samples {arguments.samples}: with --linked give a multiple of {PER_SHARD * 5}")
    root = arguments.folder / f"{arguments.samples}-{arguments.side}px{'-linked' if arguments.linked else ''}"
    write(root, arguments.samples, arguments.side, arguments.linked)
    known = [name for name in LOADERS if arguments.samples <= MOST_ON_S3 or "S3" not in name]
    chosen = [name for name in known if not arguments.only or any(one in name for one in arguments.only)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    server = None
    if any("S3" in name for name in chosen):
        import socket

        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        server = multiprocessing.get_context("spawn").Process(
            target=s3_server, args=(root / "tar", port), daemon=True
        )
        server.start()
        while not (root / f"s3-{port}").exists():
            if not server.is_alive():
                raise RuntimeError("the S3 server did not start")
            time.sleep(0.2)
        (root / f"s3-{port}").unlink()
        environment |= {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "x",
            "AWS_SECRET_ACCESS_KEY": "x",
            "AWS_REGION": "us-east-1",
        }
    print(f"{arguments.samples:,} samples, {WORKERS} workers, load {os.getloadavg()[0]:.1f}", flush=True)
    print(
        "| files, loader | processor ms/sample | once | samples/s | first batch, s | peak MiB | growth, MiB |\n|---|---|---|---|---|---|---|"
    )
    for name in chosen:
        place = "s3://bench/tar" if LOADERS[name][1] == "s3" else str(root / LOADERS[name][1])
        environment["BENCHMARK_CACHE"] = str(root / "cache" / name.replace(" ", "-").replace(",", ""))
        # What an earlier run has left there would spare work.
        shutil.rmtree(environment["BENCHMARK_CACHE"], ignore_errors=True)
        Path(environment["BENCHMARK_CACHE"]).mkdir(parents=True)
        command = [sys.executable, __file__, "--folder", str(root), "--measure", name, place]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            print(f"| {name} | failed: {done.stderr.strip().splitlines()[-1][:120]} | | | | | |")
            continue
        found = json.loads(done.stdout.splitlines()[-1])
        print(
            f"| {name} | {found['processor']:.3f} | {found['once']:.3f} | {found['rate']:,.0f} | {found['first']:.1f} | {found['peak']:,.0f} | {found['growth']:+.0f} |",
            flush=True,
        )
    if server is not None:
        server.terminate()


if __name__ == "__main__":
    main()
