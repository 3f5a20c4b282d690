"""Editor: marks, frame, history, and canvases that are never lost."""

import io
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import expect


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
        expect(page.locator(".stage-inner > img")).to_have_js_property("complete", True)
        return page

    return start


def saved(served: Any, page: Any, holds: Callable[[Any], Any] = lambda state: True) -> Any:
    """The canvas's state on the server, when it holds what was changed and the page says that it is saved."""
    id = page.url.rsplit("/", 1)[-1]
    found = served.eventually(
        lambda: state if holds(state := served.call(f"canvases/{id}")["state"]) else None
    )
    expect(page.get_by_text("Saved", exact=True)).to_be_visible()
    return found


def drag(page: Any, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Drag from one place of the picture to another, both as shares of its sides."""
    box = page.locator(".stage-inner > img").bounding_box()
    points = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in (start, end)]
    page.mouse.move(*points[0])
    page.mouse.down()
    page.mouse.move(*points[1], steps=6)
    page.mouse.up()


def mask_of(served: Any, job: Any) -> Any:
    """Alpha of the mask that a job was given: 0 where it is drawn."""
    (id,) = [one["id"] for one in job["sources"] if one["role"] == "mask"]
    with urllib.request.urlopen(f"{served.url}api/uploads/{id}/file") as answer:
        return Image.open(io.BytesIO(answer.read())).getchannel("A")


def edit_job(served: Any, kind: str = "edit") -> Any:
    return served.eventually(lambda: served.newest() if served.newest()["kind"] == kind else None)


def test_brush_and_eraser_become_a_mask(open_canvas: Callable[..., Any], served: Any, picture: Any) -> None:
    page = open_canvas(picture)
    draw = page.get_by_role("button", name="Draw", exact=True)
    expect(draw).to_have_attribute("aria-disabled", "true")
    page.get_by_role("slider", name="Brush size").fill("8")
    drag(page, (0.2, 0.25), (0.8, 0.25))
    expect(page.get_by_text("of the picture is marked")).to_be_visible()
    page.get_by_role("button", name="Eraser").click()
    drag(page, (0.7, 0.1), (0.7, 0.9))
    page.get_by_label("What should the whole picture show?").fill("a blue cat")
    draw.click()
    job = edit_job(served)
    assert job["request"]["prompt"] == "a blue cat"
    mask = mask_of(served, job)
    assert mask.size == (32, 32)
    assert mask.getpixel((10, 8)) == 0, "painted, so it is drawn"
    assert mask.getpixel((22, 8)) == 255, "painted and erased, so it is kept"
    assert mask.getpixel((10, 28)) == 255, "not touched, so it is kept"
    results = page.get_by_role("region", name="Results")
    results.get_by_role("button", name="Use result 1").click()
    made = served.wait(job["id"])["pictures"][0]
    expect(page.locator(".stage-inner > img")).to_have_attribute(
        "src", f"{served.url}api/pictures/{made['id']}/file"
    )
    saved(served, page, lambda state: state["now"]["base"] == {"id": made["id"], "of": "picture"})
    page.get_by_role("button", name="Undo").click()
    expect(page.locator(".stage-inner > img")).to_have_attribute(
        "src", f"{served.url}api/pictures/{picture['id']}/file"
    )


def test_a_box_by_mouse_is_named_by_the_request(
    open_canvas: Callable[..., Any], served: Any, picture: Any
) -> None:
    page = open_canvas(picture)
    page.get_by_role("button", name="Box", exact=True).click()
    drag(page, (0.25, 0.25), (0.75, 0.5))
    page.get_by_role("button", name="Draw", exact=True).click()
    job = edit_job(served)
    left, top, right, bottom = job["request"]["box"]
    assert abs(left - 8) <= 1
    assert abs(top - 8) <= 1
    assert abs(right - 24) <= 1
    assert abs(bottom - 16) <= 1
    assert served.wait(job["id"])["state"] == "done"


def test_all_by_keyboard(open_canvas: Callable[..., Any], served: Any, picture: Any) -> None:
    page = open_canvas(picture)
    for key, name in (("x", "Box"), ("e", "Eraser"), ("h", "Move the view"), ("b", "Brush")):
        page.keyboard.press(key)
        expect(page.get_by_role("button", name=name, exact=True)).to_have_attribute("aria-pressed", "true")
    size = page.get_by_role("slider", name="Brush size")
    before = int(size.input_value())
    page.keyboard.press("]")
    assert int(size.input_value()) > before
    page.keyboard.press("[")
    page.keyboard.press("[")
    assert int(size.input_value()) < before
    page.get_by_text("Box in numbers").press("Enter")
    for name, value in (("Left", "4"), ("Top", "6"), ("Right", "20"), ("Bottom", "30")):
        page.get_by_label(name, exact=True).press_sequentially(value)
    page.keyboard.press("Enter")
    expect(page.get_by_text("38 % of the picture is marked")).to_be_visible()
    page.get_by_role("slider", name="Brush size").focus()
    page.keyboard.press("Control+z")
    expect(page.get_by_text("Nothing is marked yet.").first).to_be_visible()
    page.keyboard.press("Control+Shift+z")
    expect(page.get_by_text("38 % of the picture is marked")).to_be_visible()
    page.keyboard.press("Control+Enter")
    job = edit_job(served)
    assert job["request"]["box"] == [4, 6, 20, 30]
    made = served.wait(job["id"])["pictures"][0]
    result = page.get_by_role("button", name="Use result 1")
    result.press("Enter")
    saved(served, page, lambda state: state["now"]["base"]["id"] == made["id"])


def test_zoom(open_canvas: Callable[..., Any], picture: Any) -> None:
    page = open_canvas(picture)

    def width() -> float:
        page.wait_for_timeout(60)
        return page.locator(".stage-inner > img").bounding_box()["width"]

    fitted = width()
    page.keyboard.press("+")
    assert width() == pytest.approx(1.25 * fitted, rel=0.01)
    page.get_by_role("button", name="Zoom out").click()
    assert width() == pytest.approx(fitted, rel=0.01)
    page.locator(".stage").hover()
    page.mouse.wheel(0, -300)
    assert width() > 1.2 * fitted
    page.keyboard.press("0")
    assert width() == pytest.approx(fitted, rel=0.01)
    page.keyboard.press("h")
    left = page.locator(".stage-inner > img").bounding_box()["x"]
    drag(page, (0.3, 0.5), (0.5, 0.5))
    assert page.locator(".stage-inner > img").bounding_box()["x"] > left + 10


def test_the_frame_is_dragged_resized_and_outpainted(
    open_canvas: Callable[..., Any], served: Any, picture: Any
) -> None:
    page = open_canvas(picture)
    page.get_by_role("group", name="Mode").get_by_label("Extend").check(force=True)
    expect(page.get_by_role("button", name="Draw", exact=True)).to_have_attribute("aria-disabled", "true")
    drag(page, (0.5, 0.5), (0.75, 0.5))
    right = page.get_by_label("Right", exact=True)
    assert abs(int(right.input_value()) - 8) <= 1
    handle = page.locator(".handle.top:not(.left, .right)").bounding_box()
    scale = page.locator(".stage-inner > img").bounding_box()["width"] / 32
    page.mouse.move(handle["x"] + 14, handle["y"] + 14)
    page.mouse.down()
    page.mouse.move(handle["x"] + 14, handle["y"] + 14 - 8 * scale, steps=4)
    page.mouse.up()
    assert abs(int(page.get_by_label("Top", exact=True).input_value()) - 8) <= 1
    page.get_by_label("Right", exact=True).fill("12")
    page.get_by_label("Top", exact=True).fill("0")
    page.get_by_role("button", name="Draw", exact=True).click()
    job = edit_job(served, "outpaint")
    sides = {name: job["request"].get(name, 0) for name in ("left", "top", "right", "bottom")}
    assert sides == {"left": 0, "top": 0, "right": 12, "bottom": 0}
    made = served.wait(job["id"])["pictures"][0]
    assert (made["width"], made["height"]) == (44, 32)
    page.get_by_role("button", name="Use result 1").click()
    now = saved(served, page, lambda state: state["now"]["base"]["id"] == made["id"])["now"]
    assert (now["width"], now["height"]) == (44, 32)


def test_the_frame_by_arrow_keys(open_canvas: Callable[..., Any], picture: Any) -> None:
    page = open_canvas(picture)
    page.get_by_role("group", name="Mode").get_by_label("Extend").check(force=True)
    page.get_by_role("group", name="Frame.").focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    expect(page.get_by_label("Left", exact=True)).to_have_value("8")
    expect(page.get_by_label("Bottom", exact=True)).to_have_value("16")


def test_a_reload_restores_the_canvas(open_canvas: Callable[..., Any], served: Any, picture: Any) -> None:
    page = open_canvas(picture)
    page.get_by_label("Name").fill("My canvas")
    page.get_by_label("What should the whole picture show?").fill("two green cars")
    drag(page, (0.2, 0.2), (0.6, 0.6))
    marked = page.get_by_text("of the picture is marked").text_content()
    before = saved(served, page, lambda state: state["now"]["marks"] and state["prompt"] == "two green cars")
    page.reload()
    expect(page.get_by_text(marked)).to_be_visible()
    expect(page.get_by_label("Name")).to_have_value("My canvas")
    expect(page.get_by_label("What should the whole picture show?")).to_have_value("two green cars")
    assert saved(served, page) == before
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_text("Nothing is marked yet.").first).to_be_visible()


def test_a_change_is_saved_though_the_page_is_left_at_once(
    open_canvas: Callable[..., Any], served: Any, picture: Any
) -> None:
    page = open_canvas(picture)
    id = page.url.rsplit("/", 1)[-1]
    page.get_by_label("What should the whole picture show?").fill("left at once")
    page.get_by_role("link", name="Library").click()
    served.eventually(lambda: served.call(f"canvases/{id}")["state"]["prompt"] == "left at once")


def test_a_canvas_survives_a_restart_of_the_server(
    open_canvas: Callable[..., Any], served: Any, picture: Any
) -> None:
    page = open_canvas(picture)
    id = page.url.rsplit("/", 1)[-1]
    expect(page.get_by_text("Saved", exact=True)).to_be_visible()
    served.stop(kill=True)
    page.get_by_label("What should the whole picture show?").fill("written while it was away")
    expect(page.get_by_text("Not saved yet")).to_be_visible()
    served.start()
    expect(page.get_by_text("Saved", exact=True)).to_be_visible()
    assert served.call(f"canvases/{id}")["state"]["prompt"] == "written while it was away"


def test_canvases_are_listed_deleted_and_brought_back(
    open_canvas: Callable[..., Any], served: Any, picture: Any
) -> None:
    page = open_canvas(picture)
    id = page.url.rsplit("/", 1)[-1]
    page.get_by_label("Name").fill("Only this one")
    served.eventually(lambda: served.call(f"canvases/{id}")["name"] == "Only this one")
    page.keyboard.press("Escape")
    card = page.get_by_role("link", name="Only this one")
    card.wait_for()
    page.get_by_role("button", name="Delete: Only this one").click()
    expect(card).to_have_count(0)
    page.get_by_role("button", name="Undo").click()
    card.click()
    page.wait_for_url(f"**/#/editor/{id}")


def test_a_finger_paints_and_two_zoom(open_canvas: Callable[..., Any], served: Any, picture: Any) -> None:
    page = open_canvas(picture, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    stage = page.locator(".stage")
    stage.scroll_into_view_if_needed()
    box = stage.bounding_box()
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    touches = page.context.new_cdp_session(page)

    def touch(kind: str, *points: tuple[float, float]) -> None:
        listed = [{"x": x, "y": y, "id": index} for index, (x, y) in enumerate(points)]
        touches.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": listed})

    touch("touchStart", middle)
    for step in range(5):
        touch("touchMove", (middle[0] + 10 * step, middle[1]))
    touch("touchEnd")
    expect(page.get_by_text("of the picture is marked")).to_be_visible()
    saved(served, page, lambda state: len(state["now"]["marks"]) == 1)
    width = page.locator(".stage-inner > img").bounding_box()["width"]
    a, b = (middle[0] - 20, middle[1]), (middle[0] + 20, middle[1])
    touch("touchStart", a)
    touch("touchStart", a, b)
    for step in range(6):
        touch("touchMove", (a[0] - 10 * step, a[1]), (b[0] + 10 * step, b[1]))
    touch("touchEnd")
    assert page.locator(".stage-inner > img").bounding_box()["width"] > 1.5 * width
    page.wait_for_timeout(1000)
    assert len(saved(served, page)["now"]["marks"]) == 1, "zooming paints nothing"
