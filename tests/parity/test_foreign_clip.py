"""CLIP in every public layout, against transformers' CLIPModel and against OpenAI's forward pass."""

import gzip
import json
import shutil
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from unclip.errors import ModelError
from unclip.formats.convert import convert
from unclip.formats.key_maps import clip as clip_map
from unclip.formats.opened import open_model
from unclip.formats.preprocessing import MEAN, STD
from unclip.formats.registry import recognise
from unclip.networks.clip import Clip

WIDTH, LAYERS, CONTEXT = 64, 2, 77
MERGES = [("c", "a"), ("ca", "t</w>"), ("r", "e"), ("re", "d</w>")]


class OpenAiTower(nn.Module):
    """The residual attention blocks of OpenAI's CLIP, on torch's own attention, whose names the files have."""

    def __init__(self, activation: nn.Module):
        super().__init__()
        block = {
            "attn": lambda: nn.MultiheadAttention(WIDTH, WIDTH // 64, batch_first=True),
            "ln_1": lambda: nn.LayerNorm(WIDTH),
            "mlp": lambda: nn.Sequential(
                OrderedDict(
                    c_fc=nn.Linear(WIDTH, 4 * WIDTH), act=activation, c_proj=nn.Linear(4 * WIDTH, WIDTH)
                )
            ),
            "ln_2": lambda: nn.LayerNorm(WIDTH),
        }
        made = [nn.ModuleDict({name: make() for name, make in block.items()}) for _ in range(LAYERS)]
        self.resblocks = nn.ModuleList(made)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        for block in self.resblocks:
            y = block["ln_1"](x)
            x = x + block["attn"](y, y, y, need_weights=False, attn_mask=mask)[0]
            x = x + block["mlp"](block["ln_2"](x))
        return x


class OpenAiClip(nn.Module):
    """OpenAI's CLIP (https://github.com/openai/CLIP, clip/model.py): what it computes, under its names."""

    def __init__(self, vocabulary: int, activation: nn.Module):
        super().__init__()
        self.visual = nn.Module()
        self.visual.conv1 = nn.Conv2d(3, WIDTH, 8, 8, bias=False)
        self.visual.class_embedding = nn.Parameter(torch.empty(WIDTH))
        self.visual.positional_embedding = nn.Parameter(torch.empty(5, WIDTH))
        self.visual.ln_pre, self.visual.ln_post = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.visual.transformer = OpenAiTower(activation)
        self.visual.proj = nn.Parameter(torch.empty(WIDTH, 48))
        self.transformer = OpenAiTower(activation)
        self.token_embedding = nn.Embedding(vocabulary, WIDTH)
        self.positional_embedding = nn.Parameter(torch.empty(CONTEXT, WIDTH))
        self.ln_final = nn.LayerNorm(WIDTH)
        self.text_projection = nn.Parameter(torch.empty(WIDTH, 48))
        self.logit_scale = nn.Parameter(torch.empty([]))
        generator = torch.Generator().manual_seed(0)
        for name, parameter in self.named_parameters():
            nn.init.normal_(parameter, std=0.1, generator=generator)
            if name.endswith("weight") and ".ln_" in f".{name}":
                nn.init.uniform_(parameter, 0.5, 1.5, generator=generator)

    def encode_image(self, pixels: Tensor) -> Tensor:
        mean, std = torch.tensor(MEAN)[:, None, None], torch.tensor(STD)[:, None, None]
        visual = self.visual
        x = visual.conv1(((pixels + 1) / 2 - mean) / std).flatten(2).transpose(1, 2)
        x = torch.cat([visual.class_embedding.expand(len(x), 1, -1), x], dim=1) + visual.positional_embedding
        return visual.ln_post(visual.transformer(visual.ln_pre(x))[:, 0]) @ visual.proj

    def encode_text(self, tokens: Tensor) -> Tensor:
        mask = torch.full((CONTEXT, CONTEXT), -torch.inf).triu(1)
        x = self.transformer(self.token_embedding(tokens) + self.positional_embedding, mask)
        return self.ln_final(x)[torch.arange(len(x)), tokens.argmax(-1)] @ self.text_projection


class QuickGelu(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


@pytest.fixture(scope="module")
def merges(tmp_path_factory) -> Path:
    """A list of merges as OpenAI's: a line about its version, then a merge a line."""
    file = tmp_path_factory.mktemp("tokenizer") / "bpe_simple_vocab_16e6.txt.gz"
    lines = ["bpe_simple_vocab_16e6.txt#version: 0.2", *(" ".join(merge) for merge in MERGES)]
    file.write_bytes(gzip.compress(("\n".join(lines) + "\n").encode()))
    return file


VOCABULARY = 2 * 256 + len(MERGES) + 2


def unit(embedding: Tensor) -> Tensor:
    return nn.functional.normalize(embedding, dim=-1)


@torch.no_grad()
def agree(clip: Clip, tokens: Tensor, reference) -> None:
    """Embeddings of unit length, on pictures of the size that the CLIP reads."""
    size = clip.config.vision.size
    pixels = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1
    for have, want in (
        (clip.encode_image(pixels), unit(reference.encode_image(pixels))),
        (clip.encode_text(tokens).embedding, unit(reference.encode_text(tokens))),
    ):
        assert want.std() > 0.01
        torch.testing.assert_close(have, want, atol=1e-5, rtol=0)


def test_openais_file(tmp_path, merges):
    reference = OpenAiClip(VOCABULARY, QuickGelu())
    facts = {"input_resolution": torch.tensor(16), "context_length": torch.tensor(CONTEXT)}
    torch.save(reference.state_dict() | facts | {"vocab_size": torch.tensor(VOCABULARY)}, tmp_path / "ViT.pt")
    folder = convert(tmp_path / "ViT.pt", tmp_path / "out", tokenizer=merges, licence="MIT")
    model = open_model(folder, check=True)
    assert (model.name, model.licence) == ("out", "MIT")
    clip = model.parts["clip"].load()
    assert clip.config.vision.activation == "quick_gelu"
    agree(clip, model.tokenizer().encode(["a red cat", "cat!"]), reference)
    assert clip.logit_scale == reference.logit_scale


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_openais_archive(tmp_path, merges):
    """The form that OpenAI's files have: traced by TorchScript, in half precision, with what the model knows of itself."""
    reference = OpenAiClip(VOCABULARY, QuickGelu())
    for name, value in {"input_resolution": 16, "context_length": CONTEXT, "vocab_size": VOCABULARY}.items():
        reference.register_buffer(name, torch.tensor(value))
    tokens = torch.zeros(1, CONTEXT, dtype=torch.int64)
    inputs = {"encode_image": torch.zeros(1, 3, 16, 16), "encode_text": tokens}
    traced = torch.jit.trace_module(reference, inputs, check_trace=False)
    reference.half()  # they share their weights
    assert {parameter.dtype for parameter in traced.parameters()} == {torch.float16}
    traced.save(str(tmp_path / "ViT.pt"))
    reference.float()
    model = open_model(convert(tmp_path / "ViT.pt", tmp_path / "out", tokenizer=merges))
    clip = model.parts["clip"].load()
    assert {weight.dtype for weight in clip.parameters()} == {torch.float32}
    agree(clip, model.tokenizer().encode(["a red cat", "cat!"]), reference)


def test_openclips_folder(tmp_path, merges, same_model):
    reference = OpenAiClip(VOCABULARY, nn.GELU())
    sizes = {"width": WIDTH, "layers": LAYERS}
    config = {
        "model_cfg": {
            "embed_dim": 48,
            "vision_cfg": {"image_size": 16, "patch_size": 8, **sizes},
            "text_cfg": {"context_length": CONTEXT, "vocab_size": VOCABULARY, "heads": 1, **sizes},
        },
        "preprocess_cfg": {"mean": MEAN, "std": STD},
    }
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    save_file(reference.state_dict(), tmp_path / "open_clip_model.safetensors")
    found = recognise(tmp_path)
    assert found is not None
    tokens = torch.zeros(2, CONTEXT, dtype=torch.int64)
    tokens[:, 0], tokens[0, 3], tokens[1, 5] = VOCABULARY - 2, VOCABULARY - 1, VOCABULARY - 1
    agree(found.parts["clip"].load(), tokens, reference)
    # Pickled, as older repositories have it, with a tokenizer as all of them have one.
    CLIPTokenizer(vocab=clip_vocabulary(), merges=MERGES).save_pretrained(tmp_path)
    opened = open_model(tmp_path)
    old = Path(shutil.copytree(tmp_path, tmp_path.with_name(f"{tmp_path.name}-old")))
    (old / "open_clip_model.safetensors").unlink()
    torch.save(reference.state_dict(), old / "open_clip_pytorch_model.bin")
    with pytest.raises(ModelError, match=r"open_clip_pytorch_model\.bin is pickled"):
        open_model(old)
    assert same_model(open_model(convert(old, tmp_path.with_name(f"{tmp_path.name}-converted"))), opened)
    config["model_cfg"]["vision_cfg"]["timm_model_name"] = "vit_medium_patch16"
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="timm_model_name is 'vit_medium_patch16'"):
        recognise(tmp_path)


class Transformers:
    """transformers' CLIPModel with OpenAI's two methods."""

    def __init__(self, model: CLIPModel):
        self.model = model

    def encode_image(self, pixels: Tensor) -> Tensor:
        mean, std = torch.tensor(MEAN)[:, None, None], torch.tensor(STD)[:, None, None]
        pooled = self.model.vision_model(((pixels + 1) / 2 - mean) / std).pooler_output
        return self.model.visual_projection(pooled)

    def encode_text(self, tokens: Tensor) -> Tensor:
        return self.model.text_projection(self.model.text_model(tokens).pooler_output)


def test_transformers_folder(tmp_path, same_model):
    symbols = clip_vocabulary()
    towers = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
    config = CLIPConfig(
        projection_dim=24,
        text_config={
            **towers,
            "vocab_size": len(symbols),
            "max_position_embeddings": 12,
            "projection_dim": 24,
            "eos_token_id": len(symbols) - 1,
        },
        # The picture tower of ViT-bigG has no mlp of four times its width.
        vision_config={
            **towers,
            "intermediate_size": 160,
            "image_size": 16,
            "patch_size": 8,
            "projection_dim": 24,
            "hidden_act": "gelu",
        },
    )
    torch.manual_seed(0)
    reference = CLIPModel(config).eval()
    reference.save_pretrained(tmp_path)
    CLIPTokenizer(vocab=symbols, merges=MERGES, model_max_length=12).save_pretrained(tmp_path)
    model = open_model(tmp_path)
    clip = model.parts["clip"].load()
    agree(clip, model.tokenizer().encode(["a red cat", ""]), Transformers(reference))
    assert clip.logit_scale == reference.logit_scale
    assert same_model(open_model(convert(tmp_path, tmp_path.with_name(f"{tmp_path.name}-converted"))), model)
    # A folder may say what its pictures are normalised with.
    processor = tmp_path / "preprocessor_config.json"
    processor.write_text(json.dumps({"image_mean": [0.5, 0.25, 0.5], "image_std": [1, 0.5, 0.25]}))
    told = open_model(tmp_path).parts["clip"].load()
    assert (told.config.vision.mean, told.config.vision.std) == ((0.5, 0.25, 0.5), (1.0, 0.5, 0.25))
    assert (
        told.encode_image(torch.zeros(1, 3, 16, 16)) - clip.encode_image(torch.zeros(1, 3, 16, 16))
    ).norm() > 1e-3
    processor.write_text(json.dumps({"image_mean": [0.5], "image_std": [1, 1, 1]}))
    with pytest.raises(ModelError, match=r"preprocessor_config\.json is damaged"):
        open_model(tmp_path)
    processor.unlink()
    broken = json.loads((tmp_path / "config.json").read_text())
    broken["vision_config"]["hidden_act"] = "relu"
    (tmp_path / "config.json").write_text(json.dumps(broken))
    with pytest.raises(ModelError, match="hidden_act 'relu'"):
        recognise(tmp_path)


def clip_vocabulary() -> dict[str, int]:
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    symbols = list(bytes_to_unicode().values())
    pieces = [*symbols, *(f"{symbol}</w>" for symbol in symbols), *map("".join, MERGES)]
    return {piece: index for index, piece in enumerate([*pieces, "<|startoftext|>", "<|endoftext|>"])}


def test_openais_merges_number_tokens_as_transformers_does(merges):
    from unclip.formats.tokenizer import openai_tokenizer

    text = gzip.decompress(merges.read_bytes()).decode()
    ours = openai_tokenizer(text)
    assert json.loads(ours.to_json())["vocabulary"] == clip_vocabulary()
    reference = CLIPTokenizer(vocab=clip_vocabulary(), merges=MERGES)
    assert (
        ours.encode(["a Cat é!"])[0][:9].tolist()[: len(reference("a Cat é!").input_ids)]
        == reference("a Cat é!").input_ids
    )


def test_every_layout_goes_back(merges):
    config = clip_map.openai_config(OpenAiClip(VOCABULARY, nn.GELU()).state_dict(), "x")
    ours = Clip(config).state_dict()
    for table in (clip_map.TRANSFORMERS, clip_map.openai_table(), clip_map.openai_table("m.", "text.")):
        theirs = table.to_theirs(ours)
        back = dict(table.to_ours(ours, theirs, theirs.__getitem__, "x"))
        assert all(torch.equal(back[name], ours[name]) for name in ours)
