"""What every model promises: types, independence of the batch, gradients everywhere, and that it can learn."""

import io
import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from unclip import config as configs
from unclip.diffusion.parametrization import ProcessConfig
from unclip.networks.clip import Clip, ClipConfig, TextConfig, VisionConfig
from unclip.networks.decoder import CaptionConfig, Decoder, DecoderCondition, DecoderConfig
from unclip.networks.patch_transformer import PatchTransformerConfig
from unclip.networks.prior_diffusion import (
    DiffusionPrior,
    DiffusionPriorConfig,
    EmbeddingDiffusion,
    PriorCondition,
)
from unclip.networks.prior_laion import LaionPrior, LaionPriorConfig
from unclip.networks.unet import UnetConfig
from unclip.networks.upsampler import Upsampler, UpsamplerConfig

BATCH = 3
TEXT = {"vocabulary": 12, "context": 5, "end": 11}
TOKENS = torch.tensor([[10, 1, 11, 0, 0], [10, 2, 3, 4, 11], [10, 5, 6, 11, 0]])
SOME = torch.tensor([True, False, True])


def draw(*shape: int) -> Tensor:
    return torch.randn(BATCH, *shape, generator=torch.Generator().manual_seed(sum(shape)))


class Case(NamedTuple):
    """A model, inputs with one row a sample, and the call that makes one row a sample of them."""

    model: type[nn.Module]
    config: Any
    inputs: tuple[Tensor, ...]
    call: Callable[..., Tensor]
    shape: tuple[int, ...]

    def build(self, seed: int = 0, start: bool = False) -> nn.Module:
        """New, or away from the start, where some layers are zero and would hide what goes into them."""
        torch.manual_seed(seed)
        model = self.model(self.config)
        if not start:
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(0.1 * torch.randn(parameter.shape))
        return model


def prior(model: EmbeddingDiffusion, x: Tensor, label: Tensor, *condition: Tensor) -> Tensor:
    return model(x, label, PriorCondition(*condition))


def decoder(model: Decoder, x: Tensor, label: Tensor, *condition: Tensor) -> Tensor:
    return model(x, label, model.encode(DecoderCondition(*condition)))


def upsampler(model: Upsampler, x: Tensor, label: Tensor, low: Tensor) -> Tensor:
    return model(x, label, model.condition(low))


CLIP = ClipConfig(
    embedding=6,
    vision=VisionConfig(size=8, patch=4, width=16, layers=1, heads=2),
    text=TextConfig(width=16, layers=1, heads=2, **TEXT),
)
UNET = UnetConfig(
    in_channels=7,
    out_channels=6,
    channels=16,
    multiples=(1, 2),
    blocks=1,
    attention_levels=(1,),
    head_channels=8,
    context_width=12,
    vector_width=16,
    groups=4,
)
PATCHES = PatchTransformerConfig(
    size=8,
    in_channels=7,
    out_channels=6,
    patch=4,
    width=16,
    layers=1,
    head_channels=8,
    context_width=12,
)
LABEL = torch.tensor([10.0, 500.0, 900.0])
DRAWING = (draw(3, 8, 8), LABEL, draw(6), TOKENS, SOME, ~SOME, draw(4, 8, 8))


def decoder_case(net: UnetConfig | PatchTransformerConfig) -> Case:
    caption = CaptionConfig(width=16, layers=1, heads=2, **TEXT)
    config = DecoderConfig(net=net, size=8, embedding=6, caption=caption, inpainting=True)
    return Case(Decoder, config, DRAWING, decoder, (6, 8, 8))


CASES = {
    "clip pictures": Case(Clip, CLIP, (draw(3, 8, 8).clamp(-1, 1),), Clip.encode_image, (6,)),
    "clip captions": Case(Clip, CLIP, (TOKENS,), lambda model, t: model.encode_text(t).embedding, (6,)),
    "prior": Case(
        DiffusionPrior,
        DiffusionPriorConfig(embedding=6, context=5, text_width=7, width=16, layers=1, heads=2),
        (draw(6), LABEL, draw(6), draw(5, 7), TOKENS > 0, SOME),
        prior,
        (6,),
    ),
    "laion prior": Case(
        LaionPrior,
        LaionPriorConfig(embedding=8, context=7, layers=1, heads=2, head_channels=6, norm_inside=True),
        (draw(8), LABEL, draw(8), draw(5, 8), TOKENS > 0, SOME),
        prior,
        (8,),
    ),
    "unet decoder": decoder_case(UNET),
    "patch decoder": decoder_case(PATCHES),
    "upsampler": Case(
        Upsampler,
        UpsamplerConfig(
            net=UnetConfig(in_channels=6, out_channels=3, channels=16, multiples=(1, 2), blocks=1, groups=4),
            process=ProcessConfig(parametrization="eps", schedule="cosine"),
            low_size=4,
            high_size=8,
        ),
        (draw(3, 8, 8), LABEL, draw(3, 4, 4).clamp(-1, 1)),
        upsampler,
        (3, 8, 8),
    ),
}
every = pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))


