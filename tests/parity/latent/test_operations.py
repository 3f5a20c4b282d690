"""What can be asked of latent models, and what they refuse by name; offloading, bfloat16, tiles, and numbers that overflow."""

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import CLIPConfig, CLIPModel

from tests.parity.latent.conftest import WIDTH, edit, filled, picture, text_config, tokenizer
from unclip.errors import Cancelled, ModelError, NonFinite, RequestError, Unsupported
from unclip.formats.convert import convert
from unclip.formats.opened import open_model
from unclip.formats.pull import needed
from unclip.generate.model import Model
from unclip.generate.operations import Generate
from unclip.stages.families import family_of
from unclip.stages.sampling import sampling
from unclip.stages.tiles import in_tiles

QUICK: dict[str, Any] = {"seed": 3, "steps": 2}


@pytest.fixture(scope="module")
def stable(saved) -> Model:
    return Model.load(saved("sd1")[1], device="cpu")


@pytest.fixture(scope="module")
def unclip(saved) -> Model:
    return Model.load(saved("unclip h")[1], device="cpu")


def same(one: Any, other: Any) -> bool:
    return np.array_equal(np.asarray(one.image), np.asarray(other.image))


def test_pictures_start_from_text_pictures_and_holes(stable):
    plain = stable.generate("a red cat", **QUICK)[0]
    assert plain.image.size == (64, 64)
    assert same(plain, stable.generate("a red cat", **QUICK)[0])
    assert not same(plain, stable.generate("a red cat", negative="a dog", **QUICK)[0])
    assert stable.redraw(picture(), "a red cat", strength=0.5, **QUICK)[0].image.size == (64, 64)
    filled = stable.edit(picture(96), (16, 16, 48, 40), "a red cat", **QUICK)[0]
    kept, drawn = np.asarray(picture(96)).copy(), np.asarray(filled.image).copy()
    assert drawn.shape == (96, 96, 3)
    kept[16:40, 16:48] = drawn[16:40, 16:48] = 0
    assert np.array_equal(kept, drawn)
    assert stable.generate("a red cat", size=72, **QUICK)[0].image.size == (72, 72)
    wider = stable.outpaint(picture(), "a red cat", right=32, **QUICK)
    assert wider.image.size == (96, 64)
    assert np.array_equal(np.asarray(wider.image)[:, :64], np.asarray(picture()))


def test_pictures_of_any_shape(stable, unclip):
    """Every operation at a size that is no square: what is recorded makes it again, and known pixels keep their bits."""
    wide = picture(96, 64)
    made = [
        stable.generate("a red cat", size=(64, 96), **QUICK)[0],
        stable.redraw(picture(200, 120), "a red cat", size=(64, 96), **QUICK)[0],
        stable.edit(wide, (8, 8, 80, 40), "a red cat", **QUICK)[0],
        stable.reconstruct(picture(300, 200), size=(64, 96), **QUICK),
        unclip.vary(wide, n=1, size=(64, 96), **QUICK)[0],
        unclip.vary(wide, n=1, size=(64, 96), eta=0.5, **QUICK)[0],
        unclip.interpolate(wide, picture(), size=(64, 96), thetas=(0.5,), **QUICK)[0],
    ]
    sources = [[], [picture(200, 120)], [wide], [picture(300, 200)], [wide], [wide], [wide, picture()]]
    for index, (one, given) in enumerate(zip(made, sources)):
        assert one.image.size == (96, 64)
        assert one.provenance["request"].get("size", [64, 96]) == [64, 96]
        assert same((stable if index < 4 else unclip).redo(one.provenance, *given), one)
    assert stable.generate("a red cat", size=(64, 64), **QUICK)[0].provenance["request"]["size"] == 64
    assert stable.invert(wide, size=(64, 96), steps=4).x_T.shape == (4, 8, 12)
    # What a picture shows in its middle is what is read of it, in the shape that is drawn.
    middle = picture(300, 200).crop((0, 0, 300, 200))
    assert same(stable.reconstruct(middle, size=(64, 96), **QUICK), made[3])


@pytest.mark.parametrize("shape", [(90, 60), (40, 100), (300, 70), (20, 30)])
def test_holes_in_pictures_of_any_shape(stable, shape):
    """Also where sides are no multiples of 8, and pictures are much larger or smaller than the model draws."""
    given = picture(*shape)
    box = (2, 2, shape[0] - 2, 12)
    made = stable.edit(given, box, "a red cat", **QUICK)[0]
    kept, drawn = np.asarray(given).copy(), np.asarray(made.image).copy()
    assert not np.array_equal(kept, drawn)
    kept[2:12, 2 : shape[0] - 2] = drawn[2:12, 2 : shape[0] - 2] = 0
    assert np.array_equal(kept, drawn)


