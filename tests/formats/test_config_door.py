"""Configs of public formats: every option of the reference classes is honoured or refused by name."""

import inspect
import json
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    PNDMScheduler,
    PriorTransformer,
    UnCLIPScheduler,
    UNet2DConditionModel,
    UNet2DModel,
)
from diffusers.pipelines.deprecated.unclip import UnCLIPTextProjModel
from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import StableUnCLIPImageNormalizer
from PIL import Image
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    CLIPTextConfig,
    CLIPTokenizer,
    CLIPVisionConfig,
)
from transformers.convert_slow_tokenizer import bytes_to_unicode

from unclip.errors import ModelError
from unclip.formats import clip_openclip, karlo, preprocessing, stable_diffusion
from unclip.formats.key_maps import autoencoder, clip, latent_scheduler, latent_unet, prior, scheduler, unet
from unclip.formats.key_maps.options import Options, Reference, only
from unclip.formats.opened import open_model
from unclip.formats.registry import recognise
from unclip.generate.model import Model
from unclip.images.files import middle_square
from unclip.images.tensors import to_tensor


def signature(kind: Any) -> dict[str, Any]:
    """Names and defaults of a class's options."""
    found = inspect.signature(kind.__init__).parameters.values()
    return {
        one.name: one.default
        for one in found
        if one.name != "self" and one.kind is not inspect.Parameter.VAR_KEYWORD
    }


# Options that files have beside the signature's: of other versions, and of the base classes.
CLASSES = [
    (UNet2DConditionModel, unet.CONDITIONAL, set()),
    (UNet2DModel, unet.PLAIN, set()),
    (PriorTransformer, prior.TRANSFORMER, set()),
    (UnCLIPScheduler, scheduler.SCHEDULER, set()),
    (UnCLIPTextProjModel, karlo.PROJECTIONS, set()),
    (UNet2DConditionModel, latent_unet.REFERENCE, set()),
    (AutoencoderKL, autoencoder.REFERENCE, set()),
    (StableUnCLIPImageNormalizer, stable_diffusion.NORMALIZER, set()),
    (DDPMScheduler, stable_diffusion.NOISING, set()),
    *(
        (kind, latent_scheduler.REFERENCES[kind.__name__], set())
        for kind in (
            DDIMScheduler,
            DDPMScheduler,
            PNDMScheduler,
            EulerDiscreteScheduler,
            EulerAncestralDiscreteScheduler,
            HeunDiscreteScheduler,
            DPMSolverMultistepScheduler,
        )
    ),
    (CLIPTextConfig, clip.TEXT, {"quantization_config", "pruned_heads"}),
    (CLIPVisionConfig, clip.VISION, {"quantization_config", "pruned_heads"}),
    (CLIPConfig, clip.BOTH, {"quantization_config", "pruned_heads"}),
]


@pytest.mark.parametrize(("kind", "reference", "more"), CLASSES)
def test_the_table_has_every_option_of_the_installed_class(kind, reference, more):
    """A new version's new option fails here, until it is honoured or refused."""
    assert reference.options - more == signature(kind).keys()
    assert reference.name == kind.__name__


@pytest.mark.parametrize(("kind", "reference", "more"), CLASSES)
def test_the_table_has_the_defaults_of_the_installed_class(kind, reference, more):
    defaults = signature(kind)
    for name, rule in reference.fixed.items():
        if name in defaults:
            assert rule.default == defaults[name], name


def test_the_table_has_every_option_of_the_image_processor():
    kind: Any = CLIPImageProcessor
    options = set(kind.valid_kwargs.__annotations__) | CLIPImageProcessor().to_dict().keys()
    assert preprocessing.TRANSFORMERS.options - options == {"feature_extractor_type"}
    assert options <= preprocessing.TRANSFORMERS.options


