"""What a run learns from beside its data: frozen networks and a tokenizer, by digests that its folder notes."""

import hashlib
from typing import Any

TEACHERS = {
    "clip": "the CLIP that it learns from is another",
    "autoencoder": "the autoencoder whose latents it learns is another",
    "text": "the text tower that reads its captions is another",
    "decoder": "the decoder that it is distilled from is another",
    "tokenizer": "the tokenizer of its captions is another",
}
"""Name of each, and how a message says that it changed."""


def teachers(batches: Any) -> dict[str, str | None]:
    """Digests of what a stage's `Batches` learn from, by the names in `TEACHERS`; None for what they have not."""
    tokenizer = batches.tokenizer_json
    found = {
        "clip": getattr(batches, "clip", None),
        "autoencoder": getattr(getattr(batches, "images", None), "run", None),
        "text": getattr(batches, "text", None),
        "decoder": getattr(batches, "teacher", None),
    }
    return {
        **{name: getattr(one, "hash", None) for name, one in found.items()},
        "tokenizer": None if tokenizer is None else hashlib.sha256(tokenizer.encode()).hexdigest()[:16],
    }
