"""What a file is that was given as weights and holds none. Imports no torch."""

import zipfile
from pathlib import Path

_MAGIC = (
    (b"GGUF", "a GGUF file of llama.cpp", "its format is not supported: get the weights as safetensors"),
    (b"\x89HDF\r\n", "an HDF5 file of Keras or TensorFlow", "get the weights for PyTorch instead"),
    (b"\x93NUMPY", "an array of NumPy", "get the weights as safetensors"),
    (b"\x1f\x8b", "a gzip archive", "unpack it first"),
    (b"7z\xbc\xaf", "a 7-Zip archive", "unpack it first"),
    (b"Rar!", "a RAR archive", "unpack it first"),
    (b"\xfd7zXZ", "an xz archive", "unpack it first"),
    (b"(\xb5/\xfd", "a Zstandard archive", "unpack it first"),
    (b"%PDF", "a PDF document", "download the weights themselves"),
    (b"\x89PNG", "a picture (PNG)", "give the file or folder of the model"),
    (b"\xff\xd8\xff", "a picture (JPEG)", "give the file or folder of the model"),
    (b"\x7fELF", "a program", "give the file or folder of the model"),
    (b"MZ", "a program of Windows", "give the file or folder of the model"),
)
_SUFFIXES = {
    ".onnx": "an ONNX model",
    ".msgpack": "a file of Flax",
    ".tflite": "a model of TensorFlow Lite",
    ".mlmodel": "a Core ML model",
    ".h5": "an HDF5 file of Keras or TensorFlow",
}


def not_weights(path: Path) -> str:
    """What a file is and what to do about it, "" for one that may hold weights or cannot be read.

    Knows pointers of git-lfs, web pages, other text, empty files, archives, pictures, and other programs' checkpoints.
    """
    try:
        if path.is_dir():
            return "is a folder: give a file"
        with open(path, "rb") as file:
            head = file.read(512)
    except OSError:
        return ""
    if not head:
        return "is empty: get it again"
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:400].lower()
    if start.startswith(b"version https://git-lfs.github.com/"):
        return "is a pointer of git-lfs, not the file itself: run `git lfs pull` in its folder, or download it again"
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<body")):
        return "is a web page, such as a log-in or error page saved in place of the file: download the file again"
    for magic, what, remedy in _MAGIC:
        if head.startswith(magic):
            return f"is {what}, not weights: {remedy}"
    if head[257:262] == b"ustar":
        return "is a tar archive, not weights: unpack it first"
    if what := _SUFFIXES.get(path.suffix.lower()):
        return f"is {what}, which is not supported: get the weights for PyTorch instead"
    if head.startswith(b"PK"):
        return _not_torchs(path)
    if path.suffix != ".json" and _is_text(head):
        return f"is text ({_shown(head)}), not weights: get the file again"
    return ""


def _not_torchs(path: Path) -> str:
    """For a zip archive: that it was not written by torch."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return "is a damaged archive: get it again"
    if any(name.endswith("data.pkl") for name in names):
        return ""
    if any(name.endswith(".npy") for name in names):
        return "is an archive of NumPy's arrays, not weights: get the weights as safetensors"
    return f"is a zip archive{f' with {names[0][:80]!r}' if names else ''}, not weights: unpack it first"


def _is_text(head: bytes) -> bool:
    try:
        # A character may be cut.
        text = head[:500].decode("utf-8", errors="strict" if len(head) < 512 else "ignore")
    except UnicodeDecodeError:
        return False
    return text.isprintable() or all(one.isprintable() or one in "\t\r\n" for one in text)


def _shown(head: bytes) -> str:
    line = " ".join(head.decode("utf-8", errors="replace").split())
    return repr(line if len(line) <= 40 else f"{line[:37]}...")
