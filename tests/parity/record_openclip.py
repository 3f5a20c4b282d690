"""List the weights of OpenCLIP's models at full size, for `test_full_size.py`: the package needs torchvision, which CLIP does not.

By hand:

    pip install --no-deps --target openclip open_clip_torch==3.3.0
    python tests/parity/record_openclip.py openclip
"""

import importlib
import json
import re
import sys
import types
from pathlib import Path
from unittest.mock import MagicMock

import torch

HERE = Path(__file__).parent
MODELS = ("ViT-L-14", "ViT-H-14", "ViT-bigG-14")


def main(folder: str) -> None:
    """Write names and shapes, a line for all layers of a tower, and the configs beside them."""
    for name in ("torchvision", "torchvision.ops", "torchvision.ops.misc"):
        sys.modules[name] = MagicMock()
    # Only its towers from other libraries need this one, which looks for torchvision itself.
    sys.modules["transformers"] = None
    home = types.ModuleType("open_clip")
    home.__path__ = [str(Path(folder) / "open_clip")]
    sys.modules["open_clip"] = home
    module = importlib.import_module("open_clip.model")
    lines, configs = {}, {}
    for name in MODELS:
        config = json.loads((Path(folder) / "open_clip" / "model_configs" / f"{name}.json").read_text())
        configs[name] = config
        with torch.device("meta"):
            made = module.CLIP(**config)
        for key, value in made.state_dict().items():
            tower = config["vision_cfg" if key.startswith("visual.") else "text_cfg"]
            template = re.sub(r"resblocks\.\d+\.", f"resblocks.{{{tower['layers']}}}.", key)
            lines[f"{name}/{template}"] = "x".join(map(str, value.shape))
    text = "\n".join(f"{key} {shape}".strip() for key, shape in lines.items())
    (HERE / "openclip.txt").write_text(text + "\n")
    (HERE / "openclip.json").write_text(json.dumps(configs, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
