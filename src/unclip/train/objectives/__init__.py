"""The stages' objectives, by name."""

import torch

from unclip.rng import derive
from unclip.train.config import TrainConfig
from unclip.train.objective import Objective


def build_objective(config: TrainConfig, device: torch.device) -> Objective:
    """The objective that `config.stage` names, with its data and a fresh network, drawn by the seed, on `device`."""
    torch.manual_seed(derive(config.seed, config.stage, "weights"))
    match config.stage:
        case "clip":
            from unclip.train.objectives.clip import ClipObjective

            return ClipObjective(config, device)
        case "prior":
            from unclip.train.objectives.prior import PriorObjective

            return PriorObjective(config, device)
        case "prior_autoregressive":
            from unclip.train.objectives.prior_autoregressive import AutoregressivePriorObjective

            return AutoregressivePriorObjective(config, device)
        case "decoder":
            from unclip.train.objectives.decoder import DecoderObjective

            return DecoderObjective(config, device)
        case "upsampler" | "upsampler_1024":
            from unclip.train.objectives.upsampler import UpsamplerObjective

            return UpsamplerObjective(config, device)
