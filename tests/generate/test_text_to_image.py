"""Text to picture: the seed contract, recipes that make the picture again, knobs that matter, progress, damage."""

import json
import subprocess
import sys
import warnings

import pytest
import torch

import unclip
from unclip.errors import ModelError
from unclip.generate.picture import Picture, readable
from unclip.generate.settings import Settings, seed_of
from unclip.generate.stages import PromptTruncated, choose, sample_prior
from unclip.generate.system import System
from unclip.generate.text_to_image import generate_each

PROMPT = "a red apple"


def same(a: Picture, b: Picture) -> bool:
    return a.image.tobytes() == b.image.tobytes()


def test_a_picture_depends_on_its_recorded_seed_only(either_system):
    four = either_system.generate(PROMPT, n=4, seed=7)
    assert [picture.image.size for picture in four] == [(32, 32)] * 4
    assert four[0].seed == 7
    assert len({picture.image.tobytes() for picture in four}) == 4
    for picture in four:
        assert 0 <= picture.seed < 2**32
        alone = either_system.generate(PROMPT, seed=picture.seed)
        assert same(alone[0], picture)
        assert torch.equal(alone[0].embedding, picture.embedding)
    # The same in a list of prompts.
    mixed = either_system.generate(["a blue cat", PROMPT], n=2, seed=7)
    assert [picture.recipe["prompt"] for picture in mixed] == ["a blue cat"] * 2 + [PROMPT] * 2
    assert same(either_system.generate(PROMPT, seed=mixed[3].seed)[0], mixed[3])


def test_larger_batches_change_rounding_only(either_system):
    alone = either_system.generate(PROMPT, n=3, seed=7, negative="flat style")
    together = either_system.generate(PROMPT, n=3, seed=7, negative="flat style", batch_size=2)
    for a, b in zip(alone, together):
        difference = torch.tensor(list(a.image.tobytes())) - torch.tensor(list(b.image.tobytes()))
        assert difference.abs().max() <= 1


def test_a_recipe_makes_the_picture_again_in_another_process_of_it(tiny_system, tiny_folder, tmp_path):
    for knobs in (
        {},
        {"size": 16, "steps": 4, "guidance": 1.0, "sampler": "ancestral", "negative": "flat style"},
    ):
        picture = tiny_system.generate(PROMPT, seed=3, **knobs)[0]
        path = picture.save(tmp_path / f"{len(knobs)}.png")
        opened = Picture.open(path)
        assert opened.recipe == picture.recipe == json.loads(json.dumps(picture.recipe))
        assert same(opened, picture)
        assert same(System.load(tiny_folder, device="cpu").redo(opened.recipe), picture)


def test_a_recipe_of_another_model_is_refused_unless_allowed(tiny_system):
    picture = tiny_system.generate(PROMPT, seed=3)[0]
    other = {**picture.recipe, "weights": "0123456789ab"}
    with pytest.raises(ValueError, match="weights 0123456789ab, this is 'tiny'"):
        tiny_system.redo(other)
    assert same(tiny_system.redo(other, any_weights=True), picture)
    with pytest.raises(ValueError, match="format 99"):
        tiny_system.redo({**picture.recipe, "recipe": 99})
    with pytest.raises(ValueError, match="prior: 'magic' is not one of 'diffusion'"):
        tiny_system.redo({**picture.recipe, "prior": "magic"})
    with pytest.raises(ValueError, match="of 'vary'"):
        tiny_system.redo({**picture.recipe, "operation": "vary"})


@pytest.mark.parametrize(
    "knob",
    [
        {"steps": 4},
        {"prior_steps": 4},
        {"upsampler_steps": 3},
        {"guidance": 3.0},
        {"prior_guidance": 3.0},
        {"candidates": 64},
        {"sampler": "euler"},
        {"negative": "a blue cat"},
        {"prior": "text"},
        {"prior": "none"},
    ],
)
def test_every_knob_changes_the_picture_and_is_recorded(tiny_system, knob):
    plain, turned = (tiny_system.generate(PROMPT, seed=5, **extra)[0] for extra in ({}, knob))
    assert not same(plain, turned)
    assert turned.recipe.items() >= knob.items()


def test_guidance_is_limited_to_its_interval(tiny_system):
    def make(**settings):
        return next(
            iter(
                generate_each(
                    tiny_system, [PROMPT], settings=tiny_system.defaults.with_given(**settings), seed=1
                )
            )
        )

    unguided = make(guidance=1.0)
    assert same(make(guidance=5.0, guidance_interval=(1e8, 1e9)), unguided)
    assert not same(make(guidance=5.0, guidance_interval=(0.0, 1e9)), unguided)
    assert same(make(guidance=5.0, guidance_interval=(0.0, 1e9)), make(guidance=5.0))
    assert make(guidance_interval=(0.5, 3.0)).recipe["guidance_interval"] == [0.5, 3.0]


