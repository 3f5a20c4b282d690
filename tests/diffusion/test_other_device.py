"""Sampling on another device than the CPU neither waits for it nor copies to it; torch's meta device stands for one."""

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from unclip.diffusion.denoiser import Denoised, noise_level, on_device, per_sample
from unclip.diffusion.guidance import classifier_free_batched, clip, switch
from unclip.diffusion.parametrization import Preconditioned, ProcessConfig
from unclip.diffusion.samplers import SAMPLERS

META = torch.device("meta")


class Copies(TorchDispatchMode):
    """Counts tensors copied from the CPU to the meta device. To look at a number there raises an error of its own."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        answer = func(*args, **(kwargs or {}))
        moved = isinstance(answer, Tensor) and answer.device == META
        if moved and func.overloadpacket in (torch.ops.aten._to_copy, torch.ops.aten.copy_):
            self.count += any(isinstance(one, Tensor) and one.device.type == "cpu" for one in args)
        return answer


class MetaNoise:
    def normal(self, *shape: int) -> Tensor:
        return torch.empty(2, *shape, device=META)


def network(x: Tensor, label: Tensor, condition: Tensor) -> Tensor:
    assert label.device == x.device == META
    return x.new_empty(len(x), 6, *x.shape[2:])


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("schedule", ["cosine", "edm"])
def test_a_guided_walk_neither_waits_nor_copies(sampler, schedule):
    learned = schedule == "cosine"
    process = ProcessConfig(parametrization="eps", schedule=schedule, learned_variance=learned).build()

    def half(*given: Tensor) -> Tensor:
        return network(*given)[:, : 6 if learned else 3]

    condition, x = torch.empty(2, 4, device=META), torch.empty(2, 3, 8, 8, device=META)
    model, grid = Preconditioned(half, process), process.grid(4)
    guided = classifier_free_batched(model, condition, condition, 3.0, interval=(1.0, 20.0))
    denoise = switch(clip(guided), model.bind(condition), float(grid[-2]))
    with Copies() as copies:
        for step in SAMPLERS[sampler](denoise, x, grid, noise=MetaNoise()):
            assert step.x.shape == x.shape
    assert copies.count == 0


def test_one_number_for_all_stays_where_it_is_and_others_move():
    like = torch.empty(3, 1, 2, 2, device=META)
    same = per_sample(noise_level(2.5, like), like)
    assert (same.device.type, same.dtype, same.ndim, same.item()) == ("cpu", torch.float32, 0, 2.5)
    others = per_sample(torch.tensor([1.0, 2.0, 3.0]), like)
    assert (others.device, others.shape) == (META, (3, 1, 1, 1))
    here = torch.ones(3, 1, 2, 2)
    assert per_sample(torch.tensor([2.0, 2.0, 2.0]), here).shape == (3, 1, 1, 1)


def test_labels_reach_the_device():
    for values in (torch.tensor([3.0, 3.0]), torch.tensor([1.0, 2.0])):
        assert on_device(values, META).device == META
        assert on_device(values, torch.device("cpu")) is values


def test_guidance_where_only_some_samples_are_inside():
    process = ProcessConfig(parametrization="x0", schedule="flow").build()
    model = Preconditioned(lambda x, label, value: value.expand_as(x), process)
    one, zero, x = torch.ones(2, 1), torch.zeros(2, 1), torch.zeros(2, 1)
    denoise = classifier_free_batched(model, one, zero, 3.0, interval=(1.0, 20.0))
    answer = denoise(x, torch.tensor([0.5, 5.0], dtype=torch.float64))
    assert isinstance(answer, Denoised)
    assert answer.x0.flatten().tolist() == [1.0, 3.0]
