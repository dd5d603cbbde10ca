"""The views in Notebook 7 and marimo, and the fallback after a kernel has stopped."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from browser import HOSTS, READY, START_SECONDS, Opened, beyond, listen
from playwright.sync_api import Browser, Page, expect
from servers import require

import dbos_notebook as dn

CONNECT = "import dbos_notebook as dn\ndb = dn.connect({!r})"
# Plugins of Notebook 7.6's own ask for settings before they are read, and, on a slow machine, for a
# command of another one before that is there; the first says so of a notebook without us too, and
# no view of ours calls a command of its host.
HOST_ERRORS = (
    "Cannot read properties of undefined (reading 'schema')",
    "Command 'filebrowser:open-path' not registered.",
)
MARIMO = """\
# /// script
# [tool.marimo.display]
# theme = "system"
# ///
import marimo

app = marimo.App(width="medium")


@app.cell
def _():
    import marimo as mo
    import dbos_notebook as dn

    db = dn.connect({database!r})
    return db, mo


@app.cell
def _(db):
    db.explore(page_size=25)
    return


@app.cell
def _(db):
    db.inspect({failed!r})
    return


@app.cell
def _(db):
    db.board(window="1h")
    return


@app.cell
def _(db, mo):
    chosen = mo.ui.anywidget(db.explore(status="ERROR"))
    chosen
    return (chosen,)


@app.cell
def _(chosen, mo):
    mo.md("ticked: " + ", ".join(chosen.value["selected"]))
    return


if __name__ == "__main__":
    app.run()
"""


@dataclass
class HostPage:
    """The list, one run and the board on one page of a host."""

    page: Page
    errors: list[str]
    beyond_the_server: Callable[[], list[str]]
    set_dark: Callable[[bool], None]


@pytest.fixture(scope="module")
def database(shop_sqlite: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the shop's database, in which the tests fork workflows."""
    return Path(shutil.copyfile(shop_sqlite, tmp_path_factory.mktemp("hosts") / "shop.sqlite"))


@pytest.fixture(scope="module")
def client(database: Path) -> Iterator[dn.Client]:
    with dn.connect(database) as found:
        yield found


@pytest.fixture(scope="module")
def failed(client: dn.Client) -> str:
    """The workflow of the demo in which one step failed."""
    found: str = client.workflows(status="ERROR", error="CouponError")["workflow_id"].iloc[0]
    return found


@pytest.fixture(scope="module")
def in_notebook(module_notebook: Callable[..., Opened], database: Path, failed: str) -> HostPage:
    """The views in Notebook 7."""
    if importlib.util.find_spec("notebook") is None:
        require("Notebook 7 (pip install notebook)")
    opened = module_notebook(
        CONNECT.format(str(database)),
        "db.explore(page_size=25)",
        f"db.inspect({failed!r})",
        "db.board(window='1h')",
        host="notebook",
    )
    return HostPage(
        opened.page,
        opened.errors,
        opened.beyond_the_server,
        lambda dark: opened.set_dark(dark=dark),
    )


@pytest.fixture(scope="module")
def in_marimo(
    chromium: Browser, tmp_path_factory: pytest.TempPathFactory, database: Path, failed: str
) -> Iterator[HostPage]:
    """The views in marimo, each as the last expression of a cell."""
    if importlib.util.find_spec("marimo") is None:
        require("marimo (pip install marimo)")
    home = tmp_path_factory.mktemp("marimo")
    app = home / "app.py"
    app.write_text(MARIMO.format(database=str(database), failed=failed))
    with running_marimo(app) as server:
        page = chromium.new_page(viewport={"width": 1100, "height": 900})
        errors: list[str] = []
        requests: list[str] = []
        listen(page, errors, requests)
        page.goto(server)
        yield HostPage(
            page,
            errors,
            lambda: beyond(server, requests),
            lambda dark: page.emulate_media(color_scheme="dark" if dark else "light"),
        )
        page.close()


