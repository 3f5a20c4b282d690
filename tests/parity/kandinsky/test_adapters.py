"""Adapters beside peft and diffusers: theirs here, and ours there, with equal outputs."""

import json

import pytest
import torch
from diffusers import UNet2DConditionModel  # pyright: ignore[reportPrivateImportUsage]
from diffusers.utils.state_dict_utils import convert_unet_state_dict_to_peft
from safetensors.torch import load_file, save_file

from unclip.checkpoints.adapters import add, read_adapter, save_adapter
from unclip.diffusion.conventions import GridConfig
from unclip.diffusion.parametrization import ProcessConfig
from unclip.errors import ModelError
from unclip.formats.adapters import changes_of, part_of, write_public
from unclip.formats.key_maps import kandinsky as kandinsky_map
from unclip.formats.key_maps.kandinsky_scheduler import Schedule
from unclip.networks.adapter import Adapter, AdapterConfig, Low
from unclip.networks.kandinsky import KandinskyCondition, KandinskyDecoder
from unclip.networks.patch_transformer import PatchTransformer, PatchTransformerConfig

peft = pytest.importorskip("peft")

SCHEDULE = Schedule(
    process=ProcessConfig(parametrization="eps", schedule="linear", learned_variance=True),
    grid=GridConfig(),
    clip=None,
    sampler="ddpm",
)


@pytest.fixture
def network() -> PatchTransformer:
    """A small network whose output is not zero."""
    torch.manual_seed(0)
    made = PatchTransformer(PatchTransformerConfig(size=8, patch=2, width=32, layers=2, head_channels=16))
    for parameter in made.parameters():
        if parameter.count_nonzero() == 0:
            torch.nn.init.normal_(parameter, std=0.1)
    return made


def adapted(network: torch.nn.Module, **config) -> Adapter:
    adapter = Adapter(network, AdapterConfig(**{"rank": 3, "alpha": 6.0} | config))
    for low in adapter.layers:
        assert isinstance(low, Low)
        torch.nn.init.normal_(low.up, std=0.2)
    return adapter


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(5)
    return torch.randn(2, 3, 8, 8, generator=generator), torch.tensor([3.0, 700.0])


def test_peft_reads_ours(network, inputs, tmp_path):
    adapter = adapted(network)
    save_adapter(tmp_path / "adapter", adapter, network, part="decoder", model="small", kind="decoder")
    plain = network(*inputs)
    loaded = peft.PeftModel.from_pretrained(network, str(tmp_path / "adapter"))
    theirs = loaded(*inputs)
    assert (theirs - plain).abs().max() > 0.01
    network = loaded.unload()
    adapter.attach(network)
    torch.testing.assert_close(network(*inputs), theirs)


@pytest.mark.parametrize("rslora", [False, True])
def test_we_read_peft_s(network, inputs, tmp_path, rslora):
    config = peft.LoraConfig(
        r=4, lora_alpha=2, target_modules=["qkv", "mlp_in"], init_lora_weights=False, use_rslora=rslora
    )
    wrapped = peft.get_peft_model(network, config)
    theirs = wrapped(*inputs)
    wrapped.save_pretrained(str(tmp_path / "peft"))
    network = wrapped.unload()
    adapter = read_adapter(tmp_path / "peft")
    add(network, changes_of(adapter, network, "decoder"), 1.0)
    torch.testing.assert_close(network(*inputs), theirs, rtol=1e-4, atol=1e-5)


def test_attached_and_added_are_the_same_at_any_strength(network, inputs, tmp_path):
    adapter = adapted(network, targets=r".*attention\.(qkv|out)|blocks\.\d\.mlp_in|patches")
    file = read_adapter(save_adapter(tmp_path, adapter, network, part="decoder", model="m", kind="decoder"))
    assert file.layers.keys() == set(adapter.names)
    state = {name: value.clone() for name, value in network.state_dict().items()}
    changes = changes_of(file, network, "decoder")
    add(network, changes, 1.0)
    added = network(*inputs)
    network.load_state_dict(state)
    adapter.attach(network)
    torch.testing.assert_close(network(*inputs), added, rtol=1e-4, atol=1e-5)
    add(network, changes, -1.0)
    for hook in [module._forward_hooks for module in network.modules()]:
        hook.clear()
    add(network, changes, 1.0)
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, state[name])