@pytest.mark.parametrize(("added", "calls"), [({"right": 32}, 1), ({"right": 100}, 5)])
def test_outpainting_draws_what_it_can_at_once(stable, added, calls):
    seen = []
    given = picture(64, 56)
    made = stable.outpaint(given, "a red cat", on_progress=seen.append, **added, **QUICK)
    assert made.image.size == (64 + added["right"], 56 + added.get("bottom", 0))
    assert np.array_equal(np.asarray(made.image)[:56, :64], np.asarray(given))
    assert seen[-1].fraction == 1
    assert sum(one.stage == "decoder" and one.step == one.total for one in seen) == calls


def test_batches_share_a_shape(stable):
    def request(seed: int, size: Any) -> Generate:
        return Generate(prompt="a red cat", size=size, seed=seed, sampling=sampling(steps=2))

    together = stable.run_batch([request(seed, (64, 96)) for seed in (1, 2)])
    assert [one.image.size for one in together] == [(96, 64)] * 2
    alone = np.asarray(stable.generate("a red cat", size=(64, 96), seed=2, steps=2)[0].image, dtype=int)
    assert np.abs(np.asarray(together[1].image, dtype=int) - alone).max() <= 2
    with pytest.raises(RequestError, match="have the sizes"):
        stable.run_batch([request(1, (64, 96)), request(2, (96, 64))])


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((64, 100), "multiples of 8 up to 4096, not 100x64: 104x64 is the nearest"),
        (60, "not 60: 64 is the nearest"),
        ((4, 64), "not 64x4: 64x8 is the nearest"),
        ((64, 9000), "not 9000x64: 4096x64 is the nearest"),
        ((64,), "expected 2 values, got 1"),
        ((64, 0), "give a number from 1"),
        ("big", "expected int"),
    ],
)
def test_sizes_that_cannot_be_drawn_name_the_nearest(stable, size, message):
    with pytest.raises(RequestError, match=message):
        stable.generate("a cat", size=size)


def test_a_picture_is_made_again_from_its_provenance(stable):
    made = stable.generate("a red cat", size=128, spacing="trailing", sampler="euler", **QUICK)[0]
    assert made.image.size == (128, 128)
    assert same(stable.redo(made.provenance), made)


def test_inversion_and_the_way_back(stable, unclip):
    for model in (stable, unclip):
        found = model.invert(picture(), steps=4)
        assert found.x_T.shape == (4, 8, 8)
        assert (found.z_i is None) == (model is stable)
    # How much of a picture random networks let through is not much; that the way back is the way there can be seen.
    first, again = (stable.reconstruct(picture(), seed=seed, steps=8) for seed in (1, 2))
    assert same(first, again)
    assert "psnr" in first.provenance["results"]


def test_unclip_reads_pictures(unclip):
    first, second = unclip.vary(picture(), n=2, **QUICK)
    assert not same(first, second)
    assert first.embedding is not None
    path = unclip.interpolate(picture(), picture(32), frames=3, **QUICK)
    assert len(path) == 3
    assert not same(path[0], path[1])
    assert unclip.vary(picture(), n=1, eta=0.0, **QUICK)[0].image.size == (64, 64)
    noised = unclip.vary(picture(), n=1, noise_level=500, **QUICK)[0]
    assert not same(noised, first)
    assert noised.provenance["request"]["sampling"]["decoder"]["noise_level"] == 500
    assert unclip.generate("a red cat", **QUICK)[0].embedding is None
    assert unclip.edit(picture(), (8, 8, 40, 40), "a cat", **QUICK)[0].image.size == (64, 64)


def test_openvino_draws_latents_of_any_size(saved, stable, tmp_path, monkeypatch):
    """Spatial transformers; maps of 10 and 9 pixels, odd at some level, have exports of their own: their doubling is another."""
    pytest.importorskip("openvino")
    monkeypatch.setenv("UNCLIP_CACHE", str(tmp_path))
    model = Model.load(saved("sd1")[1], device="cpu", backend="openvino")
    for size in (64, 80, 72):
        made, exact = (one.generate("a red cat", size=size, **QUICK)[0].image for one in (model, stable))
        assert np.abs(np.asarray(made, int) - np.asarray(exact, int)).max() <= 1
    assert len(list(tmp_path.rglob("*.xml"))) == 3


