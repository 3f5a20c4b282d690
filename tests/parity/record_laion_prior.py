"""Record what lucidrains' own package computes, for `test_laion_prior.py`: it cannot be installed beside the tests.

It needs torchvision, kornia and more, which its prior never uses; here they are replaced by nothing. By hand:

    pip install --no-deps --target now dalle2-pytorch==1.15.6 rotary-embedding-torch
    pip install --no-deps --target first dalle2-pytorch==1.1.0
    python tests/parity/record_laion_prior.py now first
"""

import importlib
import json
import re
import sys
import types
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import torch
from einops import repeat
from safetensors.torch import save_file
from torch import Tensor

HERE = Path(__file__).parent
UNUSED = (
    "torchvision",
    "torchvision.transforms",
    "kornia",
    "kornia.filters",
    "kornia.augmentation",
    "resize_right",
)
UNUSED += (
    "x_clip",
    "coca_pytorch",
    "einops_exts",
    "einops_exts.torch",
    "dalle2_pytorch.tokenizer",
    "dalle2_pytorch.vqgan_vae",
)

SIZES = {"dim": 16, "depth": 2, "dim_head": 36, "heads": 2, "ff_mult": 2, "max_text_len": 12}
NETS: dict[str, dict[str, Any]] = {
    "plain": SIZES | {"num_timesteps": 25, "normformer": True},
    "other": SIZES
    | {
        "num_timesteps": None,
        "num_time_embeds": 2,
        "num_image_embeds": 2,
        "num_text_embeds": 3,
        "norm_in": True,
    }
    | {"norm_out": False, "final_proj": False, "rotary_emb": False},
    "first": SIZES | {"num_timesteps": 25, "normformer": True},
}
# What the package's guide (prior.md) loads its ViT-L/14 prior with.
FULL = {"dim": 768, "depth": 24, "dim_head": 64, "heads": 32, "normformer": True, "num_timesteps": 1000}
FULL |= {"max_text_len": 77}


def package(folder: str) -> types.ModuleType:
    """The package's main module, without what its prior does not use."""
    for name in [name for name in sys.modules if name.startswith("dalle2_pytorch")]:
        del sys.modules[name]
    for name in UNUSED:
        sys.modules[name] = MagicMock()
    sys.modules["einops_exts"].repeat_many = lambda tensors, *given, **sizes: [
        repeat(tensor, *given, **sizes) for tensor in tensors
    ]
    home = types.ModuleType("dalle2_pytorch")
    home.__path__ = [str(Path(folder) / "dalle2_pytorch")]
    sys.modules["dalle2_pytorch"] = home
    # x_clip.CLIP and CoCa are asked for by isinstance.
    sys.modules["x_clip"].CLIP = sys.modules["coca_pytorch"].CoCa = type("Nothing", (), {})
    return importlib.import_module("dalle2_pytorch.dalle2_pytorch")


def prior(module: types.ModuleType, net: dict[str, Any]) -> Any:
    return module.DiffusionPrior(
        net=module.DiffusionPriorNetwork(**net),
        image_embed_dim=net["dim"],
        timesteps=net["num_timesteps"] or 1000,
        cond_drop_prob=0.1,
    )


@torch.no_grad()
def record(module: types.ModuleType, name: str) -> dict[str, Tensor]:
    net = NETS[name]
    torch.manual_seed(len(name))
    made = prior(module, net).eval()
    for key, parameter in made.net.named_parameters():
        if not key.endswith("freqs"):
            parameter.add_(0.2 * torch.randn(parameter.shape))
    # Longer and shorter than the longest caption; a state of zeros is padding, as the package's CLIPs give it.
    lengths = torch.tensor([9, 3, 1])
    text, states = torch.randn(3, 16), torch.randn(3, 9, 16)
    states = states * (torch.arange(9) < lengths[:, None])[..., None]
    text = torch.nn.functional.normalize(text, dim=-1)
    x, times = torch.randn(3, 16), torch.tensor([0, 11, 24])
    condition = {"text_embed": text, "text_encodings": states}
    # The first versions take whole numbers for labels; the sinusoids of later ones take them as fractions.
    found = {"x": x, "times": times.float(), "text": text, "states": states, "lengths": lengths}
    found["answer"] = made.net(x, times, **condition)
    if name != "first":
        found["without caption"] = made.net(x, times, **condition, text_cond_drop_prob=1.0)
    if name == "plain":
        torch.manual_seed(3)
        drawn = {key: value[:1] for key, value in condition.items()}
        found["sample"] = made.p_sample_loop((1, 16), drawn)
        torch.manual_seed(3)
        found["noise"] = torch.stack([torch.randn(1, 16) for _ in range(1 + 25)])
    weights = {
        key: value for key, value in made.state_dict().items() if not key.startswith("noise_scheduler")
    }
    return {f"{name}/{key}": value.clone() for key, value in found.items()} | {
        f"{name}/weights/{key}": value.clone() for key, value in weights.items()
    }


def keys(module: types.ModuleType, name: str) -> list[str]:
    """Names and shapes at full size, a line for all layers."""
    with torch.device("meta"):
        made = prior(module, FULL)
    lines = {}
    for key, value in made.state_dict().items():
        template = re.sub(r"layers\.\d+\.", f"layers.{{{FULL['depth']}}}.", key)
        lines[f"{name}/{template}"] = "x".join(map(str, value.shape))
    return [f"{key} {shape}".strip() for key, shape in lines.items()]


def main(now: str, first: str) -> None:
    sys.path.insert(0, now)
    module = package(now)
    tensors, lines = record(module, "plain") | record(module, "other"), keys(module, "now")
    module = package(first)
    tensors |= record(module, "first")
    lines += keys(module, "first")
    save_file(tensors, HERE / "laion_prior.safetensors", metadata={"nets": json.dumps(NETS)})
    (HERE / "laion_prior.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
