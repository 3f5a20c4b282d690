"""Every sampler against the schedulers of `diffusers`: the same network, the same noise, the same pictures.

diffusers keeps its tables in float32, where a cosine schedule's `1 / sqrt(abar)` is wrong in its fourth digit. Two ways
out: its own betas with its own arithmetic carried out in float64 (`lifted`), which agrees to 1e-9, or its code as it is
on processes that are well conditioned, which agrees to 1e-5. No output is clipped, unless clipping is what is compared,
and each comparison has a control: the same with one thing changed has to fail.
"""

from collections.abc import Callable
from itertools import pairwise

import diffusers
import pytest
import torch
from torch import Tensor

from unclip.diffusion import grids
from unclip.diffusion.denoiser import noise_level
from unclip.diffusion.guidance import classifier_free, clip
from unclip.diffusion.noise import NoiseTable
from unclip.diffusion.parametrization import Parametrization, Preconditioned, Process, ProcessConfig
from unclip.diffusion.paths import start
from unclip.diffusion.samplers import ddim, ddpm, dpmpp_2m, dpmpp_2m_sde, heun, sample

# diffusers hands a torch tensor to np.array, which numpy 2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SHAPE = (2, 3, 4, 4)
PREDICTIONS = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}


class GeneratorNoise:
    """Draws what a diffusers scheduler draws from the same torch generator."""

    def __init__(self, seed: int, dtype: torch.dtype = torch.float64) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.dtype = dtype

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(SHAPE[0], *shape, generator=self.generator, dtype=self.dtype)


def estimate(x: Tensor, t: Tensor) -> Tensor:
    """A smooth, nonlinear idea of x0 that mixes pixels and depends on time, inside (-1.5, 1.5)."""
    mixed = torch.roll(x, 1, -1) - 0.5 * torch.roll(x, 1, 1)
    return 0.8 * torch.tanh(0.7 * mixed + torch.sin(0.01 * t)) + 0.5 * torch.tanh(x)


def network(prediction: str, abar: Tensor, learned: bool = False) -> Callable[..., Tensor]:
    """What a network that had learned `estimate` would say, in the textbook's terms and as float64 can tell it."""

    def forward(x: Tensor, label: Tensor, condition: object = None) -> Tensor:
        t = label.to(x.dtype).reshape(-1, 1, 1, 1)
        a = abar[label.round().long()].to(x.dtype).reshape(-1, 1, 1, 1)
        x0 = estimate(x, t)
        eps = (x - a.sqrt() * x0) / (1 - a).sqrt()
        answer = {"epsilon": eps, "sample": x0, "v_prediction": a.sqrt() * eps - (1 - a).sqrt() * x0}[
            prediction
        ]
        return torch.cat([answer, torch.sin(3 * x)], dim=1) if learned else answer

    return forward


def lifted(scheduler):
    """The scheduler with its own float32 betas, and everything that follows from them, in float64."""
    scheduler.betas = scheduler.betas.double()
    scheduler.alphas = 1 - scheduler.betas
    scheduler.alphas_cumprod = scheduler.alphas.cumprod(0)
    return scheduler


def model_of(scheduler, prediction: str, learned: bool = False) -> Preconditioned:
    table = NoiseTable.from_betas(scheduler.betas)
    row = Parametrization(name=PREDICTIONS[prediction], label=table.t_of, learned_variance=learned)
    process = Process(
        parametrization=row, table=table, sigma_min=table.sigmas[0].item(), sigma_max=table.sigmas[-1].item()
    )
    return Preconditioned(network(prediction, table.abar, learned), process)


def their_sample(scheduler, model: Preconditioned, z: Tensor, **options) -> Tensor:
    x = z
    for t in scheduler.timesteps:
        scaled = scheduler.scale_model_input(x, t)
        answer = model.network(scaled, torch.full((len(x),), float(t)))
        x = scheduler.step(answer, t, x, **options).prev_sample
    return x


def start_of(sigmas: Tensor, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    z = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0), dtype=dtype)
    return z, start(z, sigmas[0])


def agree(ours: Tensor, theirs: Tensor, control: Tensor, tolerance: float = 1e-9) -> None:
    assert theirs.isfinite().all()
    assert theirs.std() > 0.05
    assert (ours - theirs).abs().max() < tolerance
    assert (control - theirs).abs().max() > 1e-2


