"""A real Jupyter server and a real Chromium: start both, open a notebook, run it, look at it.

``notebook("import dbos_notebook as dn", "dn.connect(…)")`` runs the cells in JupyterLab and gives
what a person then sees; ``notebook(…, host="notebook")`` does so in Notebook 7, which the same
server serves. Where Chromium is missing the tests are skipped with the reason, or fail when
``DBOS_NOTEBOOK_REQUIRE_ALL`` is set.
"""

from __future__ import annotations

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
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from servers import require

from scripts.browser import ADVICE, find

if TYPE_CHECKING:
    import nbformat
    from playwright.sync_api import Browser, BrowserContext, Page

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
START_SECONDS = 60.0
WAIT_SECONDS = 45.0
"""For anything in the browser; far more than anything takes."""
READY = """() => {
    const context = window.jupyterapp?.shell.currentWidget?.sessionContext;
    return context?.isReady && context.session?.kernel?.status === "idle";
}"""
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
        import nbformat  # not among what the lowest versions are tested with

        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        notebook = nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell(cell) for cell in cells],
            metadata={"kernelspec": kernel},
        )
        name = f"notebook-{secrets.token_hex(4)}.ipynb"
        nbformat.write(notebook, self.root / name)
        return name

    def end_kernels(self) -> None:
        """End every kernel: each would hold its memory until the server ends."""
        for session in self.call("GET", "api/sessions"):
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

    def save(self) -> nbformat.NotebookNode:
        """Save the notebook and return what the file then holds."""
        import nbformat

        self.command("docmanager:save")
        return nbformat.read(self.path, as_version=4)

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
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        yield browser
        browser.close()


@contextmanager
def notebooks(jupyter: Jupyter, chromium: Browser) -> Iterator[Callable[..., Opened]]:
    """Give what opens a notebook of cells and runs it; what was opened is closed at the end."""
    contexts: list[BrowserContext] = []

    def open_notebook(
        *cells: str, width: int = 1100, height: int = 900, scale: float = 1, host: str = "lab"
    ) -> Opened:
        context = chromium.new_context(
            viewport={"width": width, "height": height},
            device_scale_factor=scale,
            permissions=["clipboard-read", "clipboard-write"],
        )
        contexts.append(context)
        page = context.new_page()
        name = jupyter.write(cells)
        opened = Opened(page, jupyter.root / name, jupyter)
        listen(page, opened.errors, opened.requests)
        page.goto(f"{jupyter.url}/{HOSTS[host]}/{name}?token={jupyter.token}")
        page.wait_for_selector(".jp-Notebook .jp-Cell")
        # To run cells earlier would ask which kernel to take.
        page.wait_for_function(READY)
        opened.run()
        return opened

    yield open_notebook
    for context in contexts:
        context.close()
    jupyter.end_kernels()


@pytest.fixture(scope="session")
def jupyter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jupyter]:
    """A running JupyterLab."""
    with running_jupyter(tmp_path_factory.mktemp("jupyter")) as server:
        yield server


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A running Chromium.

    A module's, because Playwright keeps an event loop running in this thread, in which other
    modules' tests could not start one of their own.
    """
    path = find()
    if path is None:
        require(ADVICE)
    with running_chromium(str(path)) as browser:
        yield browser


@pytest.fixture(scope="module")
def notebook(jupyter: Jupyter, chromium: Browser) -> Iterator[Callable[..., Opened]]:
    """Open a notebook of the given cells in JupyterLab, and run it."""
    with notebooks(jupyter, chromium) as open_notebook:
        yield open_notebook
