"""Captions that are longer than the network's context: counted when a run begins, and named once."""

import logging

from unclip.tokenizers.clip import ClipTokenizer
from unclip.train.source import Source, evenly_spaced

LOOKED_AT = 20_000
"""At most so many pictures' captions are counted, evenly spaced over the data."""
_NAMED = 3

logger = logging.getLogger(__name__)


def report_cut_captions(source: Source, tokenizer: ClipTokenizer) -> int:
    """The number of captions that lose their end to the tokenizer's context; a log message names some of them."""
    indices = evenly_spaced(LOOKED_AT, len(source))
    samples = [source.decoded.samples[index] for index in indices]
    captions = [(sample.key, caption) for sample in samples for caption in sample.captions]
    lengths = tokenizer.lengths([caption for _, caption in captions])
    cut = [(key, length) for (key, _), length in zip(captions, lengths) if length > tokenizer.context]
    if cut:
        longest = sorted(dict(sorted(cut, key=lambda one: one[1])).items(), key=lambda one: -one[1])[:_NAMED]
        names = ", ".join(f"{key} ({length} tokens)" for key, length in longest)
        looked_at = "" if len(samples) == len(source) else f" of {len(samples):,} of {len(source):,} pictures"
        logger.warning(
            f"{len(cut):,} of {len(captions):,} captions{looked_at} are longer than the context of {tokenizer.context} "
            f"tokens, and their ends are not read: {names}"
        )
    return len(cut)
