"""Each part of Karlo, loaded from diffusers' folder, against diffusers' and transformers' module: float32, 1e-5."""

import pytest
import torch
from torch import Tensor

from unclip.formats.public import PublicModel
from unclip.formats.registry import recognise
from unclip.formats.weights import open_weights
from unclip.networks.clip import TextEncoding
from unclip.networks.decoder import DecoderCondition
from unclip.networks.prior_diffusion import PriorCondition
from unclip.networks.upsampler import UpsamplerCondition

PROMPTS = ["a red cat", "a dog, a red dog and many more dogs than it reads", ""]


@pytest.fixture(scope="module")
def karlo(karlo_folder) -> PublicModel:
    found = recognise(karlo_folder)
    assert found is not None
    return found


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def agree(ours: Tensor, theirs: Tensor) -> None:
    assert theirs.std() > 0.01
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def texts(karlo_parts) -> dict[str, Tensor]:
    """What diffusers' pipeline makes of the prompts."""
    tokenizer, encoder = karlo_parts["tokenizer"], karlo_parts["text_encoder"]
    given = tokenizer(PROMPTS, padding="max_length", truncation=True, return_tensors="pt")
    with torch.no_grad():
        out = encoder(given.input_ids)
    return {
        "tokens": given.input_ids,
        "mask": given.attention_mask.bool(),
        "embedding": out.text_embeds,
        "states": out.last_hidden_state,
    }


def test_every_table_goes_back(variation_folder, karlo):
    """The files from the networks: every weight, bit for bit."""
    for found in (karlo, recognise(variation_folder)):
        for part in found.parts.values():
            network = part.load()
            back = part.table.to_theirs(network.state_dict())
            with open_weights(part.files) as readers:
                assert back.keys() == readers.keys()
                assert all(torch.equal(weight, readers[name]()) for name, weight in back.items())


@torch.no_grad()
def test_text_tower(karlo, texts):
    tokens = karlo.tokenizer().encode(PROMPTS)
    assert torch.equal(tokens, texts["tokens"])
    encoding = karlo.parts["clip"].load().encode_text(tokens)
    agree(encoding.embedding, texts["embedding"])
    agree(encoding.states, texts["states"])
    assert torch.equal(encoding.mask, texts["mask"])


@torch.no_grad()
def test_picture_tower(variation_folder, karlo_parts):
    pixels = drawn(2, 3, 16, 16).clamp(-1, 1)
    encoder = karlo_parts["image_encoder"]
    processor = karlo_parts["feature_extractor"]
    mean, std = (
        torch.tensor(values)[:, None, None] for values in (processor.image_mean, processor.image_std)
    )
    expected = encoder(((pixels + 1) / 2 - mean) / std).image_embeds
    clip = recognise(variation_folder).parts["clip"].load()
    agree(clip.encode_image(pixels), expected)


def test_text_to_picture_folders_have_no_picture_tower(karlo):
    clip = karlo.parts["clip"].load()
    with pytest.raises(ValueError, match="without its picture tower"):
        clip.encode_image(torch.zeros(1, 3, 224, 224))


@torch.no_grad()
def test_prior(karlo, karlo_parts, texts):
    x, label = drawn(3, 32), torch.tensor([999.0, 541.0, 0.0])
    theirs = karlo_parts["prior"]
    expected = theirs(
        x, label, texts["embedding"], texts["states"], attention_mask=texts["mask"]
    ).predicted_image_embedding
    prior = karlo.parts["prior"].load()
    condition = PriorCondition(
        texts["embedding"], texts["states"], texts["mask"], torch.ones(3, dtype=torch.bool)
    )
    agree(prior(x, label, condition), expected)
    agree(prior.unstandardise(x), theirs.post_process_latents(x))
    with pytest.raises(ValueError, match="empty caption"):
        prior(x, label, condition.null())


@torch.no_grad()
def test_decoder(karlo, karlo_parts, texts):
    x, label, z = drawn(3, 3, 16, 16), torch.tensor([999.0, 41.0, 0.0]), drawn(3, 32, seed=1)
    # The third is what guidance leads away from: the learned vector, and the empty caption.
    null = karlo_parts["text_proj"].learned_classifier_free_guidance_embeddings
    given = torch.cat([z[:2], null[None]])
    context, vector = karlo_parts["text_proj"](
        image_embeddings=given,
        prompt_embeds=texts["embedding"],
        text_encoder_hidden_states=texts["states"],
        do_classifier_free_guidance=False,
    )
    mask = torch.nn.functional.pad(texts["mask"], (4, 0), value=True)
    expected = karlo_parts["decoder"](x, label, context, class_labels=vector, attention_mask=mask).sample
    decoder = karlo.parts["decoder"].load()
    keep = torch.tensor([True, True, False])
    # The dropped caption's encoding is another's: it must not be read.
    text, empty = (
        TextEncoding(*(texts[name][rows] for name in ("embedding", "states", "mask")))
        for rows in ([0, 1, 0], [2])
    )
    given = DecoderCondition(z, None, keep_image=keep, keep_caption=keep, text=text, empty=empty)
    encoded = decoder.encode(given)
    agree(decoder(x, label, encoded), expected)
    unmasked = karlo_parts["decoder"](x, label, context, class_labels=vector).sample
    assert (unmasked - expected).abs().max() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize(("net", "name"), [("net", "super_res_first"), ("last_net", "super_res_last")])
def test_upsampler(karlo, karlo_parts, net, name):
    x, low, label = drawn(2, 3, 32, 32), drawn(2, 3, 32, 32, seed=1), torch.tensor([832.0, 0.0])
    expected = karlo_parts[name](torch.cat([x, low], dim=1), label).sample
    upsampler = karlo.parts["upsampler"].load()
    prediction = upsampler.predict(getattr(upsampler, net), x, label, UpsamplerCondition(low, torch.zeros(2)))
    agree(prediction, expected)


def test_what_the_folder_says(karlo):
    assert karlo.licence == "creativeml-openrail-m"
    assert karlo.parts["prior"].config.clip_range == 5.0
    assert karlo.parts["decoder"].config.process.learned_variance
    assert karlo.parts["upsampler"].config.high_size == 32
