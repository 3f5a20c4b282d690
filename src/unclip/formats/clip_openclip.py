"""CLIP in OpenCLIP's layout: `open_clip_config.json` beside weights with OpenAI's names."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unclip.formats.folder import OPENCLIP_STEMS, licence_of, read_json, weight_files
from unclip.formats.key_maps.clip import openai_table
from unclip.formats.key_maps.options import Options, Reference, only
from unclip.formats.preprocessing import of_openclip
from unclip.formats.public import FOLDER, PublicModel, PublicPart, Reader
from unclip.formats.tokenizer import read_tokenizer
from unclip.networks.clip import ClipConfig, TextConfig, VisionConfig
from unclip.nn.transformer import Activation

_BLOCK = {
    "block_type": only(None, "default"),
    "qk_norm": only(False),
    "scaled_cosine_attn": only(False),
    "scale_heads": only(False),
    "scale_attn_inner": only(False),
    "scale_attn": only(False),
    "scale_fc": only(False),
    "ls_init_value": only(None),
    "act_kwargs": only(None, {}),
    "norm_kwargs": only(None, {}),
    "final_ln_after_pool": only(False),
    "output_tokens": only(False),
}
VISION = Reference(
    name="OpenCLIP's vision_cfg",
    honoured=frozenset({"layers", "width", "head_width", "mlp_ratio", "patch_size", "image_size"}),
    fixed=_BLOCK
    | {
        "attentional_pool": only(False),
        "no_ln_pre": only(False),
        "pos_embed_type": only("learnable"),
        "pool_type": only("tok"),
        "timm_model_name": only(None),
    },
    # For training, and for towers and poolings that are excluded.
    inert=frozenset({"patch_dropout", "attn_pooler_queries", "attn_pooler_heads", "timm_model_pretrained"})
    | {"timm_pool", "timm_proj", "timm_proj_bias", "timm_drop", "timm_drop_path"},
)
TEXT = Reference(
    name="OpenCLIP's text_cfg",
    honoured=frozenset({"context_length", "vocab_size", "width", "heads", "layers"}),
    fixed=_BLOCK
    | {
        "mlp_ratio": only(4.0),
        "hf_tokenizer_name": only(None),
        "tokenizer_mode": only(None),
        "tokenizer_kwargs": only(None, {}),
        "embed_cls": only(False),
        "pad_id": only(0),
        "no_causal_mask": only(False),
        "pool_type": only("argmax"),
        "proj_bias": only(False),
        "proj_type": only("linear"),
        "hf_model_name": only(None),
    },
    # Of a pooling and of towers that are excluded.
    inert=frozenset({"eos_id", "hf_model_pretrained", "hf_proj_type", "hf_pooler_type"}),
)
MODEL = Reference(
    name="OpenCLIP's model_cfg",
    honoured=frozenset({"embed_dim", "vision_cfg", "text_cfg", "quick_gelu"}),
    fixed={
        "init_logit_bias": only(None),
        "nonscalar_logit_scale": only(False),
        "custom_text": only(False, None),
        "multimodal_cfg": only(None),
    },
    inert=frozenset({"init_logit_scale", "cast_dtype", "output_dict"}),
)


def read_config(data: Mapping[str, Any], where: str) -> ClipConfig:
    """Config from `open_clip_config.json`. Raises `ModelError` for towers other than CLIP's own transformers."""
    model = Options(Options(data, where).take("model_cfg", dict, dict(data)), where)
    model.check(MODEL)
    activation: Activation = "quick_gelu" if model.take("quick_gelu", bool, False) else "gelu"
    vision = Options(model.take("vision_cfg", dict), f"{where}, vision_cfg")
    vision.check(VISION)
    text = Options(model.take("text_cfg", dict), f"{where}, text_cfg")
    text.check(TEXT)
    size = vision.take("image_size", int, 224)
    before = of_openclip(Options(data, where).take("preprocess_cfg", dict, {}), size, where)
    width, vocabulary = vision.take("width", int, 768), text.take("vocab_size", int, 49408)
    return ClipConfig(
        embedding=model.take("embed_dim", int),
        vision=VisionConfig(
            size=size,
            patch=vision.take("patch_size", int, 16),
            width=width,
            layers=vision.take("layers", int, 12),
            heads=width // vision.take("head_width", int, 64),
            mlp_ratio=vision.take("mlp_ratio", float, 4.0),
            activation=activation,
            **before._asdict(),
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
