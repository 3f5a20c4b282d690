"""Parts of different models on the command line: what Python can mix, and the provenance of such pictures."""

import json
import shutil


def test_parts_of_another_model_are_mixed_recorded_and_redone(unclip, tiny_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    other = shutil.copytree(tiny_folder, tmp_path / "other")
    manifest = json.loads((other / "model.json").read_text())
    (other / "model.json").write_text(json.dumps({**manifest, "name": "other"}))
    made = unclip(
        "generate",
        "a red apple",
        "-m",
        tiny_folder,
        "--part",
        f"prior={other}",
        "--seed",
        3,
        "-o",
        "a.png",
        "--json",
    )
    assert made.code == 0, made.err
    (provenance,) = json.loads(made.out)
    assert (provenance["model"], provenance["parts"]) == ("tiny + other", {"prior": "other"})

    lost = unclip("redo", "a.png")
    assert (lost.code, "--model FOLDER" in lost.err) == (2, True)
    unmixed = unclip(
        "redo", "a.png", "-m", tiny_folder, "--part", f"clip={other}", "--part", f"prior={other}"
    )
    assert "digest" in unmixed.err
    again = unclip("redo", "a.png", "-m", tiny_folder, "--part", f"prior={other}", "--json")
    assert again.code == 0, again.err
    assert json.loads(again.out)["identical"] is True


def test_a_part_is_a_name_and_a_model(unclip):
    wrong = unclip("generate", "a", "--part", "prior")
    assert (wrong.code, "NAME=MODEL" in wrong.err) == (2, True)


def test_what_is_named_twice_is_refused(unclip, tiny_folder):
    """Of two values for one name the first was lost without a word."""
    for option, name, values in (
        ("--part", "prior", ("prior=x", "prior=y")),
        ("--adapter", "x", ("x:0.5", "x")),
    ):
        made = unclip("generate", "a", "-m", tiny_folder, option, values[0], option, values[1])
        assert (made.code, f"{name} is given twice" in made.err) == (2, True), made.err
