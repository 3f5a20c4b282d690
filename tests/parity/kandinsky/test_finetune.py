"""Fine-tuning of Kandinsky 2.2: an adapter from `unclip train`, read by diffusers and by the model."""

import pytest
import torch
from safetensors.torch import load_file

import unclip
from unclip.cli.main import main
from unclip.images import to_image
from unclip.networks.kandinsky import KandinskyCondition, KandinskyDecoder

pytest.importorskip("peft")


def test_an_adapter_of_kandinsky(folders, unets, tmp_path, capsys):
    folder, prior = folders["2.2", "decoder"], folders["2.2", "prior"]
    out = tmp_path / "lora"
    settings = [
        "samples=8",
        "batch=4",
        'data.path="shapes"',
        "precision=fp32",
        "optimizer.learning_rate=0.05",
    ]
    arguments = ["train", "decoder", "--init", str(folder), "--lora", "2", "-o", str(out), "--device", "cpu"]
    arguments += ["--clip", str(prior)]
    assert main([*arguments, *(w for s in settings for w in ("--set", s))]) == 0, capsys.readouterr().err
    picture = to_image(torch.linspace(-1, 1, 3 * 64 * 64).reshape(3, 64, 64))
    plain, adapted = (
        unclip.load(folder, device="cpu", prior=prior, adapters=adapters)
        for adapters in ({}, {out / "model": 1.0})
    )
    drawn = [model.vary(picture, seed=1, steps=2)[0].image.tobytes() for model in (plain, adapted)]
    assert drawn[0] != drawn[1]
    theirs = unets["2.2", 4]
    theirs.load_lora_adapter(load_file(out / "model" / "pytorch_lora_weights.safetensors"), prefix="unet")
    generator = torch.Generator().manual_seed(3)
    x, z = torch.randn(1, 4, 8, 8, generator=generator), torch.randn(1, 20, generator=generator)
    label = torch.tensor([500.0])
    try:
        with torch.no_grad(), adapted.parts.lend("decoder", KandinskyDecoder) as ours:
            one = ours(x, label, ours.encode(KandinskyCondition(z)))
            added = {"image_embeds": z}
            other = theirs(x, label, encoder_hidden_states=None, added_cond_kwargs=added).sample
    finally:
        theirs.unload_lora()
    torch.testing.assert_close(one, other[:, : one.shape[1]], rtol=1e-4, atol=5e-5)