def test_unclip_with_its_prior(saved):
    model = Model.load(saved("unclip l")[1], device="cpu")
    drawn = model.generate("a red cat", prior_steps=2, **QUICK)[0]
    assert drawn.embedding is not None
    with pytest.raises(Unsupported, match="has no image encoder, which vary needs"):
        model.vary(picture(), **QUICK)


def test_a_whole_clip_gives_stable_unclip_text_diffs_and_a_prior(saved, tmp_path):
    """Parts of other models fit where the embedding space agrees; where it does not, both are named."""
    text = text_config(WIDTH, projection_dim=WIDTH).to_dict()
    vision = saved("unclip h")[0].image_encoder.config.to_dict()
    whole = filled(CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=WIDTH)), 4)
    whole.save_pretrained(tmp_path / "clip")
    tokenizer().save_pretrained(tmp_path / "clip")
    folder, other = saved("unclip h")[1], saved("unclip l")[1]
    model = Model.load(folder, device="cpu", parts={"clip": tmp_path / "clip"})
    assert len(model.text_diff(picture(), "a dog", baseline="a red cat", frames=2, **QUICK)) == 2
    with pytest.raises(ModelError, match=r"reads captions, the clip of .* has no text tower"):
        open_model(folder, parts={"prior": other})
    # Another text projection, by its fingerprint.
    with pytest.raises(ModelError, match="were not made for each other"):
        open_model(folder, parts={"clip": tmp_path / "clip", "prior": other})
    wide = text_config(24, projection_dim=24).to_dict()
    CLIPModel(
        CLIPConfig(text_config=wide, vision_config=vision | {"projection_dim": 24}, projection_dim=24)
    ).save_pretrained(tmp_path / "wide")
    tokenizer().save_pretrained(tmp_path / "wide")
    with pytest.raises(ModelError, match="reads embeddings of width 20"):
        open_model(folder, parts={"clip": tmp_path / "wide"})


@pytest.mark.parametrize(
    ("call", "lacking"),
    [
        (lambda one: one.vary(picture(), **QUICK), "image encoder"),
        (lambda one: one.interpolate(picture(), picture(32), **QUICK), "image encoder"),
        (lambda one: one.text_diff(picture(), "a dog", **QUICK), "text encoder"),
        (lambda one: one.components(picture(), [1], [picture(), picture(32)], **QUICK), "image encoder"),
        (lambda one: one.outpaint(picture(), right=8, **QUICK), "image encoder"),
        (lambda one: one.upscale(picture()), "upsampler"),
        (lambda one: one.generate("a cat", prior="diffusion", **QUICK), "text encoder"),
    ],
)
def test_what_stable_diffusion_cannot_do_names_the_part(stable, call, lacking):
    with pytest.raises(Unsupported, match=f"has no {lacking}, which"):
        call(stable)


def test_text_diffs_need_the_whole_text_tower(unclip):
    with pytest.raises(Unsupported, match="has no text encoder, which text_diff needs"):
        unclip.text_diff(picture(), "a dog", **QUICK)


def test_requests_that_no_latent_model_runs(stable):
    for size in (65, 4104):
        with pytest.raises(RequestError, match=f"multiples of 8 up to 4096, not {size}"):
            stable.generate("a cat", size=size, **QUICK)
    with pytest.raises(RequestError, match="noise_level is for decoders that read noised image embeddings"):
        stable.generate("a cat", noise_level=3, **QUICK)
    with pytest.raises(RequestError, match="plms visits whole times: choose another spacing than 'karras'"):
        stable.generate("a cat", spacing="karras", **QUICK)
    with pytest.raises(RequestError, match="1000 steps at an offset of 1 leave the table"):
        stable.generate("a cat", seed=1, steps=1000)


def test_a_noise_level_needs_an_embedding_that_is_noised(unclip):
    """A level that would change nothing is an error: of a caption alone, of another family, and beyond the schedule."""
    with pytest.raises(RequestError, match="noise_level is noise of the image embedding, and there is none"):
        unclip.generate("a cat", noise_level=3, **QUICK)
    assert unclip.generate("a cat", noise_level=0, **QUICK)
    with pytest.raises(RequestError, match="noise_level is for decoders that read noised image embeddings"):
        Model.load("artwork", device="cpu").vary(picture(), noise_level=3, **QUICK)
    decoder = unclip.parts.config("decoder")
    few = replace(decoder, noise_levels=100)
    assert family_of(few).noise_levels == 100
    assert family_of(decoder).noise_levels == 1000


