"""Parametrisations' targets, the loss's weights and densities, and the learned variance's term."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from unclip.config import from_dict, to_dict
from unclip.diffusion.losses import (
    LogitNormal,
    LogNormal,
    LossConfig,
    Uncertainty,
    UniformTime,
    diffusion_loss,
    learned_variance_bound,
)
from unclip.diffusion.parametrization import Preconditioned, Process, ProcessConfig
from unclip.diffusion.posterior import discretized_nll

ROWS = ["eps", "v", "x0", "flow", "edm"]


def process_of(name: str, **options) -> Process:
    return ProcessConfig(parametrization=name, **options).build()


@pytest.fixture
def batch() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x0 = torch.randn(5, 3, 4, 4, generator=generator, dtype=torch.float64).clamp(-1, 1)
    eps = torch.randn(5, 3, 4, 4, generator=generator, dtype=torch.float64)
    sigmas = process_of("eps").table.sigmas[[0, 30, 400, 800, 999]]
    return x0, eps, sigmas


def column(sigma: Tensor) -> Tensor:
    return sigma.reshape(-1, 1, 1, 1)


def test_targets_are_the_textbooks(batch) -> None:
    x0, eps, sigma = batch
    s = column(sigma)
    abar = 1 / (1 + s**2)
    targets = {name: process_of(name).parametrization.target(x0, eps, sigma) for name in ROWS}
    assert torch.allclose(targets["eps"], eps)
    assert torch.allclose(targets["x0"], x0)
    assert torch.allclose(targets["v"], abar.sqrt() * eps - (1 - abar).sqrt() * x0)
    assert torch.allclose(targets["flow"], eps - x0)
    # EDM, equation 8: (x0 - c_skip x) / c_out of table 1.
    skip, out = 0.25 / (s**2 + 0.25), s * 0.5 / (s**2 + 0.25).sqrt()
    assert torch.allclose(targets["edm"], (x0 - skip * (x0 + s * eps)) / out, rtol=1e-4)


@pytest.mark.parametrize("name", ROWS)
def test_the_target_denoises_exactly(name: str, batch) -> None:
    x0, eps, sigma = batch
    process = process_of(name)
    model = Preconditioned(lambda x, label, condition: x, process)
    target = process.parametrization.target(x0, eps, sigma)
    assert torch.allclose(model.denoised(target, x0 + column(sigma) * eps, sigma).x0, x0, atol=1e-9)


@pytest.mark.parametrize("name", ROWS)
def test_inputs_have_the_scale_they_promise(name: str) -> None:
    """Unit variance for data of unit variance (eps, v, x0) or of sigma_data (karras); flow mixes linearly."""
    row = process_of(name).parametrization
    sigma = torch.tensor([0.1, 1.0, 30.0], dtype=torch.float64)
    into = row.coefficients(sigma).into
    if name == "flow":
        assert torch.allclose(into * sigma, 1 - into)
    else:
        data = 0.25 if name == "edm" else 1.0
        assert torch.allclose(into**2 * (data + sigma**2), torch.ones(3, dtype=torch.float64))


def test_labels_follow_the_schedule_not_the_row() -> None:
    sigma = torch.tensor([1.0, 3.0], dtype=torch.float64)
    for name in ROWS:
        assert process_of(name, schedule="flow").parametrization.label(sigma).tolist() == [0.5, 0.75]
        edm = process_of(name, schedule="edm").parametrization.label(sigma)
        assert edm.tolist() == pytest.approx([0.0, math.log(3) / 4])
        discrete = process_of(name, schedule="linear")
        assert discrete.parametrization.label(discrete.table.sigmas[[3, 700]]).tolist() == pytest.approx(
            [3, 700]
        )


def test_networks_get_float32_labels_and_may_answer_in_half() -> None:
    seen = {}

    def network(x: Tensor, label: Tensor, condition: str) -> Tensor:
        seen.update(dtype=label.dtype, label=label, condition=condition)
        return x.to(torch.bfloat16)

    process = process_of("v")
    answer = Preconditioned(network, process).bind("a cat")(torch.ones(2, 3), process.table.sigmas[[5, 900]])
    assert answer.x0.dtype == torch.float32
    assert seen["dtype"] == torch.float32
    assert seen["label"].tolist() == [5, 900]
    assert seen["condition"] == "a cat"


def test_networks_get_labels_in_timestep_units_on_every_schedule() -> None:
    seen = {}

    def network(x: Tensor, label: Tensor, condition: None) -> Tensor:
        seen["label"] = label.tolist()
        return x

    sigma = torch.tensor([1.0, 3.0], dtype=torch.float64)
    for schedule, expected in (("flow", [500, 750]), ("edm", [0, 250 * math.log(3)])):
        Preconditioned(network, process_of("x0", schedule=schedule)).bind(None)(torch.ones(2, 3), sigma)
        assert seen["label"] == pytest.approx(expected)


def wrong_by_a_tenth(process: Process, x0: Tensor):
    """A network whose denoised answer is x0 + 0.1, whatever its row."""

    def network(x: Tensor, label: Tensor, condition: object) -> Tensor:
        sigma = process.table.sigma_of(label.double())
        c = process.parametrization.coefficients(sigma)
        state = x / column(c.into)
        return (x0 + 0.1 - column(c.skip) * state) / column(c.out)

    return Preconditioned(network, process)


@pytest.mark.parametrize("name", ROWS)
def test_weights_mean_the_same_for_every_row(name: str, batch) -> None:
    x0, eps, sigma = batch
    model = wrong_by_a_tenth(process_of(name), x0)
    t = sigma / (1 + sigma)
    expected = {
        "x0": torch.ones_like(sigma),
        "eps": sigma**-2,
        "v": 1 + sigma**-2,
        "velocity": t.clamp(min=0.05) ** -2,
        "edm": (sigma**2 + 0.25) / (0.5 * sigma) ** 2,
        "min_snr": torch.minimum(sigma**-2, torch.full_like(sigma, 5.0)),
    }
    for weight, factor in expected.items():
        loss = diffusion_loss(model, x0, eps, sigma, config=LossConfig(weight=weight))
        assert torch.allclose(loss, 0.01 * factor, rtol=2e-3), weight
    target = diffusion_loss(model, x0, eps, sigma)
    assert torch.allclose(target, 0.01 / model.parametrization.coefficients(sigma).out ** 2, rtol=2e-3)


def test_min_snr_of_an_eps_network_is_the_papers() -> None:
    """Min-SNR (arXiv 2303.09556), section 3.4: w = min(snr, 5) / snr on the squared error of eps."""
    process = process_of("eps")
    sigma = torch.tensor([0.1, 1.0, 9.0], dtype=torch.float64)
    x0 = torch.zeros(3, 2, dtype=torch.float64)
    model = Preconditioned(lambda x, label, condition: torch.zeros_like(x), process)
    loss = diffusion_loss(model, x0, torch.ones_like(x0), sigma, config=LossConfig(weight="min_snr"))
    assert torch.allclose(loss, (sigma**-2).clamp(max=5) * sigma**2)


def test_uniform_time_visits_every_time_once() -> None:
    process = process_of("v")
    u = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    assert torch.equal(UniformTime().sigma(u, process), process.table.sigmas)
    flow = process_of("x0", schedule="flow")
    sigma = UniformTime().sigma(u, flow)
    assert torch.allclose(
        (sigma / (1 + sigma)).diff(), torch.full((999,), 80 / 81 / 1000, dtype=torch.float64), rtol=5e-3
    )


def test_log_normal_and_logit_normal_quantiles() -> None:
    u = torch.tensor([0.0, 0.1586552539, 0.5, 0.8413447461], dtype=torch.float64)
    edm = process_of("edm", schedule="edm")
    assert LogNormal().sigma(u, edm)[1:].log().tolist() == pytest.approx([-2.4, -1.2, 0.0], abs=1e-6)
    assert LogNormal().sigma(u, edm)[0] == edm.sigma_min
    flow = process_of("x0", schedule="flow")
    sigma = LogitNormal(mean=0.8, std=0.8).sigma(u[1:], flow)
    assert torch.special.logit(sigma / (1 + sigma)).tolist() == pytest.approx([0.0, 0.8, 1.6], abs=1e-6)


# The learned variance


def learned(frac: Tensor | float, process: Process) -> Preconditioned:
    """A network that is right about nothing and answers one interpolation of the variance."""

    def network(x: Tensor, label: Tensor, condition: object) -> Tensor:
        v = 2 * torch.as_tensor(frac, dtype=x.dtype) - 1
        return torch.cat([0.9 * x, v.expand_as(x)], dim=1)

    return Preconditioned(network, process)


@pytest.mark.parametrize("frac", [0.0, 0.3, 1.0])
def test_hybrid_term_is_the_textbook_divergence(frac: float, batch) -> None:
    """Improved DDPM in its own units: posterior and model Gaussians of x_{t-1} = sqrt(abar) x0 + ..., compared by torch."""
    x0, eps, _ = batch
    process = process_of("eps", learned_variance=True)
    t = torch.tensor([1, 2, 300, 700, 990])
    abar = process.table.abar
    sigma = process.table.sigmas[t]
    x = x0 + column(sigma) * eps
    model = learned(frac, process)
    raw = model.raw(x, sigma)

    here, before = column(abar[t]), column(abar[t - 1])
    beta = 1 - here / before
    x_t = here.sqrt() * x
    tilde = (1 - before) / (1 - here) * beta

    def mean(x0: Tensor) -> Tensor:
        return before.sqrt() * beta / (1 - here) * x0 + (1 - beta).sqrt() * (1 - before) / (1 - here) * x_t

    x0_model = (x_t - (1 - here).sqrt() * 0.9 * x_t) / here.sqrt()
    std = (0.5 * (frac * beta.log() + (1 - frac) * tilde.log())).exp()
    kl = kl_divergence(Normal(mean(x0), tilde.sqrt()), Normal(mean(x0_model), std.expand_as(x0)))
    expected = 1000 * kl.flatten(1).mean(1) / math.log(2)
    assert torch.allclose(learned_variance_bound(model, raw, x, x0, sigma), expected, rtol=1e-6)


def test_hybrid_loss_adds_a_thousandth_of_the_bound(batch) -> None:
    x0, eps, sigma = batch
    model = learned(0.3, process_of("eps", learned_variance=True))
    x = x0 + column(sigma) * eps
    bound = learned_variance_bound(model, model.raw(x, sigma), x, x0, sigma)
    simple = (0.9 * x / (1 + column(sigma) ** 2).sqrt() - eps).square().flatten(1).mean(1)
    assert torch.allclose(diffusion_loss(model, x0, eps, sigma), simple + 0.001 * bound, rtol=1e-6)


def test_the_bound_teaches_the_variance_and_not_the_mean(batch) -> None:
    x0, eps, sigma = batch
    model = learned(0.3, process_of("eps", learned_variance=True))
    x = x0 + column(sigma) * eps
    raw = model.raw(x, sigma).requires_grad_()
    learned_variance_bound(model, raw, x, x0, sigma).sum().backward()
    mean, variance = raw.grad.chunk(2, dim=1)
    assert not mean.any()
    assert variance.abs().amax(dim=(1, 2, 3)).min() > 0
    assert raw.grad.isfinite().all()


def test_the_bound_is_least_at_the_optimal_variance() -> None:
    """For unit Gaussian data and its exact denoiser the optimal reverse variance is beta: a fraction of 1."""
    process = process_of("x0", learned_variance=True)
    generator = torch.Generator().manual_seed(0)
    x0 = torch.randn(2000, 1, 8, generator=generator, dtype=torch.float64)
    sigma = process.table.sigmas[500].expand(2000)
    x = x0 + sigma[:, None, None] * torch.randn(x0.shape, generator=generator, dtype=torch.float64)
    exact = x / (1 + sigma[:, None, None] ** 2)

    def bound(frac: float) -> float:
        model = Preconditioned(lambda x, label, condition: x, process)
        raw = torch.cat([exact, torch.full_like(exact, 2 * frac - 1)], dim=1)
        return learned_variance_bound(model, raw, x, x0, sigma).mean().item()

    assert bound(1.0) < min(bound(0.0), bound(0.5), bound(1.5))


def test_learned_variance_needs_a_table() -> None:
    with pytest.raises(ValueError, match="discrete schedule"):
        ProcessConfig(parametrization="eps", schedule="flow", learned_variance=True).build()


@pytest.mark.parametrize("std", [1e-3, 0.03, 1.0])
@pytest.mark.parametrize("mean", [-1.2, 0.1, 0.97])
def test_bins_of_the_discretized_likelihood_fill_the_line(std: float, mean: float) -> None:
    values = torch.linspace(-1, 1, 256, dtype=torch.float64)
    log_var = torch.full_like(values, 2 * math.log(std))
    nll = discretized_nll(values, torch.full_like(values, mean), log_var)
    assert nll.isfinite().all()
    assert (-nll).exp().sum().item() == pytest.approx(1.0, abs=1e-6)
    cdf = Normal(values.new_tensor(mean), values.new_tensor(std)).cdf
    inner = (cdf(values + 1 / 255) - cdf(values - 1 / 255))[1:-1]
    seen = inner > 1e-8
    assert torch.allclose((-nll).exp()[1:-1][seen], inner[seen], rtol=1e-5)


def test_uncertainty_learns_the_loss_to_be_expected() -> None:
    """With u = log E[loss | sigma] the gradient is 0, so every level weighs 1 / E[loss]."""
    torch.manual_seed(0)
    uncertainty = Uncertainty()
    sigma = torch.linspace(-3, 3, 64).exp()
    expected = 0.01 + 0.5 * sigma / (1 + sigma)
    torch.testing.assert_close(uncertainty(expected, sigma), expected)
    optimizer = torch.optim.Adam(uncertainty.parameters(), lr=0.03)
    for _ in range(1500):
        optimizer.zero_grad()
        uncertainty(expected * (0.5 + torch.rand(64)), sigma).mean().backward()
        optimizer.step()
    loss = expected.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(uncertainty(loss, sigma).sum(), loss)
    torch.testing.assert_close(gradient * expected, torch.ones(64), rtol=0, atol=0.3)


def test_the_row_of_edm_is_read_by_its_old_name() -> None:
    """Files of version 0.1 call it karras; it is written by its new name."""
    old = from_dict(ProcessConfig, {"parametrization": "karras", "schedule": "edm"})
    assert old == ProcessConfig(parametrization="edm", schedule="edm")
    assert to_dict(old)["parametrization"] == "edm"
    assert old.build().parametrization.name == "edm"
