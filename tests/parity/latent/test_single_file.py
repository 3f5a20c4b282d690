"""Stable Diffusion in one file, through `convert`, against diffusers' own conversion of the same weights."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import (
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
)
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPModel, CLIPTextModel

from tests.parity.latent.conftest import filled, picture, text_config, tokenizer, unet, vae, vocabulary
from unclip.checkpoints.io import build
from unclip.diffusion.noise import NoiseTable
from unclip.diffusion.parametrization import ProcessConfig
from unclip.errors import ModelError, Unsupported
from unclip.formats.convert import convert
from unclip.formats.key_maps import autoencoder, latent_file, latent_unet
from unclip.formats.key_maps import clip as clip_map
from unclip.formats.opened import open_model
from unclip.generate.model import Model
from unclip.networks.autoencoder import Autoencoder
from unclip.networks.clip import Clip, TextConfig
from unclip.networks.text_decoder import TextDecoder, TextDecoderConfig
from unclip.networks.text_encoder import TextEncoder, TextEncoderConfig

WIDTH = 64
SD2: dict[str, Any] = {"attention_head_dim": 1, "use_linear_projection": True}


def original(version: int, *, in_channels: int = 4, **changes: Any) -> tuple[dict[str, torch.Tensor], Any]:
    """Weights under the original code's names, and diffusers' U-Net of that shape."""
    own = SD2 if version == 2 else {}
    theirs = unet(cross_attention_dim=WIDTH, in_channels=in_channels, **own, **changes)
    net = latent_unet.read_config(json.loads(theirs.to_json_string()), "unet")
    config = TextDecoderConfig(
        net=net,
        inpainting=in_channels == 9,
        embedding=None if net.vector_width is None else net.vector_width // 2,
        process=ProcessConfig(parametrization="eps", schedule="scaled_linear"),
    )
    decoder = filled(TextDecoder(config), 11)
    state = {name: one for name, one in decoder.state_dict().items() if name.startswith("net.")}
    table = latent_file.decoder_table(net, state, linear=version == 2, averaged=False)
    found = table.to_theirs(state)
    shape = autoencoder.read_config(json.loads(vae().to_json_string()), "vae")
    found |= latent_file.autoencoder_table(shape).to_theirs(filled(Autoencoder(shape), 12).state_dict())
    # Version 2 has a last block that is not read.
    layers = 2
    act = "quick_gelu" if version == 1 else "gelu"
    reading = TextEncoderConfig(text=tower_config(act, layers), pad=0)
    tower = filled(TextEncoder(reading), 13)
    found |= latent_file.text_table(version, layers).to_theirs(tower.state_dict())
    if version == 2:
        block = "cond_stage_model.model.transformer.resblocks."
        found |= {
            name.replace(f"{block}1.", f"{block}2."): weight
            for name, weight in found.items()
            if name.startswith(f"{block}1.")
        }
        found["cond_stage_model.model.text_projection"] = torch.randn(WIDTH, WIDTH)
        found["cond_stage_model.model.logit_scale"] = torch.tensor(4.6)
    else:
        found["cond_stage_model.transformer.text_model.embeddings.position_ids"] = torch.arange(77)[None]
    buffers = ("betas", "alphas_cumprod", "sqrt_alphas_cumprod", "posterior_variance", "logvar")
    found |= {name: torch.rand(1000) for name in buffers}
    found |= {"model_ema.decay": torch.tensor(0.9999), "model_ema.num_updates": torch.tensor(7)}
    return {name: weight.contiguous().clone() for name, weight in found.items()}, theirs


def tower_config(act: Any, layers: int) -> TextConfig:
    count = len(vocabulary())
    return TextConfig(
        vocabulary=count, context=77, end=count - 1, width=WIDTH, layers=layers, heads=1, activation=act
    )


@pytest.fixture
def words(tmp_path) -> Path:
    tokenizer().save_pretrained(tmp_path / "words")
    return tmp_path / "words"


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().max())


@pytest.mark.parametrize(
    ("version", "in_channels", "suffix"), [(1, 4, ".safetensors"), (1, 9, ".ckpt"), (2, 4, ".ckpt")]
)
@torch.no_grad()
def test_convert(tmp_path, words, version, in_channels, suffix):
    weights, theirs = original(version, in_channels=in_channels)
    file = tmp_path / f"model{suffix}"
    if suffix == ".ckpt":
        torch.save({"state_dict": weights, "epoch": 3, "global_step": 470000}, file)
    else:
        save_file(weights, file)
    convert(file, tmp_path / "out", tokenizer=words, prediction="eps" if version == 2 else None)
    parts = open_model(tmp_path / "out").parts

    plain: UNet2DConditionModel = theirs
    plain.load_state_dict(convert_ldm_unet_checkpoint(dict(weights), plain.config))
    noise = torch.Generator().manual_seed(0)
    x = torch.randn(1, in_channels, 8, 8, generator=noise)
    text, times = torch.randn(1, 77, WIDTH, generator=noise), torch.tensor([500.0])
    assert apart(parts["decoder"].load().net(x, times, None, text), plain(x, times, text).sample) < 1e-5

    coder: AutoencoderKL = vae()
    coder.load_state_dict(convert_ldm_vae_checkpoint(dict(weights), coder.config))
    ours, pixels = parts["autoencoder"].load(), torch.randn(1, 3, 32, 32, generator=noise)
    assert apart(ours.encode(pixels).mean, coder.encode(pixels).latent_dist.mean) < 1e-5
    assert apart(ours.decode(x[:, :4]), coder.decode(x[:, :4]).sample) < 1e-5

    act = "quick_gelu" if version == 1 else "gelu"
    tower = CLIPTextModel(text_config(WIDTH, 2, act, num_attention_heads=1))
    if version == 1:
        prefix = "cond_stage_model.transformer.text_model."
        held = {name.removeprefix(prefix): one for name, one in weights.items() if name.startswith(prefix)}
        held.pop("embeddings.position_ids")
    else:
        found = convert_open_clip_checkpoint(tower, dict(weights), prefix="cond_stage_model.model.")
        held = {name.removeprefix("text_model."): one for name, one in found.items()}
        held = {name: one for name, one in held.items() if name in tower.state_dict()}
    tower.load_state_dict(held)
    tokens = torch.randint(0, 500, (1, 77), generator=noise)
    assert apart(parts["text"].load().encode_text(tokens).states, tower(tokens).last_hidden_state) < 1e-5


def test_the_averaged_weights_are_taken_unless_the_last_are_asked_for(tmp_path, words):
    weights, _ = original(1)
    start = "model.diffusion_model."
    weights |= {
        f"model_ema.{name.removeprefix('model.').replace('.', '')}": weight + 1
        for name, weight in list(weights.items())
        if name.startswith(start)
    }
    save_file(weights, tmp_path / "full.safetensors")
    last = weights["model.diffusion_model.out.2.bias"]
    for averaged, wanted in ((True, last + 1), (False, last)):
        convert(tmp_path / "full.safetensors", tmp_path / str(averaged), tokenizer=words, averaged=averaged)
        decoder = open_model(tmp_path / str(averaged)).parts["decoder"].load()
        assert torch.equal(decoder.get_parameter("net.exit.bias"), wanted)


def test_a_converted_file_draws(tmp_path, words):
    weights, _ = original(1)
    save_file(weights, tmp_path / "one.safetensors")
    convert(tmp_path / "one.safetensors", tmp_path / "out", tokenizer=words, licence="openrail")
    model = Model.load(tmp_path / "out", device="cpu")
    assert (model.sizes, model.defaults.decoder.sampler, model.defaults.decoder.steps) == ([512], "plms", 50)
    assert model.generate("a red cat", seed=1, steps=2, size=64)[0].image.size == (64, 64)


def test_faults_are_named(tmp_path, words):
    weights, _ = original(2)
    file = tmp_path / "two.safetensors"
    save_file(weights, file)
    with pytest.raises(ModelError, match="does not say what its U-Net predicts: give --prediction v"):
        convert(file, tmp_path / "out", tokenizer=words)
    with pytest.raises(ModelError, match="come without a tokenizer"):
        convert(file, tmp_path / "out", prediction="v")
    save_file(weights | {"model.diffusion_model.extra.weight": torch.zeros(1)}, file)
    with pytest.raises(ModelError, match=r"unknown weight model\.diffusion_model\.extra\.weight"):
        convert(file, tmp_path / "out", tokenizer=words, prediction="v")
    save_file({name: one for name, one in weights.items() if "first_stage" not in name}, file)
    with pytest.raises(ModelError, match="holds no autoencoder"):
        convert(file, tmp_path / "out", tokenizer=words, prediction="v")


# Stable unCLIP, with the picture tower and the noise of embeddings under the names of Stability's code.

SPACE = 32
"""Width of its image embeddings."""


def tower() -> CLIPModel:
    """transformers' CLIP with a picture tower of one head, as all that is 64 wide."""
    text = text_config(WIDTH, 2, "quick_gelu", num_attention_heads=1, projection_dim=SPACE).to_dict()
    vision = {"image_size": 32, "patch_size": 8, "hidden_size": WIDTH, "intermediate_size": 4 * WIDTH}
    vision |= {"num_hidden_layers": 2, "num_attention_heads": 1, "hidden_act": "quick_gelu"}
    return filled(CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=SPACE)), 14)


