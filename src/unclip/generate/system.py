"""A system: CLIP, prior, decoder and upsamplers that were trained for each other, and what can be asked of them."""

import contextlib
import functools
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from unclip.formats.opened import open_model
from unclip.generate.manipulations import Manipulations
from unclip.generate.offload import lent, load_in_turns, without_weights
from unclip.generate.picture import Picture
from unclip.generate.progress import Callback
from unclip.generate.settings import PriorName, RandomName, Settings, settings_of
from unclip.generate.sources import PictureLike, read_source
from unclip.generate.stages import read_captions, warn_if_cut
from unclip.networks.clip import Clip, ClipConfig
from unclip.networks.decoder import Decoder
from unclip.networks.inference import pack
from unclip.networks.prior_autoregressive import AutoregressivePrior
from unclip.networks.prior_diffusion import EmbeddingDiffusion
from unclip.networks.unet import Unet, UnetConfig
from unclip.networks.upsampler import Upsampler
from unclip.tokenizers.clip import ClipTokenizer

Part = TypeVar("Part", bound=nn.Module)


class System(Manipulations):
    """Parts that belong together, each loaded when it is first needed.

    Make one with `System.load`, or from networks in memory with `System.of`. Safe to use from several threads.
    """

    def __init__(
        self,
        loaders: Mapping[str, Callable[[], nn.Module]],
        tokenizer: Callable[[], ClipTokenizer],
        *,
        name: str,
        weights: str,
        defaults: Settings,
        device: torch.device,
        dtype: torch.dtype,
        offload: bool = False,
    ):
        self.name, self.weights, self.defaults = name, weights, defaults
        self.device, self.dtype, self.offload = device, dtype, offload
        self._loaders, self._read_tokenizer = dict(loaders), tokenizer
        self._parts: dict[str, nn.Module] = {}
        self._lock = threading.RLock()

    @classmethod
    def load(
        cls,
        model: str | os.PathLike[str],
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | str = torch.float32,
        parts: Mapping[str, str | os.PathLike[str]] | None = None,
        check: bool = False,
        offload: bool = False,
    ) -> "System":
        """A bundled model by its name, a model folder, or a public model: a folder of it, or a hub id that was pulled.

        `device` is the best one there is unless given. `dtype` is what the networks compute in, "float32" or
        "bfloat16"; the sampler's state is float32 always. `parts` names other models to take parts from, such as
        {"clip": folder}. `check` compares every file with its SHA-256 first. With `offload` only the part at work is in
        memory, and read from disk for every batch of pictures; they are the same. Raises `FileNotFoundError` where there is no
        model, `ModelError` where it is damaged or parts do not fit together.
        """
        opened = open_model(model, parts=parts, check=check)
        target = best_device() if device is None else torch.device(device)
        wanted = read_dtype(dtype)
        return cls(
            {
                name: functools.partial(part.load, device=target, dtype=_type_inside(part.config, wanted))
                for name, part in opened.parts.items()
            },
            opened.tokenizer,
            name=opened.name,
            weights=opened.digest,
            defaults=settings_of(opened.defaults),
            device=target,
            dtype=wanted,
            offload=offload,
        )

    @classmethod
    def of(
        cls,
        parts: Mapping[str, nn.Module],
        tokenizer: ClipTokenizer,
        *,
        name: str = "in memory",
        weights: str = "",
        defaults: Settings | None = None,
        dtype: torch.dtype | str = torch.float32,
    ) -> "System":
        """A system of networks in memory, as during training; they are used where they are, in evaluation mode."""
        device = next(parameter for part in parts.values() for parameter in part.parameters()).device
        return cls(
            {part: functools.partial(nn.Module.eval, network) for part, network in parts.items()},
            lambda: tokenizer,
            name=name,
            weights=weights,
            defaults=defaults or Settings(),
            device=device,
            dtype=read_dtype(dtype),
        )

    @property
    def tokenizer(self) -> ClipTokenizer:
        """The tokenizer of the text tower."""
        return self._tokenizer

    @functools.cached_property
    def _tokenizer(self) -> ClipTokenizer:
        return self._read_tokenizer()

    @property
    def clip(self) -> Clip:
        """CLIP."""
        return self.part("clip", Clip)

    @property
    def prior(self) -> EmbeddingDiffusion:
        """The prior: caption -> image embedding."""
        return self.part("prior", EmbeddingDiffusion)

    @property
    def prior_autoregressive(self) -> AutoregressivePrior:
        """The other prior, which not every model has."""
        return self.part("prior_autoregressive", AutoregressivePrior)

    @property
    def decoder(self) -> Decoder:
        """The decoder: image embedding (and caption) -> small picture."""
        return self.part("decoder", Decoder)

    @functools.cached_property
    def upsamplers(self) -> list[Upsampler]:
        """The upsamplers in the order in which they run."""
        names = [name for name in self._loaders if name.startswith("upsampler")]
        return sorted((self.part(name, Upsampler) for name in names), key=lambda part: part.config.high_size)

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of the parts that there are, loaded or not."""
        return tuple(self._loaders)

    @property
    def sizes(self) -> list[int]:
        """The sides of the pictures that this system can make, the smallest first."""
        sizes = [self.decoder.config.size]
        for upsampler in self.upsamplers:
            if upsampler.config.low_size == sizes[-1]:
                sizes.append(upsampler.config.high_size)
        return sizes

    def part(self, name: str, kind: type[Part]) -> Part:
        """A part by its name, loaded when first asked for. Raises `ValueError` if there is none of that kind."""
        with self._lock:
            if name not in self._parts:
                if name not in self._loaders:
                    raise ValueError(
                        f"the model {self.name!r} has no {name}: it has {', '.join(self._loaders)}"
                    )
                # Weights made in inference mode could never be trained, nor used with gradients.
                with torch.inference_mode(False):
                    # CLIP is small, and used where it is; what the others need is read while they work.
                    if self.offload and name != "clip":
                        self._parts[name] = without_weights(self._loaders[name])
                    else:
                        self._parts[name] = _prepare(self._loaders[name]())
            found = self._parts[name]
        if not isinstance(found, kind):
            raise ValueError(
                f"the {name} of {self.name!r} is a {type(found).__name__}, not a {kind.__name__}"
            )
        return found

    @contextlib.contextmanager
    def precision(self, network: nn.Module) -> Iterator[None]:
        """Where a part works: computing in the system's `dtype`, with its weights in memory."""
        half = _type_inside(getattr(network, "config", None), self.dtype) != torch.float32
        with (
            self._in_memory(network),
            torch.autocast(self.device.type, dtype=self.dtype if half else torch.bfloat16, enabled=half),
        ):
            yield

    @contextlib.contextmanager
    def _in_memory(self, network: nn.Module) -> Iterator[None]:
        names = [name for name, part in self._parts.items() if part is network]
        if not self.offload or names == ["clip"]:
            yield
            return
        if not names:
            raise ValueError("with offload, what works must be a part of the system itself")
        # A shell is filled in place: one stage at a time, whoever asks.
        with self._lock:
            self._parts.pop("clip", None)

            def load() -> nn.Module:
                with torch.inference_mode(False):
                    return load_in_turns(self._loaders[names[0]], _prepare)

            with lent(network, load):
                yield

    def generate(
        self,
        prompt: str | Sequence[str],
        *,
        n: int = 1,
        seed: int | None = None,
        size: int | None = None,
        steps: int | None = None,
        prior_steps: int | None = None,
        upsampler_steps: int | None = None,
        second_upsampler_steps: int | None = None,
        guidance: float | None = None,
        prior_guidance: float | None = None,
        candidates: int | None = None,
        sampler: str | None = None,
        negative: str | None = None,
        prior: PriorName | None = None,
        random: RandomName | None = None,
        fast: bool = False,
        callback: Callback | None = None,
        batch_size: int | None = None,
    ) -> list[Picture]:
        """Draw `n` pictures of each prompt.

        Each picture records a seed of its own; made again alone with it, the picture is the same: bit for bit on the
        CPU with the default `batch_size` of 1, to rounding on a GPU or in larger batches. None stands for the model's
        default; the default `size` is what the first upsampler makes. `fast` takes fewer steps where none are given.
        Raises `ValueError` for an empty prompt or a value out of range; warns `PromptTruncated`.
        """
        from unclip.generate.text_to_image import generate_each

        settings = self.defaults.with_given(
            steps=steps,
            prior_steps=prior_steps,
            upsampler_steps=upsampler_steps,
            second_upsampler_steps=second_upsampler_steps,
            guidance=guidance,
            prior_guidance=prior_guidance,
            candidates=candidates,
            sampler=sampler,
            prior=prior,
            random=random,
            fast=fast,
        )
        return list(
            generate_each(
                self,
                [prompt] if isinstance(prompt, str) else list(prompt),
                settings=settings,
                n=n,
                seed=seed,
                size=size,
                negative=negative,
                callback=callback,
                batch_size=batch_size,
            )
        )

    def redo(
        self,
        recipe: Mapping[str, Any],
        *sources: PictureLike,
        callback: Callback | None = None,
        any_weights: bool = False,
    ) -> Picture:
        """Make a picture again from its recipe, and from the pictures that it was made from, if there were any.

        Raises `ValueError` for a recipe of another format or of an unknown operation, for other sources than those that
        it names, and, unless `any_weights`, for other weights.
        """
        from unclip.generate.redo import redo

        return redo(self, recipe, sources, callback=callback, any_weights=any_weights)

    @torch.no_grad()
    def embed_text(self, prompts: str | Sequence[str]) -> Float[Tensor, "b d"]:
        """The CLIP text embeddings z_t, on the CPU."""
        listed = [prompts] if isinstance(prompts, str) else list(prompts)
        warn_if_cut(self.tokenizer, listed)
        return read_captions(self.clip, self.tokenizer, listed, self.device).encoding.embedding.cpu()

    @torch.no_grad()
    def embed_image(self, images: PictureLike | Sequence[PictureLike]) -> Float[Tensor, "b d"]:
        """The CLIP image embeddings z_i, on the CPU; pictures are cropped to their middle square and resized.

        Raises `FileNotFoundError` for a missing file and `PictureError` for what is no still picture.
        """
        listed = (
            [images]
            if isinstance(images, Picture | Image.Image | str | os.PathLike | bytes)
            else list(images)
        )
        size = self.clip.config.vision.size
        pixels = [read_source(one).square(size).to(self.device) for one in listed]
        return torch.cat([self.clip.encode_image(one[None]) for one in pixels]).cpu()


