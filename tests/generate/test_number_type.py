"""The number type of a model is measured once a machine; a slow one that is given is obeyed, and warned about once."""

import copy
import json
import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

import unclip
from unclip.cli.main import main
from unclip.generate import number_type, placement
from unclip.generate.model import Model
from unclip.generate.number_type import FILE, fastest, measured
from unclip.generate.placement import decisive_layers
from unclip.networks.inference import matrices
from unclip.networks.products import products
from unclip.networks.unet import UnetConfig
from unclip.networks.upsampler import UpsamplerConfig
from unclip.nn.packed import EitherConv2d, PackedLinear
from unclip.nn.precision import Product, Speeds, packed_speeds, winograd_widths
from unclip.nn.winograd import Widths, WinogradConv2d
from unclip.recipes.tiny import decoder

LAYERS = (Product("convolution", 320, 16), Product("linear", 640, 256))
CPU = torch.device("cpu")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, and a process that has warned about nothing."""
    monkeypatch.setenv("UNCLIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(number_type, "_warned", set())
    return tmp_path / "cache" / FILE


@pytest.fixture
def timed(monkeypatch):
    """`timed(bfloat16)` gives every measurement that ratio, and returns the list of those that are made."""
    made = []

    def to(bfloat16, float32=1.0, widths=(0, 0, 0)):
        def measure(layers, widths=None):
            made.append(layers)
            return Speeds(bfloat16, float32)

        monkeypatch.setattr(number_type, "packed_speeds", measure)
        monkeypatch.setattr(number_type, "winograd_widths", lambda: Widths(*widths))
        return made

    return to


@pytest.mark.parametrize(
    ("ratio", "packed", "dtype"),
    [
        (0.06, 1.0, "float32"), (1.1, 1.0, "float32"), (1.3, 1.0, "bfloat16"),
        (1.3, 2.0, "float32"), (4.0, 2.0, "bfloat16"),
    ],
)  # fmt: skip
def test_auto_takes_the_faster_one_and_measures_once_a_machine(cache, timed, ratio, packed, dtype):
    made = timed(ratio, packed)
    for _ in range(2):
        assert fastest(CPU, LAYERS) == getattr(torch, dtype)
    assert made == [LAYERS]
    assert json.loads(cache.read_text())["machine"] == number_type.this_machine()
    fastest(CPU, LAYERS[:1])
    assert made == [LAYERS, LAYERS[:1]]
    assert measured(LAYERS) == (ratio, packed)
    assert len(made) == 2, "the second measurement keeps the first"


@pytest.mark.parametrize("change", [{"processor": "another"}, {"torch": "1.0"}, {"threads": 999}])
def test_the_cache_of_another_machine_is_not_believed(cache, timed, change):
    timed(0.1)
    assert measured(LAYERS).bfloat16 == 0.1
    held = json.loads(cache.read_text())
    cache.write_text(json.dumps(held | {"machine": held["machine"] | change}))
    timed(2.0)
    assert measured(LAYERS).bfloat16 == 2.0


@pytest.mark.parametrize(
    "content",
    [
        "{", "[]", "null", '{"format": 99}', '{"format": 3, "machine": 3}',
        '{"format": 3, "machine": MACHINE, "speeds": [1]}',
        '{"format": 3, "machine": MACHINE, "speeds": {KEY: "fast"}}',
        '{"format": 3, "machine": MACHINE, "speeds": {KEY: [1.0]}}',
        '{"format": 3, "machine": MACHINE, "speeds": {KEY: [-3.0, 1.0]}}',
        '{"format": 3, "machine": MACHINE, "speeds": {KEY: [NaN, 1.0]}}',
    ],
)  # fmt: skip
def test_a_damaged_cache_is_measured_again(cache, timed, content):
    cache.parent.mkdir()
    key = json.dumps(repr([tuple(layer) for layer in LAYERS]))
    machine = json.dumps(number_type.this_machine())
    cache.write_text(content.replace("MACHINE", machine).replace("KEY", key))
    made = timed(2.5)
    assert measured(LAYERS).bfloat16 == 2.5
    assert made == [LAYERS]
    timed(9.0)
    assert measured(LAYERS).bfloat16 == 2.5


@pytest.mark.parametrize(
    ("ratio", "slow", "factor"), [(1 / 16, "bfloat16", "16.0"), (5.0, "float32", "5.0"), (2.0, "", "")]
)
def test_a_slow_type_is_obeyed_and_warned_about_once(cache, timed, caplog, ratio, slow, factor):
    timed(ratio)
    for _ in range(2):
        for name in ("float32", "bfloat16"):
            assert number_type.number_type(name, CPU, LAYERS) == getattr(torch, name)
    warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == (1 if slow else 0)
    assert not slow or f"dtype {slow} is {factor} times as slow" in warnings[0]


def test_a_tiny_model_is_float32_without_a_measurement(cache, timed, tiny_folder):
    made = timed(100.0)
    assert Model.load(tiny_folder, device="cpu", dtype="auto").dtype == torch.float32
    assert Model.load(tiny_folder, device="cpu", dtype="bfloat16").dtype == torch.bfloat16
    assert made == []


def test_the_bundled_model_is_float32_unless_asked(cache, timed):
    made = timed(4.0)
    assert unclip.load("artwork", device="cpu").dtype == torch.float32
    assert made == []
    assert unclip.load("artwork", device="cpu", dtype="auto").dtype == torch.bfloat16
    (layers,) = made
    assert Product("linear", 384, 256) in layers
    assert any(layer.kind == "convolution" for layer in layers)


def test_the_layers_of_a_network_follow_its_config():
    net = UnetConfig(
        channels=320, multiples=(1, 2, 3, 4), attention_levels=(1, 2, 3), context_width=64, vector_width=64
    )
    config = replace(decoder().model, net=net, size=64)
    assert products(config) == (
        Product("convolution", 320, 32),
        Product("convolution", 640, 8),
        Product("attention", 640, 1024),
        Product("linear", 640, 1024),
    )
    large = UpsamplerConfig(
        net=UnetConfig(in_channels=6, out_channels=6, channels=64, multiples=(1, 2)),
        process=config.process,
        low_size=64,
        high_size=256,
    )
    assert decisive_layers([large, None, large]) == (
        Product("convolution", 64, 32),
        Product("convolution", 128, 32),
    )


@pytest.mark.parametrize(("packed", "kinds"), [(2.0, True), (0.96, True), (0.9, False)])
def test_float32_layers_are_packed_where_that_is_no_slower_and_auto_chose(cache, timed, packed, kinds):
    timed(0.5, packed)
    model = unclip.load("artwork", device="cpu", dtype="auto")
    assert model.dtype == torch.float32
    exact = unclip.load("artwork", device="cpu", dtype="float32")
    for one, expected in ((model, kinds), (exact, False)):
        for part in ("prior", "decoder", "upsampler", "clip"):
            with one.parts.lend(part, torch.nn.Module) as network:
                found = any(isinstance(module, PackedLinear) for module in network.modules())
            assert found == (expected and part != "clip")
    small = {"seed": 1, "steps": 2, "prior_steps": 2, "size": 64}
    a, b = (one.generate("a red apple", **small)[0] for one in (model, exact))
    apart = np.abs(np.asarray(a.image, int) - np.asarray(b.image, int))
    assert apart.max() <= (1 if kinds else 0)


def test_a_real_measurement_has_a_sign():
    for speed in packed_speeds(LAYERS):
        assert 0.01 < speed < 100


def test_measured_widths_are_few_numbers():
    widths = winograd_widths()
    assert len(widths) == 3
    assert all(width == 0 or 64 <= width <= 1024 for width in widths)


def test_widths_are_measured_once_a_machine(cache, timed, monkeypatch):
    timed(0.5, 2.0, (32, 48, 64))
    assert number_type.measured_widths() == (32, 48, 64)
    assert json.loads(cache.read_text())["winograd"] == [32, 48, 64]
    timed(0.5, 2.0, (1, 1, 1))
    assert number_type.measured_widths() == (32, 48, 64)
    for damaged in ([1, 2], "fast", [1.0, 2.0, 3.0], [-1, 2, 3], [True, 1, 1]):
        held = json.loads(cache.read_text())
        cache.write_text(json.dumps(held | {"winograd": damaged}))
        timed(0.5, 2.0, (7, 8, 9))
        assert number_type.measured_widths() == (7, 8, 9)


WINOGRAD = (0, 32, 32)
"""Widths at which the bundled upsampler's wider layers, on maps of 32 and more, take fewer products."""


