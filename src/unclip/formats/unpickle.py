"""Rewrite pickled weights as safetensors, as a separate program: whatever a file does happens in a process that ends.

    python -m unclip.formats.unpickle FILE OUT.safetensors [FILE OUT.safetensors ...]

Only tensors and plain values are read (`weights_only`); a file with anything else is refused. Tensors are named by the
keys that lead to them, without wrappers around a `state_dict`.
"""

import io
import pickle
import sys
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch._utils import _rebuild_tensor_v2

# Keys under which checkpoints keep their weights, in order of preference.
_WRAPPERS = ("state_dict", "model_state_dict", "ema_model", "model")


def tensors(data: Any) -> dict[str, Tensor]:
    """Tensors of an unpickled file. Raises `ValueError` if there are none."""
    while isinstance(data, Mapping):
        # Beside them there may be tensors, such as the number of the last step.
        inner = next((data[name] for name in _WRAPPERS if isinstance(data.get(name), Mapping)), None)
        if inner is None:
            break
        data = inner
    found: dict[str, Tensor] = {}
    memory: set[int] = set()
    for name, value in _walk(data, ""):
        value = value.detach().contiguous()
        # Parameters may share memory, which safetensors refuses.
        address = value.untyped_storage().data_ptr()
        found[name] = value.clone() if address in memory else value
        memory.add(address)
    if not found:
        raise ValueError("the file holds no tensors")
    return found


def _walk(data: Any, prefix: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(data, Tensor):
        yield prefix.removesuffix("."), data
    elif isinstance(data, Mapping):
        for name, value in data.items():
            yield from _walk(value, f"{prefix}{name}.")
    elif isinstance(data, list | tuple):
        for index, value in enumerate(data):
            yield from _walk(value, f"{prefix}{index}.")


class _Archive(pickle.Unpickler):
    """Reader of the tensors in a TorchScript archive, such as OpenAI's, without running its code.

    Its classes become dicts of their attributes. Any other class or function is refused.
    """

    def __init__(self, archive: zipfile.ZipFile, root: str):
        super().__init__(io.BytesIO(archive.read(f"{root}/data.pkl")))
        self.archive, self.root = archive, root

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("__torch__"):
            return _Held
        known: dict[tuple[str, str], Any] = {
            ("collections", "OrderedDict"): dict,
            ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor_v2,
            ("torch.jit._pickle", "restore_type_tag"): lambda value, tag: value,
            **{
                ("torch.jit._pickle", f"build_{kind}list"): list
                for kind in ("int", "double", "bool", "tensor")
            },
        }
        if (module, name) in known:
            return known[module, name]
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        raise pickle.UnpicklingError(f"{module}.{name} is not for weights")

    def persistent_load(self, pid: Any) -> Any:
        kind, dtype, key, _, count = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise pickle.UnpicklingError(f"{kind!r} is not for weights")
        data = bytearray(self.archive.read(f"{self.root}/data/{key}"))
        flat = torch.frombuffer(data, dtype=dtype, count=count) if count else torch.empty(0, dtype=dtype)
        return torch.storage.TypedStorage(wrap_storage=flat.untyped_storage(), dtype=dtype, _internal=True)


class _Held(dict[str, Any]):
    """Attributes of an object in an archive."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.update(state)


_STORAGES = {"FloatStorage": torch.float32, "HalfStorage": torch.float16, "BFloat16Storage": torch.bfloat16}
_STORAGES |= {"DoubleStorage": torch.float64, "LongStorage": torch.int64, "IntStorage": torch.int32}
_STORAGES |= {"BoolStorage": torch.bool, "ByteStorage": torch.uint8}


def read(source: Path) -> Any:
    """Content of a pickled file: containers, tensors and plain values. Raises for anything else."""
    with open(source, "rb") as file:
        # Only torch's newer files are archives and can be mapped.
        zipped = file.read(2) == b"PK"
    if zipped:
        with zipfile.ZipFile(source) as archive:
            names = archive.namelist()
            root = names[0].split("/")[0]
            if f"{root}/constants.pkl" in names:
                return _Archive(archive, root).load()
    with torch.serialization.safe_globals([(_Version, name) for name in _VERSION]):
        return torch.load(source, map_location="cpu", weights_only=True, mmap=zipped)


class _Version:
    """Placeholder for version numbers (`packaging`), which lucidrains' trainers save."""

    def __new__(cls, *numbers: Any) -> "_Version":
        return object.__new__(cls)

    def __setstate__(self, state: Any) -> None:
        """Ignore the state."""


_VERSION = ("packaging.version.Version", "packaging.version._Version")
_VERSION += ("packaging._structures.InfinityType", "packaging._structures.NegativeInfinityType")


UNWRITTEN = 3
"""Exit code for a file that was read but could not be written."""


def main(argv: list[str]) -> int:
    """Read each file and write it as safetensors; prints the name of each file as it begins.

    On failure, prints a line on stderr and returns 1 or `UNWRITTEN`.
    """
    failure = 1
    try:
        for source, target in zip(argv[::2], argv[1::2], strict=True):
            sys.stdout.write(f"{source}\n")
            sys.stdout.flush()
            failure = 1
            found = tensors(read(Path(source)))
            failure = UNWRITTEN
            save_file(found, target)
    except Exception as error:
        sys.stderr.write(f"{type(error).__name__}: {' '.join(str(error).split())[:400]}\n")
        return failure
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
