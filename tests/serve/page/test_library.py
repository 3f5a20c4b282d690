"""Library: search, filters, collections, selection, exports, undo, and files that bring their request along."""

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect


def tiles_of(page: Any) -> Any:
    return page.locator(".grid a.tile")


def search(page: Any, words: str) -> None:
    page.get_by_role("searchbox", name="Search in words").fill(words)


@pytest.fixture
def word(request: Any) -> str:
    """A word that only the pictures of this test have."""
    return f"mark{abs(hash(request.node.name)) % 10**8}"


def test_search_and_days(open_page: Callable[..., Any], served: Any, word: str) -> None:
    served.draw(f"a red apple {word}", n=3)
    page = open_page("library")
    expect(page.get_by_role("region", name="Today").locator("a.tile").first).to_be_visible()
    page.keyboard.press("/")
    page.keyboard.type(word)
    expect(tiles_of(page)).to_have_count(3)
    expect(page.get_by_text("3 pictures")).to_be_visible()
    search(page, f"{word} blue")
    expect(page.get_by_text("No picture fits.")).to_be_visible()


def test_filters(open_page: Callable[..., Any], served: Any, word: str) -> None:
    made = served.draw(f"a blue cat {word}", n=2)["pictures"]
    served.draw(f"a blue cat {word}", n=1, size=16)
    served.draw(kind="redraw", prompt=f"a red apple {word}", n=1, sources={"picture": made[0]["id"]})
    page = open_page("library")
    search(page, word)
    expect(tiles_of(page)).to_have_count(4)
    page.get_by_role("button", name="Filters").click()
    page.get_by_label("Operation").select_option("redraw")
    expect(tiles_of(page)).to_have_count(1)
    page.get_by_label("Operation").select_option("")
    page.get_by_label("Size").select_option("16")
    expect(tiles_of(page)).to_have_count(1)
    page.get_by_label("Size").select_option("")
    page.get_by_label("Model").select_option("tiny")
    expect(tiles_of(page)).to_have_count(4)
    served.call(f"pictures/{made[1]['id']}", "PATCH", {"starred": True})
    page.get_by_role("button", name="Starred").click()
    expect(tiles_of(page)).to_have_count(1)
    tiles_of(page).first.click()
    page.wait_for_url(f"**/image/{made[1]['id']}")
    page.go_back()
    expect(tiles_of(page)).to_have_count(1)


def test_arrow_keys_select_and_delete_with_undo(
    open_page: Callable[..., Any], served: Any, word: str
) -> None:
    made = served.draw(f"flat style {word}", n=4)["pictures"]
    page = open_page("library")
    search(page, word)
    expect(tiles_of(page)).to_have_count(4)
    order = [one.get_attribute("data-picture") for one in tiles_of(page).all()]
    tiles_of(page).first.focus()
    page.keyboard.press("ArrowRight")
    expect(tiles_of(page).nth(1)).to_be_focused()
    page.keyboard.press("x")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("x")
    expect(page.get_by_text("2 selected")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_text("2 selected")).to_have_count(0)
    page.keyboard.press("x")
    page.keyboard.press("Delete")
    served.eventually(lambda: served.call(f"pictures/{order[2]}")["deleted"])
    expect(tiles_of(page)).to_have_count(3)
    page.get_by_role("button", name="Undo").click()
    expect(tiles_of(page)).to_have_count(4)
    tiles_of(page).first.focus()
    page.keyboard.press("Control+a")
    expect(page.get_by_text("4 selected")).to_be_visible()
    page.get_by_role("toolbar").get_by_role("button", name="Delete").click()
    expect(page.get_by_text("No picture fits.")).to_be_visible()
    page.get_by_role("button", name="Deleted").click()
    expect(tiles_of(page)).to_have_count(4)
    page.get_by_label(f"Select flat style {word}").first.check(force=True)
    page.get_by_role("button", name="Restore", exact=True).click()
    expect(tiles_of(page)).to_have_count(3)
    assert sum(served.call(f"pictures/{one['id']}")["deleted"] is None for one in made) == 1


def test_a_range_is_selected_and_exported(open_page: Callable[..., Any], served: Any, word: str) -> None:
    served.draw(f"noto style {word}", n=4)
    page = open_page("library")
    search(page, word)
    expect(tiles_of(page)).to_have_count(4)
    boxes = page.get_by_label(f"Select noto style {word}")
    boxes.nth(0).click(force=True)
    boxes.nth(2).click(force=True, modifiers=["Shift"])
    expect(page.get_by_text("3 selected")).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download as ZIP").click()
    archive = zipfile.ZipFile(io.BytesIO(download.value.path().read_bytes()))
    wanted = [one.get_attribute("data-picture") for one in tiles_of(page).all()[:3]]
    assert {f"{id}.png" for id in wanted} == {name for name in archive.namelist() if name.endswith(".png")}
    assert len(json.loads(archive.read("pictures.json"))) == 3


