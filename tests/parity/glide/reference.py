"""GLIDE after its authors' code (https://github.com/openai/glide-text2im), rewritten for these tests alone.

Names of weights are those of the released files. The published package is not on PyPI. Sampling takes its noise from a
function, so that another implementation can be given the same.
"""

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F


def sinusoids(times: Tensor, width: int) -> Tensor:
    rates = torch.exp(torch.arange(width // 2) * (-math.log(10_000) / (width // 2)))
    angles = times[:, None].float() * rates
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class Residual(nn.Module):
    def __init__(self, into: int, out: int, width: int, change: str = ""):
        super().__init__()
        self.change = change
        self.in_layers = nn.Sequential(nn.GroupNorm(32, into), nn.SiLU(), nn.Conv2d(into, out, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * out))
        self.out_layers = nn.Sequential(
            nn.GroupNorm(32, out), nn.SiLU(), nn.Identity(), nn.Conv2d(out, out, 3, padding=1)
        )
        self.skip_connection = nn.Identity() if into == out else nn.Conv2d(into, out, 1)

    def resized(self, x: Tensor) -> Tensor:
        if self.change == "down":
            return F.avg_pool2d(x, 2)
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3) if self.change == "up" else x

    def forward(self, x: Tensor, time: Tensor, text: Tensor) -> Tensor:
        h = self.in_layers[2](self.resized(self.in_layers[:2](x)))
        scale, shift = self.emb_layers(time)[..., None, None].chunk(2, dim=1)
        h = self.out_layers[1:](self.out_layers[0](h) * (1 + scale) + shift)
        return self.skip_connection(self.resized(x)) + h


class Attention(nn.Module):
    def __init__(self, width: int, head: int, text: int):
        super().__init__()
        self.head = head
        self.norm = nn.GroupNorm(32, width)
        self.qkv = nn.Conv1d(width, 3 * width, 1)
        self.encoder_kv = nn.Conv1d(text, 2 * width, 1)
        self.proj_out = nn.Conv1d(width, width, 1)

    def forward(self, x: Tensor, time: Tensor, text: Tensor) -> Tensor:
        heads = []
        own = self.qkv(self.norm(x).flatten(2)).split(3 * self.head, dim=1)
        read = self.encoder_kv(text.transpose(1, 2)).split(2 * self.head, dim=1)
        for mine, given in zip(own, read, strict=True):
            q, k, v = mine.chunk(3, dim=1)
            text_k, text_v = given.chunk(2, dim=1)
            keys, values = torch.cat([text_k, k], 2), torch.cat([text_v, v], 2)
            weights = (q.transpose(1, 2) @ keys / math.sqrt(self.head)).softmax(-1)
            heads.append(values @ weights.transpose(1, 2))
        return x + self.proj_out(torch.cat(heads, dim=1)).view_as(x)


class Step(nn.Sequential):
    def forward(self, x: Tensor, time: Tensor, text: Tensor) -> Tensor:
        for layer in self:
            x = layer(x) if isinstance(layer, nn.Conv2d) else layer(x, time, text)
        return x


class TextAttention(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.c_qkv, self.c_proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        found = []
        for one in self.c_qkv(x).chunk(self.heads, dim=-1):
            q, k, v = one.chunk(3, dim=-1)
            found.append((q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])).softmax(-1) @ v)
        return self.c_proj(torch.cat(found, dim=-1))


class TextBlock(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.attn, self.ln_1, self.ln_2 = (
            TextAttention(width, heads),
            nn.LayerNorm(width),
            nn.LayerNorm(width),
        )
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(width, 4 * width), "c_proj": nn.Linear(4 * width, width)})

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp["c_proj"](F.gelu(self.mlp["c_fc"](self.ln_2(x))))


