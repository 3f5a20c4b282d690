"""Priors without a decoder of their own: Kandinsky's against diffusers' pipeline, ECLIPSE's against its formula."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import KandinskyPriorPipeline, KandinskyV22PriorPipeline, PriorTransformer, UnCLIPScheduler
from safetensors.torch import save_file
from torch import Tensor

import unclip
from unclip import Model
from unclip.errors import ModelError
from unclip.formats.convert import convert
from unclip.formats.opened import open_model
from unclip.formats.registry import recognise
from unclip.generate.session import Session
from unclip.stages.sampling import sampling

# diffusers hands a torch tensor to np.array, which numpy 2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def session(model: Model, **given) -> Session:
    return Session(model.parts, sampling(random="diffusers", **given).over(model.defaults), seed=0)


@torch.no_grad()
def embedding(model: Model, prompt: str, seed: int, **given) -> Tensor:
    """The image embedding that the model would decode."""
    call = session(model, **given)
    found = call.sample_prior(call.captions([prompt]), call.seeds([seed]))
    assert found is not None
    return found


@pytest.fixture(
    scope="module", params=[KandinskyPriorPipeline, KandinskyV22PriorPipeline], ids=["2.1", "2.2"]
)
def kandinsky(karlo_parts, request) -> KandinskyPriorPipeline | KandinskyV22PriorPipeline:
    pipeline = request.param(
        prior=karlo_parts["prior"],
        image_encoder=karlo_parts["image_encoder"],
        text_encoder=karlo_parts["text_encoder"],
        tokenizer=karlo_parts["tokenizer"],
        scheduler=UnCLIPScheduler(
            prediction_type="sample", variance_type="fixed_small_log", clip_sample_range=10.0
        ),
        image_processor=karlo_parts["feature_extractor"],
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.mark.filterwarnings("ignore")
def test_kandinskys_prior(kandinsky, karlo_folder, tmp_path, lifted, same_model):
    kandinsky.save_pretrained(tmp_path / "kandinsky")
    system = unclip.load(tmp_path / "kandinsky", device="cpu")
    assert system.parts.config("prior").clip_range == 10.0
    generator = torch.Generator().manual_seed(3)
    asked = {"num_inference_steps": 4, "guidance_scale": 3.0}
    expected = kandinsky("a red cat", generator=generator, **asked).image_embeds
    actual = embedding(system, "a red cat", 3, prior_steps=4, prior_guidance=3.0)
    assert expected.std() > 0.1
    # diffusers' last step multiplies by 1.0005: its tables are float32.
    assert (actual - expected).abs().max() < 2e-3 * expected.abs().max()
    with lifted(kandinsky, ["scheduler"]):
        exact = kandinsky("a red cat", generator=generator.manual_seed(3), **asked).image_embeds
    assert (actual - exact).abs().max() < 1e-5
    assert (
        embedding(system, "a red dog", 3, prior_steps=4, prior_guidance=3.0) - expected
    ).abs().max() > 0.05
    mixed = open_model(karlo_folder, parts={"prior": tmp_path / "kandinsky"})
    assert mixed.parts["prior"].config.clip_range == 10.0
    ours = convert(tmp_path / "kandinsky", tmp_path / "ours")
    assert same_model(open_model(ours), open_model(tmp_path / "kandinsky"))
    with pytest.raises(ValueError, match="has no decoder"):
        system.generate("a red cat")


@torch.no_grad()
def eclipse(prior: PriorTransformer, noise: Tensor, text: Tensor, states: Tensor, mask: Tensor) -> Tensor:
    """ECLIPSE's forward pass (https://github.com/eclipse-t2i/eclipse-inference): PriorTransformer's without a timestep."""
    parts = [prior.encoder_hidden_states_proj(states), prior.embedding_proj(text)[:, None]]
    parts += [prior.proj_in(noise)[:, None], prior.prd_embedding.expand(len(noise), -1, -1)]
    x = torch.cat(parts, dim=1) + prior.positional_embedding
    hidden = torch.nn.functional.pad((1 - mask.float()) * -10000.0, (0, 3))
    bias = hidden[:, None] + prior.causal_attention_mask
    for block in prior.transformer_blocks:
        x = block(x, attention_mask=bias.repeat_interleave(prior.config.num_attention_heads, dim=0))
    return prior.proj_to_clip_embeddings(prior.norm_out(x)[:, -1])


@pytest.fixture(scope="module")
def eclipse_prior(karlo_parts, tmp_path_factory) -> tuple[PriorTransformer, Path]:
    """An ECLIPSE prior for the tiny Karlo, and the folder that holds it."""
    torch.manual_seed(0)
    prior = PriorTransformer(
        num_attention_heads=2,
        attention_head_dim=16,
        num_layers=2,
        embedding_dim=32,
        num_embeddings=karlo_parts["prior"].config.num_embeddings,
        additional_embeddings=3,
    ).eval()
    for parameter in (prior.positional_embedding, prior.prd_embedding):
        torch.nn.init.normal_(parameter, std=0.5)
    folder = tmp_path_factory.mktemp("eclipse") / "ECLIPSE_KarloV1_Prior"
    folder.mkdir()
    held = {
        name: weight for name, weight in prior.state_dict().items() if not name.startswith("time_embedding")
    }
    save_file(held, folder / "diffusion_pytorch_model.safetensors")
    config = {name: value for name, value in prior.config.items() if name != "time_embed_act_fn"}
    (folder / "config.json").write_text(json.dumps(config | {"_class_name": "PriorTransformer"}))
    return prior, folder


def test_eclipse_in_karlos_place(eclipse_prior, karlo_folder):
    reference, folder = eclipse_prior
    system = unclip.load(karlo_folder, parts={"prior": folder}, device="cpu")
    defaults = system.defaults
    assert (defaults.prior.steps, defaults.prior.guidance, defaults.decoder.guidance) == (1, 1.0, 8.0)
    text = session(system).captions(["a red cat"]).encoding
    noise = torch.randn(1, 32, generator=torch.Generator().manual_seed(5))
    expected = eclipse(reference, noise, *text)
    torch.testing.assert_close(embedding(system, "a red cat", 5), expected, atol=1e-5, rtol=0)
    assert (embedding(system, "a red cat", 6) - expected).abs().max() > 1e-3


def test_eclipse_is_converted_and_goes_back(eclipse_prior, tmp_path, same_model):
    reference, folder = eclipse_prior
    found = recognise(folder)
    assert found is not None
    back = found.parts["prior"].table.to_theirs(found.parts["prior"].load().state_dict())
    theirs = reference.state_dict()
    # But for the label, which it has not, and the statistics, which it does not use.
    left = {name for name in theirs if name.startswith(("time_embedding", "clip_"))}
    assert back.keys() == theirs.keys() - left
    assert all(torch.equal(weight, theirs[name]) for name, weight in back.items())
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    shutil.copy(folder / "config.json", pickled)
    held = {name: weight for name, weight in theirs.items() if not name.startswith("time_embedding")}
    torch.save(held, pickled / "diffusion_pytorch_model.bin")
    assert same_model(open_model(convert(pickled, tmp_path / "ours")), open_model(folder))


def test_eclipse_alone_is_a_part(eclipse_prior):
    _, folder = eclipse_prior
    found = recognise(folder)
    assert found is not None
    assert list(found.parts) == ["prior"]
    with pytest.raises(ModelError, match="holds no tokenizer: take it as a part of a whole model"):
        open_model(folder).tokenizer()
    config = json.loads((folder / "config.json").read_text())
    broken = folder.with_name("other")
    broken.mkdir()
    (broken / "config.json").write_text(json.dumps(config | {"additional_embeddings": 4}))
    with pytest.raises(ModelError, match="without its scheduler and CLIP"):
        recognise(broken)