@pytest.mark.parametrize(
    ("kind", "theirs"),
    [("linear", "linear"), ("scaled_linear", "scaled_linear"), ("cosine", "squaredcos_cap_v2")],
)
def test_tables(kind: str, theirs: str) -> None:
    ends = {"beta_start": 0.00085, "beta_end": 0.012} if kind == "scaled_linear" else {}
    betas = diffusers.DDPMScheduler(beta_schedule=theirs, **ends).betas
    ours = getattr(NoiseTable, kind)(1000)
    log_abar = torch.log1p(ours.sigmas**2).neg()
    assert torch.allclose(-torch.expm1(log_abar.diff()), betas[1:].double(), rtol=2e-6, atol=1e-9)
    assert torch.allclose(-torch.expm1(log_abar[0]), betas[0].double(), rtol=2e-6, atol=1e-9)


@pytest.mark.parametrize("steps", [5, 7, 15, 25, 27, 50, 64, 100, 250])
def test_respaced_times(steps: int) -> None:
    scheduler = diffusers.UnCLIPScheduler()
    scheduler.set_timesteps(steps)
    table = NoiseTable.cosine(1000)
    grid = grids.respaced(table, steps)
    assert torch.equal(table.t_of(grid[:-1]).round().long(), scheduler.timesteps)


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("steps", [4, 7, 50])
def test_ddim_times(spacing: str, steps: int) -> None:
    scheduler = diffusers.DDIMScheduler(timestep_spacing=spacing)
    scheduler.set_timesteps(steps)
    table = NoiseTable.linear(1000)
    grid = getattr(grids, spacing)(table, steps)
    assert torch.equal(table.t_of(grid[:-1]).round().long(), scheduler.timesteps)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("schedule", ["linear", "squaredcos_cap_v2"])
@pytest.mark.parametrize(
    ("theirs", "ours", "control"),
    [
        ("fixed_small", "fixed_small", "fixed_large"),
        ("fixed_large", "fixed_large", "fixed_small"),
        ("learned_range", "learned", "fixed_small"),
    ],
)
def test_ddpm(prediction: str, schedule: str, theirs: str, ours: str, control: str) -> None:
    scheduler = lifted(
        diffusers.DDPMScheduler(
            100, beta_schedule=schedule, variance_type=theirs, prediction_type=prediction, clip_sample=False
        )
    )
    scheduler.set_timesteps(20)
    model = model_of(scheduler, prediction, learned=ours == "learned")
    sigmas = grids.leading(model.process.table, 20)
    z, x = start_of(sigmas)
    reference = their_sample(scheduler, model, z, generator=GeneratorNoise(1).generator)
    mine = sample(ddpm(model.bind(None), x, sigmas, noise=GeneratorNoise(1), variance=ours))
    other = sample(ddpm(model.bind(None), x, sigmas, noise=GeneratorNoise(1), variance=control))
    agree(mine, reference, other)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim(prediction: str, spacing: str, eta: float) -> None:
    scheduler = lifted(
        diffusers.DDIMScheduler(
            beta_schedule="squaredcos_cap_v2",
            prediction_type=prediction,
            timestep_spacing=spacing,
            clip_sample=False,
        )
    )
    scheduler.set_timesteps(20)
    model = model_of(scheduler, prediction)
    sigmas = getattr(grids, spacing)(model.process.table, 20)
    z, x = start_of(sigmas)
    reference = their_sample(scheduler, model, z, eta=eta, generator=GeneratorNoise(2).generator)
    mine = sample(ddim(model.bind(None), x, sigmas, noise=GeneratorNoise(2), eta=eta))
    other = sample(ddim(model.bind(None), x, sigmas, noise=GeneratorNoise(2), eta=eta + 0.2))
    agree(mine, reference, other)


@pytest.mark.parametrize("prediction", ["sample", "v_prediction"])
def test_ddim_in_float32_as_it_comes(prediction: str) -> None:
    scheduler = diffusers.DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type=prediction,
        clip_sample=False,
    )
    scheduler.set_timesteps(20)
    model = model_of(scheduler, prediction)
    sigmas = grids.leading(model.process.table, 20)
    z, x = start_of(sigmas, torch.float32)
    reference = their_sample(scheduler, model, z)
    mine = sample(ddim(model.bind(None), x, sigmas))
    other = sample(ddim(model.bind(None), x, grids.trailing(model.process.table, 20)))
    assert mine.dtype == torch.float32
    agree(mine, reference, other, tolerance=1e-5)


