"""The decoder: its conditions, the same for both nets."""

from dataclasses import replace

import pytest
import torch

from unclip.diffusion.parametrization import Preconditioned, ProcessConfig
from unclip.diffusion.samplers import ddim, sample
from unclip.networks.clip import TextEncoding
from unclip.networks.decoder import CaptionConfig, Decoder, DecoderCondition, DecoderConfig
from unclip.networks.patch_transformer import PatchTransformer, PatchTransformerConfig
from unclip.networks.unet import Unet, UnetConfig

END = 11
NETS = {
    "unet": UnetConfig(
        in_channels=7,
        out_channels=6,
        channels=8,
        multiples=(1, 2),
        blocks=1,
        attention_levels=(1,),
        head_channels=4,
        context_width=10,
        vector_width=12,
        groups=4,
    ),
    "patch_transformer": PatchTransformerConfig(
        size=8, in_channels=7, out_channels=6, patch=4, width=16, layers=2, head_channels=8, context_width=10
    ),
}


def config(net: str, /, **changes) -> DecoderConfig:
    return replace(
        DecoderConfig(
            net=NETS[net],
            size=8,
            embedding=6,
            caption=CaptionConfig(vocabulary=12, context=5, end=END, width=8, layers=1, heads=2),
            inpainting=True,
        ),
        **changes,
    )


def build(net: str, /, **changes) -> Decoder:
    """A decoder away from its start, where the last layers and the null embedding are zero."""
    torch.manual_seed(0)
    decoder = Decoder(config(net, **changes)).eval()
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape))
    return decoder


def condition() -> DecoderCondition:
    generator = torch.Generator().manual_seed(1)
    return DecoderCondition(
        image_embedding=torch.randn(3, 6, generator=generator),
        tokens=torch.tensor([[10, 1, END, 0, 0], [10, 2, 3, 4, END], [10, 5, 6, END, 0]]),
        keep_image=torch.ones(3, dtype=torch.bool),
        keep_caption=torch.ones(3, dtype=torch.bool),
        hint=torch.randn(3, 4, 8, 8, generator=generator),
    )


def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(2)), torch.tensor(
        [0.0, 500.0, 999.0]
    )


def draw(decoder: Decoder, given: DecoderCondition) -> torch.Tensor:
    return decoder(*inputs(), decoder.encode(given))


def differ(a: torch.Tensor, b: torch.Tensor) -> list[bool]:
    return [bool(change > 1e-4) for change in (a - b).abs().flatten(1).amax(1)]


both = pytest.mark.parametrize("net", NETS)


@both
def test_the_config_chooses_the_net(net):
    decoder = build(net)
    assert isinstance(decoder.net, {"unet": Unet, "patch_transformer": PatchTransformer}[net])
    prediction = draw(decoder, condition())
    assert prediction.shape == (3, 6, 8, 8)
    assert prediction.dtype == torch.float32


@both
@pytest.mark.parametrize("part", ["image_embedding", "tokens", "hint"])
def test_each_condition_counts(net, part):
    decoder, given = build(net), condition()
    changed = getattr(given, part).flip(0)
    moved = differ(draw(decoder, replace(given, **{part: changed})), draw(decoder, given))
    # Flipping leaves the middle one where it was.
    assert moved == [True, False, True]


@both
def test_the_embedding_becomes_a_vector_and_four_tokens_after_the_captions(net):
    decoder, given = build(net), condition()
    context = decoder.encode(given)
    z = given.image_embedding
    torch.testing.assert_close(context.vector, decoder.image_vector(z))
    assert context.tokens.shape == (3, 5 + 4, 10)
    torch.testing.assert_close(context.tokens[:, 5:], decoder.image_tokens(z).reshape(3, 4, 10))
    # The paper's way into the net: added to the time embedding.
    without = replace(context, vector=torch.zeros_like(context.vector))
    x, label = inputs()
    assert all(differ(decoder(x, label, without), decoder(x, label, context)))


@both
def test_a_dropped_condition_leaves_no_trace(net):
    decoder, given = build(net), condition()
    yes, no = torch.ones(3, dtype=torch.bool), torch.zeros(3, dtype=torch.bool)
    other = replace(given, image_embedding=-given.image_embedding)
    spoken = replace(given, tokens=given.tokens.flip(0))
    torch.testing.assert_close(draw(decoder, other.drop(yes, no)), draw(decoder, given.drop(yes, no)))
    torch.testing.assert_close(draw(decoder, spoken.drop(no, yes)), draw(decoder, given.drop(no, yes)))
    # The other condition is still there.
    assert differ(draw(decoder, spoken.drop(yes, no)), draw(decoder, given.drop(yes, no))) == [
        True,
        False,
        True,
    ]
    assert all(differ(draw(decoder, other.drop(no, yes)), draw(decoder, given.drop(no, yes))))