# Fields of open_clip_torch 3.3.0 (model.CLIPVisionCfg, model.CLIPTextCfg, model.CLIP, transform.PreprocessCfg), which
# needs torchvision and is not installed with the tests.
OPENCLIP = {
    "vision": """layers width head_width mlp_ratio patch_size image_size ls_init_value patch_dropout attentional_pool
        attn_pooler_queries attn_pooler_heads no_ln_pre pos_embed_type final_ln_after_pool pool_type output_tokens act_kwargs
        norm_kwargs block_type qk_norm scaled_cosine_attn scale_heads scale_attn_inner scale_attn scale_fc timm_model_name
        timm_model_pretrained timm_pool timm_proj timm_proj_bias timm_drop timm_drop_path""",
    "text": """context_length vocab_size hf_tokenizer_name tokenizer_mode tokenizer_kwargs width heads layers mlp_ratio
        ls_init_value embed_cls pad_id eos_id no_causal_mask final_ln_after_pool pool_type proj_bias proj_type output_tokens
        act_kwargs norm_kwargs block_type qk_norm scaled_cosine_attn scale_heads scale_attn_inner scale_attn scale_fc
        hf_model_name hf_model_pretrained hf_proj_type hf_pooler_type""",
    "model": """embed_dim vision_cfg text_cfg quick_gelu init_logit_scale init_logit_bias nonscalar_logit_scale cast_dtype
        output_dict custom_text multimodal_cfg""",
    "preprocess": "size mode mean std interpolation resize_mode fill_color",
}


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("vision", clip_openclip.VISION),
        ("text", clip_openclip.TEXT),
        ("model", clip_openclip.MODEL),
        ("preprocess", preprocessing.OPENCLIP),
    ],
)
def test_the_table_has_every_option_of_openclip(name, reference):
    assert reference.options == set(OPENCLIP[name].split())


ALL = [
    *(reference for _, reference, _ in CLASSES),
    *(clip_openclip.VISION, clip_openclip.TEXT, clip_openclip.MODEL),
    *(preprocessing.TRANSFORMERS, preprocessing.OPENCLIP),
]


@pytest.mark.parametrize("reference", ALL, ids=lambda reference: reference.name)
def test_each_option_with_another_value_is_refused_by_name(reference: Reference):
    fine = {name: rule.values[0] for name, rule in reference.fixed.items()}
    Options(fine, "somewhere").check(reference)
    for name in reference.fixed:
        for value in ("another", 7.5, ["another"]):
            with pytest.raises(
                ModelError, match=rf"^somewhere: {name} is .*; this architecture is only known"
            ):
                Options(fine | {name: value}, "somewhere").check(reference)
    if reference.closed:
        with pytest.raises(ModelError, match=r"the option 'brand_new' of .* is not known"):
            Options(fine | {"brand_new": 1}, "somewhere").check(reference)
    # Notes that diffusers writes.
    Options(fine | {"_name_or_path": "x", "_class_name": "X"}, "somewhere").check(reference)


def test_what_is_left_out_has_the_references_default():
    with pytest.raises(ModelError, match="add_attention is True, UNet2DModel's default"):
        Options({}, "x").check(unet.PLAIN)
    with pytest.raises(
        ModelError, match="mid_block_type is 'UNetMidBlock2DCrossAttn', UNet2DConditionModel's"
    ):
        Options({"class_embed_type": "identity"}, "x").check(unet.CONDITIONAL)


def test_values_are_compared_with_their_types():
    rule = only(1)
    assert all(map(rule.accepts, [1, 1.0, [1, 1]]))
    assert not any(map(rule.accepts, [True, [], "1", [1, 2]]))
    assert not only(False).accepts(0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("resnet_skip_time_act", True),
        ("resnet_out_scale_factor", 2.0),
        ("time_embedding_act_fn", "gelu"),
        ("timestep_post_act", "silu"),
        ("time_cond_proj_dim", 8),
        ("conv_in_kernel", 1),
        ("conv_out_kernel", 1),
        ("class_embeddings_concat", True),
        ("mid_block_type", None),
        ("encoder_hid_dim", 24),
        ("only_cross_attention", [True, False]),
        ("quantization_config", {"quant_method": "bitsandbytes"}),
    ],
)
def test_a_public_unet_with_one_option_set_otherwise(name, value):
    config = {
        "_class_name": "UNet2DConditionModel",
        "down_block_types": ["ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"],
        "up_block_types": ["SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"],
        "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
        "block_out_channels": [32, 64],
        "class_embed_type": "identity",
        "only_cross_attention": [False, False],
    }
    assert unet.read_config(config, "decoder").multiples == (1, 2)
    with pytest.raises(ModelError, match=rf"^decoder: .*{name}"):
        unet.read_config(config | {name: value}, "decoder")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("dropout", 0.5),
        ("addition_embed_type_num_heads", 3),
        ("transformer_layers_per_block", 2),
        ("dual_cross_attention", True),
        ("use_linear_projection", True),
        ("upcast_attention", True),
    ],
)
@torch.no_grad()
def test_options_that_are_called_inert_change_nothing_in_the_reference(name, value):
    assert name in unet.CONDITIONAL.inert
    config: dict[str, Any] = {
        "sample_size": 8,
        "in_channels": 3,
        "out_channels": 6,
        "down_block_types": ["ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"],
        "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
        "up_block_types": ["SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"],
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "attention_head_dim": 8,
        "cross_attention_dim": 12,
        "class_embed_type": "identity",
        "resnet_time_scale_shift": "scale_shift",
        "norm_num_groups": 4,
    }
    torch.manual_seed(0)
    plain = UNet2DConditionModel(**config).eval()
    other = UNet2DConditionModel(**config | {name: value}).eval()
    other.load_state_dict(plain.state_dict())
    x, context, label = torch.randn(1, 3, 8, 8), torch.randn(1, 5, 12), torch.randn(1, 32)
    one, two = (net(x, 3, context, class_labels=label).sample for net in (plain, other))
    assert torch.equal(one, two)


