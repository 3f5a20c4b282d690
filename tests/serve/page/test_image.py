"""Image: everything that can be done with a picture, by mouse and by keyboard."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import expect


@pytest.fixture
def picture(served: Any) -> Any:
    """A finished picture of its own job."""
    return served.draw("a red apple", n=1, seed=11)["pictures"][0]


def actions(page: Any) -> Any:
    return page.get_by_role("group", name="Actions")


def test_variations_appear_below(open_page: Callable[..., Any], served: Any, picture: Any) -> None:
    page = open_page(f"image/{picture['id']}")
    actions(page).get_by_role("button", name="Variations", exact=True).click()
    card = page.get_by_role("article", name="Variation")
    expect(card.locator("a.tile")).to_have_count(4)
    job = served.newest()
    assert (job["kind"], job["sources"]) == ("vary", [{"role": "picture", "id": picture["id"]}])
    family = page.get_by_role("region", name="Family")
    expect(family.get_by_text("Made from this picture")).to_be_visible()
    family.locator("a.tile").first.click()
    expect(page.get_by_role("region", name="Family").get_by_text("Made from", exact=True)).to_be_visible()


def test_keys(open_page: Callable[..., Any], served: Any, picture: Any) -> None:
    page = open_page(f"image/{picture['id']}")
    page.get_by_role("button", name="Variations", exact=True).wait_for()
    page.keyboard.press("v")
    served.eventually(lambda: served.newest()["kind"] == "vary")
    page.keyboard.press("s")
    served.eventually(lambda: served.call(f"pictures/{picture['id']}")["starred"])
    # The server knows it before the page does.
    page.get_by_role("button", name="Remove the star").wait_for()
    page.keyboard.press("s")
    served.eventually(lambda: not served.call(f"pictures/{picture['id']}")["starred"])
    with page.expect_download() as download:
        page.keyboard.press("d")
    assert download.value.path().read_bytes() == served.call(f"pictures/{picture['id']}/file")
    page.keyboard.press("e")
    page.get_by_label("Canvas. Paint what is to be drawn").wait_for()
    page.go_back()
    page.get_by_role("button", name="Variations", exact=True).wait_for()
    page.keyboard.press("u")
    expect(page.get_by_label("Describe a picture")).to_have_value("a red apple")


def test_star_and_download_by_mouse(open_page: Callable[..., Any], served: Any, picture: Any) -> None:
    page = open_page(f"image/{picture['id']}")
    page.get_by_role("button", name="Star", exact=True).click()
    served.eventually(lambda: served.call(f"pictures/{picture['id']}")["starred"])
    expect(page.get_by_role("button", name="Remove the star")).to_have_attribute("aria-pressed", "true")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    assert download.value.suggested_filename == "a-red-apple.png"


def test_neighbours(open_page: Callable[..., Any], served: Any) -> None:
    first, second = served.draw("flat style", n=2)["pictures"]
    page = open_page(f"image/{first['id']}")
    page.get_by_role("link", name="Next picture").wait_for()
    page.keyboard.press("ArrowRight")
    page.wait_for_url(f"**/#/image/{second['id']}")
    page.get_by_role("link", name="Previous picture").click()
    page.wait_for_url(f"**/#/image/{first['id']}")


def test_delete_and_undo(open_page: Callable[..., Any], served: Any, picture: Any) -> None:
    page = open_page(f"image/{picture['id']}")
    page.get_by_role("button", name="Delete", exact=True).click()
    served.eventually(lambda: served.call(f"pictures/{picture['id']}")["deleted"])
    page.get_by_role("button", name="Undo").click()
    served.eventually(lambda: served.call(f"pictures/{picture['id']}")["deleted"] is None)
    # Another address only in its fragment: without a reload the page may still show what was there before.
    page.goto(f"{served.url}#/image/{picture['id']}")
    page.reload()
    page.get_by_role("button", name="Variations", exact=True).wait_for()
    page.get_by_role("button", name="Delete", exact=True).wait_for()
    page.keyboard.press("Delete")
    served.eventually(lambda: served.call(f"pictures/{picture['id']}")["deleted"])


def test_reuse_words_seed_and_everything(open_page: Callable[..., Any], served: Any) -> None:
    sampling = {"decoder": {"steps": 4, "guidance": 1.5}, "prior": {"candidates": 1}}
    made = served.draw("a blue cat", n=1, seed=77, size=16, negative="flat style", sampling=sampling)[
        "pictures"
    ][0]
    page = open_page(f"image/{made['id']}")
    page.get_by_role("button", name="Reuse").click()
    reuse = page.get_by_role("group", name="Reuse")
    reuse.get_by_role("button", name="Seed").click()
    reuse.get_by_role("button", name="Words").click()
    expect(page.get_by_label("Describe a picture")).to_have_value("a blue cat")
    page.get_by_role("button", name="Options").click()
    expect(page.get_by_label("Seed", exact=True)).to_have_value("77")
    expect(page.get_by_label("Steps", exact=True)).to_have_value("")
    page.goto(f"{served.url}#/image/{made['id']}")
    page.get_by_role("button", name="Reuse").click()
    page.get_by_role("button", name="Everything").click()
    page.get_by_role("button", name="Options").click()
    expect(page.get_by_label("Steps", exact=True)).to_have_value("4")
    page.get_by_role("button", name="Generate").click()
    served.eventually(lambda: served.newest()["id"] != made["job"])
    again = served.wait(served.newest()["id"])["pictures"][0]
    assert again["request"] == made["request"]


def test_provenance_as_table_and_text(open_page: Callable[..., Any], served: Any, picture: Any) -> None:
    page = open_page(f"image/{picture['id']}")
    panel = page.get_by_role("tabpanel")
    expect(panel.get_by_role("row", name="Seed")).to_contain_text(str(picture["seed"]))
    commands = served.call(f"pictures/{picture['id']}/commands")
    page.get_by_role("tab", name="Table").focus()
    for name, key in (("JSON", "json"), ("Command", "cli"), ("Python", "python"), ("curl", "curl")):
        page.keyboard.press("ArrowRight")
        expect(page.get_by_role("tab", name=name)).to_be_focused()
        page.get_by_role("button", name=f"Copy {name}").click()
        expect(page.get_by_text("Copied").first).to_be_visible()
        copied = page.evaluate("navigator.clipboard.readText()")
        wanted = commands[key]
        assert (copied if isinstance(wanted, str) else json.loads(copied)) == wanted
        page.get_by_role("tab", name=name).focus()


def test_full_size_and_back(open_page: Callable[..., Any], picture: Any) -> None:
    page = open_page(f"image/{picture['id']}")
    page.get_by_role("button", name="Full size").click()
    expect(page.locator("figure.full")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("figure.full")).to_have_count(0)


def test_a_picture_that_is_not_there(open_page: Callable[..., Any]) -> None:
    page = open_page("image/00000000-0000-4000-8000-000000000000")
    expect(page.get_by_text("There is nothing here.")).to_be_visible()


def test_a_prompt_of_markup_is_text(open_page: Callable[..., Any], served: Any) -> None:
    text = "<img src=x onerror=alert(1)><b>bold</b>"
    made = served.draw(text, n=1)["pictures"][0]
    page = open_page(f"image/{made['id']}")
    expect(page.get_by_role("heading", name=text)).to_be_visible()
    assert page.locator("main b, main img[src=x]").count() == 0


def test_text_diff_by_slider(open_page: Callable[..., Any], served: Any, picture: Any) -> None:
    page = open_page(f"image/{picture['id']}")
    actions(page).get_by_role("button", name="Change by words").click()
    expect(page.get_by_label("Now it is")).to_have_value("a red apple")
    page.get_by_label("It becomes").fill("a blue cat")
    page.get_by_label("How far").fill("40")
    page.get_by_label("Pictures on the way").fill("3")
    page.keyboard.press("Enter")
    slider = page.get_by_role("slider", name="Position on the way")
    job = served.eventually(lambda: served.newest() if served.newest()["kind"] == "text_diff" else None)
    request = job["request"]
    assert (request["target"], request["baseline"], request["maximum"]) == ("a blue cat", "a red apple", 0.4)
    made = served.wait(job["id"])["pictures"]
    assert [one["request"]["thetas"] for one in made] == [[0.0], [0.2], [0.4]]
    expect(slider).to_be_enabled()
    shown = page.locator(".slider-picture > img")
    for key, index in (("Home", 0), ("ArrowRight", 1), ("End", 2)):
        slider.press(key)
        expect(shown).to_have_attribute("src", f"{served.url}api/pictures/{made[index]['id']}/file")
    page.reload()
    page.get_by_role("slider", name="Position on the way").wait_for()
    page.keyboard.press("Escape")
    page.wait_for_url(f"**/#/image/{picture['id']}")


def test_blend_of_two(open_page: Callable[..., Any], served: Any, picture: Any) -> None:
    other = served.draw("two green cars", n=1)["pictures"][0]
    page = open_page(f"image/{picture['id']}")
    actions(page).get_by_role("button", name="Blend").click()
    page.get_by_role("button", name="Choose a picture").click()
    page.get_by_role("dialog").locator("button.tile").first.click()
    page.wait_for_url(f"**/blend/{other['id']}")
    page.get_by_label("Pictures on the way").fill("3")
    page.get_by_role("button", name="Make the slider").click()
    job = served.eventually(lambda: served.newest() if served.newest()["kind"] == "interpolate" else None)
    assert [one["id"] for one in job["sources"]] == [picture["id"], other["id"]]
    served.wait(job["id"])
    slider = page.get_by_role("slider", name="Position on the way")
    expect(slider).to_be_enabled()
    slider.press("End")
    expect(slider).to_have_attribute("aria-valuetext", "3 of 3")
    page.get_by_role("link", name="Open this picture").click()
    page.wait_for_url(f"**/#/image/{served.call('jobs/' + job['id'])['pictures'][2]['id']}")


def test_long_words_leave_room_for_pictures(open_page: Callable[..., Any], served: Any) -> None:
    words = "x" * 99 + "\U0001f680" + " and so on" * 900
    picture = served.draw(words, n=1)["pictures"][0]
    page = open_page("create")
    for place in ("create", "queue", f"image/{picture['id']}"):
        page.goto(f"{served.url}#/{place}")
        title = page.get_by_text("x" * 99 + "\U0001f680").first
        expect(title).to_be_visible()
        assert title.bounding_box()["height"] < 200
        assert title.inner_text().endswith("…")
    # A canvas has the beginning of the words as its name, which must not end within a character.
    actions(page).get_by_role("button", name="Edit", exact=True).click()
    expect(page.get_by_label("Name")).to_have_value("x" * 99 + "\U0001f680")
    served.eventually(lambda: served.call("canvases")["items"][0]["name"] == "x" * 99 + "\U0001f680")
