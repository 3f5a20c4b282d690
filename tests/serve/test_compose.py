"""Pieces of a canvas as one picture."""

import random
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from sqlalchemy import update
from starlette.testclient import TestClient

from unclip.cli.main import main
from unclip.errors import RequestError
from unclip.generate.composed import MAX_PIECES, read_composed
from unclip.generate.model import Model
from unclip.images import read_parameters, read_provenance
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


def drawn_over(client: TestClient, finished: Any, pieces: Any, at: tuple[int, int], seed: int) -> str:
    """Id of a picture of 32 pixels that goes on from the pieces, drawn as the page draws a frame."""
    x, y = at
    part = client.post("/api/compose", json={"pieces": pieces, "frame": [x, y, x + 32, y + 32]}).content
    source = client.post("/api/uploads", content=part).json()["id"]
    request = {"kind": "edit", "prompt": "a blue cat", "seed": seed}
    job = client.post("/api/jobs", json={"request": request, "sources": {"picture": source}}).json()
    return finished(job["id"], 120)["pictures"][0]["id"]


def test_whole_canvas_is_made_again_from_its_file(
    client: TestClient, finished: Any, tiny_folder: Path, tmp_path: Path, capsys: Any
):
    request = {"kind": "generate", "prompt": "a red apple", "seed": 3}
    first = finished(client.post("/api/jobs", json={"request": request}).json()["id"], 120)["pictures"][0][
        "id"
    ]
    pieces: list[dict[str, Any]] = [{"id": first}]
    for seed, (x, y) in enumerate([(16, 0), (-8, -16)]):
        pieces.append({"id": drawn_over(client, finished, pieces, (x, y), seed), "x": x, "y": y})
    whole = client.post("/api/compose", json={"pieces": pieces}).content
    provenance = read_provenance(whole)
    assert [(one["left"], one["top"]) for one in provenance["composed"]] == [(8, 16), (24, 16), (0, 0)]
    assert [one["provenance"]["request"]["kind"] for one in provenance["composed"]] == [
        "generate",
        "edit",
        "edit",
    ]
    assert (read_parameters(whole) or "").splitlines()[:2] == ["a red apple", "a blue cat"]
    again = Model.load(tiny_folder).redo(provenance)
    assert (again.image.mode, again.image.tobytes()) == ("RGBA", Image.open(BytesIO(whole)).tobytes())
    assert again.png() == whole
    # Joined and given back, it is a piece itself, and still known.
    joined = client.post("/api/uploads", content=whole).json()
    assert joined["request"] is None
    pieces = [{"id": joined["id"]}]
    pieces.append({"id": drawn_over(client, finished, pieces, (40, 20), 5), "x": 40, "y": 20})
    (tmp_path / "whole.png").write_bytes(client.post("/api/compose", json={"pieces": pieces}).content)
    main(["redo", str(tmp_path / "whole.png"), "-m", str(tiny_folder), "-q"])
    assert "every pixel is the same" in capsys.readouterr().err
    answer = client.post("/api/read", content=whole).json()
    assert (answer["request"], answer["provenance"]["size"]) == (None, [56, 48])
    assert "3 pieces" in answer["warnings"][0]


def test_given_piece_of_a_canvas_is_asked_for(client: TestClient, finished: Any, tiny_folder: Path):
    id, image = given(client, 32, 32, 4)
    pieces: list[dict[str, Any]] = [{"id": id}]
    pieces.append({"id": drawn_over(client, finished, pieces, (16, 0), 1), "x": 16, "y": 0})
    whole = client.post("/api/compose", json={"pieces": pieces}).content
    provenance, model = read_provenance(whole), Model.load(tiny_folder)
    assert "provenance" not in provenance["composed"][0]
    with pytest.raises(RequestError, match="not among the 0 given ones"):
        model.redo(provenance)
    assert model.redo(provenance, image).image.tobytes() == Image.open(BytesIO(whole)).tobytes()


PIECE = {"left": 0, "top": 0, "sha256": "0" * 64}


@pytest.mark.parametrize(
    "change",
    [
        {"provenance": 3},
        {"composed": []},
        {"composed": [PIECE] * (MAX_PIECES + 1)},
        {"composed": [{**PIECE, "left": 1 << 40}]},
        {"composed": [{**PIECE, "left": "0"}]},
        {"composed": [{**PIECE, "other": 1}]},
        {"composed": [{**PIECE, "provenance": {"provenance": 2, "request": {"kind": "generate"}}}]},
        {"composed": "x"},
        {"size": [0, 8]},
        {"size": None},
    ],
)
def test_damaged_provenance_of_pieces_is_refused(change: dict[str, Any]):
    sound = {"provenance": 2, "composed": [PIECE], "size": [8, 8], "composite": True, "unclip": "1"}
    assert read_composed(sound).size == (8, 8)
    with pytest.raises(RequestError):
        read_composed({**sound, **change})


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
