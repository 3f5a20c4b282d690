"""`unclip generate` and `unclip redo` on a tiny model with random weights: streams, names, seeds, and every bad input."""

import io
import json
from pathlib import Path

import pytest

from unclip.cli.outputs import name_outputs, slug
from unclip.images import open_picture, read_provenance


def test_writes_a_picture_and_prints_its_path(unclip, model, tmp_path):
    path = tmp_path / "new folder" / "a.png"
    assert unclip("generate", "a red apple", "-m", model, "-o", path, "--seed", 3) == (0, f"{path}\n", "")
    assert open_picture(path).size == (32, 32)
    provenance = read_provenance(path)
    assert (provenance["request"]["prompt"], provenance["request"]["seed"]) == ("a red apple", 3)
    assert (provenance["model"], provenance["size"]) == ("tiny", [32, 32])


def test_options_reach_the_provenance(unclip, model, tmp_path):
    options = {
        "size": 16, "steps": 1, "guidance": 1.5, "sampler": "ddim", "prior_steps": 1, "prior_guidance": 2.0,
        "candidates": 3, "prior_sampler": "heun", "prior": "diffusion", "random": "unclip",
        "guidance_interval": "0.5,8", "upsampler_steps": 1, "upsampler_sampler": "ddpm", "negative": "blue", "dtype": "bfloat16", "device": "cpu",
    }  # fmt: skip
    argv = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", value)]
    code, out, _ = unclip("generate", "a red apple", "-m", model, "-o", tmp_path / "a.png", "--json", *argv)
    assert code == 0
    (made,) = json.loads(out)
    assert (made["dtype"], made["device"]) == ("bfloat16", "cpu")
    request = made["request"]
    assert (request["size"], request["negative"]) == (16, "blue")
    assert request["sampling"] == {
        "prior": {"kind": "diffusion", "steps": 1, "sampler": "heun", "guidance": 2.0, "candidates": 3},
        "decoder": {"steps": 1, "sampler": "ddim", "guidance": 1.5, "guidance_interval": [0.5, 8.0]},
        "upsamplers": [{"steps": 1, "sampler": "ddpm"}],
        "random": "unclip",
    }


def test_drawn_seed_is_told_and_repeats_the_picture(unclip, model, tmp_path):
    code, _, err = unclip("generate", "a red apple", "-m", model, "-o", tmp_path / "a.png")
    seed = read_provenance(tmp_path / "a.png")["request"]["seed"]
    assert code == 0
    assert f"seed {seed} was drawn" in err
    unclip("generate", "a red apple", "-m", model, "-o", tmp_path / "b.png", "--seed", seed)
    assert open_picture(tmp_path / "a.png").tobytes() == open_picture(tmp_path / "b.png").tobytes()


def test_each_of_several_pictures_can_be_drawn_alone(unclip, model, tmp_path):
    common = ("generate", "a red apple", "-m", model, "-o", f"{tmp_path}/")
    code, out, _ = unclip(*common, "-n", 2, "--seed", 7)
    assert code == 0
    first, second = map(Path, out.split())
    assert first.name == "a-red-apple-7.png"
    alone = tmp_path / "alone.png"
    unclip(*common[:-1], alone, "--seed", read_provenance(second)["request"]["seed"])
    assert open_picture(alone).tobytes() == open_picture(second).tobytes()
    assert open_picture(first).tobytes() != open_picture(second).tobytes()


def test_prompts_from_stdin(unclip, model, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("a red apple\n\n  a blue cat  \n"))
    code, out, _ = unclip("generate", "--prompts", "-", "-m", model, "-o", tmp_path / "a.png", "--seed", 1)
    assert code == 0
    assert [read_provenance(path)["request"]["prompt"] for path in out.split()] == [
        "a red apple",
        "a blue cat",
    ]
    assert [Path(path).name for path in out.split()] == ["a-1.png", "a-2.png"]