@pytest.mark.parametrize("limit", [0.7, 5.0])
@pytest.mark.parametrize("steps", [7, 25])
@pytest.mark.parametrize(
    ("prediction", "theirs", "ours"),
    [("epsilon", "learned_range", "learned"), ("sample", "fixed_small_log", "fixed_small")],
)
def test_unclip(prediction: str, theirs: str, ours: str, steps: int, limit: float) -> None:
    scheduler = lifted(
        diffusers.UnCLIPScheduler(prediction_type=prediction, variance_type=theirs, clip_sample_range=limit)
    )
    scheduler.set_timesteps(steps)
    learned = ours == "learned"
    model = model_of(scheduler, prediction, learned)
    sigmas = grids.respaced(model.process.table, steps)
    z, x = start_of(sigmas)

    generator, reference = GeneratorNoise(3).generator, z
    previous = [*scheduler.timesteps[1:], None]
    for t, before in zip(scheduler.timesteps, previous):
        answer = model.network(reference, torch.full((len(z),), float(t)))
        reference = scheduler.step(
            answer, t, reference, prev_timestep=before, generator=generator
        ).prev_sample

    def draw(limit: float) -> Tensor:
        denoise = clip(model.bind(None), -limit, limit)
        return sample(ddpm(denoise, x, sigmas, noise=GeneratorNoise(3), variance=ours))

    agree(draw(limit), reference, draw(0.5))


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_heun(prediction: str) -> None:
    scheduler = diffusers.HeunDiscreteScheduler(
        beta_schedule="scaled_linear", prediction_type=prediction, timestep_spacing="trailing"
    )
    scheduler.set_timesteps(20)
    model = model_of(scheduler, prediction)
    # Its levels appear twice from the second on: once a stage.
    scheduler.sigmas = scheduler.sigmas.double()
    sigmas = torch.cat([scheduler.sigmas[:1], scheduler.sigmas[1::2]])
    z, _ = start_of(sigmas)
    x = z * sigmas[0]
    reference = their_sample(scheduler, model, x)
    mine = sample(heun(model.bind(None), x, sigmas))
    other = sample(ddim(model.bind(None), x, sigmas))
    agree(mine, reference, other, tolerance=1e-5)


def edm_network(x: Tensor, label: Tensor, condition: object = None) -> Tensor:
    """A network of labels in timestep units: 1000 c_noise."""
    return estimate(x, 0.04 * label.to(x.dtype).reshape(-1, 1, 1, 1))


def test_edm_euler() -> None:
    scheduler = diffusers.EDMEulerScheduler()
    scheduler.set_timesteps(20)
    scheduler.sigmas = scheduler.sigmas.double()
    model = Preconditioned(edm_network, ProcessConfig(parametrization="edm", schedule="edm").build())
    z, _ = start_of(scheduler.sigmas)
    reference = x = 80 * z.float()
    for t in scheduler.timesteps:
        scaled = scheduler.scale_model_input(reference, t)
        reference = scheduler.step(edm_network(scaled, 1000 * t.expand(len(z))), t, reference).prev_sample
    sigmas = model.process.grid(20)
    assert torch.allclose(sigmas, scheduler.sigmas, rtol=1e-6)
    mine = sample(ddim(model.bind(None), x, sigmas))
    other = sample(ddim(model.bind(None), x, grids.karras(0.002, 80.0, 20, rho=5.0)))
    agree(mine, reference, other, tolerance=1e-5)


def edm_algorithm_2(denoise, x, sigmas, normal, churn, low, high, scale) -> Tensor:
    """EDM (arXiv 2206.00364), Algorithm 2, line by line: diffusers has no Heun with churn."""
    n = len(sigmas) - 1

    def estimate_x0(x: Tensor, t: Tensor) -> Tensor:
        return denoise(x, noise_level(t, x)).x0

    for t, t_next in pairwise(sigmas):
        gamma = min(churn / n, 2**0.5 - 1) if low <= t <= high else 0.0
        t_hat = t + gamma * t
        x_hat = x + (t_hat**2 - t**2).sqrt() * scale * normal() if gamma > 0 else x
        d = (x_hat - estimate_x0(x_hat, t_hat)) / t_hat
        x = x_hat + (t_next - t_hat) * d
        if t_next != 0:
            d_prime = (x - estimate_x0(x, t_next)) / t_next
            x = x_hat + (t_next - t_hat) * (d / 2 + d_prime / 2)
    return x


