"""Captions that are longer than the context are counted and named once, for every stage that reads them."""

import logging

import pytest
import torch
from PIL import Image

from unclip.tokenizers.clip import ClipTokenizer
from unclip.train.cut_captions import report_cut_captions
from unclip.train.source import Source
from unclip.train.task import build_task

CPU = torch.device("cpu")


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(20):
        Image.new("RGB", (16, 16), (number, number, number)).save(folder / f"{number:02}.png")
        (folder / f"{number:02}.txt").write_text("grey\nno colour\n")
    (folder / "03.txt").write_text("grey " * 40 + "\ngrey\n" + "colour " * 30)
    (folder / "07.txt").write_text("grey " * 50)
    return folder


def of(caplog) -> list[logging.LogRecord]:
    """What was said about captions."""
    return [record for record in caplog.records if record.name == "unclip.train.cut_captions"]


def test_captions_are_counted_by_the_tokenizer(small, pictures, caplog):
    config = small("clip", f"data.path={pictures}", "data.held_out=0.0001")
    source = Source(config, "train", CPU)
    tokenizer = ClipTokenizer.train(["grey", "no colour"], vocabulary=540, context=8)
    cut = [
        caption for sample in source.decoded.samples for caption in sample.captions
        if tokenizer.length(caption) > 8
    ]  # fmt: skip
    with caplog.at_level(logging.WARNING):
        assert report_cut_captions(source, tokenizer) == len(cut) >= 1
    assert len(of(caplog)) == 1
    total = sum(len(sample.captions) for sample in source.decoded.samples)
    assert f"{len(cut)} of {total} captions are longer than the context of 8 tokens" in caplog.text
    assert " tokens, and their ends are not read: 0" in caplog.text


def test_nothing_is_said_where_nothing_is_cut(small, pictures, caplog):
    for name in ("03", "07"):
        (pictures / f"{name}.txt").write_text("grey")
    source = Source(small("clip", f"data.path={pictures}"), "train", CPU)
    tokenizer = ClipTokenizer.train(["grey", "no colour"], vocabulary=540, context=8)
    assert report_cut_captions(source, tokenizer) == 0
    assert not of(caplog)


def test_a_stage_reports_them_when_it_begins(small, pictures, caplog):
    with caplog.at_level(logging.WARNING):
        build_task(small("clip", f"data.path={pictures}", "data.held_out=0.0001"), CPU)
    assert caplog.text.count("are longer than the context") == 1
