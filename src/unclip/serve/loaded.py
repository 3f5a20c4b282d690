"""Models in a worker's memory: loaded when first needed; the least recently used ones make room for others."""

import logging
import os
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

logger = logging.getLogger(__name__)


class Loaded:
    """Models by name, within a budget of bytes of their files; one thread uses it. `options` are those of `Model.load`."""

    def __init__(self, models: Mapping[str, str], *, budget: int | None, **options: Any):
        self._specs, self._budget = dict(models), budget
        self._options = options
        self._models: OrderedDict[str, tuple[Any, int]] = OrderedDict()

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of each loaded model."""
        return {name: size for name, (_, size) in self._models.items()}

    def get(self, name: str) -> Any:
        """The model (`unclip.generate.model.Model`) of a name. Raises `ModelError` or `FileNotFoundError`."""
        from unclip.generate.model import Model

        if name not in self._models:
            size = _size_of(self._specs[name])
            self._make_room(size)
            logger.info("opening the model %s (%.1f MB)", name, size / 1e6)
            self._models[name] = Model.load(self._specs[name], **self._options), size
        self._models.move_to_end(name)
        return self._models[name][0]

    def drop(self) -> None:
        """Forget all models, to free their memory."""
        self._models.clear()
        _free()

    def _make_room(self, size: int) -> None:
        while self._models and self._budget is not None and sum(self.sizes.values()) + size > self._budget:
            name, _ = self._models.popitem(last=False)
            logger.info("dropping the model %s, the least recently used, to make room", name)
            _free()


def _size_of(spec: str) -> int:
    """Bytes of a model's weights, whose files are about as large as they are in memory."""
    from unclip.formats.registry import resolve

    folder = resolve(spec)
    return sum(
        os.path.getsize(os.path.join(parent, file))
        for parent, _, files in os.walk(folder, followlinks=True)
        for file in files
        if file.endswith((".safetensors", ".bin", ".pt", ".ckpt"))
    )


def _free() -> None:
    import gc

    import torch

    from unclip.generate.offload import return_kept_memory

    gc.collect()
    return_kept_memory()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
