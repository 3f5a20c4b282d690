"""Bundles: the parts of finished runs joined to one model folder, stored small."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from unclip.checkpoints.adapters import add, read_adapter
from unclip.checkpoints.io import load_part, save_model
from unclip.checkpoints.manifest import MANIFEST, Manifest, read_manifest
from unclip.checkpoints.quantize import Storage
from unclip.errors import ModelError
from unclip.formats.adapters import changes_of, part_of
from unclip.formats.fit import check_fit
from unclip.formats.opened import open_model
from unclip.stages.sampling import DEFAULTS, Sampling

logger = logging.getLogger(__name__)


class BundleError(ValueError):
    """Folders that do not make one model; the message names them and the remedy."""


def bundle(
    sources: Sequence[Path],
    out: Path,
    name: str,
    *,
    defaults: Sampling | None = None,
    description: str = "",
    licence: str = "",
    storage: Storage = "int8",
    adapters: Mapping[Path, float] | None = None,
    force: bool = False,
) -> Path:
    """One model folder `out` with the parts of finished runs and model folders.

    `defaults` is how the model is sampled; what it leaves open is as in the folders of the decoder and of the other parts.
    Without `licence`, the licences of the folders are kept. `adapters` are merged: added to the weights, at their strengths.
    Raises `BundleError` where the folders do not make one model, and FileExistsError where `out` exists, unless `force`.
    """
    found = find_parts(sources)
    _check(found)
    parts = {part: load_part(source, manifest, part) for part, (source, manifest) in found.items()}
    for path, strength in (adapters or {}).items():
        adapter = read_adapter(path)
        changed = part_of(adapter, parts)
        add(parts[changed], changes_of(adapter, parts[changed], changed), strength)
    settings = _defaults(found, Sampling() if defaults is None else defaults)
    decoder: Any = getattr(parts.get("decoder"), "config", None)
    if decoder is not None and decoder.kind == "text_decoder" and "prior" not in parts:
        # It draws captions as they are.
        settings = replace(settings, prior=replace(settings.prior, kind="none"))
    return save_model(
        out,
        parts,
        name=name,
        tokenizer=find_tokenizer(found),
        tokenizers=_own_tokenizers(found),
        defaults=settings,
        description=description,
        licence=licence or ", ".join(dict.fromkeys(one.licence for _, one in found.values() if one.licence)),
        space=next((manifest.space for _, manifest in found.values() if manifest.space), None),
        latents=found["decoder"][1].latents if "decoder" in found else None,
        storage=storage,
        force=force,
    )


def find_parts(sources: Sequence[Path]) -> dict[str, tuple[Path, Manifest]]:
    """The folder of each part. Raises `BundleError` where two hold the same one, a run is not finished, or none has any."""
    found: dict[str, tuple[Path, Manifest]] = {}
    for source in sources:
        folder = source / "model" if (source / "model" / MANIFEST).is_file() else source
        if (source / "config.json").is_file() and folder is source:
            raise BundleError(f"{source} is a run that is not finished: `unclip train` resumes it")
        if not (folder / MANIFEST).is_file():
            logger.warning("skipped %s: it holds no model", source)
            continue
        manifest = read_manifest(folder)
        for name in manifest.parts:
            if name in found:
                raise BundleError(f"both {found[name][0]} and {folder} hold a {name!r}; leave one out")
            found[name] = folder, manifest
    if not found:
        raise BundleError("none of these folders holds a model; give finished runs of `unclip train`")
    return found


def _check(found: Mapping[str, tuple[Path, Manifest]]) -> None:
    """Raise `BundleError` for parts that do not fit together."""
    opened = {folder: open_model(folder) for folder, _ in found.values()}
    try:
        check_fit({part: opened[folder].parts[part] for part, (folder, _) in found.items()})
    except ModelError as error:
        raise BundleError(str(error)) from error


def _defaults(found: Mapping[str, tuple[Path, Manifest]], given: Sampling) -> Sampling:
    """Settings of each stage: as given, else as the decoder's folder has them, else another's."""
    first = [manifest for part, (_, manifest) in found.items() if part == "decoder"]
    for manifest in [*first, *(manifest for _, manifest in found.values())]:
        given = given.merged(manifest.defaults)
    return given.over(DEFAULTS)


def _own_tokenizers(found: Mapping[str, tuple[Path, Manifest]]) -> dict[str, str]:
    """Tokenizers of parts that have one of their own, as JSON text."""
    return {
        part: (folder / manifest.tokenizers[part].file).read_text(encoding="utf-8")
        for part, (folder, manifest) in found.items()
        if part in manifest.tokenizers
    }


def find_tokenizer(found: dict[str, tuple[Path, Manifest]]) -> str | None:
    """The one tokenizer of the parts' folders, as JSON text. Raises `BundleError` where they differ."""
    holders = {
        manifest.tokenizer.sha256: folder / manifest.tokenizer.file
        for folder, manifest in found.values()
        if manifest.tokenizer is not None
    }
    if len(holders) > 1:
        raise BundleError(
            f"these tokenizers differ, so the stages do not belong together: {', '.join(map(str, holders.values()))}"
        )
    return next(iter(holders.values())).read_text(encoding="utf-8") if holders else None
