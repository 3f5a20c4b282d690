"""Parts of a model: configs that are read at once, networks that load on first use, and where and how they compute."""

import contextlib
import functools
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

import torch
from torch import nn

from unclip.checkpoints.hub import bundled
from unclip.checkpoints.registry import role_of
from unclip.errors import ModelError, RequestError, Unsupported
from unclip.formats.open_part import OpenPart
from unclip.formats.opened import open_model
from unclip.generate.load_options import given_device, given_strengths, given_tile, named
from unclip.generate.number_type import WIDENED, Packing, number_type, packing
from unclip.generate.offload import load_in_turns, returned_when_freed
from unclip.generate.openvino_nets import Openvino, backend_of
from unclip.generate.placement import (
    SAMPLED,
    affords_winograd,
    best_device,
    check_backend,
    compute_dtype,
    computes_in,
    decisive_layers,
    prepare,
)
from unclip.networks.inference import is_packed
from unclip.stages.cascade import Link, sizes
from unclip.stages.codec import Codec
from unclip.stages.extent import Sides, check_size
from unclip.stages.families import FAMILIES, family_of
from unclip.stages.family import Family
from unclip.stages.sampling import DEFAULTS, Sampling
from unclip.stages.space import EmbeddingSpace
from unclip.tokenizers.reading import CaptionTokenizer

logger = logging.getLogger(__name__)

Network = TypeVar("Network", bound=nn.Module)


class Part(NamedTuple):
    """A network that can be loaded: its role, its config, the type it computes in, and its loader."""

    role: str
    config: Any
    dtype: torch.dtype
    load: Callable[..., nn.Module]
    """`load()` gives the network on the device; `load(only=prefix)` with the weights whose names begin with it alone."""


