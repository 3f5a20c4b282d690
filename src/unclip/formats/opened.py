"""Open a model of any format: the parts' configs without their weights, which load on request.

Parts of different models can be combined where their embedding spaces, widths and sizes agree.
"""

import functools
import hashlib
import itertools
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from unclip.checkpoints.adapters import AdapterFile, add, read_adapter
from unclip.checkpoints.io import load_part
from unclip.checkpoints.manifest import MANIFEST, Manifest, read_manifest, verify
from unclip.checkpoints.registry import Role, read_config, role_of
from unclip.errors import ModelError
from unclip.formats.adapters import changes_of
from unclip.formats.adapters import part_of as adapted_part
from unclip.formats.public import PublicModel, pickle_refused
from unclip.formats.registry import recognise, resolve, what_it_holds
from unclip.stages.families import FAMILIES, family_of
from unclip.stages.sampling import DEFAULTS, Sampling
from unclip.stages.space import PROJECTION, EmbeddingSpace, fingerprint_of
from unclip.tokenizers.reading import CaptionTokenizer, read_tokenizer_json


def _unknown_space() -> EmbeddingSpace:
    return EmbeddingSpace(width=0)


@dataclass(frozen=True, kw_only=True)
class OpenPart:
    """A network with its config, not loaded yet."""

    model: str
    """Name of the model that it belongs to."""
    config: Any
    load: Callable[..., nn.Module]
    """`load(device=..., dtype=..., only=...)`: the network in evaluation mode, as `checkpoints.io.load_part`."""
    space: Callable[[], EmbeddingSpace] = _unknown_space
    """Embedding space that the part was trained for. The first call may read a matrix of CLIP and the prior's statistics."""

    @property
    def role(self) -> Role:
        """What the part does in a model."""
        return role_of(self.config.kind)


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
    space: Callable[[], EmbeddingSpace] = _unknown_space
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
    _check_lengths(opened, others)
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


def mix(base: OpenModel, others: Mapping[str, OpenModel]) -> OpenModel:
    """`base` with parts of other models in place of its own, or in addition.

    A prior brings its sampling settings, and its CLIP to a model without one. A CLIP brings its tokenizer, and normalises
    embeddings as the CLIP that it replaces does. Raises `ModelError` for a part that the other model lacks.
    """
    parts, tokenizer, defaults = dict(base.parts), base.tokenizer, base.defaults
    tokenizers = dict(base.tokenizers)
    if "clip" not in base.parts and "prior" in others and "clip" in others["prior"].parts:
        others = {"clip": others["prior"], **others}
    for name, other in others.items():
        if name not in other.parts:
            raise ModelError(f"{other.name!r} has no {name}: it has {', '.join(other.parts)}")
        part = other.parts[name]
        if name == "clip":
            tokenizer = other.tokenizer
            if name in base.parts:
                part = _normalising(part, base.parts[name].config.normalize)
        if name == "prior" and part.config.kind == "prior_laion":
            part = _lengthened(part, base)
        parts[name] = part
        if name in other.tokenizers:
            tokenizers[name] = other.tokenizers[name]
        if name == "prior":
            defaults = replace(defaults, prior=replace(other.defaults.prior, kind=defaults.prior.kind))
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


def check_fit(parts: Mapping[str, OpenPart]) -> None:
    """Raise `ModelError` naming two parts that do not fit, and the numbers or embedding spaces of both."""
    clip, decoder = parts.get("clip"), parts.get("decoder")
    if clip is not None:
        _check_readers(clip, parts)
    if decoder is not None and decoder.config.kind in FAMILIES:
        autoencoder = parts.get("autoencoder")
        family = family_of(decoder.config, None if autoencoder is None else autoencoder.config)
        for reader, what, needed, source, given in family.agreements(
            {name: part.config for name, part in parts.items()}
        ):
            _agree(reader, parts[reader], what, needed, source, parts[source], given)
    if decoder is not None:
        source, giving, size = "decoder", decoder, decoder.config.size
        upsamplers = [name for name, part in parts.items() if part.role == "upsampler"]
        for name in sorted(upsamplers, key=lambda one: parts[one].config.high_size):
            config = parts[name].config
            _agree(name, parts[name], "pictures of side", config.low_size, source, giving, size)
            source, giving, size = name, parts[name], config.high_size
    _check_spaces({name: part for name, part in parts.items() if _in_space(part)})


def _in_space(part: OpenPart) -> bool:
    """Whether a part gives or reads image embeddings."""
    return part.role in ("clip", "prior", "decoder") and getattr(part.config, "embedding", None) is not None


def _check_readers(clip: OpenPart, parts: Mapping[str, OpenPart]) -> None:
    """Priors and decoder read what this CLIP gives."""
    given, text = clip.config, clip.config.text
    for name, part in parts.items():
        if part.role != "prior":
            continue
        if given.towers == "image":
            raise ModelError(
                f"the {name} of {part.model!r} reads captions, the clip of {clip.model!r} has no text tower: take a CLIP "
                "that has both"
            )
        config = part.config
        _agree(name, part, "embeddings of width", config.embedding, "clip", clip, given.embedding)
        _agree(name, part, "text states of width", config.text_width, "clip", clip, text.width)
        # LAION's prior pads captions, and cuts them.
        if config.kind != "prior_laion":
            _agree(name, part, "captions of so many tokens:", config.context, "clip", clip, text.context)


def _check_spaces(parts: Mapping[str, OpenPart]) -> None:
    """Parts of one model share its space; those of different models are compared, as some may not know theirs."""
    for first, name in itertools.combinations(parts, 2):
        one, other = parts[first], parts[name]
        if one.space is not other.space and one.space().differs_from(other.space()):
            raise ModelError(
                f"the {name} of {other.model!r} was made for the embeddings of {other.space()}, the {first} of "
                f"{one.model!r} for those of {one.space()}: they were not made for each other"
            )


def _check_lengths(mixed: OpenModel, others: Mapping[str, OpenModel]) -> None:
    """Parts of other models read embeddings of the length that the CLIP of their own model gives."""
    words = {True: "of unit length", False: "as long as they come"}
    clip = mixed.parts.get("clip")
    for name, other in others.items():
        own = other.parts.get("clip")
        if own is None or clip is None or other.parts[name].role not in ("prior", "decoder"):
            continue
        read, given = (bool(EmbeddingSpace.of(one.config).normalised) for one in (own, clip))
        if read != given:
            raise ModelError(
                f"the {name} of {other.name!r} reads embeddings {words[read]}, the clip of {clip.model!r} "
                f"gives them {words[given]}: load {other.name!r}, and take parts of others into it"
            )


def _agree(
    reader: str, reading: OpenPart, what: str, needed: int, source: str, giving: OpenPart, given: int
) -> None:
    if needed != given:
        raise ModelError(
            f"the {reader} of {reading.model!r} reads {what} {needed}, the {source} of {giving.model!r} gives {given}: "
            "they were not made for each other"
        )


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
        {name: part(name) for name in manifest.parts}, lambda parts: _identity(manifest, parts)
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
        {
            name: OpenPart(model=found.name, config=part.config, load=part.load)
            for name, part in found.parts.items()
        },
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
            width=next((part.config.embedding for part in parts.values() if _in_space(part)), 0),
            normalised=None if clip is None else clip.config.normalize,
            name=name,
            fingerprint=fingerprint,
            mean=mean,
            std=std,
        )

    return space


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