SYMBOLS = list(bytes_to_unicode().values())
NAMES = {
    piece: index
    for index, piece in enumerate(
        [*SYMBOLS, *(symbol + "</w>" for symbol in SYMBOLS), "<|startoftext|>", "<|endoftext|>"]
    )
}


@pytest.fixture
def saved(tmp_path):
    """A CLIP as transformers 5 saves it, and a function that saves its image processor with some options."""
    sizes: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 128, "num_hidden_layers": 1}
    sizes |= {"num_attention_heads": 2, "projection_dim": 32}
    torch.manual_seed(0)
    text = CLIPTextConfig(
        vocab_size=len(NAMES),
        max_position_embeddings=13,
        eos_token_id=len(NAMES) - 1,
        bos_token_id=len(NAMES) - 2,
        **sizes,
    )
    vision = CLIPVisionConfig(image_size=16, patch_size=8, **sizes)
    model = CLIPModel(
        CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=32)
    ).eval()
    for parameter in model.vision_model.embeddings.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(tmp_path)

    def save(*, old: bool = False, **options: Any) -> CLIPImageProcessor:
        options = {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}} | options
        images = CLIPImageProcessor(**options)
        tokenizer = CLIPTokenizer(vocab=NAMES, merges=[], model_max_length=13)
        CLIPProcessor(images, tokenizer).save_pretrained(tmp_path)
        if old:
            (tmp_path / "processor_config.json").unlink()
            images.save_pretrained(tmp_path)
        return images

    return tmp_path, model, save


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"image_mean": [0.5] * 3, "image_std": [0.5, 0.25, 1.0]},
        {"do_normalize": False},
        {"rescale_factor": 1 / 127.5},
        {"rescale_factor": 1 / 127.5, "do_normalize": False},
        {"do_rescale": False, "image_mean": [127.0] * 3, "image_std": [60.0] * 3},
    ],
)
@torch.no_grad()
def test_embeddings_are_those_of_the_saved_processor(saved, options, old):
    folder, model, save = saved
    images = save(old=old, **options)
    assert (folder / "processor_config.json").exists() != old
    pixels = np.random.default_rng(0).integers(0, 255, (24, 40, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    theirs = model.get_image_features(**images(picture, return_tensors="pt")).pooler_output
    ours = open_model(folder).parts["clip"].load().encode_image(to_tensor(middle_square(picture, 16))[None])
    torch.testing.assert_close(ours, torch.nn.functional.normalize(theirs, dim=-1), atol=2e-5, rtol=0)


@pytest.mark.parametrize(
    "options",
    [
        {"size": {"height": 16, "width": 16}},
        {"size": {"height": 16, "width": 16}, "do_center_crop": False, "resample": 2},
        {"resample": 2},
    ],
)
@torch.no_grad()
def test_pictures_become_squares_as_the_saved_processor_makes_them(saved, options):
    folder, model, save = saved
    images = save(**options)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (24, 40, 3), dtype=np.uint8))
    theirs = model.get_image_features(**images(picture, return_tensors="pt")).pooler_output
    ours = Model.load(folder).embed_image(picture)
    torch.testing.assert_close(ours, torch.nn.functional.normalize(theirs, dim=-1), atol=2e-5, rtol=0)


