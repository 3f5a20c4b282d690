"""Frozen CLIP of a finished run: image embeddings of a data set, text tower and tokenizer for the other stages."""

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int64
from safetensors.torch import load_file, save
from torch import Tensor
from torch.nn.functional import interpolate

from unclip.checkpoints.io import load_part, space_of
from unclip.checkpoints.manifest import Space, read_manifest
from unclip.checkpoints.weights_digest import weights_digest
from unclip.data.stream.open import beside
from unclip.data.stream.sidecar import IMAGE, Sidecars
from unclip.errors import NonFinite
from unclip.formats.opened import open_model
from unclip.images import write_atomically
from unclip.networks.clip import Clip, TextEncoding
from unclip.stages.text import Captions
from unclip.tokenizers.clip import ClipTokenizer
from unclip.train.config import ClipDependent
from unclip.train.source import Source
from unclip.train.streamed import StreamedSource


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
        self.device, self.bf16 = device, config.precision == "bf16"
        self.sidecars, self.name = config.data.embeddings, config.clip
        if not (folder / "model.json").exists():
            self._open_public(config.clip)
            return
        manifest = read_manifest(folder)
        network = load_part(folder, manifest, "clip", device=device)
        assert isinstance(network, Clip)
        self.clip = network.requires_grad_(False)
        self.space = manifest.space or space_of(network)
        self.tokenizer_json = (folder / "tokenizer.json").read_text(encoding="utf-8")
        self._tokenizer = ClipTokenizer.from_json(self.tokenizer_json)
        self.hash = hashlib.sha256(manifest.parts["clip"].sha256.encode()).hexdigest()[:16]

    def _open_public(self, name: str) -> None:
        """The CLIP of a bundled model, or of a model in a public format."""
        try:
            opened = open_model(name)
        except FileNotFoundError:
            raise ValueError(
                f"{name} is neither a finished CLIP run nor a model folder: train it first (`unclip train clip`)"
            ) from None
        if "clip" not in opened.parts:
            raise ValueError(f"{name} holds {', '.join(opened.parts)} but no clip: name a model with one")
        network = opened.parts["clip"].load(device=self.device)
        assert isinstance(network, Clip)
        self.clip = network.requires_grad_(False)
        found = opened.space()
        self.space = Space(name=found.name, fingerprint=found.fingerprint)
        tokenizer = opened.tokenizer()
        self._tokenizer = tokenizer if isinstance(tokenizer, ClipTokenizer) else None
        self.tokenizer_json = tokenizer.to_json()
        self.hash = hashlib.sha256(f"{opened.digest} clip".encode()).hexdigest()[:16]

    @cached_property
    def grey(self) -> Float[Tensor, "1 d"]:
        """Embedding of a picture that has the mean colour of the CLIP's training: zeros at its first layer."""
        vision = self.clip.config.vision
        pixels = torch.tensor(vision.mean, device=self.device)[None, :, None, None] * 2 - 1
        pixels = pixels.expand(1, 3, vision.size, vision.size)
        with torch.inference_mode(False), torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            return self.clip.encode_image(pixels)

    @property
    def tokenizer(self) -> ClipTokenizer:
        """Tokenizer of its text tower. Raises ValueError for a model whose captions are read by another one."""
        if self._tokenizer is None:
            raise ValueError(
                "the captions of this model are read by another tokenizer than CLIP's: it is not trained here"
            )
        return self._tokenizer

    @property
    def embedding(self) -> int:
        """The width of the embeddings."""
        return self.clip.config.embedding

    @torch.no_grad()
    def image_embeddings(self, source: Source, cache: Path, *, batch: int = 256) -> Float[Tensor, "n d"]:
        """z_i of every picture of `source`, in its order, on the device; computed once and kept in `cache`.

        Pictures of another size than CLIP's are resized.
        Of streamed data they come from the sidecar files of `unclip embed`; the result is some of them, for statistics.
        """
        if isinstance(source, StreamedSource):
            place = self.sidecars or beside(source.place)
            return source.attach(Sidecars(place, IMAGE, weights_digest(self.clip), source.cache))
        kind = "bf16" if self.bf16 else "fp32"
        file = cache / f"{source.fingerprint}-{self.hash}-{kind}.safetensors"
        if file.exists():
            return self._finite(load_file(file)["image_embedding"].to(self.device), source)
        parts = []
        for start in range(0, len(source), batch):
            pictures = source.pictures_between(start, min(start + batch, len(source)))
            side = self.clip.config.vision.size
            if pictures.shape[-1] != side:
                pictures = interpolate(
                    pictures, (side, side), mode="bicubic", antialias=True, align_corners=False
                ).clamp(-1, 1)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                parts.append(self.clip.encode_image(pictures).float())
        embeddings = self._finite(torch.cat(parts), source)
        write_atomically(file, save({"image_embedding": embeddings.cpu()}), force=True)
        return embeddings

    def _finite(self, embeddings: Float[Tensor, "n d"], source: Source) -> Float[Tensor, "n d"]:
        """The embeddings of a source's pictures. Raises `NonFinite` naming one that is no direction."""
        odd = torch.nonzero(~torch.isfinite(embeddings).all(1)).flatten().tolist()
        if odd:
            key = source.decoded.samples[odd[0]].key
            raise NonFinite(
                f"the CLIP in {self.name} embeds {len(odd)} of {len(embeddings)} pictures, such as {key}, as numbers that are "
                "not finite: its weights are damaged, or too large for the precision (set precision=fp32)"
            )
        return embeddings