@both
def test_drop_and_null_agree(net):
    decoder, given = build(net), condition()
    rows = torch.tensor([True, False, True])
    mixed = draw(decoder, given.drop(rows, rows))
    torch.testing.assert_close(mixed[[0, 2]], draw(decoder, given.null())[[0, 2]])
    torch.testing.assert_close(mixed[1], draw(decoder, given)[1])
    assert all(differ(draw(decoder, given.null()), draw(decoder, given)))
    assert given.keep_image.all()
    assert given.keep_caption.all()


@both
def test_the_null_embedding_is_learned_and_starts_at_zero(net):
    assert not Decoder(config(net)).null_image.any()
    decoder, given = build(net), condition()
    nothing = decoder.null_image.expand(3, -1)
    torch.testing.assert_close(
        draw(decoder, replace(given, image_embedding=nothing)),
        draw(decoder, given.drop(torch.ones(3, dtype=torch.bool), torch.zeros(3, dtype=torch.bool))),
    )


@both
def test_padding_is_a_learned_state_and_no_token(net):
    decoder, given = build(net), condition()
    padded = torch.tensor([[10, 1, END, 7, 8], [10, 2, 3, 4, END], [10, 5, 6, END, END]])
    torch.testing.assert_close(draw(decoder, replace(given, tokens=padded)), draw(decoder, given))
    assert decoder.caption is not None
    with torch.no_grad():
        decoder.caption.padding[4] *= -1
    # The second caption has no padding.
    before = draw(build(net), given)
    assert differ(draw(decoder, given), before) == [True, False, True]


@both
@torch.no_grad()
def test_encoding_once_is_encoding_at_every_step(net):
    decoder, given = build(net), condition()
    process = decoder.config.process.build()
    grid, (x, _) = process.grid(4), inputs()
    once = Preconditioned(decoder, process).bind(decoder.encode(given))
    each = Preconditioned(lambda x, label, c: decoder(x, label, decoder.encode(c)), process).bind(given)
    assert torch.equal(sample(ddim(once, 20_000 * x, grid)), sample(ddim(each, 20_000 * x, grid)))


@both
def test_no_hint_means_that_everything_is_to_be_drawn(net):
    decoder, given = build(net), condition()
    assert given.hint is not None
    empty = replace(given, hint=torch.zeros_like(given.hint))
    torch.testing.assert_close(draw(decoder, replace(given, hint=None)), draw(decoder, empty))
    assert all(differ(draw(decoder, given.null()), draw(decoder, empty.null())))


@both
def test_the_embedding_is_scaled(net):
    decoder, given = build(net), condition()
    scaled = Decoder(config(net, embedding_scale=3.0))
    scaled.load_state_dict(decoder.state_dict())
    larger = replace(given, image_embedding=3 * given.image_embedding)
    torch.testing.assert_close(draw(scaled, given), draw(decoder, larger))
    torch.testing.assert_close(draw(scaled, given.null()), draw(decoder, given.null()))


@both
def test_the_learned_variance_is_the_second_half(net):
    decoder, given = build(net), condition()
    x, _ = inputs()
    model = Preconditioned(decoder, decoder.config.process.build())
    answer = model(x, torch.tensor([0.1, 1.0, 10.0]), decoder.encode(given))
    assert answer.var_frac is not None
    assert answer.x0.shape == answer.var_frac.shape == (3, 3, 8, 8)


@both
def test_a_decoder_may_read_no_captions(net):
    decoder, given = build(net, caption=None), condition()
    assert decoder.encode(given).tokens.shape == (3, 4, 10)
    torch.testing.assert_close(draw(decoder, replace(given, tokens=None)), draw(decoder, given))


@pytest.mark.parametrize("net", NETS)
def test_how_a_picture_was_moved_starts_without_effect_and_is_nothing_in_sampling(net):
    torch.manual_seed(0)
    decoder, plain = Decoder(config(net, augmentation=5)), condition()
    moved = replace(plain, augmentation=torch.randn(3, 5))
    assert torch.equal(decoder.encode(moved).vector, decoder.encode(plain).vector)
    decoder = build(net, augmentation=5)
    assert not torch.allclose(decoder.encode(moved).vector, decoder.encode(plain).vector)
    still = replace(plain, augmentation=torch.zeros(3, 5))
    assert torch.equal(decoder.encode(still).vector, decoder.encode(plain).vector)
    with pytest.raises(ValueError, match="reads no augmentation"):
        build(net).encode(moved)


