"""Sizes of a model that draws many: offered as the server says, by mouse and by keyboard."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


@pytest.fixture
def latent(start_server: Callable[..., Any], tmp_path: Path) -> Any:
    """A server with Stable Diffusion's form of model, narrow, which draws multiples of 16 pixels."""
    pytest.importorskip("diffusers")
    from tests.parity.latent.conftest import plain, save

    return start_server(f"latent={save(plain(), tmp_path / 'stable-diffusion')}")


def test_any_size_that_the_model_draws(open_page: Callable[..., Any], latent: Any) -> None:
    known = latent.call("config")["models"][0]
    own, step = known["default_size"], known["size_step"]
    assert (known["sizes"], known["longest_side"]) == ([own], 4096)
    page = open_page(server=latent)
    page.get_by_role("button", name="Options").click()
    steps = page.get_by_label("Steps", exact=True)
    steps.fill("2")
    size = page.get_by_label("Size")
    shapes = size.locator("option").all_text_contents()
    assert shapes[:2] == [f"{own} px (model)", f"{own} px"]
    wide = next(one for one in shapes if one.startswith(f"{3 * own // 2} × {own}"))
    size.select_option(wide)
    prompt = page.get_by_label("Describe a picture")
    prompt.fill("a red dog")
    prompt.press("Enter")
    job = latent.eventually(lambda: latent.call("jobs?limit=1")["items"])[0]
    assert job["request"]["size"] == [own, 3 * own // 2]
    # Any width and height, by keyboard: numbers that the model does not draw become the nearest that it does.
    size.focus()
    page.keyboard.press("End")
    width, height = page.get_by_label("Width"), page.get_by_label("Height")
    expect(width).to_have_value(str(3 * own // 2))
    width.fill(str(2 * step + 3))
    width.press("Tab")
    expect(width).to_have_value(str(2 * step))
    height.fill(str(own))
    height.press("ArrowUp")
    height.press("Tab")
    expect(height).to_have_value(str(own + step))
    prompt.press("Enter")
    job = latent.eventually(
        lambda: one if (one := latent.newest())["request"].get("size") == [own + step, 2 * step] else None
    )
    done = latent.wait(job["id"], 120)
    assert [(one["width"], one["height"]) for one in done["pictures"]] == [(2 * step, own + step)] * job["n"]
    tile = page.get_by_role("article", name="a red dog").first.locator("a.tile img").first
    expect(tile).to_have_js_property("complete", True)
    # What was chosen is there after a reload, and goes with the request of a picture.
    page.reload()
    page.get_by_role("button", name="Options").click()
    expect(page.get_by_label("Width")).to_have_value(str(2 * step))
    page.get_by_role("button", name="Reset all options").click()
    expect(page.get_by_label("Width")).to_have_count(0)
    page.goto(f"{latent.url}#/image/{done['pictures'][0]['id']}")
    page.get_by_role("button", name="Reuse").click()
    page.get_by_role("group", name="Reuse").get_by_role("button", name="Everything").click()
    expect(page.get_by_label("Describe a picture")).to_have_value("a red dog")
    assert json.loads(page.evaluate("localStorage.getItem('unclip.draft')"))["size"] == [own + step, 2 * step]


def test_only_squares_of_a_model_with_upsamplers(open_page: Callable[..., Any], served: Any) -> None:
    page = open_page(**PHONE)
    page.get_by_role("button", name="Options").click()
    texts = page.get_by_label("Size").locator("option").all_text_contents()
    assert texts == ["32 px (model)", "16 px", "32 px"]
