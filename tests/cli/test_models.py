"""`unclip models` and `unclip convert`: what is here, what was pulled, and errors that say what to do."""

import hashlib
import json
from pathlib import Path

import pytest

from unclip.checkpoints.hub import HUB_ID
from unclip.formats.known import KNOWN

SHA = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """A hub's cache that holds one model, as the hub's client leaves it."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    home = tmp_path / "models--someone--prior"
    for name, data in {
        "config.json": b'{"_class_name": "PriorTransformer", "additional_embeddings": 3}',
        "diffusion_pytorch_model.bin": b"x" * 9,
    }.items():
        sha = hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()
        if name.endswith("bin"):
            sha = hashlib.sha256(data).hexdigest()
        blob, link = home / "blobs" / sha, home / "snapshots" / SHA / name
        for file in (blob, link):
            file.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(data)
        link.symlink_to(blob)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(SHA)
    return tmp_path


def test_list_has_what_was_pulled(unclip, cache):
    code, out, err = unclip("models", "list", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)["someone/prior"]
    assert (found["description"], found["bytes"]) == ("eclipse prior", 72)
    assert unclip("models").out == unclip("models", "list").out
    assert "someone/prior" in unclip("models").out


def test_verify_and_remove(unclip, cache):
    assert unclip("models", "verify", "someone/prior") == (
        0,
        "someone/prior: 2 files match their hashes\n",
        "",
    )
    (blob,) = (
        file for file in (cache / "models--someone--prior" / "blobs").iterdir() if len(file.name) == 64
    )
    blob.write_bytes(b"y" * 9)
    code, out, err = unclip("models", "verify", "someone/prior")
    assert (code, out) == (1, "")
    assert "diffusion_pytorch_model.bin is damaged or was changed" in err
    assert unclip("models", "rm", "someone/prior").out == "someone/prior: removed, 0.0 MB\n"
    code, out, err = unclip("models", "rm", "someone/prior")
    assert (code, out) == (1, "")
    assert "was not pulled: pulled are none" in err
    assert "unclip models pull someone/prior" in unclip("models", "show", "someone/prior").err


def test_verify_what_did_not_come_from_the_hub(unclip, cache, tmp_path):
    code, out, err = unclip("models", "verify", "artwork")
    assert (code, err) == (0, "")
    assert out.endswith(" files match their hashes\n")
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "config.json").write_text('{"_class_name": "PriorTransformer"}')
    code, out, err = unclip("models", "verify", folder)
    assert (code, out) == (1, "")
    assert f"{folder} has no hashes to compare with" in err


def test_pulling_offline_says_so(unclip, cache):
    code, out, err = unclip("models", "pull", "someone/else")
    assert (code, out) == (1, "")
    assert "HF_HUB_OFFLINE is set" in err


def test_converting_nothing(unclip, tmp_path):
    code, out, err = unclip("convert", tmp_path / "nowhere", "-o", tmp_path / "out")
    assert (code, out) == (1, "")
    assert "there is no model" in err
    code, out, err = unclip("convert", tmp_path, "-o", tmp_path / "out")
    assert (code, out) == (1, "")
    assert "no known public format" in err
    assert list(tmp_path.iterdir()) == []


def test_converting_what_was_pulled(unclip, cache, tmp_path):
    """By its id; what cannot be read is named, and leaves nothing."""
    room = tmp_path / "room"
    code, out, err = unclip("convert", "someone/prior", "-o", room / "out")
    assert (code, out) == (1, "")
    assert "diffusion_pytorch_model.bin is text ('xxxxxxxxx'), not weights" in err
    assert list(room.iterdir()) == []


def test_known_models_are_listed_without_the_hub(unclip, cache):
    code, out, err = unclip("models", "list", "--known")
    assert code == 0
    assert "GLIDE" in err
    lines = out.splitlines()
    assert len(lines) == len(KNOWN)
    (decoder,) = (line for line in lines if line.startswith("kandinsky-community/kandinsky-2-2-decoder "))
    assert "5.3 GB" in decoder
    assert "apache-2.0" in decoder
    assert decoder.endswith("with kandinsky-community/kandinsky-2-2-prior")
    found = json.loads(unclip("models", "list", "--known", "--json").out)
    assert found["kakaobrain/karlo-v1-alpha"]["pulled"] is False
    assert all(HUB_ID.fullmatch(hub_id) for hub_id in found)
    for one in KNOWN.values():
        assert all(other in KNOWN for _, other in one.needs)


def test_pulling_a_known_model_says_what_it_is_before_the_hub_is_asked(unclip, cache):
    err = unclip("models", "pull", "kandinsky-community/kandinsky-2-1").err
    assert "Kandinsky 2.1: decoder, 512 to 768 px; about 7.4 GB (folders tokenizer, text_encoder, unet" in err
    assert "HF_HUB_OFFLINE is set" in err


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("kandinsky-2-2-decoder", "did you mean kandinsky-community/kandinsky-2-2-decoder or "),
        ("karlo", "did you mean kakaobrain/karlo-v1-alpha or "),
        ("nothing like it at all", "names those that are known to work"),
        ("a/b/c", "is not an id of the hub, such as owner/name"),
    ],
)
def test_what_is_no_id_of_the_hub_says_what_to_do(unclip, cache, given, meant):
    code, out, err = unclip("models", "pull", given)
    assert (code, out) == (1, "")
    assert meant in err
    assert "unclip models list --known" in err
    if "/" not in given:
        assert meant in unclip("generate", "a cat", "--model", given).err