class Net(nn.Module):
    """Base or upsampler: the latter, and those that inpaint, differ in `inputs`, the channels that are read."""

    def __init__(
        self,
        *,
        inputs: int = 3,
        channels: int = 192,
        multiples: tuple[int, ...] = (1, 2, 3, 4),
        blocks: int = 3,
        attending: tuple[int, ...] = (1, 2, 3),
        head: int = 64,
        vocabulary: int = 50257,
        context: int = 128,
        width: int = 512,
        layers: int = 16,
        heads: int = 8,
    ):
        super().__init__()
        self.channels, time = channels, 4 * channels
        self.time_embed = nn.Sequential(nn.Linear(channels, time), nn.SiLU(), nn.Linear(time, time))
        kept, current = [channels], channels
        self.input_blocks = nn.ModuleList([Step(nn.Conv2d(inputs, channels, 3, padding=1))])
        for level, multiple in enumerate(multiples):
            for _ in range(blocks):
                step = [Residual(current, multiple * channels, time)]
                current = multiple * channels
                if level in attending:
                    step.append(Attention(current, head, width))
                self.input_blocks.append(Step(*step))
                kept.append(current)
            if level < len(multiples) - 1:
                self.input_blocks.append(Step(Residual(current, current, time, "down")))
                kept.append(current)
        self.middle_block = Step(
            Residual(current, current, time),
            Attention(current, head, width),
            Residual(current, current, time),
        )
        self.output_blocks = nn.ModuleList()
        for level in reversed(range(len(multiples))):
            for index in range(blocks + 1):
                step = [Residual(current + kept.pop(), multiples[level] * channels, time)]
                current = multiples[level] * channels
                if level in attending:
                    step.append(Attention(current, head, width))
                if level and index == blocks:
                    step.append(Residual(current, current, time, "up"))
                self.output_blocks.append(Step(*step))
        self.out = nn.Sequential(nn.GroupNorm(32, current), nn.SiLU(), nn.Conv2d(current, 6, 3, padding=1))
        self.transformer = nn.ModuleDict(
            {"resblocks": nn.ModuleList(TextBlock(width, heads) for _ in range(layers))}
        )
        self.final_ln = nn.LayerNorm(width)
        self.token_embedding = nn.Embedding(vocabulary, width)
        self.positional_embedding = nn.Parameter(torch.empty(context, width))
        self.padding_embedding = nn.Parameter(torch.empty(context, width))
        self.transformer_proj = nn.Linear(width, time)

    def forward(self, x: Tensor, times: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """Eps and variance of what `inputs` channels hold, for captions of which the tokens in `mask` count."""
        text = self.token_embedding(tokens) + self.positional_embedding
        text = torch.where(mask[..., None], text, self.padding_embedding)
        for block in self.transformer["resblocks"]:
            text = block(text)
        text = self.final_ln(text)
        time = self.time_embed(sinusoids(times, self.channels)) + self.transformer_proj(text[:, -1])
        kept = []
        for step in self.input_blocks:
            x = step(x, time, text)
            kept.append(x)
        x = self.middle_block(x, time, text)
        for step in self.output_blocks:
            x = step(torch.cat([x, kept.pop()], dim=1), time, text)
        return self.out(x)


UPSAMPLER: dict[str, Any] = {
    "inputs": 6,
    "multiples": (1, 1, 2, 2, 4, 4),
    "blocks": 2,
    "attending": (3, 4, 5),
}


def cosine_betas() -> np.ndarray:
    share = [math.cos((t / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(1001)]
    return np.array([min(1 - after / before, 0.999) for before, after in itertools.pairwise(share)])


def linear_betas() -> np.ndarray:
    return np.linspace(1e-4, 0.02, 1000)


def sections(*counts: int) -> list[int]:
    """Times of equal sections of the 1000, the one of least noise first, each with so many times."""
    times: list[int] = []
    for index, count in enumerate(counts):
        length = 1000 // len(counts)
        stride = (length - 1) / max(count - 1, 1)
        times += [index * length + round(k * stride) for k in range(count)]
    return times


FAST27 = sorted({*sections(10, 10, 3, 2, 2)} - {999} | {997})


def sample(
    predict: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    betas: np.ndarray,
    times: list[int],
    draw: Callable[[Tensor], Tensor],
    *,
    ddim: bool = False,
    known: Tensor | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """Ancestral sampling with the learned variance, or DDIM; the known pixels, where `mask` is 1, are put into x0.

    `predict` gives eps and variance of x at the given times of the 1000; x and betas should be float64.
    """
    kept = np.cumprod(1 - betas)[times]
    before = np.append(1.0, kept[:-1])
    own = 1 - kept / before
    posterior = own * (1 - before) / (1 - kept)
    smallest = np.log(np.append(posterior[1], posterior[1:]))
    for index in reversed(range(len(times))):
        answer = predict(x, torch.full((len(x),), times[index]))
        eps, variance = answer[:, :3], answer[:, 3:]
        x0 = (x - math.sqrt(1 - kept[index]) * eps) / math.sqrt(kept[index])
        if known is not None and mask is not None:
            x0 = x0 * (1 - mask) + known * mask
        x0 = x0.clamp(-1, 1)
        if ddim:
            eps = (x - math.sqrt(kept[index]) * x0) / math.sqrt(1 - kept[index])
            x = math.sqrt(before[index]) * x0 + math.sqrt(1 - before[index]) * eps
            continue
        mean = own[index] * math.sqrt(before[index]) / (1 - kept[index]) * x0
        mean = mean + (1 - before[index]) * math.sqrt(1 - own[index]) / (1 - kept[index]) * x
        share = (variance + 1) / 2
        log_variance = share * math.log(own[index]) + (1 - share) * smallest[index]
        x = mean + (0.5 * log_variance).exp() * draw(x) if index else mean
    return x
