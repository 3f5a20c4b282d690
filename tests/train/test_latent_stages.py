"""Latent stages: what their batches hold, what their losses are made of, and a model that is made of them."""

import errno
import json
import math
import resource
import signal
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import unclip
from unclip import recipes
from unclip.checkpoints.io import load_part
from unclip.checkpoints.manifest import read_manifest
from unclip.disk import DiskFull, is_full
from unclip.errors import ModelError, NonFinite
from unclip.images import to_image
from unclip.networks.movq import MovqConfig
from unclip.rng import Noise
from unclip.train.bundle import bundle
from unclip.train.chain import train_chain
from unclip.train.embed import ClipRun
from unclip.train.latents import AutoencoderRun
from unclip.train.loop import train
from unclip.train.source import Source
from unclip.train.tasks.autoencoder import psnr

CPU = torch.device("cpu")


def losses_of(run, first, count=8):
    numbers = np.arange(first, first + count)
    noise = Noise(numbers.tolist())
    return run.task(run.batches.batch(numbers, noise), noise)


# The autoencoder


def test_the_discriminator_begins_with_a_batch_and_both_networks_learn(small, begin):
    run = begin(small("autoencoder", "discriminator_start=17"))
    task = run.task
    for first, begun in ((0, False), (8, False), (16, False), (20, False), (24, True), (28, True)):
        run._forget_gradients()
        losses = losses_of(run, first, 4)
        assert ("discriminator" in losses.metrics) == begun
        losses.loss.backward()
        assert task.network.encoder.entrance.weight.grad.abs().sum() > 0
        grown = [bool(one.grad.abs().sum() > 0) for one in task.discriminator.parameters() if one.ndim > 1]
        assert all(grown) if begun else not any(grown)
    own, other = task.groups(run.config)
    assert own.optimizer == run.config.optimizer
    assert other.optimizer == run.config.discriminator_optimizer
    assert len(own.parameters) + len(other.parameters) == len(list(task.parameters()))


def test_one_backward_pass_gives_each_network_the_gradient_of_its_own_loss(small, begin):
    """The autoencoder's as without the discriminator's loss, and the reverse, by the definitions written out."""
    run = begin(
        small("autoencoder", "discriminator_start=0", "perceptual_weight=0", "discriminator_weight=0.7")
    )
    task, config = run.task, run.config
    numbers = np.arange(8)
    noise = Noise(numbers.tolist())
    batch = run.batches.batch(numbers, noise)
    task(batch, noise).loss.backward()
    found = {name: one.grad.clone() for name, one in task.named_parameters()}
    run._forget_gradients()
    x = batch.pictures
    posterior = task.network.encode(x)
    eps = noise.fork("latent").normal(*posterior.mean.shape[1:])
    drawn = task.network.decode(posterior.mean + (0.5 * posterior.log_variance).exp() * eps)
    pixel = (x - drawn).abs().mean()
    kl = posterior.mean.square() + posterior.log_variance.exp() - 1 - posterior.log_variance
    adversarial = -task.discriminator(drawn).mean()
    last = task.network.decoder.exit.weight
    lengths = [torch.autograd.grad(one, last, retain_graph=True)[0].norm() for one in (pixel, adversarial)]
    weight = (lengths[0] / (lengths[1] + 1e-4)).clamp(0, 1e4).detach()
    generator = pixel + 1e-6 * 0.5 * kl.sum() / x.numel() + config.discriminator_weight * weight * adversarial
    own = {name: one for name, one in task.named_parameters() if name.startswith("network.")}
    for (name, _), gradient in zip(own.items(), torch.autograd.grad(generator, list(own.values()))):
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-7)
    scores = [task.discriminator(one) for one in (x, drawn.detach())]
    hinge = 0.5 * ((1 - scores[0]).clamp(min=0).mean() + (1 + scores[1]).clamp(min=0).mean())
    others = {name: one for name, one in task.named_parameters() if name.startswith("discriminator.")}
    for (name, _), gradient in zip(others.items(), torch.autograd.grad(hinge, list(others.values()))):
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-7)


def test_squares_of_pictures_are_learned_and_whole_ones_validated(small, begin):
    run = begin(small("autoencoder", "crop=12"))
    numbers = np.arange(8)
    noise = Noise(numbers.tolist())
    batch = run.batches.batch(numbers, noise)
    assert batch.pictures.shape[-2:] == (12, 12)
    corners = noise.fork("crop").integers(16 - 12 + 1, 2)
    assert len({tuple(corner) for corner in corners.tolist()}) > 3
    whole = run.batches.train.pictures(run.batches.train.indices(numbers))
    for square, picture, (down, right) in zip(batch.pictures, whole, corners.tolist()):
        assert torch.equal(square, picture[:, down : down + 12, right : right + 12])
    assert run.task.preview(run.batches).size[0] >= 8 * 16
    for wrong in ("crop=13", "crop=18", "crop=-2"):
        with pytest.raises(ValueError, match="crop is"):
            small("autoencoder", wrong)


