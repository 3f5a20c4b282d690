"""Frozen CLIP of a finished run: image embeddings of a data set, text tower and tokenizer for the other stages."""

import hashlib
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save
from torch import Tensor

from unclip.checkpoints.io import load_part, space_of
from unclip.checkpoints.manifest import read_manifest
from unclip.images import write_atomically
from unclip.networks.clip import Clip
from unclip.tokenizers.clip import ClipTokenizer
from unclip.train.config import ClipDependent
from unclip.train.source import Source


class ClipRun:
    """Frozen network and tokenizer of the CLIP run that `config.clip` names, and a hash of both."""

    def __init__(self, config: ClipDependent, device: torch.device):
        if not config.clip:
            raise ValueError(
                f"the {config.stage} stage learns from a CLIP: train that first, or name its run with clip=FOLDER"
            )
        # A finished run, or a model folder, such as the bundled model's, to fine-tune another part of it.
        run = Path(config.clip)
        folder = run if (run / "model.json").exists() else run / "model"
        if not (folder / "model.json").exists():
            raise ValueError(
                f"{config.clip} is neither a finished CLIP run nor a model folder: train it first (`unclip train clip`)"
            )
        manifest = read_manifest(folder)
        network = load_part(folder, manifest, "clip", device=device)
        assert isinstance(network, Clip)
        self.clip = network.requires_grad_(False)
        self.space = manifest.space or space_of(network)
        self.tokenizer_json = (folder / "tokenizer.json").read_text(encoding="utf-8")
        self.tokenizer = ClipTokenizer.from_json(self.tokenizer_json)
        self.hash = hashlib.sha256(manifest.parts["clip"].sha256.encode()).hexdigest()[:16]
        self.device, self.bf16 = device, config.precision == "bf16"

    @property
    def embedding(self) -> int:
        """The width of the embeddings."""
        return self.clip.config.embedding

    @torch.no_grad()
    def image_embeddings(self, source: Source, cache: Path, *, batch: int = 256) -> Float[Tensor, "n d"]:
        """z_i of every picture of `source`, in its order, on the device; computed once and kept in `cache`."""
        kind = "bf16" if self.bf16 else "fp32"
        file = cache / f"{source.fingerprint}-{self.hash}-{kind}.safetensors"
        if file.exists():
            return load_file(file)["image_embedding"].to(self.device)
        parts = []
        for start in range(0, len(source), batch):
            pictures = source.pictures_between(start, min(start + batch, len(source)))
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                parts.append(self.clip.encode_image(pictures).float())
        embeddings = torch.cat(parts)
        write_atomically(file, save({"image_embedding": embeddings.cpu()}), force=True)
        return embeddings