def test_the_chosen_candidate_is_the_nearest_to_the_caption(tiny_system):
    from unclip.generate.stages import read_captions

    captions = read_captions(
        tiny_system.clip, tiny_system.tokenizer, ["a red apple", "a blue cat"], torch.device("cpu")
    )
    prior = tiny_system.prior
    with torch.no_grad():
        steps = sample_prior(prior, captions, [1, 2], candidates=3, steps=3, sampler="dpmpp_2m", guidance=1.0)
        samples = [step.x for step in steps][-1]
        chosen = choose(prior, samples, captions, unit=True)
        first = [
            step.x
            for step in sample_prior(
                prior, captions, [1, 2], candidates=1, steps=3, sampler="dpmpp_2m", guidance=1.0
            )
        ][-1]
    assert samples.shape == (6, 16)
    # More candidates leave the first ones as they were.
    torch.testing.assert_close(samples[[0, 3]], first)
    scores = (
        torch.nn.functional.normalize(samples, dim=1).reshape(2, 3, 16)
        @ captions.encoding.embedding[..., None]
    )
    assert torch.allclose((chosen * captions.encoding.embedding).sum(1), scores.squeeze(-1).amax(1))
    assert torch.allclose(chosen.norm(dim=1), torch.ones(2))


def test_only_sizes_that_the_parts_make(tiny_system):
    assert tiny_system.sizes == [16, 32]
    small = tiny_system.generate(PROMPT, seed=1, size=16)[0]
    assert small.image.size == (16, 16)
    assert small.recipe["size"] == 16
    with pytest.raises(ValueError, match="makes pictures of 16, 32 pixels, not 64"):
        tiny_system.generate(PROMPT, size=64)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"prompt": "  "}, "prompt is empty"),
        ({"prompt": []}, "prompt is empty"),
        ({"n": 0}, "0 pictures were asked for"),
        ({"seed": -1}, "seed -1 is outside"),
        ({"seed": 2**63}, "outside"),
        ({"steps": 0}, "steps is 0: give a number from 1"),
        ({"candidates": 0}, "candidates is 0"),
        ({"guidance": float("nan")}, "guidance is nan"),
        ({"sampler": "magic"}, "'magic' is not one of euler, "),
        ({"batch_size": 0}, "batch_size is 0"),
    ],
)
def test_senseless_orders_are_refused(tiny_system, given, message):
    with pytest.raises(ValueError, match=message):
        tiny_system.generate(**{"prompt": "a cat", **given})


def test_a_prompt_that_is_too_long_is_cut_and_told(tiny_system):
    with pytest.warns(PromptTruncated, match="tokens, the model reads the first 6"):
        picture = tiny_system.generate("a red apple " * 9, seed=1, size=16)[0]
    assert picture.recipe["prompt_truncated"] is True
    assert picture.recipe["prompt"] == "a red apple " * 9
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert same(tiny_system.redo(picture.recipe), picture)
    assert "prompt_truncated" not in tiny_system.generate(PROMPT, seed=1, size=16)[0].recipe


def test_progress_tells_every_step_and_shows_previews(tiny_system):
    events = []
    pictures = tiny_system.generate(
        PROMPT, n=2, seed=1, callback=lambda event: events.append((event, event.previews()))
    )
    stages = [(event.stage, event.step, event.total, event.first) for event, _ in events]
    one = [("prior", i + 1, 3) for i in range(3)] + [("decoder", i + 1, 3) for i in range(3)]
    one += [("upsampler", i + 1, 2) for i in range(2)]
    assert stages == [(*stage, first) for first in (0, 1) for stage in one]
    fractions = [event.fraction for event, _ in events]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1
    assert {event.pictures for event, _ in events} == {2}
    sizes = [[preview.size for preview in previews] for _, previews in events[:8]]
    assert sizes == [[]] * 3 + [[(16, 16)]] * 3 + [[(32, 32)]] * 2
    # The last preview is the picture.
    assert events[-1][1][0].tobytes() == pictures[-1].image.tobytes()


def test_a_call_ends_within_one_step_when_asked(tiny_system):
    seen = []

    def stop(event):
        seen.append(event)
        if len(seen) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tiny_system.generate(PROMPT, n=5, seed=1, callback=stop)
    assert len(seen) == 4
    # Nothing of it is left behind.
    assert same(tiny_system.generate(PROMPT, seed=1)[0], tiny_system.generate(PROMPT, seed=1)[0])
    assert not torch.is_inference_mode_enabled()


def test_pictures_come_one_by_one_without_keeping_inference_mode(tiny_system):
    each = generate_each(tiny_system, [PROMPT], settings=tiny_system.defaults, n=3, seed=7)
    first = next(each)
    assert not torch.is_inference_mode_enabled()
    assert same(first, tiny_system.generate(PROMPT, seed=7)[0])
    each.close()


def test_a_drawn_seed_is_recorded(tiny_system):
    first, second = (tiny_system.generate(PROMPT, size=16)[0] for _ in range(2))
    assert first.seed != second.seed
    assert same(tiny_system.generate(PROMPT, size=16, seed=first.seed)[0], first)


