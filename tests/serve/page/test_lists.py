"""Lists of prompts, captions that fit a picture, and models that are verified."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import expect


def test_list_of_prompts_becomes_jobs(open_page: Callable[..., Any], served: Any, tmp_path: Path) -> None:
    served.call("queue/pause", "POST")
    page = open_page("create")
    page.locator("main").focus()
    page.keyboard.press("b")
    dialog = page.get_by_role("dialog", name="List of prompts")
    draw = dialog.get_by_role("button", name="Draw all")
    expect(draw).to_have_attribute("aria-disabled", "true")
    file = tmp_path / "prompts.txt"
    file.write_text("# mine\n- a red fox\n\n2. a blue cat\n")
    dialog.locator("input[type=file]").set_input_files(file)
    expect(dialog.get_by_role("status")).to_have_text("2 prompts, 4 pictures each: 8 pictures")
    dialog.get_by_label("One prompt a line").press("Control+Enter")
    expect(dialog).to_have_count(0)
    found = served.call("jobs?state=open&limit=10")["items"]
    assert [job["request"]["prompt"] for job in found[:2]] == ["a blue cat", "a red fox"]
    assert {job["n"] for job in found[:2]} == {4}


def test_list_that_the_server_does_not_take_whole_keeps_the_rest(
    open_page: Callable[..., Any], served: Any
) -> None:
    served.call("queue/pause", "POST")
    page = open_page("create")
    taken = []

    def answer(route: Any) -> None:
        if route.request.method != "POST" or not taken:
            taken.append(route.request.method == "POST" or taken.append)
            route.continue_()
        else:
            route.fulfill(status=429, json={"error": {"message": "the queue is full"}})

    page.route("**/api/jobs", answer)
    page.get_by_role("button", name="List of prompts").click()
    dialog = page.get_by_role("dialog")
    words = dialog.get_by_label("One prompt a line")
    words.fill("one\ntwo\nthree")
    dialog.get_by_role("button", name="Draw all").click()
    expect(page.locator(".toast.bad").filter(has_text="1 of 3 prompts")).to_be_visible()
    expect(words).to_have_value("two\nthree")
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)


def test_captions_are_compared(open_page: Callable[..., Any], served: Any) -> None:
    picture = served.draw("a red apple", n=1)["pictures"][0]
    page = open_page(f"image/{picture['id']}")
    page.get_by_role("button", name="Captions").wait_for()
    page.keyboard.press("t")
    panel = page.get_by_role("region", name="Captions")
    panel.get_by_label("Words to compare").fill("a red apple\na blue cat\ntwo green cars")
    panel.get_by_role("button", name="Compare").click()
    expect(panel.get_by_role("listitem")).to_have_count(3)
    expect(panel.get_by_role("meter")).to_have_count(3)
    shares = [float(one.split()[0]) for one in panel.locator("li .muted").all_inner_texts()]
    assert sum(shares) > 98
    assert shares == sorted(shares, reverse=True)
    # Without words, those of the library.
    panel.get_by_label("Words to compare").fill("")
    panel.get_by_role("button", name="Compare").click()
    expect(panel.get_by_role("listitem").filter(has_text="a red apple").first).to_be_visible()


def test_model_is_verified(open_page: Callable[..., Any], served: Any) -> None:
    page = open_page("queue")
    page.get_by_role("button", name="Verify").click()
    expect(page.locator(".models .verified")).to_have_text("Good: 5 files match their hashes")
