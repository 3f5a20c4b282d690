"""Rewrite pickled weights as safetensors, as a separate program: whatever a file does happens in a process that ends.

    python -m unclip.formats.unpickle FILE OUT.safetensors [FILE OUT.safetensors ...]

Only tensors and plain values are read (`weights_only`); a file with anything else is refused. Tensors are named by the
keys that lead to them, without wrappers around a `state_dict`. Time, memory, depth and unpacked size are bounded by the size
of the file.
"""

import io
import pickle
import re
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


DEPTH = 64
"""Containers within containers; real checkpoints have five."""
NODES = 200_000
"""Values in all containers, each counted as often as it is referred to; real checkpoints have some thousands."""
PICKLE = 256 * 2**20
"""Bytes of the pickle in an archive, which holds names and shapes."""
NAME = 1000
"""Letters of a name."""
GROWTH = 4
"""How many times larger than the file its tensors may be: those that share memory are written apart."""
SECONDS = 60
"""Processor time that is granted beside what the size of the file needs."""
SLACK = 64 * 2**20
"""Bytes that are granted beside, for small files."""


def tensors(data: Any, limit: int | None = None) -> dict[str, Tensor]:
    """Tensors of an unpickled file. Raises `ValueError` if there are none, or more than `limit` bytes of them."""
    depth = 0
    while isinstance(data, Mapping):
        # Beside them there may be tensors, such as the number of the last step.
        inner = next((data[name] for name in _WRAPPERS if isinstance(data.get(name), Mapping)), None)
        if inner is None:
            break
        data, depth = inner, depth + 1
        if depth > DEPTH:
            raise ValueError(_DEEP)
    found: dict[str, Tensor] = {}
    memory: set[int] = set()
    total = 0
    for name, value in _walk(data):
        if name in found:
            raise ValueError(f"two tensors have the name {name!r}")
        # Before any is copied: a single number can pose as a tensor of any shape.
        total += value.numel() * value.element_size()
        if limit is not None and total > limit:
            raise ValueError(
                f"its tensors take more than {limit / 2**20:,.0f} MiB, far more than the file holds: they are no weights"
            )
        found[name] = value.detach()
    for name, value in found.items():
        value = value.contiguous()
        # Parameters may share memory, which safetensors refuses.
        address = value.untyped_storage().data_ptr()
        found[name] = value.clone() if address in memory else value
        memory.add(address)
    if not found:
        raise ValueError("the file holds no tensors")
    return found


_DEEP = f"it is nested more than {DEPTH} times, or holds itself: no checkpoint is"


def _walk(data: Any) -> Iterator[tuple[str, Tensor]]:
    """Name and tensor of each in a tree of containers, which may hold itself or one container many times."""
    nodes = 0
    waiting: list[tuple[str, Any, int]] = [("", data, 0)]
    while waiting:
        prefix, value, depth = waiting.pop()
        nodes += 1
        if isinstance(value, Tensor):
            yield prefix.removesuffix("."), value
            continue
        if isinstance(value, Mapping):
            inner = [(_key(name), one) for name, one in value.items()]
        elif isinstance(value, list | tuple):
            inner = [(str(index), one) for index, one in enumerate(value)]
        else:
            continue
        if depth > DEPTH:
            raise ValueError(_DEEP)
        if nodes + len(waiting) + len(inner) > NODES:
            raise ValueError(f"it refers to more than {NODES:,} values: no checkpoint does")
        # The last one waiting is the next.
        waiting += [(_joined(prefix, name), one, depth + 1) for name, one in reversed(inner)]


def _key(name: Any) -> str:
    """A key as text; writing out containers could take for ever."""
    return (
        str(name)
        if isinstance(name, str | int) and not isinstance(name, bool)
        else f"<{type(name).__name__}>"
    )


def _joined(prefix: str, name: str) -> str:
    if len(prefix) + len(name) > NAME:
        raise ValueError(f"the name of a value has more than {NAME} letters: no checkpoint has such names")
    return f"{prefix}{name}."