class Parts:
    """The parts of a model, each loaded when it is first used.

    Open a model with `Parts.open`, or wrap networks in memory with `Parts.of`. Configs, sizes and capabilities are read
    without loading weights. With `offload`, a network is in memory only inside `lend`.
    """

    def __init__(
        self,
        parts: Mapping[str, Part],
        tokenizer: Callable[[], CaptionTokenizer],
        *,
        tokenizers: Mapping[str, Callable[[], CaptionTokenizer]] | None = None,
        name: str,
        digest: str,
        defaults: Sampling = DEFAULTS,
        licence: str = "",
        device: torch.device,
        dtype: torch.dtype,
        offload: bool = False,
        tile: int | None = None,
        mixed: Mapping[str, str] | None = None,
        adapters: Mapping[str, float] | None = None,
        backend: Openvino | None = None,
        packed: Packing = False,
        widened: bool = False,
    ):
        self.widened = widened
        """Whether weights are bfloat16, and are widened to float32 whenever they are used."""
        self.packed = packed
        """Whether float32 layers of the large nets are oneDNN's, laid out once, and not torch's own; or `Widths` as well."""
        self.backend = backend
        """What computes the insides of the nets, if not torch."""
        self.adapters = dict(adapters or {})
        """Name of each adapter that is added to the weights -> its strength."""
        self.mixed = dict(mixed or {})
        """Part -> name of the other model that it was taken from."""
        self.name, self.digest, self.defaults, self.licence = name, digest, defaults, licence
        self.device, self.dtype, self.offload, self.tile = device, dtype, offload, tile
        self._parts = dict(parts)
        self._read_tokenizer, self._read_tokenizers = tokenizer, dict(tokenizers or {})
        self._tokenizers: dict[str, CaptionTokenizer] = {}
        self._networks: dict[str, nn.Module] = {}
        self._lock = threading.RLock()
        self._again: Callable[[], Parts] | None = None
        self._in_hand = False

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles open the same files again, and load networks of their own; see `Parts.of` for others.

        Raises `TypeError` where that cannot be.
        """
        if self._again is None or any(
            is_packed(network) for network in self._networks.values() if self._in_hand
        ):
            raise TypeError(
                f"{self.name!r} cannot be copied or pickled: its networks were given in memory and hold weights in the "
                "layout of this processor; save it to a folder and open that"
            )
        return _call, (self._again,)

    @classmethod
    def open(
        cls,
        model: str | os.PathLike[str],
        *,
        device: torch.device | str | Any = None,
        dtype: torch.dtype | str | None = None,
        parts: Mapping[str, str | os.PathLike[str]] | None = None,
        check: bool = False,
        offload: bool = False,
        tile: int | Any = None,
        adapters: Mapping[Any, float] | Any = None,
        backend: str | None = None,
        backend_precision: str | None = None,
        packed: Packing | None = None,
    ) -> "Parts":
        """Parts of a bundled model by its name, of a model folder, or of a public model: a folder, or a pulled hub id.

        `dtype` is "float32", "bfloat16", "bfloat16-weights", which keeps weights in bfloat16 and computes in float32, or
        "auto", the faster one of the first two by a measurement of the model's layers on this machine; None is "auto" for
        public models, and "float32" for model folders, whose pictures are then the same on every processor to rounding. `packed` says whether float32 layers on a CPU are oneDNN's, laid out once, which are equal to torch's to
        rounding; `Widths` are those from which 3x3 convolutions take fewer products as well (`unclip.nn.winograd`). None lets the
        measurement of "auto" decide, and is torch's otherwise. `parts` names other models to take parts from, such as
        {"clip": folder}. `check` compares every file with its SHA-256 first. `tile` bounds the side of what an autoencoder
        decodes at once, in pixels; pictures differ a little at the tiles' borders. `adapters` are low-rank adapters with
        their strengths, such as {folder: 0.8}. `backend` "openvino" computes U-Nets and transformers on patches by OpenVINO
        on the CPU, in `backend_precision`: "float32" (the default), "bfloat16" or "int8". Raises
        `FileNotFoundError` where there is no model, `ModelError` where it is damaged or parts do not fit together.
        """
        tile, strengths = given_tile(tile), given_strengths(adapters)
        target = best_device() if device is None else given_device(device)
        opened = open_model(model, parts=parts, check=check, adapters=strengths)
        other = backend_of(backend, backend_precision, target)
        if other is not None:
            check_backend(other, dtype, offload)
            dtype = "float32"
        name = str(dtype or ("auto" if opened.public else "float32"))
        layers = decisive_layers(part.config for part in opened.parts.values())
        fewer = name == "auto" and target.type == "cpu" and bool(layers) and not offload
        fewer = fewer and affords_winograd(opened.parts.values())
        chosen = number_type(
            name,
            target,
            layers,
            winograd=fewer,
            warn=dtype is not None and other is None and (opened.public or "bfloat16" in str(dtype)),
        )

        exact = chosen == torch.float32
        if packed is None:
            packed = name == "auto" and target.type == "cpu" and packing(layers, winograd=fewer and exact)
        widened = name == WIDENED
        pack = target.type == "cpu" and not widened and packed

        def part(source: OpenPart) -> Part:
            kept = compute_dtype(source, torch.bfloat16 if widened else chosen)
            load = functools.partial(source.load, device=target, dtype=kept)
            return Part(source.role, source.config, chosen if widened else kept, load)

        made = cls(
            {name: part(source) for name, source in opened.parts.items()},
            opened.tokenizer,
            tokenizers=opened.tokenizers,
            name=opened.name,
            digest=opened.digest,
            defaults=opened.defaults,
            licence=opened.licence,
            device=target,
            dtype=chosen,
            offload=offload,
            tile=tile,
            mixed={name: opened.parts[name].model for name in parts or ()},
            adapters=named(strengths),
            backend=other,
            packed=pack,
            widened=widened,
        )
        made._again = functools.partial(
            _reopen,
            _absolute(model),
            opened.digest,
            device=str(target),
            dtype=made.number_type,
            parts={name: _absolute(other) for name, other in (parts or {}).items()},
            offload=offload,
            tile=tile,
            adapters={_absolute(path): strength for path, strength in strengths.items()},
            backend=backend,
            backend_precision=backend_precision,
            packed=pack,
        )
        return made

    @classmethod
    def of(
        cls,
        networks: Mapping[str, nn.Module],
        tokenizer: CaptionTokenizer,
        *,
        name: str = "in memory",
        digest: str = "",
        defaults: Sampling | None = None,
        dtype: torch.dtype | str = torch.float32,
    ) -> "Parts":
        """Parts made of networks in memory, as during training; they stay on their device, in evaluation mode.

        Copies and pickles hold the networks themselves.
        """
        device = next(parameter for network in networks.values() for parameter in network.parameters()).device
        chosen = number_type(dtype, device, decisive_layers(network.config for network in networks.values()))

        def part(name: str, network: nn.Module) -> Part:
            config: Any = network.config
            inside = chosen if computes_in(config, chosen) else torch.float32
            return Part(role_of(config.kind), config, inside, functools.partial(nn.Module.eval, network))

        made = cls(
            {name: part(name, network) for name, network in networks.items()},
            lambda: tokenizer,
            name=name,
            digest=digest,
            defaults=DEFAULTS if defaults is None else defaults.over(DEFAULTS),
            device=device,
            dtype=chosen,
        )
        made._in_hand = True
        made._again = functools.partial(
            cls.of, dict(networks), tokenizer, name=name, digest=digest, defaults=defaults, dtype=str(chosen)
        )
        return made

    @property
    def number_type(self) -> str:
        """Name of what the networks compute in, as `Parts.open` reads it."""
        return WIDENED if self.widened else str(self.dtype).removeprefix("torch.")

    @functools.cached_property
    def tokenizer(self) -> CaptionTokenizer:
        """Tokenizer of the text tower."""
        return self._read_tokenizer()

    @functools.cached_property
    def space(self) -> EmbeddingSpace:
        """CLIP's embedding space: width and length, from its config alone."""
        return EmbeddingSpace.of(self.config("clip"))

    @functools.cached_property
    def family(self) -> Family:
        """Family of the decoder. Raises `Unsupported` where the model has none."""
        autoencoder, kind = self._parts.get("autoencoder"), self.config("decoder").kind
        if kind not in FAMILIES:
            raise Unsupported(f"the decoder of {self.name!r} is of the kind {kind!r}, which cannot draw yet")
        return family_of(self.config("decoder"), None if autoencoder is None else autoencoder.config)

    @functools.cached_property
    def codec(self) -> Codec:
        """Image space of the decoder; the autoencoder, if there is one, is lent for as long as it computes."""
        return self.family.codec(functools.partial(self.lend, "autoencoder", nn.Module), self.tile)

    def tokenizer_of(self, name: str) -> CaptionTokenizer:
        """Tokenizer of a text tower: a part's own, or that of the model."""
        if name not in self._read_tokenizers:
            return self.tokenizer
        if name not in self._tokenizers:
            self._tokenizers[name] = self._read_tokenizers[name]()
        return self._tokenizers[name]

    @functools.cached_property
    def text_towers(self) -> tuple[str, ...]:
        """Parts that read captions: CLIP, whose embeddings the prior follows, and the decoder's own tower."""
        clip = self._parts.get("clip")
        found = ("clip",) if clip is not None and clip.config.towers != "image" else ()
        if "text" in self._parts:
            return (*found, "text")
        own = (
            "decoder" in self._parts and self.config("decoder").kind in FAMILIES and self.family.reads_prompts
        )
        return (*found, "decoder") if own else found

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parts, loaded or not."""
        return tuple(self._parts)

    def config(self, name: str) -> Any:
        """Config of a part, without loading it. Raises `Unsupported` where the model lacks it."""
        return self._part(name).config

    @functools.cached_property
    def cascade(self) -> list[Link]:
        """The upsamplers in running order."""
        found = [(name, part.config) for name, part in self._parts.items() if part.role == "upsampler"]
        found.sort(key=lambda pair: pair[1].high_size)
        return [Link(index, name, config) for index, (name, config) in enumerate(found)]

    @functools.cached_property
    def sizes(self) -> list[int]:
        """Sides of the pictures that the model makes, ascending."""
        return sizes(self.config("decoder").size, self.cascade)

    @property
    def step(self) -> int | None:
        """Number whose multiples the decoder draws at, where it is not bound to one size and no upsampler follows."""
        return None if self.cascade else self.family.step

    def check_size(self, asked: Sides | None) -> Sides:
        """Sides to draw: `asked`, a square as its side, or the default. Raises `RequestError` for one that cannot be made."""
        if asked is None:
            return self.default_size
        return check_size(asked, name=self.name, step=self.step, sizes=self.sizes)

    @property
    def default_size(self) -> int:
        """Side that is made unless asked for: what the first upsampler makes, as further ones take long."""
        return self.sizes[min(1, len(self.sizes) - 1)]

    @functools.cached_property
    def capabilities(self) -> frozenset[str]:
        """What the model can do, in the words of `Request.needs`."""
        found = {part.role for part in self._parts.values()} | set(self._parts)
        if (clip := self._parts.get("clip")) is not None:
            found |= {"text_encoder"} if clip.config.towers != "image" else set()
            found |= {"image_encoder"} if clip.config.towers != "text" else set()
        if self.text_towers:
            found.add("prompt")
        if "decoder" in self._parts and self.config("decoder").kind in FAMILIES:
            found |= self.family.capabilities
            if "image_encoder" in found or "image_embedding" not in found:
                found.add("own_embedding")
        return frozenset(found)

    def require(self, kind: str, needs: tuple[str, ...]) -> None:
        """Raise `Unsupported` naming the first capability that an operation needs and the model lacks."""
        for need in needs:
            if need not in self.capabilities:
                raise Unsupported(
                    f"the model {self.name!r} has no {_WORDS.get(need, need)}, which {kind} needs: it has "
                    f"{', '.join(self._parts)}{self._remedy(need)}"
                )
        if "decoder" in needs and "autoencoder" not in self._parts and self.family.needs_autoencoder:
            raise Unsupported(
                f"the decoder of {self.name!r} draws latents, and the model has no autoencoder that makes pictures of them: "
                "take one as a part too, such as --part autoencoder=MODEL"
            )

    def check_settings(self, resolved: Sampling) -> None:
        """Raise `RequestError` for a setting that the decoder does not have."""
        level = resolved.decoder.noise_level or 0
        if not level or "decoder" not in self._parts or self.config("decoder").kind not in FAMILIES:
            return
        if self.family.noise_levels == 1:
            raise RequestError(
                f"noise_level is for decoders that read noised image embeddings (Stable unCLIP), {self.name!r} has none: leave "
                "it out"
            )
        if level >= self.family.noise_levels:
            raise RequestError(
                f"noise_level is {level}: {self.name!r} has levels from 0 to {self.family.noise_levels - 1}"
            )

    def _remedy(self, need: str) -> str:
        """What else to load, for a decoder that was published apart from its CLIP and prior (Kandinsky)."""
        apart = "clip" not in self._parts and "image_embedding" in self.capabilities
        wanted = ("prompt", "text_encoder", "image_encoder", "own_embedding", "prior")
        return (
            "; load the prior of its family with it (--part prior=FOLDER)" if apart and need in wanted else ""
        )

    @contextlib.contextmanager
    def lend(
        self, name: str, kind: type[Network], *, exact: bool = False, only: str = ""
    ) -> Iterator[Network]:
        """Context with a network in memory, computing in its dtype, or in float32 if `exact`.

        With `only`, the name of a module within it, the others may be without weights: they are not loaded where networks
        are offloaded. Raises `Unsupported` where the model lacks the network.
        """
        part = self._part(name)
        half = part.dtype != torch.float32 and not exact
        with (
            self._in_memory(name, exact, only) as network,
            torch.autocast(self.device.type, dtype=part.dtype if half else torch.bfloat16, enabled=half),
        ):
            if not isinstance(network, kind):
                raise Unsupported(
                    f"the {name} of {self.name!r} is a {type(network).__name__}, not a {kind.__name__}"
                )
            yield network

    @contextlib.contextmanager
    def _in_memory(self, name: str, exact: bool = False, only: str = "") -> Iterator[nn.Module]:
        if exact and self._parts[name].dtype != torch.float32:
            with torch.inference_mode(False):
                network = prepare(self._parts[name].load(dtype=torch.float32))
            yield network
            return
        if not self.offload:
            with self._lock:
                if name not in self._networks:
                    logger.debug("loading the %s of %s", name, self.name)
                    # Weights made in inference mode could never be trained, nor used with gradients.
                    with torch.inference_mode(False):
                        network = self._prepared(name, self._parts[name].load())
                        if self.backend is not None:
                            self.backend.place(self.digest, name, network)
                        self._networks[name] = network
            yield self._networks[name]
            return
        # One stage at a time, whoever asks.
        with self._lock, returned_when_freed():
            with torch.inference_mode(False):
                network = load_in_turns(self._parts[name].load, functools.partial(self._prepared, name), only)
            yield network

    def _prepared(self, name: str, network: nn.Module) -> nn.Module:
        packed = self.packed if self._parts[name].role in SAMPLED else False
        return prepare(network, packed=packed, widened=self.widened)

    def _part(self, name: str) -> Part:
        if name not in self._parts:
            raise Unsupported(
                f"the model {self.name!r} has no {_WORDS.get(name, name)}: it has {', '.join(self._parts)}"
            )
        return self._parts[name]


def _call(make: Callable[[], Parts]) -> Parts:
    return make()


def _reopen(model: str, digest: str, **options: Any) -> Parts:
    """Parts of the same files as before. Raises `ModelError` where the model is another one now."""
    parts = Parts.open(model, **options)
    if parts.digest != digest:
        raise ModelError(
            f"{model} is another model than the one that was copied: its digest is {parts.digest}, not {digest}"
        )
    return parts


def _absolute(model: str | os.PathLike[str]) -> str:
    """A folder's path from the root, which holds in every process; names and hub ids as they are.

    The name of a bundled model is no folder, whatever the working folder holds.
    """
    if model in bundled():
        return str(model)
    return os.path.abspath(model) if os.path.exists(model) else os.fspath(model)


_WORDS = {
    "text_encoder": "text encoder",
    "image_encoder": "image encoder",
    "prior_autoregressive": "autoregressive prior",
    "caption": "decoder that reads captions",
    "image_embedding": "decoder that reads image embeddings",
    "prompt": "text encoder",
    "own_embedding": "image encoder",
}
