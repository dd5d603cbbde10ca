"""``Picture``: a drawing that is rendered on first use, in the requested format."""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dbos_notebook.errors import GraphvizNotFoundError, PictureError

if TYPE_CHECKING:
    import os

    import altair as alt
    import graphviz
    import networkx as nx

MAX_PIXELS = 24_000_000
MAX_SIDE = 12_000
"""Limits of a PNG, in pixels; larger pictures get a lower resolution."""


def picture_id(kind: str, graph: nx.DiGraph[Any], *parts: object) -> str:
    """Return an ID that differs between any two pictures on a page."""
    read = [graph.graph.get(name) for name in ("database", "read_at", "root", "root_second")]
    digest = hashlib.blake2b(
        repr([*read, *parts]).encode("utf-8", "backslashreplace"), digest_size=5
    ).hexdigest()
    return f"{kind}{digest}"


class Drawing(NamedTuple):
    """A finished drawing: the SVG, the node of each element, and an accessible title."""

    svg: str
    nodes: dict[str, Any]
    title: str = ""


class Picture:
    r"""A graph, a timeline or a chart, from :func:`draw`, ``Client.timeline`` or :func:`plot`.

    A notebook displays it as SVG, or as PNG on pages that do not support SVG; ``print`` shows an
    indented text tree, or the table of a chart. It is rendered on first use and then cached.

    Attributes
    ----------
    graph
        The drawn graph, in which groups stand for folded nodes; ``None`` if drawn from DOT.
    chart
        The ``altair.Chart`` of a chart, to change it; ``None`` for other pictures.

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
        graph: nx.DiGraph[Any] | None = None,
        chart: alt.TopLevelMixin | None = None,
    ) -> None:
        self._draw = drawing
        self._text = text
        self._dot = dot
        self.graph = graph
        self.chart = chart

    @cached_property
    def _drawing(self) -> Drawing:
        return self._draw()

    @property
    def svg(self) -> str:
        """The picture as SVG: no scripts, no links, nothing loaded, readable by screen readers."""
        return self._drawing.svg

    @property
    def nodes(self) -> dict[str, Any]:
        """The node that each SVG element shows, by the element's ``id``.

        The ``data-node`` attribute of a node is the same in every picture.
        """
        return dict(self._drawing.nodes)

    @cached_property
    def text(self) -> str:
        """The picture as text, for terminals: an indented tree, or the table of a chart."""
        return self._text()

    @cached_property
    def dot(self) -> graphviz.Digraph:
        """The graph as a ``graphviz.Digraph``, to modify and pass to ``dn.draw``.

        Raises
        ------
        PictureError
            The picture is a timeline or a chart, which Graphviz cannot draw.
        """
        if self._dot is None:
            raise PictureError(
                "A timeline or a chart has no DOT source, since Graphviz draws graphs only. Use "
                "dn.draw(db.graph(…)).dot"
            )
        return self._dot()

    @cached_property
    def png(self) -> bytes:
        """The picture as PNG, at up to twice the screen resolution."""
        from dbos_notebook.drawing.raster import convert

        return convert(self.svg, "png", self._scale)

    @cached_property
    def pdf(self) -> bytes:
        """The picture as a one-page PDF."""
        from dbos_notebook.drawing.raster import convert

        return convert(self.svg, "pdf")

    @property
    def size(self) -> tuple[int, int]:
        """The width and height in CSS pixels."""
        start = self.svg[: self.svg.index(">")]
        width, height = (start.split(f' {side}="', 1)[1].split('"', 1)[0] for side in _SIDES)
        return math.ceil(float(width)), math.ceil(float(height))

    @property
    def _scale(self) -> float:
        width, height = self.size
        return min(2.0, math.sqrt(MAX_PIXELS / (width * height)), MAX_SIDE / max(width, height))

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the picture to a file: .svg, .png, .pdf, .dot, .txt, or .html with the SVG in it.

        Parameters
        ----------
        path
            The extension selects the format. An existing file is replaced.

        Raises
        ------
        PictureError
            The extension is not one of these.

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
                f"{target.name!r} has no picture extension. Use one of {', '.join(formats)}."
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
                # Otherwise it is shown at twice the size, and screen readers have no text for it.
                sizes = dict(zip(_SIDES, self.size, strict=True))
                metadata["image/png"] = {**sizes, "alt": self._drawing.title}
        except GraphvizNotFoundError as error:
            # The text tree needs no Graphviz; the error says what to install.
            return {"text/plain": f"{error}\n\n{self.text}"}, {}
        except PictureError as error:
            if "image/svg+xml" not in bundle:
                raise
            warnings.warn(str(error), stacklevel=2)  # the PNG failed, the SVG is there
        return {kind: bundle[kind] for kind in bundle if kind in wanted}, metadata


_SIDES = ("width", "height")