@contextmanager
def running_marimo(app: Path) -> Iterator[str]:
    """Serve a marimo application; yield its address."""
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = app.with_suffix(".log")
    command = [sys.executable, "-m", "marimo", "--quiet", "run", str(app), "--headless"]
    command += ["--no-token", "--no-sandbox", "--host=127.0.0.1", f"--port={port}"]
    # Without the user's settings.
    environment = os.environ | {"XDG_CONFIG_HOME": str(app.parent), "HOME": str(app.parent)}
    with log.open("wb") as written:
        process = subprocess.Popen(
            command, cwd=app.parent, env=environment, stdout=written, stderr=subprocess.STDOUT
        )
    server = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                urllib.request.urlopen(f"{server}/health", timeout=5).close()
                break
            except (urllib.error.URLError, ConnectionError):
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.1)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture(params=["notebook", "marimo"])
def host_page(request: pytest.FixtureRequest) -> Iterator[HostPage]:
    """The views in one host, then the other; fails after errors in the console."""
    found: HostPage = request.getfixturevalue(f"in_{request.param}")
    yield found
    ours = [
        error for error in found.errors if request.param == "marimo" or error not in HOST_ERRORS
    ]
    assert ours == []
    assert found.beyond_the_server() == []


def test_the_list_is_searched_and_a_row_opens(
    host_page: HostPage, client: dn.Client, failed: str
) -> None:
    view = host_page.page.locator(
        ".dn-view", has=host_page.page.get_by_label("Previous page")
    ).first
    rows = view.locator(".dn-row")
    expect(rows).to_have_count(25)
    search = view.get_by_label("Search", exact=True)
    search.press_sequentially("coup", delay=20)
    expect(rows).to_have_count(len(client.workflows(search="coup")))
    search.fill(failed)
    row = view.locator(f".dn-row[data-id='{failed}']")
    row.locator(".dn-name").click()
    details = view.locator(".dn-details")
    expect(details).to_contain_text("CouponError")
    expect(details).to_contain_text("Order(")
    expect(details.locator(".dn-steps tbody tr")).to_have_count(len(client.steps(failed)))
    row.locator(".dn-name").click()
    expect(details).to_have_count(0)
    search.fill("")
    expect(rows).to_have_count(25)


def test_a_graph_is_drawn_and_a_step_shows_its_details(
    host_page: HostPage, client: dn.Client, failed: str
) -> None:
    steps = client.steps(failed, load_output=True)
    step = steps[steps["status"] == "ERROR"].iloc[0]
    view = host_page.page.locator(".dn-inspect")
    view.locator(f"[data-node][aria-label^='{step['function_name']}']").click()
    side_panel = view.locator(".dn-side-panel")
    expect(side_panel.locator("h3")).to_have_text(step["function_name"])
    expect(side_panel.locator(".dn-failure pre")).to_contain_text(step["error_message"])
    view.get_by_role("tab", name="Timeline").click()
    expect(view.locator("svg[aria-label^=Timeline]")).to_be_visible()
    view.get_by_role("tab", name="Graph").click()
    host_page.page.keyboard.press("Escape")
    expect(side_panel).to_be_hidden()


def test_the_board_counts(host_page: HostPage, client: dn.Client) -> None:
    board = host_page.page.locator(".dn-board")
    counts = client.counts("status").set_index("status")["count"]
    for status in ("ENQUEUED", "ERROR"):
        tile = board.locator(".dn-tile", has_text=status).locator("b")
        expect(tile).to_have_text(str(counts[status]))
    expect(board.locator("section[aria-label=Failures]")).to_contain_text("CouponError")


def test_dark_and_light_follow_the_host(host_page: HostPage) -> None:
    views = host_page.page.locator(".dn-view")
    expect(views.nth(2)).to_be_attached()
    for dark in (True, False):
        host_page.set_dark(dark)
        for view in views.all():
            expect(view).to_have_attribute("data-theme", "dark" if dark else "light")
        # Cards have the background of the host, not of the browser.
        grounds = host_page.page.locator(
            ".dn-inspect .dn-svg-view .card, .dn-inspect .dn-svg-view .ground"
        )
        lightness = grounds.first.evaluate(LIGHTNESS)
        assert lightness < 0.3 if dark else lightness > 0.9