def test_version_5s_file_is_preferred_as_transformers_does(saved):
    folder, _, save = saved
    save(image_mean=[0.25] * 3)
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.75] * 3}))
    assert open_model(folder).parts["clip"].config.vision.mean == (0.25,) * 3
    (folder / "processor_config.json").write_text(json.dumps({"processor_class": "CLIPProcessor"}))
    assert open_model(folder).parts["clip"].config.vision.mean == (0.75,) * 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"do_resize": False}, "do_resize is False"),
        ({"do_center_crop": False, "size": {"shortest_edge": 16}}, "do_center_crop is False with size"),
        ({"resample": 1}, "resample is 1"),
        ({"size": {"height": 16, "width": 20}}, "size is {'height': 16"),
        ({"size": {"shortest_edge": 20}}, "size is {'shortest_edge': 20}.* shortest_edge, .* of 16"),
        ({"crop_size": {"height": 12, "width": 16}}, "crop_size is .* reads 16 x 16"),
        ({"size": 20, "default_to_square": True}, "default_to_square is True"),
        ({"do_pad": True}, "do_pad is True"),
        ({"do_flip_channel_order": True}, "'do_flip_channel_order' .* is not known"),
        ({"image_processor_type": "SiglipImageProcessor"}, "image_processor_type is 'SiglipImageProcessor'"),
        ({"do_normalize": "no"}, "do_normalize is 'no', expected bool"),
        ({"rescale_factor": 0}, "rescale_factor is 0"),
        ({"image_std": [0, 1, 1]}, "image_std is zero"),
        ({"image_mean": ["a", 1, 1]}, "image_mean is not three numbers"),
        ({"image_mean": {"r": 1}}, "image_mean is not three numbers"),
    ],
)
def test_processors_that_do_something_else_are_refused_by_name(saved, options, message):
    folder, _, save = saved
    save()
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": options}))
    with pytest.raises(ModelError, match=rf"processor_config\.json, image_processor.*{message}"):
        open_model(folder)


def test_old_processors_give_their_size_as_a_number(saved):
    folder, _, save = saved
    save()
    (folder / "processor_config.json").unlink()
    old = {"crop_size": 16, "size": 16, "feature_extractor_type": "CLIPFeatureExtractor", "resample": 3}
    old |= {"image_mean": 0.5, "image_std": 0.5, "do_resize": True, "do_normalize": True}
    (folder / "preprocessor_config.json").write_text(json.dumps(old))
    assert open_model(folder).parts["clip"].config.vision.std == (0.5,) * 3


@pytest.mark.parametrize(
    ("tower", "name", "value", "message"),
    [
        ("text_config", "layer_norm_eps", 1e-6, "layer_norm_eps is 1e-06"),
        ("text_config", "eos_token_id", 5, "eos_token_id is 5, the end token of its tokenizer is 513"),
        (
            "text_config",
            "intermediate_size",
            64,
            "intermediate_size is 64, four times its hidden_size is 128",
        ),
        ("vision_config", "num_channels", 4, "num_channels is 4"),
        ("vision_config", "hidden_act", "relu", "hidden_act 'relu'"),
        ("", "quantization_config", {"bits": 4}, "quantization_config is {'bits': 4}"),
        ("", "projection_dim", "wide", "projection_dim is 'wide', expected int"),
        ("", "text_config", "none", "text_config is 'none', expected dict"),
    ],
)
def test_towers_of_another_kind_are_refused_by_name(saved, tower, name, value, message):
    folder, _, save = saved
    save()
    data = json.loads((folder / "config.json").read_text())
    (data[tower] if tower else data)[name] = value
    (folder / "config.json").write_text(json.dumps(data))
    with pytest.raises(ModelError, match=message) as caught:
        recognise(folder)
    assert "the other parts" not in str(caught.value)


def test_old_configs_state_their_towers_twice(saved):
    """As transformers does, the second one prevails, and the model's width of embeddings over the towers'."""
    folder, _, save = saved
    save()
    data = json.loads((folder / "config.json").read_text())
    tower = data["vision_config"]
    data |= {"vision_config": {"projection_dim": 7}, "vision_config_dict": tower, "text_config_dict": None}
    (folder / "config.json").write_text(json.dumps(data))
    assert open_model(folder).parts["clip"].config.vision.size == 16
    open_model(folder).parts["clip"].load()


OPENCLIP_FOLDER = {
    "model_cfg": {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 16, "layers": 2, "width": 64, "patch_size": 8},
        "text_cfg": {"context_length": 13, "vocab_size": 514, "width": 64, "heads": 1, "layers": 2},
    },
    "preprocess_cfg": {"mean": 0.5, "std": [0.25, 0.5, 1], "size": [16, 16], "interpolation": "bicubic"},
}


