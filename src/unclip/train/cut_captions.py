"""Captions that are longer than the network's context: counted when a run begins, and named once."""

import logging

import numpy as np

from unclip.tokenizers.reading import CaptionTokenizer
from unclip.train.source import Source

_NAMED = 3

logger = logging.getLogger(__name__)


def report_cut_captions(source: Source, tokenizer: CaptionTokenizer) -> int:
    """The number of captions that lose their end to the tokenizer's context; a log message names some of them."""
    indices = np.concatenate(list(source.spread(source.quick_look, source.quick_look)))
    samples = [source.decoded.samples[index] for index in indices]
    captions = [(sample.key, caption) for sample in samples for caption in sample.captions]
    lengths = [(key, tokenizer.length(caption)) for key, caption in captions]
    cut = [(key, length) for key, length in lengths if length > tokenizer.context]
    if cut:
        longest = sorted(dict(sorted(cut, key=lambda one: one[1])).items(), key=lambda one: -one[1])[:_NAMED]
        names = ", ".join(f"{key} ({length} tokens)" for key, length in longest)
        looked_at = "" if len(samples) == len(source) else f" of {len(samples):,} of {len(source):,} pictures"
        logger.warning(
            f"{len(cut):,} of {len(captions):,} captions{looked_at} are longer than the context of {tokenizer.context} "
            f"tokens, and their ends are not read: {names}"
        )
    return len(cut)