def test_seeds_of_a_call():
    assert seed_of(7, 0) == 7
    assert len({seed_of(7, k) for k in range(1000)}) == 1000
    assert max(seed_of(7, k) for k in range(1000)) < 2**32


def test_bfloat16_draws_nearly_the_same(tiny_folder, tiny_system):
    half = System.load(tiny_folder, device="cpu", dtype="bfloat16")
    a, b = half.generate(PROMPT, seed=2)[0], tiny_system.generate(PROMPT, seed=2)[0]
    difference = (torch.tensor(list(a.image.tobytes())) - torch.tensor(list(b.image.tobytes()))).abs().float()
    assert 0 < difference.mean() < 12
    assert a.recipe["dtype"] == "bfloat16"
    with pytest.raises(ValueError, match=r"float16 is not one of float32, bfloat16"):
        System.load(tiny_folder, dtype="float16")


def test_parts_are_loaded_when_needed(tiny_folder):
    system = System.load(tiny_folder, device="cpu", check=True)
    assert system._parts == {}
    system.embed_text(PROMPT)
    assert set(system._parts) == {"clip"}
    with pytest.raises(ValueError, match="has no vae: it has clip, prior, decoder, upsampler"):
        system.part("vae", torch.nn.Module)
    with pytest.raises(ValueError, match="is a Clip, not a Linear"):
        system.part("clip", torch.nn.Linear)


def test_drawing_loads_nothing_that_it_does_not_need(tiny_folder):
    # Torch's compiler alone would cost a second.
    unneeded = (
        "torch._dynamo",
        "transformers",
        "diffusers",
        "scipy",
        "pandas",
        "unclip.data",
        "unclip.train",
    )
    program = (
        f"import sys, unclip; unclip.load({str(tiny_folder)!r}, device='cpu').generate('a cat', seed=1);"
        f"print(*[name for name in sys.modules if name in {unneeded!r}])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.split() == []


def test_a_system_in_memory_is_the_same_as_on_disk(tiny_system):
    parts = {
        name: tiny_system.part(name, torch.nn.Module) for name in ("clip", "prior", "decoder", "upsampler")
    }
    parts["decoder"].train()
    memory = System.of(parts, tiny_system.tokenizer, defaults=tiny_system.defaults)
    assert same(memory.generate(PROMPT, seed=9)[0], tiny_system.generate(PROMPT, seed=9)[0])
    assert not parts["decoder"].training


def test_embeddings_are_unit_vectors_and_independent_of_company(tiny_system, tmp_path):
    text = tiny_system.embed_text(["a red apple", "a blue cat"])
    assert torch.allclose(text.norm(dim=1), torch.ones(2))
    assert torch.equal(tiny_system.embed_text("a blue cat")[0], text[1])
    pictures = tiny_system.generate(PROMPT, n=2, seed=1)
    image = tiny_system.embed_image(pictures)
    assert image.shape == (2, 16)
    assert torch.equal(tiny_system.embed_image(pictures[1].image)[0], image[1])
    file = pictures[1].save(tmp_path / "cat.png")
    assert torch.equal(tiny_system.embed_image([file, str(file)])[0], image[1])
    assert torch.equal(tiny_system.embed_image(file.read_bytes())[0], image[1])
    assert not image.is_inference()


def test_damage_is_told_before_anything_is_drawn(tiny_folder, tmp_path):
    import shutil

    copy = shutil.copytree(tiny_folder, tmp_path / "copy")
    file = copy / "decoder.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(ModelError, match=r"decoder\.safetensors has SHA-256"):
        System.load(copy, check=True)
    file.write_bytes(data[:-9])
    with pytest.raises(ModelError, match=r"decoder\.safetensors has \d+ bytes instead"):
        System.load(copy)
    with pytest.raises(FileNotFoundError, match="there is no model 'artwrok'"):
        unclip.load("artwrok")


def test_the_readable_recipe(tiny_system):
    picture = tiny_system.generate(PROMPT, seed=3, negative="flat style")[0]
    first, second, third = picture.parameters.split("\n")
    assert first == PROMPT
    assert second == "Negative prompt: flat style"
    assert third.startswith("Steps: 3, Sampler: dpmpp_2m, CFG scale: 2.0, Seed: 3, Size: 32x32, Model hash: ")
    assert third.endswith(f"Version: unclip {unclip.__version__}")
    assert "Prior steps: 3" in third
    assert readable({"seed": 1}) == "Seed: 1, Version: unclip None"
    assert picture._repr_png_() == picture.png()


def test_settings_come_from_the_model_and_keep_to_their_ranges(tiny_system):
    assert tiny_system.defaults.steps == 3
    assert tiny_system.defaults.with_given(steps=None, guidance=4.0) == Settings(
        steps=3, prior_steps=3, upsampler_steps=2, guidance=4.0
    )
