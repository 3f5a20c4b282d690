"""Benchmark of ways to draw with less work in the decoder: likeness to 50 steps, by the bundled model in bfloat16.

    python benchmarks/fewer_calls.py [--number 8] [--only unipc]

`fast` and changes to it: other solvers in its place, guidance at fewer noise levels, and blocks in the middle of the decoder
whose change is used again at the next step (as DeepCache, arXiv 2312.00858, does in U-Nets). Work is counted in passes of one
picture through all blocks of the decoder; the default's prior and upsampler draw every row, so that they do not count. PSNR is
of the pixels at 64 px, in dB; the distance is 1 - cosine of the embeddings by the model's own CLIP.
"""

import argparse
import math
import statistics
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from fast import PROMPTS, psnr
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

import unclip
from unclip.diffusion.denoiser import Denoiser, Step, noise_level
from unclip.diffusion.samplers import SAMPLERS
from unclip.generate.model import Model
from unclip.networks.patch_transformer import PatchTransformer

Sampler = Callable[..., Iterator[Step]]


def dpmpp_3m(denoise: Denoiser, x: Tensor, sigmas: Tensor, **options: Any) -> Iterator[Step]:
    """DPM-Solver++(3M), from the last three estimates."""
    known: list[tuple[Tensor, float]] = []
    for i in range(len(sigmas) - 1):
        x0 = denoise(x, noise_level(sigmas[i], x)).x0
        if sigmas[i + 1] == 0:
            yield Step(i, x0, x0)
            return
        h = float((sigmas[i] / sigmas[i + 1]).log())
        second = math.expm1(-h) / h + 1
        x = math.exp(-h) * x - math.expm1(-h) * x0
        if known:
            slope = (x0 - known[-1][0]) * (h / known[-1][1])
            bend = torch.zeros_like(x0)
            if len(known) > 1:
                r0, r1 = known[-1][1] / h, known[-2][1] / h
                older = (known[-1][0] - known[-2][0]) / r1
                bend = (slope - older) / (r0 + r1)
                slope = slope + bend * r0
            x = x + second * slope - (second / h - 0.5) * bend
        known = [*known[-1:], (x0, h)]
        yield Step(i, x, x0)


def unipc(denoise: Denoiser, x: Tensor, sigmas: Tensor, **options: Any) -> Iterator[Step]:
    """UniPC of order 2 (arXiv 2302.04867), B(h) = e^h - 1: each state is corrected by the estimate made at it."""
    begun: tuple[Tensor, Tensor, float, Tensor | None, float] | None = None
    for i in range(len(sigmas) - 1):
        x0 = denoise(x, noise_level(sigmas[i], x)).x0
        if begun is not None:
            plain, before, h, older, r = begun
            scale = math.expm1(-h)
            first = (scale / -h - 1) / scale
            if older is None:
                x = plain - scale * 0.5 * (x0 - before)
            else:
                second = ((scale / -h - 1) / -h - 0.5) * 2 / scale
                # [[1, 1], [r, 1]] (a, b) = (first, second)
                a = (second - first) / (r - 1)
                x = plain - scale * (a * (older - before) / r + (first - a) * (x0 - before))
        if sigmas[i + 1] == 0:
            yield Step(i, x0, x0)
            return
        h = float((sigmas[i] / sigmas[i + 1]).log())
        plain = math.exp(-h) * x - math.expm1(-h) * x0
        older, r = (None, 0.0) if begun is None else (begun[1], -begun[2] / h)
        x = plain if older is None else plain - math.expm1(-h) * 0.5 * (older - x0) / r
        begun = plain, x0, h, older, r
        yield Step(i, x, x0)


class Counted:
    """The decoder's inside, counted in passes; with `reused`, those blocks change tokens as at the step before, every second step."""

    def __init__(self, net: PatchTransformer, reused: range):
        self.net, self.reused = net, reused
        self.passes, self.calls = 0.0, 0
        self._change: dict[int, Tensor] = {}

    def __call__(self, tokens: Tensor, modulation: Tensor, context: Tensor | None) -> Tensor:
        """As the net's own."""
        again = bool(self.reused) and self.calls % 2 == 1 and len(tokens) in self._change
        before = tokens
        for index, block in enumerate(self.net.blocks):
            if index == self.reused.start:
                before = tokens
            if again and index in self.reused:
                if index == self.reused.start:
                    tokens = tokens + self._change[len(tokens)]
                continue
            tokens = block(tokens, modulation, context)
            if self.reused and index == self.reused.stop - 1:
                self._change[len(tokens)] = tokens - before
            self.passes += len(tokens) / len(self.net.blocks)
        self.calls += 1
        return tokens


