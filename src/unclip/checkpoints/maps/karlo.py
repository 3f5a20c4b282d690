"""Karlo in diffusers' layout: `UnCLIPPipeline` and `UnCLIPImageVariationPipeline` (kakaobrain/karlo-v1-alpha).

Keys are `component/name`: a decoder of ours is made of three components.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from unclip.checkpoints.keymap import (
    Row,
    Table,
    absent,
    channel_major,
    renamed,
    row,
    stacked,
    with_leading,
    within,
)
from unclip.checkpoints.manifest import ModelError
from unclip.checkpoints.maps import clip as clip_map
from unclip.checkpoints.maps import unet as unet_map
from unclip.checkpoints.maps.options import Options
from unclip.diffusion.parametrization import ProcessConfig
from unclip.networks.clip import ClipConfig
from unclip.networks.decoder import DecoderConfig
from unclip.networks.prior_diffusion import DiffusionPriorConfig
from unclip.networks.upsampler import UpsamplerConfig

_PRIOR_BLOCK = [
    *renamed({"norm_1": "norm1", "norm_2": "norm3", "mlp.0": "ff.net.0.proj", "mlp.2": "ff.net.2"}),
    *renamed({"attention.out": "attn1.to_out.0"}),
    row("attention.qkv.{p}", "attn1.to_q.{p}", "attn1.to_k.{p}", "attn1.to_v.{p}", form=stacked(3)),
]
PRIOR_ROWS: list[Row] = [
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
    *within("transformer.blocks.{n}.", "transformer_blocks.{n}.", _PRIOR_BLOCK),
    row("query", "prd_embedding", form=with_leading(2)),
    row("positions", "positional_embedding", form=with_leading(1)),
    row("embedding_mean", "clip_mean", form=with_leading(1)),
    row("embedding_std", "clip_std", form=with_leading(1)),
]
PRIOR = Table(within("", "prior/", PRIOR_ROWS))

# ECLIPSE (arXiv 2312.04655): the same class without its label token. Embeddings are not standardised; the numbers for
# it, which the class has nevertheless, are not used.
ECLIPSE = Table(
    [
        *(one for one in PRIOR_ROWS if not one.ours.startswith(("label.", "embedding_"))),
        row("embedding_mean", form=absent(0.0)),
        row("embedding_std", form=absent(1.0)),
    ],
    (r"clip_(mean|std)",),
)


def decoder_table(image_tokens: int) -> Table:
    """Three components: the U-Net, the projections, and CLIP's text tower, which a decoder of ours has itself."""
    projections = [
        *renamed(
            {
                "image_vector": "clip_image_embeddings_project_to_time_embeddings",
                "caption.states": "encoder_hidden_states_proj",
                "caption.norm": "text_encoder_hidden_states_norm",
                "caption.vector": "embedding_proj",
            }
        ),
        *renamed({"image_tokens": "clip_extra_context_tokens_proj"}, channel_major(image_tokens)),
        row("null_image", "learned_classifier_free_guidance_embeddings"),
    ]
    rows = [
        *within("net.", "decoder/", unet_map.ROWS),
        *within("", "text_proj/", projections),
        *within("caption.tower.", "text_encoder/", clip_map.TRANSFORMERS_TEXT),
    ]
    return Table(rows, clip_map.POSITION_IDS)


UPSAMPLER = Table(
    [
        *within("net.", "super_res_first/", unet_map.ROWS),
        *within("last_net.", "super_res_last/", unet_map.ROWS),
    ]
)


def process_config(
    scheduler: Mapping[str, Any], where: str, *, clip_range: float | None = 1.0
) -> ProcessConfig:
    """Ours from an `UnCLIPScheduler`. `clip_range` is what its estimates must be clamped to; None takes any."""
    options = Options(scheduler, where)
    options.require(_class_name="UnCLIPScheduler")
    options.demand(beta_schedule="squaredcos_cap_v2", clip_sample=True)
    if clip_range is not None:
        options.equal("clip_sample_range", options.take("clip_sample_range", float, 1.0), clip_range)
    predictions: dict[str, Literal["eps", "x0"]] = {"epsilon": "eps", "sample": "x0"}
    prediction = options.take("prediction_type", str, "epsilon")
    variance = options.take("variance_type", str, "fixed_small_log")
    if prediction not in predictions or variance not in ("fixed_small_log", "learned_range"):
        raise ModelError(
            f"{where}: prediction_type {prediction!r} or variance_type {variance!r} is not known"
        )
    return ProcessConfig(
        parametrization=predictions[prediction],
        schedule="cosine",
        steps=options.take("num_train_timesteps", int, 1000),
        learned_variance=variance == "learned_range",
    )