def unclip_file(kind: str) -> tuple[dict[str, torch.Tensor], CLIPModel]:
    """Weights of a Stable unCLIP in one file: OpenCLIP's tower without text transformer (h), or OpenAI's CLIP (l)."""
    changes = {"class_embed_type": "projection", "projection_class_embeddings_input_dim": 2 * SPACE}
    weights, _ = original(2, **changes)
    clip = tower()
    config = clip_map.transformers_config(
        clip.config.text_config.to_dict(),
        clip.config.vision_config.to_dict() | {"projection_dim": SPACE},
        embedding=SPACE,
        end=None,
        where="clip",
    )
    ours = build(Clip, config)
    state = clip.state_dict()
    made = dict(clip_map.TRANSFORMERS.to_ours(ours.state_dict(), list(state), lambda key: state[key], "clip"))
    held = clip_map.openai_table("embedder.model.").to_theirs(made)
    if kind == "h":
        held = {name: one for name, one in held.items() if ".model.transformer." not in name}
        held["embedder.model.attn_mask"] = torch.zeros(77, 77)
    weights |= {name: one.contiguous().clone() for name, one in held.items()}
    abar = NoiseTable.cosine(1000).abar.float()
    weights |= {
        "noise_augmentor.alphas_cumprod": abar,
        "noise_augmentor.betas": torch.rand(1000),
        "noise_augmentor.sqrt_alphas_cumprod": abar.sqrt(),
        "noise_augmentor.log_one_minus_alphas_cumprod": torch.rand(1000),
    }
    return weights, clip


