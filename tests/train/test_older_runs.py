"""A run that an older version began goes on, though configs have grown fields since."""

import json
from dataclasses import replace

import pytest

from unclip.recipes import tiny
from unclip.train.run_folder import RunFolder


def test_a_field_that_was_not_there_yet_has_its_default(tmp_path):
    config = replace(tiny.clip(), out=str(tmp_path / "run"))
    RunFolder(config)
    file = tmp_path / "run" / "config.json"
    older = json.loads(file.read_text())
    del older["model"]["loss"]
    file.write_text(json.dumps(older))
    assert RunFolder(config).path == tmp_path / "run"


def test_a_field_that_differs_is_another_run(tmp_path):
    config = replace(tiny.clip(), out=str(tmp_path / "run"))
    RunFolder(config)
    other = replace(config, model=replace(config.model, normalize=not config.model.normalize))
    with pytest.raises(ValueError, match="model"):
        RunFolder(other)