def test_heun_with_churn_is_edms_algorithm_2() -> None:
    model = Preconditioned(edm_network, ProcessConfig(parametrization="edm", schedule="edm").build())
    sigmas = model.process.grid(20)
    z, _ = start_of(sigmas)
    settings = {"churn": 6.0, "churn_min": 0.05, "churn_max": 50.0, "churn_noise": 1.003}
    source = GeneratorNoise(4)
    reference = edm_algorithm_2(
        model.bind(None), 80 * z, sigmas, lambda: source.normal(*SHAPE[1:]), *settings.values()
    )
    mine = sample(heun(model.bind(None), 80 * z, sigmas, noise=GeneratorNoise(4), **settings))
    other = sample(
        heun(model.bind(None), 80 * z, sigmas, noise=GeneratorNoise(4), **settings | {"churn": 5.0})
    )
    agree(mine, reference, other)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("algorithm", ["dpmsolver++", "sde-dpmsolver++"])
@pytest.mark.parametrize("steps", [10, 25])
def test_dpm_solver(prediction: str, algorithm: str, steps: int) -> None:
    scheduler = diffusers.DPMSolverMultistepScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type=prediction,
        algorithm_type=algorithm,
    )
    scheduler.set_timesteps(steps)
    model = model_of(scheduler, prediction)
    sigmas = scheduler.sigmas.double()
    z, x = start_of(sigmas, torch.float32)

    source, reference = GeneratorNoise(5, torch.float32), z
    for t in scheduler.timesteps:
        answer = model.network(reference, torch.full((len(z),), float(t)))
        noise = source.normal(*SHAPE[1:])
        reference = scheduler.step(answer, t, reference, variance_noise=noise).prev_sample

    def draw(eta: float) -> Tensor:
        return sample(
            dpmpp_2m_sde(model.bind(None), x, sigmas, noise=GeneratorNoise(5, torch.float32), eta=eta)
        )

    if algorithm == "dpmsolver++":
        agree(sample(dpmpp_2m(model.bind(None), x, sigmas)), reference, draw(0.2), tolerance=1e-5)
    else:
        agree(draw(1.0), reference, draw(0.8), tolerance=1e-5)


@pytest.mark.parametrize("steps", [10, 25])
def test_edm_dpm_solver(steps: int) -> None:
    scheduler = diffusers.EDMDPMSolverMultistepScheduler()
    scheduler.set_timesteps(steps)
    scheduler.sigmas = scheduler.sigmas.double()
    model = Preconditioned(edm_network, ProcessConfig(parametrization="edm", schedule="edm").build())
    z, _ = start_of(scheduler.sigmas)
    reference = x = 80 * z
    for t in scheduler.timesteps:
        scaled = scheduler.scale_model_input(reference, t)
        reference = scheduler.step(edm_network(scaled, 1000 * t.expand(len(z))), t, reference).prev_sample
    sigmas = scheduler.sigmas
    mine = sample(dpmpp_2m(model.bind(None), x, sigmas))
    agree(mine, reference, sample(ddim(model.bind(None), x, sigmas)), tolerance=1e-5)


def test_guided_denoiser_against_guided_outputs() -> None:
    """Guidance of x0 is guidance of eps, as GLIDE and unCLIP define it."""
    model = model_of(lifted(diffusers.DDIMScheduler(clip_sample=False)), "epsilon")
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(6), dtype=torch.float64) * 3
    sigma = noise_level(2.0, x)
    cond, null = model.raw(x, sigma), model.raw(x + 0.1, sigma)
    reference = model.denoised(null + 3.0 * (cond - null), x, sigma).x0

    def guided(scale: float) -> Tensor:
        halves = (lambda x, sigma, raw=raw: model.denoised(raw, x, sigma) for raw in (cond, null))
        return classifier_free(*halves, scale)(x, sigma).x0

    assert (guided(3.0) - reference).abs().max() < 1e-12
    assert (guided(2.0) - reference).abs().max() > 1e-2
