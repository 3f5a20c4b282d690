"""Open a model of any format: the parts' configs without their weights, which load on request.

Parts of different models can be combined where their embedding spaces, widths and sizes agree.
"""

import functools
import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from unclip.checkpoints.adapters import AdapterFile, add, read_adapter
from unclip.checkpoints.io import load_part
from unclip.checkpoints.manifest import MANIFEST, Manifest, read_manifest, verify
from unclip.checkpoints.registry import Role, read_config
from unclip.errors import ModelError
from unclip.formats.adapters import changes_of
from unclip.formats.adapters import part_of as adapted_part
from unclip.formats.fit import check_fit, check_lengths, check_read
from unclip.formats.open_part import OpenPart, no_latents, unknown_space
from unclip.formats.public import PublicModel, pickle_refused
from unclip.formats.registry import recognise, resolve, what_it_holds
from unclip.stages.latent_form import ENCODER, LatentForm
from unclip.stages.sampling import DEFAULTS, Sampling
from unclip.stages.space import PROJECTION, EmbeddingSpace, fingerprint_of
from unclip.tokenizers.reading import CaptionTokenizer, read_tokenizer_json


@dataclass(frozen=True, kw_only=True)
class OpenModel:
    """A model's parts with their configs, its tokenizer and its default settings; no weights are loaded."""

    name: str
    digest: str
    """Twelve hexadecimal digits that change with any weight or config; pictures record it."""
    licence: str
    parts: Mapping[str, OpenPart]
    tokenizer: Callable[[], CaptionTokenizer]
    tokenizers: Mapping[str, Callable[[], CaptionTokenizer]] = field(default_factory=dict)
    """Tokenizers of parts that have one of their own."""
    defaults: Sampling = DEFAULTS
    """Settings of every stage, with nothing left None that has a default."""
    space: Callable[[], EmbeddingSpace] = unknown_space
    """Embedding space of the parts; the first call may read a matrix of CLIP and the prior's statistics."""
    public: bool = False
    """Whether the folder is in a public format, and no model folder."""

    def named(self, role: Role) -> list[str]:
        """Names of the parts with a role; upsamplers in running order."""
        names = [name for name, part in self.parts.items() if part.role == role]
        if role == "upsampler":
            names.sort(key=lambda name: self.parts[name].config.high_size)
        return names


def open_model(
    model: str | os.PathLike[str],
    *,
    parts: Mapping[str, str | os.PathLike[str]] | None = None,
    check: bool = False,
    adapters: Mapping[Any, float] | None = None,
) -> OpenModel:
    """Open a bundled model by name, a folder (a model folder or a public format), or a hub id that was pulled.

    `parts` names other models to take parts from, such as {"prior": folder}. `check` compares the files of model folders
    with their SHA-256. `adapters` are low-rank adapters and the strength of each, in the order in which they are added. Raises `FileNotFoundError` if there is no model, `ModelError` if it is damaged or in an unknown
    format, or if parts do not fit together.
    """
    folder = resolve(model)
    opened = _open_folder(folder, check) if (folder / MANIFEST).is_file() else _open_public(folder)
    others = {name: open_model(other, check=check) for name, other in (parts or {}).items()}
    if others:
        opened = mix(opened, others)
    check_fit(opened.parts)
    check_lengths(opened.parts, {name: other.parts for name, other in others.items()})
    return adapted(opened, adapters) if adapters else opened


def adapted(base: OpenModel, adapters: Mapping[Any, float]) -> OpenModel:
    """`base` with adapters of some strengths added to its weights as they are loaded; its files stay as they are.

    Raises `ModelError` for an adapter of another model: of another part at once, of other weights when they are loaded.
    """
    parts, added = dict(base.parts), []
    for path, strength in adapters.items():
        adapter = read_adapter(path)
        name = adapted_part(adapter, parts)
        parts[name] = _adapted(parts[name], adapter, name, strength)
        added.append((adapter.digest, float(strength)))
    digest = hashlib.sha256(repr((base.digest, added)).encode()).hexdigest()[:12]
    return replace(base, parts=parts, digest=digest)


def _adapted(part: OpenPart, adapter: AdapterFile, name: str, strength: float) -> OpenPart:
    def load(**where: Any) -> nn.Module:
        network = part.load(**where)
        # A load of some weights is for a fingerprint or for statistics, which no adapter changes.
        if not where.get("only"):
            add(network, changes_of(adapter, network, name), strength)
        return network

    return replace(part, load=load)


_BROUGHT = {"prior": ("clip",), "decoder": ("text", "autoencoder")}
"""Part -> parts of its own model that it brings to a model that lacks them."""


