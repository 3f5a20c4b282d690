"""CLIP in transformers' layout and in OpenAI's, whose names OpenCLIP uses."""

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from unclip.checkpoints.keymap import TRANSPOSED, Row, Table, absent, renamed, row, stacked, within
from unclip.errors import ModelError
from unclip.formats.key_maps.options import Options, Reference, only
from unclip.formats.preprocessing import Preprocessing
from unclip.networks.clip import ClipConfig, TextConfig, VisionConfig
from unclip.networks.decoder import CaptionConfig
from unclip.nn.transformer import Activation
from unclip.stages.space import OPENAI_L, OPENCLIP_BIG_G

# Training clamps the scale at 100 and ends there: the value for formats without it.
SCALE = 4.605170185988092

_TRANSFORMERS_BLOCK = [
    *renamed({"norm_1": "layer_norm1", "norm_2": "layer_norm2", "mlp.0": "mlp.fc1", "mlp.2": "mlp.fc2"}),
    *renamed({"attention.out": "self_attn.out_proj"}),
    row(
        "attention.qkv.{p}",
        "self_attn.q_proj.{p}",
        "self_attn.k_proj.{p}",
        "self_attn.v_proj.{p}",
        form=stacked(3),
    ),
]
TRANSFORMERS_TEXT: list[Row] = [
    row("tokens.weight", "text_model.embeddings.token_embedding.weight"),
    row("positions", "text_model.embeddings.position_embedding.weight"),
    *within("transformer.blocks.{n}.", "text_model.encoder.layers.{n}.", _TRANSFORMERS_BLOCK),
    *renamed({"norm_out": "text_model.final_layer_norm"}),
    row("project.weight", "text_projection.weight"),
]
TRANSFORMERS_VISION: list[Row] = [
    row("class_token", "vision_model.embeddings.class_embedding"),
    row("patches.weight", "vision_model.embeddings.patch_embedding.weight"),
    row("positions", "vision_model.embeddings.position_embedding.weight"),
    *renamed({"norm_in": "vision_model.pre_layrnorm", "norm_out": "vision_model.post_layernorm"}),
    *within("transformer.blocks.{n}.", "vision_model.encoder.layers.{n}.", _TRANSFORMERS_BLOCK),
    row("project.weight", "visual_projection.weight"),
]
# Older files store the position indices 0, 1, 2, ...
POSITION_IDS = (r"(.*/)?((text|vision)_model\.)?embeddings\.position_ids",)
# A text tower without projection, as transformers 5 saves it.
SPELLINGS = (
    (r"(.*/)?(embeddings\.(?!position_ids).*|encoder\..*|final_layer_norm\..*)", r"\g<1>text_model.\2"),
)
TRANSFORMERS = Table(
    [
        *within("text.", "", TRANSFORMERS_TEXT),
        *within("vision.", "", TRANSFORMERS_VISION),
        row("logit_scale", "logit_scale"),
    ],
    POSITION_IDS,
)


def split_towers(text: str, vision: str | None) -> Table:
    """Table of towers in separate folders, without scale: CLIPTextModelWithProjection, CLIPVisionModelWithProjection."""
    rows = within("text.", text, TRANSFORMERS_TEXT)
    if vision is not None:
        rows += within("vision.", vision, TRANSFORMERS_VISION)
    return Table([*rows, row("logit_scale", form=absent(SCALE))], POSITION_IDS)


def image_tower(prefix: str) -> Table:
    """Table of a picture tower alone: CLIPVisionModelWithProjection."""
    rows = within("vision.", prefix, TRANSFORMERS_VISION)
    return Table([*rows, row("logit_scale", form=absent(SCALE))], POSITION_IDS)


def text_tower(prefix: str) -> Table:
    """Table of a text tower without its projection: CLIPTextModel, or CLIPTextModelWithProjection."""
    rows = [one for one in TRANSFORMERS_TEXT if not one.ours.startswith("project.")]
    ignored = (*POSITION_IDS, r"(.*/)?text_projection\.weight")
    return Table(within("text.", prefix, rows), ignored, SPELLINGS)


