"""Features of pictures and captions: embeddings by a CLIP, the model's own or a judge trained separately."""

import copy
import hashlib
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from safetensors.torch import load_file, save
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from unclip.checkpoints.io import load_part
from unclip.checkpoints.manifest import read_manifest
from unclip.data.decoded_cache import DecodedCache
from unclip.errors import NonFinite
from unclip.generate.model import Model
from unclip.images import from_uint8, write_atomically
from unclip.networks.clip import Clip
from unclip.tokenizers.reading import CaptionTokenizer, read_tokenizer_json

logger = logging.getLogger(__name__)


class Encoder:
    """A CLIP and its tokenizer. All embeddings have length 1.

    A judge is an encoder with another architecture and seed than the model's CLIP. It is trained on real drawings and
    takes no part in sampling, so that it does not favour what the model's own CLIP favours.
    """

    def __init__(self, clip: Clip, tokenizer: CaptionTokenizer, *, name: str):
        self.clip, self.tokenizer, self.name = clip.eval(), tokenizer, name
        self.device = next(clip.parameters()).device
        self._noted = False
        self.digest = _hash(clip, tokenizer)

    @classmethod
    def load(cls, folder: str | os.PathLike[str], device: torch.device | str = "cpu") -> "Encoder":
        """Encoder of a model folder, or of a finished run. Raises `FileNotFoundError` where there is none."""
        folder = Path(folder)
        if (folder / "model" / "model.json").is_file():
            folder = folder / "model"
        manifest = read_manifest(folder)
        network = load_part(folder, manifest, "clip", device=device)
        if not isinstance(network, Clip) or manifest.tokenizer is None:
            raise ValueError(
                f"{folder} holds no CLIP with a tokenizer: it cannot compare pictures and captions"
            )
        tokenizer = read_tokenizer_json((folder / manifest.tokenizer.file).read_text(encoding="utf-8"))
        return cls(network, tokenizer, name=manifest.name)

    @classmethod
    def of(cls, model: Model) -> "Encoder":
        """Encoder of a model's own CLIP, in float32."""
        with model.parts.lend("clip", Clip) as clip:
            exact = all(weight.dtype == torch.float32 for weight in clip.parameters())
            network = clip if exact else copy.deepcopy(clip).float()
        return cls(network, model.parts.tokenizer, name=f"{model.name}'s CLIP")

    @torch.no_grad()
    def pictures(self, pixels: UInt8[Tensor, "n 3 h w"], *, batch: int = 64) -> Float[Tensor, "n d"]:
        """Embeddings of pictures of any size, on the CPU."""
        return torch.cat([self._embed(some) for some in pixels.split(batch)])

    @torch.no_grad()
    def captions(self, texts: Sequence[str], *, batch: int = 256) -> Float[Tensor, "n d"]:
        """Embeddings of captions, on the CPU; longer ones than the context are truncated, with a note in the log, once."""
        self._note_cut(texts)
        tokens = self.tokenizer.encode(texts).to(self.device)
        parts = [self.clip.encode_text(some).embedding for some in tokens.split(batch)]
        return self._directions(torch.cat(parts), "captions")

    def training_set(self, decoded: DecodedCache, fingerprint: str, cache: Path) -> Float[Tensor, "n d"]:
        """Embeddings of a whole data set, computed once and kept in the folder `cache`."""
        file = cache / f"{fingerprint[:24]}-{len(decoded)}-{decoded.size}-judged-{self.digest}.safetensors"
        if file.exists():
            return self._directions(load_file(file)["image_embedding"], "pictures")
        chunks = np.array_split(np.arange(len(decoded)), -(-len(decoded) // 1024))
        embeddings = torch.cat([self.pictures(decoded.pictures(chunk)) for chunk in chunks])
        write_atomically(file, save({"image_embedding": embeddings}), force=True)
        return embeddings

    def _embed(self, pixels: UInt8[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        pictures = from_uint8(pixels.to(self.device))
        size = self.clip.config.vision.size
        if pictures.shape[-2:] != (size, size):
            pictures = interpolate(
                pictures, (size, size), mode="bilinear", antialias=True, align_corners=False
            )
        return self._directions(self.clip.encode_image(pictures), "pictures")

    def _note_cut(self, texts: Sequence[str]) -> None:
        cut = [text for text in texts if self.tokenizer.length(text) > self.tokenizer.context]
        if cut and not self._noted:
            self._noted = True
            logger.warning(
                "%d of %d captions are longer than the context of %d tokens of %r, which does not read their ends: %.60s",
                len(cut),
                len(texts),
                self.tokenizer.context,
                self.name,
                cut[0],
            )

    def _directions(self, embeddings: Float[Tensor, "n d"], what: str) -> Float[Tensor, "n d"]:
        """Embeddings with length 1, on the CPU. Raises `NonFinite` for what has no direction: of NaN, argmax is the first."""
        if not bool(torch.isfinite(embeddings).all()):
            raise NonFinite(
                f"{self.name!r} embeds {what} as numbers that are not finite, and cannot judge them: its weights are damaged; "
                "get it again, or name another --judge"
            )
        return normalize(embeddings.float(), dim=-1).cpu()


def _hash(clip: Clip, tokenizer: CaptionTokenizer) -> str:
    """Twelve hexadecimal digits that change with any weight or the tokenizer."""
    state = hashlib.sha256(tokenizer.to_json().encode())
    for name, weight in sorted(clip.state_dict().items()):
        state.update(name.encode())
        state.update(weight.detach().cpu().contiguous().float().numpy().tobytes())
    return state.hexdigest()[:12]
