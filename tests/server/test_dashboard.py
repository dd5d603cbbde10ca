"""``dbos-notebook dashboard``: the views in Voilà, behind a token, offline."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from dbos_notebook.server.kernels import DashboardKernels

if TYPE_CHECKING:
    from playwright.sync_api import Browser


def is_listening(port: int) -> bool:
    with closing(socket.socket()) as trial:
        return trial.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def serving(database: Path, log: Path, port: int) -> Iterator[str]:
    """The address with its token; checks that the server ends with its command."""
    command = [sys.executable, "-m", "dbos_notebook", "dashboard", "--no-browser", "--read-only"]
    command += ["--database", str(database), f"--port={port}"]
    with log.open("w") as log_file:
        process = subprocess.Popen(
            command, stdout=log_file, stderr=subprocess.STDOUT, env={**os.environ}
        )
    try:
        deadline = time.monotonic() + 60
        address = None
        while address is None and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.2)
            address = re.search(r"http://127\.0\.0\.1:(\d+)/\?token=\w+", log.read_text())
        assert address, log.read_text()
        found = int(address[1])
        assert found == port or not port
        yield address[0]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)
    deadline = time.monotonic() + 10
    while is_listening(found) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not is_listening(found), "the server outlived its command"


@pytest.fixture
def dashboard(shop_sqlite: Path, tmp_path: Path) -> Iterator[str]:
    """The address of a dashboard with its token."""
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with serving(shop_sqlite, tmp_path / "log", port) as address:
        yield address


def test_the_address_of_any_free_port_answers(old_sqlite: Path, tmp_path: Path) -> None:
    with serving(old_sqlite, tmp_path / "log", 0) as address:
        server = address.partition("?")[0]
        with urllib.request.urlopen(f"{server}login", timeout=20) as answer:
            assert answer.status == 200


def test_the_dashboard_keeps_its_place_in_the_url_and_needs_the_token(
    dashboard: str, chromium: Browser
) -> None:
    server = dashboard.partition("?")[0]
    with urllib.request.urlopen(server, timeout=20) as refused:
        assert refused.url.startswith(f"{server}login")
    page = chromium.new_page()
    page.set_default_timeout(120_000)
    requests: list[str] = []
    errors: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
    page.goto(dashboard)
    page.locator(".dn-row input[type=checkbox]").first.check()
    assert page.get_by_role("button", name=re.compile("^Cancel")).count() == 0
    # The token is in a cookie now: a shared address does not contain it.
    assert "token" not in page.url
    for key, part in (
        ("2", ".dn-tile"),
        ("3", ".dn-controls"),
        ("1", ".dn-row"),
        ("2", ".dn-tile"),
    ):
        page.keyboard.press(key)
        page.locator(f"{part} >> visible=true").first.wait_for()
    page.get_by_text("read-only", exact=True).wait_for()
    page.locator(".dn-tile", has_text="ERROR").click()
    page.locator(".dn-row[data-status=SUCCESS]").first.wait_for(state="detached")
    page.wait_for_url(re.compile(r"#/list\?status=ERROR"))
    row = page.locator(".dn-row").first
    workflow_id = row.get_attribute("data-id") or ""
    row.get_by_role("button", name="Open").click()
    page.wait_for_url(re.compile(rf"#/run/{workflow_id}"))
    page.get_by_role("tab", name="Timeline").click()
    page.wait_for_url(re.compile(r"tab=timeline"))
    assert errors == []
    # Another person opens the link, and the browser's own Back works.
    page.reload()
    page.locator(f".dn-run-id[title='{workflow_id}']").wait_for()
    assert page.get_by_role("tab", name="Timeline").get_attribute("aria-selected") == "true"
    page.go_back()
    page.locator(".dn-status[aria-pressed=true]", has_text="ERROR").wait_for()
    # A period that does not exist is replaced by the one that is shown.
    page.evaluate("() => { location.hash = '#/board?window=1e9'; }")
    page.wait_for_function("location.hash === '#/board?window=24h'")
    # What a link names may be gone, or never have been, or be no place at all.
    for fragment in (
        "#/run/gone",
        "#/run/%E0%A4%A",
        "#/<img src=x onerror=alert(1)>",
        "#/list?sort=x",
    ):
        page.evaluate("(fragment) => { location.hash = fragment; }", fragment)
    page.locator(".dn-banner", has_text="cannot be sorted by 'x'").wait_for()
    assert [url for url in requests if not url.startswith((server, "data:", "blob:"))] == []
    page.close()


def test_a_page_whose_kernel_ended_says_so_and_gets_another(
    dashboard: str, chromium: Browser
) -> None:
    page = chromium.new_page()
    page.set_default_timeout(120_000)
    # Until the page is loaded again, no kernel connects to it.
    page.add_init_script("""
        if (!sessionStorage.getItem("dn-reloads")) {
          WebSocket = class extends EventTarget { close() {} send() {} };
          WebSocket.CONNECTING = 0; WebSocket.OPEN = 1; WebSocket.CLOSING = 2; WebSocket.CLOSED = 3;
          const ask = fetch;
          fetch = (url, ...rest) => /api.kernels/.test(String(url.url ?? url))
            ? Promise.resolve(new Response("{}", { status: 404 })) : ask(url, ...rest);
        }
    """)
    page.goto(dashboard)
    page.get_by_role("alert").filter(has_text="It is loaded again").wait_for()
    page.locator(".dn-row").first.wait_for()
    assert page.get_by_role("alert").filter(has_text="loaded again").count() == 0
    page.close()


def test_the_idle_time_of_a_kernel_begins_when_a_page_was_given_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A kernel waits for a page for longer than one without a page is kept."""
    kernels = DashboardKernels(cull_idle_timeout=180)
    long_ago = dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)
    kernel = SimpleNamespace(
        last_activity=long_ago,
        execution_state="idle",
        kernel_name="python3",
        kernel_spec=SimpleNamespace(metadata={}),
    )
    kernels._kernels["given"] = kernel
    ended: list[str] = []
    monkeypatch.setattr(DashboardKernels, "shutdown_kernel", lambda _, key: ended.append(key))

    def check() -> None:
        # On another thread: the browser of the other tests runs an event loop on this one.
        with ThreadPoolExecutor(1) as pool:
            pool.submit(lambda: asyncio.run(kernels.cull_kernel_if_idle("given"))).result()

    check()
    assert ended == []
    kernel.last_activity = long_ago
    check()
    assert ended == ["given"]
