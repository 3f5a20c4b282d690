"""Editor: outlines, margins, frames in any direction, and a canvas that is open in two tabs."""

import io
import re
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import expect

from unclip.generate.model import Model
from unclip.images import read_provenance


@pytest.fixture
def picture(served: Any) -> Any:
    """A finished picture of 32 pixels."""
    return served.draw("a red apple", n=1, seed=11)["pictures"][0]


@pytest.fixture
def open_canvas(open_page: Callable[..., Any]) -> Callable[..., Any]:
    """Opens the editor on a picture."""

    def start(picture: Any, **options: Any) -> Any:
        page = open_page(f"image/{picture['id']}", **options)
        page.get_by_role("button", name="Edit", exact=True).click()
        page.get_by_role("img", name="Canvas.").wait_for()
        return page

    return start


def state_of(served: Any, page: Any, holds: Callable[[Any], Any]) -> Any:
    """The canvas's state on the server, when it holds what was changed."""
    id = page.url.rsplit("/", 1)[-1]
    return served.eventually(
        lambda: state if holds(state := served.call(f"canvases/{id}")["state"]) else None
    )


def alpha_of(served: Any, id: str) -> Any:
    return Image.open(io.BytesIO(served.call(f"uploads/{id}/file"))).getchannel("A")


def mask_of(served: Any, page: Any) -> Any:
    """Alpha of the mask of the job that was made last."""
    page.get_by_label("What should the whole picture show?").fill("a blue cat")
    before = served.newest()["id"]
    page.keyboard.press("Control+Enter")
    job = served.eventually(lambda: job if (job := served.newest())["id"] != before else None)
    (id,) = [one["id"] for one in job["sources"] if one["role"] == "mask"]
    return alpha_of(served, id)


def test_outline_marks_what_is_inside(open_canvas: Callable[..., Any], served: Any, picture: Any) -> None:
    page = open_canvas(picture)
    page.keyboard.press("a")
    expect(page.get_by_role("button", name="Lasso")).to_have_attribute("aria-pressed", "true")
    box = page.locator(".stage-inner > img").bounding_box()
    corners = [(0.25, 0.25), (0.75, 0.25), (0.75, 0.75), (0.25, 0.75)]
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in corners]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=4)
    page.mouse.up()
    state_of(served, page, lambda state: [one["tool"] for one in state["now"]["marks"]] == ["lasso"])
    mask = mask_of(served, page)
    assert (mask.getpixel((16, 16)), mask.getpixel((2, 2)), mask.getpixel((29, 16))) == (0, 255, 255)


def test_margin_draws_beyond_the_marks(open_canvas: Callable[..., Any], served: Any, picture: Any) -> None:
    page = open_canvas(picture)
    page.get_by_text("Box in numbers").click()
    for side, value in (("Left", 8), ("Top", 8), ("Right", 24), ("Bottom", 24)):
        page.get_by_label(side, exact=True).fill(str(value))
    page.get_by_role("button", name="Add box").click()
    page.get_by_label("Margin around the marks").fill("4")
    state_of(served, page, lambda state: state["now"].get("margin") == 4)
    mask = mask_of(served, page)
    assert [mask.getpixel((x, 16)) for x in (3, 4, 8, 27, 28)] == [255, 0, 0, 0, 255]
    page.get_by_label("What should the whole picture show?").blur()
    page.keyboard.press("m")
    expect(page.get_by_role("button", name="Hide the marks")).to_have_attribute("aria-pressed", "true")


