"""Download models from the hub with its own client: only the files that are read, whole or not at all.

Files are in the hub's cache, where other programs find them too. Nothing is downloaded except by `look_up` and `pull`.
"""

import errno
import hashlib
import re
import secrets
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unclip.checkpoints.hub import HUB_ID, home_of, hub_cache, pulled
from unclip.checkpoints.manifest import sha256_of
from unclip.errors import ModelError
from unclip.formats.folder import OPENCLIP_STEMS, STEMS
from unclip.formats.known import advice
from unclip.formats.registry import format_name, recognise

_TEXT = re.compile(r"(.*/)?([^/]+\.json|merges\.txt|README\.md|LICEN[CS]E[^/]*)")
# Both orders of variant and shard are in use.
_SHARD = r"-\d{5}-of-\d{5}"
_WEIGHTS = re.compile(rf"(?P<stem>.+?)({_SHARD})?(?P<variant>\.fp16)?({_SHARD})?\.(?P<kind>safetensors|bin)")
_ANY_WEIGHTS = re.compile(r".+\.(safetensors|bin|ckpt|pt|pth)")
# OpenCLIP's copy of a CLIP stands for transformers' beside it.
_STEMS = (*OPENCLIP_STEMS, *STEMS)
_LAION = ("latest", "best")
PICKLED = (".bin", ".pth", ".pt")
# The disk is full, or what the user or a file may have of it.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True, kw_only=True)
class Remote:
    """A repository on the hub: revision, licence, and the files to download with their sizes.

    `blobs` are the names of the files' contents in the hub's cache, which revisions share.
    """

    hub_id: str
    revision: str
    licence: str
    files: dict[str, int]
    blobs: dict[str, str]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(self.files.values())


def look_up(hub_id: str, *, endpoint: str | None = None) -> Remote:
    """Files that pulling downloads.

    Raises `ModelError` for what is no id, and for a repository without a known format, `OSError` without the hub.
    """
    if not HUB_ID.fullmatch(hub_id):
        raise ModelError(f"{hub_id!r} is not an id of the hub, such as owner/name: {advice(hub_id)}")
    api = _client(endpoint)
    with _Explained(hub_id):
        info = api.model_info(hub_id)
        tree = api.list_repo_tree(hub_id, recursive=True, revision=info.sha)
        entries = {entry.path: entry for entry in tree if getattr(entry, "size", None) is not None}
    card = info.card_data.to_dict() if info.card_data else {}
    licence = card.get("license_name") or card.get("license") or ""
    names = needed(entries)
    if not any(name.endswith((".safetensors", *PICKLED)) for name in names):
        raise ModelError(f"{hub_id} holds no weights in a known format")
    return Remote(
        hub_id=hub_id,
        revision=info.sha,
        licence=str(licence),
        files={name: entries[name].size for name in names},
        blobs={
            name: entries[name].lfs.sha256 if entries[name].lfs else entries[name].blob_id for name in names
        },
    )


def pull(remote: Remote, *, endpoint: str | None = None) -> Path:
    """Download the files that are missing, and return their folder; an interrupted download is resumed.

    The model's revision in the cache changes only when all files are there. Raises `OSError` if the hub cannot be reached
    or the disk is full.
    """
    api, cache = _client(endpoint), hub_cache()
    room = next(folder for folder in [cache, *cache.parents] if folder.exists())
    home = home_of(remote.hub_id)
    missing = sum(
        size for name, size in remote.files.items() if not (home / "blobs" / remote.blobs[name]).exists()
    )
    if (free := shutil.disk_usage(room).free) < missing:
        raise OSError(
            f"{remote.hub_id} needs {missing / 1e9:.1f} GB more, {room} has {free / 1e9:.1f} GB left: free some space, or set "
            "HF_HOME to a folder on another disk"
        )
    with _Explained(remote.hub_id):
        # Given "main", the client would record this revision before it is complete.
        api.snapshot_download(
            remote.hub_id,
            revision=remote.revision,
            cache_dir=cache,
            allow_patterns=sorted(remote.files),
            tqdm_class=_bar(),
        )
        main = home / "refs" / "main"
        main.parent.mkdir(exist_ok=True)
        fresh = main.with_name(f".main.{secrets.token_hex(4)}")
        fresh.write_text(remote.revision, encoding="utf-8")
        fresh.replace(main)
    return home / "snapshots" / remote.revision


_UNSAFE = re.compile(r"^/|[\\:\0]|(^|/)\.\.(/|$)")