@pytest.mark.parametrize("kind", ["h", "l"])
@torch.no_grad()
def test_stable_unclip_in_one_file(tmp_path, words, kind):
    """The tower gives transformers' embeddings, the label is standardised as its augmentor does, and pictures are drawn."""
    weights, clip = unclip_file(kind)
    file = tmp_path / f"sd21-unclip-{kind}.ckpt"
    torch.save({"state_dict": weights, "global_step": 1}, file)
    mean, std = torch.randn(SPACE), 1 + torch.rand(SPACE)
    if kind == "l":
        with pytest.raises(ModelError, match=r"put ViT-L-14_stats\.th, one of Karlo's files, beside it"):
            convert(file, tmp_path / "out", tokenizer=words)
        torch.save((mean, std), tmp_path / "ViT-L-14_stats.th")
    convert(file, tmp_path / "out", tokenizer=words)
    model = Model.load(tmp_path / "out", device="cpu")
    config = model.parts.config("clip")
    assert config.towers == ("both" if kind == "l" else "image")
    assert config.vision.resize == "squash"
    assert model.parts.config("decoder").process.parametrization == "v"
    assert (model.defaults.decoder.steps, model.defaults.decoder.guidance) == (20, 10)
    # Of gelu and QuickGELU, which the files do not name, each has its own.
    pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    clip.config.vision_config.hidden_act = config.vision.activation
    activation = torch.nn.GELU() if kind == "h" else torch.nn.Sequential()
    for layer in clip.vision_model.encoder.layers if kind == "h" else ():
        layer.mlp.activation_fn = activation
    mean_of, std_of = (torch.tensor(one)[:, None, None] for one in (config.vision.mean, config.vision.std))
    wanted = clip.get_image_features((pixels - mean_of) / std_of)
    wanted = getattr(wanted, "pooler_output", wanted)
    with model.parts.lend("clip", Clip) as network:
        assert apart(network.encode_image(2 * pixels - 1), wanted) < 1e-4
    with model.parts.lend("decoder", TextDecoder) as decoder:
        held = decoder.get_buffer("embedding_mean"), decoder.get_buffer("embedding_std")
    for one, other in zip(held, (mean, std) if kind == "l" else (torch.zeros(SPACE), torch.ones(SPACE))):
        assert torch.equal(one, other)
    # Pictures that are not squares are squashed, as Stability's code does.
    drawn = model.vary(picture(48, 32), n=1, seed=1, steps=2, size=(64, 72))[0]
    assert drawn.image.size == (72, 64)
    if kind == "l":
        diffs = model.text_diff(picture(), "a dog", baseline="a cat", frames=2, seed=1, steps=2, size=64)
        assert len(diffs) == 2


