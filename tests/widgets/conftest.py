"""A view in a bare page, asked and answered by its Python half.

Without a notebook between them the tests can hold answers back, and fail them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from browser import WAIT_SECONDS
from page_model import MODEL

from dbos_notebook.widgets.base import View

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@pytest.fixture
def open_view(chromium: Browser) -> Iterator[Callable[..., Page]]:
    """Open views, each in its own page; fails after errors in the console."""
    pages: list[Page] = []
    wrong: list[str] = []

    def show(widget: View, *, width: int = 1000, body: str = "", holding: str = "") -> Page:
        page = chromium.new_page(viewport={"width": width, "height": 900})
        pages.append(page)
        page.set_default_timeout(WAIT_SECONDS * 1000)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.set_content(f"<!doctype html><style>{widget._css}</style><body>{body}</body>")
        page.expose_function("answered", lambda message: widget._recipient(message).answer(message))
        state = widget.get_state()
        code = state.pop("_esm")
        traits = {k: v for k, v in state.items() if k not in ("_css", "layout", "tabbable")}
        traits = json.loads(json.dumps(traits, default=str))
        page.evaluate("(kind) => { window.holding = kind; }", holding)
        page.evaluate(f"async ([code, traits]) => {{{MODEL}}}", [code, traits])
        return page

    yield show
    for page in pages:
        page.close()
    assert wrong == []


@pytest.fixture
def database_copy(old_sqlite: Path, tmp_path: Path) -> Path:
    return Path(shutil.copyfile(old_sqlite, tmp_path / "copy.sqlite"))
