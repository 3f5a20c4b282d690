"""Stable unCLIP in one file: the picture tower `embedder` and the noise of embeddings `noise_augmentor`, beside Stable Diffusion 2.

Stability's code keeps of OpenCLIP's ViT-H all but the text transformer (H), and OpenAI's ViT-L/14 whole (L).
"""

import re
from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from unclip.checkpoints.keymap import Row, Table, absent, row, with_leading
from unclip.diffusion.noise import NoiseTable
from unclip.errors import ModelError
from unclip.formats.key_maps import clip as clip_map
from unclip.formats.preprocessing import Preprocessing
from unclip.networks.clip import ClipConfig, VisionConfig

EMBEDDER, AUGMENTOR = "embedder.model.", "noise_augmentor."
STATISTICS = "ViT-L-14_stats.th"
"""File with mean and standard deviation of ViT-L/14's embeddings, which Karlo's checkpoints come with."""
IGNORED = (
    rf"{re.escape(EMBEDDER)}.*",
    rf"{re.escape(AUGMENTOR)}(betas|alphas_cumprod(_prev)?|sqrt_.*|log_one_minus_alphas_cumprod)",
    r"embedder\.(mean|std)",
)
_HEADS = {(1280, 32): 16}
"""Heads of picture towers by width and layers; those of others are 64 channels wide."""


def has_tower(shapes: Mapping[str, Tensor]) -> bool:
    """Whether the file holds a picture tower."""
    return f"{EMBEDDER}visual.proj" in shapes


def has_text_tower(shapes: Mapping[str, Tensor]) -> bool:
    """Whether the file holds OpenAI's CLIP whole."""
    return any(name.startswith(f"{EMBEDDER}transformer.") for name in shapes)


def needs_statistics(shapes: Mapping[str, Tensor], embedding: int) -> bool:
    """Whether embeddings are standardised by numbers that are in another file: those of OpenAI's CLIP are."""
    if f"{AUGMENTOR}data_mean" in shapes:
        return False
    return has_text_tower(shapes) or (not has_tower(shapes) and embedding == 768)


def statistics(shapes: Mapping[str, Tensor], *, apart: bool) -> list[Row]:
    """Rows of mean and standard deviation: of the file, of one `apart`, or 0 and 1."""
    names = ("embedding_mean", "embedding_std")
    if f"{AUGMENTOR}data_mean" in shapes:
        theirs = (f"{AUGMENTOR}data_mean", f"{AUGMENTOR}data_std")
        return [row(ours, name, form=with_leading(1)) for ours, name in zip(names, theirs)]
    if apart:
        return [row(ours, f"stats/{name}") for ours, name in zip(names, ("mean", "std"))]
    return [row(ours, form=absent(value)) for ours, value in zip(names, (0.0, 1.0))]


def noise_levels(abar: Tensor | None, where: str) -> int:
    """Number of levels that embeddings are noised to. Raises `ModelError` for another schedule than the cosine one."""
    if abar is None:
        return 1000
    ours = NoiseTable.cosine(len(abar)).abar
    if float((abar.double() - ours.double()).abs().max()) > 1e-4:
        raise ModelError(
            f"{where}: {AUGMENTOR}alphas_cumprod is not the cosine schedule (squaredcos_cap_v2), the only one by which "
            "embeddings are noised"
        )
    return len(abar)


def clip_config(shapes: Mapping[str, Tensor], where: str) -> ClipConfig:
    """Config of the CLIP in the file: both towers of OpenAI's, or OpenCLIP's picture tower. Pictures are squashed, as there."""
    held = {name.removeprefix(EMBEDDER): one for name, one in shapes.items() if name.startswith(EMBEDDER)}
    before = Preprocessing(resize="squash")._asdict()
    if has_text_tower(shapes):
        whole = clip_map.openai_config(held, where)
        return replace(whole, vision=replace(whole.vision, **before), normalize=False)
    try:
        width, _, patch, _ = held["visual.conv1.weight"].shape
        grid = round((held["visual.positional_embedding"].shape[0] - 1) ** 0.5)
    except (KeyError, ValueError):
        raise ModelError(f"{where}: its {EMBEDDER}visual is no vision transformer of CLIP") from None
    layers = clip_map.count(held, "visual.transformer.resblocks.")
    vision = VisionConfig(
        size=grid * patch,
        patch=patch,
        width=width,
        layers=layers,
        heads=_HEADS.get((width, layers), max(1, width // 64)),
        activation="gelu",
        **before,
    )
    return ClipConfig(embedding=held["visual.proj"].shape[1], vision=vision, normalize=False, towers="image")


def clip_table(config: ClipConfig) -> Table:
    """Table of that CLIP."""
    if config.towers == "both":
        table = clip_map.openai_table(EMBEDDER)
        return Table(table.rows, (*table.ignored, rf"(?!{re.escape(EMBEDDER)}).*"))
    return Table(
        [
            *clip_map.openai_vision("vision.", f"{EMBEDDER}visual."),
            row("logit_scale", form=absent(clip_map.SCALE)),
        ],
        (rf"(?!{re.escape(EMBEDDER)}visual\.).*",),
    )


def decoder_table(base: Table, shapes: Mapping[str, Tensor], *, apart: bool) -> Table:
    """The table of a decoder's net with the statistics, which may be `apart`."""
    return Table([*base.rows, *statistics(shapes, apart=apart)], (*base.ignored, *IGNORED), base.spellings)