def mix(base: OpenModel, others: Mapping[str, OpenModel]) -> OpenModel:
    """`base` with parts of other models in place of its own, or in addition.

    A prior brings its sampling settings, and its CLIP to a model without one; a decoder brings its text tower and its
    autoencoder to a model without them, and its sampling settings to one without a decoder. A CLIP brings its tokenizer, and
    normalises embeddings as the CLIP that it replaces does; a text tower brings its tokenizer, too. Raises `ModelError` for
    a part that the other model lacks, and for one that the decoder does not read.
    """
    parts, tokenizer, defaults = dict(base.parts), base.tokenizer, base.defaults
    tokenizers = dict(base.tokenizers)
    for name, brought in _BROUGHT.items():
        if (other := others.get(name)) is not None:
            new = [one for one in brought if one in other.parts and one not in base.parts]
            others = {**dict.fromkeys(new, other), **others}
    for name, other in others.items():
        if name not in other.parts:
            raise ModelError(f"{other.name!r} has no {name}: it has {', '.join(other.parts)}")
        part = other.parts[name]
        if name == "clip":
            if "text" in base.parts and "text" not in others:
                tokenizers.setdefault("text", base.tokenizer)
            tokenizer = other.tokenizer
            if name in base.parts:
                part = _normalising(part, base.parts[name].config.normalize)
        if name == "prior" and part.config.kind == "prior_laion":
            part = _lengthened(part, base)
        parts[name] = part
        if name in other.tokenizers or name == "text":
            tokenizers[name] = other.tokenizers.get(name, other.tokenizer)
        if name == "decoder" and name not in base.parts:
            defaults = replace(defaults, decoder=other.defaults.decoder)
        if name == "prior":
            defaults = replace(defaults, prior=replace(other.defaults.prior, kind=defaults.prior.kind))
    check_read(parts, {name: parts[name] for name in others})
    taken = sorted((name, other.digest) for name, other in others.items())
    return replace(
        base,
        name=" + ".join([base.name, *dict.fromkeys(other.name for other in others.values())]),
        digest=hashlib.sha256(repr((base.digest, taken)).encode()).hexdigest()[:12],
        licence=", ".join(
            dict.fromkeys(one for one in [base.licence, *(o.licence for o in others.values())] if one)
        ),
        parts=parts,
        tokenizer=tokenizer,
        tokenizers=tokenizers,
        defaults=defaults,
        space=_space_of(parts, lambda parts: _same_identity(parts, base)),
    )


def _same_identity(parts: Mapping[str, OpenPart], base: OpenModel) -> tuple[str, tuple[float, ...]]:
    space = parts["clip"].space() if "clip" in parts else base.space()
    return space.name, space.fingerprint


def _open_folder(folder: Path, check: bool) -> OpenModel:
    """A model folder."""
    manifest = verify(folder) if check else read_manifest(folder)

    def tokenizer() -> CaptionTokenizer:
        if manifest.tokenizer is None:
            raise ValueError(f"the model {manifest.name!r} has no tokenizer: it cannot read text")
        return own(manifest.tokenizer.file)

    def own(file: str) -> CaptionTokenizer:
        return read_tokenizer_json((folder / file).read_text(encoding="utf-8"))

    def part(name: str) -> OpenPart:
        entry = manifest.parts[name]
        return OpenPart(
            model=manifest.name,
            config=read_config(entry.kind, entry.config, f"{folder / MANIFEST}: {name}"),
            load=functools.partial(load_part, folder, manifest, name),
        )

    parts, space = _sharing_space(
        _sharing_latents({name: part(name) for name in manifest.parts}, manifest.latents),
        lambda parts: _identity(manifest, parts),
    )
    return OpenModel(
        name=manifest.name,
        digest=manifest.digest,
        licence=manifest.licence,
        parts=parts,
        tokenizer=tokenizer,
        tokenizers={name: functools.partial(own, entry.file) for name, entry in manifest.tokenizers.items()},
        defaults=manifest.defaults.over(DEFAULTS),
        space=space,
    )


def _identity(manifest: Manifest, parts: Mapping[str, OpenPart]) -> tuple[str, tuple[float, ...]]:
    """Name and fingerprint of a folder's embedding space; older folders store none, but may hold the CLIP."""
    if manifest.space is not None:
        return manifest.space.name, manifest.space.fingerprint
    return "", _fingerprint(parts)


def _open_public(folder: Path) -> OpenModel:
    found = recognise(folder)
    if found is None:
        raise FileNotFoundError(
            f"{folder} is not a model folder: it has no {MANIFEST}, and is in no known public format{what_it_holds(folder)}"
        )
    return open_public(found)