def test_progress_has_a_preview_of_the_latent(stable):
    seen = []
    stable.generate("a red cat", seed=3, steps=4, on_progress=seen.append)
    steps = [one for one in seen if one.stage == "decoder" and one.step]
    assert len(steps) == 4
    (preview,) = steps[-1].previews()
    assert preview.size == (8, 8)
    assert np.asarray(preview).std() > 5


@pytest.mark.parametrize("offload", [False, True])
def test_progress_names_the_work_of_the_autoencoder(saved, offload):
    """Each stage says that it begins, before its part is loaded; tiles are steps, and all steps together are the whole."""
    model = Model.load(saved("unclip h")[1], device="cpu", offload=offload, tile=64)
    seen = []

    def stages(call, *given, **options) -> list[tuple[str, int, int]]:
        seen.clear()
        list(call(*given, on_progress=seen.append, size=(64, 96), **options, **QUICK))
        shares = [one.fraction for one in seen]
        assert shares == sorted(shares)
        assert shares[0] < shares[-1] == 1
        return [(one.stage, one.step, one.total) for one in seen]

    drawn = [("decoder", step, 2) for step in range(3)]
    decoded = [("decoding latents", step, 2) for step in range(3)]
    assert stages(model.generate, "a red cat") == [*drawn, *decoded]
    assert stages(model.redraw, picture(), "a red cat", strength=1.0)[0] == ("encoding latents", 0, 1)
    around = stages(model.vary, picture(), n=1, eta=0.5)
    inverted = [one for one in around if one[0] == "inversion"]
    assert around[0] == ("encoding latents", 0, 1)
    assert around[1:] == [*inverted, *(("decoder", step, 2) for step in range(3)), *decoded]
    seen.clear()
    model.edit(picture(96), (8, 8, 48, 40), "a cat", on_progress=seen.append, n=2, **QUICK)
    assert seen[-1].fraction == 1
    assert [(one.stage, one.first) for one in seen if one.step == 0] == [
        (stage, first) for first in (0, 1) for stage in ("encoding latents", "decoder", "decoding latents")
    ]


def test_a_call_ends_between_tiles(saved):
    model = Model.load(saved("sd1")[1], device="cpu", tile=32)

    def stop(event) -> None:
        if event.stage == "decoding latents" and event.step == 2:
            raise Cancelled("enough")

    with pytest.raises(Cancelled, match="enough"):
        model.generate("a red cat", on_progress=stop, **QUICK)


def test_offloading_changes_no_bit(stable, saved):
    lean = Model.load(saved("sd1")[1], device="cpu", offload=True)
    assert same(lean.generate("a red cat", **QUICK)[0], stable.generate("a red cat", **QUICK)[0])
    assert same(lean.redraw(picture(), "a cat", **QUICK)[0], stable.redraw(picture(), "a cat", **QUICK)[0])
    assert not lean.parts._networks


def test_bfloat16_is_near_float32(stable, saved):
    half = Model.load(saved("sd1")[1], device="cpu", dtype="bfloat16")
    one, other = (
        np.asarray(each.generate("a red cat", **QUICK)[0].image, dtype=float) for each in (half, stable)
    )
    assert np.abs(one - other).mean() < 12


def test_tiles_cover_a_picture_and_blend():
    z = torch.linspace(0, 1, 40)[None, None, None].expand(1, 3, 24, 40)
    seen = []

    def decode(part: torch.Tensor) -> torch.Tensor:
        seen.append(part.shape[-2:])
        return torch.nn.functional.interpolate(part, scale_factor=4.0)

    found = in_tiles(decode, z, 16, 4)
    assert max(max(shape) for shape in seen) == 16
    assert len(seen) > 3
    assert torch.allclose(found, torch.nn.functional.interpolate(z, scale_factor=4.0), atol=1e-6)


def test_tiled_decoding_is_near_the_whole(saved, stable):
    tiled = Model.load(saved("sd1")[1], device="cpu", tile=64)
    whole, parts = (one.generate("a red cat", size=128, **QUICK)[0] for one in (stable, tiled))
    assert not same(whole, parts)
    small = [np.asarray(one.image.resize((16, 16)), dtype=float) for one in (whole, parts)]
    assert np.abs(small[0] - small[1]).mean() < 30


