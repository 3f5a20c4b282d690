"""Drawing in units gives the files that the command draws alone; what is there and right is not drawn again."""

from dataclasses import replace

import pytest
import torch

import unclip
from unclip.batch.draw import DrawWork, is_picture_of
from unclip.batch.work import run_here
from unclip.cli.main import main
from unclip.evaluate.pictures import draw_pictures
from unclip.generate.operations import Generate
from unclip.stages.sampling import DecoderSampling, PriorSampling, Sampling

QUICK = ["--steps", "2", "--prior-steps", "2", "--size", "64", "--device", "cpu"]


@pytest.fixture(scope="module")
def requests():
    sampling = Sampling(prior=PriorSampling(steps=2), decoder=DecoderSampling(steps=2))
    return [
        Generate(prompt=f"a red {name}", seed=number, size=64, sampling=sampling)
        for number, name in enumerate(("car", "fox", "tree"))
    ]


def test_units_are_whole_and_done_once(tmp_path, requests):
    files = [tmp_path / f"{number}.png" for number in range(3)]
    work = DrawWork(requests, files, model="artwork", batch=2, device="cpu")
    assert run_here(work).done == 2
    good = [file.read_bytes() for file in files]
    assert all(is_picture_of(file, request) for file, request in zip(files, requests))
    assert not is_picture_of(files[0], replace(requests[0], seed=9))
    files[1].write_bytes(good[1][:100])
    outcome = run_here(work)
    assert (outcome.done, outcome.before) == (1, 1)
    assert [file.read_bytes() for file in files] == good


def test_prompts_in_parquet_and_what_a_cluster_needs(tmp_path, capsys):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pa.table({"prompt": ["a red fox", "a car"]}), tmp_path / "p.parquet")
    words = ["generate", "--prompts", str(tmp_path / "p.parquet"), "-o", f"{tmp_path}/out/", *QUICK]
    assert main([*words, "--ray", "auto"]) == 2
    assert "--ray needs --seed" in capsys.readouterr().err
    assert main([*words, "--seed", "3"]) == 0
    names = [line.rpartition("/")[2] for line in capsys.readouterr().out.split()]
    assert names[0].startswith("a-red-fox-3")
    assert names[1].startswith("a-car-")
    parquet.write_table(pa.table({"words": ["x"]}), tmp_path / "p.parquet")
    assert main(words) == 2
    assert "row 1: no text in a column named prompt" in capsys.readouterr().err


def test_evaluation_pictures_drawn_in_units_are_those_drawn_alone(tmp_path, requests):
    model = unclip.load("artwork", device="cpu")
    asked = [(request.prompt, request.seed) for request in requests]
    sampling = requests[0].sampling
    alone = draw_pictures(model, asked, sampling, size=64, folder=tmp_path / "alone", batch=2)
    calls = []

    def elsewhere(some, files, report):
        calls.append(len(some))
        work = DrawWork(some, files, model="artwork", batch=2, device="cpu")
        assert run_here(work, lambda done, of: report(min(2 * done, len(files)), len(files))).failed == {}

    seen = []

    def draw():
        return draw_pictures(
            model,
            asked,
            sampling,
            size=64,
            folder=tmp_path / "units",
            batch=2,
            elsewhere=elsewhere,
            report=lambda done, of: seen.append((done, of)),
        )

    assert torch.equal(draw().pixels, alone.pixels)
    assert seen == [(0, 3), (2, 3), (3, 3)]
    files = [file.relative_to(tmp_path / "alone") for file in (tmp_path / "alone").rglob("*.png")]
    assert len(files) == 3
    for file in files:
        assert (tmp_path / "units" / file).read_bytes() == (tmp_path / "alone" / file).read_bytes()
    (tmp_path / "units" / files[0]).unlink()
    assert torch.equal(draw().pixels, alone.pixels)
    assert torch.equal(draw().pixels, alone.pixels)
    assert calls == [3, 1], "what is there is not drawn again"
    with pytest.raises(ValueError, match="--pictures FOLDER"):
        draw_pictures(model, asked, sampling, size=64, elsewhere=elsewhere)
    with pytest.raises(ValueError, match="is no picture of its request"):
        draw_pictures(
            model, asked, sampling, size=64, folder=tmp_path / "none", elsewhere=lambda *given: None
        )