def test_latents_are_standardised_by_what_the_finished_run_stored(autoencoder_run, small, begin):
    folder = autoencoder_run / "model"
    manifest = read_manifest(folder)
    assert list(manifest.parts) == ["autoencoder"]
    config: Any = load_part(folder, manifest, "autoencoder").config
    assert len(config.mean) == len(config.std) == 4
    batches = begin(small("latent_decoder")).batches
    count = len(batches.train)
    z = batches.images.learned(batches.train, np.arange(count), Noise(range(count)))
    assert z.mean((0, 2, 3)).abs().max() < 0.05
    assert (z.std((0, 2, 3)) - 1).abs().max() < 0.05


def test_only_the_decoder_is_trained_where_the_latents_are_to_stay(small, autoencoder_run, begin):
    run = begin(small("autoencoder", f"init={autoencoder_run / 'model'}", "trained=decoder"))
    before = {name: value.clone() for name, value in run.task.network.state_dict().items()}
    folder = run.finish()
    manifest = read_manifest(folder)
    after = load_part(folder, manifest, "autoencoder")
    changed = {
        name.partition(".")[0]
        for name, value in after.state_dict().items()
        if not torch.equal(value, before[name])
    }
    assert changed == {"decoder", "post_quant"}
    old = read_manifest(autoencoder_run / "model").parts["autoencoder"].config
    assert manifest.parts["autoencoder"].config["std"] == old["std"] is not None


def test_psnr_of_a_known_error():
    x = torch.zeros(1, 3, 4, 4)
    assert psnr(x, x + 0.2).item() == pytest.approx(20.0)


@pytest.fixture
def quantised(small):
    config = small("autoencoder", "samples=32", "discriminator_start=16")
    model = MovqConfig(widths=(32, 32), blocks=1, attention_levels=(), codes=24)
    return replace(config, model=model, restart_after=8, out=f"{config.out}-vq")


def test_a_codebook_is_learned_and_idle_codes_are_restarted(quantised, begin):
    run = begin(quantised)
    codes = run.task.network.codes.weight
    before = codes.detach().clone()
    losses = losses_of(run, 0)
    losses.loss.backward()
    used = run.task.idle == 0
    assert 0 < int(used.sum()) < 24
    assert torch.equal(run.task.idle[~used], torch.full((int((~used).sum()),), 8))
    gradient = codes.grad
    assert gradient is not None
    assert (gradient[used].abs().sum(1) > 0).all()
    assert (gradient[~used] == 0).all()
    losses_of(run, 8)
    assert torch.equal(codes.detach()[used], before[used])
    assert (codes.detach()[~used] != before[~used]).any(1).all()


def test_a_codebook_run_that_is_interrupted_ends_with_the_same_weights(quantised, begin):
    whole = begin(quantised).finish()
    part = replace(quantised, out=f"{quantised.out}-part")
    first = begin(part)
    first.go(until=16)
    folder = begin(part).finish()
    weights = [load_part(one, read_manifest(one), "autoencoder").state_dict() for one in (whole, folder)]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


# Latents


def test_latents_are_kept_by_picture_and_only_new_ones_are_encoded(
    small, autoencoder_run, tmp_path, monkeypatch, begin
):
    source = begin(small("latent_decoder")).batches.train
    run = AutoencoderRun(str(autoencoder_run), "latent_decoder", CPU)
    encoded = []
    encode = run.encoded
    monkeypatch.setattr(run, "encoded", lambda pictures: encoded.append(len(pictures)) or encode(pictures))
    whole = source.decoded
    half = len(whole) // 2
    source.decoded = replace(whole, rows=whole.rows[:half], samples=whole.samples[:half])
    run.latents(source, tmp_path)
    distinct = [len({whole.digests[row] for row in whole.rows[:count]}) for count in (half, len(whole))]
    assert sum(encoded) == distinct[0]
    source.decoded = whole
    latents = run.latents(source, tmp_path)
    assert sum(encoded) == distinct[1]
    # The reverse order, from the cache alone.
    source.decoded = replace(whole, rows=whole.rows[::-1], samples=whole.samples[::-1])
    mirrored = run.latents(source, tmp_path)
    assert sum(encoded) == distinct[1]
    indices = np.array([0, half, len(whole) - 1])
    assert torch.equal(latents.mean(indices, CPU), mirrored.mean(len(whole) - 1 - indices, CPU))
    source.decoded = whole
    with torch.no_grad():
        expected = run.network.encode(source.pictures(indices))
    torch.testing.assert_close(latents.mean(indices, CPU), expected.mean, rtol=1e-3, atol=1e-3)