CHANGED_BY_OTHERS = """() => {
    const names = ["color", "background-color", "opacity", "display", "position", "white-space",
        "font-size", "font-weight", "font-family", "line-height", "text-align", "text-overflow",
        "text-decoration-line", "overflow-x", "overflow-y", "max-width", "min-width", "padding-top",
        "padding-left", "padding-bottom", "padding-right", "border-top-width", "border-top-color",
        "border-top-left-radius", "flex-grow", "flex-shrink", "flex-basis", "flex-wrap",
        "column-gap", "row-gap", "align-items", "cursor", "margin-top", "vertical-align"];
    const looks = (nodes) => nodes.map((node) => {
        const style = getComputedStyle(node);
        return names.map((name) => style.getPropertyValue(name));
    });
    const sheets = [...document.styleSheets].filter(
        (sheet) => sheet.ownerNode.textContent.includes(".dn-view {"));
    const changed = new Set();
    const views = [[".dn-board", ".dn-tiles"], [".dn-inspect", ".dn-step-table"],
        [":has(.dn-list)", ".dn-panel {"]];
    for (const [view, word] of views) {
        const nodes = [...document.querySelectorAll(`.dn-view${view} *`)];
        const together = looks(nodes);
        for (const sheet of sheets) sheet.disabled = !sheet.ownerNode.textContent.includes(word);
        looks(nodes).forEach((alone, at) => alone.forEach((value, n) => {
            if (together[at][n] === value) return;
            changed.add(`${view} ${nodes[at].tagName} ${nodes[at].className}: ${names[n]}`);
        }));
        for (const sheet of sheets) sheet.disabled = false;
    }
    return [sheets.length, [...changed]];
}"""


def test_views_on_one_page_do_not_change_each_others_style(in_notebook: HostPage) -> None:
    page = in_notebook.page
    page.locator(".dn-row .dn-name").first.click()
    page.wait_for_selector(".dn-details .dn-steps")
    page.get_by_role("button", name="1 failure").click()
    page.wait_for_selector(".dn-side-panel h3")
    assert page.evaluate(CHANGED_BY_OTHERS) == [3, []]


LIGHTNESS = """(node) => {
    const paint = new OffscreenCanvas(1, 1).getContext("2d");
    paint.fillStyle = getComputedStyle(node).fill;
    paint.fillRect(0, 0, 1, 1);
    return paint.getImageData(0, 0, 1, 1).data[0] / 255;
}"""


def test_marimo_cells_follow_the_selection(in_marimo: HostPage, failed: str) -> None:
    page = in_marimo.page
    # The second list; the first shows all workflows.
    page.locator(".dn-view", has=page.get_by_label("Previous page")).nth(1).get_by_label(
        f"Select {failed}", exact=True
    ).check()
    expect(page.get_by_text(f"ticked: {failed}")).to_be_visible()
    assert in_marimo.errors == []


def test_a_step_is_forked_and_the_fork_cancelled(
    host_page: HostPage, client: dn.Client, failed: str
) -> None:
    before = client.workflows(forked_from=failed)["workflow_id"].tolist()
    step = client.steps(failed).query("status == 'ERROR'").iloc[0]
    view = host_page.page.locator(".dn-inspect")
    view.locator(f"[data-node][aria-label^='{step['function_name']}']").click()
    view.get_by_role("button", name="Fork from here").click()
    view.get_by_role("button", name="Fork 1 workflow").click()
    # The fork opens in place.
    expect(view.locator("[aria-label='Receipt: fork']")).to_contain_text("done")
    expect(view.locator(".dn-run-id")).not_to_have_text(failed)
    forks = client.workflows(forked_from=failed).set_index("workflow_id").drop(index=before)
    assert forks["status"].tolist() == ["ENQUEUED"]
    assert view.locator(".dn-run-id").inner_text() == forks.index[0]
    assert len(client.steps(forks.index[0])) == step["function_id"] - 1
    view.get_by_role("button", name="Cancel", exact=True).click()
    view.get_by_role("button", name="Cancel 1 workflow").click()
    expect(view.locator("[aria-label='Receipt: cancel']")).to_contain_text("done")
    expect(view.locator("header.dn-run")).to_contain_text("CANCELLED")
    assert client.workflow(forks.index[0]).status == "CANCELLED"
    view.get_by_role("button", name="‹ Back").click()
    expect(view.locator(".dn-run-id")).to_have_text(failed)