def rows(tensors: Sequence[Tensor], index: int) -> list[Tensor]:
    return [tensor[index : index + 1] for tensor in tensors]


def leaks_between_samples(call: Callable[..., Tensor], inputs: Sequence[Tensor]) -> bool:
    """Whether a sample's answer depends on those beside it."""
    together = call(*inputs)
    return any(
        not torch.allclose(call(*rows(inputs, index)), together[index : index + 1], atol=1e-5, rtol=1e-4)
        for index in range(len(together))
    )


def without_gradient(model: nn.Module, answer: Tensor) -> list[str]:
    """The parameters that do not matter to an answer."""
    weights = torch.randn(answer.shape, generator=torch.Generator().manual_seed(9))
    model.zero_grad()
    (answer * weights).sum().backward()
    return [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is None or not parameter.grad.isfinite().all() or not parameter.grad.any()
    ]


def fit(model: nn.Module, loss: Callable[[], Tensor], steps: int = 120) -> tuple[float, float]:
    """The loss before and after some steps on the same batch."""
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        value = loss()
        value.backward()
        optimizer.step()
        losses.append(value.item())
    return losses[0], losses[-1]


@every
def test_answers_are_float32_of_the_promised_shape(case):
    answer = case.call(case.build(), *case.inputs)
    assert answer.shape == (BATCH, *case.shape)
    assert answer.dtype == torch.float32
    assert answer.isfinite().all()


@every
def test_bfloat16_inside_and_float32_outside(case):
    """Without any warning, too: of mixed types, for one."""
    model = case.build()
    exact = case.call(model, *case.inputs)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = case.call(model, *case.inputs)
    assert rounded.dtype == torch.float32
    difference = (rounded - exact).abs().max() / exact.abs().max()
    assert 0 < difference < 0.05


@every
def test_weights_are_the_whole_model(case):
    file = io.BytesIO()
    saved, loaded = case.build(), case.build(seed=1)
    torch.save(saved.state_dict(), file)
    expected = case.call(saved, *case.inputs)
    assert not torch.allclose(case.call(loaded, *case.inputs), expected, atol=1e-3)
    file.seek(0)
    loaded.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(case.call(loaded, *case.inputs), expected)


@every
def test_a_config_survives_json(case):
    assert (
        configs.from_dict(type(case.config), json.loads(json.dumps(configs.to_dict(case.config))))
        == case.config
    )


@every
def test_a_sample_does_not_see_its_batch(case):
    model = case.build()
    assert not leaks_between_samples(lambda *inputs: case.call(model, *inputs), case.inputs)


@every
def test_gradients_reach_every_parameter(case):
    model = case.build()
    unused = without_gradient(model, case.call(model, *case.inputs))
    if case.model is Clip:
        # One tower at a time; the loss joins them.
        other = "vision" if case.shape == (6,) and case.inputs[0] is TOKENS else "text"
        assert all(name.startswith((other, "logit_scale")) for name in unused)
    else:
        assert unused == []


@pytest.mark.parametrize(("loss", "share"), [("contrastive", 0.2), ("sigmoid", 0.5)])
def test_clips_loss_reaches_every_parameter_and_can_be_learned(loss, share):
    torch.manual_seed(0)
    clip = Clip(configs.override(CLIP, [f"loss={loss}"]))
    (pictures,) = CASES["clip pictures"].inputs

    def value() -> Tensor:
        return clip.loss(clip.encode_image(pictures), clip.encode_text(TOKENS).embedding)

    assert without_gradient(clip, value()) == []
    before, after = fit(clip, value, 60)
    assert after < share * before


@pytest.mark.parametrize("name", ["prior", "unet decoder", "patch decoder", "upsampler"])
def test_a_new_model_learns_one_batch(name):
    """Each sample has a colour of its own, or an embedding, to be told from what the model is given."""
    case = CASES[name]
    model = case.build(start=True)
    target = draw(case.shape[0]).reshape(BATCH, -1, *(1 for _ in case.shape[1:])).expand(BATCH, *case.shape)
    before, after = fit(model, lambda: (case.call(model, *case.inputs) - target).square().mean())
    assert before > 0.5
    assert after < 0.05 * before


class Broken(nn.Module):
    """Looks at its batch, and has a parameter that it does not use."""

    def __init__(self):
        super().__init__()
        self.used, self.dead = nn.Parameter(torch.ones(6)), nn.Parameter(torch.ones(6))

    def forward(self, x: Tensor) -> Tensor:
        return self.used * (x - x.mean(0))


def test_the_checks_can_fail():
    broken = Broken()
    assert leaks_between_samples(broken, [draw(6)])
    assert without_gradient(broken, broken(draw(6))) == ["dead"]
    # It cannot tell a batch of equal samples apart, so it cannot learn different answers for them.
    same, target = torch.ones(BATCH, 6), draw(6)
    before, after = fit(broken, lambda: (broken(same) - target).square().mean())
    assert after > 0.9 * before
