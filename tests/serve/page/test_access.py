"""All by keyboard, and nothing that axe finds: five places, light and dark, on desktop and phone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

DESKTOP: Any = {"viewport": {"width": 1280, "height": 860}}
PHONE: Any = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
AXE_TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


@pytest.fixture(scope="session")
def axe(node_modules: Path) -> str:
    """The script of axe-core."""
    return (node_modules / "node_modules" / "axe-core" / "axe.min.js").read_text()


@pytest.fixture
def check(axe: str) -> Callable[[Any], None]:
    """Fails for what axe finds on a page as it is now."""

    def run(page: Any) -> None:
        # The policy allows no script but the page's own; the debugger's way in is not bound by it.
        page.evaluate(f"() => {{ if (!window.axe) {{ {axe} }} }}")
        found = page.evaluate(
            "tags => axe.run(document, { runOnly: tags, resultTypes: ['violations'] })", AXE_TAGS
        )["violations"]
        report = [
            f"{one['id']} ({one['impact']}): {node['html'][:200]} {node['failureSummary'][:300]}"
            for one in found
            for node in one["nodes"]
        ]
        assert not report, "\n".join(report)

    return run


@pytest.fixture(scope="module")
def shown(served: Any) -> Any:
    """A picture with a family, starred and in a collection; a job that failed is not part of it."""
    made = served.draw("a red apple", n=4)["pictures"]
    served.draw(kind="vary", prompt=None, n=2, sources={"picture": made[0]["id"]})
    served.call(f"pictures/{made[0]['id']}", "PATCH", {"starred": True})
    collection = served.call("collections", "POST", {"name": "Favourites"})
    served.call(f"collections/{collection['id']}/pictures/{made[0]['id']}", "PUT")
    return made[0]


def open_place(page: Any, served: Any, place: str, shown: Any) -> None:
    """Go to a place, in a state in which all its parts are there."""
    address = {"image": f"image/{shown['id']}", "editor": f"image/{shown['id']}"}.get(place, place)
    page.goto(f"{served.url}#/{address}")
    page.locator("main h1").first.wait_for()
    if place == "create":
        page.get_by_role("button", name="Options").click()
        page.get_by_label("Prior steps").wait_for()
    elif place == "image":
        page.get_by_role("button", name="Reuse").click()
        page.get_by_role("region", name="Family").wait_for()
    elif place == "editor":
        page.get_by_role("button", name="Edit", exact=True).click()
        page.get_by_text("Box in numbers").click()
    elif place == "library":
        page.get_by_role("button", name="Filters").click()
        page.get_by_role("button", name="Select", exact=True).click()
        page.locator(".grid .pick input").first.check(force=True)
    else:
        page.get_by_role("region", name="System").wait_for()


@pytest.mark.parametrize("device", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_in_the_five_places(
    open_page: Callable[..., Any],
    served: Any,
    shown: Any,
    check: Callable[[Any], None],
    device: Any,
    scheme: str,
) -> None:
    page = open_page("create", color_scheme=scheme, reduced_motion="reduce", **device)
    for place in ("create", "image", "editor", "library", "queue"):
        open_place(page, served, place, shown)
        check(page)
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, f"{place} is wider than the window by {wide} px"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_elsewhere(
    open_page: Callable[..., Any], served: Any, shown: Any, check: Callable[[Any], None], scheme: str
) -> None:
    page = open_page(f"image/{shown['id']}/diff", color_scheme=scheme, reduced_motion="reduce")
    check(page)
    page.goto(f"{served.url}#/image/{shown['id']}/blend")
    page.get_by_role("button", name="Choose a picture").click()
    page.get_by_role("dialog").locator("button.tile").first.wait_for()
    check(page)
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    page.get_by_role("dialog", name="Keyboard shortcuts").wait_for()
    check(page)
    page.keyboard.press("Escape")
    page.goto(f"{served.url}#/editor")
    page.get_by_role("heading", name="Editor").wait_for()
    check(page)
    page.goto(f"{served.url}#/create")
    page.get_by_role("button", name="Generate").click()
    page.get_by_text("Say what to draw first.").first.wait_for()
    served.draw("flat style", wait=False, n=2, sampling={"decoder": {"steps": 1000}})
    page.locator(".tile.live").first.wait_for()
    check(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_in_what_is_opened_by_keys(
    open_page: Callable[..., Any], served: Any, shown: Any, check: Callable[[Any], None], scheme: str
) -> None:
    page = open_page("create", color_scheme=scheme, reduced_motion="reduce")
    page.locator("main").focus()
    page.keyboard.press("b")
    page.get_by_role("dialog", name="List of prompts").wait_for()
    check(page)
    page.goto(f"{served.url}#/queue")
    page.get_by_role("button", name="Verify").click()
    page.locator(".models .verified").wait_for()
    check(page)
    page.goto(f"{served.url}#/image/{shown['id']}")
    page.get_by_role("button", name="Captions").wait_for()
    page.keyboard.press("t")
    page.get_by_role("button", name="Compare").click()
    page.get_by_role("meter").first.wait_for()
    check(page)
    page.get_by_role("button", name="Edit", exact=True).click()
    page.get_by_role("img", name="Canvas.").wait_for()
    page.keyboard.press("3")
    page.get_by_role("group", name="Frame. Arrow keys move it").wait_for()
    # Another tab saves the canvas meanwhile.
    path = f"canvases/{page.url.rsplit('/', 1)[-1]}"
    found = served.call(path)
    served.call(path, "PUT", {name: found[name] for name in ("name", "width", "height", "base", "state")})
    page.get_by_label("What should the whole picture show?").fill("a pear")
    page.get_by_role("button", name="Keep both").wait_for()
    check(page)


def test_places_by_keys_and_the_help(open_page: Callable[..., Any]) -> None:
    page = open_page("queue")
    for keys, name in (("gl", "library"), ("ge", "editor"), ("gq", "queue"), ("gc", "create")):
        for key in keys:
            page.keyboard.press(key)
        page.wait_for_url(f"**/#/{name}")
    expect(page.get_by_label("Describe a picture")).to_be_focused()
    page.get_by_role("link", name="Create").focus()
    page.keyboard.press("?")
    help = page.get_by_role("dialog", name="Keyboard shortcuts")
    expect(help).to_be_visible()
    for _ in range(12):
        page.keyboard.press("Tab")
        assert page.evaluate(
            "document.activeElement === document.body || !!document.activeElement.closest('dialog')"
        )
    page.keyboard.press("Escape")
    expect(help).to_have_count(0)
    page.get_by_role("button", name="Keyboard shortcuts").press("Enter")
    expect(help).to_be_visible()
    help.get_by_role("button", name="Close").click()
    expect(page.get_by_role("button", name="Keyboard shortcuts")).to_be_focused()


def test_single_keys_can_be_switched_off(open_page: Callable[..., Any]) -> None:
    page = open_page("queue")
    page.get_by_role("switch", name="Shortcuts of single keys").press("Space")
    page.get_by_role("link", name="Queue").focus()
    page.keyboard.press("?")
    page.keyboard.press("g")
    page.keyboard.press("e")
    page.wait_for_timeout(200)
    assert page.get_by_role("dialog").count() == 0
    assert page.url.endswith("#/queue")


def test_focus_order_and_the_skip_link(open_page: Callable[..., Any]) -> None:
    page = open_page("create")
    names = []
    for _ in range(14):
        page.keyboard.press("Tab")
        names.append(
            page.evaluate("document.activeElement.ariaLabel || document.activeElement.textContent.trim()")
        )
    wanted = ["Skip to the content", "unclip", "Create", "Library", "Editor", "Queue"]
    assert [name.rstrip("0123456789") for name in names[:6]] == wanted
    assert names.index("Describe a picture") < names.index("Surprise me") < names.index("Options")
    page.reload()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"
    page.keyboard.press("Tab")
    expect(page.get_by_label("Describe a picture")).to_be_focused()


def test_the_focus_follows_to_a_new_place(open_page: Callable[..., Any]) -> None:
    page = open_page("create")
    page.get_by_role("link", name="Library").press("Enter")
    page.get_by_role("heading", name="Library").wait_for()
    assert page.evaluate("document.activeElement.id") == "content"


def test_every_control_has_a_name_and_is_reached_by_tab(
    open_page: Callable[..., Any], served: Any, shown: Any
) -> None:
    page = open_page("create")
    for place in ("create", "image", "editor", "library", "queue"):
        open_place(page, served, place, shown)
        page.locator("body").evaluate("body => { body.tabIndex = -1; body.focus(); }")
        missed = page.evaluate(
            """() => [...document.querySelectorAll("main button, main a, main input, main select, main textarea, main summary")]
              .filter((one) => one.checkVisibility() && !one.disabled && one.tabIndex < 0 && one.getAttribute("role") !== "tab"
                && one.type !== "file").map((one) => one.outerHTML.slice(0, 150))"""
        )
        assert missed == [], place


def test_touch_targets_are_large_enough(open_page: Callable[..., Any], served: Any, shown: Any) -> None:
    page = open_page("create", **PHONE)
    for place in ("create", "image", "library", "queue"):
        open_place(page, served, place, shown)
        small = page.evaluate(
            """() => [...document.querySelectorAll("button, nav a, a.button, select, .pick")].filter((one) => {
                const { width, height } = one.getBoundingClientRect();
                return one.checkVisibility() && width > 0 && Math.min(width, height) < 32;
              }).map((one) => one.outerHTML.slice(0, 150))"""
        )
        assert small == [], place
    navigation = page.locator("nav").bounding_box()
    assert navigation["y"] + navigation["height"] == pytest.approx(844, abs=1), "the places are at the thumb"


def test_motion_is_reduced_where_the_system_says_so(open_page: Callable[..., Any]) -> None:
    duration = "getComputedStyle(document.querySelector('.button')).transitionDuration"
    assert float(open_page("create").evaluate(duration).split("s")[0].split(",")[0]) > 0
    assert open_page("create", reduced_motion="reduce").evaluate(duration).startswith("0s")


def test_what_happens_is_announced(open_page: Callable[..., Any], served: Any) -> None:
    page = open_page("create")
    page.evaluate(
        """() => { window.said = []; new MutationObserver(() => said.push(document.querySelector("[aria-live]").textContent))
          .observe(document.querySelector("[aria-live]"), { childList: true, characterData: true, subtree: true }); }"""
    )
    page.get_by_label("Describe a picture").fill("two green cars")
    page.keyboard.press("Enter")
    served.eventually(
        lambda: any(text.startswith("Done: two green cars") for text in page.evaluate("said")), 30
    )
    assert any(text.startswith("Drawing: two green cars") for text in page.evaluate("said"))
