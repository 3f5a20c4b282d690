"""CLIP's loss in pieces is the loss of the whole table of pairs, gradients included."""

import pytest
import torch

from unclip.networks.clip import Clip, ClipConfig, TextConfig, VisionConfig
from unclip.train.tasks.clip_loss import CaptionNames, pair_loss
from unclip.train.world import Division


@pytest.mark.parametrize("kind", ["contrastive", "sigmoid"])
@pytest.mark.parametrize("rows", [1, 4, 11])
def test_pieces_make_the_whole(kind, rows):
    torch.manual_seed(0)
    network = Clip(
        ClipConfig(
            embedding=8,
            loss=kind,
            vision=VisionConfig(size=16, patch=8, width=16, layers=1, heads=2),
            text=TextConfig(vocabulary=32, context=8, width=16, layers=1, heads=2),
        )
    )
    said = torch.arange(11) % 7
    captions = CaptionNames(said, said, torch.stack([said, (said + 3) % 9], dim=1))
    results = []
    for at_once in (11, 0):
        image, text = (torch.randn(11, 8, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
        image.requires_grad_(), text.requires_grad_()
        network.zero_grad()
        loss = pair_loss(network, image, text, captions, Division((11,)), rows=rows, at_once=at_once)
        loss.backward()
        biases = [] if network.logit_bias is None else [network.logit_bias.grad]
        results.append([loss.detach(), image.grad, text.grad, network.logit_scale.grad, *biases])
    torch.testing.assert_close(results[0], results[1], rtol=1e-5, atol=1e-6)