def test_each_visit_draws_a_latent_and_a_face(small, autoencoder_run, tmp_path, begin):
    source = begin(small("latent_decoder")).batches.train
    run = AutoencoderRun(str(autoencoder_run), "latent_decoder", CPU)
    latents = run.latents(source, tmp_path, flip=True)
    count = 400
    indices = np.zeros(count, dtype=np.int64)
    drawn = latents.sample(indices, Noise(range(count)), CPU)
    assert torch.equal(drawn[7:9], latents.sample(indices[:2], Noise([7, 8]), CPU))
    with torch.no_grad():
        pictures = source.pictures(indices[:1])
        faces = [run.network.encode(one) for one in (pictures, pictures.flip(-1))]
    half = (faces[0].mean + faces[1].mean) / 2
    torch.testing.assert_close(drawn.mean(0), half[0], atol=0.3, rtol=0)
    nearer = [(drawn - face.mean).square().sum((1, 2, 3)) for face in faces]
    # Four standard errors.
    assert (nearer[0] < nearer[1]).float().mean().item() == pytest.approx(0.5, abs=0.1)


# The decoders


def test_dropped_captions_become_the_empty_one(small, begin, monkeypatch):
    run = begin(small("text_decoder", "dropout=0.25"))
    seen = []
    forward = run.task.network.forward

    def watch(x, label, context):
        seen.append(context.tokens)
        return forward(x, label, context)

    run.task.network.forward = watch
    numbers = np.arange(400)
    noise = Noise(numbers.tolist())
    batch = run.batches.batch(numbers, noise)
    run.task(batch, noise)
    (tokens,) = seen
    empty = run.batches.text.empty.states
    dropped = (tokens == empty).flatten(1).all(1)
    assert dropped.float().mean().item() == pytest.approx(0.25, abs=0.09)
    expected = run.batches.text.read(batch.tokens).states
    assert torch.equal(tokens[~dropped], expected[~dropped])


def test_karlo_s_form_learns_with_clip_s_own_tower(small, begin):
    """The decoder reads CLIP's states of the caption, and the empty caption's where it is dropped."""
    config = small(
        "decoder", "model.caption.tower=clip", "dropout_caption=0", "dropout_image=0", "dropout_hint=1"
    )
    run = begin(config)
    caption = run.task.network.config.caption
    text = run.batches.clip.clip.config.text
    assert (caption.width, caption.context, caption.layers) == (text.width, text.context, text.layers)
    plain = losses_of(run, 0).loss
    plain.backward()
    gradients = {
        name: one.grad for name, one in run.task.named_parameters() if name.startswith("network.caption")
    }
    assert gradients
    # The output layer begins at zero, so that only after a step conditions have gradients.
    run.step()
    run._forget_gradients()
    losses_of(run, 8).loss.backward()
    assert all(
        one.grad.abs().sum() > 0 for name, one in run.task.named_parameters() if "caption.text" in name
    )
    assert not any("tower" in name for name, _ in run.task.named_parameters())
    run.task.validate(run.batches)
    assert run.task.preview(run.batches).size[0] > 0
    run.step()


@pytest.mark.parametrize(
    ("stage", "changes", "message"),
    [
        ("latent_decoder", ("model.channels=3",), "model.channels is 3, this autoencoder's latents have 4"),
        ("latent_decoder", ("autoencoder=",), "train an autoencoder first"),
        ("text_decoder", ("clip=",), "reads captions by a text tower"),
        ("autoencoder", ("clip=",), "learns from a CLIP"),
    ],
)
def test_what_does_not_fit_is_named(small, begin, stage, changes, message):
    if "model.channels=3" in changes:
        changes = (*changes, "model.net.in_channels=7", "model.net.out_channels=3")
    with pytest.raises(ValueError, match=message):
        begin(small(stage, *changes))


def test_a_text_decoder_in_a_model_draws(small, autoencoder_run, clip_run, tmp_path):
    run = small("text_decoder", "samples=16")
    train(run, device="cpu")
    folder = bundle([clip_run, autoencoder_run, tmp_path / "text_decoder"], tmp_path / "model", "text")
    assert read_manifest(folder).parts["decoder"].kind == "text_decoder"
    model = unclip.load(folder, device="cpu")
    assert model.reconstruct(square(), steps=2).image.size == (16, 16)
    (picture,) = model.generate("a red square", seed=1, steps=2)
    assert picture.image.size == (16, 16)


