"""`unclip generate` and `unclip redo` on a real, barely trained model: streams, names, seeds, and every bad input."""

import io
import json
from pathlib import Path

import pytest
from unclip.cli.drawing import name_outputs, slug

from unclip.images import open_picture, read_recipe


def test_writes_a_picture_and_prints_its_path(unclip, model, tmp_path):
    path = tmp_path / "new folder" / "a.png"
    assert unclip("generate", "a red circle", "-m", model, "-o", path, "--seed", 3) == (0, f"{path}\n", "")
    assert open_picture(path).size == (32, 32)
    recipe = read_recipe(path)
    assert (recipe["prompt"], recipe["seed"], recipe["model"]) == ("a red circle", 3, "tiny")


def test_options_reach_the_recipe(unclip, model, tmp_path):
    options = {
        "size": 16, "steps": 1, "guidance": 1.5, "sampler": "euler", "prior_steps": 1, "prior_guidance": 2.0,
        "candidates": 3, "upsampler_steps": 1, "negative": "blue", "dtype": "bfloat16", "device": "cpu",
    }  # fmt: skip
    argv = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", value)]
    code, out, _ = unclip("generate", "a red circle", "-m", model, "-o", tmp_path / "a.png", "--json", *argv)
    assert code == 0
    (made,) = json.loads(out)
    assert {name: made[name] for name in options} == options


def test_drawn_seed_is_told_and_repeats_the_picture(unclip, model, tmp_path):
    code, _, err = unclip("generate", "a red circle", "-m", model, "-o", tmp_path / "a.png")
    seed = read_recipe(tmp_path / "a.png")["seed"]
    assert code == 0
    assert f"seed {seed} was drawn" in err
    unclip("generate", "a red circle", "-m", model, "-o", tmp_path / "b.png", "--seed", seed)
    assert open_picture(tmp_path / "a.png").tobytes() == open_picture(tmp_path / "b.png").tobytes()


def test_each_of_several_pictures_can_be_drawn_alone(unclip, model, tmp_path):
    common = ("generate", "a red circle", "-m", model, "-o", f"{tmp_path}/")
    code, out, _ = unclip(*common, "-n", 2, "--seed", 7)
    assert code == 0
    first, second = map(Path, out.split())
    assert first.name == "a-red-circle-7.png"
    alone = tmp_path / "alone.png"
    unclip(*common[:-1], alone, "--seed", read_recipe(second)["seed"])
    assert open_picture(alone).tobytes() == open_picture(second).tobytes()
    assert open_picture(first).tobytes() != open_picture(second).tobytes()


def test_prompts_from_stdin(unclip, model, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("a red circle\n\n  a blue square  \n"))
    code, out, _ = unclip("generate", "--prompts", "-", "-m", model, "-o", tmp_path / "a.png", "--seed", 1)
    assert code == 0
    assert [read_recipe(path)["prompt"] for path in out.split()] == ["a red circle", "a blue square"]
    assert [Path(path).name for path in out.split()] == ["a-1.png", "a-2.png"]


def test_the_autoregressive_prior_is_trained_packed_and_asked_for_by_name(unclip, model, tmp_path):
    runs, run, both = model.parent, tmp_path / "run", tmp_path / "both"
    given = ("--recipe", "tiny", "--clip", runs / "clip", "--set", "samples=32")
    assert unclip("train", "prior_autoregressive", "--out", run, *given).code == 0
    stages = [runs / stage for stage in ("clip", "prior", "decoder", "upsampler")]
    assert (
        unclip("bundle", *stages, run, "-o", both, "--set", "steps=2", "--set", "upsampler_steps=1").code == 0
    )
    path, again = tmp_path / "a.png", tmp_path / "again.png"
    command = ("generate", "a red circle", "--prior", "autoregressive", "-o", path, "--seed", 1)
    assert unclip(*command, "-m", both) == (0, f"{path}\n", "")
    assert read_recipe(path)["prior"] == "autoregressive"
    assert unclip("redo", path, "-m", both, "-o", again).err == "unclip: every pixel is the same\n"
    # Its principal components are kept with it, for all who ask for pictures of the first of them.
    few = tmp_path / "few.png"
    assert unclip("reconstruct", path, "--dimensions", 1, "-m", both, "-o", few, "--seed", 1).code == 0
    assert read_recipe(few)["basis"] == "model"
    code, out, err = unclip(*command, "--force", "-m", model)
    assert (code, out) == (1, "")
    assert "has no prior_autoregressive: it has clip, prior, decoder, upsampler" in err


def test_grid_alone(unclip, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = ("generate", "a red circle", "-n", 3, "-m", model, "--seed", 1)
    assert unclip(*command, "--grid", "sheet.png") == (0, "sheet.png\n", "")
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]
    assert open_picture("sheet.png").size == (2 * 32 + 8, 2 * 32 + 8)
    assert "--force" in unclip(*command, "--grid", "sheet.png").err
    assert unclip(*command, "--grid", "sheet.jpg").code == 2


def test_grid_and_pictures(unclip, model, tmp_path):
    command = (
        "generate",
        "a red circle",
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


def test_long_prompt_is_cut_and_told(unclip, model, tmp_path):
    code, out, err = unclip("generate", "red " * 30, "-m", model, "-o", tmp_path / "a.png", "--seed", 1)
    assert (code, out) == (0, f"{tmp_path / 'a.png'}\n")
    assert "unclip: note: the prompt" in err
    assert read_recipe(tmp_path / "a.png")["prompt_truncated"] is True


def test_nothing_is_overwritten_without_force(unclip, model, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"precious")
    command = ("generate", "a red circle", "-m", model, "-o", path, "--seed", 1)
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
        (("a", "--size", 0), 2, "at least 1"),
        (("a", "-n", "many"), 2, "not a whole number"),
        (("a", "--steps", 2000), 2, "from 1 to 1000"),
        (("a", "--guidance", "nan"), 2, "out of range"),
        (("a", "--seed", -1), 2, "out of range"),
        (("a", "--sampler", "magic"), 2, "euler"),
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
    from unclip.generate.picture import Picture

    save, saved = Picture.save, []

    def save_and_interrupt(picture: Picture, path: Path, *, force: bool) -> Path:
        saved.append(save(picture, path, force=force))
        raise KeyboardInterrupt

    monkeypatch.setattr(Picture, "save", save_and_interrupt)
    code, _, err = unclip("generate", "a", "-m", model, "-n", 3, "-o", f"{tmp_path}/", "--seed", 1)
    assert (code, err) == (130, "unclip: interrupted\n")
    assert list(tmp_path.iterdir()) == saved


def test_redo_makes_the_same_picture(unclip, model, tmp_path):
    path = tmp_path / "a.png"
    unclip("generate", "a red circle", "-m", model, "-o", path, "--seed", 3, "--dtype", "bfloat16")
    again = tmp_path / "a-again.png"
    assert unclip("redo", path, "-m", model) == (0, f"{again}\n", "unclip: every pixel is the same\n")
    assert read_recipe(again) == read_recipe(path)
    code, out, err = unclip("redo", path, "-m", model)
    assert (code, out) == (1, "")
    assert "--force" in err


def test_redo_needs_the_model_of_the_recipe(unclip, model, tmp_path):
    unclip("generate", "a red circle", "-m", model, "-o", tmp_path / "a.png", "--seed", 3)
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
