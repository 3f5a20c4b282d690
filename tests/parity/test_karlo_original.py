"""Karlo's original checkpoints from end to end: diffusers' weights under Karlo's names, converted, draw as diffusers does.

The names are made here by rules of their own, and agree with those of Karlo's classes at full size (`karlo_original.txt`).
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import PriorTransformer, UNet2DConditionModel, UNet2DModel
from diffusers.pipelines.deprecated.unclip import UnCLIPTextProjModel
from safetensors.torch import save_file
from torch import Tensor

import unclip
from unclip.checkpoints.manifest import read_manifest
from unclip.formats import karlo_original
from unclip.formats.convert import convert
from unclip.formats.tokenizer import find_tokenizer
from unclip.formats.weights import open_weights

# diffusers hands a torch tensor to np.array, which numpy 2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

Weights = Mapping[str, Tensor]

BLOCK = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}


def by_heads(parts: list[Tensor], channels: int) -> Tensor:
    """The rows of one head of each, then those of the next head."""
    heads = [part.reshape(-1, channels, *part.shape[1:]) for part in parts]
    return torch.cat(heads, dim=1).flatten(0, 1)


def place(block: str, number: int, kind: str, index: int, blocks: int, attends: bool) -> str:
    """Where Karlo's U-Nets have a module of diffusers' levels."""
    if block == "mid_block":
        last = 2 if attends else 1
        return f"middle_block.{1 if kind == 'attentions' else (0, last)[index]}"
    half = "input_blocks" if block == "down_blocks" else "output_blocks"
    first = number * (blocks + 1) + (1 if block == "down_blocks" else 0)
    if kind == "downsamplers":
        return f"{half}.{first + blocks}.0"
    if kind == "upsamplers":
        return f"{half}.{first + blocks}.{2 if attends else 1}"
    return f"{half}.{first + index}.{1 if kind == 'attentions' else 0}"


def unet(held: Weights, blocks: int, channels: int) -> dict[str, Tensor]:
    """A U-Net of diffusers under Karlo's names; `channels` are those of a head."""
    made = {}
    for key, weight in held.items():
        module, _, kind = key.rpartition(".")
        if module in ENDS:
            made[f"{ENDS[module]}.{kind}"] = weight
            continue
        found = re.fullmatch(r"(\w+_blocks?)\.(?:(\d+)\.)?(\w+?)\.(\d+)\.(.+)", module)
        assert found is not None, key
        block, number, part, index, inner = found.groups()
        attends = any(
            name.startswith(f"{block}.{number}.attentions" if number else "mid_block.attentions")
            for name in held
        )
        home = place(block, int(number or 0), part, int(index), blocks, attends)
        if part != "attentions":
            made[f"{home}.{BLOCK[inner]}.{kind}"] = weight
        elif inner in ("group_norm", "to_out.0"):
            flat = inner == "to_out.0" and kind == "weight"
            name = "norm" if inner == "group_norm" else "proj_out"
            made[f"{home}.{name}.{kind}"] = weight[..., None] if flat else weight
        elif inner in ("to_q", "add_k_proj"):
            names = ["to_q", "to_k", "to_v"] if inner == "to_q" else ["add_k_proj", "add_v_proj"]
            parts = [held[f"{module.removesuffix(inner)}{name}.{kind}"] for name in names]
            fused = by_heads(parts, channels)
            name = "qkv" if inner == "to_q" else "encoder_kv"
            made[f"{home}.{name}.{kind}"] = fused[..., None] if kind == "weight" else fused
    return made


def prior(held: Weights, channels: int) -> dict[str, Tensor]:
    """diffusers' prior under Karlo's names."""
    names = {"time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2"}
    names |= {"proj_in": "clip_img_proj", "embedding_proj": "text_emb_proj", "norm_out": "final_ln"}
    names |= {"encoder_hidden_states_proj": "text_enc_proj", "proj_to_clip_embeddings": "out_proj"}
    inner = {"attn1.to_out.0": "attn.c_proj", "ff.net.0.proj": "mlp.c_fc", "ff.net.2": "mlp.c_proj"}
    inner |= {"norm1": "ln_1", "norm3": "ln_2"}
    made = {"prd_emb": held["prd_embedding"], "positional_embedding": held["positional_embedding"]}
    for key, weight in held.items():
        module, _, kind = key.rpartition(".")
        found = re.fullmatch(r"transformer_blocks\.(\d+)\.(.+)", module)
        if found is None:
            made |= {f"{names[module]}.{kind}": weight} if module in names else {}
        elif found[2] in inner:
            made[f"transformer.resblocks.{found[1]}.{inner[found[2]]}.{kind}"] = weight
        elif found[2] == "attn1.to_q":
            parts = [held[f"{module.removesuffix('to_q')}to_{letter}.{kind}"] for letter in "qkv"]
            made[f"transformer.resblocks.{found[1]}.attn.c_qkv.{kind}"] = by_heads(parts, channels)
    return made


