"""The model that users load: one method per operation, all of them built on `Model.run`."""

import inspect
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, fields, replace
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from PIL import Image as PillowImage
from torch import Tensor, nn

from unclip.config import read_field, read_value, shown
from unclip.errors import RequestError
from unclip.generate.composed import draw_again, is_composed
from unclip.generate.image import Image, Images
from unclip.generate.operations import (
    Components,
    Edit,
    Generate,
    Interpolate,
    Outpaint,
    Reconstruct,
    Redraw,
    TextDiff,
    Upscale,
    Vary,
)
from unclip.generate.operations.generate import draw_together
from unclip.generate.parts import Parts
from unclip.generate.probes import Match, TypographicProbe, check_word, nearest_captions, write_word
from unclip.generate.progress import Callback
from unclip.generate.replay import Replay, read_replay
from unclip.generate.request import Request, check_characters, resolve_inversion
from unclip.generate.sequence import strip
from unclip.generate.session import Session, choose_seed
from unclip.generate.sources import PictureLike, Source, check_originals, listed_pictures, read_source
from unclip.generate.stage_runner import Inversion
from unclip.stages.sampling import FLAT_NAMES, Sampling, read_sampling, sampling
from unclip.tokenizers.reading import CaptionTokenizer

Method = TypeVar("Method", bound=Callable[..., Any])


def _documents(request: type[Request]) -> Callable[[Method], Method]:
    """Decorator that gives a method the keyword arguments of its request, for `help` and notebooks."""

    def decorate(method: Method) -> Method:
        own = list(inspect.signature(method).parameters.values())[:-1]
        taken = {parameter.name for parameter in own} | {"kind"}
        keyword = inspect.Parameter.KEYWORD_ONLY
        extra = [
            inspect.Parameter(field.name, keyword, default=field.default)
            for field in fields(request)
            if field.name not in taken
        ]
        extra += [inspect.Parameter(name, keyword, default=None) for name in FLAT_NAMES if name not in taken]
        extra += [inspect.Parameter(name, keyword, default=None) for name in ("on_progress", "batch_size")]
        method.__signature__ = inspect.Signature(own + extra)  # pyright: ignore[reportFunctionMemberAccess]
        return method

    return decorate