def test_openclips_preprocessing_is_read():
    config = clip_openclip.read_config(OPENCLIP_FOLDER, "here")
    assert (config.vision.mean, config.vision.std) == ((0.5, 0.5, 0.5), (0.25, 0.5, 1.0))
    assert (config.vision.resize, config.vision.interpolation) == ("shortest", "bicubic")
    squashed = OPENCLIP_FOLDER | {"preprocess_cfg": {"resize_mode": "squash", "interpolation": "bilinear"}}
    config = clip_openclip.read_config(squashed, "here")
    assert (config.vision.resize, config.vision.interpolation) == ("squash", "bilinear")


@pytest.mark.parametrize(
    ("home", "options", "message"),
    [
        ("preprocess_cfg", {"resize_mode": "longest"}, "preprocess_cfg: resize_mode is 'longest'"),
        ("preprocess_cfg", {"interpolation": "lanczos"}, "interpolation is 'lanczos'"),
        ("preprocess_cfg", {"size": 20}, "size is 20, the tower reads 16 x 16"),
        ("preprocess_cfg", {"mean": [1, 2]}, "mean is not three numbers"),
        ("preprocess_cfg", {"mode": "L"}, "mode is 'L'"),
        ("vision_cfg", {"timm_model_name": "vit_base"}, "vision_cfg: timm_model_name is 'vit_base'"),
        ("vision_cfg", {"qk_norm": True}, "vision_cfg: qk_norm is True"),
        ("text_cfg", {"pool_type": "last"}, "text_cfg: pool_type is 'last'"),
        ("text_cfg", {"no_causal_mask": True}, "text_cfg: no_causal_mask is True"),
        ("model_cfg", {"init_logit_bias": -10}, "init_logit_bias is -10"),
        ("model_cfg", {"brand_new": 1}, "'brand_new' of OpenCLIP's model_cfg is not known"),
    ],
)
def test_openclips_other_options_are_refused_by_name(home, options, message):
    data = json.loads(json.dumps(OPENCLIP_FOLDER))
    place = data[home] if home in data else data["model_cfg"].setdefault(home, {})
    place |= options
    with pytest.raises(ModelError, match=message):
        clip_openclip.read_config(data, "here")


def test_messages_name_the_config_and_both_values():
    with pytest.raises(ModelError, match=r"^prior: clip_embed_dim is 9, its embedding_dim is 768"):
        prior.transformer_config(
            {"_class_name": "PriorTransformer", "clip_embed_dim": 9}, "prior", additional=4
        )
    with pytest.raises(
        ModelError, match="variance_type is 'learned', not one of fixed_small_log, learned_range"
    ):
        scheduler.process_config({"_class_name": "UnCLIPScheduler", "variance_type": "learned"}, "x")
    with pytest.raises(ModelError, match="prediction_type is 'v', not one of epsilon, sample"):
        scheduler.process_config({"_class_name": "UnCLIPScheduler", "prediction_type": "v"}, "x")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_cfg": [1]}, r"model_cfg is \[1\], expected dict"),
        ({"preprocess_cfg": "bicubic"}, "preprocess_cfg is 'bicubic', expected dict"),
        ({"preprocess_cfg": {"mean": [0.5, 0.5, 10**400]}}, "mean is not three numbers"),
        ({"preprocess_cfg": {"std": [True, 1, 1]}}, "std is not three numbers"),
    ],
)
def test_openclip_configs_of_other_shapes_are_refused_by_name(change, message):
    sides = {"vision_cfg": {"patch_size": 32}, "text_cfg": {}}
    good = {"model_cfg": {"embed_dim": 512, **sides}, "preprocess_cfg": {}}
    clip_openclip.read_config(good, "here")
    with pytest.raises(ModelError, match=rf"^here.*{message}"):
        clip_openclip.read_config(good | change, "here")


@pytest.mark.parametrize(
    "values",
    [{"resample": [3]}, {"resample": {}}, {"image_mean": [0, 0, 10**400]}, {"image_std": [True] * 3}],
)
def test_image_processors_with_values_of_other_types_are_refused_by_name(tmp_path, values):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(values))
    with pytest.raises(ModelError, match=next(iter(values))):
        preprocessing.of_folder(tmp_path, 224)