def square():
    return to_image(torch.linspace(-1, 1, 3 * 16 * 16).reshape(3, 16, 16))


def test_the_chain_of_latent_unclip(tmp_path, decoded):
    """Every stage for a few steps, bundled, and the model draws, varies, edits and inverts as any other."""
    changes = [f"{stage}.samples=64" for stage in ("clip", "prior", "autoencoder", "latent_decoder")]
    changes += [
        f"{stage}.data.cache={decoded}" for stage in ("clip", "prior", "autoencoder", "latent_decoder")
    ]
    chain = recipes.chain("tiny_latent", tmp_path, evaluate=False, changes=[*changes, "clip.vocabulary=540"])
    model = unclip.load(train_chain(chain, device="cpu").model, device="cpu")
    described = json.loads((tmp_path / "model" / "model.json").read_text())["parts"]
    assert {name: part["kind"] for name, part in described.items()} == {
        "clip": "clip",
        "prior": "prior_diffusion",
        "autoencoder": "autoencoder",
        "decoder": "decoder",
    }
    (picture,) = model.generate("a big red square", seed=1, steps=2, prior_steps=2)
    assert picture.image.size == (16, 16)
    assert (
        model.generate("a big red square", seed=1, steps=2, prior_steps=2)[0].image.tobytes()
        == picture.image.tobytes()
    )
    assert model.vary(picture, seed=1, steps=2)[0].image.size == (16, 16)
    assert model.edit(picture, (0, 0, 8, 8), "a blue circle", seed=1, steps=2)[0].image.size == (16, 16)
    assert model.reconstruct(picture, steps=2).image.size == (16, 16)
    bare = bundle(
        [tmp_path / name for name in ("clip", "prior", "latent_decoder")], tmp_path / "bare", "bare"
    )
    model = unclip.load(bare, device="cpu")
    with pytest.raises(unclip.errors.Unsupported, match="has no autoencoder"):
        model.generate("a square", steps=2)


@pytest.fixture
def sources(small):
    """An autoencoder's run, a source of pictures, and a folder for latents."""
    config = small("latent_decoder")
    return AutoencoderRun(config.autoencoder, "latent_decoder", CPU), Source(config, "train", CPU)


def test_latents_on_a_full_disk_are_an_error_and_leave_nothing(sources, tmp_path):
    """A memory-mapped file that has no room ends the process (SIGBUS) where it is written to."""
    run, source = sources
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, before[1]))
    try:
        with pytest.raises(OSError) as raised:  # noqa: PT011
            run.latents(source, tmp_path / "latents")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert is_full(raised.value)
    assert list((tmp_path / "latents").iterdir()) == []
    found = run.latents(source, tmp_path / "latents")
    assert len(found.rows) == len(set(source.decoded.digests))


def test_the_latents_reserve_their_room(sources, tmp_path, monkeypatch):
    def refuse(*given):
        raise OSError(errno.ENOSPC, "No space left on device")

    run, source = sources
    monkeypatch.setattr("os.posix_fallocate", refuse)
    with pytest.raises(DiskFull, match=r"no room for the latents: it needs .*\(--out\)"):
        run.latents(source, tmp_path / "latents")
    assert list((tmp_path / "latents").iterdir()) == []


@torch.no_grad()
def test_latents_that_float16_does_not_hold_are_not_learned(sources, tmp_path):
    run, source = sources
    run.network.quant.bias.fill_(1e5)
    with pytest.raises(
        ModelError, match=r"encodes \d+ pictures, such as .*, as numbers that float16 does not hold"
    ):
        run.latents(source, tmp_path / "latents")
    assert list((tmp_path / "latents").iterdir()) == []
    run.network.quant.bias.fill_(math.nan)
    with pytest.raises(ModelError, match="float16 does not hold"):
        run.latents(source, tmp_path / "latents", flip=True)


@torch.no_grad()
def test_embeddings_that_are_not_finite_are_not_learned(small, tmp_path):
    config = small("prior")
    run, source = ClipRun(config, CPU), Source(config, "train", CPU)
    good = run.image_embeddings(source, tmp_path)
    (file,) = tmp_path.glob("*.safetensors")
    save_file({"image_embedding": torch.cat([good[:-1], good[-1:] * math.nan])}, file)
    key = source.decoded.samples[-1].key
    with pytest.raises(NonFinite, match=f"embeds 1 of {len(good)} pictures, such as {key}"):
        run.image_embeddings(source, tmp_path)
    file.unlink()
    run.clip.vision.project.weight.mul_(math.inf)
    with pytest.raises(NonFinite, match="not finite"):
        run.image_embeddings(source, tmp_path)
    assert not file.exists()
