"""Pieces of a canvas as one picture."""

import random
from io import BytesIO
from typing import Any

import pytest
from PIL import Image
from sqlalchemy import update
from starlette.testclient import TestClient

from unclip.images.metadata import COMPOSITE
from unclip.serve.tables import uploads


def given(client: TestClient, width: int, height: int, seed: int) -> tuple[str, Image.Image]:
    image = Image.frombytes("RGB", (width, height), random.Random(seed).randbytes(3 * width * height))
    buffer = BytesIO()
    image.save(buffer, "PNG")
    return client.post("/api/uploads", content=buffer.getvalue()).json()["id"], image


def composed(client: TestClient, **body: Any) -> Image.Image:
    answer = client.post("/api/compose", json=body)
    assert answer.status_code == 200, answer.text
    assert COMPOSITE.encode() in answer.content
    return Image.open(BytesIO(answer.content))


def test_pieces_lie_where_they_are_put_and_later_ones_above(client: TestClient):
    (a, below), (b, above) = given(client, 8, 6, 1), given(client, 4, 4, 2)
    pieces = [{"id": a}, {"id": b, "x": 6, "y": -2}]
    whole = composed(client, pieces=pieces)
    assert (whole.size, whole.mode) == ((10, 8), "RGBA")
    assert whole.getpixel((0, 0)) == (0, 0, 0, 0)
    assert whole.getpixel((0, 2)) == (*below.getpixel((0, 0)), 255)
    assert whole.getpixel((7, 3)) == (*above.getpixel((1, 3)), 255)
    part = composed(client, pieces=pieces, frame=[0, 0, 8, 6])
    assert (part.size, part.mode) == ((8, 6), "RGB")
    outside = composed(client, pieces=pieces, frame=[-4, -4, 0, 0])
    assert outside.getextrema() == ((0, 0),) * 4


@pytest.mark.parametrize(
    "body",
    [
        {"pieces": []},
        {"pieces": [{"id": "x"}] * 300},
        {"pieces": [{"id": "x", "x": 1 << 30}]},
        {"pieces": [{"id": "x"}], "frame": [0, 0, 0, 8]},
        {"pieces": [{"id": "x"}], "frame": [0, 0, 100_000, 8]},
        {"pieces": [{"id": "x"}], "frame": [1 << 40, 0, (1 << 40) + 1, 8]},
    ],
)
def test_nonsense_is_refused(client: TestClient, body: dict[str, Any]):
    assert client.post("/api/compose", json=body).status_code == 400


def test_missing_pieces_and_far_ones_are_refused(client: TestClient):
    id = "00000000-0000-4000-8000-000000000000"
    assert client.post("/api/compose", json={"pieces": [{"id": id}]}).status_code == 404
    assert client.post("/api/compose", json={"pieces": [{"id": "../../etc/passwd"}]}).status_code == 404
    real, _ = given(client, 8, 8, 1)
    answer = client.post("/api/compose", json={"pieces": [{"id": real}, {"id": real, "x": 10_000}]})
    assert answer.status_code == 400
    assert "10008x8" in answer.json()["error"]["message"]


def test_given_picture_of_a_canvas_is_kept(client: TestClient):
    (kept, _), (unused, _) = given(client, 8, 8, 1), given(client, 8, 8, 2)
    client.post("/api/canvases", json={"width": 8, "height": 8, "state": {"now": {"base": {"id": kept}}}})
    service: Any = client.app.state.service
    with service.database.write() as connection:
        connection.execute(update(uploads).values(created=0.0))
    service.library.clean()
    assert client.get(f"/api/uploads/{kept}/file").status_code == 200
    assert client.get(f"/api/uploads/{unused}/file").status_code == 404
