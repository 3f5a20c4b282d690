"""Translation: with every text in a pseudo-locale, no other words are on the page, and it still fits."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

PHONE: Any = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
SHOWN = """() => {
    const found = [];
    const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walk.nextNode()) {
        const parent = walk.currentNode.parentElement;
        if (parent.closest('script, style, textarea, kbd, pre')) continue;
        if (walk.currentNode.nodeValue.trim()) found.push(parent.closest('button, a, p, label, li, dd, td, h1, h2') && walk.currentNode.nodeValue.trim());
    }
    for (const one of document.querySelectorAll('[aria-label], [title], [placeholder], img[alt]'))
        for (const name of ['aria-label', 'title', 'placeholder', 'alt'])
            if (one.getAttribute(name)?.trim()) found.push(one.getAttribute(name).trim());
    return found.filter(Boolean);
}"""


@pytest.fixture(scope="session")
def script(node_modules: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The page's script in the pseudo-locale."""
    node = shutil.which("node")
    assert node is not None
    file = tmp_path_factory.mktemp("pseudo") / "page.js"
    subprocess.run([node, "pseudo.mjs", str(file)], cwd=node_modules, check=True, capture_output=True)
    return file.read_bytes()


def strings(value: Any) -> set[str]:
    """All strings in JSON, and its keys."""
    if isinstance(value, dict):
        return set(value).union(*map(strings, value.values()))
    if isinstance(value, list):
        return set().union(*map(strings, value))
    return {value} if isinstance(value, str) else set()


@pytest.mark.parametrize("device", ["desktop", "phone"])
def test_all_words_come_from_one_file(
    open_page: Callable[..., Any], served: Any, script: bytes, device: str
) -> None:
    picture = served.draw("a red apple", n=1)["pictures"][0]
    served.draw(kind="vary", prompt=None, n=1, sources={"picture": picture["id"]})
    page = open_page("create", **(PHONE if device == "phone" else {}))
    page.route(
        re.compile(r"/assets/page-\w+\.js"),
        lambda route: route.fulfill(body=script, content_type="text/javascript"),
    )
    page.reload()
    given = strings([served.call(path) for path in ("config", "system", "jobs?limit=100", "pictures?limit=100", "collections", "canvases")])  # fmt: skip
    # Names of settings and values of the server's, and the page's own name, are no words of a language.
    known = {word.lower() for text in given for word in re.findall(r"[A-Za-z]{3,}", text)} | {"unclip", "json", "python", "curl", "total", "free"}  # fmt: skip
    for place in ("create", f"image/{picture['id']}", "library", "editor", "queue"):
        page.goto(f"{served.url}#/{place}")
        page.locator("main h1").first.wait_for()
        if place == "create":
            page.get_by_role("button", name=re.compile("^⟦Øptíöñs")).click()
        expect(page.locator("[aria-busy=true]")).to_have_count(0)
        page.wait_for_timeout(300)
        foreign = [
            text
            for text in page.evaluate(SHOWN)
            if "⟦" not in text
            and any(word.lower() not in known for word in re.findall(r"[A-Za-z]{3,}", text))
            # Dates are the browser's, in the page's language.
            and not re.search(r"\b20\d\d\b|^[A-Z][a-z]+ \d", text)
        ]
        assert not foreign, (place, json.dumps(foreign))
        wide = page.evaluate("document.scrollingElement.scrollWidth - innerWidth")
        assert wide <= 0, f"{place} is {wide} pixels wider than the screen"