def projections(held: Weights) -> dict[str, Tensor]:
    """diffusers' projections, which Karlo's decoder has itself."""
    names = {
        "encoder_hidden_states_proj": "text_seq_proj.0",
        "text_encoder_hidden_states_norm": "text_seq_proj.1",
        "clip_extra_context_tokens_proj": "clip_tok_proj",
        "embedding_proj": "text_feat_proj",
        "clip_image_embeddings_project_to_time_embeddings": "clip_emb",
    }
    made = {"cf_param": held["learned_classifier_free_guidance_embeddings"]}
    for module, name in names.items():
        made |= {f"{name}.{kind}": held[f"{module}.{kind}"] for kind in ("weight", "bias")}
    return made


def tower(held: Weights, ours: str, theirs: str) -> dict[str, Tensor]:
    """The blocks of a tower of transformers' CLIP under OpenAI's names."""
    inner = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}
    inner |= {"self_attn.out_proj": "attn.out_proj"}
    made = {}
    for key, weight in held.items():
        found = re.fullmatch(rf"{theirs}\.encoder\.layers\.(\d+)\.(.+)\.(weight|bias)", key)
        home = f"{ours}transformer.resblocks.{found[1]}" if found else ""
        if found and found[2] in inner:
            made[f"{home}.{inner[found[2]]}.{found[3]}"] = weight
        elif found and found[2] == "self_attn.q_proj":
            parts = [held[key.replace("q_proj", f"{letter}_proj")] for letter in "qkv"]
            made[f"{home}.attn.in_proj_{found[3]}"] = torch.cat(parts)
    return made


def clip(text: Weights, vision: Weights) -> dict[str, Tensor]:
    """Both towers as OpenAI's file has them, with the facts beside them."""
    made = tower(text, "", "text_model") | tower(vision, "visual.", "vision_model")
    made["token_embedding.weight"] = text["text_model.embeddings.token_embedding.weight"]
    made["positional_embedding"] = text["text_model.embeddings.position_embedding.weight"]
    made["text_projection"] = text["text_projection.weight"].T
    made["visual.class_embedding"] = vision["vision_model.embeddings.class_embedding"]
    made["visual.conv1.weight"] = vision["vision_model.embeddings.patch_embedding.weight"]
    made["visual.positional_embedding"] = vision["vision_model.embeddings.position_embedding.weight"]
    made["visual.proj"] = vision["visual_projection.weight"].T
    for kind in ("weight", "bias"):
        made[f"ln_final.{kind}"] = text[f"text_model.final_layer_norm.{kind}"]
        made[f"visual.ln_pre.{kind}"] = vision[f"vision_model.pre_layrnorm.{kind}"]
        made[f"visual.ln_post.{kind}"] = vision[f"vision_model.post_layernorm.{kind}"]
    facts = {"logit_scale": torch.tensor(4.6), "input_resolution": torch.tensor(16)}
    return {name: weight.contiguous() for name, weight in made.items()} | facts


def prefixed(prefix: str, weights: Weights) -> dict[str, Tensor]:
    return {prefix + name: weight.contiguous() for name, weight in weights.items()}


def test_the_names_are_karlos(listed):
    """The rules of this file at full size, against the list from Karlo's own classes."""
    shared = {"block_out_channels": (320, 640, 960, 1280), "layers_per_block": 3}
    with torch.device("meta"):
        small = UNet2DModel(
            in_channels=6,
            out_channels=3,
            down_block_types=["ResnetDownsampleBlock2D"] * 4,
            up_block_types=["ResnetUpsampleBlock2D"] * 4,
            add_attention=False,
            **shared,
        )
        decoder = UNet2DConditionModel(
            in_channels=3,
            out_channels=6,
            down_block_types=["ResnetDownsampleBlock2D", *["SimpleCrossAttnDownBlock2D"] * 3],
            mid_block_type="UNetMidBlock2DSimpleCrossAttn",
            up_block_types=[*["SimpleCrossAttnUpBlock2D"] * 3, "ResnetUpsampleBlock2D"],
            attention_head_dim=64,
            cross_attention_dim=1536,
            class_embed_type="identity",
            resnet_time_scale_shift="scale_shift",
            **shared,
        )
        text = UnCLIPTextProjModel(clip_embeddings_dim=768, time_embed_dim=1280, cross_attention_dim=1536)
        made = prefixed("prior/model.", prior(PriorTransformer().state_dict(), 64))
    made |= prefixed("decoder/model.", unet(decoder.state_dict(), 3, 64) | projections(text.state_dict()))
    made |= prefixed("upsampler/model_first_steps.", unet(small.state_dict(), 3, 64))
    assert {name: tuple(weight.shape) for name, weight in made.items()} == listed("karlo_original.txt")


