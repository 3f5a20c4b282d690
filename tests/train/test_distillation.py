"""Distillation: what the teacher answers is learned, for guidance in one call and for a few steps in place of many."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from unclip.checkpoints.io import load_part
from unclip.checkpoints.manifest import read_manifest
from unclip.diffusion.denoiser import per_sample
from unclip.diffusion.samplers import ddim, sample
from unclip.rng import Noise
from unclip.stages.codec import PixelCodec
from unclip.train.distillation import DistillationConfig, Teacher, walked
from unclip.train.loop import train

FLOW = (
    'model.process={"parametrization":"x0","schedule":"flow"}',
    "model.net.out_channels=3",
    'loss={"density":{"kind":"logit_normal"},"weight":"velocity"}',
)


@pytest.fixture
def base(small):
    """A finished decoder whose output is not zero."""
    return train(small("decoder", "samples=320", *FLOW), device="cpu")


@pytest.fixture
def config(small, base, tmp_path):
    """`config(guidance=...)`: a distillation of that decoder."""

    def to(**options):
        made = small("decoder", "samples=48", f"init={base}", *FLOW)
        return replace(made, distillation=DistillationConfig(**options), out=str(tmp_path / "distilled"))

    return to


def loaded(base) -> Any:
    return load_part(base, read_manifest(base), "decoder")


def lesson(run):
    """A batch of the run, its conditions, noisy pictures and their levels."""
    batch = run.batches.batch(*run_numbers(run))
    condition = batch.condition
    return batch.pictures, condition


def run_numbers(run):
    numbers = torch.arange(8).numpy()
    return numbers, Noise(range(8)).fork("batch")


def test_guidance_is_the_teacher_s_estimate(config, base, begin):
    run = begin(config(guidance=3.0))
    teacher = run.task.teacher
    assert not any("teacher" in name for name, _ in run.task.named_parameters())
    x0, condition = lesson(run)
    noise = Noise(range(8)).fork("test")
    sigma, end = teacher.sigma(noise.uniform(), run.config.loss.density, run.task.process)
    assert end is None
    x = x0 + per_sample(sigma, x0) * noise.normal(*x0.shape[1:])
    found = teacher.estimate(x, sigma, end, condition)
    network = loaded(base)
    guided = Teacher(network, DistillationConfig(guidance=3.0), PixelCodec(), "")
    plain = guided.renderer.denoiser(condition, guidance=1.0)(x, sigma).x0
    null = guided.renderer.denoiser(condition.null(), guidance=1.0)(x, sigma).x0
    expected = (null + 3.0 * (plain - null)).clamp(-1, 1)
    inside = (plain.abs() < 1) & (null.abs() < 1)
    assert inside.any()
    assert (found - expected)[inside].abs().max() < 1e-4
    # Without conditions there is nothing to guide: they stay what they were.
    alone = teacher.estimate(x, sigma, None, condition.null())
    assert (alone - null).abs().max() < 1e-5


@pytest.mark.parametrize(("steps", "substeps"), [(1, 4), (4, 1), (4, 3)])
def test_one_step_leads_where_the_teacher_s_steps_lead(config, begin, steps, substeps):
    run = begin(config(guidance=2.0, steps=steps, substeps=substeps))
    teacher, (x0, condition) = run.task.teacher, lesson(run)
    noise = Noise(range(8)).fork("test")
    sigma, end = teacher.sigma(noise.uniform(), run.config.loss.density, run.task.process)
    assert end is not None
    grid = teacher.renderer.grid(steps)
    assert {float(level) for level in sigma} <= {float(level) for level in grid[:-1].double()}
    x = x0 + per_sample(sigma, x0) * noise.normal(*x0.shape[1:])
    estimate = teacher.estimate(x, sigma, end, condition)
    denoise = teacher.renderer.denoiser(condition, guidance=2.0)
    with torch.no_grad():
        reached = walked(denoise, x, sigma, end, substeps)
    ratio = per_sample(end / sigma, x)
    assert (estimate + ratio * (x - estimate) - reached).abs().max() < 1e-3
    if substeps == 1:
        with torch.no_grad():
            assert (estimate - denoise(x, sigma).x0).abs().max() < 1e-3


def test_steps_of_a_walk_are_ddim_s(config, begin):
    run = begin(config(steps=1, substeps=3))
    teacher, (x0, condition) = run.task.teacher, lesson(run)
    denoise = teacher.renderer.denoiser(condition, guidance=2.0)
    level = torch.full((8,), 4.0, dtype=torch.float64)
    x = x0 + 4.0 * Noise(range(8)).fork("x").normal(*x0.shape[1:])
    with torch.no_grad():
        found = walked(denoise, x, level, torch.zeros_like(level), 3)
        times = torch.linspace(0.8, 0, 4, dtype=torch.float64)
        expected = sample(ddim(denoise, x, times / (1 - times), noise=Noise(range(8)), eta=0.0))
    assert (found - expected).abs().max() < 1e-4


@pytest.mark.parametrize("options", [{"guidance": 3.0}, {"guidance": 3.0, "steps": 2, "substeps": 4}])
def test_the_distilled_decoder_comes_nearer_to_the_guided_one(config, base, begin, options):
    longer = replace(config(**options), samples=1600, ema_decay=0.9)
    longer = replace(longer, optimizer=replace(longer.optimizer, learning_rate=0.002))
    run = begin(longer)
    x0, condition = lesson(run)
    teacher, noise = run.task.teacher, Noise(range(8)).fork("test")
    steps = options.get("steps", 8)
    grid = teacher.renderer.grid(steps * options.get("substeps", 1))
    few = teacher.renderer.grid(steps)
    x = grid[0] * noise.normal(*x0.shape[1:]).float()

    def apart(network) -> float:
        drawn = replace(teacher.renderer, network=network).denoiser(condition, guidance=1.0)
        with torch.no_grad():
            one = sample(ddim(drawn, x, few, noise=noise, eta=0.0))
            other = sample(
                ddim(teacher.renderer.denoiser(condition, guidance=3.0), x, grid, noise=noise, eta=0.0)
            )
        return float((one - other).square().mean())

    before = apart(loaded(base))
    assert before > 0
    after = apart(loaded(run.finish()))
    assert after < 0.5 * before


def test_a_distillation_resumes_to_the_bit_and_notices_another_teacher(config, base, begin, small, tmp_path):
    whole = begin(config(guidance=2.0)).finish()
    stopped = replace(config(guidance=2.0), out=str(tmp_path / "stopped"))
    begin(stopped).go(until=16)
    again = begin(stopped).finish()
    assert (again / "decoder.safetensors").read_bytes() == (whole / "decoder.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"guidance": 1.0}, "nothing to learn"), ({"guidance": -1.0}, r"distillation.guidance is -1.0"),
        ({"steps": 0}, "distillation.steps is 0"), ({"substeps": 0}, "distillation.substeps is 0"),
    ],
)  # fmt: skip
def test_bad_settings_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        DistillationConfig(**options)


def test_few_steps_need_a_network_that_predicts_no_noise(small, begin, tmp_path):
    config = small("decoder", "samples=8")
    config = replace(config, init=str(train(config, device="cpu")), out=str(tmp_path / "distilled"))
    begin(replace(config, distillation=DistillationConfig()))
    with pytest.raises(ValueError, match="predicts eps"):
        begin(replace(config, distillation=DistillationConfig(steps=2)))


def test_it_needs_weights_to_begin_with(config):
    with pytest.raises(ValueError, match="set init"):
        replace(config(guidance=2.0), init=None)
