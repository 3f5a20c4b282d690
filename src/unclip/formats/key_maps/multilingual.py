"""Multilingual CLIP in the layout of its authors and of diffusers: `MultilingualCLIP`, an XLM-R and a projection."""

from collections.abc import Mapping
from typing import Any

from unclip.checkpoints.keymap import Row, Table, renamed, row, stacked, with_leading, within
from unclip.errors import ModelError
from unclip.formats.key_maps.options import Options, Reference, only
from unclip.networks.multilingual import EPS, MultilingualConfig

_BLOCK = [
    row(
        "attention.qkv.{p}",
        "attention.self.query.{p}",
        "attention.self.key.{p}",
        "attention.self.value.{p}",
        form=stacked(3),
    ),
    *renamed(
        {
            "attention.out": "attention.output.dense",
            "norm_1": "attention.output.LayerNorm",
            "mlp.0": "intermediate.dense",
            "mlp.2": "output.dense",
            "norm_2": "output.LayerNorm",
        }
    ),
]
ROWS: list[Row] = [
    row("tokens.weight", "transformer.embeddings.word_embeddings.weight"),
    row("positions.weight", "transformer.embeddings.position_embeddings.weight"),
    row("segment", "transformer.embeddings.token_type_embeddings.weight", form=with_leading(1)),
    *renamed({"norm_in": "transformer.embeddings.LayerNorm", "project": "LinearTransformation"}),
    *within("blocks.{n}.", "transformer.encoder.layer.{n}.", _BLOCK),
]


def table(prefix: str) -> Table:
    """Table of the encoder, whose keys begin with `prefix`. Its pooler and its position indices are not used."""
    return Table(
        within("", prefix, ROWS),
        (rf"{prefix}transformer\.pooler\.dense\.(weight|bias)", rf"{prefix}transformer\.embeddings\..*_ids"),
    )


MULTILINGUAL = Reference(
    name="MCLIPConfig",
    honoured=frozenset(
        {"vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"}
        | {"max_position_embeddings", "pad_token_id", "numDims", "transformerDimensions"}
    ),
    fixed={
        "hidden_act": only("gelu"),
        "layer_norm_eps": only(EPS, default=1e-12),
        "type_vocab_size": only(1, default=2),
        "position_embedding_type": only("absolute"),
        "is_decoder": only(False, None),
        "add_cross_attention": only(False, None),
        "quantization_config": only(None),
        "pruned_heads": only(None, {}),
    },
    # What training and generation of text read, and names of the authors' own.
    inert=frozenset(
        {"attention_probs_dropout_prob", "hidden_dropout_prob", "classifier_dropout", "use_cache"}
    )
    | {"bos_token_id", "eos_token_id", "tie_word_embeddings", "initializer_range", "modelBase"},
    closed=False,
)


def read_config(data: Mapping[str, Any], context: int, where: str) -> MultilingualConfig:
    """Config for captions of `context` tokens. Raises `ModelError` for an option that the encoder here lacks."""
    options = Options(data, where)
    options.check(MULTILINGUAL)
    width = options.take("hidden_size", int, 768)
    given = options.take("transformerDimensions", int, 1024)
    options.equal("transformerDimensions", given, width, "its hidden_size")
    try:
        return MultilingualConfig(
            vocabulary=options.take("vocab_size", int, 30522),
            positions=options.take("max_position_embeddings", int, 512),
            context=context,
            pad=options.take("pad_token_id", int, 1),
            width=width,
            hidden=options.take("intermediate_size", int, 3072),
            layers=options.take("num_hidden_layers", int, 12),
            heads=options.take("num_attention_heads", int, 12),
            embedding=options.take("numDims", int, 768),
        )
    except ValueError as error:
        raise ModelError(f"{where}: {error}") from error
