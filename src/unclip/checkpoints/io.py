"""Save and load networks in model folders; strict about names, shapes and damage, and never two copies in memory."""

import contextlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from unclip.checkpoints.foreign import not_weights
from unclip.checkpoints.manifest import (
    FileEntry,
    Manifest,
    PartEntry,
    Space,
    check_size,
    entry_of,
    read_manifest,
    write_folder,
)
from unclip.checkpoints.quantize import SCALE, STORAGES, Storage, decode, encode, plain_names, stored_size
from unclip.checkpoints.registry import RETIRED_WEIGHTS, classes, kind_of, read_config
from unclip.checkpoints.stream import Stream
from unclip.config import to_dict
from unclip.disk import disk_full, is_full, require_room
from unclip.errors import ModelError
from unclip.networks.inference import matrices
from unclip.stages.latent_form import LatentForm
from unclip.stages.sampling import Sampling, read_sampling
from unclip.stages.space import PROJECTION, fingerprint_of

Network = TypeVar("Network", bound=nn.Module)
_ROOM = "make room, or give another folder"


def save_model(
    folder: str | os.PathLike[str],
    parts: Mapping[str, nn.Module],
    *,
    name: str,
    tokenizer: str | None = None,
    tokenizers: Mapping[str, str] | None = None,
    defaults: Sampling | Mapping[str, Any] | None = None,
    description: str = "",
    licence: str = "",
    space: Space | None = None,
    latents: LatentForm | None = None,
    storage: Storage = "float32",
    force: bool = False,
) -> Path:
    """Write a model folder, whole or not at all.

    `parts` are networks of registered kinds with their `config`; `tokenizer` is the JSON text of one, `tokenizers` those of
    parts that have one of their own; `defaults` are sampling settings, or their JSON (nested, or the flat names of version
    0.1); `space` is the embedding space, where no CLIP is among the parts, and `latents` the form of those that the decoder
    was trained on. Raises `FileExistsError` unless `force`, `DiskFull` where there is no room for all parts, and
    `ValueError` for an unregistered part or a weight that is not finite.
    """
    settings = defaults if isinstance(defaults, Sampling) else read_sampling(defaults or {})

    def fill(fresh: Path) -> Manifest:
        entries = {}
        size = sum(stored_size(network.state_dict(), storage) for network in parts.values())
        require_room(fresh, size, what="the model", remedy=_ROOM, name=Path(folder))
        for part, network in parts.items():
            file = fresh / f"{part}.safetensors"
            write_weights(file, network.state_dict(), storage)
            entries[part] = PartEntry(
                kind=kind_of(network), config=to_dict(network.config), storage=storage, **entry_of(file)
            )
        tokens = None
        if tokenizer is not None:
            (fresh / "tokenizer.json").write_text(tokenizer, encoding="utf-8")
            tokens = FileEntry(**entry_of(fresh / "tokenizer.json"))
        own = {}
        for part, text in (tokenizers or {}).items():
            file = fresh / f"{part}_tokenizer.json"
            file.write_text(text, encoding="utf-8")
            own[part] = FileEntry(**entry_of(file))
        return Manifest(
            name=name,
            description=description,
            licence=licence,
            parts=entries,
            tokenizer=tokens,
            tokenizers=own,
            defaults=settings,
            space=space_of(parts["clip"]) if "clip" in parts else space,
            latents=latents if "decoder" in parts else None,
        )

    return write_folder(Path(folder), fill, force=force)


def space_of(clip: nn.Module) -> Space:
    """Identity of a CLIP's embedding space, as `model.json` stores it."""
    return Space(fingerprint=fingerprint_of(clip.get_parameter(PROJECTION)))


