"""Malformed requests, as bytes on the wire: a pure function of a number."""

import io
import json
import random
import struct
import zlib
from collections.abc import Callable
from typing import NamedTuple

from PIL import Image


class Sent(NamedTuple):
    """A request: what it is, and its bytes."""

    kind: str
    data: bytes


def picture(form: str = "PNG", size: int = 32, mode: str = "RGBA") -> bytes:
    buffer = io.BytesIO()
    image = Image.new("RGBA", (size, size), (200, 40, 40, 255))
    image.paste((0, 0, 0, 0), (0, 0, size // 2, size // 2))
    image.convert(mode).save(buffer, format=form)
    return buffer.getvalue()


PICTURES = {"PNG": picture(), "WEBP": picture("WEBP"), "JPEG": picture("JPEG", mode="RGB")}
NASTY = [
    "", " ", "\x00", "null", "true", "-1", "0", "1e309", "NaN", "9" * 400, "../../etc/passwd", "..\\..\\windows", "%00",
    "<script>alert(1)</script>", "' OR 1=1 --", "{{7*7}}", "${jndi:ldap://x}", "\u202e", "\ud800", "\U0001f680" * 40,
    "a" * 5000, "http://127.0.0.1:1/", "file:///etc/passwd", "data:image/png;base64,AAAA", "C:\\x", "/dev/zero", "\r\nX: y",
]  # fmt: skip
FIELDS = [
    "prompt", "n", "size", "model", "response_format", "user", "quality", "stream", "partial_images", "seed", "sampling",
    "steps", "guidance", "negative_prompt", "fit", "eta", "image", "mask", "images", "background", "output_format", "x",
]  # fmt: skip
PATHS = [
    "/v1/images/generations", "/v1/images/edits", "/v1/images/variations", "/v1/models", "/v1/models/dall-e-2",
    "/v1/files/images/x.png", "/v1/files/images/..%2f..%2fetc%2fpasswd", "/v1/../v1/models", "//v1/models", "/v1/images/",
    "/v1/files/images/" + "A" * 54 + ".png", "/v1/models/%00", "/v1/models/" + "a" * 3000, "/v1/images/generations/../edits",
    "/api/jobs", "/api/pictures/..%2f..%2fx/file", "/api/jobs/..%5c..%5cx", "/api/uploads", "/", "/healthz", "/%ff%fe",
]  # fmt: skip


def make(number: int, key: str) -> Sent:
    """Malformed request `number`."""
    chance = random.Random(number)
    kinds: list[Callable[[random.Random, str], Sent]] = [
        broken_json, wrong_json, broken_form, wrong_form, broken_picture, lying_picture, odd_headers, odd_line,
    ]  # fmt: skip
    return kinds[number % len(kinds)](chance, key)


def request(
    method: str,
    path: str,
    key: str,
    body: bytes,
    headers: list[tuple[str, str | bytes]],
    *,
    length: bool = True,
) -> bytes:
    lines = [
        f"{method} {path} HTTP/1.1".encode("latin-1", "replace"),
        b"Host: 127.0.0.1",
        b"Connection: close",
    ]
    lines.append(f"Authorization: Bearer {key}".encode())
    for name, value in headers:
        encoded = value if isinstance(value, bytes) else value.encode("latin-1", "replace")
        lines.append(name.encode("latin-1", "replace") + b": " + encoded)
    if length:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def value(chance: random.Random, depth: int = 0):
    """A JSON value of any kind."""
    pick = chance.randrange(9 if depth < 3 else 6)
    if pick == 0:
        return chance.choice([None, True, False])
    if pick == 1:
        return chance.choice([0, 1, -1, 2**31, 2**63, 2**64, -(2**63), 10**30, chance.randrange(-100, 100)])
    if pick == 2:
        return chance.choice([0.0, -0.0, 1.5, 1e308, 5e-324, 0.1])
    if pick < 6:
        return chance.choice(NASTY)
    if pick == 6:
        return [value(chance, depth + 1) for _ in range(chance.randrange(4))]
    return {
        chance.choice([*FIELDS, "decoder", "prior"]): value(chance, depth + 1)
        for _ in range(chance.randrange(4))
    }


def wrong_json(chance: random.Random, key: str) -> Sent:
    body = {chance.choice(FIELDS): value(chance) for _ in range(chance.randrange(1, 8))}
    # A prompt that is right, so that others are reached; one thing at least is wrong.
    body["prompt"] = "a red apple" if chance.random() < 0.7 else value(chance)
    body[chance.choice(["n", "size", "response_format", "stream"])] = chance.choice(
        [[], {}, -5, "none", 1.25]
    )
    path = chance.choice(PATHS[:3])
    return Sent(
        "wrong JSON",
        request("POST", path, key, json.dumps(body).encode(), [("Content-Type", "application/json")]),
    )


def broken_json(chance: random.Random, key: str) -> Sent:
    text = json.dumps({"prompt": "a red apple", "n": 1, "size": "256x256"}).encode()
    pick = chance.randrange(8)
    if pick == 0:
        text = text[: chance.randrange(len(text))]
    elif pick == 1:
        position = chance.randrange(len(text))
        text = text[:position] + chance.randbytes(chance.randrange(1, 5)) + text[position:-2]
    elif pick == 2:
        text = b"[" * chance.randrange(1, 200_000)
    elif pick == 3:
        text = b'{"prompt":' * chance.randrange(1, 20_000) + b"1"
    elif pick == 4:
        text = b'{"n": ' + b"9" * chance.randrange(1, 100_000) + b"}"
    elif pick == 5:
        text = chance.choice(
            [b"NaN", b"null", b"3", b'"x"', b"[]", b"", b"\xff\xfe{\x00}\x00", b"\xef\xbb\xbf{}"]
        )
    elif pick == 6:
        text = b'{"prompt": "a\\ud800b", "n": 1}'
    else:
        text = chance.randbytes(chance.randrange(200))
    kind = chance.choice(["application/json", "text/plain", "application/json; charset=utf-7", "", "*/*"])
    return Sent("broken JSON", request("POST", chance.choice(PATHS[:3]), key, text, [("Content-Type", kind)]))


def part(name: str, content: bytes, filename: str | None = None, kind: str | None = None) -> bytes:
    head = f'Content-Disposition: form-data; name="{name}"'
    if filename is not None:
        head += f'; filename="{filename}"'
    if kind is not None:
        head += f"\r\nContent-Type: {kind}"
    return head.encode("utf-8", "surrogatepass") + b"\r\n\r\n" + content + b"\r\n"


def form(parts: list[bytes], boundary: bytes = b"xyz") -> bytes:
    return b"".join(b"--" + boundary + b"\r\n" + one for one in parts) + b"--" + boundary + b"--\r\n"


def multipart(chance: random.Random, key: str, body: bytes, boundary: str = "xyz") -> bytes:
    path = chance.choice(PATHS[1:3])
    return request("POST", path, key, body, [("Content-Type", f"multipart/form-data; boundary={boundary}")])


def wrong_form(chance: random.Random, key: str) -> Sent:
    kinds = [
        "image/png",
        "image/svg+xml",
        "text/html",
        "",
        "application/octet-stream",
        "x" * 300,
        "image/png\x00",
    ]
    names = [
        "a.png",
        "../../x.png",
        "..\\x",
        "",
        "a\x00.png",
        "x" * 500,
        "<b>.html",
        "con",
        '"',
        "%2e%2e%2f",
        "é.png",
    ]
    parts = [part("prompt", b"a red apple")] if chance.random() < 0.7 else []
    for _ in range(chance.randrange(1, 8)):
        name = chance.choice([*FIELDS, "image[]", "mask[]"])
        text = chance.choice(NASTY).encode("utf-8", "surrogatepass")
        if chance.random() < 0.4:
            data = chance.choice([*PICTURES.values(), b"", text, chance.randbytes(50)])
            parts.append(part(name, data, chance.choice(names), chance.choice(kinds)))
        else:
            parts.append(part(name, text))
    parts.append(part(chance.choice(["n", "size", "response_format"]), b"none"))
    return Sent("wrong form", multipart(chance, key, form(parts)))


def broken_form(chance: random.Random, key: str) -> Sent:
    whole = form(
        [part("prompt", b"x"), part("image", PICTURES["PNG"], "a.png", "image/png"), part("n", b"none")]
    )
    boundary, pick = "xyz", chance.randrange(10)
    if pick == 0:
        whole = whole[: chance.randrange(len(whole))]
    elif pick == 1:
        boundary = chance.choice(
            ["", "abc", '"', '"xyz', "x" * 5000, "\xff", "xyz; boundary=abc", " ", "x y z", "=="]
        )
    elif pick == 2:
        whole = whole.replace(b"\r\n", chance.choice([b"\n", b"\r", b"\r\r\n", b""]), chance.randrange(1, 9))
    elif pick == 3:
        whole = whole.replace(
            b"Content-Disposition",
            chance.choice([b"Content-Disposition: x\r\nContent-Disposition", b"X", b""]),
        )
    elif pick == 4:
        whole = form([part("x", b"1")] * chance.randrange(51, 3000))
    elif pick == 5:
        whole = form([part("image", b"1", "a")] * chance.randrange(21, 200))
    elif pick == 6:
        whole = form([b"X-Header: " + b"a" * chance.randrange(1, 100_000) + b"\r\n" + part("x", b"1")])
    elif pick == 7:
        whole = form([b"a: b\r\n" * chance.randrange(1, 5000) + part("x", b"1")])
    elif pick == 8:
        data = bytearray(whole)
        for _ in range(chance.randrange(1, 20)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        whole = bytes(data)
    else:
        whole = b"--xyz" + b"\r\n" * chance.randrange(1, 200_000) + b"--xyz--"
    return Sent("broken form", multipart(chance, key, whole, boundary))


def with_picture(chance: random.Random, key: str, data: bytes) -> bytes:
    kind = chance.choice(["image/png", "image/jpeg", "image/webp", "application/octet-stream"])
    parts = [part("image", data, "a.png", kind), part("size", b"256x256")]
    if chance.random() < 0.5:
        parts.append(part("prompt", b"a red apple"))
    if chance.random() < 0.3:
        parts.append(part("mask", PICTURES["PNG"], "m.png", "image/png"))
    # Sound but for the picture, and for a number that keeps the few that survive from being drawn.
    return multipart(chance, key, form([*parts, part("n", b"11")] if chance.random() < 0.3 else parts))


def broken_picture(chance: random.Random, key: str) -> Sent:
    data = bytearray(chance.choice(list(PICTURES.values())))
    for _ in range(chance.randrange(1, 12)):
        pick, position = chance.randrange(4), chance.randrange(12, len(data))
        if pick == 0:
            data[position] = chance.randrange(256)
        elif pick == 1:
            del data[position : position + chance.randrange(1, 20)]
        elif pick == 2:
            data[position:position] = chance.randbytes(chance.randrange(1, 20))
        else:
            data = data[: position + 4]
        if len(data) < 20:
            break
    return Sent("broken picture", with_picture(chance, key, bytes(data)))


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def lying_picture(chance: random.Random, key: str) -> Sent:
    head = b"\x89PNG\r\n\x1a\n"
    side = chance.choice([0, 1, 4096, 4097, 20_000, 65_535, 2**31 - 1, 2**32 - 1])
    other = chance.choice([1, 16, 4096, 2**31])
    depth, colour = chance.choice([(8, 6), (8, 2), (16, 6), (1, 3), (8, 0), (7, 9)])
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, other, depth, colour, 0, 0, chance.choice([0, 1])))
    pixels = zlib.compress(bytes(chance.choice([10, 100_000, 4_000_000])), 9)
    bomb = zlib.compress(bytes(4_000_000), 9)
    extra = chance.choice(
        [
            b"",
            chunk(b"zTXt", b"a\0\0" + bomb),
            chunk(b"iCCP", b"p\0\0" + bomb),
            chunk(b"tEXt", b"unclip\0" + b"[" * 100_000),
            chunk(b"iTXt", b"unclip\0\1\0\0\0" + bomb),
            chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0)),
            chunk(b"IHDR", b"x"),
            struct.pack(">I", 2**32 - 1) + b"tEXt",
            chunk(b"PLTE", b"x" * 5),
            chunk(b"eXIf", b"MM\0*" + b"\xff" * 50),
        ]
    )
    data = chance.choice(
        [
            head + header + extra + chunk(b"IDAT", pixels) + chunk(b"IEND", b""),
            head + extra,
            b"GIF89a" + struct.pack("<HH", 65_535, 65_535) + bytes(30),
            b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>",
            b"<html><script>alert(1)</script>",
            b"RIFF\xff\xff\xff\xffWEBPVP8X" + bytes(4) + b"\0\0\0\0" + b"\xff" * 6,
            b"\xff\xd8\xff\xc0\0\x11\x08\xff\xff\xff\xff\x03" + bytes(20),
            b"\xff\xd8" + b"\xff" * 5000,
            b"BM" + bytes(60),
            b"II*\0" + bytes(60),
            b"\x80\x04cposix\nsystem\n.",
            b"PK\x03\x04" + bytes(30),
            b"%PDF-1.4\n",
        ]
    )
    return Sent("lying picture", with_picture(chance, key, data))