def test_the_autoregressive_prior_is_trained_packed_and_asked_for_by_name(unclip, model, chain, tmp_path):
    runs, run, both = chain.parent, tmp_path / "run", tmp_path / "both"
    given = ("--recipe", "tiny", "--clip", runs / "clip", "--set", "samples=32")
    assert unclip("train", "prior_autoregressive", "--out", run, *given).code == 0
    stages = [runs / stage for stage in ("clip", "prior", "decoder", "upsampler")]
    assert (
        unclip("bundle", *stages, run, "-o", both, "--set", "steps=2", "--set", "upsampler_steps=1").code == 0
    )
    path, again = tmp_path / "a.png", tmp_path / "again.png"
    command = ("generate", "a red apple", "--prior", "autoregressive", "-o", path, "--seed", 1)
    assert unclip(*command, "-m", both) == (0, f"{path}\n", "")
    assert read_provenance(path)["request"]["sampling"]["prior"]["kind"] == "autoregressive"
    assert unclip("redo", path, "-m", both, "-o", again).err == "unclip: every pixel is the same\n"
    # Its principal components are kept with it, for all who ask for pictures of the first of them.
    few = tmp_path / "few.png"
    assert unclip("reconstruct", path, "--dimensions", 1, "-m", both, "-o", few, "--seed", 1).code == 0
    assert read_provenance(few)["request"]["basis"] == "model"
    code, out, err = unclip(*command, "--force", "-m", model)
    assert (code, out) == (1, "")
    assert "has no autoregressive prior, which generate needs: it has clip, prior, decoder, upsampler" in err


def test_grid_alone(unclip, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = ("generate", "a red apple", "-n", 3, "-m", model, "--seed", 1)
    assert unclip(*command, "--grid", "sheet.png") == (0, "sheet.png\n", "")
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]
    assert open_picture("sheet.png").size == (2 * 32 + 8, 2 * 32 + 8)
    assert "--force" in unclip(*command, "--grid", "sheet.png").err
    assert unclip(*command, "--grid", "sheet.jpg").code == 2


def test_grid_and_pictures(unclip, model, tmp_path):
    command = (
        "generate",
        "a red apple",
        "-n",
        2,
        "-m",
        model,
        "--seed",
        1,
        "--grid",
        tmp_path / "sheet.png",
    )
    code, out, _ = unclip(*command, "-o", tmp_path / "a.png", "--json")
    assert code == 0
    made = json.loads(out)
    assert made["path"] == str(tmp_path / "sheet.png")
    assert [Path(picture["path"]).name for picture in made["pictures"]] == ["a-1.png", "a-2.png"]
    assert (
        open_picture(made["path"]).crop((0, 0, 32, 32)).tobytes()
        == open_picture(tmp_path / "a-1.png").tobytes()
    )


def test_a_long_prompt_is_truncated_with_a_note(unclip, model, tmp_path):
    code, out, err = unclip("generate", "red " * 30, "-m", model, "-o", tmp_path / "a.png", "--seed", 1)
    assert (code, out) == (0, f"{tmp_path / 'a.png'}\n")
    (line,) = err.splitlines()
    assert line.startswith("unclip: note: the prompt 'red red")
    assert read_provenance(tmp_path / "a.png")["warnings"] == [line.removeprefix("unclip: note: ")]


def test_nothing_is_overwritten_without_force(unclip, model, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"precious")
    command = ("generate", "a red apple", "-m", model, "-o", path, "--seed", 1)
    code, out, err = unclip(*command)
    assert (code, out, path.read_bytes()) == (1, "", b"precious")
    assert "--force" in err
    assert unclip(*command, "--force").code == 0
    assert open_picture(path).size == (32, 32)


