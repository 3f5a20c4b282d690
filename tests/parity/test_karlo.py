"""Karlo from end to end against diffusers' pipelines, from the same latents and noise: a seed gives the same picture.

diffusers keeps its noise tables in float32, where the last step multiplies by 1.0015: as it is it may differ by 2e-3. With
the same betas and its own arithmetic on them in float64 it must agree to 1e-5. The first step multiplies by 20,000 what
a network leaves of its input, and clips: with random weights, a pixel that falls in between is left to chance. The seeds
here have none.
"""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import unclip
from unclip import Model

# diffusers hands a torch tensor to np.array, which numpy 2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

STEPS = {"prior_steps": 4, "steps": 4, "upsampler_steps": 3}
THEIR_STEPS = {"decoder_num_inference_steps": 4, "super_res_num_inference_steps": 3}


class Last:
    """Keeps the pictures of the last step, in [-1, 1]: files have whole numbers only."""

    def __call__(self, progress) -> None:
        self.pixels = progress.x0


@pytest.fixture(scope="module")
def system(karlo_folder) -> Model:
    return unclip.load(karlo_folder, device="cpu")


def ours(system: Model, prompt: str, **given) -> Tensor:
    last = Last()
    system.generate(prompt, on_progress=last, **{"random": "diffusers"} | STEPS | given)
    return last.pixels


def theirs(pipeline, prompt: str, seed: int, **given) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    images = pipeline(
        prompt, prior_num_inference_steps=4, generator=generator, output_type="np", **THEIR_STEPS | given
    ).images
    return torch.from_numpy(images).permute(0, 3, 1, 2) * 2 - 1


@pytest.mark.parametrize("seed", [0, 5])
def test_text_to_picture_as_diffusers_is(system, karlo_pipeline, seed):
    prompt = "a red cat"
    expected = theirs(karlo_pipeline, prompt, seed)
    actual = ours(system, prompt, seed=seed).clamp(-1, 1)
    assert expected.std() > 0.1
    assert (actual - expected).abs().max() < 2e-3
    assert (ours(system, prompt, seed=seed + 1).clamp(-1, 1) - expected).abs().max() > 0.1


def test_text_to_picture_with_the_same_tables(system, karlo_pipeline, lifted):
    with lifted(karlo_pipeline, ["prior_scheduler", "decoder_scheduler", "super_res_scheduler"]):
        expected = theirs(karlo_pipeline, "a red cat", 5)
    actual = ours(system, "a red cat", seed=5).clamp(-1, 1)
    assert (actual - expected).abs().max() < 1e-5


def test_a_seed_gives_the_same_file(system, karlo_pipeline):
    generator = torch.Generator().manual_seed(5)
    (expected,) = karlo_pipeline(
        "a red cat", prior_num_inference_steps=4, generator=generator, **THEIR_STEPS
    ).images
    (actual,) = system.generate("a red cat", seed=5, random="diffusers", **STEPS)
    apart = np.abs(np.asarray(actual.image, dtype=int) - np.asarray(expected, dtype=int))
    # A value that lies between two whole numbers may be rounded either way.
    assert apart.max() <= 1
    assert (apart > 0).mean() < 0.2


def test_several_pictures_have_their_own_generators_there(system, karlo_pipeline, lifted):
    """diffusers takes one for each picture of a batch: here every picture has its own seed."""
    prompts, drawn = ["a red cat", "a dog"], []
    made = system.generate(
        prompts,
        n=1,
        seed=5,
        random="diffusers",
        batch_size=2,
        on_progress=lambda at: drawn.append(at.x0),
        **STEPS,
    )
    generators = [torch.Generator().manual_seed(picture.seed) for picture in made]
    with lifted(karlo_pipeline, ["prior_scheduler", "decoder_scheduler", "super_res_scheduler"]):
        images = karlo_pipeline(
            prompts, prior_num_inference_steps=4, generator=generators, output_type="np", **THEIR_STEPS
        ).images
    expected = torch.from_numpy(images).permute(0, 3, 1, 2) * 2 - 1
    assert (expected[0] - expected[1]).abs().max() > 0.1
    assert (drawn[-1].clamp(-1, 1) - expected).abs().max() < 1e-5