def load_model(
    folder: str | os.PathLike[str], *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> dict[str, nn.Module]:
    """All networks of a model folder, in evaluation mode. Raises `ModelError` like `load_part`."""
    folder = Path(folder)
    manifest = read_manifest(folder)
    return {name: load_part(folder, manifest, name, device=device, dtype=dtype) for name in manifest.parts}


def load_part(
    folder: Path,
    manifest: Manifest,
    name: str,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    only: str = "",
) -> nn.Module:
    """One network in evaluation mode, its weights dequantised on `device`.

    Weights are `dtype` in the layers that multiply matrices, and float32 elsewhere. With `only`, weights whose names do not
    begin with it stay on the meta device. Raises `ModelError` for a missing part, a damaged file, and a weight that is
    unknown, missing or of another shape than the config needs.
    """
    if name not in manifest.parts:
        raise ModelError(f"the model {manifest.name!r} has no {name!r}: it has {', '.join(manifest.parts)}")
    entry = manifest.parts[name]
    check_size(folder, entry)
    config = read_config(entry.kind, entry.config, f"{folder / 'model.json'}: {name}")
    network = build(classes(entry.kind)[1], config)
    load_weights(
        network,
        folder / entry.file,
        device=device,
        dtype=dtype,
        only=only,
        ignored=RETIRED_WEIGHTS.get(entry.kind, ""),
    )
    return network.eval()


def build(network: type[Network], config: Any) -> Network:
    """A network whose weights are on the meta device, to be assigned.

    Tables that the network computes from its config, which no file holds, are computed; building all of it on the meta
    device would lose them.
    """
    with _EmptyOnMeta():
        return network(config)


class _EmptyOnMeta(TorchFunctionMode):
    """Puts tensors made by `torch.empty`, with which torch's layers make their weights, on the meta device.

    Initialisers are skipped: even on the meta device, a random number loads torch's compiler, which takes a second.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.empty and kwargs.get("device") is None:
            kwargs["device"] = "meta"
        # Methods pass their tensor first; the functions of torch.nn.init by the keyword `tensor`.
        target = args[0] if args else kwargs.get("tensor")
        name = getattr(func, "__name__", "")
        if (
            isinstance(target, nn.Parameter)
            and target.is_meta
            and name.endswith("_")
            and not name.endswith("__")
        ):
            return target
        return func(*args, **kwargs)


def load_weights(
    network: nn.Module,
    file: Path,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    only: str = "",
    ignored: str = "",
) -> None:
    """Assign the weights of a safetensors file to `network`; at most one weight is in memory twice.

    `ignored` is a pattern of names that are skipped, unless the network has them.
    Raises `ModelError` naming the first weight that is unknown, missing or of another shape.
    """
    expected = network.state_dict()
    with _damage_named(file):
        stored = Stream(file)
        skipped = {
            name
            for name in stored.names
            if re.fullmatch(ignored, name.removesuffix(SCALE)) and name.removesuffix(SCALE) not in expected
        }
        present = [name for name in stored.names if name not in skipped]
        names = plain_names(present)
        if unknown := sorted(names - expected.keys()):
            raise ModelError(
                f"{file} holds {_some(unknown)}, unknown to {type(network).__name__} with this config"
            )
        if missing := sorted(expected.keys() - names):
            raise ModelError(
                f"{file} lacks {_some(missing)}, which {type(network).__name__} needs with this config"
            )

        def checked() -> Iterator[tuple[str, Tensor]]:
            held = (name for name in present if name.startswith(only))
            for name, weight in decode(held, stored.get_tensor):
                if weight.shape != expected[name].shape:
                    have, need = tuple(weight.shape), tuple(expected[name].shape)
                    raise ModelError(f"{file}: {name} has shape {have}, the config asks for {need}")
                yield name, weight

        assign(network, checked(), device=device, dtype=dtype, only=only)


def assign(
    network: nn.Module,
    weights: Iterable[tuple[str, Tensor]],
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    only: str = "",
) -> None:
    """Assign weights on `device`: `dtype` in the layers that multiply matrices, other floating-point weights float32."""
    multiplied = matrices(network) if dtype != torch.float32 else ()
    state = {}
    for name, weight in weights:
        wanted = dtype if name in multiplied else torch.float32
        state[name] = weight.to(device, wanted if weight.is_floating_point() else None).contiguous()
    network.load_state_dict(state, assign=True, strict=not only)
    if not only:
        # Tables that are computed from the config, which the file does not hold.
        network.to(device)


def write_weights(file: Path, weights: Mapping[str, Tensor], storage: Storage = "float32") -> None:
    """Write a safetensors file and sync it to disk.

    Weights are written from where they are; only those that share memory are copied, as each name is written. Raises
    `DiskFull` before anything is written where there is no room, and `OSError` if writing fails.
    """
    if storage not in STORAGES:
        raise ValueError(f"storage {storage!r} is not one of {', '.join(STORAGES)}")
    require_room(file.parent, stored_size(weights, storage), what="the weights", remedy=_ROOM, name=file)
    tensors = _apart(encode(weights, storage))
    # safetensors makes files for their owner alone: let the umask decide, as for every other file.
    file.touch()
    mode = file.stat().st_mode
    # One key only: safetensors writes several in random order, and the same weights must give the same bytes.
    try:
        save_file(tensors, file, metadata={"format": "pt"})
    except SafetensorError as error:
        if is_full(error):
            size = stored_size(weights, storage)
            raise disk_full(file, size, what="the weights", remedy=_ROOM) from error
        raise OSError(f"{file} could not be written ({error}): is there room on the disk?") from error
    file.chmod(mode)
    with open(file, "rb+") as written:
        os.fsync(written.fileno())


def read_weights(
    file: Path, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> Iterator[tuple[str, Tensor]]:
    """Name and weight of each tensor in a safetensors file, in `dtype`. Raises `ModelError` if the file is damaged."""
    with _damage_named(file):
        stored = Stream(file)
        for name, weight in decode(stored.names, stored.get_tensor, dtype):
            yield name, weight.to(device)


@contextlib.contextmanager
def _damage_named(file: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise ModelError(f"{file} is missing: get the model again") from None
    except SafetensorError as error:
        if found := not_weights(file):
            raise ModelError(f"{file} {found}") from error
        raise ModelError(f"{file} is damaged ({error}): get the model again") from error


def _apart(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights on the CPU, contiguous, no two in the same memory, which safetensors refuses."""
    found: dict[str, Tensor] = {}
    memory: set[int] = set()
    for name, value in weights.items():
        value = value.detach().cpu().contiguous()
        address = value.untyped_storage().data_ptr()
        found[name] = value.clone() if address in memory else value
        memory.add(address)
    return found


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"the weight {names[0]}{more}"
