"""Create: one box, four pictures that sharpen while they are drawn, and what survives a reload or a restart."""

import re
from collections.abc import Callable
from typing import Any

from playwright.sync_api import expect

SLOW: Any = {"sampling": {"decoder": {"steps": 1000}, "prior": {"steps": 300, "candidates": 1}}}
"""Sampling that takes seconds with the tiny model, for what happens meanwhile."""


def prompt_of(page: Any) -> Any:
    return page.get_by_label("Describe a picture")


def tiles_of(page: Any, prompt: str) -> Any:
    return page.get_by_role("article", name=prompt).first.locator("a.tile")


def test_first_pictures_are_one_click_away(open_page: Callable[..., Any], served: Any) -> None:
    for job in served.call("jobs?limit=500")["items"]:
        served.call(f"jobs/{job['id']}", "DELETE")
    page = open_page()
    page.get_by_role("button", name="a red fox, flat style").click()
    expect(tiles_of(page, "a red fox, flat style")).to_have_count(4)
    job = served.newest()
    assert job["request"]["prompt"] == "a red fox, flat style"
    assert job["n"] == 4
    images = page.get_by_role("article").first.locator("a.tile img")
    for index in range(4):
        expect(images.nth(index)).to_have_js_property("complete", True)
        assert images.nth(index).evaluate("image => image.naturalWidth") > 0
    expect(page.get_by_role("status").filter(has_text="Done: a red fox")).to_be_attached()


def test_words_and_enter(open_page: Callable[..., Any], served: Any) -> None:
    page = open_page()
    page.keyboard.press("/")
    expect(prompt_of(page)).to_be_focused()
    page.keyboard.type("two green cars")
    page.keyboard.press("Shift+Enter")
    assert prompt_of(page).input_value() == "two green cars\n"
    page.keyboard.press("Backspace")
    page.keyboard.press("Enter")
    expect(tiles_of(page, "two green cars")).to_have_count(4)
    assert served.newest()["request"]["prompt"] == "two green cars"


def test_nothing_is_sent_without_words(open_page: Callable[..., Any], served: Any) -> None:
    before = served.newest()["id"] if served.call("jobs?limit=1")["items"] else None
    page = open_page()
    page.get_by_role("button", name="Generate").click()
    expect(page.get_by_text("Say what to draw first.").first).to_be_visible()
    jobs = served.call("jobs?limit=1")["items"]
    assert (jobs[0]["id"] if jobs else None) == before


def test_surprise_by_mouse_and_key(open_page: Callable[..., Any]) -> None:
    page = open_page()
    page.get_by_role("button", name="Surprise me").click()
    first = prompt_of(page).input_value()
    assert re.fullmatch(r"an? \w+ .+ style", first)
    page.get_by_role("button", name="Options").focus()
    for _ in range(5):
        page.keyboard.press("r")
        page.get_by_role("button", name="Options").focus()
        if prompt_of(page).input_value() != first:
            return
    raise AssertionError("five surprises were the same")


def test_options_become_the_request(open_page: Callable[..., Any], served: Any) -> None:
    page = open_page()
    page.get_by_role("button", name="Options").click()
    page.get_by_role("group", name="Pictures").get_by_label("2", exact=True).check(force=True)
    page.get_by_label("Size").select_option("16")
    page.get_by_label("Seed", exact=True).fill("123")
    page.get_by_label("Steps", exact=True).fill("4")
    page.get_by_label("Guidance", exact=True).fill("1.5")
    page.get_by_label("Sampler").select_option("ddim")
    page.get_by_label("Without").fill("a blue cat")
    page.get_by_label("Prior steps").fill("5")
    page.get_by_label("Prior guidance").fill("2")
    page.get_by_label("Candidates").fill("1")
    prompt_of(page).fill("a blue cat")
    prompt_of(page).press("Enter")
    expect(tiles_of(page, "a blue cat")).to_have_count(2)
    request = served.newest()["request"]
    assert request["seed"] == 123
    assert (request["n"], request["size"], request["negative"]) == (2, 16, "a blue cat")
    assert request["sampling"]["decoder"] == {"steps": 4, "guidance": 1.5, "sampler": "ddim"}
    assert request["sampling"]["prior"] == {"steps": 5, "guidance": 2, "candidates": 1}
    lock = page.get_by_role("button", name="Keep this seed")
    expect(lock).to_have_attribute("aria-pressed", "true")
    lock.click()
    page.get_by_role("button", name="Reset all options").click()
    expect(page.get_by_label("Steps", exact=True)).to_have_value("")
    assert prompt_of(page).input_value() == "a blue cat"


