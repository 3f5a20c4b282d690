"""`unclip serve` and `unclip worker` as commands: one line of error for what cannot work, before anything listens."""

import socket
import sqlite3
from pathlib import Path

import pytest

from tests.serve.processes import Server
from unclip.cli.main import main
from unclip.cli.serve_options import require_extra
from unclip.serve.server import listen


@pytest.mark.parametrize("verb", ["serve", "worker"])
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--database", "mysql://u:secret@h/x"], "postgresql://"),
        (["--database", "nonsense"], "is not a URL"),
        (["--database", "postgresql://u:secret@127.0.0.1:1/x"], "cannot be used"),
        (["--model", "nowhere"], "nowhere"),
        (["--model", "a=artwork", "--model", "a=artwork"], "two models"),
        (["--store", "gopher://x"], "gopher"),
        (["--device", "cuda:99"], "cuda:99"),
    ],
)
def test_what_cannot_work_is_one_line(verb: str, options: list[str], words: str, tmp_path: Path, capsys):
    assert main([verb, "--folder", str(tmp_path), *options]) in (1, 2)
    found = capsys.readouterr().err
    (line,) = [one for one in found.splitlines() if "error: " in one]
    assert words in line
    assert "secret" not in line


def test_database_of_a_later_version_is_refused(tmp_path: Path, capsys):
    with sqlite3.connect(tmp_path / "unclip.db") as database:
        database.execute("CREATE TABLE meta (key VARCHAR(64) PRIMARY KEY, value TEXT NOT NULL)")
        database.execute("INSERT INTO meta VALUES ('version', '99')")
    database.close()
    assert main(["worker", "--folder", str(tmp_path)]) == 2
    assert "version 99" in capsys.readouterr().err


def test_database_that_is_none_says_why(tmp_path: Path, capsys):
    (tmp_path / "unclip.db").write_text("a text file, and no database at all\n" * 100)
    assert main(["serve", "--folder", str(tmp_path)]) == 1
    (line,) = [one for one in capsys.readouterr().err.splitlines() if "error: " in one]
    assert str(tmp_path / "unclip.db") in line
    assert "file is not a database" in line
    assert "--database" in line


def test_port_in_use_is_one_line(tmp_path: Path, capsys):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert main(["serve", "--folder", str(tmp_path), "--port", str(port)]) == 1
    found = capsys.readouterr().err
    (line,) = found.splitlines()
    assert line.startswith(f"unclip: error: 127.0.0.1:{port} is in use")
    assert "--port 0" in line


@pytest.mark.parametrize("host", ["203.0.113.7", "no-such-name.invalid"])
def test_address_of_no_interface_is_one_line(host: str, tmp_path: Path, capsys):
    options = ["--host", host, "--port", "0", "--insecure-no-auth"]
    assert main(["serve", "--folder", str(tmp_path), *options]) == 1
    (line,) = [one for one in capsys.readouterr().err.splitlines() if "error: " in one]
    assert host in line
    assert "--host" in line


def test_ipv6_address_stands_in_brackets(tmp_path: Path, tiny_folder: Path):
    if not socket.has_ipv6:
        pytest.skip("there is no IPv6 here")
    try:
        listen("::1", 0).close()
    except OSError:
        pytest.skip("there is no IPv6 here")
    with Server(tmp_path / "data", tiny_folder, "--host", "::1", "--workers", "0") as server:
        assert server.url.startswith("http://[::1]:")
        assert server.call("/healthz") == {"status": "ok"}


@pytest.mark.parametrize(
    ("statements", "words"),
    [
        (["CREATE TABLE jobs (id INTEGER PRIMARY KEY, title TEXT)"], "'jobs' without the column 'kind'"),
        (
            [
                "CREATE TABLE meta (key VARCHAR(64) PRIMARY KEY, value TEXT NOT NULL)",
                "INSERT INTO meta VALUES ('version', '3.1-beta')",
            ],
            "not one of unclip",
        ),
    ],
)
def test_database_of_another_program_is_refused(statements: list[str], words: str, tmp_path: Path, capsys):
    with sqlite3.connect(tmp_path / "unclip.db") as database:
        for statement in statements:
            database.execute(statement)
    database.close()
    assert main(["serve", "--folder", str(tmp_path), "--port", "0"]) == 2
    (line,) = [one for one in capsys.readouterr().err.splitlines() if "error: " in one]
    assert words in line


def test_missing_extra_is_one_line():
    with pytest.raises(ValueError, match=r"no_such_package: pip install 'unclip\[serve\]'"):
        require_extra("serve", ("no_such_package",))
