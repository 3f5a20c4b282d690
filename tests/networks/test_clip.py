"""CLIP: what its towers read, and its losses against direct formulas."""

import math
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import normalize

from unclip.networks.clip import Clip, ClipConfig, TextConfig, VisionConfig

END = 19
CONFIG = ClipConfig(
    embedding=8,
    vision=VisionConfig(size=8, patch=4, width=12, layers=2, heads=2),
    text=TextConfig(vocabulary=20, context=6, end=END, width=12, layers=2, heads=2),
)
TOKENS = torch.tensor([[18, 3, 4, END, 0, 0], [18, 5, END, 0, 0, 0], [18, 6, 7, 8, 9, END]])


def build(config: ClipConfig = CONFIG) -> Clip:
    torch.manual_seed(0)
    return Clip(config).eval()


def pictures(batch: int = 3) -> torch.Tensor:
    return torch.rand(batch, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1


def embeddings(batch: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    image, text = (torch.randn(batch, 8, generator=generator) for _ in range(2))
    return image, text


def test_embeddings_are_unit_vectors_where_the_config_says_so():
    raw = replace(CONFIG, normalize=False)
    for unit, free in [
        (build().encode_image(pictures()), build(raw).encode_image(pictures())),
        (build().encode_text(TOKENS).embedding, build(raw).encode_text(TOKENS).embedding),
    ]:
        torch.testing.assert_close(unit.norm(dim=1), torch.ones(3))
        torch.testing.assert_close(unit, normalize(free, dim=1))
        assert not torch.allclose(free.norm(dim=1), torch.ones(3), atol=0.01)


def test_what_follows_the_end_changes_nothing():
    clip = build()
    other = torch.tensor([[18, 3, 4, END, END, END], [18, 5, END, 11, 12, 13], [18, 6, 7, 8, 9, END]])
    before, after = clip.encode_text(TOKENS), clip.encode_text(other)
    torch.testing.assert_close(after.embedding, before.embedding)
    assert torch.equal(after.mask, before.mask)
    torch.testing.assert_close(after.states[after.mask], before.states[before.mask])
    assert not torch.allclose(after.states[~after.mask], before.states[~before.mask])


def test_the_mask_shows_start_to_end():
    assert build().encode_text(TOKENS).mask.sum(1).tolist() == [4, 3, 6]


def test_each_token_and_its_place_count():
    clip = build()
    first = clip.encode_text(TOKENS[:1]).embedding
    for tokens in ([18, 4, 3, END, 0, 0], [18, 3, 5, END, 0, 0], [17, 3, 4, END, 0, 0]):
        assert not torch.allclose(clip.encode_text(torch.tensor([tokens])).embedding, first, atol=1e-4)


@pytest.mark.parametrize("pool", ["class", "mean"])
def test_every_pixel_counts(pool):
    clip = build(replace(CONFIG, vision=replace(CONFIG.vision, pool=pool)))
    x = pictures(1).requires_grad_()
    clip.encode_image(x)[0, 0].backward()
    assert x.grad is not None
    assert (x.grad != 0).all()


def test_mean_pooling_is_over_patches():
    clip = build(replace(CONFIG, vision=replace(CONFIG.vision, pool="mean"), normalize=False))
    seen = []
    clip.vision.transformer.register_forward_hook(lambda module, inputs, output: seen.append(output))
    embedding = clip.encode_image(pictures())
    assert seen[0].shape == (3, 5, 12)
    pooled = clip.vision.norm_out(seen[0][:, 1:].mean(1))
    torch.testing.assert_close(embedding, clip.vision.project(pooled))


def test_channel_statistics_are_config_and_not_weights():
    vision = replace(CONFIG.vision, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    clip, plain = build(replace(CONFIG, vision=vision)), build()
    plain.load_state_dict(clip.state_dict())
    mean, std = (torch.tensor(values)[:, None, None] for values in (vision.mean, vision.std))
    normalised = ((pictures() + 1) / 2 - mean) / std
    # With its mean and deviation of 1/2, the plain tower reads [-1, 1] as it is.
    torch.testing.assert_close(clip.encode_image(pictures()), plain.encode_image(normalised))


def test_the_first_temperature_is_the_papers():
    assert build().logit_scale.exp().item() == pytest.approx(1 / 0.07)
    sigmoid = build(replace(CONFIG, loss="sigmoid"))
    assert sigmoid.logit_scale.exp().item() == pytest.approx(10)
    assert sigmoid.logit_bias is not None
    assert sigmoid.logit_bias.item() == -10


def contrastive(logits: torch.Tensor, same: torch.Tensor) -> float:
    """Mean of -log softmax of the right pair, both ways, over the pairs that are not `same`."""
    total, count = 0.0, len(logits)
    for rows in (logits, logits.T):
        for i in range(count):
            negatives = [math.exp(rows[i, j]) for j in range(count) if i == j or not same[i, j]]
            total -= math.log(math.exp(rows[i, i]) / sum(negatives))
    return total / (2 * count)


def pairwise_sigmoid(logits: torch.Tensor, same: torch.Tensor) -> float:
    total, count = 0.0, len(logits)
    for i in range(count):
        for j in range(count):
            if i == j or not same[i, j]:
                total += math.log1p(math.exp(-logits[i, j] if i == j else logits[i, j]))
    return total / count


@pytest.mark.parametrize("loss", ["contrastive", "sigmoid"])
@pytest.mark.parametrize("masked", [False, True])
def test_losses_are_their_formulas(loss, masked):
    clip, (image, text) = build(replace(CONFIG, loss=loss)), embeddings()
    same = torch.eye(5, dtype=torch.bool)
    if masked:
        same[1, 3] = same[3, 1] = True
    cosines = normalize(image.double(), dim=1) @ normalize(text.double(), dim=1).T
    if loss == "contrastive":
        expected = contrastive(cosines / 0.07, same)
    else:
        expected = pairwise_sigmoid(10 * cosines - 10, same)
    actual = clip.loss(image, text, same if masked else None)
    assert actual.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("loss", ["contrastive", "sigmoid"])
def test_pictures_of_one_caption_are_not_pushed_apart(loss):
    """What pulls at a picture does not know the caption of another picture that says the same as its own."""
    clip, (image, text) = build(replace(CONFIG, loss=loss)), embeddings()
    same = torch.eye(5, dtype=torch.bool)
    same[1, 3] = same[3, 1] = True

    def pull(text: torch.Tensor, same: torch.Tensor | None) -> torch.Tensor:
        pictures = image.clone().requires_grad_()
        clip.loss(pictures, text, same).backward()
        assert pictures.grad is not None
        return pictures.grad[1]

    moved = text * torch.tensor([1, 1, 1, -1, 1])[:, None]
    torch.testing.assert_close(pull(moved, same), pull(text, same))
    assert not torch.allclose(pull(moved, None), pull(text, None))


def test_a_batch_of_one_caption_has_nothing_to_tell_apart():
    clip, (image, text) = build(), embeddings()
    assert clip.loss(image, text, torch.ones(5, 5, dtype=torch.bool)).item() == pytest.approx(0, abs=1e-6)


def test_the_loss_does_not_see_lengths():
    clip, (image, text) = build(), embeddings()
    torch.testing.assert_close(clip.loss(3 * image, 0.1 * text), clip.loss(image, text))


def test_the_scale_is_bounded():
    clip, (image, text) = build(), embeddings()
    with torch.no_grad():
        clip.logit_scale.fill_(9.0)
        bounded = clip.loss(image, text)
        clip.logit_scale.fill_(math.log(100))
        torch.testing.assert_close(clip.loss(image, text), bounded)


@pytest.mark.parametrize("loss", ["contrastive", "sigmoid"])
def test_the_loss_is_not_rounded_under_autocast(loss):
    clip, (image, text) = build(replace(CONFIG, loss=loss)), embeddings()
    exact = clip.loss(image, text)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(clip.loss(image, text), exact)
        # The control: this is what autocast does to a product of matrices.
        assert (image @ text.T).dtype == torch.bfloat16


def test_errors():
    clip = build()
    with pytest.raises(ValueError, match=r"CLIP reads 8 x 8 pixels, got \(8, 16\)"):
        clip.encode_image(torch.zeros(1, 3, 8, 16))
    with pytest.raises(ValueError, match="captions have 5 tokens, this text tower reads 6"):
        clip.encode_text(TOKENS[:, :5])
    with pytest.raises(ValueError, match="picture size 8 is not a multiple of the patch 3"):
        build(replace(CONFIG, vision=replace(CONFIG.vision, patch=3)))