def test_a_locked_seed_gives_the_same_pictures(open_page: Callable[..., Any], served: Any) -> None:
    page = open_page()
    page.get_by_role("button", name="Options").click()
    page.get_by_role("button", name="Keep this seed").click()
    prompt_of(page).fill("noto style")
    files = []
    for _ in range(2):
        before = served.newest()["id"]
        prompt_of(page).press("Enter")
        served.eventually(lambda before=before: served.newest()["id"] != before)
        job = served.wait(served.newest()["id"])
        files.append([one["provenance"]["request"] for one in job["pictures"]])
    assert files[0] == files[1]


def test_pictures_sharpen_while_they_are_drawn(
    open_page: Callable[..., Any], served: Any, until: Callable[..., None]
) -> None:
    job = served.draw("flat style", wait=False, n=2, **SLOW)
    page = open_page()
    card = page.get_by_role("article", name="flat style").first
    preview = card.locator(".tile.live img").first
    expect(preview).to_be_visible()
    first = preview.get_attribute("src")
    assert first
    assert first.startswith("data:image/")
    until(page, "src => document.querySelector('.tile.live img')?.src !== src", first)
    bar = card.get_by_role("progressbar").first
    assert int(bar.get_attribute("aria-valuenow") or 0) > 0
    served.call(f"jobs/{job['id']}/cancel", "POST")
    expect(card.get_by_text("Cancelled").first).to_be_visible()


def test_one_picture_and_then_the_job_are_cancelled(open_page: Callable[..., Any], served: Any) -> None:
    job = served.draw("a red apple", wait=False, n=4, **SLOW)
    page = open_page()
    card = page.get_by_role("article", name="a red apple").first
    card.get_by_role("button", name="Cancel picture 3").click()
    expect(card.locator(".tile.empty")).to_have_count(1)
    served.eventually(lambda: served.call(f"jobs/{job['id']}")["states"][2] == "cancelled")
    card.get_by_role("button", name="Cancel: a red apple").focus()
    page.keyboard.press("Enter")
    served.eventually(lambda: served.call(f"jobs/{job['id']}")["state"] == "cancelled")
    expect(card.get_by_role("button", name="Try again")).to_be_visible()


def test_a_reload_in_the_middle_goes_on(open_page: Callable[..., Any], served: Any) -> None:
    job = served.draw("a blue cat", wait=False, n=2, **SLOW)
    page = open_page()
    prompt_of(page).fill("words that are being written")
    page.locator(".tile.live img").first.wait_for()
    page.reload()
    assert prompt_of(page).input_value() == "words that are being written"
    page.locator(".tile.live img").first.wait_for()
    served.call(f"jobs/{job['id']}/cancel", "POST")


def test_the_server_restarts_in_the_middle(open_page: Callable[..., Any], served: Any) -> None:
    job = served.draw("two green cars", wait=False, n=3, **SLOW)
    page = open_page()
    page.locator(".tile.live img").first.wait_for()
    served.stop(kill=True)
    expect(page.get_by_text("The server does not answer. The page goes on")).to_be_visible()
    served.start()
    expect(page.get_by_text("The server does not answer. The page goes on")).to_be_hidden(timeout=20_000)
    page.locator(".tile.live img").first.wait_for(timeout=30_000)
    served.call(f"jobs/{job['id']}/cancel", "POST")
    prompt_of(page).fill("a red apple")
    prompt_of(page).press("Enter")
    expect(tiles_of(page, "a red apple")).to_have_count(4)


def test_a_given_picture_is_varied_and_redrawn(
    open_page: Callable[..., Any], served: Any, tmp_path: Any
) -> None:
    picture = served.draw("a red apple", n=1)["pictures"][0]
    file = tmp_path / "apple.png"
    file.write_bytes(served.call(f"pictures/{picture['id']}/file"))
    page = open_page()
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Add a picture").click()
    chooser.value.set_files(file)
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_text("a red apple")).to_be_visible()
    dialog.get_by_role("button", name="Start from it").click()
    page.get_by_role("button", name="Make variations").click()
    served.eventually(lambda: served.newest()["kind"] == "vary")
    prompt_of(page).fill("a blue cat")
    page.get_by_label("Change", exact=False).first.fill("40")
    page.get_by_role("button", name="Redraw").click()
    served.eventually(lambda: served.newest()["kind"] == "redraw")
    assert served.newest()["request"]["strength"] == 0.4
    assert served.wait(served.newest()["id"])["state"] == "done"


def test_a_file_that_is_no_picture_is_refused(open_page: Callable[..., Any], tmp_path: Any) -> None:
    page = open_page()
    file = tmp_path / "page.svg"
    file.write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    page.locator("input[type=file]").first.set_input_files(file)
    expect(page.get_by_text("This is not a picture.").first).to_be_visible()
    page.get_by_role("button", name="Dismiss").first.click()
    file = tmp_path / "damaged.png"
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(2000))
    page.locator("input[type=file]").first.set_input_files(file)
    expect(page.get_by_text("This is not a picture.").first).to_be_visible()
    expect(page.get_by_role("dialog")).to_have_count(0)