_OPENAI_BLOCK = [
    *renamed({"norm_1": "ln_1", "norm_2": "ln_2", "mlp.0": "mlp.c_fc", "mlp.2": "mlp.c_proj"}),
    *renamed({"attention.out": "attn.out_proj"}),
    row("attention.qkv.weight", "attn.in_proj_weight"),
    row("attention.qkv.bias", "attn.in_proj_bias"),
]
_OPENAI_TEXT: list[Row] = [
    row("tokens.weight", "token_embedding.weight"),
    row("positions", "positional_embedding"),
    *within("transformer.blocks.{n}.", "transformer.resblocks.{n}.", _OPENAI_BLOCK),
    *renamed({"norm_out": "ln_final"}),
    row("project.weight", "text_projection", form=TRANSPOSED),
]


def openai_text() -> list[Row]:
    """Rows of the text tower in OpenAI's names."""
    return list(_OPENAI_TEXT)


_OPENAI_VISION: list[Row] = [
    row("class_token", "class_embedding"),
    row("patches.weight", "conv1.weight"),
    row("positions", "positional_embedding"),
    *renamed({"norm_in": "ln_pre", "norm_out": "ln_post"}),
    *within("transformer.blocks.{n}.", "transformer.resblocks.{n}.", _OPENAI_BLOCK),
    row("project.weight", "proj", form=TRANSPOSED),
]


def openai_vision(ours: str, theirs: str) -> list[Row]:
    """Rows of the picture tower in OpenAI's names, under prefixes."""
    return within(ours, theirs, _OPENAI_VISION)


def openai_table(prefix: str = "", text: str = "") -> Table:
    """Table of OpenAI's names; newer OpenCLIP models put "text." before those of the text tower."""
    rows = [
        *within("text.", prefix + text, _OPENAI_TEXT),
        *within("vision.", prefix + "visual.", _OPENAI_VISION),
        row("logit_scale", prefix + "logit_scale"),
    ]
    # Properties of the model that OpenAI's archives store as tensors, and masks.
    return Table(rows, (r".*(input_resolution|context_length|vocab_size|attn_mask)",))


_COMMON = frozenset({"hidden_size", "intermediate_size", "projection_dim", "num_hidden_layers"})
_COMMON |= {"num_attention_heads", "hidden_act"}
_FIXED = {
    # Weights stored in another way.
    "quantization_config": only(None),
    # Layers that are left out of one.
    "pruned_heads": only(None, {}),
}
# Of every config of transformers: notes on the file, and what training and other kinds of models read.
_NOTES = frozenset({"transformers_version", "architectures", "output_hidden_states", "return_dict", "dtype"})
_NOTES |= {"chunk_size_feed_forward", "is_encoder_decoder", "id2label", "label2id", "problem_type"}
_NOTES |= {"initializer_factor"}
_TRAINING = frozenset({"attention_dropout", "initializer_range"})
TEXT = Reference(
    name="CLIPTextConfig",
    honoured=_COMMON | {"vocab_size", "max_position_embeddings", "eos_token_id"},
    fixed=_FIXED | {"layer_norm_eps": only(1e-5)},
    # The tokenizer writes the start, and zeros after the end, which the causal mask hides.
    inert=_NOTES | _TRAINING | {"pad_token_id", "bos_token_id"},
    closed=False,
)
VISION = Reference(
    name="CLIPVisionConfig",
    honoured=_COMMON | {"image_size", "patch_size"},
    fixed=_FIXED | {"layer_norm_eps": only(1e-5), "num_channels": only(3)},
    inert=_NOTES | _TRAINING,
    closed=False,
)
BOTH = Reference(
    name="CLIPConfig",
    honoured=frozenset({"text_config", "vision_config", "projection_dim"}),
    fixed=_FIXED,
    inert=_NOTES | {"logit_scale_init_value"},
    closed=False,
)


