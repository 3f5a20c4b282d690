"""Digest of a network's weights, the same whatever file they come from and whatever device they are on."""

import hashlib

import torch
from torch import nn


def weights_digest(network: nn.Module) -> str:
    """32 hexadecimal digits of names, types, shapes and values of all weights and buffers that are saved."""
    state = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        state.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        state.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return state.hexdigest()[:32]