class Model:
    """A model: its parts, and what can be asked of them.

    Methods take the fields of their request (`unclip.Vary` for `vary`), the short names of sampling settings (`steps`,
    `guidance`, `prior_steps`, ...; or `sampling=` whole), `on_progress`, called after every step with a `Progress`, and
    `batch_size`, the pictures computed together. None stands for the model's default. Pictures may be results, PIL
    images, paths, or bytes of a file. Every result records a seed of its own, which makes it again alone: bit for bit
    on the CPU with the default `batch_size` of 1, to rounding on a GPU or in larger batches.

    All raise `RequestError` for a request that no model can run, `Unsupported` where this model lacks a part,
    `PictureError` for an unusable picture, and `ModelError` for damaged weights. One call at a time per model.

    `copy.deepcopy` and `pickle` give a model that opens the same files again and loads weights of its own; of networks in
    memory, they copy the networks. Do not use a model in a process that was forked after it had drawn, as
    `multiprocessing` does by default on Linux before Python 3.14: torch's threads are not forked with it, and the child
    waits for them for ever. Use the start method "spawn", to which a model can be passed, or load it in the child.
    """

    def __init__(self, parts: Parts):
        self.parts = parts

    @classmethod
    def load(cls, model: str | os.PathLike[str], **options: Any) -> "Model":
        """Model from a name, a folder or a pulled hub id; `options` are those of `Parts.open`."""
        return cls(Parts.open(model, **options))

    @classmethod
    def of(cls, networks: Mapping[str, nn.Module], tokenizer: CaptionTokenizer, **options: Any) -> "Model":
        """Model of networks in memory; `options` are those of `Parts.of`."""
        return cls(Parts.of(networks, tokenizer, **options))

    @property
    def name(self) -> str:
        """Name of the model."""
        return self.parts.name

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits that change whenever a weight, a config or the tokenizer does."""
        return self.parts.digest

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return self.parts.device

    @property
    def dtype(self) -> torch.dtype:
        """Number type that the networks compute in."""
        return self.parts.dtype

    @property
    def defaults(self) -> Sampling:
        """Sampling settings that suit the model."""
        return self.parts.defaults

    @property
    def sizes(self) -> list[int]:
        """Sides of the pictures that the model makes, ascending."""
        return self.parts.sizes

    def check(self, request: Request | Any, pictures: int) -> Sampling:
        """Resolved sampling of a request with so many pictures. Raises `RequestError` or `Unsupported`; loads nothing."""
        if not isinstance(request, Request):
            raise RequestError(
                f"the request is {shown(request)}: give one such as unclip.Generate(prompt=...)"
            )
        type(request).sources.check(str(getattr(request, "kind", "the request")), pictures)
        resolved = request.resolve(self.parts.defaults)
        self.parts.require(str(getattr(request, "kind", "the request")), request.needs(resolved))
        self.parts.check_settings(resolved)
        return resolved

    def run(
        self,
        request: Request | Any,
        sources: Sequence[PictureLike] | Any = (),
        *,
        on_progress: Callback | Any = None,
        batch_size: int | None = None,
    ) -> Iterator[Image]:
        """Pictures of a request, each yielded when it is finished: stopping early keeps what is done.

        Raises before the first picture is drawn; an exception of `on_progress` ends the call.
        """
        batch_size = read_value(int | None, batch_size, "batch_size", error=RequestError)
        sources = listed_pictures(sources, "sources")
        if not (on_progress is None or callable(on_progress)):
            raise RequestError(f"on_progress is {shown(on_progress)}: give a function of a Progress")
        resolved = self.check(request, len(sources))
        given = [source if isinstance(source, Source) else read_source(source) for source in sources]
        seed = choose_seed(request.seed)
        session = Session(self.parts, resolved, seed=seed, on_progress=on_progress, batch_size=batch_size)
        session.warnings += [warning for source in given for warning in source.warnings]
        return request.run(session, given)

    def run_batch(self, requests: Sequence[Generate | Any], *, on_progress: Callback | None = None) -> Images:
        """Pictures of several requests, computed together; each has its own prompt and seed.

        Requests make one picture each, and have the same resolved sampling and size. Each picture, with its provenance
        and warnings, is the one that its request makes alone, to the rounding of larger batches. Raises `RequestError`
        for requests that cannot share a batch.
        """
        resolved = {self.check(request, 0) for request in requests}
        if not resolved:
            return Images()
        if len(resolved) > 1:
            raise RequestError(
                "requests in one batch have the same sampling settings: run the others on their own"
            )
        seeded = [replace(request, seed=choose_seed(request.seed)) for request in requests]
        session = Session(self.parts, resolved.pop(), seed=0, on_progress=on_progress, batch_size=len(seeded))
        return Images(draw_together(session, seeded))

    def redo(
        self,
        provenance: Mapping[str, Any] | Any,
        *sources: PictureLike,
        on_progress: Callback | None = None,
        any_weights: bool = False,
    ) -> Image:
        """The picture that `provenance` (format 1 or 2) records, made again from the pictures it was made from.

        Of a picture put together from pieces, each is made again; those that no model made are given, in any order.
        Raises `RequestError` for damaged provenance or other sources than it records, and, unless `any_weights`, for a
        model with another digest.
        """
        if is_composed(provenance):

            def draw(replay: Replay, sources: Sequence[Source]) -> PillowImage.Image:
                return self._replay(replay, sources, on_progress=on_progress, any_weights=any_weights).image

            return draw_again(provenance, [read_source(source) for source in sources], draw)
        replay = read_replay(provenance)
        given = [read_source(source) for source in sources]
        return self._replay(replay, given, on_progress=on_progress, any_weights=any_weights)

    def _replay(
        self,
        replay: Replay,
        given: Sequence[Source],
        *,
        on_progress: Callback | None,
        any_weights: bool,
    ) -> Image:
        if replay.digest != self.digest and not any_weights:
            raise RequestError(
                f"the picture was made by {replay.model!r} with the digest {replay.digest}, this is {self.name!r} with "
                f"{self.digest}: load that model, or allow other weights for a similar picture"
            )
        check_originals(str(getattr(replay.request, "kind", "")), replay.sources, given)
        made = self.run(replay.request, [one.image for one in given], on_progress=on_progress)
        return strip(list(made)) if replay.strip else next(made)

    @_documents(Generate)
    def generate(self, prompt: str | Sequence[str], **options: Any) -> Images:
        """Pictures of a caption, or of several: `n` of each."""
        return self._call(Generate, (), options, prompt=prompt)

    @_documents(Redraw)
    def redraw(self, picture: PictureLike, prompt: str, **options: Any) -> Images:
        """Image-to-image: pictures of the prompt that start from a picture with noise added."""
        return self._call(Redraw, (picture,), options, prompt=prompt)

    @_documents(Vary)
    def vary(self, picture: PictureLike, **options: Any) -> Images:
        """Variations of a picture: the same meaning and style, other details."""
        return self._call(Vary, (picture,), options)

    @_documents(Interpolate)
    def interpolate(self, first: PictureLike, last: PictureLike, **options: Any) -> Images:
        """Pictures on the way from one to another."""
        return self._call(Interpolate, (first, last), options)

    @_documents(TextDiff)
    def text_diff(self, picture: PictureLike, target: str, **options: Any) -> Images:
        """Pictures led from what the `baseline` caption says to what the target says."""
        return self._call(TextDiff, (picture,), options, target=target)

    def edit(
        self,
        picture: PictureLike,
        mask: PictureLike | Sequence[int] | None,
        prompt: str,
        **options: Any,
    ) -> Images:
        """Inpainting: pictures with the masked part drawn under a prompt of the whole, all other pixels unchanged.

        `mask` is a picture of the same size (white or transparent where to draw), a box (left, top, right, bottom), or
        None for the picture's own transparent pixels. Options are the fields of `unclip.Edit`.
        """
        is_box = isinstance(mask, list | tuple) or getattr(mask, "ndim", None) == 1
        if is_box and options.get("box") is not None:
            raise RequestError("a box is given twice: give it in place of a mask, or by its name")
        box = mask if is_box else options.get("box")
        masks: tuple[Any, ...] = () if mask is None or is_box else (mask,)
        return self._call(Edit, (picture, *masks), options, prompt=prompt, box=box)

    @_documents(Outpaint)
    def outpaint(self, picture: PictureLike, prompt: str | None = None, **options: Any) -> Image:
        """A picture continued beyond its sides by `left`, `top`, `right` and `bottom` pixels."""
        return self._call(Outpaint, (picture,), options, prompt=prompt)[0]

    @_documents(Upscale)
    def upscale(self, picture: PictureLike, **options: Any) -> Image:
        """A picture of any shape enlarged by the upsamplers, to a longer side of `size`."""
        return self._call(Upscale, (picture,), options)[0]

    @_documents(Reconstruct)
    def reconstruct(self, picture: PictureLike, **options: Any) -> Image:
        """A picture decoded from its own (z_i, x_T); `provenance["results"]["psnr"]` compares them in dB."""
        return self._call(Reconstruct, (picture,), options)[0]

    def components(
        self,
        picture: PictureLike,
        dimensions: Sequence[int],
        basis: Sequence[PictureLike] | Any = None,
        **options: Any,
    ) -> Images:
        """A picture decoded from its first principal components, once per number of dimensions, from one noise.

        The components are those of the pictures in `basis`, or of the autoregressive prior. Options are the fields of
        `unclip.Components`.
        """
        given = () if basis is None else listed_pictures(basis, "basis")
        whose = "model" if basis is None else "given"
        return self._call(Components, (picture, *given), options, dimensions=dimensions, basis=whose)

    def invert(self, picture: PictureLike, **options: Any) -> Inversion:
        """(z_i, x_T) of a picture: its CLIP embedding, and the noise from which DDIM decodes it again.

        `options` are sampling settings, `size` as in requests, and `on_progress`.
        """
        options = _renamed(options)
        size = read_field(Reconstruct, "size", options.pop("size", None), error=RequestError)
        on_progress = options.pop("on_progress", None)
        self.parts.require("invert", ("decoder", "own_embedding", "inversion"))
        resolved = resolve_inversion(sampling(**options), self.parts.defaults)
        self.parts.check_settings(resolved)
        session = Session(self.parts, resolved, seed=0, on_progress=on_progress)
        size = session.size(size)
        session.begin(each=session.inversion_steps, pictures=1)
        return session.invert(read_source(picture), size)

    def embed_text(self, prompts: str | Sequence[str]) -> Float[Tensor, "b d"]:
        """CLIP text embeddings z_t, on the CPU."""
        self.parts.require("embed_text", ("text_encoder",))
        given = [prompts] if isinstance(prompts, str) else prompts
        listed = read_value(tuple[str, ...], given, "prompts", error=RequestError)
        if not listed:
            raise RequestError("there are no prompts to embed: give at least one")
        for text in listed:
            check_characters(text, "prompts")
        session = self._session()
        session.warn_if_truncated(*listed)
        return session.embed_text(listed).cpu()

    def embed_image(self, images: PictureLike | Sequence[PictureLike]) -> Float[Tensor, "b d"]:
        """CLIP image embeddings z_i, on the CPU; pictures are cropped to their middle square and resized."""
        self.parts.require("embed_image", ("image_encoder",))
        listed = images if isinstance(images, list | tuple) else [images]
        if not listed:
            raise RequestError("there are no pictures to embed: give at least one")
        return self._session().embed_images([read_source(one) for one in listed]).cpu()

    def nearest_captions(
        self,
        picture: PictureLike | Float[Tensor, " d"] | Any,
        captions: Sequence[str],
        *,
        k: int | None = None,
    ) -> list[Match]:
        """Captions by their cosine with a picture or an image embedding, best first; all of them, or the first `k`."""
        encoders = ("text_encoder",) if isinstance(picture, Tensor) else ("text_encoder", "image_encoder")
        self.parts.require("nearest_captions", encoders)
        return nearest_captions(self._session(), picture, captions, k)

    def probe(
        self, picture: PictureLike, word: str | Any, captions: Sequence[str], *, n: int = 4, **options: Any
    ) -> TypographicProbe:
        """Typographic attack: CLIP's nearest captions before and after a word is written on a picture, and variations.

        The paper's CLIP took an apple with "iPod" on it for an iPod, and its decoder still drew apples. Options are the
        fields of `unclip.Vary`.
        """
        check_word(word)
        if n:
            request, _, _ = _prepared(Vary, options, n=n)
            self.check(request, 1)
        image = read_source(picture).image
        written = write_word(image, word)
        before, after = (self.nearest_captions(one, captions) for one in (image, written))
        made = self.vary(written, n=n, **options) if n else Images()
        return TypographicProbe(written, before, after, made)

    def _session(self) -> Session:
        return Session(self.parts, self.parts.defaults, seed=0)

    def _call(
        self, kind: type[Request], sources: Sequence[PictureLike], options: dict[str, Any], **own: Any
    ) -> Images:
        request, on_progress, batch_size = _prepared(kind, options, **own)
        return Images(self.run(request, sources, on_progress=on_progress, batch_size=batch_size))


def _prepared(kind: type[Request], options: Mapping[str, Any], **own: Any) -> tuple[Request, Any, int | None]:
    """Request, `on_progress` and `batch_size` of a method's options."""
    given = _renamed(options)
    on_progress, batch_size = given.pop("on_progress", None), given.pop("batch_size", None)
    batch_size = read_value(int | None, batch_size, "batch_size", error=RequestError)
    return build(kind, {**given, **own}), on_progress, batch_size