def open_public(found: PublicModel) -> OpenModel:
    """A model in a public format. Raises `ModelError` for one with pickled weights."""
    if found.pickled:
        raise pickle_refused(found.pickled[0], found.folder)

    def tokenizer() -> CaptionTokenizer:
        if found.tokenizer is None:
            raise ModelError(
                f"{found.folder} holds no tokenizer: take it as a part of a whole model, or give it the prior of its family"
            )
        return found.tokenizer()

    parts, space = _sharing_space(
        _sharing_latents(
            {
                name: OpenPart(model=found.name, config=part.config, load=part.load)
                for name, part in found.parts.items()
            }
        ),
        lambda parts: (found.space, _fingerprint(parts)),
    )
    return OpenModel(
        name=found.name,
        digest=found.digest,
        licence=found.licence,
        parts=parts,
        tokenizer=tokenizer,
        tokenizers=found.tokenizers,
        defaults=found.defaults.over(DEFAULTS),
        space=space,
        public=True,
    )


Identity = Callable[[Mapping[str, OpenPart]], tuple[str, tuple[float, ...]]]
"""Name and fingerprint of the embedding space of some parts."""


def _sharing_space(
    parts: Mapping[str, OpenPart], identity: Identity
) -> tuple[dict[str, OpenPart], Callable[[], EmbeddingSpace]]:
    """The parts with one embedding space, and that space."""
    space = _space_of(parts, identity)
    return {name: replace(part, space=space) for name, part in parts.items()}, space


def _space_of(parts: Mapping[str, OpenPart], identity: Identity) -> Callable[[], EmbeddingSpace]:
    @functools.cache
    def space() -> EmbeddingSpace:
        clip, prior = parts.get("clip"), parts.get("prior")
        name, fingerprint = identity(parts)
        mean, std = (None, None) if prior is None else _statistics(prior)
        return EmbeddingSpace(
            width=next((part.config.embedding for part in parts.values() if part.in_space), 0),
            normalised=None if clip is None else clip.config.normalize,
            name=name,
            fingerprint=fingerprint,
            mean=mean,
            std=std,
        )

    return space


def _sharing_latents(
    parts: Mapping[str, OpenPart], recorded: LatentForm | None = None
) -> dict[str, OpenPart]:
    """The parts with the form of their latents: the decoder's as recorded, or that of the autoencoder beside it."""
    given, autoencoder = dict(parts), parts.get("autoencoder")
    if autoencoder is not None:
        form = functools.cache(functools.partial(_form_of, autoencoder))
        given["autoencoder"] = replace(autoencoder, latents=form)
    else:
        form = no_latents
    if "decoder" in parts:
        read = form if recorded is None else lambda: recorded
        given["decoder"] = replace(parts["decoder"], latents=read)
    return given


def _form_of(autoencoder: OpenPart) -> LatentForm:
    weight = autoencoder.load(only=ENCODER).get_parameter(ENCODER)
    return LatentForm.of(autoencoder.config, fingerprint_of(weight.flatten(1)))


def _statistics(prior: OpenPart) -> tuple[Tensor, Tensor] | tuple[None, None]:
    """Mean and standard deviation of image embeddings; None for a prior that does not standardise them (ECLIPSE)."""
    held = prior.load(only="embedding_")
    mean, std = held.get_buffer("embedding_mean"), held.get_buffer("embedding_std")
    return (None, None) if bool((mean == 0).all() and (std == 1).all()) else (mean, std)


def _fingerprint(parts: Mapping[str, OpenPart]) -> tuple[float, ...]:
    if "clip" not in parts or parts["clip"].config.towers == "image":
        return ()
    return fingerprint_of(parts["clip"].load(only=PROJECTION).get_parameter(PROJECTION))


def _normalising(part: OpenPart, normalize: bool) -> OpenPart:
    """A CLIP whose embeddings have unit length or not, as another's do."""
    config = replace(part.config, normalize=normalize)

    def load(**where: Any) -> nn.Module:
        network = part.load(**where)
        network.config = config
        return network

    return replace(part, config=config, load=load)


def _lengthened(part: OpenPart, base: OpenModel) -> OpenPart:
    """LAION's prior, which predicts directions alone, with the root mean square length of `base`'s embeddings.

    The length follows from the statistics that the prior of `base` stores. A CLIP that normalises needs none.
    """
    clip = base.parts.get("clip")
    if clip is None or EmbeddingSpace.of(clip.config).normalised:
        return part
    if "prior" not in base.parts:
        raise ModelError(
            f"the prior of {part.model!r} gives directions alone, and {base.name!r} has no prior that states how long its "
            "embeddings are: take the model that has one"
        )

    def length() -> float:
        if (found := base.space().rms_length) is None:
            raise ModelError(
                f"the prior of {part.model!r} gives directions alone, and the prior of {base.name!r} does not store how long "
                "its embeddings are: take the model that has one"
            )
        return found

    def load(**where: Any) -> nn.Module:
        network = part.load(**where)
        network.get_buffer("embedding_std").mul_(length())
        return network

    return replace(part, load=load)