def test_an_autoencoder_that_overflows_in_half_precision_is_computed_in_float32(saved, monkeypatch, caplog):
    model = Model.load(saved("sd1")[1], device="cpu", dtype="bfloat16")
    exact = []
    network = type(model.parts._parts["autoencoder"].load())
    decode = network.decode

    def overflowing(self, z):
        if self.decoder.middle.resblock1.conv1.weight.dtype == torch.float32:
            exact.append(z)
            return decode(self, z)
        return decode(self, z) * float("nan")

    monkeypatch.setattr(network, "decode", overflowing)
    # In bfloat16, layers may be replaced by packed ones: keep them.
    monkeypatch.setattr("unclip.generate.placement.prepack", lambda network, **options: None)
    with caplog.at_level(logging.WARNING):
        made = model.generate("a red cat", **QUICK)[0]
    assert len(exact) == 1
    assert "computing in float32" in caplog.text
    assert np.asarray(made.image).std() > 5


def test_damaged_weights_are_no_picture(saved):
    model = Model.load(saved("sd1")[1], device="cpu")
    with model.parts.lend("autoencoder", torch.nn.Module) as network:
        network.get_parameter("decoder.exit.bias").data.fill_(float("nan"))
    with pytest.raises(NonFinite, match=r"autoencoder .* gave NaN"):
        model.generate("a red cat", **QUICK)
    model = Model.load(saved("sd1")[1], device="cpu")
    with model.parts.lend("autoencoder", torch.nn.Module) as network:
        network.get_parameter("encoder.exit.bias").data.fill_(float("nan"))
    picture = np.zeros((64, 64, 3), np.uint8)
    with pytest.raises(NonFinite, match=r"the autoencoder of .* in the stage 'encoding'"):
        model.redraw(picture, "a red cat", **QUICK)


@pytest.mark.parametrize(
    ("component", "changes", "message"),
    [
        ("vae", {"latent_channels": 8}, "the U-Net reads 4 channels and gives 4, the vae's latent has 8"),
        ("vae", {"shift_factor": 0.1}, "shift_factor is 0.1"),
        ("vae", {"_class_name": "VQModel"}, "_class_name is 'VQModel'"),
        ("unet", {"in_channels": 5}, "reads 5 channels .* a depth map is not supported"),
        ("unet", {"in_channels": 7}, "a picture to enlarge is not supported"),
        ("unet", {"cross_attention_dim": 32}, "reads text states of width 32, the text .* gives 24"),
        ("unet", {"addition_embed_type": "text_time"}, "addition_embed_type is 'text_time'"),
        (
            "unet",
            {"down_block_types": ["SimpleCrossAttnDownBlock2D"] * 4},
            "is not one of Stable Diffusion's",
        ),
        (
            "scheduler",
            {"_class_name": "LCMScheduler"},
            "the scheduler 'LCMScheduler' is not one of DDIMScheduler",
        ),
        ("scheduler", {"skip_prk_steps": False}, "skip_prk_steps is False"),
        ("scheduler", {"prediction_type": "flow"}, "prediction_type is 'flow'"),
        ("text_encoder", {"vocab_size": 99}, "the tokenizer has"),
    ],
)
def test_configs_that_do_not_fit_are_named(saved, tmp_path, component, changes, message):
    copied = shutil.copytree(saved("sd1")[1], tmp_path / "model", copy_function=_linked)
    name = "scheduler_config.json" if component == "scheduler" else "config.json"
    edit(copied / component / name, **changes)
    with pytest.raises(ModelError, match=message):
        open_model(copied)


def _linked(source: str, target: str) -> str:
    """Configs are copied, to be edited; weights are not."""
    if source.endswith(".json"):
        return shutil.copy(source, target)
    import os

    os.symlink(source, target)
    return target


def test_old_inpainting_configs_mean_64(saved, tmp_path):
    copied = shutil.copytree(saved("inpaint")[1], tmp_path / "model", copy_function=_linked)
    edit(copied / "unet" / "config.json", sample_size=32, _diffusers_version="0.6.0")
    edit(copied / "vae" / "config.json", scaling_factor=...)
    parts = open_model(copied).parts
    assert parts["decoder"].config.size == 512
    assert parts["autoencoder"].config.scale == 0.18215


