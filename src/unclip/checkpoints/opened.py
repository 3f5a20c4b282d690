"""A model of any known format, opened: its parts' configs are read, their weights wait until they are asked for.

Parts of different models can be put together where their embedding spaces, widths and sizes agree.
"""

import functools
import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from unclip.checkpoints.foreign import Foreign, recognise
from unclip.checkpoints.hub import resolve
from unclip.checkpoints.io import load_part
from unclip.checkpoints.manifest import MANIFEST, ModelError, Space, read_manifest, verify
from unclip.checkpoints.registry import read_config
from unclip.checkpoints.space import PROJECTION, describe, differ, sketch
from unclip.tokenizers.clip import ClipTokenizer

# The parts that read or give image embeddings.
_IN_A_SPACE = ("clip", "prior", "prior_autoregressive", "decoder")
_OF_THE_PRIOR = ("prior_steps", "prior_sampler", "prior_guidance", "candidates")


@dataclass(frozen=True, kw_only=True)
class OpenPart:
    """A network that can be loaded: `load(device=..., dtype=...)`. `model` names where it comes from."""

    model: str
    config: Any
    load: Callable[..., nn.Module]
    space: Callable[[], Space] = Space
    """The embedding space that it was made for; reading it may take reading a matrix."""


@dataclass(frozen=True, kw_only=True)
class OpenModel:
    """What a system is made of. `weights` changes whenever a weight or config does."""

    name: str
    weights: str
    licence: str
    parts: Mapping[str, OpenPart]
    tokenizer: Callable[[], ClipTokenizer]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    space: Callable[[], Space] = Space


def open_model(
    model: str | os.PathLike[str],
    *,
    parts: Mapping[str, str | os.PathLike[str]] | None = None,
    check: bool = False,
) -> OpenModel:
    """A bundled model by its name, a folder of ours or in a public format, or a hub id that was pulled.

    `parts` names other models to take parts from, such as {"prior": folder}. `check` compares the files of a folder of
    ours with their SHA-256. Raises `FileNotFoundError` where there is no model, `ModelError` where it is damaged or in
    an unknown format, and where parts do not fit together.
    """
    folder = resolve(model)
    opened = _ours(folder, check) if (folder / MANIFEST).is_file() else _foreign(folder)
    others = {name: open_model(other, check=check) for name, other in (parts or {}).items()}
    if others:
        opened = mix(opened, others)
    check_fit(opened.parts)
    _check_lengths(opened, others)
    return opened


def mix(base: OpenModel, others: Mapping[str, OpenModel]) -> OpenModel:
    """`base` with parts of other models in the place of its own, or beside them.

    A prior brings the settings that suit it. A CLIP brings its tokenizer, and gives embeddings of unit length or not as
    the one in its place did. Raises `ModelError` for a part that the other model has not.
    """
    parts, tokenizer, defaults = dict(base.parts), base.tokenizer, dict(base.defaults)
    for name, other in others.items():
        if name not in other.parts:
            raise ModelError(f"{other.name!r} has no {name}: it has {', '.join(other.parts)}")
        part = other.parts[name]
        if name == "clip":
            tokenizer = other.tokenizer
            if name in base.parts:
                part = _normalizing(part, base.parts[name].config.normalize)
        if name == "prior" and part.config.kind == "prior_laion":
            part = _lengthened(part, base)
        parts[name] = part
        if name == "prior":
            defaults |= {key: value for key, value in other.defaults.items() if key in _OF_THE_PRIOR}
    taken = sorted((name, other.weights) for name, other in others.items())
    return replace(
        base,
        name=" + ".join([base.name, *dict.fromkeys(other.name for other in others.values())]),
        weights=hashlib.sha256(repr((base.weights, taken)).encode()).hexdigest()[:12],
        licence=", ".join(
            dict.fromkeys(one for one in [base.licence, *(o.licence for o in others.values())] if one)
        ),
        parts=parts,
        tokenizer=tokenizer,
        defaults=defaults,
    )


def check_fit(parts: Mapping[str, OpenPart]) -> None:
    """Raise `ModelError` naming two parts that do not go together, and both of their numbers or embedding spaces."""
    clip, decoder = parts.get("clip"), parts.get("decoder")
    if clip is not None:
        _check_readers(clip, parts)
    if decoder is not None:
        giver, giving, size = "decoder", decoder, decoder.config.size
        upsamplers = [name for name in parts if name.startswith("upsampler")]
        for name in sorted(upsamplers, key=lambda one: parts[one].config.high_size):
            config = parts[name].config
            _agree(name, parts[name], "pictures of side", config.low_size, giver, giving, size)
            giver, giving, size = name, parts[name], config.high_size
    _check_spaces({name: parts[name] for name in _IN_A_SPACE if name in parts})


def _check_readers(clip: OpenPart, parts: Mapping[str, OpenPart]) -> None:
    """Priors and decoder read what this CLIP gives."""
    given, text = clip.config, clip.config.text
    for name in ("prior", "prior_autoregressive"):
        if (prior := parts.get(name)) is None:
            continue
        config = prior.config
        _agree(name, prior, "embeddings of width", config.embedding, "clip", clip, given.embedding)
        _agree(name, prior, "text states of width", config.text_width, "clip", clip, text.width)
        # LAION's prior pads captions, and cuts them.
        if config.kind != "prior_laion":
            _agree(name, prior, "captions of so many tokens:", config.context, "clip", clip, text.context)
    if (decoder := parts.get("decoder")) is None:
        return
    config, caption = decoder.config, decoder.config.caption
    _agree("decoder", decoder, "embeddings of width", config.embedding, "clip", clip, given.embedding)
    if caption is not None:
        _agree("decoder", decoder, "a vocabulary of", caption.vocabulary, "clip", clip, text.vocabulary)
        _agree("decoder", decoder, "captions of so many tokens:", caption.context, "clip", clip, text.context)