@pytest.mark.parametrize("host", ["lab", "notebook"])
def test_the_end_of_a_kernel_is_shown_and_the_fallback_replaces_the_view(
    notebook: Callable[..., Opened], shop_sqlite: Path, failed: str, host: str
) -> None:
    opened = notebook(
        CONNECT.format(str(shop_sqlite)),
        "db.explore(page_size=25, live=True)",
        f"db.inspect({failed!r})",
        "db.board()",
        f"db.controls({failed!r})",
        host=host,
    )
    page = opened.page
    rows = page.locator(".dn-row")
    nodes = page.locator(".dn-inspect [data-node]")
    banners = page.locator(".dn-banner:visible")
    views = page.locator(".dn-view")
    fallbacks = page.locator(".dn-static")

    def expect_live() -> None:
        expect(rows).to_have_count(25)
        expect(nodes.first).to_be_visible()
        expect(views).to_have_count(4)
        expect(fallbacks).to_have_count(4)
        for fallback in fallbacks.all():
            expect(fallback).to_be_hidden()

    def expect_fallbacks() -> None:
        expect(fallbacks.filter(visible=True)).to_have_count(4)
        expect(views).to_have_count(0)
        expect(fallbacks.nth(0)).to_contain_text("run its cell")
        expect(fallbacks.nth(1).locator("img")).to_have_js_property("complete", True)
        expect(page.get_by_text("model not found").filter(visible=True)).to_have_count(0)

    expect_live()
    drawn = nodes.count()
    opened.restart()
    expect(banners).to_have_count(4)
    for banner in banners.all():
        expect(banner).to_contain_text("The kernel of this view has stopped")
        expect(banner).not_to_contain_text("Try again")
    assert (rows.count(), nodes.count()) == (25, drawn)
    # Another question fails too, without waiting.
    banners.first.get_by_label("Close").click()
    expect(banners).to_have_count(3)
    page.locator(".dn-view .dn-button", has_text="Refresh").first.click()
    expect(banners).to_have_count(4)
    assert rows.count() == 25
    assert [error for error in opened.errors if error not in HOST_ERRORS] == []
    saved = opened.save()
    for cell, word in ((1, "dn-static"), (2, "data:image/svg+xml;base64,")):
        assert word in saved["cells"][cell]["outputs"][1]["data"]["text/html"]
    # Without a kernel, the fallback is shown.
    page.reload()
    page.wait_for_function(READY)
    expect_fallbacks()
    opened.run()
    expect_live()
    # With the kernel, the view is live again.
    opened.save()
    page.reload()
    page.wait_for_function(READY)
    expect_live()
    page.get_by_label("Next page").click()
    page.wait_for_selector("text=26–50")
    assert opened.beyond_the_server() == []
    # A file of somebody else is not trusted: JupyterLab shows no view, style or script of it.
    untrusted = opened.path.with_name(f"theirs-{host}.ipynb")
    untrusted.write_text(opened.path.read_text().replace("page_size=25", "page_size=50"))
    page.goto(f"{opened.jupyter.url}/{HOSTS[host]}/{untrusted.name}?token={opened.jupyter.token}")
    page.wait_for_function(READY)
    expect_fallbacks()
