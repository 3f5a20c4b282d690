"""The same captioned pictures in every storage, and an S3 server on this machine that can be made to fail."""

import io
import json
import threading
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from unclip.data.shards import ShardWriter
from unclip.data.stream.disk_cache import DiskCache

COUNT = 35


def png(number: int, side: int = 20) -> bytes:
    """A picture whose colour encodes its number."""
    buffer = io.BytesIO()
    colour = np.array([number % 256, number // 256, 7], np.uint8)
    Image.fromarray(np.full((side, side + 4, 3), colour, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def caption(number: int) -> str:
    return f"picture number {number}"


def write_tars(folder: Path, count=COUNT, per_shard=10, prefix="set-train", picture=png) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with ShardWriter(folder, prefix, per_shard) as writer:
        for number in range(count):
            writer.add({"png": picture(number), "json": json.dumps({"caption": caption(number)}).encode()})
    return folder


def write_folder(folder: Path, count=COUNT, picture=png) -> Path:
    for number in range(count):
        path = folder / f"{number // 10}" / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number))
        path.with_suffix(".txt").write_text(caption(number))
    return folder


def write_table(folder: Path, ending: str, count: int = COUNT) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"file_name": f"{number:03d}.png", "caption": caption(number)} for number in range(count)]
    for number in range(count):
        (folder / f"{number:03d}.png").write_bytes(png(number))
    table = folder / f"metadata.{ending}"
    if ending == "jsonl":
        table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif ending == "csv":
        table.write_text(
            "file_name,caption\n" + "".join(f'{r["file_name"]},"{r["caption"]}"\n' for r in rows)
        )
    else:
        parquet = pytest.importorskip("pyarrow.parquet")
        pa = pytest.importorskip("pyarrow")
        parquet.write_table(pa.Table.from_pylist(rows), table, row_group_size=8)
    return folder


def write_parquet(folder: Path, count=COUNT, picture=png) -> Path:
    """As Hugging Face datasets are stored."""
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    folder.mkdir(parents=True, exist_ok=True)
    for part, numbers in enumerate((range(20), range(20, count))):
        table = pa.table(
            {
                "image": [{"bytes": picture(number), "path": f"{number}.png"} for number in numbers],
                "text": [caption(number) for number in numbers],
            }
        )
        name = f"train-{part:05d}-of-00002.parquet"
        parquet.write_table(table, folder / name, row_group_size=6)
    return folder


STORAGES = {
    "tar": write_tars,
    "folder": write_folder,
    "csv": lambda folder: write_table(folder, "csv"),
    "jsonl": lambda folder: write_table(folder, "jsonl"),
    "parquet table": lambda folder: write_table(folder, "parquet"),
    "parquet": write_parquet,
}


@pytest.fixture
def made() -> SimpleNamespace:
    """What writes and describes the data sets."""
    return SimpleNamespace(
        count=COUNT, storages=STORAGES, png=png, caption=caption, tars=write_tars, folder=write_folder
    )


@pytest.fixture
def cache(tmp_path) -> DiskCache:
    return DiskCache(tmp_path / "cache" / "pieces", 50 << 20)


@dataclass
class S3:
    """A server that speaks S3's protocol, and what it is made to do."""

    endpoint: str
    failing: list[int] = field(default_factory=list)
    """Status codes of the next answers, before it works again."""
    delay: float = 0.0
    requests: list[tuple[str, str]] = field(default_factory=list)
    buckets: int = 0

    def upload(self, folder: Path) -> str:
        """The URL of a copy of a folder."""
        import obstore
        from obstore.store import S3Store

        self.buckets += 1
        bucket = f"bucket-{self.buckets}"
        self._create(bucket)
        store = S3Store(bucket, client_options={"allow_http": True})
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                obstore.put(store, f"data/{path.relative_to(folder).as_posix()}", path)
        self.requests.clear()
        return f"s3://{bucket}/data"

    def _create(self, bucket: str) -> None:
        import urllib.request

        request = urllib.request.Request(f"{self.endpoint}/{bucket}", method="PUT")
        with urllib.request.urlopen(request):
            pass

    def delete(self, url: str, name: str) -> None:
        import obstore
        from obstore.store import from_url

        obstore.delete(from_url(url, client_options={"allow_http": True}), name)

    def put(self, url: str, name: str, data: bytes) -> None:
        import obstore
        from obstore.store import from_url

        obstore.put(from_url(url, client_options={"allow_http": True}), name, data)


@pytest.fixture(scope="session")
def _server():
    pytest.importorskip("obstore")
    moto = pytest.importorskip("moto.server")
    from werkzeug.serving import make_server

    app = moto.DomainDispatcherApplication(moto.create_backend_app)
    state = S3("")

    def answer(environ, start_response):
        import time

        state.requests.append((environ["REQUEST_METHOD"], environ["PATH_INFO"]))
        if state.delay:
            time.sleep(state.delay)
        if state.failing:
            code = state.failing.pop(0)
            start_response(f"{code} made to fail", [("Content-Length", "0")])
            return [b""]
        return app(environ, start_response)

    server = make_server("127.0.0.1", 0, answer, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    state.endpoint = f"http://127.0.0.1:{server.port}"
    yield state
    server.shutdown()
    thread.join()


@pytest.fixture
def s3(_server, monkeypatch) -> S3:
    for name, value in {
        "AWS_ENDPOINT_URL": _server.endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    _server.failing.clear()
    _server.delay = 0.0
    return _server
