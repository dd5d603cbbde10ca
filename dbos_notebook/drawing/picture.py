"""A picture that has been asked for: drawn when it is first looked at, in the format wanted."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dbos_notebook.errors import GraphvizNotFoundError, PictureError

if TYPE_CHECKING:
    import os

    import graphviz
    import networkx as nx

MOST_PIXELS = 24_000_000
LONGEST_SIDE = 12_000
"""Bounds of a PNG: a picture that is larger is drawn coarser."""


class Drawing(NamedTuple):
    """What drawing gives: SVG, and which element shows which node."""

    svg: str
    nodes: dict[str, Any]
    title: str = ""


class Picture:
    r"""A graph or a timeline as a picture. Get it with :func:`draw` or ``Client.timeline``.

    In a cell it shows itself: SVG, and PNG for pages that show no SVG. Printed, it is an
    indented tree of text. It is drawn when first looked at, and then kept.

    Attributes
    ----------
    shown
        The graph as it is drawn: groups stand for what is folded. ``None``: drawn from DOT.

    Examples
    --------
    >>> picture = dbos_notebook.connect(example_database).timeline("checkout-1")
    >>> picture.svg[:4], picture.png[:4]
    ('<svg', b'\x89PNG')
    """

    def __init__(
        self,
        drawing: Callable[[], Drawing],
        text: Callable[[], str],
        dot: Callable[[], graphviz.Digraph] | None = None,
        shown: nx.DiGraph[Any] | None = None,
    ) -> None:
        self._draw = drawing
        self._text = text
        self._dot = dot
        self.shown = shown

    @cached_property
    def _drawing(self) -> Drawing:
        return self._draw()

    @property
    def svg(self) -> str:
        """The picture as SVG: no scripts, no links, nothing loaded, readable by screen readers."""
        return self._drawing.svg

    @property
    def nodes(self) -> dict[str, Any]:
        """Which node of the graph each element shows: the element's ``id`` → the node.

        Elements of one node have the same ``data-node`` in every picture.
        """
        return dict(self._drawing.nodes)

    @cached_property
    def text(self) -> str:
        """The same as an indented tree, for a terminal."""
        return self._text()

    @cached_property
    def dot(self) -> graphviz.Digraph:
        """The graph for Graphviz, to change and to draw in one's own way: ``dn.draw(dot)``.

        Raises
        ------
        PictureError
            This is a timeline, which Graphviz does not draw.
        """
        if self._dot is None:
            raise PictureError(
                "A timeline has no DOT: Graphviz draws graphs. Use dn.draw(db.graph(…)).dot"
            )
        return self._dot()

    @cached_property
    def png(self) -> bytes:
        """The picture as PNG, at twice the size of the screen's where that is not too much."""
        from dbos_notebook.drawing.raster import convert

        return convert(self.svg, "png", self._scale)

    @cached_property
    def pdf(self) -> bytes:
        """The picture as a PDF of one page."""
        from dbos_notebook.drawing.raster import convert

        return convert(self.svg, "pdf")

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels of the screen."""
        start = self.svg[: self.svg.index(">")]
        wide, high = (start.split(f' {side}="', 1)[1].split('"', 1)[0] for side in _SIDES)
        return math.ceil(float(wide)), math.ceil(float(high))

    @property
    def _scale(self) -> float:
        wide, high = self.size
        return min(2.0, math.sqrt(MOST_PIXELS / (wide * high)), LONGEST_SIDE / max(wide, high))

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the picture to a file: .svg, .png, .pdf, .dot, .txt, or .html with the SVG in it.

        Parameters
        ----------
        path
            Its ending chooses the format. A file that exists is replaced.

        Raises
        ------
        PictureError
            The ending is of no format that is known.

        Examples
        --------
        >>> import tempfile, pathlib
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> picture = dbos_notebook.connect(example_database).timeline("checkout-1")
        >>> picture.save(folder / "checkout.svg").name
        'checkout.svg'
        """
        target = Path(path).expanduser()
        formats: dict[str, Callable[[], str | bytes]] = {
            ".svg": lambda: self.svg,
            ".png": lambda: self.png,
            ".pdf": lambda: self.pdf,
            ".dot": lambda: str(self.dot.source),
            ".gv": lambda: str(self.dot.source),
            ".txt": lambda: self.text + "\n",
            ".html": self._page,
        }
        if target.suffix.lower() not in formats:
            raise PictureError(
                f"{target.name!r} does not end in a format of pictures. "
                f"Use one of {', '.join(formats)}."
            )
        content = formats[target.suffix.lower()]()
        if isinstance(content, str):
            content = content.encode()
        target.write_bytes(content)
        return target

    def _page(self) -> str:
        from dbos_notebook.drawing.svg import page

        return page(self.svg)

    def __repr__(self) -> str:
        return self.text

    def _repr_mimebundle_(
        self, include: Any = None, exclude: Any = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        wanted = {"image/svg+xml", "image/png", "text/plain"}
        wanted = (wanted & set(include) if include else wanted) - set(exclude or ())
        bundle: dict[str, Any] = {"text/plain": self.text}
        metadata: dict[str, Any] = {}
        try:
            if "image/svg+xml" in wanted:
                bundle["image/svg+xml"] = self.svg
            if "image/png" in wanted:
                bundle["image/png"] = self.png
                # Else it would be shown at twice the size, and to a screen reader as nothing.
                sizes = dict(zip(_SIDES, self.size, strict=True))
                metadata["image/png"] = {**sizes, "alt": self._drawing.title}
        except GraphvizNotFoundError as error:
            # The tree of text still tells; what is missing is said above it.
            return {"text/plain": f"{error}\n\n{self.text}"}, {}
        except PictureError as error:
            if "image/svg+xml" not in bundle:
                raise
            warnings.warn(str(error), stacklevel=2)  # of the PNG; the SVG is there
        return {kind: bundle[kind] for kind in bundle if kind in wanted}, metadata


_SIDES = ("width", "height")
