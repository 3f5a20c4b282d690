"""Networks of the latent recipes, built without memory: as many parameters as the published ones have."""

import pytest
import torch

from unclip.networks.autoencoder import Autoencoder
from unclip.networks.clip import Clip
from unclip.networks.kandinsky import KandinskyDecoder
from unclip.networks.movq import Movq
from unclip.networks.text_decoder import TextDecoder
from unclip.recipes import kandinsky, stable_diffusion


@pytest.mark.parametrize(
    ("network", "recipe", "parameters"),
    [
        (Autoencoder, stable_diffusion.autoencoder, 83_653_863),
        (TextDecoder, stable_diffusion.text_decoder, 859_520_964),
        # 123,650,304 with the text projection, 303,966,208 with the image projection, and the temperature.
        (Clip, stable_diffusion.clip, 123_650_304 + 303_966_208 + 1),
        (Movq, kandinsky.autoencoder, 67_832_495),
        (KandinskyDecoder, kandinsky.kandinsky_decoder, 1_253_057_288),
    ],
)
def test_published_counts(network, recipe, parameters):
    with torch.device("meta"):
        assert sum(one.numel() for one in network(recipe().model).parameters()) == parameters
