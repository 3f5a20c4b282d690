"""diffusers' `PriorTransformer`: the diffusion priors of Karlo, Kandinsky 2.1 and 2.2, and ECLIPSE."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from unclip.checkpoints.keymap import Row, Table, renamed, row, stacked, with_leading, within
from unclip.errors import ModelError
from unclip.formats.key_maps.latent_scheduler import read_schedule
from unclip.formats.key_maps.options import Options, Reference, only
from unclip.formats.key_maps.scheduler import process_config
from unclip.networks.prior_diffusion import DiffusionPriorConfig

_BLOCK = [
    *renamed({"norm_1": "norm1", "norm_2": "norm3", "mlp.0": "ff.net.0.proj", "mlp.2": "ff.net.2"}),
    *renamed({"attention.out": "attn1.to_out.0"}),
    row("attention.qkv.{p}", "attn1.to_q.{p}", "attn1.to_k.{p}", "attn1.to_v.{p}", form=stacked(3)),
]
ROWS: list[Row] = [
    *renamed(
        {
            "label.linear_1": "time_embedding.linear_1",
            "label.linear_2": "time_embedding.linear_2",
            "image_in": "proj_in",
            "text_in": "embedding_proj",
            "states_in": "encoder_hidden_states_proj",
            "norm_out": "norm_out",
            "image_out": "proj_to_clip_embeddings",
        }
    ),
    *within("transformer.blocks.{n}.", "transformer_blocks.{n}.", _BLOCK),
    row("query", "prd_embedding", form=with_leading(2)),
    row("positions", "positional_embedding", form=with_leading(1)),
    row("embedding_mean", "clip_mean", form=with_leading(1)),
    row("embedding_std", "clip_std", form=with_leading(1)),
]
PRIOR = Table(within("", "prior/", ROWS))

TRANSFORMER = Reference(
    name="PriorTransformer",
    honoured=frozenset(
        {"num_attention_heads", "attention_head_dim", "num_layers", "embedding_dim", "num_embeddings"}
        | {"additional_embeddings", "time_embed_dim", "embedding_proj_dim", "clip_embed_dim"}
    ),
    fixed={
        "time_embed_act_fn": only("silu"),
        "norm_in_type": only(None),
        "embedding_proj_norm_type": only(None),
        "encoder_hid_proj_type": only("linear"),
        "added_emb_type": only("prd"),
    },
    inert=frozenset({"dropout"}),
)


def prior_config(data: Mapping[str, Any], scheduler: Mapping[str, Any], where: str) -> DiffusionPriorConfig:
    """Config from a `PriorTransformer` and its scheduler: Karlo's, those of Kandinsky 2.1 and 2.2, and Stable unCLIP's.

    Stable unCLIP has Karlo's prior with a `DDPMScheduler`, which visits other times.
    """
    config = transformer_config(data, where, additional=4)
    if scheduler.get("_class_name") == "DDPMScheduler":
        schedule = read_schedule(scheduler, f"{where}, scheduler")
        if schedule.process.parametrization != "x0":
            raise ModelError(f"{where}: the prior's scheduler must predict the sample")
        return replace(config, clip_range=schedule.clip_range, process=schedule.process, grid=schedule.grid)
    process = process_config(scheduler, f"{where}, scheduler", clip_range=None)
    if process.parametrization != "x0":
        raise ModelError(f"{where}: the prior's scheduler must predict the sample")
    limit = Options(scheduler, f"{where}, scheduler").take("clip_sample_range", float, 1.0)
    return replace(config, clip_range=limit, process=process)


def transformer_config(data: Mapping[str, Any], where: str, *, additional: int) -> DiffusionPriorConfig:
    """Config of the transformer; `additional` is the number of tokens beside the caption's."""
    options = Options(data, where)
    heads = options.take("num_attention_heads", int, 32)
    width = heads * options.take("attention_head_dim", int, 64)
    embedding = options.take("embedding_dim", int, 768)
    options.require(_class_name="PriorTransformer")
    options.check(TRANSFORMER)
    count = options.take("additional_embeddings", int, 4)
    of = "the number of tokens beside the caption in this kind of prior"
    options.equal("additional_embeddings", count, additional, of)
    of = "num_attention_heads * attention_head_dim"
    options.equal("time_embed_dim", options.take("time_embed_dim", int, width), width, of)
    for name in ("embedding_proj_dim", "clip_embed_dim"):
        options.equal(name, options.take(name, int, embedding), embedding, "its embedding_dim")
    return DiffusionPriorConfig(
        embedding=embedding,
        context=options.take("num_embeddings", int, 77),
        text_width=embedding,
        width=width,
        layers=options.take("num_layers", int, 20),
        heads=heads,
        null="empty",
    )