@pytest.mark.parametrize(
    ("argv", "code", "told"),
    [
        ((" ",), 2, "the prompt is empty"),
        ((), 2, "say what to draw"),
        (("a", "--prompts", "-"), 2, "either PROMPT or --prompts"),
        (("a", "red", "circle"), 2, "in quotes"),
        (("a", "--size", 20), 2, "16, 32 pixels"),
        (("a", "--size", 0), 2, "size is 0: give a number from 1"),
        (("a", "-n", "many"), 2, "not a whole number"),
        (("a", "-n", 0), 2, "n is 0: give a number from 1 to 10000"),
        (("a", "--steps", 2000), 2, "from 1 to 1000"),
        (("a", "--guidance", "nan"), 2, "nan is not a finite number"),
        (("a", "--seed", -1), 2, "out of range"),
        (("a", "--sampler", "magic"), 2, "choose from 'ddim', 'ddpm'"),
        (("a", "--guidance-interval", "1"), 2, "give 2, separated by commas"),
        (("a", "--prior", "magic"), 2, "autoregressive"),
        (("a", "--prior", "autoregressive"), 1, "has no autoregressive prior, which generate needs"),
        (("a", "--random", "diffusers", "--candidates", 2), 2, "set candidates to 1"),
        (("a", "--part", "prior"), 2, "NAME=MODEL"),
        (("a", "--device", "abacus"), 2, "cpu, cuda"),
        (("a", "--device", "cuda:99"), 2, "--device cpu always works"),
        (("a", "-o", "a.jpg"), 2, "PNG"),
        (("a", "-o", "/dev/null/x/"), 1, "give another -o"),
    ],
)
def test_bad_input(unclip, model, tmp_path, monkeypatch, argv, code, told):
    monkeypatch.chdir(tmp_path)
    outcome = unclip("generate", *argv, "-m", model)
    assert (outcome.code, outcome.out) == (code, "")
    assert told in outcome.err
    assert "Traceback" not in outcome.err
    assert list(tmp_path.iterdir()) == []


def test_missing_model(unclip, tmp_path):
    code, out, err = unclip("generate", "a", "-m", tmp_path / "nowhere", "-o", tmp_path / "a.png")
    assert (code, out) == (1, "")
    assert "nowhere" in err


def test_damaged_model(unclip, model, tmp_path):
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for file in model.iterdir():
        (damaged / file.name).write_bytes(file.read_bytes())
    (damaged / "decoder.safetensors").write_bytes(b"\0" * (model / "decoder.safetensors").stat().st_size)
    code, out, err = unclip("generate", "a", "-m", damaged, "-o", tmp_path / "a.png")
    assert (code, out) == (1, "")
    assert "decoder.safetensors" in err
    assert "damaged" in err


def test_interrupt_keeps_what_is_done(unclip, model, tmp_path, monkeypatch):
    from unclip.generate.image import Image

    save, saved = Image.save, []

    def save_and_interrupt(picture: Image, path: Path, *, force: bool) -> Path:
        saved.append(save(picture, path, force=force))
        raise KeyboardInterrupt

    monkeypatch.setattr(Image, "save", save_and_interrupt)
    code, _, err = unclip("generate", "a cat", "-m", model, "-n", 3, "-o", f"{tmp_path}/", "--seed", 1)
    assert (code, err) == (130, "unclip: interrupted\n")
    assert list(tmp_path.iterdir()) == saved


def test_redo_makes_the_same_picture(unclip, model, tmp_path):
    path = tmp_path / "a.png"
    unclip("generate", "a red apple", "-m", model, "-o", path, "--seed", 3, "--dtype", "bfloat16")
    again = tmp_path / "a-again.png"
    assert unclip("redo", path, "-m", model) == (0, f"{again}\n", "unclip: every pixel is the same\n")
    assert read_provenance(again) == read_provenance(path)
    code, out, err = unclip("redo", path, "-m", model)
    assert (code, out) == (1, "")
    assert "--force" in err


def test_redo_needs_the_model_of_the_provenance(unclip, model, tmp_path):
    unclip("generate", "a red apple", "-m", model, "-o", tmp_path / "a.png", "--seed", 3)
    code, out, err = unclip("redo", tmp_path / "a.png")
    assert (code, out) == (2, "")
    assert "'tiny'" in err
    assert "--model FOLDER" in err


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("A red Rocket, 3d style!", "a-red-rocket-3d-style"),
        ("crème brûlée", "creme-brulee"),
        ("../../etc/passwd", "etc-passwd"),
        ("🚀", "picture"),
        ("word " * 20, "word-word-word-word-word-word-word-word-word"),
        ("x" * 60, "x" * 48),
    ],
)
def test_file_names_from_prompts(prompt, name):
    assert slug(prompt) == name


def test_many_pictures_sort_by_number():
    paths = name_outputs("out.png", ["a"] * 12)
    assert [path.name for path in paths][:2] == ["out-01.png", "out-02.png"]
    assert paths == sorted(paths)