def _check_spaces(parts: Mapping[str, OpenPart]) -> None:
    """Parts of one model share its space; those of different models are compared, each with the first."""
    names = list(parts)
    for name in names[1:]:
        one, other = parts[names[0]], parts[name]
        if one.space is not other.space and differ(one.space(), other.space()):
            raise ModelError(
                f"the {name} of {other.model!r} was made for the embeddings of {describe(other.space())}, the {names[0]} of "
                f"{one.model!r} for those of {describe(one.space())}: they were not made for each other"
            )


def _check_lengths(mixed: OpenModel, others: Mapping[str, OpenModel]) -> None:
    """Parts of other models read embeddings of unit length, or as CLIP makes them, as their own model's CLIP gave them."""
    words = {True: "of unit length", False: "as long as they come"}
    clip = mixed.parts.get("clip")
    for name, other in others.items():
        own = other.parts.get("clip")
        if name == "clip" or name not in _IN_A_SPACE or own is None or clip is None:
            continue
        if own.config.normalize != clip.config.normalize:
            raise ModelError(
                f"the {name} of {other.name!r} reads embeddings {words[own.config.normalize]}, the clip of {clip.model!r} "
                f"gives them {words[clip.config.normalize]}: load {other.name!r}, and take parts of others into it"
            )


def _agree(
    reader: str, reading: OpenPart, what: str, wanted: int, giver: str, giving: OpenPart, given: int
) -> None:
    if wanted != given:
        raise ModelError(
            f"the {reader} of {reading.model!r} reads {what} {wanted}, the {giver} of {giving.model!r} gives {given}: "
            "they were not made for each other"
        )


def _ours(folder: Path, check: bool) -> OpenModel:
    manifest = verify(folder) if check else read_manifest(folder)

    def tokenizer() -> ClipTokenizer:
        if manifest.tokenizer is None:
            raise ValueError(f"the model {manifest.name!r} has no tokenizer: it cannot read text")
        return ClipTokenizer.from_json((folder / manifest.tokenizer.file).read_text(encoding="utf-8"))

    @functools.cache
    def space() -> Space:
        if manifest.space is not None or "clip" not in manifest.parts:
            return manifest.space or Space()
        return Space(sketch=_sketched(parts["clip"]))

    parts = {
        name: OpenPart(
            model=manifest.name,
            config=read_config(entry.kind, entry.config, f"{folder / MANIFEST}: {name}"),
            load=functools.partial(load_part, folder, manifest, name),
            space=space,
        )
        for name, entry in manifest.parts.items()
    }
    return OpenModel(
        name=manifest.name,
        weights=manifest.weights,
        licence=manifest.licence,
        parts=parts,
        tokenizer=tokenizer,
        defaults=manifest.defaults,
        space=space,
    )


def _foreign(folder: Path) -> OpenModel:
    found = recognise(folder)
    if found is None:
        raise FileNotFoundError(
            f"{folder} is no model folder: it has no {MANIFEST}, and is in no public format that is known here"
        )
    return opened_foreign(found)


def opened_foreign(found: Foreign) -> OpenModel:
    """A model in a public format, opened."""
    if found.pickled:
        raise ModelError(
            f"{found.pickled[0]} is pickled, which can hide programs: `unclip convert {found.folder} OUT` reads it safely"
        )

    @functools.cache
    def space() -> Space:
        held = _sketched(parts["clip"]) if "clip" in parts else ()
        return Space(name=found.space, sketch=held)

    def tokenizer() -> ClipTokenizer:
        if found.tokenizer is None:
            raise ModelError(
                f"{found.folder} holds a prior alone, and no tokenizer: take it as a part of a whole model"
            )
        return found.tokenizer()

    parts = {
        name: OpenPart(model=found.name, config=part.config, load=part.load, space=space)
        for name, part in found.parts.items()
    }
    return OpenModel(
        name=found.name,
        weights=found.weights,
        licence=found.licence,
        parts=parts,
        tokenizer=tokenizer,
        defaults=found.defaults,
        space=space,
    )


def _sketched(clip: OpenPart) -> tuple[float, ...]:
    return sketch(clip.load(only=PROJECTION).get_parameter(PROJECTION))


def _normalizing(part: OpenPart, normalize: bool) -> OpenPart:
    config = replace(part.config, normalize=normalize)

    def load(**where: Any) -> nn.Module:
        network = part.load(**where)
        network.config = config
        return network

    return replace(part, config=config, load=load)


def _lengthened(part: OpenPart, base: OpenModel) -> OpenPart:
    """LAION's prior gives directions alone: its embeddings get the length that those of `base` have in the mean square.

    What tells that length are mean and deviation of the embeddings, which the prior of `base` has. A CLIP that gives unit
    length needs neither.
    """
    clip, own = base.parts.get("clip"), base.parts.get("prior")
    if clip is None or clip.config.normalize:
        return part
    if own is None:
        raise ModelError(
            f"the prior of {part.model!r} gives directions alone, and {base.name!r} has no prior that tells how long its "
            "embeddings are: take the model that has one"
        )

    def load(**where: Any) -> nn.Module:
        statistics = own.load(only="embedding_")
        mean, std = (statistics.get_buffer(f"embedding_{name}").double() for name in ("mean", "std"))
        network = part.load(**where)
        network.get_buffer("embedding_std").mul_(float((mean.square() + std.square()).sum().sqrt()))
        return network

    return replace(part, load=load)