def test_a_safety_checker_is_left_out_with_a_note(saved, tmp_path, caplog):
    copied = shutil.copytree(saved("sd1")[1], tmp_path / "model", copy_function=_linked)
    edit(copied / "model_index.json", safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"])
    open_model(copied)
    assert "comes with a safety checker, which is not run" in caplog.text


def test_pulling_leaves_out_single_files_and_safety_checkers():
    files = ["model_index.json", "README.md", "v1-5-pruned.ckpt", "v1-5-pruned-emaonly.safetensors"]
    files += ["unet/config.json", "unet/diffusion_pytorch_model.safetensors"]
    files += [
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "unet/diffusion_pytorch_model.non_ema.safetensors",
    ]
    files += [
        "unet/diffusion_pytorch_model.bin",
        "safety_checker/config.json",
        "safety_checker/model.safetensors",
    ]
    assert needed(files) == [
        "README.md",
        "model_index.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
    ]


def test_half_precision_and_sharded_weights(saved, tmp_path):
    pipeline, folder = saved("sd1")
    copied = shutil.copytree(folder, tmp_path / "model")
    shutil.rmtree(copied / "unet")
    pipeline.unet.save_pretrained(copied / "unet", max_shard_size="10MB")
    assert len(list((copied / "unet").glob("*-of-*.safetensors"))) > 1
    vae = copied / "vae" / "diffusion_pytorch_model.safetensors"
    vae.rename(vae.with_name("diffusion_pytorch_model.fp16.safetensors"))
    parts, before = open_model(copied).parts, open_model(folder).parts
    for name in ("decoder", "autoencoder"):
        for one, other in zip(parts[name].load().parameters(), before[name].load().parameters(), strict=True):
            assert torch.equal(one, other)


def pickled(folder: Path, *, shards: int) -> None:
    """The weights of a component as files of `torch.save`, in `shards` with an index, as diffusers of 2022 wrote them."""
    (file,) = folder.glob("*.safetensors")
    stem = "diffusion_pytorch_model" if file.stem.startswith("diffusion") else "pytorch_model"
    weights = load_file(file)
    file.unlink()
    if shards == 1:
        torch.save(weights, folder / f"{stem}.bin")
        return
    homes = {key: f"{stem}-{index % shards + 1:05}-of-{shards:05}.bin" for index, key in enumerate(weights)}
    for home in sorted(set(homes.values())):
        torch.save({key: one for key, one in weights.items() if homes[key] == home}, folder / home)
    index = {"metadata": {"total_size": 1}, "weight_map": homes}
    (folder / f"{stem}.bin.index.json").write_text(json.dumps(index))


def test_pickled_folders_whole_and_in_shards_through_convert(saved, tmp_path):
    copied = shutil.copytree(saved("sd1")[1], tmp_path / "model")
    for name, shards in (("vae", 1), ("text_encoder", 2), ("unet", 3)):
        pickled(copied / name, shards=shards)
    with pytest.raises(
        ModelError, match=r"is pickled, which can hide programs: `unclip convert .* reads it safely"
    ):
        Model.load(copied, device="cpu").generate("a red cat", **QUICK)
    convert(copied, tmp_path / "out")
    model = Model.load(tmp_path / "out", device="cpu", dtype="float32")
    stable = Model.load(saved("sd1")[1], device="cpu", dtype="float32")
    assert same(model.generate("a red cat", **QUICK)[0], stable.generate("a red cat", **QUICK)[0])
    (copied / "unet" / "diffusion_pytorch_model-00002-of-00003.bin").unlink()
    with pytest.raises(ModelError, match=r"00002-of-00003\.bin is missing, which .*index\.json names"):
        convert(copied, tmp_path / "other")


@pytest.mark.parametrize("name", ["sd1", "unclip h"])
def test_weights_in_bfloat16_are_used_in_float32(saved, name):
    kept, exact = (
        Model.load(saved(name)[1], device="cpu", dtype=kind) for kind in ("bfloat16-weights", "float32")
    )
    with (
        kept.parts.lend("decoder", torch.nn.Module) as half,
        exact.parts.lend("decoder", torch.nn.Module) as whole,
    ):
        sizes = [sum(weight.nbytes for weight in one.parameters()) for one in (half, whole)]
    assert sizes[0] < 0.6 * sizes[1]
    a, b = (
        np.asarray(one.generate("a red cat", seed=3, steps=2, size=64)[0].image, float)
        for one in (kept, exact)
    )
    assert 0 < np.abs(a - b).mean() < 6
