"""Features of pictures and captions: embeddings by a CLIP, the model's own or a judge trained separately."""

import copy
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from unclip.checkpoints.io import load_part
from unclip.checkpoints.manifest import read_manifest
from unclip.data.decoded_cache import DecodedCache
from unclip.generate.model import Model
from unclip.images import from_uint8
from unclip.networks.clip import Clip
from unclip.tokenizers.reading import CaptionTokenizer, read_tokenizer_json


class Encoder:
    """A CLIP and its tokenizer. All embeddings have length 1.

    A judge is an encoder with another architecture and seed than the model's CLIP. It is trained on real drawings and
    takes no part in sampling, so that it does not favour what the model's own CLIP favours.
    """

    def __init__(self, clip: Clip, tokenizer: CaptionTokenizer, *, name: str):
        self.clip, self.tokenizer, self.name = clip.eval(), tokenizer, name
        self.device = next(clip.parameters()).device
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
        """Embeddings of captions, on the CPU; longer ones than the context are truncated."""
        tokens = self.tokenizer.encode(texts).to(self.device)
        parts = [self.clip.encode_text(some).embedding for some in tokens.split(batch)]
        return normalize(torch.cat(parts).float(), dim=-1).cpu()

    def training_set(self, decoded: DecodedCache, fingerprint: str, cache: Path) -> Float[Tensor, "n d"]:
        """Embeddings of a whole data set, computed once and kept in the folder `cache`."""
        file = cache / f"{fingerprint[:24]}-{len(decoded)}-{decoded.size}-judged-{self.digest}.safetensors"
        if file.exists():
            return load_file(file)["image_embedding"]
        chunks = np.array_split(np.arange(len(decoded)), -(-len(decoded) // 1024))
        embeddings = torch.cat([self.pictures(decoded.pictures(chunk)) for chunk in chunks])
        cache.mkdir(parents=True, exist_ok=True)
        fresh = file.with_suffix(".writing")
        save_file({"image_embedding": embeddings}, fresh)
        fresh.rename(file)
        return embeddings

    def _embed(self, pixels: UInt8[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        pictures = from_uint8(pixels.to(self.device))
        size = self.clip.config.vision.size
        if pictures.shape[-2:] != (size, size):
            pictures = interpolate(
                pictures, (size, size), mode="bilinear", antialias=True, align_corners=False
            )
        return normalize(self.clip.encode_image(pictures).float(), dim=-1).cpu()


def _hash(clip: Clip, tokenizer: CaptionTokenizer) -> str:
    """Twelve hexadecimal digits that change with any weight or the tokenizer."""
    state = hashlib.sha256(tokenizer.to_json().encode())
    for name, weight in sorted(clip.state_dict().items()):
        state.update(name.encode())
        state.update(weight.detach().cpu().contiguous().float().numpy().tobytes())
    return state.hexdigest()[:12]
