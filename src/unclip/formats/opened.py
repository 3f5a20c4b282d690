"""Temporary adapter to `checkpoints.opened`."""

from dataclasses import dataclass
from typing import Any

from unclip.checkpoints import opened as old
from unclip.stages.sampling import DEFAULTS, read_sampling
from unclip.stages.space import EmbeddingSpace


@dataclass(frozen=True)
class OpenPart:
    model: str
    role: str
    config: Any
    load: Any


class OpenModel:
    def __init__(self, m):
        self.name, self.digest, self.licence, self.tokenizer = m.name, m.weights, m.licence, m.tokenizer
        self.parts = {
            n: OpenPart(p.model, "upsampler" if n.startswith("upsampler") else n, p.config, p.load)
            for n, p in m.parts.items()
        }
        self.defaults = read_sampling(m.defaults).over(DEFAULTS)
        clip = m.parts.get("clip")
        self.space = lambda: EmbeddingSpace.of(clip.config)


def open_model(model, *, parts=None, check=False):
    return OpenModel(old.open_model(model, parts=parts, check=check))
