"""Checks of the built pages: every internal link resolves, and nothing is loaded from elsewhere.

Each problem is a warning, and ``make docs`` treats warnings as errors.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sphinx.application import Sphinx
from sphinx.util import logging

logger = logging.getLogger(__name__)

# What a browser loads by itself. The href of <a> is followed by a person.
LOADED = {
    "audio": ("src",),
    "embed": ("src",),
    "iframe": ("src",),
    "img": ("src", "srcset"),
    "link": ("href",),
    "object": ("data",),
    "script": ("src",),
    "source": ("src", "srcset"),
    "video": ("src", "poster"),
}
ELSEWHERE = re.compile(r"(https?:)?//")
LOADED_BY_CSS = re.compile(r"""(?:url\(|@import)\s*["']?((?:https?:)?//[^"')\s]+)""")


@dataclass
class Page:
    """The links, anchors and loaded resources of one HTML file."""

    links: set[str] = field(default_factory=set)
    anchors: set[str] = field(default_factory=set)
    resources: set[str] = field(default_factory=set)


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.page = Page()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.page.anchors.update(values[name] for name in ("id", "name") if name in values)
        if tag == "a" and values.get("href"):
            self.page.links.add(values["href"])
        if tag == "link" and values.get("rel") == "canonical":
            return
        self.page.resources.update(values[name] for name in LOADED.get(tag, ()) if name in values)
        self.page.resources.update(LOADED_BY_CSS.findall(values.get("style", "")))

    def handle_data(self, data: str) -> None:
        if self.lasttag == "style":
            self.page.resources.update(LOADED_BY_CSS.findall(data))


def read_page(path: Path) -> Page:
    """Parse one HTML file."""
    parser = _Parser()
    parser.feed(path.read_text(encoding="utf-8"))
    return parser.page


def problems(directory: Path) -> list[str]:
    """Return a line for each broken internal link and each external resource below a directory."""
    paths = [path for path in sorted(directory.rglob("*.html")) if "_static" not in path.parts]
    pages = {path.resolve(): read_page(path) for path in paths}
    found = []
    for path, page in pages.items():
        name = path.relative_to(directory.resolve())
        for resource in sorted(page.resources):
            if ELSEWHERE.match(resource):
                found.append(f"{name} loads {resource}")
            elif not resource.startswith(("data:", "#")):
                target = path.parent / unquote(urlsplit(resource).path)
                if not target.exists():
                    found.append(f"{name} loads {resource}, which does not exist")
        for link in sorted(page.links):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.exists():
                found.append(f"{name} links to {link}, which does not exist")
            elif (
                target in pages
                and parts.fragment
                and unquote(parts.fragment) not in pages[target].anchors
            ):
                found.append(f"{name} links to {link}, which has no such anchor")
    for path in sorted(directory.rglob("*.css")):
        text = path.read_text(encoding="utf-8")
        found += [f"{path.name} loads {each}" for each in LOADED_BY_CSS.findall(text)]
    return found


def _check(app: Sphinx, error: Exception | None) -> None:
    if error is None and app.builder.format == "html":
        for line in problems(Path(app.outdir)):
            logger.warning(line)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the check after the build."""
    # After myst-nb, which copies its style sheet in the same event.
    app.connect("build-finished", _check, priority=900)
    return {"parallel_read_safe": True}
