"""Trained here and read by diffusers: an autoencoder, and an adapter of Stable Diffusion; and fine-tuning of its folder."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL  # pyright: ignore[reportPrivateImportUsage]
from safetensors.torch import load_file

import unclip
from unclip import recipes
from unclip.checkpoints.io import load_part
from unclip.checkpoints.manifest import read_manifest
from unclip.cli.main import main
from unclip.formats.export import export_autoencoder
from unclip.images import to_tensor
from unclip.networks.autoencoder import Autoencoder, standardised
from unclip.networks.text_decoder import TextDecoder, TextDecoderContext
from unclip.train.loop import train


def test_diffusers_reads_a_trained_autoencoder(tmp_path):
    config = recipes.get("tiny", "autoencoder")
    model = replace(config.model, middle_attention=True, attention_levels=(1,))
    config = replace(config, model=model, samples=64, perceptual_weight=0.0, discriminator_start=32)
    folder = train(replace(config, out=str(tmp_path / "run")), device="cpu")
    ours = load_part(folder, read_manifest(folder), "autoencoder")
    assert isinstance(ours, Autoencoder)
    theirs: Any = AutoencoderKL.from_pretrained(export_autoencoder(ours, tmp_path / "vae"))
    pictures = torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        one, other = ours.encode(pictures), theirs.encode(pictures).latent_dist
        torch.testing.assert_close(one.mean, other.mean, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(one.log_variance, other.logvar, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(
            ours.decode(one.mean), theirs.decode(other.mean).sample, rtol=1e-5, atol=1e-5
        )
    mean, std = (torch.tensor(theirs.config[f"latents_{name}"])[:, None, None] for name in ("mean", "std"))
    torch.testing.assert_close(standardised(one.mean, ours.config), (other.mean - mean) / std)


def test_an_adapter_of_stable_diffusion(saved, tmp_path, capsys):
    pytest.importorskip("peft")
    pipeline, folder = saved("sd1")
    out = tmp_path / "lora"
    settings = [
        "samples=8",
        "batch=4",
        'data.path="shapes"',
        "precision=fp32",
        "optimizer.learning_rate=0.05",
    ]
    arguments = ["train", "decoder", "--init", str(folder), "--lora", "2", "-o", str(out), "--device", "cpu"]
    assert main([*arguments, *(w for s in settings for w in ("--set", s))]) == 0, capsys.readouterr().err
    adapted = unclip.load(folder, device="cpu", adapters={out / "model": 1.0})
    plain = unclip.load(folder, device="cpu")
    drawn = [model.generate("a cat", seed=1, steps=2)[0].image for model in (plain, adapted)]
    assert not np.array_equal(to_tensor(drawn[0]).numpy(), to_tensor(drawn[1]).numpy())
    theirs = pipeline.unet
    theirs.load_lora_adapter(load_file(out / "model" / "pytorch_lora_weights.safetensors"), prefix="unet")
    generator = torch.Generator().manual_seed(3)
    x, label = torch.randn(1, 4, 8, 8, generator=generator), torch.tensor([500.0])
    try:
        with torch.no_grad(), adapted.parts.lend("decoder", TextDecoder) as ours:
            config = ours.config
            tokens = torch.randn(1, config.context, config.net.context_width or 0, generator=generator)
            one = ours(x, label, ours.encode(TextDecoderContext(tokens)))
            other = theirs(x, label, encoder_hidden_states=tokens).sample
    finally:
        theirs.unload_lora()
    torch.testing.assert_close(one, other, rtol=1e-4, atol=5e-5)