def test_stable_unclip_in_one_file_without_its_tower(tmp_path, words):
    """Then a CLIP comes from elsewhere; what needs it says so."""
    weights, _ = unclip_file("h")
    kept = {name: one for name, one in weights.items() if not name.startswith("embedder.")}
    save_file(kept, tmp_path / "bare.safetensors")
    convert(tmp_path / "bare.safetensors", tmp_path / "out", tokenizer=words)
    model = Model.load(tmp_path / "out", device="cpu")
    with pytest.raises(Unsupported, match="has no image encoder, which vary needs"):
        model.vary(picture())
    tower().save_pretrained(tmp_path / "clip")
    tokenizer().save_pretrained(tmp_path / "clip")
    mixed = Model.load(tmp_path / "out", device="cpu", parts={"clip": tmp_path / "clip"})
    assert mixed.vary(picture(), n=1, seed=1, steps=1, size=64)[0].image.size == (64, 64)


def test_faults_of_stable_unclip_in_one_file_are_named(tmp_path, words):
    weights, _ = unclip_file("h")
    file = tmp_path / "one.safetensors"

    def refused(changes: dict[str, torch.Tensor], message: str) -> None:
        save_file(weights | changes, file)
        with pytest.raises(ModelError, match=message):
            convert(file, tmp_path / "out", tokenizer=words)

    linear = torch.linspace(1, 0, 1000)
    refused({"noise_augmentor.alphas_cumprod": linear}, "is not the cosine schedule")
    refused({"noise_augmentor.net.weight": torch.zeros(1)}, r"unknown weight noise_augmentor\.net\.weight")
    refused({"embedder.model.visual.extra": torch.zeros(1)}, r"unknown weight embedder\.model\.visual\.extra")
    refused(
        {"embedder.model.visual.proj": torch.zeros(WIDTH, 48)}, "gives embeddings of 48, its U-Net reads 32"
    )