def load(
    model: str | os.PathLike[str] = "artwork",
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | str = torch.float32,
    prior: str | os.PathLike[str] | None = None,
    clip: str | os.PathLike[str] | None = None,
    parts: Mapping[str, str | os.PathLike[str]] | None = None,
    offload: bool = False,
) -> System:
    """A bundled model by its name, a model folder, or a public model that was pulled: `System.load`.

    `prior` and `clip` name other models to take these parts from, as `parts` does for any part.
    """
    taken = {"prior": prior, "clip": clip} | dict(parts or {})
    given = {name: other for name, other in taken.items() if other is not None}
    return System.load(model, device=device, dtype=dtype, parts=given, offload=offload)


def best_device() -> torch.device:
    """A CUDA device if there is one, else Apple's GPU, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def read_dtype(dtype: torch.dtype | str) -> torch.dtype:
    """The number type that networks compute in. Raises `ValueError` for one that pictures do not survive."""
    found = {"float32": torch.float32, "bfloat16": torch.bfloat16}.get(str(dtype).removeprefix("torch."))
    if found is None:
        raise ValueError(f"dtype {dtype} is not one of float32, bfloat16")
    return found


def _type_inside(config: Any, dtype: torch.dtype) -> torch.dtype:
    """The type that a part computes in: `dtype`, but float32 for CLIP, which is quick, and for most that predict eps.

    An eps rounded to bfloat16 is off by more than the picture at the cosine schedule's largest sigma. U-Nets compute
    their last layer in float32 in any case.
    """
    eps = getattr(getattr(config, "process", None), "parametrization", None) == "eps"
    unet = isinstance(getattr(config, "net", None), UnetConfig)
    return torch.float32 if isinstance(config, ClipConfig) or (eps and not unet) else dtype


def _prepare(network: nn.Module) -> nn.Module:
    if any(weight.device.type == "cpu" for weight in network.parameters()):
        pack(network)
    # Convolutions are quicker with the channels innermost.
    if any(isinstance(module, Unet) for module in network.modules()):
        network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    return network.eval()
