"""LAION's prior against what lucidrains' own package answered: `record_laion_prior.py` asked it, versions 1.15.6 and 1.1.0."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from packaging.version import Version
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

import unclip
from unclip.checkpoints.io import build
from unclip.diffusion.samplers import sample
from unclip.errors import ModelError
from unclip.formats import laion
from unclip.formats.convert import convert
from unclip.formats.opened import open_model
from unclip.formats.pull import needed
from unclip.formats.registry import format_name
from unclip.networks.clip import Clip
from unclip.networks.prior_diffusion import PriorCondition
from unclip.networks.prior_laion import LaionPrior, LaionPriorConfig
from unclip.stages.prior import prior_condition, sample_diffusion_prior
from unclip.stages.text import read_captions

HERE = Path(__file__).parent


def recorded(name: str) -> tuple[dict[str, Tensor], dict[str, Tensor], dict]:
    """What was asked and answered, the weights, and the config of a recorded net."""
    with safe_open(HERE / "laion_prior.safetensors", framework="pt") as file:
        net = json.loads(file.metadata()["nets"])[name]
        held = {
            key.removeprefix(f"{name}/"): file.get_tensor(key)
            for key in file.keys()  # noqa: SIM118
            if key.startswith(f"{name}/")
        }
    weights = {
        key.removeprefix("weights/"): value for key, value in held.items() if key.startswith("weights/")
    }
    config = {"prior": {"net": net, "image_embed_dim": net["dim"], "timesteps": net["num_timesteps"] or 1000}}
    return {key: value for key, value in held.items() if not key.startswith("weights/")}, weights, config


def loaded(weights: dict[str, Tensor], config: dict) -> LaionPrior:
    prior = LaionPrior(laion.read_config(config, weights, "x"))
    made = laion.table(prior.config).to_ours(prior.state_dict(), weights, weights.__getitem__, "x")
    prior.load_state_dict(dict(made))
    return prior.eval()


def condition(asked: dict[str, Tensor], *, keep: bool = True) -> PriorCondition:
    # A text embedding of any length: the prior brings it to 1 itself.
    mask = torch.arange(9) < asked["lengths"][:, None]
    # States behind the end are anything, as CLIP gives them.
    states = asked["states"] + (~mask)[..., None] * 3.0
    return PriorCondition(17.0 * asked["text"], states, mask, torch.full((3,), keep))


@torch.no_grad()
@pytest.mark.parametrize("name", ["plain", "other", "first"])
def test_answers(name):
    asked, weights, config = recorded(name)
    prior = loaded(weights, config)
    answer = prior(asked["x"], asked["times"], condition(asked))
    assert asked["answer"].std() > 0.1
    torch.testing.assert_close(answer, asked["answer"], atol=1e-5, rtol=0)
    if name == "first":
        with pytest.raises(ValueError, match="empty caption"):
            prior(asked["x"], asked["times"], condition(asked, keep=False))
    else:
        dropped = prior(asked["x"], asked["times"], condition(asked, keep=False))
        torch.testing.assert_close(dropped, asked["without caption"], atol=1e-5, rtol=0)
        assert (dropped - answer).abs().max() > 0.1


@torch.no_grad()
def test_longer_captions_than_it_has_places_for_are_cut():
    asked, weights, config = recorded("plain")
    prior = loaded(weights, config)
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(1, 20, 16, generator=generator)
    given = PriorCondition(
        asked["text"][:1], states, torch.ones(1, 20, dtype=torch.bool), torch.ones(1, dtype=torch.bool)
    )
    cut = PriorCondition(
        asked["text"][:1],
        states[:, :12],
        torch.ones(1, 12, dtype=torch.bool),
        torch.ones(1, dtype=torch.bool),
    )
    x, label = asked["x"][:1], asked["times"][:1]
    assert torch.equal(prior(x, label, given), prior(x, label, cut))


class Recorded:
    """Noise that was drawn before."""

    def __init__(self, draws: Tensor):
        self.draws = iter(draws)

    def normal(self, *shape: int) -> Tensor:
        return next(self.draws).reshape(1, *shape)


@torch.no_grad()
def test_samples():
    """All 25 steps of DDPM; the package's tables are float32, as diffusers' are."""
    asked, weights, config = recorded("plain")
    prior = loaded(weights, config)
    all_three = condition(asked)
    first = PriorCondition(
        all_three.text_embedding[:1], all_three.text_states[:1], all_three.text_mask[:1], all_three.keep[:1]
    )
    drawn = sample(
        sample_diffusion_prior(prior, first, Recorded(asked["noise"]), steps=25, sampler="ddpm", guidance=1.0)
    )
    expected = asked["sample"]
    assert expected.norm() > 0.5
    torch.testing.assert_close(prior.unstandardise(drawn), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("version", ["now", "first"])
def test_every_weight_at_full_size(listed, version):
    held = listed("laion_prior.txt", f"{version}/")
    theirs = {name: torch.empty(shape, device="meta") for name, shape in held.items()}
    example = json.loads((HERE / "laion_prior.json").read_text())
    config = laion.read_config(example, theirs, "x")
    network = build(LaionPrior, config)
    ours = {name: torch.empty_like(w, device="meta") for name, w in network.state_dict().items()}
    # Beside the weights a trainer's file has the CLIP that the prior was trained with.
    held = theirs | {"clip.clip.logit_scale": torch.empty((), device="meta")}
    made = dict(laion.table(config).to_ours(ours, held, held.__getitem__, "x"))
    assert {name: w.shape for name, w in made.items()} == {name: w.shape for name, w in ours.items()}


def test_the_table_goes_back():
    for name in ("plain", "other", "first"):
        _, weights, config = recorded(name)
        prior = loaded(weights, config)
        back = laion.table(prior.config).to_theirs(prior.state_dict())
        # But for what is computed, and for the vector that guidance never asks for.
        left = {key for key in weights if key.endswith(("freqs", "null_image_embed"))}
        assert back.keys() == weights.keys() - left
        assert all(torch.equal(value, weights[key]) for key, value in back.items())


@pytest.mark.parametrize(
    ("where", "values", "message"),
    [
        ("prior", {"predict_x_start": False}, "predict_x_start is False"),
        ("prior", {"predict_v": True}, "predict_v is True"),
        ("prior", {"beta_schedule": "linear"}, "beta_schedule is 'linear'"),
        ("prior", {"image_embed_dim": 32}, "image_embed_dim is 32"),
        ("net", {"self_cond": True}, "self_cond is True"),
        ("net", {"depth": None}, "'depth' is missing"),
        ("net", {"l2norm_output": True}, "l2norm_output is True"),
        ("net", {"swiglu": False}, "'swiglu' of DiffusionPriorNetwork is not known"),
        ("prior", {"p2_loss_weight_gamma": 0.5}, "'p2_loss_weight_gamma' of DiffusionPrior is not known"),
        ("prior", {"sampling_clamp_l2norm": True}, "sampling_clamp_l2norm is True"),
        ("prior", {"image_embed_scale": 2.0}, "image_embed_scale is 2.0"),
        ("prior", {"timesteps": "1000"}, "timesteps is '1000'"),
        ("prior", {"net": [1]}, r"net is \[1\], expected dict"),
        ("net", {"heads": 0}, "heads is 0"),
    ],
)
def test_what_is_not_known_is_named(where, values, message):
    _, weights, config = recorded("plain")
    prior = config["prior"]
    (prior if where == "prior" else prior["net"]).update(values)
    with pytest.raises(ModelError, match=message):
        laion.read_config(config, weights, "prior_config.json")


# Options of dalle2-pytorch 1.15.6 and 1.1.0 (dalle2_pytorch.py), which cannot be installed beside the tests.
PRIOR_OPTIONS = """net clip image_embed_dim image_size image_channels timesteps sample_timesteps cond_drop_prob
    text_cond_drop_prob image_cond_drop_prob loss_type predict_x_start predict_v beta_schedule condition_on_text_encodings
    sampling_clamp_l2norm sampling_final_clamp_l2norm training_clamp_l2norm init_image_embed_l2norm image_embed_scale
    clip_adapter_overrides"""
NET_OPTIONS = """dim num_timesteps num_time_embeds num_image_embeds num_text_embeds max_text_len self_cond depth dim_head heads
    ff_mult norm_in norm_out attn_dropout ff_dropout final_proj normformer rotary_emb"""


def test_the_tables_have_every_option():
    assert laion.PRIOR.options == set(PRIOR_OPTIONS.split())
    assert laion.NET.options - {"l2norm_output"} == set(NET_OPTIONS.split())


def test_the_number_of_steps_is_the_config_s():
    config = {"prior": {"net": {}, "timesteps": 100, "sample_timesteps": 50}}
    assert laion.defaults(config, "x").prior.steps == 50
    assert laion.defaults({"prior": {"sample_timesteps": None}}, "x").prior.steps == 64
    for value, message in ((101, "is 101, more than its timesteps"), (0, "is 0"), ("x", "is 'x'")):
        config["prior"]["sample_timesteps"] = value
        with pytest.raises(ModelError, match=f"sample_timesteps {message}"):
            laion.defaults(config, "x")


@pytest.mark.parametrize("prior", [[1], "x", None, 5, {"clip": "openai"}, {"clip": [1]}])
def test_configs_of_other_shapes_are_damaged(prior):
    with pytest.raises(ModelError, match=r"^here.*(prior|clip) is"):
        laion.space_name({"prior": prior}, "here")
    assert laion.space_name({"clip": {"make": ["openai"], "model": "ViT-L/14"}}, "here") == ""
    assert laion.space_name({"clip": None}, "here") == ""


NET = {
    "dim": 32,
    "depth": 2,
    "dim_head": 16,
    "heads": 2,
    "ff_mult": 2,
    "max_text_len": 13,
    "num_timesteps": 1000,
}


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> tuple[Path, LaionPrior]:
    """As LAION has it on the hub, a prior in the space of the tiny Karlo: what a trainer saved, and its JSON."""
    root = tmp_path_factory.mktemp("laion") / "DALLE2-PyTorch"
    (root / "prior").mkdir(parents=True)
    (root / "README.md").write_text("---\nlicense: mit\n---\n")
    data = {"prior": {"net": NET, "image_embed_dim": 32, "clip": {"make": "openai", "model": "ViT-L/14"}}}
    (root / "prior" / laion.CONFIG).write_text(json.dumps(data))
    torch.manual_seed(0)
    prior = LaionPrior(laion.read_config(data, ["net.null_text_embeds"], "x")).eval()
    weights = laion.table(prior.config).to_theirs(prior.state_dict())
    weights |= {"noise_scheduler.betas": torch.zeros(1000), "net.null_image_embed": torch.zeros(1, 32)}
    torch.save(
        {
            "model": {name: weight + 1 for name, weight in weights.items()},
            "ema_model": weights,
            "ema": {"step": torch.tensor([7])},
            "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-4}]},
            "scheduler": {"lr_lambdas": [None]},
            "warmup_scheduler": None,
            "version": Version("1.15.6"),
            "step": torch.tensor([7]),
        },
        root / "prior" / "latest.pth",
    )
    (root / "prior" / "best.pth").write_bytes(b"not to be read")
    return root, prior


@pytest.fixture(scope="module")
def converted(repository, tmp_path_factory) -> Path:
    root, _ = repository
    with pytest.raises(ModelError, match=r"latest\.pth is pickled.*unclip convert"):
        open_model(root)
    return convert(root, tmp_path_factory.mktemp("ours") / "laion")


def test_what_a_trainer_saved_is_converted(repository, converted):
    _, prior = repository
    opened = open_model(converted, check=True)
    assert (opened.licence, opened.space().name) == ("mit", "OpenAI CLIP ViT-L/14")
    assert opened.defaults.prior.steps == 64
    loaded = opened.parts["prior"].load()
    assert loaded.config == prior.config
    assert all(torch.equal(weight, prior.state_dict()[name]) for name, weight in loaded.state_dict().items())
    with pytest.raises(ValueError, match="no tokenizer"):
        opened.tokenizer()


@torch.no_grad()
def test_in_karlos_place(converted, karlo_folder, variation_folder):
    system = unclip.load(karlo_folder, prior=converted, device="cpu")
    assert (system.defaults.prior.steps, system.defaults.prior.candidates) == (64, 2)
    # Karlo's embeddings are not of unit length: what their mean and deviation tell is the length that is given.
    statistics = open_model(karlo_folder).parts["prior"].load()
    length = (statistics.embedding_mean**2 + statistics.embedding_std**2).sum().sqrt()
    with system.parts.lend("clip", Clip) as clip:
        captions = read_captions(clip, system.parts.tokenizer, ["a red cat"], system.device)
    condition = prior_condition(captions, 1)
    x, label = torch.randn(1, 32, generator=torch.Generator().manual_seed(0)), torch.tensor([500.0])
    with system.parts.lend("prior", LaionPrior) as prior:
        answer = prior(x, label, condition)
        torch.testing.assert_close(prior.unstandardise(answer), answer * length / 32**0.5)
    (picture,) = system.generate(
        "a red cat", seed=1, prior_steps=3, steps=2, upsampler_steps=1, prior_guidance=2.0
    )
    assert picture.image.size == (32, 32)
    with pytest.raises(ModelError, match="directions alone"):
        open_model(variation_folder, parts={"prior": converted})


def test_safetensors_are_read_at_once(repository, tmp_path):
    root, prior = repository
    weights = laion.table(prior.config).to_theirs(prior.state_dict())
    folder = tmp_path / "prior"
    folder.mkdir()
    shutil.copy(root / "prior" / laion.CONFIG, folder)
    with pytest.raises(ModelError, match=r"should hold one file of weights.*has none"):
        open_model(folder)
    for name in ("ema472M.safetensors", "other.safetensors"):
        save_file({key: weight.contiguous() for key, weight in weights.items()}, folder / name)
    with pytest.raises(ModelError, match=r"it has ema472M\.safetensors, other\.safetensors"):
        open_model(folder)
    (folder / "other.safetensors").unlink()
    loaded = open_model(folder).parts["prior"].load()
    assert all(torch.equal(weight, prior.state_dict()[name]) for name, weight in loaded.state_dict().items())


def test_an_early_layout_is_told_from_the_weights(repository, tmp_path):
    root, prior = repository
    early = LaionPrior(LaionPriorConfig(**vars(prior.config) | {"null": "empty", "cosine": False}))
    weights = laion.table(early.config).to_theirs(early.state_dict())
    folder = Path(shutil.copytree(root / "prior", tmp_path / "early"))
    torch.save(weights, folder / "latest.pth")
    loaded = open_model(convert(folder, tmp_path / "out")).parts["prior"].load()
    assert (loaded.config.null, loaded.config.cosine) == ("empty", False)
    assert torch.equal(loaded.transformer.bias.buckets.weight, early.transformer.bias.buckets.weight)


def test_what_is_pulled(repository):
    root, _ = repository
    assert format_name(root) == format_name(root / "prior") == "laion prior"
    files = [
        "README.md",
        "decoder/latest.pth",
        "prior/best.pth",
        "prior/latest.pth",
        "prior/prior_config.json",
    ]
    assert needed(files) == ["README.md", "prior/latest.pth", "prior/prior_config.json"]
    assert needed(["prior_config.json", "ema.pth"]) == ["ema.pth", "prior_config.json"]