def test_collections(open_page: Callable[..., Any], served: Any, word: str) -> None:
    served.draw(f"a red apple {word}", n=2)
    page = open_page("library")
    search(page, word)
    page.get_by_label(f"Select a red apple {word}").first.click(force=True)
    page.get_by_role("button", name="Add to collection").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name of the collection").fill(f"Best of {word}")
    page.keyboard.press("Enter")
    expect(dialog.get_by_role("checkbox", name=f"Best of {word}")).to_be_checked()
    page.keyboard.press("Escape")
    page.get_by_role("button", name=f"Best of {word}", exact=True).click()
    expect(tiles_of(page)).to_have_count(1)
    page.get_by_role("button", name=f"Rename or delete Best of {word}").click()
    dialog.get_by_label("Name of the collection").fill(f"Better {word}")
    dialog.get_by_role("button", name="Save").click()
    page.get_by_role("button", name=f"Better {word}", exact=True).wait_for()
    page.get_by_label(f"Select a red apple {word}").first.click(force=True)
    page.get_by_role("button", name="Remove from this collection").click()
    expect(page.get_by_text("No picture fits.")).to_be_visible()
    page.get_by_role("button", name=f"Rename or delete Better {word}").click()
    dialog.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("button", name=f"Better {word}", exact=True)).to_have_count(0)
    expect(tiles_of(page)).to_have_count(2)


DROP = """async ([data, name, type]) => {
  const bytes = Uint8Array.from(atob(data), (one) => one.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name, { type }));
  for (const kind of ["dragenter", "dragover", "drop"])
    document.body.dispatchEvent(new DragEvent(kind, { dataTransfer: transfer, bubbles: true, cancelable: true }));
}"""


def drop(page: Any, content: bytes, name: str) -> None:
    """Drop a file on the page."""
    import base64

    page.evaluate(DROP, [base64.b64encode(content).decode(), name, "image/png"])


def test_a_dropped_picture_restores_its_request(open_page: Callable[..., Any], served: Any) -> None:
    sampling = {"decoder": {"steps": 4}, "prior": {"candidates": 1}}
    made = served.draw("two green cars", n=1, seed=5, size=16, sampling=sampling)["pictures"][0]
    content = served.call(f"pictures/{made['id']}/file")
    page = open_page("library")
    drop(page, content, "cars.png")
    dialog = page.get_by_role("dialog", name="Restore from a picture")
    expect(dialog.get_by_text("two green cars")).to_be_visible()
    dialog.get_by_role("button", name="Use its request").click()
    expect(page.get_by_label("Describe a picture")).to_have_value("two green cars")
    page.get_by_role("button", name="Generate").click()
    served.eventually(lambda: served.newest()["id"] != made["job"])
    again = served.wait(served.newest()["id"])["pictures"][0]
    assert again["request"] == made["request"]
    first, second = (served.call(f"pictures/{one['id']}/file") for one in (made, again))
    from PIL import Image

    assert Image.open(io.BytesIO(first)).tobytes() == Image.open(io.BytesIO(second)).tobytes()


def test_a_dropped_picture_without_request_is_edited(
    open_page: Callable[..., Any], until: Callable[..., None]
) -> None:
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (40, 24), "teal").save(buffer, "PNG")
    page = open_page("create")
    drop(page, buffer.getvalue(), "plain.png")
    dialog = page.get_by_role("dialog", name="Restore from a picture")
    expect(dialog.get_by_text("carries no request")).to_be_visible()
    dialog.get_by_role("button", name="Edit it").click()
    page.get_by_role("img", name="Canvas.").wait_for()
    until(page, "document.querySelector('.stage-inner > img').naturalWidth === 40")
    expect(page.get_by_text("Saved", exact=True)).to_be_visible()
    page.reload()
    until(page, "document.querySelector('.stage-inner > img')?.naturalWidth === 40")


@pytest.mark.slow
def test_more_pictures_than_one_page(open_page: Callable[..., Any], served: Any, word: str) -> None:
    for _ in range(2):
        served.draw(f"flat style {word}", n=32, size=16)
    page = open_page("library")
    search(page, word)
    expect(tiles_of(page)).to_have_count(60)
    page.get_by_role("button", name="Show more").click()
    expect(tiles_of(page)).to_have_count(64)


def test_restore_from_a_file_by_button(open_page: Callable[..., Any], served: Any, tmp_path: Path) -> None:
    made = served.draw("a red apple", n=1)["pictures"][0]
    file = tmp_path / "apple.png"
    file.write_bytes(served.call(f"pictures/{made['id']}/file"))
    page = open_page("library")
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Restore from a file").click()
    chooser.value.set_files(file)
    page.get_by_role("dialog").get_by_role("button", name="Use its request").press("Enter")
    expect(page.get_by_label("Describe a picture")).to_have_value("a red apple")
