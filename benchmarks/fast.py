"""Benchmark of `--fast`: likeness of its pictures, and of the default ones, to those of 50 steps, for the bundled model.

    python benchmarks/fast.py [--model artwork] [--number 8]
    python benchmarks/fast.py --model FOLDER --reference default --prompts "a red square" "a blue circle"

PSNR is of the pixels, in dB; the distance is 1 - cosine of the embeddings by the model's own CLIP. "another seed" is the
distance of two unrelated pictures of one caption. With `--reference default`, pictures are compared with the model's own
settings in place of 50 steps. Seconds are of processor time.
"""

import argparse
import statistics
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image
from torch.nn.functional import cosine_similarity

import unclip
from unclip.generate.model import Model

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


def rows(model: Model, *, own: bool) -> dict[str, Mapping[str, Any]]:
    """Settings compared with 50 steps or the model's `own`, by their labels, as changes to its defaults."""
    steps = model.defaults.decoder.steps
    if own:
        return {f"default, {steps} steps": {}, "--fast": {"fast": True}, "another seed, default": {}}
    return {f"default, {steps} steps": {}, "--fast": {"fast": True}, "another seed, 50 steps": FIFTY}


def psnr(a: Image.Image, b: Image.Image) -> float:
    """Peak signal-to-noise ratio in dB; 100 for equal pictures."""
    error = np.square(np.asarray(a, dtype=float) - np.asarray(b, dtype=float)).mean()
    return 10 * np.log10(255**2 / error) if error else 100.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="artwork", help="a bundled model or a folder (default: artwork)")
    parser.add_argument("--number", type=int, default=len(PROMPTS), help="prompts (default: all)")
    parser.add_argument("--prompts", nargs="+", default=PROMPTS, metavar="PROMPT", help="others")
    parser.add_argument("--reference", choices=("50", "default"), default="50", help="settings (default: 50)")
    arguments = parser.parse_args()
    model = unclip.load(arguments.model, device="cpu")
    prompts, own = arguments.prompts[: arguments.number], arguments.reference == "default"
    references = [model.generate(prompt, seed=1, **({} if own else FIFTY))[0].image for prompt in prompts]
    embedded = model.embed_image(references)
    print("| setting | CPU s | PSNR dB | CLIP distance |\n|---|---|---|---|")
    for label, settings in rows(model, own=own).items():
        start = time.process_time()
        seed = 2 if label.startswith("another") else 1
        made = [model.generate(prompt, seed=seed, **settings)[0].image for prompt in prompts]
        seconds = (time.process_time() - start) / len(prompts)
        likeness = statistics.mean(psnr(a, b) for a, b in zip(made, references))
        distance = 1 - cosine_similarity(model.embed_image(made), embedded, dim=-1).mean().item()
        print(f"| {label} | {seconds:.2f} | {likeness:.1f} | {distance:.3f} |", flush=True)


if __name__ == "__main__":
    main()