def transformers_config(
    text: Mapping[str, Any],
    vision: Mapping[str, Any] | None,
    *,
    embedding: int,
    end: int | None,
    where: str,
    normalize: bool = True,
    preprocessing: Preprocessing | None = None,
) -> ClipConfig:
    """Config from those of transformers' towers.

    `end` is the tokenizer's, for files that name another (2). `preprocessing` is what the image processor does,
    OpenAI's unless given. Raises `ModelError` for options that the towers here do not have.
    """
    tower = text_config(text, embedding=embedding, end=end, where=where)
    if vision is None:
        return ClipConfig(embedding=embedding, text=tower, normalize=normalize, towers="text")
    read = vision_config(
        vision,
        embedding=embedding,
        of="the width of the text tower's embeddings",
        where=where,
        preprocessing=preprocessing,
    )
    return ClipConfig(embedding=embedding, vision=read, text=tower, normalize=normalize)


def text_config(text: Mapping[str, Any], *, embedding: int, end: int | None, where: str) -> TextConfig:
    """Config of a text tower, with or without a projection to `embedding` channels."""
    options = Options(text, f"{where}, text")
    width = options.take("hidden_size", int, 512)
    options.check(TEXT)
    given = options.take("projection_dim", int, embedding)
    options.equal("projection_dim", given, embedding, "the width of the embeddings")
    given = options.take("intermediate_size", int, 2048)
    options.equal("intermediate_size", given, 4 * width, "four times its hidden_size")
    named = options.take("eos_token_id", int, 49407)
    vocabulary = options.take("vocab_size", int, 49408)
    # Configs before 2023 have 2, and mean the largest token of the caption, the last of the vocabulary.
    named = vocabulary - 1 if named == 2 else named
    if end is not None and options.data.get("eos_token_id") not in (None, 2):
        options.equal("eos_token_id", named, end, "the end token of its tokenizer")
    return TextConfig(
        vocabulary=vocabulary,
        context=options.take("max_position_embeddings", int, 77),
        end=named if end is None else end,
        width=width,
        layers=options.take("num_hidden_layers", int, 12),
        heads=options.take("num_attention_heads", int, 8),
        activation=_activation(options),
    )


def vision_config(
    vision: Mapping[str, Any],
    *,
    embedding: int,
    of: str,
    where: str,
    preprocessing: Preprocessing | None = None,
) -> VisionConfig:
    """Config of a picture tower that projects to `embedding` channels, which `of` names for messages."""
    before = Preprocessing() if preprocessing is None else preprocessing
    options = Options(vision, f"{where}, vision")
    options.check(VISION)
    given = options.take("projection_dim", int, embedding)
    options.equal("projection_dim", given, embedding, of)
    width = options.take("hidden_size", int, 768)
    return VisionConfig(
        size=image_size(vision, where),
        patch=options.take("patch_size", int, 32),
        width=width,
        layers=options.take("num_hidden_layers", int, 12),
        heads=options.take("num_attention_heads", int, 12),
        mlp_ratio=options.take("intermediate_size", int, 3072) / width,
        activation=_activation(options),
        **before._asdict(),
    )


def image_size(vision: Mapping[str, Any], where: str) -> int:
    """Side of the pictures that a tower reads."""
    return Options(vision, f"{where}, vision").take("image_size", int, 224)


def _activation(options: Options) -> Activation:
    name = options.take("hidden_act", str, "quick_gelu")
    if name not in ("gelu", "quick_gelu"):
        raise ModelError(f"{options.where}: hidden_act {name!r} is not one of gelu, quick_gelu")
    return "gelu" if name == "gelu" else "quick_gelu"