def build(kind: type[Request], options: Mapping[str, Any]) -> Request:
    """Request of a kind from its fields and the short names of sampling settings.

    Raises `RequestError` for a name that is neither, or a value out of range.
    """
    names = {field.name for field in fields(kind) if field.name != "kind"}
    own = {
        name: value if name == "sampling" else read_field(kind, name, value, error=RequestError)
        for name, value in options.items()
        if name in names and value is not None
    }
    short = {name: value for name, value in options.items() if name not in names}
    if unknown := sorted(set(short) - set(FLAT_NAMES)):
        raise RequestError(
            f"{kind.__name__} has no option {unknown[0]!r}; it has {', '.join(sorted(names | set(FLAT_NAMES)))}"
        )
    whole = own.pop("sampling", Sampling())
    if not isinstance(whole, Sampling):
        whole = read_sampling(whole)
    missing = [field.name for field in fields(kind) if field.default is MISSING and field.name not in own]
    if missing:
        raise RequestError(f"{kind.__name__} needs {missing[0]!r}: give it")
    return kind(**own, sampling=sampling(**short).merged(whole) if short else whole)


_OLD_NAMES = {"callback": "on_progress", "decoder_steps": "steps"}


def _renamed(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options with the names of version 0.1 replaced, with a warning."""
    renamed = {}
    for name, value in options.items():
        if name in _OLD_NAMES:
            warnings.warn(f"{name} is deprecated: use {_OLD_NAMES[name]}", DeprecationWarning, stacklevel=5)
        renamed[_OLD_NAMES.get(name, name)] = value
    return renamed


def load(
    model: str | os.PathLike[str] = "artwork",
    *,
    device: torch.device | str | Any = None,
    dtype: torch.dtype | str | None = None,
    prior: str | os.PathLike[str] | None = None,
    clip: str | os.PathLike[str] | None = None,
    parts: Mapping[str, str | os.PathLike[str]] | None = None,
    offload: bool = False,
    adapters: Mapping[Any, float] | Any = None,
    tile: int | Any = None,
    backend: str | None = None,
    backend_precision: str | None = None,
) -> Model:
    """A model: bundled (by name), from a folder, or public (a hub id that was pulled).

    `device` is the best one unless given. `dtype` is what the networks compute in: "float32", "bfloat16", "auto", the
    faster one by measurement, or "bfloat16-weights", float32 with weights kept in bfloat16; None is "auto" for public models and "float32" for others. The sampler's state is float32
    always. `prior` and `clip` name other models to take these parts from, `parts` any part.
    With `offload`, only the network at work is in memory; `tile` bounds the side in pixels of what an autoencoder decodes at
    once. `adapters` are low-rank adapters (LoRA) by file or folder, and the strength of each. `backend` "openvino" computes
    U-Nets and transformers on patches by OpenVINO on the CPU, in `backend_precision`: "float32", "bfloat16" or "int8"
    (`unclip[openvino]`, docs/speed.md). Raises `RequestError` for an option of another type or out of range, before anything is
    read, `FileNotFoundError` and `ModelError`.
    """
    taken = {"prior": prior, "clip": clip} | dict(parts or {})
    given = {name: other for name, other in taken.items() if other is not None}
    options = {
        "offload": offload,
        "tile": tile,
        "adapters": adapters or {},
        "backend": backend,
        "backend_precision": backend_precision,
    }
    return Model.load(model, device=device, dtype=dtype, parts=given, **options)
