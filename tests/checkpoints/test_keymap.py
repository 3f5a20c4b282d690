"""Tables of keys: every layout there and back, and what is unknown, missing, doubly matched or misshapen is named."""

import pytest
import torch
from einops import rearrange

from unclip.checkpoints.keymap import (
    CONVOLUTION,
    SAME,
    TRANSPOSED,
    Form,
    Row,
    Table,
    absent,
    channel_major,
    interleaved,
    renamed,
    row,
    stacked,
    with_leading,
    within,
)
from unclip.errors import ModelError

TABLE = Table(
    [
        *within(
            "blocks.{n}.",
            "layers.{n}.",
            [*renamed({"norm": "ln"}), row("qkv.{p}", "q.{p}", "k.{p}", form=stacked(2))],
        ),
        row("scale", form=absent(2.0)),
    ],
    [r".*position_ids"],
)
OURS = {
    "blocks.0.norm.weight": torch.arange(3.0),
    "blocks.0.norm.bias": torch.arange(3.0) + 10,
    "blocks.0.qkv.weight": torch.arange(8.0).reshape(4, 2),
    "blocks.11.qkv.weight": -torch.arange(8.0).reshape(4, 2),
    "scale": torch.tensor(2.0),
}


def load(theirs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return dict(TABLE.to_ours(OURS, theirs, theirs.__getitem__, "a.safetensors"))


def test_there_and_back():
    theirs = TABLE.to_theirs(OURS)
    assert theirs["layers.11.k.weight"].tolist() == [[-4.0, -5.0], [-6.0, -7.0]]
    assert "scale" not in theirs
    back = load(theirs | {"layers.0.position_ids": torch.zeros(1)})
    assert back.keys() == OURS.keys()
    assert all(torch.equal(back[name], OURS[name]) for name in OURS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers.0.ln.gamma": torch.zeros(3)}, "unknown weight layers.0.ln.gamma"),
        ({"layers.0.q.weight": None}, "lacks the weight layers.0.q.weight"),
        ({"layers.0.q.weight": None, "layers.0.ln.bias": None}, "layers.0.ln.bias and 1 more"),
        ({"layers.0.ln.bias": torch.zeros(4)}, r"layers.0.ln.bias has shape \(4,\).*asks for \(3,\)"),
    ],
)
def test_what_does_not_fit_is_named(change, message):
    theirs = {k: v for k, v in (TABLE.to_theirs(OURS) | change).items() if v is not None}
    with pytest.raises(ModelError, match=message):
        load(theirs)


def test_a_table_must_decide():
    two = Table([row("a.{p}", "b.{p}"), row("a.weight", "d")])
    with pytest.raises(ValueError, match=r"2 rows for the weight 'a\.weight'"):
        two.find("a.weight")
    with pytest.raises(ValueError, match="0 rows for the weight 'q'"):
        two.find("q")
    same = Table([row("a", "c"), row("b", "c")])
    with pytest.raises(ValueError, match="both 'a' and 'b' of 'c'"):
        same.plan({"a": torch.zeros(1), "b": torch.zeros(1)})


@pytest.mark.parametrize(
    "form",
    [
        SAME,
        TRANSPOSED,
        CONVOLUTION,
        stacked(3),
        with_leading(2),
        interleaved(3, 4),
        interleaved(2, 3, convolution=True),
        channel_major(4),
    ],
)
def test_forms_undo_themselves(form: Form):
    ours = torch.arange(24.0 * 5).reshape(24, 5)
    assert torch.equal(form.join(form.split(ours)), ours)
    assert form.split(ours.to("meta"))[0].is_meta


def test_interleaved_is_how_guided_diffusion_lays_heads_out():
    """Its attention reads rows as (heads, three, channels): reshape(batch * heads, 3 * channels).split(channels)."""
    heads, channels = 2, 3
    theirs = torch.randn(3 * heads * channels, 7, 1, generator=torch.Generator().manual_seed(0))
    pixels = torch.randn(7, 5, generator=torch.Generator().manual_seed(1))
    q, k, v = (theirs.squeeze(-1) @ pixels).reshape(heads, 3 * channels, 5).split(channels, dim=1)
    ours = interleaved(3, channels, convolution=True).join([theirs])
    mine = rearrange(ours @ pixels, "(three a d) n -> three a d n", three=3, a=heads)
    for have, want in zip(mine, (q, k, v)):
        torch.testing.assert_close(have, want)


def test_rows_are_found_by_the_whole_name():
    table = Table([Row("a.{n}.b", ("{n}",))])
    assert table.find("a.12.b").theirs == ("12",)
    with pytest.raises(ValueError, match="0 rows"):
        table.find("xa.12.b")