@pytest.mark.parametrize(
    ("memory", "offload", "dtype", "fewer"),
    [
        (2**40, False, "auto", True),
        (2**20, False, "auto", False),
        (0, False, "auto", False),
        (2**40, True, "auto", False),
        (2**40, False, "float32", False),
    ],
)
def test_fewer_products_where_there_is_memory(cache, timed, monkeypatch, memory, offload, dtype, fewer):
    timed(0.5, 2.0, WINOGRAD)
    monkeypatch.setattr(placement, "physical_memory", lambda: memory)
    model = unclip.load("artwork", device="cpu", dtype=dtype, offload=offload)
    assert model.parts.packed == (WINOGRAD if fewer else dtype == "auto")
    with model.parts.lend("upsampler", torch.nn.Module) as network:
        assert any(isinstance(module, EitherConv2d) for module in network.modules()) == fewer


def test_pictures_of_fewer_products_are_the_same_to_rounding(cache, timed, monkeypatch):
    timed(0.5, 2.0, WINOGRAD)
    monkeypatch.setattr(placement, "physical_memory", lambda: 2**40)
    calls = []
    forward = WinogradConv2d.forward
    monkeypatch.setattr(
        WinogradConv2d, "forward", lambda self, x, **given: calls.append(x.shape) or forward(self, x, **given)
    )
    fewer, exact = (unclip.load("artwork", device="cpu", dtype=name) for name in ("auto", "float32"))
    small = {"seed": 1, "steps": 2, "prior_steps": 2, "upsampler_steps": 1, "size": 256}
    a, b = (np.asarray(one.generate("a red apple", **small)[0].image, float) for one in (fewer, exact))
    assert calls
    assert 10 * np.log10(255**2 / max(np.mean((a - b) ** 2), 1e-9)) > 50