@pytest.mark.parametrize("same_tables", [False, True])
@pytest.mark.parametrize("size", [(16, 16), (50, 33), (32, 48)])
def test_variations(variation_folder, variation_pipeline, lifted, same_tables, size):
    """Of pictures of any form: CLIP's processor resizes them before it crops."""
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    generator = torch.Generator().manual_seed(3)
    names = ["decoder_scheduler", "super_res_scheduler"] if same_tables else []
    with lifted(variation_pipeline, names):
        expected = variation_pipeline(picture, generator=generator, output_type="np", **THEIR_STEPS).images
    expected = torch.from_numpy(expected).permute(0, 3, 1, 2) * 2 - 1
    system, last = unclip.load(variation_folder, device="cpu"), Last()
    knobs = {name: STEPS[name] for name in ("steps", "upsampler_steps")}
    system.vary(picture, n=1, seed=3, random="diffusers", on_progress=last, **knobs)
    assert (last.pixels.clamp(-1, 1) - expected).abs().max() < (1e-5 if same_tables else 2e-3)


def test_several_prompts_and_the_best_of_several_embeddings(system):
    """One call draws what single calls with the recorded seeds draw; the first of the candidates is the only one's."""
    together = system.generate(["a red cat", "a dog"], n=2, seed=3, candidates=3, **STEPS)
    assert [picture.provenance["request"]["prompt"] for picture in together] == ["a red cat"] * 2 + [
        "a dog"
    ] * 2
    for picture in together[1:3]:
        given = picture.provenance["request"]["prompt"], picture.seed
        (alone,) = system.generate(given[0], seed=given[1], candidates=3, **STEPS)
        assert alone.image.tobytes() == picture.image.tobytes()
    text = system.embed_text("a red cat")
    nearness = [
        torch.cosine_similarity(
            system.generate("a red cat", seed=3, candidates=count, **STEPS)[0].embedding[None], text
        )
        for count in (1, 6)
    ]
    assert nearness[1] > nearness[0]


def test_a_prompt_beyond_what_the_tower_reads_is_told(system):
    (picture,) = system.generate("cat " * 15, seed=1, **STEPS)
    (warning,) = picture.warnings
    assert "has 15 tokens, the model reads the first 11" in warning
    assert picture.provenance["warnings"] == [warning]


def test_one_step_works(system):
    """diffusers divides by zero (its issue 14586)."""
    pixels = ours(system, "a cat", seed=1, prior_steps=1, steps=1, upsampler_steps=1)
    assert pixels.isfinite().all()
    assert pixels.shape == (1, 3, 32, 32)


def test_a_negative_prompt_takes_the_place_of_the_empty_one(system, karlo_pipeline, lifted, monkeypatch):
    """Of the one that diffusers leads away from, in the prior and in the decoder: there it is always empty."""
    plain = ours(system, "a red cat", seed=5)
    assert torch.equal(ours(system, "a red cat", seed=5, negative="  "), plain)
    actual = ours(system, "a red cat", seed=5, negative="a dog")
    assert (actual - plain).abs().max() > 1e-2
    kind = type(karlo_pipeline.tokenizer)
    read = kind.__call__

    def with_negative(tokenizer, text, **given):
        return read(tokenizer, ["a dog"] if text == [""] else text, **given)

    monkeypatch.setattr(kind, "__call__", with_negative)
    with lifted(karlo_pipeline, ["prior_scheduler", "decoder_scheduler", "super_res_scheduler"]):
        expected = theirs(karlo_pipeline, "a red cat", 5)
    assert (actual.clamp(-1, 1) - expected).abs().max() < 1e-5


def test_an_exclamation_mark_is_read(system, karlo_pipeline):
    """Karlo's folder pads with "!", and its tokenizer then takes the prompt's own for padding."""
    tokens = system.parts.tokenizer.encode(["a cat!"])[0]
    names = system.parts.tokenizer.backend.token_to_id("!</w>")
    assert names in tokens.tolist()
    assert names not in karlo_pipeline.tokenizer("a cat!").input_ids


def test_random_is_what_makes_seeds_agree(system, karlo_pipeline):
    expected = theirs(karlo_pipeline, "a cat", 5)
    assert (ours(system, "a cat", seed=5, random=None).clamp(-1, 1) - expected).abs().max() > 0.1


def test_guidance_of_one_is_the_caption_alone(system, karlo_pipeline):
    expected = theirs(karlo_pipeline, "a cat", 7, prior_guidance_scale=1.0, decoder_guidance_scale=1.0)
    actual = ours(system, "a cat", seed=7, prior_guidance=1.0, guidance=1.0)
    assert (actual.clamp(-1, 1) - expected).abs().max() < 2e-3
