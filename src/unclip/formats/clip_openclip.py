"""CLIP in OpenCLIP's layout: `open_clip_config.json` beside weights with OpenAI's names."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unclip.errors import ModelError
from unclip.formats.folder import OPENCLIP_STEMS, licence_of, read_json, weight_files
from unclip.formats.key_maps.clip import MEAN, STD, openai_table
from unclip.formats.key_maps.options import Options
from unclip.formats.public import FOLDER, PublicModel, PublicPart, Reader
from unclip.formats.tokenizer import read_tokenizer
from unclip.networks.clip import ClipConfig, TextConfig, VisionConfig
from unclip.nn.transformer import Activation


def read_config(data: Mapping[str, Any], where: str) -> ClipConfig:
    """Config from `open_clip_config.json`. Raises `ModelError` for towers other than CLIP's own transformers."""
    model = Options(data.get("model_cfg", data), where)
    activation: Activation = "quick_gelu" if model.take("quick_gelu", bool, False) else "gelu"
    model.demand(custom_text=False, init_logit_bias=None, nonscalar_logit_scale=False)
    vision = Options(model.take("vision_cfg", dict), f"{where}, vision_cfg")
    _known(
        vision,
        {"image_size", "layers", "width", "head_width", "patch_size", "mlp_ratio", "patch_dropout"}
        | {"timm_model_name", "pool_type", "ls_init_value", "attentional_pool", "no_ln_pre", "output_tokens"},
    )
    vision.demand(
        timm_model_name=None,
        pool_type="tok",
        ls_init_value=None,
        attentional_pool=False,
        no_ln_pre=False,
        output_tokens=False,
    )
    text = Options(model.take("text_cfg", dict), f"{where}, text_cfg")
    _known(text, {"context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio", "hf_model_name"})
    text.demand(hf_model_name=None, mlp_ratio=4.0)
    width, vocabulary = vision.take("width", int, 768), text.take("vocab_size", int, 49408)
    normalization = data.get("preprocess_cfg", {})
    return ClipConfig(
        embedding=model.take("embed_dim", int),
        vision=VisionConfig(
            size=vision.take("image_size", int, 224),
            patch=vision.take("patch_size", int, 16),
            width=width,
            layers=vision.take("layers", int, 12),
            heads=width // vision.take("head_width", int, 64),
            mlp_ratio=vision.take("mlp_ratio", float, 4.0),
            activation=activation,
            mean=tuple(normalization.get("mean", MEAN)),
            std=tuple(normalization.get("std", STD)),
        ),
        text=TextConfig(
            vocabulary=vocabulary,
            context=text.take("context_length", int, 77),
            end=vocabulary - 1,
            width=text.take("width", int, 512),
            layers=text.take("layers", int, 12),
            heads=text.take("heads", int, 8),
            activation=activation,
        ),
    )


def _known(options: Options, names: set[str]) -> None:
    if unknown := sorted(options.data.keys() - names):
        raise ModelError(f"{options.where}: the option {unknown[0]!r} is not known")


def open_folder(folder: Path, reader: Reader = FOLDER) -> PublicModel:
    """The CLIP of a folder."""
    config = read_config(read_json(folder / "open_clip_config.json"), str(folder))
    part = PublicPart(
        kind="clip", config=config, table=openai_table(), files={"": weight_files(folder, OPENCLIP_STEMS)}
    )
    return PublicModel(
        format="openclip",
        folder=folder,
        licence=licence_of(folder),
        parts={"clip": part},
        tokenizer=lambda: read_tokenizer(folder, context=config.text.context),
    )
