"""What `--fast` costs in likeness: its pictures and the default ones beside those of 50 steps, by the bundled model.

    python benchmarks/fast.py [--model artwork] [--number 8]

PSNR is of the pixels, in dB; the distance is 1 - cosine of the embeddings by the model's own CLIP. "another seed" shows
how far two pictures of one caption are apart in any case.
"""

import argparse
import statistics
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image
from torch.nn.functional import cosine_similarity
from unclip.generate.system import System

import unclip

PROMPTS = (
    "a red apple",
    "a cat to the left of a blue car",
    "a green rocket, 3d style",
    "a smiling sun, flat style",
    "two yellow stars",
    "a purple umbrella",
    "a brown dog, noto style",
    "a slice of pizza",
)
FIFTY: dict[str, Any] = {"steps": 50, "prior_steps": 50, "upsampler_steps": 15}


def rows(system: System) -> dict[str, Mapping[str, Any]]:
    """What is compared with 50 steps: label -> the knobs that differ from the model's own."""
    steps = system.defaults.steps
    return {f"default, {steps} steps": {}, "--fast": {"fast": True}, "another seed, 50 steps": FIFTY}


def psnr(a: Image.Image, b: Image.Image) -> float:
    """The peak signal-to-noise ratio in dB; 100 for equal pictures."""
    error = np.square(np.asarray(a, dtype=float) - np.asarray(b, dtype=float)).mean()
    return 10 * np.log10(255**2 / error) if error else 100.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="artwork", help="a bundled model or a folder (default: artwork)")
    parser.add_argument("--number", type=int, default=len(PROMPTS), help="prompts (default: all)")
    arguments = parser.parse_args()
    system = unclip.load(arguments.model, device="cpu")
    prompts = PROMPTS[: arguments.number]
    references = [system.generate(prompt, seed=1, **FIFTY)[0].image for prompt in prompts]
    embedded = system.embed_image(references)
    print("| setting | s | PSNR dB | CLIP distance |\n|---|---|---|---|")
    for label, knobs in rows(system).items():
        start = time.perf_counter()
        seed = 2 if label.startswith("another") else 1
        made = [system.generate(prompt, seed=seed, **knobs)[0].image for prompt in prompts]
        seconds = (time.perf_counter() - start) / len(prompts)
        likeness = statistics.mean(psnr(a, b) for a, b in zip(made, references))
        distance = 1 - cosine_similarity(system.embed_image(made), embedded, dim=-1).mean().item()
        print(f"| {label} | {seconds:.2f} | {likeness:.1f} | {distance:.3f} |", flush=True)


if __name__ == "__main__":
    main()
