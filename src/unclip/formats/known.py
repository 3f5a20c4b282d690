"""Public models that are known to be readable: ids on the hub, what they are, licence, size, and what they need beside them.

Sizes are those of the files that are read, by the counts of their weights. Ids and licences are those that the models are
published under as far as is known; they have not been compared with the hub's pages. What the hub itself says is printed when
a model is pulled, before anything is downloaded.
"""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Known:
    """A published model."""

    hub_id: str
    what: str
    licence: str
    gigabytes: float
    reads: tuple[str, ...]
    """Folders of it that are read; configs beside them are, too."""
    needs: tuple[tuple[str, str], ...] = ()
    """(part, hub id) of what has to come from another model."""

    @property
    def command(self) -> str:
        """How to draw with it, of models that need another one."""
        parts = "".join(f" --part {part}={other}" for part, other in self.needs)
        return f"unclip generate PROMPT --model {self.hub_id}{parts}"


_SD = ("tokenizer", "text_encoder", "unet", "vae", "scheduler")
_UNCLIP = (*_SD, "image_normalizer", "image_noising_scheduler")
_KARLO = ("tokenizer", "text_encoder", "text_proj", "decoder", "super_res_first", "super_res_last")
_PRIOR = ("prior", "scheduler", "tokenizer", "text_encoder", "image_encoder", "image_processor")
_OPENRAIL, _PLUS, _APACHE = "creativeml-openrail-m", "openrail++", "apache-2.0"
_PRIOR_22 = (("prior", "kandinsky-community/kandinsky-2-2-prior"),)
_PRIOR_21 = (("prior", "kandinsky-community/kandinsky-2-1-prior"),)


def _known(
    hub_id: str,
    what: str,
    licence: str,
    gigabytes: float,
    reads: Iterable[str],
    needs: tuple[tuple[str, str], ...] = (),
) -> Known:
    return Known(
        hub_id=hub_id, what=what, licence=licence, gigabytes=gigabytes, reads=tuple(reads), needs=needs
    )


KNOWN: dict[str, Known] = {
    one.hub_id: one
    for one in (
        _known(
            "kakaobrain/karlo-v1-alpha",
            "Karlo: text to image, 256 px",
            _OPENRAIL,
            13.7,
            (*_KARLO, "prior", "prior_scheduler", "decoder_scheduler", "super_res_scheduler"),
        ),
        _known(
            "kakaobrain/karlo-v1-alpha-image-variations",
            "Karlo: variations, 256 px",
            _OPENRAIL,
            10.8,
            (*_KARLO, "image_encoder", "feature_extractor", "decoder_scheduler", "super_res_scheduler"),
        ),
        _known(
            "kandinsky-community/kandinsky-2-2-decoder",
            "Kandinsky 2.2: decoder, 512 to 1024 px",
            _APACHE,
            5.3,
            ("unet", "movq", "scheduler"),
            _PRIOR_22,
        ),
        _known(
            "kandinsky-community/kandinsky-2-2-decoder-inpaint",
            "Kandinsky 2.2: decoder for inpainting",
            _APACHE,
            5.3,
            ("unet", "movq", "scheduler"),
            _PRIOR_22,
        ),
        _known(
            "kandinsky-community/kandinsky-2-2-prior",
            "Kandinsky 2.2: prior and CLIP (bigG)",
            _APACHE,
            10.6,
            _PRIOR,
        ),
        _known(
            "kandinsky-community/kandinsky-2-1",
            "Kandinsky 2.1: decoder, 512 to 768 px",
            _APACHE,
            7.4,
            ("tokenizer", "text_encoder", "unet", "movq", "scheduler"),
            _PRIOR_21,
        ),
        _known(
            "kandinsky-community/kandinsky-2-1-inpaint",
            "Kandinsky 2.1: decoder for inpainting",
            _APACHE,
            7.4,
            ("tokenizer", "text_encoder", "unet", "movq", "scheduler"),
            _PRIOR_21,
        ),
        _known(
            "kandinsky-community/kandinsky-2-1-prior",
            "Kandinsky 2.1: prior and CLIP (L/14)",
            _APACHE,
            5.8,
            _PRIOR,
        ),
        _known(
            "stable-diffusion-v1-5/stable-diffusion-v1-5", "Stable Diffusion 1.5, 512 px", _OPENRAIL, 4.3, _SD
        ),
        _known(
            "stable-diffusion-v1-5/stable-diffusion-inpainting",
            "Stable Diffusion 1.5 for inpainting",
            _OPENRAIL,
            4.3,
            _SD,
        ),
        _known("stabilityai/stable-diffusion-2-1-base", "Stable Diffusion 2.1 base, 512 px", _PLUS, 5.2, _SD),
        _known("stabilityai/stable-diffusion-2-1", "Stable Diffusion 2.1, 768 px", _PLUS, 5.2, _SD),
        _known(
            "stabilityai/stable-diffusion-2-inpainting",
            "Stable Diffusion 2 for inpainting",
            _PLUS,
            5.2,
            _SD,
        ),
        _known(
            "stabilityai/stable-diffusion-2-1-unclip",
            "Stable unCLIP of pictures (ViT-H), 768 px",
            _PLUS,
            7.7,
            (*_UNCLIP, "image_encoder", "feature_extractor"),
        ),
        _known(
            "stabilityai/stable-diffusion-2-1-unclip-small",
            "Stable unCLIP of text (ViT-L), 768 px",
            _PLUS,
            9.8,
            (*_UNCLIP, "prior", "prior_scheduler", "prior_text_encoder", "prior_tokenizer"),
        ),
        _known("ECLIPSE-Community/ECLIPSE_KarloV1_Prior", "ECLIPSE: a small prior for Karlo", _PLUS, 0.1, ()),
    )
}
"""By hub id."""
ELSEWHERE = (
    "GLIDE and the single files of Stable Diffusion, Stable unCLIP and Karlo are not pulled: get the authors' files, then "
    "`unclip convert`"
)


def advice(model: str) -> str:
    """What to do about an id that nobody knows: the nearest known ones, and how to list them."""
    names = {one.rsplit("/", 1)[1]: one for one in KNOWN}
    last = model.rsplit("/", 1)[-1].lower()
    near = difflib.get_close_matches(last, [name.lower() for name in names], n=3, cutoff=0.5)
    found = [names[name] for name in names if name.lower() in near or (last and last in name.lower())]
    meant = f"did you mean {' or '.join(found[:3])}? " if found else ""
    return f"{meant}`unclip models list --known` names those that are known to work"
