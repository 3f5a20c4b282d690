"""The whole chain, end to end: CLIP, prior, decoder and upsampler learn, are joined, and draw what is asked for."""

import json
from pathlib import Path

import numpy as np
import pytest

import unclip
from unclip import recipes
from unclip.checkpoints.io import load_model, save_model
from unclip.config import override
from unclip.data.shapes import COLOURS
from unclip.train.loop import train

# A share of the recipe's own length, as far as the stages need it to have learned something.
SAMPLES = {"clip": 8_192, "prior": 6_144, "decoder": 6_144, "upsampler": 2_048}
STAGES = tuple(SAMPLES)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the four runs."""
    root = tmp_path_factory.mktemp("runs")
    for stage in STAGES:
        clip = [f"clip={root / 'clip'}"] if stage in ("prior", "decoder") else []
        changes = [f"out={root / stage}", f"samples={SAMPLES[stage]}", *clip]
        train(override(recipes.get("tiny", stage), changes), device="cpu")
    return root


def metrics(runs: Path, stage: str) -> list[dict[str, float]]:
    return [json.loads(line) for line in (runs / stage / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("stage", STAGES)
def test_the_loss_falls(runs, stage):
    losses = [line["loss"] for line in metrics(runs, stage) if "loss" in line]
    tenth = max(1, len(losses) // 10)
    assert np.mean(losses[-tenth:]) < 0.6 * np.mean(losses[:tenth])


def test_held_out_pictures_and_captions_find_each_other(runs):
    measured = metrics(runs, "clip")[-1]
    # Of 48 different captions in the validation set, guessing finds one in 48.
    assert measured["validation_text_to_image_recall_1"] > 0.5
    assert measured["validation_image_to_text_recall_1"] > 0.5


def test_the_prior_knows_more_than_the_text_embedding(runs):
    measured = metrics(runs, "prior")[-1]
    assert measured["validation_cosine_sampled_image"] > measured["validation_cosine_image_text"]


def test_pictures_have_the_colour_that_was_asked_for(runs, tmp_path):
    parts = {}
    for stage in STAGES:
        parts |= load_model(runs / stage / "model")
    tokenizer = (runs / "clip" / "model" / "tokenizer.json").read_text(encoding="utf-8")
    folder = save_model(tmp_path / "tiny", parts, name="tiny", tokenizer=tokenizer)
    model = unclip.load(folder, device="cpu")
    prompts = [f"a big {colour} {shape}" for colour in COLOURS for shape in ("square", "circle")]
    pictures = model.generate(prompts, seed=1, steps=12, prior_steps=8, upsampler_steps=3)
    assert {picture.image.size for picture in pictures} == {(32, 32)}
    right = [nearest_colour(picture) in prompt for picture, prompt in zip(pictures, prompts)]
    # Of 6 colours, guessing would get 2 of the 12 right, and 8 or more once in 10,000 times.
    assert sum(right) >= 8


def nearest_colour(picture: unclip.Image) -> str:
    """The colour word for what is drawn: the median of the pixels that are farther from white than from the other end."""
    pixels = np.asarray(picture.image, dtype=np.float64).reshape(-1, 3)
    distance = np.linalg.norm(pixels - 255, axis=1)
    colour = np.median(pixels[distance > distance.max() / 2], axis=0)
    return min(COLOURS, key=lambda name: float(((colour - np.array(COLOURS[name])) ** 2).sum()))