@pytest.mark.parametrize("packed", [True, False, WINOGRAD])
def test_redo_lays_layers_out_as_the_picture_was_made(cache, timed, monkeypatch, packed, tmp_path):
    monkeypatch.setattr(placement, "physical_memory", lambda: 2**40)
    timed(0.5, 2.0 if packed else 0.5, packed if isinstance(packed, tuple) else (0, 0, 0))
    model = unclip.load("artwork", device="cpu", dtype="auto")
    small = {"seed": 1, "steps": 2, "prior_steps": 2, "upsampler_steps": 1}
    before = model.generate("a red apple", **small, size=64 if isinstance(packed, bool) else 256)[0]
    assert before.provenance.get("packed") == (list(packed) if isinstance(packed, tuple) else packed or None)
    before.save(tmp_path / "apple.png")
    # The machine would choose the other layout now.
    timed(0.5, 0.5 if packed else 2.0, WINOGRAD)
    cache.unlink()
    assert main(["redo", str(tmp_path / "apple.png"), "-o", str(tmp_path / "again.png"), "--quiet"]) == 0
    again = unclip.Image.open(tmp_path / "again.png")
    assert np.array_equal(np.asarray(before.image), np.asarray(again.image))
    assert again.provenance == before.provenance


def test_a_copy_lays_layers_out_as_the_model_does(cache, timed, monkeypatch, tmp_path):
    # A folder of the bundled model's name is another thing.
    monkeypatch.chdir(tmp_path)
    (tmp_path / "artwork").mkdir()
    timed(0.5, 2.0)
    model = unclip.load("artwork", device="cpu", dtype="auto")
    assert model.parts.packed
    timed(0.5, 0.5)
    cache.unlink()
    assert copy.deepcopy(model.parts).packed


@pytest.mark.parametrize("unet", [True, False])
def test_bfloat16_weights_are_rounded_and_the_rest_is_float32(tiny, tiny_folder, tmp_path, unet):
    folder = tiny.save(tmp_path / "unet", unet=True) if unet else tiny_folder
    kept = Model.load(folder, device="cpu", dtype="bfloat16-weights")
    rounded = Model.load(folder, device="cpu", dtype="float32")
    for name in rounded.parts.names:
        with (
            rounded.parts.lend(name, torch.nn.Module) as network,
            kept.parts.lend(name, torch.nn.Module) as half,
        ):
            stored = dict(half.named_parameters())
            for key in (
                matrices(network) if any(one.dtype == torch.bfloat16 for one in stored.values()) else ()
            ):
                weight = network.get_parameter(key)
                weight.data = weight.data.bfloat16().float()
                assert (
                    stored[f"{key.removesuffix('weight')}parametrizations.weight.original"].dtype
                    == torch.bfloat16
                )
    pictures = [one.generate("a red apple", seed=1, size=32)[0] for one in (kept, rounded)]
    apart = np.abs(np.subtract(*(np.asarray(one.image, int) for one in pictures)))
    assert apart.max() <= 1
    assert pictures[0].provenance["dtype"] == "bfloat16-weights"
    assert kept.dtype == torch.float32
    pictures[0].save(tmp_path / "before.png")
    again = [
        "redo",
        str(tmp_path / "before.png"),
        "--model",
        str(folder),
        "-o",
        str(tmp_path / "again.png"),
        "--quiet",
    ]
    assert main(again) == 0
    after = unclip.Image.open(tmp_path / "again.png")
    assert np.array_equal(np.asarray(after.image), np.asarray(pictures[0].image))
    assert copy.deepcopy(kept.parts).number_type == "bfloat16-weights"