@pytest.fixture(scope="module")
def original(original_parts, tmp_path_factory) -> Path:
    """Karlo's folder of originals, small: each file as Lightning wraps it."""
    folder = tmp_path_factory.mktemp("original") / "karlo"
    folder.mkdir()
    pipeline, vision = original_parts
    parts = pipeline.components
    held = {name: part.state_dict() for name, part in parts.items() if isinstance(part, torch.nn.Module)}
    decoder = unet(held["decoder"], 1, 16) | projections(held["text_proj"])
    first, last = (unet(held[f"super_res_{which}"], 1, 16) for which in ("first", "last"))
    both = prefixed("model_first_steps.", first) | prefixed("model_last_step.", last)
    lightning = {"epoch": 3, "global_step": 1_000_000, "pytorch-lightning_version": "1.7.1", "callbacks": {}}
    for name, weights in {
        "prior-ckpt-step=01000000-of-01000000": prefixed("model.", prior(held["prior"], 16)),
        "decoder-ckpt-step=01000000-of-01000000": prefixed("model.", decoder),
        "improved-sr-ckpt-step=1.2M": both,
    }.items():
        torch.save(lightning | {"state_dict": weights}, folder / f"{name}.ckpt")
    statistics = held["prior"]["clip_mean"][0], held["prior"]["clip_std"][0]
    torch.save(statistics, folder / "ViT-L-14_stats.th")
    torch.save(clip(held["text_encoder"], vision.state_dict()), folder / "ViT-L-14.pt")
    pipeline.tokenizer.save_pretrained(folder / "tokenizer")
    return folder


@pytest.fixture
def small(monkeypatch) -> karlo_original.Sizes:
    """Karlo came in one size, which stands in for what its files do not tell: that of the small one."""
    full = karlo_original.KARLO
    unets = {"channels": 16, "blocks": 1, "groups": 8, "head_channels": 16}
    sizes = karlo_original.Sizes(
        prior=replace(full.prior, embedding=64, context=13, text_width=64, width=32, layers=2, heads=2),
        decoder=replace(full.decoder, **unets, context_width=24, vector_width=64),
        upsampler=replace(
            full.upsampler, net=replace(full.upsampler.net, **unets), low_size=16, high_size=32
        ),
    )
    monkeypatch.setattr(karlo_original, "KARLO", sizes)
    return sizes


def test_every_table_goes_back(original, small, tmp_path):
    """The files from the networks: every weight, bit for bit, but for facts about CLIP and its picture tower."""
    files = {}
    for name, start in karlo_original.FILES.items():
        (file,) = original.glob(f"{start}*")
        held = torch.load(file)
        held = held.get("state_dict", held) if isinstance(held, dict) else dict(zip("01", held))
        save_file(held, files.setdefault(name, tmp_path / f"{name}.safetensors"))
    found = karlo_original.open_files(original, files, find_tokenizer(original))
    assert set(found.parts) == {"clip", "prior", "decoder", "upsampler"}
    for part in found.parts.values():
        back = part.table.to_theirs(part.load().state_dict())
        with open_weights(part.files) as readers:
            left = [key for key in readers if any(re.fullmatch(p, key) for p in part.table.ignored)]
            assert back.keys() == readers.keys() - left
            assert all(torch.equal(weight, readers[name]()) for name, weight in back.items())


def test_the_converted_folder_draws_as_diffusers_does(original, original_parts, lifted, tmp_path, small):
    pipeline, _ = original_parts
    folder = convert(original, tmp_path / "ours", tokenizer=original / "tokenizer")
    assert read_manifest(folder).licence == "creativeml-openrail-m"
    system = unclip.load(folder, device="cpu")
    assert system.parts.config("clip").towers == "both"
    with lifted(pipeline, ["prior_scheduler", "decoder_scheduler", "super_res_scheduler"]):
        images = pipeline(
            "a red cat",
            prior_num_inference_steps=4,
            decoder_num_inference_steps=4,
            super_res_num_inference_steps=3,
            generator=torch.Generator().manual_seed(5),
            output_type="np",
        ).images
    expected = torch.from_numpy(np.moveaxis(images, -1, 1)) * 2 - 1
    drawn = []
    system.generate(
        "a red cat",
        seed=5,
        random="diffusers",
        prior_steps=4,
        steps=4,
        upsampler_steps=3,
        on_progress=lambda progress: drawn.append(progress.x0),
    )
    assert expected.std() > 0.1
    assert (drawn[-1].clamp(-1, 1) - expected).abs().max() < 1e-5
