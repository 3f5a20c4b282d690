"""Latents of a data set: rows equal the autoencoder's own, and the command goes on where it stopped."""

import numpy as np
import pytest
import torch

from unclip import recipes
from unclip.batch.latents import EXACT, latents_work
from unclip.batch.work import run_here
from unclip.cli.main import main
from unclip.config import override
from unclip.data.decode import decode
from unclip.data.stream.disk_cache import DiskCache
from unclip.data.stream.open import open_stream
from unclip.data.stream.sidecar import Sidecars
from unclip.generate.model import Model
from unclip.images import from_uint8
from unclip.networks.autoencoder import Autoencoder
from unclip.train.loop import train

SIZE = 32


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model folder with an autoencoder, after two steps."""
    home = tmp_path_factory.mktemp("autoencoder")
    cheap = [f"data.cache={home / 'cache'}", "samples=16", "batch=8"]
    clip = ["model.vision.width=16", "model.vision.layers=1", "model.text.width=16", "model.text.layers=1"]
    clip += ["model.embedding=8", "vocabulary=540", f"out={home / 'clip'}"]
    train(override(recipes.get("tiny", "clip"), [*cheap, *clip]), device="cpu")
    own = ["model.channels=8", "model.groups=4", "discriminator.channels=8", f"clip={home / 'clip'}"]
    train(
        override(recipes.get("tiny", "autoencoder"), [*cheap, *own, f"out={home / 'autoencoder'}"]),
        device="cpu",
    )
    return home / "autoencoder" / "model"


@pytest.fixture
def cache(tmp_path):
    return DiskCache(tmp_path / "cache", 50 << 20)


def test_rows_are_the_autoencoders_own_distributions(tmp_path, cache, write_shards, folder):
    data = open_stream(write_shards(tmp_path / "data"), cache=cache)
    work = latents_work(data, tmp_path / "out", model=str(folder), size=SIZE, batch=4, device="cpu")
    assert run_here(work).done == 3
    found = Sidecars(tmp_path / "out", f"latent{SIZE}", work.origin.model, cache)
    keys = data.keys(1)
    rows, ok = found.rows([data.units[1].name] * len(keys), keys)
    pictures = np.stack([decode(write_shards.png(number), SIZE) for number in range(10, 20)])
    model = Model.load(folder, device="cpu")
    with torch.no_grad(), model.parts.lend("autoencoder", Autoencoder) as network:
        posterior = network.encode(from_uint8(torch.from_numpy(pictures)))
    expected = torch.stack([posterior.mean, posterior.log_variance], dim=1).numpy()
    assert ok.all()
    assert rows.shape == expected.shape
    assert (expected[:, 1] > EXACT).all()
    np.testing.assert_allclose(rows, expected, rtol=2e-3, atol=2e-3)
    assert (run_here(work).done, run_here(work).before) == (0, 3)


def test_bad_pictures_have_no_latent(tmp_path, cache, write_shards, folder):
    def picture(number):
        return b"no picture" if number == 3 else write_shards.png(number)

    data = open_stream(write_shards(tmp_path / "data", 10, picture=picture), cache=cache)
    assert list(
        run_here(
            latents_work(data, tmp_path / "out", model=str(folder), size=SIZE, device="cpu", bad_share=0)
        ).failed
    )
    work = latents_work(data, tmp_path / "out", model=str(folder), size=SIZE, device="cpu", bad_share=0.1)
    assert run_here(work).done == 1
    _, _, ok = Sidecars(tmp_path / "out", f"latent{SIZE}", work.origin.model, cache).unit("set-train-00000")
    assert np.flatnonzero(~ok).tolist() == [3]


def test_the_command(tmp_path, write_shards, folder, capsys):
    data = str(write_shards(tmp_path / "data", 12))
    given = ["latents", data, "--model", str(folder), "--device", "cpu", "--quiet"]
    assert main([*given, "--size", "32"]) == 0
    assert capsys.readouterr().out == "2 units done, 0 were done before\n"
    assert main([*given, "--size", "32", "--json"]) == 0
    assert '"before": 2' in capsys.readouterr().out
    # Another size lies beside it.
    assert main([*given, "--size", "16"]) == 0
    assert len(list((tmp_path / "data").glob("*.latent32-*.safetensors"))) == 2
    assert len(list((tmp_path / "data").glob("*.latent16-*.safetensors"))) == 2
    assert main([*given, "--size", "33"]) == 2
    assert "--size 33" in capsys.readouterr().err
    assert main(["latents", data, "--size", "32", "--device", "cpu"]) != 0
    assert "autoencoder" in capsys.readouterr().err
    assert main([*given, "--size", "32", "--part", "autoencoder=elsewhere"]) == 2
    assert "leave --part and --adapter out" in capsys.readouterr().err
