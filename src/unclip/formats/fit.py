"""Whether parts of a model fit together: widths, sizes, embedding spaces, and the form of latents."""

import itertools
import logging
from collections.abc import Mapping

from unclip.errors import ModelError
from unclip.formats.open_part import OpenPart
from unclip.stages.families import FAMILIES, family_of
from unclip.stages.family import Family
from unclip.stages.space import EmbeddingSpace

logger = logging.getLogger(__name__)


def check_fit(parts: Mapping[str, OpenPart]) -> None:
    """Raise `ModelError` naming two parts that do not fit, and the numbers or embedding spaces of both."""
    clip, decoder = parts.get("clip"), parts.get("decoder")
    if clip is not None:
        _check_readers(clip, parts)
    if decoder is not None and decoder.config.kind in FAMILIES:
        autoencoder = parts.get("autoencoder")
        family = family_of(decoder.config, None if autoencoder is None else autoencoder.config)
        _check_text(family, decoder, parts.get("text"))
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
    if decoder is not None and "autoencoder" in parts:
        _check_latents(decoder, parts["autoencoder"])
    _check_spaces({name: part for name, part in parts.items() if part.in_space})


def _check_text(family: Family, decoder: OpenPart, text: OpenPart | None) -> None:
    """A decoder's text tower is of the kind that its family reads."""
    if text is None or family.text_kind in (None, text.config.kind):
        return
    raise ModelError(
        f"the decoder of {decoder.model!r} reads captions by a {_KINDS.get(family.text_kind, family.text_kind)}, the text of "
        f"{text.model!r} is a {_KINDS.get(text.config.kind, text.config.kind)}: they were not made for each other"
    )


_KINDS = {"text_encoder": "text tower of CLIP", "multilingual": "multilingual text encoder"}


def _check_latents(decoder: OpenPart, autoencoder: OpenPart) -> None:
    """A decoder gets latents of the form that it was trained on. An unknown form agrees with any."""
    if decoder.latents is autoencoder.latents:
        return
    trained, given = decoder.latents(), autoencoder.latents()
    if trained is None or given is None:
        return
    if (found := trained.difference(given)) is not None:
        raise ModelError(
            f"the decoder of {decoder.model!r} reads {found.what} {found.one}, the autoencoder of {autoencoder.model!r} gives "
            f"{found.other}: they were not made for each other"
        )
    if trained.differs_inside(given):
        logger.warning(
            "the autoencoder of %r has another encoder than the one that the decoder of %r was trained with: pictures are "
            "right only if one was trained further from the other",
            autoencoder.model,
            decoder.model,
        )


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


def check_lengths(parts: Mapping[str, OpenPart], others: Mapping[str, Mapping[str, OpenPart]]) -> None:
    """Parts of other models read embeddings of the length that the CLIP of their own model gives."""
    words = {True: "of unit length", False: "as long as they come"}
    clip = parts.get("clip")
    for name, other in others.items():
        own = other.get("clip")
        if own is None or clip is None or other[name].role not in ("prior", "decoder"):
            continue
        read, given = (bool(EmbeddingSpace.of(one.config).normalised) for one in (own, clip))
        if read != given:
            raise ModelError(
                f"the {name} of {other[name].model!r} reads embeddings {words[read]}, the clip of {clip.model!r} "
                f"gives them {words[given]}: load {other[name].model!r}, and take parts of others into it"
            )


def _agree(
    reader: str, reading: OpenPart, what: str, needed: int, source: str, giving: OpenPart, given: int
) -> None:
    if needed != given:
        raise ModelError(
            f"the {reader} of {reading.model!r} reads {what} {needed}, the {source} of {giving.model!r} gives {given}: "
            "they were not made for each other"
        )


def check_read(parts: Mapping[str, OpenPart], taken: Mapping[str, OpenPart]) -> None:
    """Parts that are taken have a use: a prior, a text tower or an autoencoder that the decoder does not read has none."""
    decoder, autoencoder = parts.get("decoder"), parts.get("autoencoder")
    if decoder is None or decoder.config.kind not in FAMILIES:
        return
    read = family_of(decoder.config, None if autoencoder is None else autoencoder.config).reads
    for name, part in taken.items():
        if part.role in _UNREAD and part.role not in read:
            raise ModelError(
                f"the {name} of {part.model!r} would have no use: the decoder of {decoder.model!r} {_UNREAD[part.role]}"
            )


_UNREAD = {
    "prior": "reads no image embeddings",
    "text": "reads no text encoder's states",
    "autoencoder": "draws pixels, not latents",
}
"""Role of a part -> why a decoder does not read it."""
