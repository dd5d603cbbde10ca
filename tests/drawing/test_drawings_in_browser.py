"""Hostile names in a real browser: nothing runs, nothing is asked for, nothing leaves its place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sample_graphs

import dbos_notebook as dn
from dbos_notebook.drawing.timeline import timeline

if TYPE_CHECKING:
    from browser import Opened
    from playwright.sync_api import Browser, Page

# No policy forbids anything here: the pictures are harmless by themselves.
PAGE = "<!doctype html><meta charset=utf-8><p id=before>before</p>{}<p id=after>after</p>"
# How far text reaches beyond the shape that it stands on, and into what is beside it.
STICKING_OUT = """() => [...document.querySelectorAll('[data-node]')].flatMap((node) => {
    const shape = [...node.querySelectorAll(':scope > path')].pop().getBoundingClientRect();
    return [...node.querySelectorAll(':scope > text')].map((text) => {
        const box = text.getBoundingClientRect();
        return [text.textContent, Math.max(box.right - shape.right, shape.left - box.left)];
    });
}).filter(([text, far]) => far > 1)"""
OUTSIDE = """() => [...document.querySelectorAll('svg')].flatMap((svg) => {
    const whole = svg.getBoundingClientRect();
    return [...svg.querySelectorAll('text')].filter((text) => {
        const box = text.getBoundingClientRect();
        return box.right > whole.right || box.left < whole.left || box.bottom > whole.bottom;
    }).map((text) => text.textContent);
})"""
OVERLAPPING = """() => [...document.querySelectorAll('[data-node]')].filter((node) => {
    const label = node.querySelector(':scope > text').getBoundingClientRect();
    return [...node.querySelectorAll('g rect, g path')].some((bar) => {
        const box = bar.getBoundingClientRect();
        return box.left > label.left && box.left < label.right - 1;
    });
}).map((node) => node.textContent)"""

COVERED = """() => {
    const texts = [...document.querySelectorAll('svg text')].filter((text) => text.textContent);
    const boxes = texts.map((text) => text.getBoundingClientRect());
    const over = (one, two) => Math.min(one.right, two.right) - Math.max(one.left, two.left);
    const beside = (one, two) => Math.min(one.bottom, two.bottom) - Math.max(one.top, two.top);
    return texts.flatMap((text, n) => boxes.slice(0, n)
        .filter((box) => over(box, boxes[n]) > 1 && beside(box, boxes[n]) > 4)
        .map(() => text.textContent));
}"""


class Watched:
    """A page, and whatever it did that it should not."""

    def __init__(self, page: Page, path: Path) -> None:
        self.page = page
        self._path = path
        self.done: list[str] = []
        page.on("dialog", lambda dialog: (self.done.append("dialog"), dialog.dismiss()))
        page.on("request", lambda request: self.done.append(request.url))
        page.on("console", lambda message: self.done.append(message.text))
        page.on("pageerror", lambda error: self.done.append(str(error)))

    def show(self, content: str) -> None:
        """Open a page of this content."""
        self._path.write_text(content, encoding="utf-8")
        self.page.goto(self._path.as_uri())
        self.done.remove(self._path.as_uri())
        # What a handler or a timer would have done.
        self.page.wait_for_timeout(150)


@pytest.fixture
def watched(chromium: Browser, tmp_path: Path) -> Iterator[Watched]:
    """A fresh page of the browser."""
    context = chromium.new_context(viewport={"width": 1200, "height": 900})
    yield Watched(context.new_page(), tmp_path / "page.html")
    context.close()


def hostile_graph() -> dn.Picture:
    return dn.draw(sample_graphs.hostile(), fold=None)


def hostile_timeline() -> dn.Picture:
    return timeline(sample_graphs.hostile(), fold=None)


@pytest.mark.parametrize("make", [hostile_graph, hostile_timeline])
def test_hostile_names_run_no_script(watched: Watched, make: Callable[[], dn.Picture]) -> None:
    svg = make().svg
    watched.show(PAGE.format(svg))
    page = watched.page
    assert page.evaluate("window.__pwned") is None
    assert watched.done == []
    assert page.locator("script, img, a, iframe, foreignObject, svg svg").count() == 0
    # What follows the picture is outside of it: no name closed an element.
    assert page.locator("body > #before, body > #after").count() == 2
    assert page.locator("body > svg").count() == 1
    assert page.locator("body > *").count() == 3
    assert page.locator("svg text", has_text="<script>window.__pwned").count() > 0


@pytest.mark.parametrize("make", [hostile_graph, hostile_timeline])
def test_hostile_names_run_no_script_in_a_saved_page(
    watched: Watched, make: Callable[[], dn.Picture], tmp_path: Path
) -> None:
    saved = make().save(tmp_path / "saved.html")
    watched.show(saved.read_text(encoding="utf-8"))
    assert watched.page.evaluate("window.__pwned") is None
    assert watched.done == []
    assert watched.page.locator("body > svg").is_visible()


@pytest.mark.parametrize("direction", ["LR", "TB"])
def test_text_stays_inside_its_node(watched: Watched, direction: Any) -> None:
    watched.show(PAGE.format(dn.draw(sample_graphs.hostile(), fold=None, direction=direction).svg))
    assert watched.page.evaluate(STICKING_OUT) == []
    assert watched.page.evaluate(OUTSIDE) == []


@pytest.mark.parametrize(
    "make", [sample_graphs.hostile, sample_graphs.failing, sample_graphs.concurrent]
)
def test_labels_do_not_overlap_bars(watched: Watched, make: Callable[[], Any]) -> None:
    watched.show(PAGE.format(timeline(make(), fold=None).svg))
    assert watched.page.evaluate(OVERLAPPING) == []
    assert watched.page.evaluate(OUTSIDE) == []


def backwards() -> Any:
    """Steps of which there is more to say than a narrow timeline has room for."""
    sample = sample_graphs.Sample("w")
    sample.workflow("w", "order", 0, 100)
    for number, (begin, end) in enumerate([(0, 100), (90, 80), (99, 98), (50, 40)]):
        error = {"status": "ERROR", "error_type": "SomethingVeryLong"} if number % 2 else {}
        sample.step("w", number, "a_step_with_a_long_name", begin, end, **error)
    return sample.graph


@pytest.mark.parametrize("width", [420, 560, 940, 1600])
@pytest.mark.parametrize(
    "make",
    [
        backwards,
        sample_graphs.hostile,
        sample_graphs.failing,
        lambda: sample_graphs.many(300, failed=9),
    ],
)
def test_labels_do_not_overlap_each_other(
    watched: Watched, make: Callable[[], Any], width: int
) -> None:
    watched.page.set_viewport_size({"width": 1700, "height": 900})
    watched.show(PAGE.format(timeline(make(), width=width).svg))
    assert watched.page.evaluate(COVERED) == []
    assert watched.page.evaluate(OUTSIDE) == []


def test_the_theme_follows_the_preferred_colour_scheme(watched: Watched) -> None:
    svg = dn.draw(sample_graphs.failing()).svg + timeline(sample_graphs.failing()).svg
    ground = "() => getComputedStyle(document.querySelector('svg > rect')).fill"
    watched.page.emulate_media(color_scheme="light")
    watched.show(PAGE.format(svg))
    assert watched.page.evaluate(ground) == "rgb(255, 255, 255)"
    watched.page.emulate_media(color_scheme="dark")
    assert watched.page.evaluate(ground) == "rgb(13, 17, 23)"


def test_two_drawings_in_one_page_do_not_interfere(watched: Watched) -> None:
    light, dark = (dn.draw(sample_graphs.failing(), theme=theme) for theme in ("light", "dark"))  # type: ignore[arg-type]
    times = timeline(sample_graphs.failing())
    watched.show(PAGE.format(light.svg + dark.svg + times.svg))
    found = watched.page.evaluate("[...document.querySelectorAll('[id]')].map((e) => e.id)")
    assert len(found) == len(set(found))
    fills = watched.page.evaluate(
        "[...document.querySelectorAll('svg > rect:first-of-type')]"
        ".map((rect) => rect.getAttribute('fill'))"
    )
    assert fills[:2] == ["#ffffff", "#0d1117"]


def test_a_screen_reader_gets_the_title(watched: Watched) -> None:
    watched.show(PAGE.format(dn.draw(sample_graphs.failing()).svg))
    picture = watched.page.get_by_role("img")
    assert picture.count() == 1
    assert "Execution graph of order order-17" in picture.aria_snapshot()


def test_jupyterlab_shows_graph_and_timeline(
    notebook: Callable[..., Opened], old_sqlite: Path
) -> None:
    opened = notebook(
        f"import dbos_notebook as dn\ndb = dn.connect({str(old_sqlite)!r})",
        "dn.draw(db.graph('checkout-5-bad'))",
        "db.timeline('checkout-5-bad')",
    )
    shown = opened.page.locator(".jp-RenderedSVG img, .jp-RenderedSVG svg")
    shown.nth(1).wait_for()
    for number in range(2):
        box = shown.nth(number).bounding_box()
        assert box is not None
        assert box["width"] > 300
        assert box["height"] > 100
    assert opened.page.evaluate("window.__pwned") is None
    assert opened.errors == []
    assert opened.beyond_the_server() == []
    saved = opened.save()
    for cell in saved["cells"][1:]:
        data = cell["outputs"][0]["data"]
        assert set(data) == {"image/svg+xml", "image/png", "text/plain"}
        assert "<script>alert" not in data["image/svg+xml"]
