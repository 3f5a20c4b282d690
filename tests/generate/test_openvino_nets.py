"""OpenVINO computes the same pictures, from nets that are exported once; int8 is calibrated first, or refused."""

import json
import logging
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from unclip.cli.main import main
from unclip.errors import ModelError, RequestError, Unsupported
from unclip.generate import calibration, openvino_nets
from unclip.generate.calibration import Likeness, accelerate
from unclip.generate.image import Image
from unclip.generate.model import Model
from unclip.generate.openvino_nets import LIKENESS, CompiledInside, exported, flattened, nets
from unclip.networks.unet import Unet, UnetConfig

PROMPT = "a red apple"


@pytest.fixture(scope="module")
def unet_folder(tiny, tmp_path_factory):
    """A model folder whose decoder is a U-Net that attends to tokens."""
    return tiny.save(tmp_path_factory.mktemp("models") / "tiny-unet", unet=True)


@pytest.fixture(params=["transformer", "unet"])
def folder(request, tiny_folder, unet_folder):
    """A model folder with either kind of decoder."""
    return tiny_folder if request.param == "transformer" else unet_folder


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache."""
    monkeypatch.setenv("UNCLIP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def installed():
    """OpenVINO and NNCF, or the test is skipped."""
    pytest.importorskip("openvino")
    pytest.importorskip("nncf")


def apart(a: Image, b: Image) -> int:
    """Largest difference of two pictures, of 255."""
    return int(np.abs(np.asarray(a.image, int) - np.asarray(b.image, int)).max())


def mean(a: Image, b: Image) -> float:
    """Mean difference of two pictures, of 255."""
    return float(np.abs(np.asarray(a.image, int) - np.asarray(b.image, int)).mean())


def test_pictures_are_those_of_torch_to_rounding_and_nets_are_exported_once(
    installed, folder, cache, monkeypatch
):
    model = Model.load(folder, device="cpu", backend="openvino")
    expected = Model.load(folder, device="cpu").generate(PROMPT, n=2, seed=3)
    events: list[str] = []
    made = model.generate(PROMPT, n=2, seed=3, on_progress=lambda event: events.append(event.stage))
    assert {"prior", "decoder", "upsampler"} == set(events)
    for ours, theirs in zip(made, expected):
        assert apart(ours, theirs) <= 1
        assert ours.provenance["request"] == theirs.provenance["request"]
        assert ours.provenance["backend"]["name"] == "openvino"
        assert ours.provenance["backend"]["precision"] == "float32"
        assert "backend" not in theirs.provenance
    monkeypatch.setattr(torch.jit, "trace", None)
    again = Model.load(folder, device="cpu", backend="openvino")
    assert apart(again.generate(PROMPT, seed=3)[0], made[0]) == 0
    assert apart(again.redo(made[1].provenance), made[1]) == 0


def test_a_picture_does_not_depend_on_its_batch(installed, unet_folder, cache):
    model = Model.load(unet_folder, device="cpu", backend="openvino")
    alone = [model.generate(PROMPT, seed=seed, size=16)[0] for seed in (3, 4)]
    together = model.generate([PROMPT, PROMPT], seed=3, size=16, batch_size=2)
    assert apart(alone[0], together[0]) <= 1


def test_bfloat16_is_near(installed, unet_folder, cache):
    exact = Model.load(unet_folder, device="cpu", backend="openvino").generate(PROMPT, seed=3)[0]
    near = Model.load(unet_folder, device="cpu", backend="openvino", backend_precision="bfloat16")
    made = near.generate(PROMPT, seed=3)[0]
    assert made.provenance["backend"]["precision"] == "bfloat16"
    assert 0 < mean(made, exact) < 12


def test_one_export_serves_maps_of_any_size(installed, tmp_path):
    torch.manual_seed(0)
    config = UnetConfig(
        channels=32, multiples=(1, 2), blocks=1, attention_levels=(1,), head_channels=32, context_width=16
    )
    net = Unet(config).eval().requires_grad_(False)
    for weight in net.parameters():
        if not weight.any():
            weight.normal_(std=0.1)
    context, mask = torch.randn(2, 5, 16), torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    inside = CompiledInside(net, tmp_path, "float32")
    for height, width in ((16, 16), (24, 8)):
        x, label = torch.randn(2, 3, height, width), torch.tensor([500.0, 20.0])
        expected = net(x, label, None, net.read(context), mask)
        net.inside = inside
        made = net(x, label, None, net.read(context), mask)
        del net.inside
        assert torch.allclose(made, expected, atol=1e-4 * float(expected.abs().max()))
        assert not torch.equal(expected[0], expected[1])
    assert len(list(tmp_path.rglob("*.xml"))) == 1


def test_an_export_that_computes_something_else_is_refused(installed, tmp_path, monkeypatch):
    net = Unet(UnetConfig(channels=32, multiples=(1,), blocks=1)).eval().requires_grad_(False)
    template, flat = flattened(net, [torch.randn(1, 32, 8, 8), torch.randn(1, 128), None, None])
    monkeypatch.setattr(openvino_nets, "EXACT", 0.0)
    with pytest.raises(ModelError, match="use the backend torch"):
        exported(net, tmp_path, template, flat)
    assert not list(tmp_path.rglob("*.xml"))


def test_a_damaged_export_is_named(installed, tiny_folder, cache):
    Model.load(tiny_folder, device="cpu", backend="openvino").generate(PROMPT, seed=3, size=16)
    (file,) = cache.rglob("*.xml")
    file.write_text("<net")
    with pytest.raises(ModelError, match=r"cannot read .*remove"):
        Model.load(tiny_folder, device="cpu", backend="openvino").generate(PROMPT, seed=3, size=16)


def test_int8_is_calibrated_on_the_models_own_sampling(installed, folder, cache):
    int8 = {"device": "cpu", "backend": "openvino", "backend_precision": "int8"}
    with pytest.raises(ModelError, match="unclip accelerate"):
        Model.load(folder, **int8).generate(PROMPT, seed=3)
    found = accelerate(folder, captions=[PROMPT, "a blue cat"], seed=5)
    assert found.accepted
    assert found.pictures == 2
    assert LIMITS[0] < found.least_psnr <= found.psnr < LIMITS[1], "int8 is near, and not exact"
    assert found.clip_distance is not None
    assert 0 < found.clip_distance <= calibration.MOST_DISTANCE
    (made,) = Model.load(folder, **int8).generate(PROMPT, seed=3)
    (exact,) = Model.load(folder, device="cpu").generate(PROMPT, seed=3)
    assert made.provenance["backend"]["precision"] == "int8"
    (other,) = Model.load(folder, device="cpu").generate(PROMPT, seed=4)
    assert 0 < mean(made, exact) < 0.6 * mean(other, exact)
    kept = [json.loads(file.read_text()) for file in cache.rglob(LIKENESS)]
    assert [one["precision"] for one in kept] == ["int8"] * 2
    assert any("i8" in file.read_text() for file in cache.rglob("int8/*.xml"))


LIMITS = (17.0, 60.0)


def test_the_command_reports_the_likeness(installed, tiny_folder, cache, tmp_path, capsys):
    captions = tmp_path / "captions.txt"
    captions.write_text("a red apple\ntwo yellow stars\n")
    command = ["accelerate", "-m", str(tiny_folder), "--precision", "float32", "--captions", str(captions)]
    assert main([*command, "--size", "16", "--set", "steps=2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["accepted"]
    assert found["pictures"] == 2
    assert found["least_psnr"] > 50
    assert main([*command, "--set", "steps=0"]) == 2
    assert "steps" in capsys.readouterr().err


def test_int8_that_loses_too_much_is_refused(installed, unet_folder, cache, monkeypatch):
    monkeypatch.setattr(calibration, "LEAST_PSNR", 90.0)
    with pytest.raises(ModelError, match=r"int8 changes the pictures of 'tiny' too much: \d+\.\d dB.* 90 dB"):
        accelerate(unet_folder, captions=[PROMPT])
    with pytest.raises(ModelError, match="unclip accelerate"):
        Model.load(unet_folder, device="cpu", backend="openvino", backend_precision="int8").generate(PROMPT)


def test_bounds_are_of_both_measures():
    known = {"precision": "int8", "pictures": 1, "least_psnr": 0.0, "seconds": 1.0, "torch_seconds": 1.0}
    assert Likeness(psnr=20.0, clip_distance=None, **known).accepted
    assert Likeness(psnr=20.0, clip_distance=0.01, **known).accepted
    assert not Likeness(psnr=20.0, clip_distance=0.2, **known).accepted
    assert not Likeness(psnr=10.0, clip_distance=0.01, **known).accepted


def test_logs_of_others_stay_as_they_are(installed):
    nncf = logging.getLogger("nncf")
    handler = logging.Handler()
    nncf.addHandler(handler)
    try:
        openvino_nets.quantiser()
        assert handler.level == logging.NOTSET
        assert nncf.level == logging.ERROR
    finally:
        nncf.removeHandler(handler)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "onnx"}, "backend onnx is not one of torch, openvino"),
        (
            {"backend": "openvino", "backend_precision": "int4"},
            "backend_precision int4 is not one of float32",
        ),
        ({"backend_precision": "int8"}, "backend_precision int8 is for the backend openvino"),
        ({"backend": "openvino", "dtype": "bfloat16"}, "dtype bfloat16 is torch's"),
        ({"backend": "openvino", "offload": True}, "offload is torch's"),
        ({"backend": "openvino", "device": "meta"}, "computes on the CPU, not on meta"),
    ],
)
def test_options_that_do_not_fit_are_refused(tiny_folder, monkeypatch, options, message):
    monkeypatch.setattr(openvino_nets, "library", lambda: None)
    with pytest.raises(RequestError, match=message):
        Model.load(tiny_folder, **{"device": "cpu"} | options)


def test_a_missing_package_is_named_with_its_extra(tiny_folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(Unsupported, match=r"the package openvino, .*unclip\[openvino\]"):
        Model.load(tiny_folder, device="cpu", backend="openvino")
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(Unsupported, match=r"the package nncf, .*unclip\[openvino\]"):
        openvino_nets.quantiser()


def test_nothing_is_reported_to_a_server(installed, tmp_path):
    script = (
        "import sys; from unclip.generate.openvino_nets import library, quantiser; library(); quantiser();"
        "assert not [name for name in sys.modules if name.startswith('openvino_telemetry')];"
        "from openvino.tools.ovc import telemetry_utils;"
        "assert telemetry_utils.tm.__name__.endswith('telemetry_stub')"
    )
    environment = {**os.environ, "HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)
    assert not (tmp_path / "intel").exists()


def test_a_backend_replaces_nets_and_nothing_else(tiny_model):
    with tiny_model.parts.lend("decoder", torch.nn.Module) as decoder:
        assert [path for path, _ in nets(decoder)] == ["net"]
    with tiny_model.parts.lend("clip", torch.nn.Module) as clip:
        assert nets(clip) == []


def test_a_signal_is_survived_after_models_are_gone(installed, tiny_folder, cache):
    """In a process of its own: where the stack of signals is no longer mapped, a signal ends it."""
    program = f"""
import faulthandler, gc, signal
import unclip
faulthandler.enable()
models = [unclip.load({str(tiny_folder)!r}, device="cpu", backend="openvino") for _ in range(3)]
for model in models:
    model.generate("a red apple", steps=2, prior_steps=2)
del model
while models:
    models.pop(0)
    gc.collect()
signal.signal(signal.SIGTERM, lambda *given: print("heard"))
signal.raise_signal(signal.SIGTERM)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "heard\n"), done.stderr[-2000:]
