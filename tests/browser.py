"""A real Jupyter server and a real Chromium: start both, open a notebook, run it, look at it.

``notebook("import dbos_notebook as dn", "dn.connect(…)")`` runs the cells in JupyterLab and gives
what a person then sees; ``notebook(…, host="notebook")`` does so in Notebook 7, which the same
server serves. Where Chromium is missing the tests are skipped with the reason, or fail when
``DBOS_NOTEBOOK_REQUIRE_ALL`` is set.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from kernels import forked_kernels
from servers import require

from scripts.system_packages import CHROMIUM, find_test_browser

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
START_SECONDS = 180.0
"""For a server to start, which takes two seconds on an idle machine."""
WAIT_SECONDS = 45.0
"""For anything in the browser; far more than anything takes."""
READY = """() => {
    const context = window.jupyterapp?.shell.currentWidget?.sessionContext;
    return context?.isReady && context.session?.kernel?.status === "idle";
}"""
LEAVE = """() => {
    const shown = window.jupyterapp?.shell.currentWidget;
    if (!shown || "ran" in window || "__pwned" in window) return false;
    shown.dispose();
    return true;
}"""
"""Close the notebook that is shown, unless the page is no longer as it was."""
HOSTS = {"lab": "doc/tree", "notebook": "notebooks"}
"""Where the server shows a notebook, by host."""
# What JupyterLab would fetch from elsewhere on its own is turned off, so that a request beyond the
# server is ours.
_OPTIONS = (
    "--no-browser",
    "--allow-root",
    "--ServerApp.ip=127.0.0.1",
    "--ServerApp.port_retries=0",
    "--LabApp.expose_app_in_browser=True",
    "--JupyterNotebookApp.expose_app_in_browser=True",
    "--LabApp.news_url=",
    "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
)


@dataclass
class Jupyter:
    """A JupyterLab server of the tests' own, on the loopback interface, with a token."""

    url: str
    token: str
    root: Path

    def call(self, method: str, path: str) -> Any:
        """Call the server's REST interface."""
        request = urllib.request.Request(
            f"{self.url}/{path}", method=method, headers={"Authorization": f"token {self.token}"}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            body = answer.read()
        return json.loads(body) if body else None

    def write(self, cells: tuple[str, ...]) -> str:
        """Write a notebook of these cells and return its name."""
        # Without nbformat, the import of which takes two seconds.
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        empty = {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": []}
        notebook = {
            "cells": [empty | {"id": secrets.token_hex(4), "source": cell} for cell in cells],
            "metadata": {"kernelspec": kernel},
            "nbformat": 4,
            "nbformat_minor": 5,
        }
        name = f"notebook-{secrets.token_hex(4)}.ipynb"
        (self.root / name).write_text(json.dumps(notebook))
        return name

    def end_kernels(self, *names: str) -> None:
        """End the kernels of these notebooks, or all: each would hold its memory to the end."""
        for session in self.call("GET", "api/sessions"):
            if not names or session["path"] in names:
                self.call("DELETE", f"api/sessions/{session['id']}")


@dataclass
class Opened:
    """A notebook in the browser, after its cells ran."""

    page: Page
    path: Path
    jupyter: Jupyter
    errors: list[str] = field(default_factory=list)
    """What the console said was wrong."""
    requests: list[str] = field(default_factory=list)
    """Every address that the page asked for."""
    reusable: bool = False
    """Whether another notebook can be opened in the page."""

    def wait(self) -> None:
        """Wait until the notebook is shown and its kernel ready: else a run asks for a kernel."""
        self.page.wait_for_selector(".jp-Notebook .jp-Cell")
        self.page.wait_for_function(READY)

    def command(self, name: str, arguments: dict[str, Any] | None = None) -> None:
        """Run a command of JupyterLab, as its menus do, and wait until it is done."""
        # What is evaluated has no time limit of its own.
        script = """([name, args, ms]) => Promise.race([
            window.jupyterapp.commands.execute(name, args).then(() => true),
            new Promise((resolve) => setTimeout(() => resolve(false), ms)),
        ])"""
        done = self.page.evaluate(script, [name, arguments or {}, WAIT_SECONDS * 1000])
        assert done, f"{name} took over {WAIT_SECONDS:g} s"

    def run(self) -> None:
        """Run all cells and wait until the last is done."""
        self.command("notebook:run-all-cells")

    def run_cell(self, index: int, expected: str) -> str:
        """Run one cell until its output contains a text, and return the output.

        A view and a cell reach the kernel on different ways: the cell may run first.
        """
        output = self.page.locator(".jp-CodeCell").nth(index).locator(".jp-OutputArea-output")
        end = time.monotonic() + WAIT_SECONDS
        while True:
            self.page.evaluate(
                "(index) => { const { content } = window.jupyterapp.shell.currentWidget;"
                " content.activeCellIndex = index; content.deselectAll(); }",
                index,
            )
            self.command("notebook:run-cell")
            texts = output.all_inner_texts()
            if any(expected in text for text in texts):
                return "\n".join(texts)
            assert time.monotonic() < end, f"cell {index} printed {texts}, without {expected!r}"
            self.page.wait_for_timeout(200)

    def restart(self) -> None:
        """Restart the kernel without being asked whether it is meant; wait for the new one."""
        self.page.evaluate(
            "window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()"
        )
        self.page.wait_for_function(READY)

    def set_dark(self, *, dark: bool) -> None:
        """Change the theme; Notebook 7 has the same two."""
        theme = "JupyterLab Dark" if dark else "JupyterLab Light"
        self.command("apputils:change-theme", {"theme": theme})
        attribute = str(not dark).lower()
        self.page.wait_for_selector(f'body[data-jp-theme-light="{attribute}"]', state="attached")
        # JupyterLab removes its curtain twice, the second time in vain, where two changes meet.
        self.page.wait_for_selector("#jupyterlab-splash", state="detached")

    def save(self) -> dict[str, Any]:
        """Save the notebook and return what the file then holds, as the server reads it."""
        self.command("docmanager:save")
        content: dict[str, Any] = self.jupyter.call("GET", f"api/contents/{self.path.name}")[
            "content"
        ]
        return content

    def beyond_the_server(self) -> list[str]:
        """Return the addresses that are not the server's."""
        return beyond(self.jupyter.url, self.requests)


def listen(page: Page, errors: list[str], requests: list[str]) -> None:
    """Note what a page's console says is wrong, and every address that the page asks for."""
    page.set_default_timeout(WAIT_SECONDS * 1000)
    page.on("request", lambda request: requests.append(request.url))
    page.on("websocket", lambda socket: requests.append(socket.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)


def beyond(server: str, requests: list[str]) -> list[str]:
    """Return the addresses that are not a server's."""
    mine = (server, server.replace("http", "ws", 1), "data:", "blob:")
    return [address for address in requests if not address.startswith(mine)]


@contextmanager
def running_jupyter(home: Path) -> Iterator[Jupyter]:
    """Run JupyterLab, without the settings and extensions of whoever calls."""
    root = home / "notebooks"
    settings = home / "config" / "labconfig"
    for directory in (root, settings):
        directory.mkdir(parents=True)
    disabled = {"@jupyterlab/apputils-extension:announcements": True}
    # To look whether it should be built anew, it would run Node for seconds at every page.
    unbuilt = {"buildAvailable": False, "buildCheck": False}
    page_config = {"disabledExtensions": disabled, **unbuilt}
    (settings / "page_config.json").write_text(json.dumps(page_config))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = Jupyter(f"http://127.0.0.1:{port}", secrets.token_hex(16), root)
    environment = os.environ | {
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "IPYTHONDIR": str(home / "ipython"),
        # By the environment: arguments are public to every user of the machine.
        "JUPYTER_TOKEN": server.token,
    }
    log = home / "server.log"
    with forked_kernels(environment, home / "kernels.log") as environment:
        with log.open("wb") as written:
            process = subprocess.Popen(
                [sys.executable, "-m", "jupyterlab", *_OPTIONS, f"--port={port}"],
                cwd=root,
                env=environment,
                stdout=written,
                stderr=subprocess.STDOUT,
            )
        try:
            _wait(server, process, log)
            yield server
            server.end_kernels()
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(server: Jupyter, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            server.call("GET", "api/status")
        except (urllib.error.URLError, ConnectionError):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(
                    f"JupyterLab did not start:\n{log.read_text()[-3000:]}"
                ) from None
            time.sleep(0.1)
        else:
            return


@contextmanager
def running_chromium(path: str) -> Iterator[Browser]:
    """Run Chromium."""
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=WAIT_SECONDS * 1000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        yield browser
        browser.close()


class Pages:
    """Pages in which JupyterLab is loaded; each shows one notebook after another.

    To load JupyterLab costs three times as much as to open a notebook in it and to run that.
    """

    def __init__(self, jupyter: Jupyter, chromium: Browser) -> None:
        self._jupyter = jupyter
        self._chromium = chromium
        self._free: list[Opened] = []
        self._used: list[Opened] = []

    def open(
        self, *cells: str, width: int = 1100, height: int = 900, scale: float = 1, host: str = "lab"
    ) -> Opened:
        """Open a notebook of these cells in a page that is free, or a new one, and run it."""
        path = self._jupyter.root / self._jupyter.write(cells)
        if host == "lab" and scale == 1 and self._free:
            left = self._free.pop()
            opened = replace(left, path=path)
            self._used.append(opened)
            opened.page.set_viewport_size({"width": width, "height": height})
            if not opened.page.evaluate("document.body.dataset.jpThemeLight === 'true'"):
                opened.set_dark(dark=False)
            opened.command("docmanager:open", {"path": path.name, "factory": "Notebook"})
            opened.wait()
        else:
            context = self._chromium.new_context(
                viewport={"width": width, "height": height},
                device_scale_factor=scale,
                permissions=["clipboard-read", "clipboard-write"],
            )
            page = context.new_page()
            opened = Opened(page, path, self._jupyter, reusable=host == "lab" and scale == 1)
            self._used.append(opened)
            listen(page, opened.errors, opened.requests)
            address = f"{self._jupyter.url}/{HOSTS[host]}/{path.name}"
            page.goto(f"{address}?token={self._jupyter.token}")
            opened.wait()
        opened.run()
        return opened

    def release(self, opened: Opened) -> None:
        """Close a notebook and end its kernel; keep its page if nothing went wrong in it."""
        self._used.remove(opened)
        if opened.reusable and opened.errors == [] and opened.page.evaluate(LEAVE):
            opened.page.mouse.move(0, 0)
            opened.requests.clear()
            self._free.append(opened)
        else:
            opened.page.context.close()
        self._jupyter.end_kernels(opened.path.name)

    def close(self) -> None:
        """Close every page and end every kernel."""
        for opened in (*self._used, *self._free):
            opened.page.context.close()
        self._jupyter.end_kernels()


@contextmanager
def notebooks(jupyter: Jupyter, chromium: Browser) -> Iterator[Callable[..., Opened]]:
    """Give what opens a notebook of cells and runs it; what was opened is closed at the end."""
    pages = Pages(jupyter, chromium)
    yield pages.open
    pages.close()


@contextmanager
def opening(pages: Pages) -> Iterator[Callable[..., Opened]]:
    """Give what opens a notebook; at the end its page is free for another."""
    made: list[Opened] = []

    def open_notebook(*cells: str, **options: Any) -> Opened:
        made.append(pages.open(*cells, **options))
        return made[-1]

    yield open_notebook
    for opened in made:
        pages.release(opened)


@pytest.fixture(scope="session")
def jupyter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jupyter]:
    """A running JupyterLab."""
    with running_jupyter(tmp_path_factory.mktemp("jupyter")) as server:
        yield server


@pytest.fixture(scope="session")
def only_chromium() -> Iterator[tuple[Browser, asyncio.AbstractEventLoop]]:
    """A running Chromium, and the event loop that Playwright keeps running in this thread."""
    path = find_test_browser()
    if path is None:
        require(CHROMIUM)
    with running_chromium(str(path)) as browser:
        loop = asyncio.get_running_loop()
        asyncio._set_running_loop(None)
        yield browser, loop
        asyncio._set_running_loop(loop)


@pytest.fixture(scope="module")
def chromium(only_chromium: tuple[Browser, asyncio.AbstractEventLoop]) -> Iterator[Browser]:
    """A running Chromium, the same in every module.

    Between two modules that use it the thread has no running loop: other modules' tests start
    loops of their own.
    """
    browser, loop = only_chromium
    asyncio._set_running_loop(loop)
    yield browser
    asyncio._set_running_loop(None)


@pytest.fixture(scope="session")
def pages(
    jupyter: Jupyter, only_chromium: tuple[Browser, asyncio.AbstractEventLoop]
) -> Iterator[Pages]:
    """The pages in which notebooks are opened."""
    browser, loop = only_chromium
    pages = Pages(jupyter, browser)
    yield pages
    asyncio._set_running_loop(loop)
    pages.close()
    asyncio._set_running_loop(None)


@pytest.fixture
def notebook(chromium: Browser, pages: Pages) -> Iterator[Callable[..., Opened]]:
    """Open a notebook of the given cells in JupyterLab, and run it; for one test."""
    with opening(pages) as open_notebook:
        yield open_notebook


@pytest.fixture(scope="module")
def module_notebook(chromium: Browser, pages: Pages) -> Iterator[Callable[..., Opened]]:
    """Open a notebook that the tests of a module share."""
    with opening(pages) as open_notebook:
        yield open_notebook