def test_frames_go_in_any_direction_and_are_saved(
    open_canvas: Callable[..., Any], served: Any, picture: Any, tiny_model: Model
) -> None:
    page = open_canvas(picture)
    page.keyboard.press("3")
    frame = page.get_by_role("group", name="Frame. Arrow keys move it")
    page.get_by_label("What should the whole picture show?").fill("a red apple")
    draw = page.get_by_role("button", name="Draw", exact=True)
    draw.click()
    expect(page.locator(".toast.bad")).to_contain_text("nothing empty")
    # To the right, by keyboard.
    for _ in range(2):
        frame.press("ArrowRight")
    draw.click()
    job = served.eventually(lambda: job if (job := served.newest())["kind"] == "edit" else None)
    (source,) = job["sources"]
    alpha = alpha_of(served, source["id"])
    assert alpha.size == (32, 32)
    assert [alpha.getpixel((x, 5)) for x in (0, 15, 16, 31)] == [255, 255, 0, 0]
    first = served.wait(job["id"])["pictures"][0]
    page.get_by_role("button", name="Use result 1").click()
    state = state_of(served, page, lambda state: len(state["now"].get("patches", [])) == 1)
    assert state["now"]["patches"] == [{"id": first["id"], "x": 16, "y": 0, "width": 32, "height": 32}]
    # Up, in numbers, after a reload.
    page.reload()
    expect(page.locator(".stage .patch")).to_have_count(1)
    page.get_by_label("Top", exact=True).fill("-16")
    page.get_by_role("button", name="Draw", exact=True).click()
    served.wait(served.eventually(lambda: new if (new := served.newest())["id"] != job["id"] else None)["id"])
    page.get_by_role("button", name="Use result 2").click()
    state_of(served, page, lambda state: len(state["now"].get("patches", [])) == 2)
    expect(page.get_by_text("The canvas is 48 × 48 pixels.")).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download the canvas").click()
    whole = Image.open(download.value.path())
    assert (whole.size, whole.mode) == ((48, 48), "RGBA")
    assert (whole.getpixel((2, 2))[3], whole.getpixel((2, 20))[3], whole.getpixel((40, 2))[3]) == (
        0,
        255,
        255,
    )
    # The file says how each piece was made, and the whole is made again from it.
    provenance = read_provenance(download.value.path())
    kinds = [one["provenance"]["request"]["kind"] for one in provenance["composed"]]
    assert kinds == ["generate", "edit", "edit"]
    assert tiny_model.redo(provenance).image.tobytes() == whole.tobytes()
    # One picture again, which can be repainted; undo brings the frames back.
    page.get_by_text("Repaint", exact=True).click()
    joined = state_of(served, page, lambda state: state["now"]["width"] == 48)
    assert joined["now"]["base"]["of"] == "upload"
    page.locator("main").focus()
    page.keyboard.press("Control+z")
    state_of(served, page, lambda state: len(state["now"].get("patches", [])) == 2)


def test_second_tab_does_not_win_silently(open_canvas: Callable[..., Any], served: Any, picture: Any) -> None:
    page = open_canvas(picture)
    words = "What should the whole picture show?"
    page.get_by_label(words).fill("from the first tab")
    state_of(served, page, lambda state: state["prompt"] == "from the first tab")
    other = page.context.new_page()
    other.goto(page.url)
    expect(other.get_by_label(words)).to_have_value("from the first tab")
    other.get_by_label(words).fill("from the second tab")
    state_of(served, page, lambda state: state["prompt"] == "from the second tab")
    page.get_by_label(words).fill("from the first tab again")
    alert = page.get_by_role("alert").filter(has_text="changed in another tab")
    expect(alert).to_be_visible()
    assert served.call(f"canvases/{page.url.rsplit('/', 1)[-1]}")["state"]["prompt"] == "from the second tab"
    # Both are kept, one as a copy.
    original = page.url
    alert.get_by_role("button", name="Keep both").click()
    expect(page).not_to_have_url(original)
    state_of(served, page, lambda state: state["prompt"] == "from the first tab again")
    state_of(served, other, lambda state: state["prompt"] == "from the second tab")
    # Or the other one is loaded.
    third = page.context.new_page()
    third.goto(original)
    expect(third.get_by_label(words)).to_have_value("from the second tab")
    third.get_by_label(words).fill("from the third tab")
    state_of(served, third, lambda state: state["prompt"] == "from the third tab")
    other.get_by_label(words).fill("late")
    other.get_by_role("button", name="Load that one").click()
    expect(other.get_by_label(words)).to_have_value("from the third tab")
    expect(other.get_by_role("alert")).to_have_count(0)


def test_trouble_with_saving_is_shown(open_canvas: Callable[..., Any], served: Any, picture: Any) -> None:
    page = open_canvas(picture)
    refuse = {"status": 503, "json": {"error": {"message": "the disk is full"}}}
    pattern = re.compile(r"/api/canvases/")
    page.route(
        pattern, lambda route: route.fulfill(**refuse) if route.request.method == "PUT" else route.continue_()
    )
    page.get_by_label("What should the whole picture show?").fill("a green pear")
    expect(page.get_by_role("alert")).to_contain_text("The canvas is not saved: the disk is full")
    page.unroute(pattern)
    # It is saved without another change, and the message goes.
    state_of(served, page, lambda state: state["prompt"] == "a green pear")
    expect(page.get_by_role("alert")).to_have_count(0)