@pytest.fixture
def pair(unets):
    """diffusers' Kandinsky 2.2 U-Net, and ours with its weights."""
    theirs = unets["2.2", 4]
    data = {"_class_name": "UNet2DConditionModel"} | {
        k: list(v) if isinstance(v, tuple) else v for k, v in theirs.config.items()
    }
    config = kandinsky_map.decoder_config(data, SCHEDULE, channels=4, factor=8, context=0, where="test")
    ours = KandinskyDecoder(config)
    weights = {f"unet/{name}": value for name, value in theirs.state_dict().items()}
    table = kandinsky_map.table(config)
    ours.load_state_dict(dict(table.to_ours(ours.state_dict(), list(weights), weights.__getitem__, "test")))
    return ours.eval(), theirs


def drawn(ours: KandinskyDecoder, theirs: UNet2DConditionModel):
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(2, 4, 8, 16, generator=generator)
    z = torch.randn(2, 20, generator=generator)
    labels = torch.tensor([10.0, 500.0])
    with torch.no_grad():
        one = ours(x, labels, ours.encode(KandinskyCondition(z)))
        other = theirs(x, labels, encoder_hidden_states=None, added_cond_kwargs={"image_embeds": z}).sample
    return one, other


def test_diffusers_reads_ours(pair, tmp_path):
    ours, theirs = pair
    plain, same = drawn(ours, theirs)
    torch.testing.assert_close(plain, same, rtol=1e-4, atol=1e-5)
    adapter = adapted(ours, targets=r".*attention.*\.(qkv|context_kv|out)|.*conv1|entrance|label\.linear_1")
    write_public(tmp_path, adapter.factors(), ours, part="decoder", scale=adapter.config.scale)
    theirs.load_lora_adapter(load_file(tmp_path / "pytorch_lora_weights.safetensors"), prefix="unet")
    adapter.attach(ours)
    try:
        one, other = drawn(ours, theirs)
    finally:
        theirs.unload_lora()
    assert (one - plain).abs().max() > 0.1
    torch.testing.assert_close(one, other, rtol=1e-4, atol=2e-5)


def old_name(name: str, kind: str) -> str:
    """Name of a factor of attention as diffusers' training scripts wrote it in 2023."""
    layer, half = name.rsplit(".lora_", 1)
    half = "down" if half[0] == "A" else "up"
    if kind == "lora":
        return f"{layer}.lora.{half}.weight"
    home, projection = layer.removesuffix(".0").rsplit(".", 1)
    return f"{home}.processor.{projection}_lora.{half}.weight"