class Row(NamedTuple):
    """One way to draw: settings, and what takes the solver's or the blocks' place."""

    settings: dict[str, Any]
    solver: Sampler | None = None
    reused: range = range(0)


def _fast(steps: int = 6, low: float = 1.0, high: float = 20.0) -> dict[str, Any]:
    return {"steps": steps, "sampler": "dpmpp_2m", "guidance_interval": (low, high)}


ROWS = {
    "default, 10 steps": Row({}),
    "fast's decoder, 6 steps, guided in 1 to 20": Row(_fast()),
    "5 steps": Row(_fast(5)),
    "4 steps": Row(_fast(4)),
    "6 steps, guided in 2 to 20": Row(_fast(low=2.0)),
    "6 steps, guided in 0.5 to 20": Row(_fast(low=0.5)),
    "6 steps, guided in 1 to 5": Row(_fast(high=5.0)),
    "dpmpp_3m, 6 steps": Row(_fast(), dpmpp_3m),
    "dpmpp_3m, 5 steps": Row(_fast(5), dpmpp_3m),
    "unipc, 6 steps": Row(_fast(), unipc),
    "unipc, 5 steps": Row(_fast(5), unipc),
    "10 steps, 4 of 8 blocks every second step": Row({}, reused=range(2, 6)),
    "10 steps, guided in 1 to 20, 4 of 8 blocks": Row(_fast(10), reused=range(2, 6)),
    "6 steps, 4 of 8 blocks": Row(_fast(), reused=range(2, 6)),
    "another seed": Row({}),
}


def draw(model: Model, row: Row, prompts: tuple[str, ...], seed: int) -> tuple[list[Any], float]:
    """Pictures, and the passes of one."""
    usual = SAMPLERS["dpmpp_2m"]
    passes, made = [], []
    with model.parts.lend("decoder", nn.Module) as decoder:
        net: Any = decoder.get_submodule("net")
    for prompt in prompts:
        counted = Counted(net, row.reused)
        net.inside = counted
        # The prior goes on with its own solver: the decoder's steps are the only ones of three dimensions.
        SAMPLERS["dpmpp_2m"] = _of_pictures(row.solver, usual)
        try:
            made += model.generate(prompt, seed=seed, size=64, **row.settings)
        finally:
            SAMPLERS["dpmpp_2m"] = usual
            del net.inside
        passes.append(counted.passes)
    return [picture.image for picture in made], statistics.mean(passes)


def _of_pictures(solver: Sampler | None, usual: Any) -> Any:
    def choose(denoise: Denoiser, x: Tensor, sigmas: Tensor, **options: Any) -> Iterator[Step]:
        taken = usual if solver is None or x.ndim < 4 else solver
        return taken(denoise, x, sigmas, **options)

    return choose


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--number", type=int, default=len(PROMPTS), help="prompts (default: all)")
    parser.add_argument("--only", help="rows whose label holds this")
    arguments = parser.parse_args()
    model = unclip.load("artwork", device="cpu", dtype="bfloat16")
    prompts = PROMPTS[: arguments.number]
    references, _ = draw(model, Row({"steps": 50}), prompts, seed=1)
    embedded = model.embed_image(references)
    print("| decoder | passes | PSNR dB | CLIP distance |\n|---|---|---|---|")
    for label, row in ROWS.items():
        if arguments.only is not None and arguments.only not in label:
            continue
        made, passes = draw(model, row, prompts, seed=2 if label == "another seed" else 1)
        likeness = statistics.mean(psnr(a, b) for a, b in zip(made, references))
        distance = 1 - cosine_similarity(model.embed_image(made), embedded, dim=-1).mean().item()
        print(f"| {label} | {passes:.1f} | {likeness:.1f} | {distance:.3f} |", flush=True)


if __name__ == "__main__":
    main()
