"""Queue and system: order, pause, cancel and retry; models, memory and settings."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import expect

SLOW: Any = {"sampling": {"decoder": {"steps": 1000}, "prior": {"steps": 300, "candidates": 1}}}
"""Sampling that takes seconds with the tiny model."""


@pytest.fixture
def waiting(served: Any) -> Iterator[list[Any]]:
    """Three jobs that wait, as the queue is paused."""
    served.clear()
    served.call("queue/pause", "POST")
    yield [served.draw(prompt, wait=False, n=1) for prompt in ("first job", "second job", "third job")]
    served.clear()


def order_of(page: Any) -> list[str]:
    return page.locator("ol.rows-list strong").all_inner_texts()


def row(page: Any, words: str) -> Any:
    return page.get_by_role("listitem").filter(has_text=words).first


def test_jobs_are_reordered_by_mouse_and_keyboard(
    open_page: Callable[..., Any], served: Any, waiting: list[Any], until: Callable[..., None]
) -> None:
    page = open_page("queue")
    expect(page.locator("ol.rows-list > li")).to_have_count(3)
    assert order_of(page) == ["first job", "second job", "third job"]
    expect(row(page, "first job")).to_contain_text("next in the queue")
    page.get_by_role("button", name="Draw earlier: third job").click()
    until(page, "document.querySelectorAll('ol.rows-list strong')[1].textContent === 'third job'")
    page.get_by_role("button", name="Draw later: first job").press("Enter")
    until(page, "document.querySelectorAll('ol.rows-list strong')[0].textContent === 'third job'")
    places = {job["request"]["prompt"]: job["place"] for job in served.call("jobs?state=waiting")["items"]}
    assert places == {"third job": 1, "first job": 2, "second job": 3}


def test_the_queue_is_paused_and_goes_on(
    open_page: Callable[..., Any], served: Any, waiting: list[Any]
) -> None:
    page = open_page("queue")
    expect(page.get_by_text("The queue is paused.")).to_be_visible()
    page.get_by_role("button", name="Resume the queue").click()
    for job in waiting:
        assert served.wait(job["id"])["state"] == "done"
    page.get_by_role("button", name="Pause the queue").press("Enter")
    served.eventually(lambda: served.call("queue")["paused"])
    expect(page.locator("ol.rows-list > li")).to_have_count(0)


def test_one_job_is_paused_resumed_cancelled_and_tried_again(
    open_page: Callable[..., Any], served: Any, waiting: list[Any]
) -> None:
    id = waiting[1]["id"]
    page = open_page("queue")
    row(page, "second job").get_by_role("button", name="Pause").click()
    served.eventually(lambda: served.call(f"jobs/{id}")["state"] == "paused")
    row(page, "second job").get_by_role("button", name="Resume").press("Enter")
    served.eventually(lambda: served.call(f"jobs/{id}")["state"] == "waiting")
    row(page, "second job").get_by_role("button", name="Cancel").click()
    served.eventually(lambda: served.call(f"jobs/{id}")["state"] == "cancelled")
    ended = page.get_by_role("region", name="Ended")
    ended.get_by_role("listitem").filter(has_text="second job").first.get_by_role(
        "button", name="Try again"
    ).click()
    served.eventually(lambda: served.call(f"jobs/{id}")["state"] == "waiting")
    served.call("queue/resume", "POST")
    assert served.wait(id)["state"] == "done"


def test_progress_of_a_running_job(
    open_page: Callable[..., Any], served: Any, until: Callable[..., None]
) -> None:
    job = served.draw("slow job", wait=False, n=2, **SLOW)
    page = open_page("queue")
    bar = page.get_by_role("progressbar", name="slow job")
    bar.wait_for()
    until(page, "Number(document.querySelector('.queue-words [role=progressbar]')?.ariaValueNow) > 1")
    expect(page.get_by_role("link", name="Queue")).to_contain_text("1")
    served.call(f"jobs/{job['id']}/cancel", "POST")
    expect(bar).to_have_count(0)


def test_models_and_system(open_page: Callable[..., Any], served: Any) -> None:
    page = open_page("queue")
    models = page.get_by_role("region", name="Models")
    expect(models.get_by_text("tiny")).to_be_visible()
    expect(models.get_by_text("Inpainting")).to_be_visible()
    system = page.get_by_role("region", name="System")
    for name in ("Device", "Memory", "Pictures", "Database", "Running for", "Version"):
        expect(system.get_by_text(name, exact=True)).to_be_visible()
    assert served.call("system")["version"] in (system.text_content() or "")


def test_settings_are_kept(open_page: Callable[..., Any], served: Any) -> None:
    page = open_page("queue", color_scheme="light")

    def ground() -> str:
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    light = ground()
    page.get_by_role("group", name="Theme").get_by_label("Dark").check(force=True)
    assert ground() != light
    page.get_by_role("group", name="Motion").get_by_label("Reduced").check(force=True)
    page.get_by_role("group", name="Pictures at a time").get_by_label("2", exact=True).check(force=True)
    page.reload()
    page.get_by_role("group", name="Theme").wait_for()
    assert ground() != light
    page.get_by_role("button", name="Theme: dark").click()
    assert ground() == light
    page.goto(f"{served.url}#/create")
    page.get_by_label("Describe a picture").fill("a red apple")
    page.keyboard.press("Enter")
    served.eventually(lambda: served.newest()["n"] == 2)


def test_a_failed_job_says_why_and_is_removed(
    open_page: Callable[..., Any], served: Any, tmp_path: Any
) -> None:
    # An upload whose file is gone from the store fails when the job is drawn.
    from PIL import Image

    file = tmp_path / "plain.png"
    Image.new("RGB", (32, 32), "teal").save(file)
    upload = served.call("uploads", "POST", file.read_bytes())
    served.call("queue/pause", "POST")
    job = served.draw(kind="vary", prompt=None, wait=False, sources={"picture": upload["id"]})
    for path in (served.folder / "pictures").rglob(f"*{upload['id']}*"):
        path.unlink()
    served.call("queue/resume", "POST")
    assert served.wait(job["id"])["state"] == "failed"
    page = open_page("queue")
    ended = page.get_by_role("region", name="Ended").get_by_role("listitem").first
    expect(ended.locator(".problem")).not_to_be_empty()
    ended.get_by_role("button", name="Remove from the list").click()
    served.eventually(lambda: all(one["id"] != job["id"] for one in served.call("jobs?limit=50")["items"]))