@pytest.mark.parametrize("kind", ["processor", "lora"])
def test_we_read_diffusers_old_names(pair, tmp_path, kind):
    ours, theirs = pair
    generator = torch.Generator().manual_seed(1)
    tensors = {}
    for name, module in theirs.named_modules():
        if name.endswith(("to_q", "add_v_proj", "to_out.0")):
            down, up = (
                0.3 * torch.randn(*shape, generator=generator)
                for shape in ((2, module.weight.shape[1]), (module.weight.shape[0], 2))
            )
            tensors |= {f"unet.{name}.lora_A.weight": down, f"unet.{name}.lora_B.weight": up}
    theirs.load_lora_adapter(dict(tensors), prefix="unet")
    old = {old_name(name, kind): value for name, value in tensors.items()}
    # diffusers' own converter does not know the projections of Kandinsky's context.
    known, found = (
        {name for name in names if "add_v" not in name}
        for names in (tensors, convert_unet_state_dict_to_peft(dict(old)))
    )
    assert found == known
    save_file(old, tmp_path / "file.safetensors")
    try:
        adapter = read_adapter(tmp_path / "file.safetensors")
        add(ours, changes_of(adapter, ours, part_of(adapter, {"prior": None, "decoder": None})), 1.0)
        one, other = drawn(ours, theirs)
    finally:
        theirs.unload_lora()
    torch.testing.assert_close(one, other, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("layout", ["diffusers", "kohya"])
def test_we_read_diffusers_and_kohya_s(pair, tmp_path, layout):
    ours, theirs = pair
    generator = torch.Generator().manual_seed(1)
    tensors = {}
    for name, module in theirs.named_modules():
        if name.endswith(("to_q", "add_v_proj", "to_out.0", "resnets.0.conv2")):
            weight = module.weight
            tensors[f"unet.{name}.lora_A.weight"] = 0.3 * torch.randn(
                2, *weight.shape[1:], generator=generator
            )
            up = torch.randn(weight.shape[0], 2, *(1,) * (weight.ndim - 2), generator=generator)
            tensors[f"unet.{name}.lora_B.weight"] = 0.3 * up
    theirs.load_lora_adapter(dict(tensors), prefix="unet")
    if layout == "kohya":
        kept = tensors
        tensors = {}
        for name, value in kept.items():
            layer, half = name.removeprefix("unet.").rsplit(".lora_", 1)
            flat = "lora_unet_" + layer.replace(".", "_")
            tensors[f"{flat}.lora_{'down' if half[0] == 'A' else 'up'}.weight"] = value
            tensors[f"{flat}.alpha"] = torch.tensor(2.0)
    save_file(tensors, tmp_path / "file.safetensors")
    try:
        adapter = read_adapter(tmp_path / "file.safetensors")
        assert part_of(adapter, {"prior": None, "decoder": None}) == "decoder"
        add(ours, changes_of(adapter, ours, "decoder"), 1.0)
        one, other = drawn(ours, theirs)
    finally:
        theirs.unload_lora()
    torch.testing.assert_close(one, other, rtol=1e-4, atol=2e-5)


def test_adapters_of_another_model_are_refused(network, pair, tmp_path):
    adapter = adapted(network)
    folder = save_adapter(tmp_path / "one", adapter, network, part="decoder", model="small", kind="decoder")
    file = read_adapter(folder)
    with pytest.raises(ModelError, match=r"changes 'blocks\.0\.attention\.\w+'.*made for another model"):
        changes_of(file, pair[0], "decoder")
    with pytest.raises(
        ModelError, match="changes the part 'decoder', which this model does not have: it has clip"
    ):
        part_of(file, {"clip": None})
    torch.manual_seed(1)
    wide = PatchTransformer(PatchTransformerConfig(size=8, patch=2, width=48, layers=2, head_channels=16))
    with pytest.raises(
        ModelError, match=r"by a matrix of \(32, 32\), in the part 'decoder' it has \(48, 48\)"
    ):
        changes_of(file, wide, "decoder")
    other = PatchTransformer(network.config)
    with pytest.raises(
        ModelError, match="trained on small, whose weights are not those of the part 'decoder'"
    ):
        changes_of(file, other, "decoder")
    # Rounding is no other model.
    changes_of(file, network.to(torch.bfloat16), "decoder")


def test_options_that_are_not_computed_are_refused(network, tmp_path):
    adapter = adapted(network)
    folder = save_adapter(tmp_path / "one", adapter, network, part="decoder", model="small", kind="decoder")
    config = json.loads((folder / "adapter_config.json").read_text())
    for name, value in {"use_dora": True, "peft_type": "LOHA", "modules_to_save": ["out"]}.items():
        (folder / "adapter_config.json").write_text(json.dumps({**config, name: value}))
        with pytest.raises(ModelError, match=name):
            read_adapter(folder)
    (folder / "adapter_config.json").write_text("{")
    with pytest.raises(ModelError, match="damaged"):
        read_adapter(folder)
    with pytest.raises(ModelError, match="holds no adapter"):
        read_adapter(tmp_path / "nowhere")
    save_file({"unet.conv_in.weight": torch.zeros(1)}, tmp_path / "odd.safetensors")
    with pytest.raises(ModelError, match="no factor of a low-rank adapter"):
        read_adapter(tmp_path / "odd.safetensors")


def test_targets_that_match_nothing(network):
    with pytest.raises(ValueError, match="matches no layer of this network: its layers are called patches"):
        Adapter(network, AdapterConfig(targets="attentions"))
    with pytest.raises(ValueError, match="no regular expression"):
        AdapterConfig(targets="(")