class _Archive(pickle.Unpickler):
    """Reader of the tensors in a TorchScript archive, such as OpenAI's, without running its code.

    Its classes become dicts of their attributes. Any other class or function is refused.
    """

    def __init__(self, archive: zipfile.ZipFile, root: str):
        super().__init__(io.BytesIO(archive.read(f"{root}/data.pkl")))
        self.archive, self.root = archive, root
        self.storages: dict[tuple[str, torch.dtype], Any] = {}

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
        if (str(key), dtype) not in self.storages:
            data = bytearray(self.archive.read(f"{self.root}/data/{key}"))
            flat = torch.frombuffer(data, dtype=dtype, count=count) if count else torch.empty(0, dtype=dtype)
            self.storages[str(key), dtype] = torch.storage.TypedStorage(
                wrap_storage=flat.untyped_storage(), dtype=dtype, _internal=True
            )
        return self.storages[str(key), dtype]


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
            if not names:
                raise ValueError("the archive is empty")
            _check_sizes(source, archive)
            root = names[0].split("/")[0]
            if f"{root}/constants.pkl" in names:
                return _Archive(archive, root).load()
    with torch.serialization.safe_globals([(_Version, name) for name in (*_VERSION, *_CALLBACKS)]):
        return torch.load(source, map_location="cpu", weights_only=True, mmap=zipped)


def allowed(source: Path) -> int:
    """Bytes that the content of a file may take."""
    return GROWTH * source.stat().st_size + SLACK


def _check_sizes(source: Path, archive: zipfile.ZipFile) -> None:
    """Raise `ValueError` for an archive that unpacks to far more than it is: torch compresses nothing."""
    total = sum(one.file_size for one in archive.infolist())
    if total > allowed(source):
        raise ValueError(
            f"it unpacks from {source.stat().st_size / 2**20:,.1f} to {total / 2**20:,.0f} MiB, which no archive of torch "
            "does: it was made to fill the memory"
        )
    for one in archive.infolist():
        if one.filename.endswith(".pkl") and one.file_size > PICKLE:
            raise ValueError(
                f"{one.filename} in it has {one.file_size / 2**20:,.0f} MiB, which is no list of weights"
            )


def confine(source: Path) -> None:
    """Limit memory and time of this process to what reading a file can need; does nothing where limits do not exist.

    Memory is for the file mapped, its tensors copied apart, and a copy for writing. Where time runs out, the process is
    ended by SIGXCPU.
    """
    try:
        import resource

        status = Path("/proc/self/status").read_text()
    except (ImportError, OSError):
        return
    size = source.stat().st_size
    used = next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmData"))
    spent = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(spent.ru_utime + spent.ru_stime) + SECONDS + size // (20 * 2**20)
    for kind, limit in ((resource.RLIMIT_DATA, used + 3 * size + 2**30), (resource.RLIMIT_CPU, seconds)):
        _, hard = resource.getrlimit(kind)
        resource.setrlimit(kind, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def explained(error: BaseException) -> str:
    """What was found, in one line and without torch's advice to read the file unsafely."""
    text = " ".join(str(error).split())
    if isinstance(error, RecursionError):
        return _DEEP
    if isinstance(error, MemoryError) or "not enough memory" in text or "can't allocate" in text:
        return "reading it takes far more memory than weights of its size do: it was made to fill the memory, or is damaged"
    if found := re.search(r"GLOBAL (\S+)", text):
        return f"it holds {found[1]}, which is not for weights and was not run"
    if "Only persistent_load" in text or "unrecognized function" in text or "Can only" in text:
        return "it builds objects that are not for weights; nothing was run"
    advice = "weights_only" in text or "torch.load" in text
    if isinstance(error, RuntimeError) or (isinstance(error, pickle.UnpicklingError) and advice):
        return "it is no file that torch.save writes, or it is damaged"
    return f"{type(error).__name__}: {text[:300]}"


class _Version:
    """Placeholder for version numbers (`packaging`), which lucidrains' trainers save, and for names of callbacks."""

    def __new__(cls, *numbers: Any) -> "_Version":
        return object.__new__(cls)

    def __setstate__(self, state: Any) -> None:
        """Ignore the state."""


_VERSION = ("packaging.version.Version", "packaging.version._Version")
_VERSION += ("packaging._structures.InfinityType", "packaging._structures.NegativeInfinityType")


# Stable Diffusion's files name it as a key of their notes on training, and make none.
_CALLBACKS = ("pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",)

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
            confine(Path(source))
            found = tensors(read(Path(source)), allowed(Path(source)))
            failure = UNWRITTEN
            save_file(found, target)
    except Exception as error:
        sys.stderr.write(f"{explained(error)}\n")
        return failure
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