def prior_config(data: Mapping[str, Any], scheduler: Mapping[str, Any], where: str) -> DiffusionPriorConfig:
    """Ours from a `PriorTransformer` and its scheduler: Karlo's, and those of Kandinsky 2.1 and 2.2."""
    config = _prior_config(data, where, additional=4)
    process = process_config(scheduler, f"{where}, scheduler", clip_range=None)
    if process.parametrization != "x0":
        raise ModelError(f"{where}: the prior's scheduler must predict the sample")
    limit = Options(scheduler, f"{where}, scheduler").take("clip_sample_range", float, 1.0)
    return replace(config, clip_range=limit, process=process)


def eclipse_config(data: Mapping[str, Any], where: str) -> DiffusionPriorConfig:
    """Ours from the config of an ECLIPSE prior, which answers in one step."""
    return replace(_prior_config(data, where, additional=3), timed=False)


def _prior_config(data: Mapping[str, Any], where: str, *, additional: int) -> DiffusionPriorConfig:
    options = Options(data, where)
    heads = options.take("num_attention_heads", int, 32)
    width = heads * options.take("attention_head_dim", int, 64)
    embedding = options.take("embedding_dim", int, 768)
    options.require(_class_name="PriorTransformer")
    options.equal("additional_embeddings", options.take("additional_embeddings", int, 4), additional)
    options.demand(
        added_emb_type="prd",
        encoder_hid_proj_type="linear",
        norm_in_type=None,
        embedding_proj_norm_type=None,
        time_embed_act_fn="silu",
    )
    options.equal("time_embed_dim", options.take("time_embed_dim", int, width), width)
    for name in ("embedding_proj_dim", "clip_embed_dim"):
        options.equal(name, options.take(name, int, embedding), embedding)
    return DiffusionPriorConfig(
        embedding=embedding,
        context=options.take("num_embeddings", int, 77),
        text_width=embedding,
        width=width,
        layers=options.take("num_layers", int, 20),
        heads=heads,
        null="empty",
    )


def decoder_config(
    unet: Mapping[str, Any],
    projections: Mapping[str, Any],
    scheduler: Mapping[str, Any],
    clip: ClipConfig,
    start: int,
    where: str,
) -> DecoderConfig:
    """Ours from the decoder's U-Net, `UnCLIPTextProjModel`, the scheduler, and the CLIP whose text tower it reads."""
    net = unet_map.read_config(unet, f"{where}/decoder")
    options = Options(projections, f"{where}/text_proj")
    options.require(_class_name="UnCLIPTextProjModel")
    options.equal("clip_embeddings_dim", options.take("clip_embeddings_dim", int, 768), clip.embedding)
    options.equal("cross_attention_dim", options.take("cross_attention_dim", int), net.context_width)
    options.equal("time_embed_dim", options.take("time_embed_dim", int), net.embedding_width)
    # One projection reads the states, another the embedding, and the class has one width for both.
    options.equal("the text tower's width", clip.text.width, clip.embedding)
    return DecoderConfig(
        net=net,
        size=Options(unet, f"{where}/decoder").take("sample_size", int, 64),
        embedding=clip.embedding,
        image_tokens=options.take("clip_extra_context_tokens", int, 4),
        caption=clip_map.caption_by(clip.text, start),
        process=process_config(scheduler, f"{where}/decoder_scheduler"),
    )


def upsampler_config(
    first: Mapping[str, Any], last: Mapping[str, Any], scheduler: Mapping[str, Any], low_size: int, where: str
) -> UpsamplerConfig:
    """Ours from both upsampling U-Nets, which must have one shape, and their scheduler."""
    net = unet_map.read_config(first, f"{where}/super_res_first")
    if unet_map.read_config(last, f"{where}/super_res_last") != net:
        raise ModelError(f"{where}: super_res_first and super_res_last have different configs")
    return UpsamplerConfig(
        net=net,
        process=process_config(scheduler, f"{where}/super_res_scheduler"),
        low_size=low_size,
        # Some folders leave it out: Karlo enlarges 64 pixels to 256.
        high_size=Options(first, f"{where}/super_res_first").take("sample_size", int, 4 * low_size),
        last_step=True,
    )
