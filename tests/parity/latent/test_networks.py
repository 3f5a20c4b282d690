"""Networks of latent models against diffusers' and transformers', with the same weights, in float32."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel

from tests.parity.latent.conftest import SD2, WIDTH, filled, text_config, unet, vae, vocabulary
from unclip.formats.opened import open_model
from unclip.stages.text import read_captions

TOLERANCE = 1e-5


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().max())


@pytest.mark.parametrize("name", ["sd1", "sd2", "inpaint", "unclip h"])
@torch.no_grad()
def test_unet(saved, name):
    pipeline, folder = saved(name)
    decoder = open_model(folder).parts["decoder"].load()
    theirs = pipeline.unet
    noise = torch.Generator().manual_seed(0)
    x = torch.randn(2, theirs.config.in_channels, 8, 16, generator=noise)
    text = torch.randn(2, 77, theirs.config.cross_attention_dim, generator=noise)
    times = torch.tensor([3.0, 801.0])
    vector = torch.randn(2, 2 * WIDTH, generator=noise) if name.startswith("unclip") else None
    wanted = theirs(x, times, text, class_labels=vector).sample
    assert wanted.std() > 0.1
    assert apart(decoder.net(x, times, vector, text), wanted) < TOLERANCE
    assert apart(decoder.net(x, times, vector, decoder.net.read(text)), wanted) < TOLERANCE


@pytest.mark.parametrize("attention", [True, False])
@torch.no_grad()
def test_autoencoder(tmp_path, saved, attention):
    theirs, (_, folder) = vae(mid_block_add_attention=attention), saved("sd1")
    copied = shutil.copytree(folder, tmp_path / "model")
    theirs.save_pretrained(copied / "vae")
    ours = open_model(copied).parts["autoencoder"].load()
    noise = torch.Generator().manual_seed(0)
    pixels, z = torch.randn(2, 3, 64, 96, generator=noise), torch.randn(2, 4, 8, 12, generator=noise)
    posterior, found = theirs.encode(pixels).latent_dist, ours.encode(pixels)
    assert apart(found.mean, posterior.mean) < TOLERANCE
    assert apart(found.log_variance, posterior.logvar) < TOLERANCE
    drawn = torch.randn(2, 4, 8, 12, generator=noise)
    assert apart(found.sample(drawn), posterior.mean + posterior.std * drawn) < TOLERANCE
    assert apart(found.kl(), posterior.kl()) < 1e-3
    wanted = theirs.decode(z).sample
    assert wanted.std() > 0.1
    assert apart(ours.decode(z), wanted) < TOLERANCE


@torch.no_grad()
def test_files_that_name_the_attention_as_before_0_17(tmp_path, saved):
    pipeline, folder = saved("sd1")
    copied = shutil.copytree(folder, tmp_path / "model")
    file = copied / "vae" / "diffusion_pytorch_model.safetensors"
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    weights = load_file(file)
    for new, name in old.items():
        weights = {
            key.replace(f"attentions.0.{new}.", f"attentions.0.{name}."): one for key, one in weights.items()
        }
    save_file(weights, file)
    z = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    ours = open_model(copied).parts["autoencoder"].load()
    assert apart(ours.decode(z), pipeline.vae.decode(z).sample) < TOLERANCE


@pytest.mark.parametrize("prefix", ["", "text_model."])
@pytest.mark.parametrize("name", ["sd1", "sd2"])
@torch.no_grad()
def test_text_tower_in_both_spellings(tmp_path, saved, name, prefix):
    pipeline, folder = saved(name)
    copied = shutil.copytree(folder, tmp_path / "model")
    file = copied / "text_encoder" / "model.safetensors"
    weights = {prefix + key.removeprefix("text_model."): one for key, one in load_file(file).items()}
    weights[f"{prefix}embeddings.position_ids"] = torch.arange(77)[None]
    save_file(weights, file)
    opened = open_model(copied)
    tower = opened.parts["text"].load()
    prompts = ["a red cat", "", "cat dog " * 60]
    tokens = pipeline.tokenizer(prompts, padding="max_length", truncation=True, max_length=77).input_ids
    wanted = pipeline.text_encoder(torch.tensor(tokens)).last_hidden_state
    found = read_captions(tower, opened.tokenizer(), prompts, torch.device("cpu"), tower.config.pad)
    assert torch.equal(found.tokens, torch.tensor(tokens))
    assert tower.config.pad == (0 if name == "sd2" else len(vocabulary()) - 1)
    assert apart(found.states, wanted) < TOLERANCE


@torch.no_grad()
def test_the_last_but_one_layer_is_a_tower_of_one_layer_less(tmp_path, saved):
    """OpenCLIP's ViT-H has 24 layers, of which Stable Diffusion 2 reads the 23rd through the final norm."""
    whole = filled(CLIPTextModel(text_config(48, 3, "gelu")), 3)
    tokens = torch.randint(0, 500, (2, 77), generator=torch.Generator().manual_seed(0))
    hidden = whole(tokens, output_hidden_states=True).hidden_states[-2]
    shorter = CLIPTextModel(text_config(48, 2, "gelu"))
    shorter.load_state_dict(whole.state_dict(), strict=False)
    _, folder = saved("sd2")
    copied = shutil.copytree(folder, tmp_path / "model")
    shorter.save_pretrained(copied / "text_encoder")
    tower = open_model(copied).parts["text"].load()
    assert apart(tower.encode_text(tokens).states, whole.final_layer_norm(hidden)) < TOLERANCE


@torch.no_grad()
def test_noised_embeddings(saved):
    pipeline, folder = saved("unclip h")
    decoder = open_model(folder).parts["decoder"].load()
    noise = torch.Generator().manual_seed(0)
    z, drawn = torch.randn(2, WIDTH, generator=noise), torch.randn(2, WIDTH, generator=noise)
    for level in (0, 5, 999):
        wanted = pipeline.noise_image_embeddings(z, level, noise=drawn)
        assert apart(decoder.vector(z, level, drawn), wanted) < TOLERANCE


def test_there_are_as_many_weights_as_in_the_real_files():
    assert len(unet().state_dict()) == len(unet(**SD2).state_dict()) == 686
    assert len(vae().state_dict()) == 248


@pytest.mark.parametrize("sides", [(9, 13), (10, 6)])
@torch.no_grad()
def test_unet_on_odd_sides(saved, sides):
    pipeline, folder = saved("sd1")
    net = open_model(folder).parts["decoder"].load().net
    noise = torch.Generator().manual_seed(0)
    x, text = torch.randn(1, 4, *sides, generator=noise), torch.randn(1, 77, 24, generator=noise)
    times = torch.tensor([500.0])
    assert apart(net(x, times, None, text), pipeline.unet(x, times, text).sample) < TOLERANCE
