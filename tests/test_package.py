"""The package's front door: names, version, and that it opens quickly."""

import subprocess
import sys

import pytest

import unclip


def test_names_are_sorted_and_exist():
    assert unclip.__all__ == sorted(unclip.__all__)
    assert all(getattr(unclip, name) for name in unclip.__all__)
    assert dir(unclip) == unclip.__all__
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        unclip.nothing  # noqa: B018


def test_importing_it_does_not_load_torch():
    program = "import sys, unclip; unclip.__version__; print('torch' in sys.modules, 'PIL' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["False", "False"]


def test_old_names_are_aliases_with_a_warning():
    for old, new in (("System", "Model"), ("Picture", "Image")):
        with pytest.warns(DeprecationWarning, match=f"unclip.{old} is now unclip.{new}"):
            assert getattr(unclip, old) is getattr(unclip, new)


def test_errors_are_value_errors_and_cancelling_is_none():
    assert all(
        issubclass(error, ValueError)
        for error in (unclip.RequestError, unclip.Unsupported, unclip.ModelError)
    )
    assert not issubclass(unclip.Cancelled, ValueError)