class TextRun:
    """Frozen text tower and tokenizer of the model that `config.clip` names: its part `text`, or else its CLIP."""

    def __init__(self, config: ClipDependent, device: torch.device):
        if not config.clip:
            raise ValueError(
                f"the {config.stage} stage reads captions by a text tower: train a CLIP first, or name a model with one "
                "with clip=FOLDER"
            )
        inner = Path(config.clip) / "model"
        opened = open_model(inner if (inner / "model.json").is_file() else config.clip)
        name = "text" if "text" in opened.parts else "clip"
        if name not in opened.parts:
            raise ValueError(
                f"{config.clip} holds {', '.join(opened.parts)} but no text tower: name a folder with one"
            )
        part = opened.parts[name]
        self.network: Any = part.load(device=device).requires_grad_(False)
        self.device, self.tokenizer = device, opened.tokenizer()
        self.tokenizer_json = self.tokenizer.to_json()
        self.own = name == "text"
        self.pad: int = getattr(part.config, "pad", 0)
        text = part.config.text
        self.width, self.context = text.width, text.context
        self.hash = hashlib.sha256(f"{opened.digest} {name}".encode()).hexdigest()[:16]
        self.space = None if self.own else space_of(self.network)

    def tokens(self, captions: list[str]) -> Int64[Tensor, "b n"]:
        """Tokens of captions on the device."""
        tokens = self.tokenizer.encode(captions)
        if self.pad:
            for row, caption in zip(tokens, captions):
                row[self.tokenizer.length(caption) :] = self.pad
        return tokens.to(self.device)

    @torch.no_grad()
    def read(self, tokens: Int64[Tensor, "b n"]) -> Captions:
        """Captions as the tower encodes them."""
        found = self.network.encode_text(tokens)
        return Captions(tokens, found._replace(states=found.states.float()))

    @cached_property
    def empty(self) -> Captions:
        """The empty caption, one row; always float32."""
        # It outlives a validation, and then takes part in gradients.
        with torch.inference_mode(False), torch.autocast(self.device.type, enabled=False):
            return self.read(self.tokens([""]))


class ClipReader:
    """Captions as a frozen CLIP's text tower encodes them, for decoders that read its states (Karlo)."""

    def __init__(self, run: ClipRun):
        self.run = run

    @torch.no_grad()
    def read(self, tokens: Int64[Tensor, "b n"]) -> TextEncoding:
        """Encodings of captions."""
        found = self.run.clip.encode_text(tokens)
        return found._replace(states=found.states.float())

    @cached_property
    def empty(self) -> TextEncoding:
        """The empty caption's encoding, one row; always float32."""
        # It outlives a validation, and then takes part in gradients.
        with torch.inference_mode(False), torch.autocast(self.run.device.type, enabled=False):
            return self.read(self.run.tokenizer.encode([""]).to(self.run.device))
