"""`unclip doctor` tells the same facts to people and to programs."""

import json
import platform

import torch


def test_report(unclip):
    code, out, err = unclip("doctor", "--json")
    assert (code, err) == (0, "")
    report = json.loads(out)
    assert report["versions"]["python"] == platform.python_version()
    assert report["versions"]["torch"] == torch.__version__
    assert report["machine"]["cores"] >= 1
    assert report["speed"].pop("precision auto") in ("bf16", "fp32")
    assert all(float(rate.split()[0]) > 0 for rate in report["speed"].values())


def test_readable_report(unclip):
    code, out, err = unclip("doctor")
    assert (code, err) == (0, "")
    assert torch.__version__ in out
    assert "GFLOP/s" in out