def needed(files: Iterable[str]) -> list[str]:
    """Names of the files that loading reads: configs, tokenizers, licence, and one copy of each folder's weights.

    Of several copies it takes the one that loading prefers: safetensors before pickles, full precision before half. Of
    pipelines of diffusers it leaves out single-file copies beside the folders, and safety checkers, which are not run.
    Raises `ModelError` for a name that may lead out of the folder: absolute, with a backslash, a colon, or `..`.
    """
    files = list(files)
    for name in files:
        if _UNSAFE.search(name):
            raise ModelError(
                f"the hub lists a file called {name!r}, which may lead out of its folder: pull another model"
            )
    if "model_index.json" in files:
        files = [name for name in files if "/" in name or not _ANY_WEIGHTS.fullmatch(name)]
        files = [name for name in files if not name.startswith("safety_checker/")]
    copies: dict[str, dict[tuple[int, ...], list[str]]] = {}
    texts = []
    for name in files:
        folder, _, last = name.rpartition("/")
        found = _WEIGHTS.fullmatch(last)
        if last.endswith((".pth", ".pt")) and f"{folder}/prior_config.json".lstrip("/") in files:
            # Of LAION's priors: the latest, then the best.
            rank = next(
                (index for index, stem in enumerate(_LAION) if last.startswith(f"{stem}.")), len(_LAION)
            )
            copies.setdefault(folder, {}).setdefault((rank,), []).append(name)
        elif found is None:
            texts += [name] if _TEXT.fullmatch(name) else []
        elif found["stem"] in _STEMS:
            copy = (
                found["kind"] == "bin",
                _STEMS.index(found["stem"]),
                found["variant"] is not None,
                "-of-" in last,
            )
            copies.setdefault(folder, {}).setdefault(copy, []).append(name)
        elif not folder:
            # At the top of a model folder there is one file per part.
            copies[name] = {(0,): [name]}
    return sorted([*texts, *(name for held in copies.values() for name in held[min(held)])])


def cached() -> dict[str, Path]:
    """Folder of each model in the hub's cache that is in a known format, by id."""
    found = {}
    for home in sorted(hub_cache().glob("models--*--*")):
        hub_id = home.name.removeprefix("models--").replace("--", "/", 1)
        folder = pulled(hub_id)
        if folder is not None and format_name(folder):
            found[hub_id] = folder
    return found


def size_of(folder: Path) -> int:
    """Size in bytes of all files in a folder and its subfolders."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def verify_pulled(hub_id: str) -> int:
    """Compare every file with its name in the hub's cache, which is its hash; returns the number of files.

    Raises `ModelError` naming the first file that is damaged or missing, `FileNotFoundError` if the model was not pulled.
    """
    folder = pulled(hub_id) if HUB_ID.fullmatch(hub_id) else None
    if folder is None:
        raise FileNotFoundError(f"{hub_id} was not pulled: pulled are {', '.join(cached()) or 'none'}")
    count = 0
    for file in sorted(folder.rglob("*")):
        if file.is_dir():
            continue
        if not file.exists():
            raise ModelError(f"{file} is missing: `unclip models pull {hub_id}` gets it again")
        blob = file.resolve()
        if blob.name != (_git_hash(blob) if len(blob.name) == 40 else sha256_of(blob)):
            raise ModelError(
                f"{file} is damaged or was changed: `unclip models rm {hub_id}`, then pull it again"
            )
        count += 1
    # A download that another program interrupted may lack files.
    if format_name(folder) not in ("", "unclip"):
        recognise(folder)
    return count


def remove(hub_id: str) -> int:
    """Delete a model from the hub's cache, with all revisions and partial downloads; returns the number of bytes freed."""
    home = home_of(hub_id)
    if not HUB_ID.fullmatch(hub_id) or not home.is_dir():
        raise FileNotFoundError(f"{hub_id} was not pulled: pulled are {', '.join(cached()) or 'none'}")
    size = sum(file.stat().st_size for file in home.rglob("*") if file.is_file() and not file.is_symlink())
    shutil.rmtree(home)
    return size


def _git_hash(file: Path) -> str:
    data = file.read_bytes()
    return hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()


def _client(endpoint: str | None) -> Any:
    try:
        from huggingface_hub import HfApi, constants
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "models are pulled by the hub's own client, which is not installed: pip install 'unclip[hub]'"
        ) from None
    if constants.HF_HUB_OFFLINE:
        raise OSError("HF_HUB_OFFLINE is set, so nothing is pulled: unset it to reach the hub")
    return HfApi(endpoint=endpoint, library_name="unclip")


def _bar() -> type[Any]:
    """Progress bar of the client, shown only on a terminal."""
    from huggingface_hub.utils import tqdm

    class Bar(tqdm):
        def __init__(self, *given: Any, **named: Any):
            super().__init__(*given, **named | {"disable": named.get("disable") or None})

    return Bar


class _Explained:
    """Context that turns the client's errors into messages with a remedy."""

    def __init__(self, hub_id: str):
        self.hub_id = hub_id

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if error is None or isinstance(error, KeyboardInterrupt):
            return
        from huggingface_hub import errors

        if isinstance(error, errors.GatedRepoError):
            raise PermissionError(
                f"{self.hub_id} requires accepting its terms: do so on its page at the hub, then `hf auth login`"
            ) from error
        if isinstance(error, errors.RepositoryNotFoundError):
            raise FileNotFoundError(
                f"the hub has no model {self.hub_id!r}, or it is private: {advice(self.hub_id)}"
            ) from error
        if isinstance(error, errors.HFValidationError):
            raise ModelError(
                f"{self.hub_id!r} is not an id of the hub, such as owner/name: {advice(self.hub_id)}"
            ) from error
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            raise OSError(
                f"{self.hub_id} could not be pulled: the disk is full; free some space and pull again, which resumes, "
                "or set HF_HOME to a folder on another disk"
            ) from error
        if isinstance(error, OSError) and error.errno is not None:
            return
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise OSError(
            f"{self.hub_id} could not be pulled ({reason}): check the connection and run the command again, which resumes"
        ) from error
