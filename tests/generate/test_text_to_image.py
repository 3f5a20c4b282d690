"""Text to image: the seed contract, provenance that makes the picture again, settings that matter, progress, damage."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn.functional import normalize

import unclip
from unclip.errors import Cancelled, ModelError, RequestError, Unsupported
from unclip.generate.image import Image, Images, readable
from unclip.generate.model import Model
from unclip.generate.operations import Generate
from unclip.generate.parts import Parts
from unclip.generate.session import picture_seed
from unclip.nn.precision import Speeds
from unclip.stages.noise import Seeds
from unclip.stages.prior import choose, prior_condition, sample_diffusion_prior
from unclip.stages.sampling import DEFAULTS, DecoderSampling, Sampling, sampling
from unclip.stages.text import read_captions

PROMPT = "a red apple"


def same(a: Image, b: Image) -> bool:
    return a.image.tobytes() == b.image.tobytes()


def used(picture: Image) -> dict:
    """Sampling settings that a picture records."""
    return picture.provenance["request"]["sampling"]


def test_a_picture_depends_on_its_recorded_seed_only(either_model):
    four = either_model.generate(PROMPT, n=4, seed=7)
    assert [picture.image.size for picture in four] == [(32, 32)] * 4
    assert four[0].seed == 7
    assert len({picture.image.tobytes() for picture in four}) == 4
    for picture in four:
        assert 0 <= picture.seed < 2**32
        alone = either_model.generate(PROMPT, seed=picture.seed)
        assert same(alone[0], picture)
        assert torch.equal(alone[0].embedding, picture.embedding)
    # The same in a list of prompts.
    mixed = either_model.generate(["a blue cat", PROMPT], n=2, seed=7)
    prompts = [picture.provenance["request"]["prompt"] for picture in mixed]
    assert prompts == ["a blue cat"] * 2 + [PROMPT] * 2
    assert same(either_model.generate(PROMPT, seed=mixed[3].seed)[0], mixed[3])


def test_larger_batches_change_rounding_only(either_model):
    alone = either_model.generate(PROMPT, n=3, seed=7, negative="flat style")
    together = either_model.generate(PROMPT, n=3, seed=7, negative="flat style", batch_size=2)
    for a, b in zip(alone, together):
        difference = torch.tensor(list(a.image.tobytes())) - torch.tensor(list(b.image.tobytes()))
        assert difference.abs().max() <= 1


def test_provenance_makes_the_picture_again_in_a_fresh_model(tiny_model, tiny_folder, tmp_path):
    for settings in (
        {},
        {"size": 16, "steps": 4, "guidance": 1.0, "sampler": "ddpm", "negative": "flat style"},
    ):
        picture = tiny_model.generate(PROMPT, seed=3, **settings)[0]
        path = picture.save(tmp_path / f"{len(settings)}.png")
        opened = Image.open(path)
        assert opened.provenance == picture.provenance == json.loads(json.dumps(picture.provenance))
        assert same(opened, picture)
        again = Model.load(tiny_folder, device="cpu").redo(opened.provenance)
        assert same(again, picture)
        assert again.provenance == picture.provenance


def test_provenance_of_another_model_is_refused_unless_allowed(tiny_model):
    picture = tiny_model.generate(PROMPT, seed=3)[0]
    other = {**picture.provenance, "digest": "0123456789ab"}
    with pytest.raises(RequestError, match="digest 0123456789ab, this is 'tiny'"):
        tiny_model.redo(other)
    assert same(tiny_model.redo(other, any_weights=True), picture)


@pytest.mark.parametrize(
    ("setting", "recorded"),
    [
        ({"steps": 4}, {"decoder": {"steps": 4}}),
        ({"prior_steps": 4}, {"prior": {"steps": 4}}),
        ({"upsampler_steps": 3}, {"upsamplers": [{"steps": 3}]}),
        ({"guidance": 3.0}, {"decoder": {"guidance": 3.0}}),
        ({"prior_guidance": 3.0}, {"prior": {"guidance": 3.0}}),
        ({"candidates": 64}, {"prior": {"candidates": 64}}),
        ({"sampler": "ddim"}, {"decoder": {"sampler": "ddim"}}),
        ({"sampler": "euler"}, {"decoder": {"sampler": "euler"}}),
        ({"upsampler_sampler": "ddpm"}, {"upsamplers": [{"sampler": "ddpm"}]}),
        ({"negative": "a blue cat"}, {}),
        ({"prior": "text"}, {"prior": {"kind": "text"}}),
        ({"prior": "none"}, {"prior": {"kind": "none"}}),
    ],
)
def test_every_setting_changes_the_picture_and_is_recorded(tiny_model, setting, recorded):
    plain, changed = (tiny_model.generate(PROMPT, seed=5, **extra)[0] for extra in ({}, setting))
    assert not same(plain, changed)
    found = used(changed)
    for stage in ("prior", "decoder"):
        assert found[stage].items() >= recorded.get(stage, {}).items()
    for given, entry in zip(recorded.get("upsamplers", []), found["upsamplers"], strict=False):
        assert entry.items() >= given.items()
    if "negative" in setting:
        assert changed.provenance["request"]["negative"] == setting["negative"]


def test_nested_sampling_and_short_names_are_the_same_and_short_names_win(tiny_model):
    short = tiny_model.generate(PROMPT, seed=5, steps=4, guidance=3.0)[0]
    nested = Sampling(decoder=DecoderSampling(steps=4, guidance=3.0))
    for options in (
        {"sampling": nested},
        {"sampling": {"decoder": {"steps": 4, "guidance": 3.0}}},
        {"sampling": Sampling(decoder=DecoderSampling(steps=9, guidance=3.0)), "steps": 4},
    ):
        found = tiny_model.generate(PROMPT, seed=5, **options)[0]
        assert same(found, short)
        assert found.provenance == short.provenance


def test_guidance_is_limited_to_its_interval(tiny_model):
    def make(**settings):
        return tiny_model.generate(PROMPT, seed=1, **settings)[0]

    unguided = make(guidance=1.0)
    assert same(make(guidance=5.0, guidance_interval=(1e8, 1e9)), unguided)
    assert not same(make(guidance=5.0, guidance_interval=(0.0, 1e9)), unguided)
    assert same(make(guidance=5.0, guidance_interval=(0.0, 1e9)), make(guidance=5.0))
    assert used(make(guidance_interval=(0.5, 3.0)))["decoder"]["guidance_interval"] == [0.5, 3.0]


def test_the_chosen_candidate_is_the_nearest_to_the_caption(tiny, tiny_model):
    networks = tiny.networks(tiny_model)
    prompts = ["a red apple", "a blue cat"]
    with torch.no_grad():
        captions = read_captions(networks["clip"], tiny_model.parts.tokenizer, prompts, torch.device("cpu"))

    @torch.no_grad()
    def samples(candidates: int) -> torch.Tensor:
        *_, last = sample_diffusion_prior(
            networks["prior"],
            prior_condition(captions, candidates),
            Seeds([1, 2]).prior(candidates),
            steps=3,
            sampler="dpmpp_2m",
        )
        return networks["prior"].unstandardise(last.x)

    text, several = captions.encoding.embedding, tiny_model.parts.space.project(samples(3))
    chosen = choose(several, text)
    assert several.shape == (6, 16)
    # More candidates leave the first ones as they were.
    torch.testing.assert_close(several[[0, 3]], normalize(samples(1), dim=1))
    scores = several.reshape(2, 3, 16) @ text[..., None]
    assert torch.allclose((chosen * text).sum(1), scores.squeeze(-1).amax(1))
    assert torch.allclose(chosen.norm(dim=1), torch.ones(2))
    # What the model draws is that.
    made = tiny_model.generate(PROMPT, seed=1, candidates=3)[0]
    torch.testing.assert_close(made.embedding, chosen[0])


def test_only_sizes_that_the_parts_make(tiny_model):
    assert tiny_model.sizes == [16, 32]
    small = tiny_model.generate(PROMPT, seed=1, size=16)[0]
    assert small.image.size == (16, 16)
    assert (small.provenance["size"], small.provenance["request"]["size"]) == ([16, 16], 16)
    with pytest.raises(RequestError, match="makes pictures of 16, 32 pixels, not 64"):
        tiny_model.generate(PROMPT, size=64)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"prompt": "  "}, "prompt is empty: say what to draw"),
        ({"prompt": []}, "prompt is empty: say what to draw"),
        ({"prompt": ["a cat", " "]}, "prompt is empty: say what to draw"),
        ({"prompt": "a" * 20_000}, "20000 characters: give at most 10000"),
        ({"n": 0}, "n is 0: give a number from 1 to 10000"),
        ({"prompt": ["a", "b"], "n": 9000}, "18000 pictures were asked for: ask for 1 to 10000"),
        ({"seed": -1}, "seed is -1: give a number from 0"),
        ({"seed": 2**63}, "seed is 9223372036854775808: give a number from 0"),
        ({"steps": 0}, "steps is 0: give a number from 1 to 1000"),
        ({"steps": True}, "steps: expected int, got True"),
        ({"upsampler_steps": 1001}, "steps is 1001: give a number from 1 to 1000"),
        ({"candidates": 0}, "candidates is 0: give a number from 1 to 256"),
        ({"guidance": float("nan")}, "guidance is nan: give a finite number"),
        ({"sampler": "magic"}, "sampler is 'magic': choose from ddim, ddpm, "),
        ({"prior": "magic"}, "'magic' is not one of 'diffusion'"),
        ({"random": "numpy"}, "'numpy' is not one of 'unclip', 'diffusers'"),
        (
            {"random": "diffusers", "candidates": 2},
            "diffusers draws one candidate, not 2: set candidates to 1",
        ),
        ({"batch_size": 0}, "batch_size is 0: give 1 or more"),
        ({"colour": "red"}, "Generate has no option 'colour'; it has .*prompt"),
    ],
)
def test_bad_requests_name_the_value_and_the_remedy(tiny_model, given, message):
    with pytest.raises(RequestError, match=message):
        tiny_model.generate(**{"prompt": "a cat", **given})


def test_a_long_prompt_is_truncated_with_a_warning_in_the_result_and_in_the_log(tiny_model, caplog):
    long = "a red apple " * 9
    picture = tiny_model.generate(long, seed=1, size=16)[0]
    (warning,) = picture.warnings
    assert "tokens, the model reads the first 6" in warning
    assert picture.provenance["warnings"] == [warning]
    assert [record.getMessage() for record in caplog.records if record.name.startswith("unclip.")] == [
        warning
    ]
    assert {record.levelname for record in caplog.records} == {"WARNING"}
    assert picture.provenance["request"]["prompt"] == long
    assert same(tiny_model.redo(picture.provenance), picture)
    plain = tiny_model.generate(PROMPT, seed=1, size=16)[0]
    assert plain.warnings == ()
    assert "warnings" not in plain.provenance
    caplog.clear()
    tiny_model.embed_text(long)
    assert [record.getMessage() for record in caplog.records] == [warning]


def test_a_long_negative_prompt_is_reported_too(tiny_model):
    (made,) = tiny_model.generate(PROMPT, negative="a blue cat " * 9, seed=1, size=16, steps=1)
    assert len(made.warnings) == 1
    assert "a blue cat" in made.warnings[0]


def test_progress_reports_every_step_and_shows_previews(tiny_model):
    events = []
    pictures = tiny_model.generate(
        PROMPT, n=2, seed=1, on_progress=lambda event: events.append((event, event.previews()))
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


@pytest.mark.parametrize("error", [KeyboardInterrupt, Cancelled])
def test_an_exception_of_the_callback_ends_the_call_within_one_step(tiny_model, error):
    seen = []

    def stop(event):
        seen.append(event)
        if len(seen) == 4:
            raise error

    with pytest.raises(error):
        tiny_model.generate(PROMPT, n=5, seed=1, on_progress=stop)
    assert len(seen) == 4
    # Nothing of it is left behind.
    assert same(tiny_model.generate(PROMPT, seed=1)[0], tiny_model.generate(PROMPT, seed=1)[0])
    assert not torch.is_inference_mode_enabled()
    assert torch.is_grad_enabled()


def test_pictures_that_were_finished_before_a_cancellation_remain(tiny_model):
    def stop(event):
        if event.first == 2:
            raise Cancelled("enough")

    made = []
    with pytest.raises(Cancelled, match="enough"):
        made.extend(tiny_model.run(Generate(prompt=PROMPT, n=5, seed=1), on_progress=stop))
    assert len(made) == 2
    expected = tiny_model.generate(PROMPT, n=2, seed=1)
    assert all(same(a, b) for a, b in zip(made, expected))


def test_pictures_come_one_by_one_without_leaking_torch_modes(tiny_model):
    each = tiny_model.run(Generate(prompt=PROMPT, n=3, seed=7))
    first = next(each)
    assert not torch.is_inference_mode_enabled()
    assert torch.is_grad_enabled()
    assert not torch.is_autocast_enabled("cpu")
    assert same(first, tiny_model.generate(PROMPT, seed=7)[0])
    each.close()


def test_a_drawn_seed_is_recorded(tiny_model):
    first, second = (tiny_model.generate(PROMPT, size=16)[0] for _ in range(2))
    assert first.seed != second.seed
    assert same(tiny_model.generate(PROMPT, size=16, seed=first.seed)[0], first)


def test_seeds_of_a_call():
    assert picture_seed(7, 0) == 7
    assert len({picture_seed(7, k) for k in range(1000)}) == 1000
    assert max(picture_seed(7, k) for k in range(1000)) < 2**32


def test_bfloat16_draws_nearly_the_same(tiny_folder, tiny_model):
    half = Model.load(tiny_folder, device="cpu", dtype="bfloat16")
    a, b = half.generate(PROMPT, seed=2)[0], tiny_model.generate(PROMPT, seed=2)[0]
    difference = (torch.tensor(list(a.image.tobytes())) - torch.tensor(list(b.image.tobytes()))).abs().float()
    assert 0 < difference.mean() < 12
    assert a.provenance["dtype"] == "bfloat16"
    with pytest.raises(ValueError, match=r"dtype float16 is not one of auto, float32, bfloat16"):
        Model.load(tiny_folder, dtype="float16")


def test_dtype_auto_is_the_measured_one_and_recorded(tiny_folder, monkeypatch):
    monkeypatch.setattr("unclip.networks.products.LEAST", 0)
    for ratio, dtype in ((4.0, "bfloat16"), (0.2, "float32")):
        speeds = Speeds(ratio, 1.0)
        monkeypatch.setattr("unclip.generate.number_type.measured", lambda *_, speeds=speeds, **__: speeds)
        (made,) = Model.load(tiny_folder, device="cpu", dtype="auto").generate(PROMPT, seed=2, size=16)
        assert made.provenance["dtype"] == dtype


def test_parts_are_loaded_when_needed(tiny_folder):
    parts = Parts.open(tiny_folder, device="cpu", check=True)
    assert parts._networks == {}
    assert (parts.sizes, parts.default_size) == ([16, 32], 32)
    assert parts.config("decoder").size == 16
    model = Model(parts)
    model.embed_text(PROMPT)
    assert set(parts._networks) == {"clip"}
    with (
        pytest.raises(Unsupported, match="has no vae: it has clip, prior, decoder, upsampler"),
        parts.lend("vae", nn.Module),
    ):
        pass
    with (
        pytest.raises(Unsupported, match="the clip of 'tiny' is a Clip, not a Linear"),
        parts.lend("clip", nn.Linear),
    ):
        pass


def test_drawing_loads_nothing_that_it_does_not_need(tiny_folder):
    # Torch's compiler alone would cost a second.
    unneeded = (
        "torch._dynamo",
        "transformers",
        "diffusers",
        "scipy",
        "pandas",
        "pydantic",
        "unclip.data",
        "unclip.train",
    )
    program = (
        f"import sys, unclip; unclip.load({str(tiny_folder)!r}, device='cpu').generate('a cat', seed=1);"
        f"print(*[name for name in sys.modules if name in {unneeded!r}])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.split() == []


def test_a_model_in_memory_is_the_same_as_on_disk(tiny, tiny_model):
    parts = tiny.networks(tiny_model)
    parts["decoder"].train()
    memory = Model.of(parts, tiny_model.parts.tokenizer, defaults=tiny_model.defaults)
    assert same(memory.generate(PROMPT, seed=9)[0], tiny_model.generate(PROMPT, seed=9)[0])
    assert not parts["decoder"].training


def test_embeddings_are_unit_vectors_and_independent_of_company(tiny_model, tmp_path):
    text = tiny_model.embed_text(["a red apple", "a blue cat"])
    assert torch.allclose(text.norm(dim=1), torch.ones(2))
    assert torch.equal(tiny_model.embed_text("a blue cat")[0], text[1])
    pictures = tiny_model.generate(PROMPT, n=2, seed=1)
    image = tiny_model.embed_image(pictures)
    assert image.shape == (2, 16)
    assert torch.equal(tiny_model.embed_image(pictures[1].image)[0], image[1])
    file = pictures[1].save(tmp_path / "cat.png")
    assert torch.equal(tiny_model.embed_image([file, str(file)])[0], image[1])
    assert torch.equal(tiny_model.embed_image(file.read_bytes())[0], image[1])
    assert not image.is_inference()
    assert not image.requires_grad


def test_damage_is_reported_before_anything_is_drawn(tiny_folder, tmp_path):
    copy = shutil.copytree(tiny_folder, tmp_path / "copy")
    file = copy / "decoder.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(ModelError, match=r"decoder\.safetensors has SHA-256"):
        Model.load(copy, check=True)
    file.write_bytes(data[:-9])
    with pytest.raises(ModelError, match=r"decoder\.safetensors has \d+ bytes instead"):
        Model.load(copy)
    with pytest.raises(FileNotFoundError, match="there is no model 'artwrok'"):
        unclip.load("artwrok")


def test_readable_parameters(tiny_model):
    picture = tiny_model.generate(PROMPT, seed=3, negative="flat style")[0]
    first, second, third = picture.parameters.split("\n")
    assert first == PROMPT
    assert second == "Negative prompt: flat style"
    assert third.startswith("Steps: 3, Sampler: dpmpp_2m, CFG scale: 2.0, Seed: 3, Size: 32x32, Model hash: ")
    assert third.endswith(f"Version: unclip {unclip.__version__}")
    assert "Prior steps: 3" in third
    assert readable({"request": {"seed": 1}}) == "Seed: 1, Version: unclip None"


def test_pictures_show_themselves_and_are_saved(tiny_model, tmp_path):
    pictures = tiny_model.generate(PROMPT, n=3, seed=3, size=16)
    assert isinstance(pictures, Images)
    assert pictures[0]._repr_png_() == pictures[0].png()
    assert Image.open(pictures[0].save(tmp_path / "one.png")).provenance == pictures[0].provenance
    with pytest.raises(FileExistsError, match=r"one\.png exists"):
        pictures[0].save(tmp_path / "one.png")
    assert pictures.grid.size == (2 * 16 + 8, 2 * 16 + 8)
    assert pictures._repr_png_().startswith(b"\x89PNG")
    paths = pictures.save(tmp_path / "new" / "folder")
    assert [path.name for path in paths] == [f"{k:03}-{one.seed}.png" for k, one in enumerate(pictures)]
    assert all(same(Image.open(path), one) for path, one in zip(paths, pictures))
    with pytest.raises(FileExistsError):
        pictures.save(tmp_path / "new" / "folder")
    assert pictures.save(tmp_path / "new" / "folder", force=True) == paths


def test_settings_come_from_the_model(tiny_model):
    assert tiny_model.defaults.decoder.steps == 3
    given = sampling(steps=None, guidance=4.0).over(tiny_model.defaults)
    assert given == sampling(steps=3, prior_steps=3, upsampler_steps=2, guidance=4.0).over(DEFAULTS)


def test_old_names_still_work_with_a_warning(tiny_model):
    with pytest.warns(DeprecationWarning, match="decoder_steps is deprecated: use steps"):
        old = tiny_model.generate(PROMPT, seed=1, decoder_steps=2)[0]
    assert same(old, tiny_model.generate(PROMPT, seed=1, steps=2)[0])
    seen = []
    with pytest.warns(DeprecationWarning, match="callback is deprecated: use on_progress"):
        tiny_model.generate(PROMPT, seed=1, callback=seen.append)
    assert seen