def test_the_papers_numbers_are_the_defaults():
    defaults = DecoderConfig(net=UnetConfig())
    assert defaults.image_tokens == 4
    assert defaults.process == ProcessConfig(parametrization="eps", schedule="cosine", learned_variance=True)


def test_errors():
    given = condition()
    with pytest.raises(
        ValueError, match="reads captions: give tokens, and drop them with keep_caption=False"
    ):
        build("unet").encode(replace(given, tokens=None))
    with pytest.raises(ValueError, match="captions have 4 tokens, this decoder reads 5"):
        build("unet").encode(replace(given, tokens=given.tokens[:, :4]))
    with pytest.raises(ValueError, match="has 5 channels, this decoder reads 6: take the CLIP"):
        build("unet").encode(replace(given, image_embedding=given.image_embedding[:, :5]))
    plain = build("unet", inpainting=False, net=replace(NETS["unet"], in_channels=3))
    with pytest.raises(ValueError, match="not trained to inpaint: it reads no hint"):
        plain.encode(given)


@pytest.mark.parametrize(
    ("net", "changes", "message"),
    [
        ("unet", {"in_channels": 3}, "must be 7 and 6 for this decoder, not 3 and 6"),
        ("patch_transformer", {"out_channels": 3}, "must be 7 and 6 for this decoder, not 7 and 3"),
        ("patch_transformer", {"size": 16}, "net.size is 16, but the decoder's size is 8"),
        ("patch_transformer", {"context_width": None}, "needs context_width"),
        ("unet", {"vector_width": None}, "a U-Net vector_width"),
    ],
)
def test_nets_that_do_not_fit_are_refused(net, changes, message):
    with pytest.raises(ValueError, match=message):
        Decoder(config(net, net=replace(NETS[net], **changes)))


def clip_decoder() -> Decoder:
    caption = replace(config("unet").caption, tower="clip", start=10)
    return build("unet", inpainting=False, net=replace(NETS["unet"], in_channels=3), caption=caption)


def encoding(rows: int, seed: int, context: int = 5) -> TextEncoding:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(context) < torch.tensor([[2], [3], [5]])[:rows]
    return TextEncoding(
        torch.randn(rows, 6, generator=generator), torch.randn(rows, context, 8, generator=generator), mask
    )


def test_karlos_captions_are_clips_encodings():
    """The decoder holds no text tower; a dropped caption is the empty one, whatever stands in its row."""
    decoder = clip_decoder()
    assert not any("tower" in name for name in decoder.state_dict())
    given = replace(condition(), tokens=None, hint=None, text=encoding(3, 0), empty=encoding(1, 1))
    dropped = decoder.encode(given.drop(torch.zeros(3, dtype=torch.bool), torch.tensor([True, False, False])))
    kept = decoder.encode(given)
    assert torch.equal(dropped.vector[1:], kept.vector[1:])
    assert torch.equal(dropped.tokens[1:], kept.tokens[1:])
    assert not torch.allclose(dropped.vector[0], kept.vector[0])
    empty = TextEncoding(*(field.expand(3, *field.shape[1:]) for field in given.empty))
    alone = decoder.encode(replace(given, text=empty))
    assert torch.equal(dropped.vector[0], alone.vector[0])
    assert torch.equal(dropped.tokens[0], alone.tokens[0])
    assert dropped.mask[0].tolist() == [True, True, False, False, False, True, True, True, True]
    assert dropped.mask[2].tolist() == kept.mask[2].tolist() == [True] * 9
    # Without captions the empty one is enough.
    null = decoder.encode(replace(given.null(), text=None))
    assert torch.equal(null.tokens, decoder.encode(given.null()).tokens)


def test_errors_of_karlos_captions():
    decoder = clip_decoder()
    given = replace(condition(), hint=None, text=encoding(3, 0), empty=encoding(1, 1))
    for lacking in (replace(given, empty=None), replace(given, text=None)):
        with pytest.raises(ValueError, match="as CLIP encodes them: give text, and empty"):
            decoder.encode(lacking)
    with pytest.raises(
        ValueError, match=r"states are \(6, 8\) \(tokens, width\), this decoder reads \(5, 8\)"
    ):
        decoder.encode(replace(given, text=encoding(3, 0, context=6)))
