"""Guards, each over real uvicorn: keys, sessions, binding, hosts, origins, sizes, rates, headers."""

import hashlib
import hmac
import json
import socket
import time

import httpx2 as httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from unclip.errors import ModelError, RequestError
from unclip.serve.guard.binding import check_binding
from unclip.serve.guard.bodies import LimitBody
from unclip.serve.guard.errors import handlers
from unclip.serve.guard.frame import DATA_POLICY, PAGE_POLICY
from unclip.serve.guard.guarded import guards
from unclip.serve.guard.hosts import allowed_hosts, read_origin
from unclip.serve.guard.keys import Keys
from unclip.serve.guard.rate import Buckets
from unclip.serve.guard.sessions import Sessions, login_routes

KEY, OTHER = "alice-0123456789abcdef", "bob-0123456789abcdefgh"


class Now:
    """A clock that tests move."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def echo(request):
    return JSONResponse({"bytes": len(await request.body())})


async def page(request):
    return HTMLResponse("<title>unclip</title>")


async def hostile(request):
    return Response("<svg/>", media_type="image/svg+xml", headers={"Content-Disposition": "inline"})


async def broken(request):
    raise KeyError("secret /home/someone/path")


async def damaged(request):
    raise ModelError("secret /home/someone/path")


async def wrong_request(request):
    raise RequestError("steps: give a number from 1 to 1000")


def application(*, keys=(), clock=None, buckets=None, **options):
    known, sessions = Keys.of(keys), Sessions(b"secret", clock=clock or time.time)
    routes = [
        Route("/", page),
        Route("/api/echo", echo, methods=["GET", "POST"]),
        Route("/v1/images/generations", echo, methods=["POST"]),
        Route("/api/hostile", hostile),
        Route("/broken", broken),
        Route("/damaged", damaged),
        Route("/wrong", wrong_request),
        Route("/healthz", lambda request: PlainTextResponse("ok")),
        *login_routes(known, sessions),
    ]
    options = {"hosts": allowed_hosts("127.0.0.1", ["pictures.example"])} | options
    return Starlette(
        routes=routes,
        exception_handlers=handlers(),
        middleware=guards(keys=known, sessions=sessions, buckets=buckets, **options),
    )


@pytest.fixture(scope="module")
def open_server(run_server):
    """A server without keys, which pages of one other origin may use."""
    app = application(origins=["https://friend.example"], limits={"/v1/images/": 4096}, default_limit=2048)
    with run_server(app) as address:
        yield address


@pytest.fixture(scope="module")
def http():
    with httpx.Client(timeout=20) as client:
        yield client


def error_of(answer, status):
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


def test_keys_open_and_wrong_ones_do_not(run_server, http):
    with run_server(application(keys=[f"alice:{KEY}", f"bob:{OTHER}"])) as address:
        url = f"{address}/api/echo"
        for key in (KEY, OTHER):
            assert http.get(url, headers={"Authorization": f"Bearer {key}"}).status_code == 200
            assert http.get(url, headers={"Authorization": f"bearer {key}"}).status_code == 200
        error = error_of(http.get(url), 401)
        assert error["code"] is None
        for wrong in (f"Bearer {KEY}x", f"Bearer {KEY[:-1]}", "Bearer", f"Basic {KEY}", KEY, "Bearer \xff"):
            answer = http.get(url, headers={"Authorization": wrong.encode("latin-1")})
            assert error_of(answer, 401)["code"] == "invalid_api_key"
            assert answer.headers["www-authenticate"] == "Bearer"
        twice = http.get(url, headers=[("Authorization", f"Bearer {KEY}"), ("Authorization", "Bearer x")])
        assert twice.status_code == 401
        assert http.get(f"{address}/healthz").text == "ok"
        assert http.get(f"{address}/").status_code == 200
        assert http.get(f"{address}//api/echo").status_code == 401
        assert http.get(f"{address}/assets/../api/echo").status_code == 401


def test_all_keys_are_compared_in_constant_time(monkeypatch):
    compared, compare = [], hmac.compare_digest

    def recorded(a, b):
        compared.append((a, b))
        return compare(a, b)

    keys = Keys.of([f"alice:{KEY}", f"bob:{OTHER}"])
    monkeypatch.setattr(hmac, "compare_digest", recorded)
    for given, owner in ((KEY, "alice"), (OTHER, "bob"), ("wrong", None)):
        compared.clear()
        assert keys.owner(given) == owner
        assert len(compared) == 2
        assert all(len(a) == len(b) == 32 for a, b in compared)


def test_keys_from_file_and_environment(tmp_path, caplog):
    file = tmp_path / "keys"
    digest = "sha256:" + hashlib.sha256(OTHER.encode()).hexdigest()
    file.write_text(f"# keys\n\nalice:{KEY}\nbob:{digest}\n")
    file.chmod(0o644)
    keys = Keys.load(file, {})
    assert "chmod 600" in caplog.text
    assert (keys.owner(KEY), keys.owner(OTHER), keys.owner("x")) == ("alice", "bob", None)
    keys = Keys.load(None, {"UNCLIP_API_KEYS": f"alice:{KEY},{OTHER}"})
    assert keys.owner(KEY) == "alice"
    assert keys.owner(OTHER) is not None
    assert not Keys.load(None, {})
    assert Keys.load(None, {"UNCLIP_API_KEY_FILE": str(file)}).owner(KEY) == "alice"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("alice:short", "too short"),
        ("a b:0123456789abcdef", "bad name"),
        ("alice:0123456789 abcdef", "not plain"),
        ("alice:sha256:12", "SHA-256"),
        (f"alice:{KEY}\nalice:{OTHER}", "again"),
    ],
)
def test_bad_keys_are_named_without_being_quoted(text, words):
    with pytest.raises(RequestError, match=words) as caught:
        Keys.of(text.splitlines())
    assert "0123456789" not in str(caught.value)
    assert "short," not in str(caught.value)


def test_files_of_keys_that_are_missing_or_empty(tmp_path):
    with pytest.raises(RequestError, match="cannot be read"):
        Keys.load(tmp_path / "none", {})
    (tmp_path / "empty").write_text("# nothing\n")
    with pytest.raises(RequestError, match="no API key"):
        Keys.load(tmp_path / "empty", {})


def test_sessions_stand_for_a_key_until_they_end(run_server, http):
    clock = Now()
    with run_server(application(keys=[f"alice:{KEY}"], clock=clock)) as address:
        assert (
            error_of(http.post(f"{address}/api/login", json={"key": "x"}), 401)["code"] == "invalid_api_key"
        )
        error_of(http.post(f"{address}/api/login", content=b"[" * 100_000), 400)
        answer = http.post(f"{address}/api/login", json={"key": KEY})
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        value = cookie.split(";")[0].split("=", 1)[1].strip('"')
        url = f"{address}/api/echo"
        assert httpx.get(url, headers={"Cookie": f"unclip_session={value}"}).status_code == 200
        for bad in (value[:-2], "A" + value[1:], "", "é", "x" * 5000, value[::-1]):
            sent = {"Cookie": f"unclip_session={bad}".encode("latin-1")}
            assert httpx.get(url, headers=sent).status_code == 401
        clock.now += 31 * 24 * 3600
        assert httpx.get(url, headers={"Cookie": f"unclip_session={value}"}).status_code == 401


def test_a_session_of_a_removed_key_is_worth_nothing():
    sessions = Sessions(b"secret")
    assert sessions.owner(sessions.sign("alice")) == "alice"
    assert Sessions(b"another").owner(sessions.sign("alice")) is None


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "localhost", "::1", "[::1]", "LOCALHOST."])
def test_loopback_needs_no_key(host):
    check_binding(host, Keys())


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.168.1.5", "example.org", "127.0.0.1.example.org"])
def test_public_addresses_need_a_key_or_the_flag(host):
    with pytest.raises(RequestError, match="--insecure-no-auth"):
        check_binding(host, Keys())
    check_binding(host, Keys.of([KEY]))
    check_binding(host, Keys(), allow_public=True)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:{port}", 200),
        ("localhost:{port}", 200),
        ("LOCALHOST", 200),
        ("[::1]:{port}", 200),
        ("pictures.example", 200),
        ("evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("localhost.evil.example:{port}", 421),
        ("10.0.0.1", 421),
        ("127.0.0.1@evil.example", 400),
        ("evil.example/127.0.0.1", 400),
        ("", 400),
        ("a b", 400),
        ("localhost:99999999", 400),
    ],
)
def test_hosts(open_server, http, host, status):
    port = open_server.rsplit(":", 1)[1]
    answer = http.get(f"{open_server}/api/echo", headers={"Host": host.format(port=port)})
    assert answer.status_code == status
    if status == 421:
        assert answer.json()["error"]["code"] == "unknown_host"


def test_two_hosts_are_refused(open_server):
    address, port = open_server.removeprefix("http://").split(":")
    with socket.create_connection((address, int(port)), timeout=10) as connection:
        connection.sendall(b"GET /api/echo HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n")
        answer = connection.recv(10_000)
    assert b" 400 " in answer.split(b"\r\n")[0]


def test_addresses_are_no_names_where_the_server_listens_everywhere(run_server, http):
    with run_server(application(any_address=True)) as address:
        assert http.get(f"{address}/api/echo", headers={"Host": "10.0.0.1:80"}).status_code == 200
        assert http.get(f"{address}/api/echo", headers={"Host": "[fe80::1]:80"}).status_code == 200
        assert http.get(f"{address}/api/echo", headers={"Host": "evil.example"}).status_code == 421


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "{own}"}, 200),
        ({"Origin": "https://friend.example"}, 200),
        ({"Origin": "null"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "http://localhost:1"}, 403),
        ({"Origin": "https://friend.example.evil.example"}, 403),
        ({"Origin": "http://friend.example"}, 403),
        ({"Origin": "file://"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
    ],
)
def test_origins_of_requests_that_change_something(open_server, http, headers, status):
    sent = {name: value.format(own=open_server) for name, value in headers.items()}
    answer = http.post(f"{open_server}/api/echo", headers=sent, content=b"x")
    assert answer.status_code == status
    if status == 403:
        assert error_of(answer, 403)["code"] == "forbidden_origin"
    assert http.get(f"{open_server}/api/echo", headers=sent).status_code == 200


def test_only_allowed_origins_may_read_answers(open_server, http):
    def allowed(origin):
        answer = http.get(f"{open_server}/api/echo", headers={"Origin": origin})
        return answer.headers.get("access-control-allow-origin")

    assert allowed("https://friend.example") == "https://friend.example"
    assert allowed("https://evil.example") is None
    assert allowed("null") is None
    asked = {"Origin": "https://friend.example", "Access-Control-Request-Method": "POST"}
    answer = http.request("OPTIONS", f"{open_server}/v1/images/generations", headers=asked)
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (204, asked["Origin"])
    asked["Origin"] = "https://evil.example"
    answer = http.request("OPTIONS", f"{open_server}/v1/images/generations", headers=asked)
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("text", ["*", "null", "example.org", "ftp://example.org", "https://a/b", ""])
def test_origins_that_are_none(text):
    with pytest.raises(RequestError, match="is none"):
        read_origin(text)


def test_websockets_are_refused(open_server):
    address, port = open_server.removeprefix("http://").split(":")
    with socket.create_connection((address, int(port)), timeout=10) as connection:
        connection.sendall(
            b"GET /api/echo HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        status = connection.recv(10_000).split(b"\r\n")[0]
    assert b" 101 " not in status


def test_bodies_are_refused_before_they_are_read(open_server, http):
    assert http.post(f"{open_server}/api/echo", content=b"x" * 2048).json() == {"bytes": 2048}
    error = error_of(http.post(f"{open_server}/api/echo", content=b"x" * 2049), 413)
    assert error["code"] == "request_too_large"
    assert http.post(f"{open_server}/v1/images/generations", content=b"x" * 4096).status_code == 200
    error_of(http.post(f"{open_server}/v1/images/generations", content=b"x" * 4097), 400)


def test_a_chunked_body_is_counted_and_cut_off(open_server):
    sent = 0

    def endless():
        nonlocal sent
        while sent < 100 << 20:
            sent += 65536
            yield b"x" * 65536
            time.sleep(0.005)

    with httpx.Client(timeout=20) as client:
        began = time.monotonic()
        try:
            answer = client.post(f"{open_server}/v1/images/generations", content=endless())
            assert error_of(answer, 400)["code"] == "request_too_large"
        except httpx.NetworkError:
            # The answer came while the body was still on its way, and the client did not look.
            pass
    assert time.monotonic() - began < 6
    assert sent < 100 << 20


def raw(address, data, *, wait=5.0):
    """What a server answers to bytes."""
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=wait) as connection:
        connection.sendall(data)
        found = b""
        try:
            while part := connection.recv(65536):
                found += part
        except TimeoutError:
            pass
    return found


@pytest.mark.parametrize("length", [b"9" * 4000, b"-1", b"1e9", b"99999999999999999999"])
def test_absurd_lengths(open_server, length):
    found = raw(
        open_server,
        b"POST /api/echo HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: "
        + length
        + b"\r\n\r\n",
    )
    assert found.split(b" ")[1] in (b"400", b"413")


def test_a_body_that_stops_is_not_waited_for(run_server):
    app = Starlette(routes=[Route("/", echo, methods=["POST"])], exception_handlers=handlers())
    with run_server(LimitBody(app, patience=0.3)) as address:
        began = time.monotonic()
        found = raw(address, b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nabc")
    assert b" 408 " in found.split(b"\r\n")[0]
    assert json.loads(found.split(b"\r\n\r\n", 1)[1])["error"]["code"] == "timeout"
    assert time.monotonic() - began < 5


def test_rates_are_per_key_with_retry_after(run_server, http):
    clock = Now()
    buckets = Buckets(6, 2, clock=clock)
    app = application(keys=[f"alice:{KEY}", f"bob:{OTHER}"], buckets=buckets)
    with run_server(app) as address:

        def ask(key):
            return http.post(
                f"{address}/v1/images/generations", headers={"Authorization": f"Bearer {key}"}, content=b"{}"
            )

        left = [ask(KEY).headers["x-ratelimit-remaining-requests"] for _ in range(2)]
        assert left == ["1", "0"]
        answer = ask(KEY)
        error = error_of(answer, 429)
        assert (error["code"], error["type"]) == ("rate_limit_exceeded", "requests")
        assert answer.headers["retry-after"] == "10"
        assert answer.headers["retry-after-ms"] == "10000"
        assert ask(OTHER).status_code == 200
        assert http.get(f"{address}/api/echo", headers={"Authorization": f"Bearer {KEY}"}).status_code == 200
        clock.now += 10
        assert ask(KEY).status_code == 200
        assert ask(KEY).status_code == 429


def test_buckets_are_bounded(monkeypatch):
    monkeypatch.setattr("unclip.serve.guard.rate.MAX_BUCKETS", 100)
    buckets = Buckets(60, 1)
    for number in range(1000):
        assert buckets.take(str(number)) == 0
    assert len(buckets._buckets) == 100


def test_headers_of_pages_and_data(open_server, http):
    answer = http.get(open_server)
    assert answer.headers["content-security-policy"] == PAGE_POLICY
    assert "unsafe" not in PAGE_POLICY
    answer = http.get(f"{open_server}/api/echo", headers={"X-Request-Id": "mine\tforged"})
    assert answer.headers["content-security-policy"] == DATA_POLICY
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert answer.headers["x-request-id"].startswith("req_")
    assert len(http.get(f"{open_server}/api/echo").headers["x-request-id"]) == 36


def test_content_types_that_browsers_run_are_not_sent(open_server, http):
    answer = http.get(f"{open_server}/api/hostile")
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"] == "attachment"


@pytest.mark.parametrize("path", ["broken", "damaged"])
def test_unexpected_errors_tell_nothing(open_server, http, path):
    answer = http.get(f"{open_server}/{path}")
    error = error_of(answer, 500)
    assert error["type"] == "server_error"
    assert "secret" not in answer.text
    assert "home" not in answer.text
    assert "Error" not in error["message"]


def test_errors_of_requests_and_of_the_router(open_server, http):
    assert error_of(http.get(f"{open_server}/wrong"), 400)["message"].startswith("steps:")
    error = error_of(http.get(f"{open_server}/nowhere"), 404)
    assert (error["message"], error["code"]) == ("Invalid URL (GET /nowhere)", "unknown_url")
    assert error_of(http.delete(f"{open_server}/api/echo"), 405)["code"] == "method_not_supported"