_OPENAI_SHAPES = ("visual.proj", "visual.conv1.weight", "visual.positional_embedding", "positional_embedding")
_OPENAI_SHAPES += ("token_embedding.weight", "text_projection")
_SEEN = {
    "visual.layer1.": "it holds a CLIP with a ResNet, which is not supported",
    "visual.trunk.": "it holds a CLIP with a picture tower of timm, which is not supported",
    "model.diffusion_model.": "it holds a checkpoint of Stable Diffusion, which is not supported",
    "first_stage_model.": "it holds the autoencoder of Stable Diffusion, which is not supported",
    "lora_": "it holds a LoRA, a change to another model, which is not supported",
    "net.causal_transformer.": "it holds LAION's prior: give its folder, with prior_config.json beside the weights",
    "model_first_steps.": "it holds Karlo's upsampler: give the folder with all of Karlo's files",
    "model.input_blocks.": "it holds Karlo's decoder: give the folder with all of Karlo's files",
    "model.prd_emb": "it holds Karlo's prior: give the folder with all of Karlo's files",
    "down_blocks.": "it holds a U-Net of diffusers: give the folder of the whole model",
    "prd_embedding": "it holds a prior of diffusers: give the folder of the whole model",
    "encoder.down_blocks.": "it holds an autoencoder of diffusers, which is not supported",
    "text_model.": "it holds a CLIP of transformers: give its folder, with the config and the tokenizer",
    "vision_model.": "it holds a CLIP of transformers: give its folder, with the config and the tokenizer",
}
"""What the names of weights that are not OpenAI's begin with, and what to do."""


def _other_weights(names: Collection[str], missing: list[str]) -> str:
    """What some weights are, by their names."""
    for start, what in _SEEN.items():
        if any(name.startswith(start) for name in names):
            return what
    first = sorted(names)[:2]
    listed = ", ".join(name[:80] for name in first)
    return f"it lacks {missing[0]} and holds {len(names)} weights such as {listed}, which no known format has"


def openai_config(shapes: Mapping[str, Tensor], where: str) -> ClipConfig:
    """Config from the shapes of OpenAI's state dict: heads are 64 wide, the activation is QuickGELU."""
    if missing := [name for name in _OPENAI_SHAPES if name not in shapes]:
        raise ModelError(f"{where} does not hold OpenAI's CLIP: {_other_weights(shapes, missing)}")
    width, _, patch, _ = shapes["visual.conv1.weight"].shape
    grid = round((shapes["visual.positional_embedding"].shape[0] - 1) ** 0.5)
    context, text_width = shapes["positional_embedding"].shape
    vocabulary = shapes["token_embedding.weight"].shape[0]
    return ClipConfig(
        embedding=shapes["text_projection"].shape[1],
        vision=VisionConfig(
            size=grid * patch,
            patch=patch,
            width=width,
            layers=count(shapes, "visual.transformer.resblocks."),
            heads=width // 64,
            activation="quick_gelu",
            mean=Preprocessing().mean,
            std=Preprocessing().std,
        ),
        text=TextConfig(
            vocabulary=vocabulary,
            context=context,
            end=vocabulary - 1,
            width=text_width,
            layers=count(shapes, "transformer.resblocks."),
            heads=text_width // 64,
            activation="quick_gelu",
        ),
    )


def count(keys: Collection[str], prefix: str) -> int:
    """Number of different items behind a prefix, such as the blocks of a tower."""
    return len({key.removeprefix(prefix).split(".")[0] for key in keys if key.startswith(prefix)})


def caption_by(text: TextConfig, start: int) -> CaptionConfig:
    """Caption config of Karlo's decoder, which reads the states of CLIP's text tower; captions begin with `start`."""
    return CaptionConfig(
        vocabulary=text.vocabulary,
        context=text.context,
        end=text.end,
        width=text.width,
        layers=text.layers,
        heads=text.heads,
        activation=text.activation,
        tower="clip",
        start=start,
    )


def space_name(clip: ClipConfig) -> str:
    """Name of the embedding space of a CLIP that Karlo or Kandinsky came with, by its sizes."""
    text = (clip.embedding, clip.text.width, clip.text.layers, clip.text.activation)
    known = {(768, 768, 12, "quick_gelu"): OPENAI_L, (1280, 1280, 32, "gelu"): OPENCLIP_BIG_G}
    return known.get(text, "")