def odd_headers(chance: random.Random, key: str) -> Sent:
    body = b'{"prompt": 3}'
    options: list[tuple[str, str | bytes]] = [
        ("Content-Type", "multipart/form-data"),
        ("Content-Type", b"\xff\xfe"),
        ("Content-Type", "multipart/form-data; boundary=" + "a" * 4000),
        ("Content-Type", "application/x-www-form-urlencoded"),
        ("Origin", "null"),
        ("Origin", "https://evil.example"),
        ("Host", "evil.example"),
        ("Host", ""),
        ("Authorization", "Bearer x"),
        ("Authorization", b"Bearer \xff\xff"),
        ("Authorization", "Basic " + "A" * 1000),
        ("Cookie", "unclip_session=" + "A" * 2000),
        ("Range", "bytes=" + ",".join(["0-"] * 1000)),
        ("Transfer-Encoding", "chunked"),
        ("Transfer-Encoding", "gzip, chunked"),
        ("Content-Length", "5"),
        ("Content-Length", "-5"),
        ("Content-Length", "99999999999999999999"),
        ("Expect", "100-continue"),
        ("Upgrade", "websocket"),
        ("X-Forwarded-Host", "evil.example"),
        ("X-Forwarded-For", "1.2.3.4, 5.6.7.8"),
        ("Accept-Encoding", "x" * 1000),
        ("Last-Event-ID", "-1"),
        ("X" * 200, "y"),
        ("X-Big", "y" * chance.choice([100, 8000, 30_000, 70_000])),
        ("Bad Header", "x"),
        ("", "x"),
    ]
    chosen = chance.sample(options, chance.randrange(1, 4))
    path = chance.choice(PATHS)
    method = chance.choice(["POST", "GET", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "TRACE", "BREW"])
    return Sent("odd headers", request(method, path, key, body, chosen, length=chance.random() < 0.7))


def odd_line(chance: random.Random, key: str) -> Sent:
    path, method = chance.choice(PATHS), chance.choice(["GET", "POST", "DELETE", "get", "G" * 300, ""])
    query = "?" + chance.choice(["", "a=" + "b" * 3000, "%ff=%00", "limit=-1", "cursor=..%2f", "state[]=x"])
    version = chance.choice(["HTTP/1.1", "HTTP/1.0", "HTTP/9.9", "", "FTP/1.0"])
    line = f"{method} {path}{chance.choice(['', query])} {version}".encode("latin-1", "replace")
    if chance.random() < 0.1:
        line = chance.randbytes(chance.randrange(1, 100))
    rest = b"\r\nHost: 127.0.0.1\r\nConnection: close\r\nAuthorization: Bearer " + key.encode() + b"\r\n\r\n"
    return Sent("odd line", line + rest)
