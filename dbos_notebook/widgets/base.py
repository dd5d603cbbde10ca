"""The base class of the views: messages, errors, and the HTML that needs no kernel."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anywidget
import traitlets
from IPython.display import publish_display_data

from dbos_notebook.errors import ControlInterrupt, NotebookError
from dbos_notebook.widgets import bundle, serialize
from dbos_notebook.widgets.messages import Handler, Question

if TYPE_CHECKING:
    from dbos_notebook.store import Store


class View(anywidget.AnyWidget):
    """A widget that shows one database.

    The browser sends messages ``{"kind": …, "request": …, …}``. Each is answered by one message
    with the same request, of the same kind or of kind ``"error"``. The kernel sends nothing else,
    so that a view that is hidden or closed costs nothing.

    Attributes
    ----------
    last_error : Exception, KeyboardInterrupt or None
        The last error that occurred while answering the browser, which showed it.
    """

    last_error: Exception | KeyboardInterrupt | None = None
    _has_fallback = True
    _esm: str
    _css: str

    _token = traitlets.Unicode().tag(sync=True)

    def __init__(self, store: Store, *, embedded: bool = False, **traits: Any) -> None:
        self._store = store
        self._embedded = embedded
        if embedded:
            # marimo announces every widget, also one that is created outside of a cell.
            self._esm = self._css = ""
        self._handlers: Mapping[str, Handler] = {}
        super().__init__(_token=secrets.token_hex(8), **traits)
        self.on_msg(self._on_message)

    def open(self) -> None:
        """Announce the view to the browser, unless it is a part of another, which speaks for it."""
        if not self._embedded:
            super().open()

    def _on_message(self, _widget: object, content: object, _buffers: object) -> None:
        if isinstance(content, dict):
            view = self._recipient(content)
            if str(content.get("kind")) in view._handlers:
                self.send(view.answer(content))

    def _recipient(self, _message: Mapping[str, object]) -> View:
        """Return the view that answers a message: this one, or a part of it."""
        return self

    def answer(self, message: Question) -> dict[str, object]:
        """Return the answer to a message from the browser.

        Parameters
        ----------
        message
            A dict with ``kind``, ``request`` and the arguments of this kind.

        Returns
        -------
        dict
            The answer, or ``{"kind": "error", "type": …, "text": …}``, with the same ``request``.
        """
        kind = message["kind"]
        try:
            answer = {"kind": kind, **self._handlers[kind](message)}
        # Any error, and an interrupt too: raised here it would only reach the kernel's log, and the
        # browser would wait for an answer.
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001
            self.last_error = error
            text = self._error_message(error)
            answer = {"kind": "error", "text": text, "type": type(error).__name__}
        return serialize.encodable({**answer, "request": message.get("request")})

    def _error_message(self, error: Exception | KeyboardInterrupt) -> str:
        if isinstance(error, NotebookError | ControlInterrupt):
            text = str(error)
        elif isinstance(error, KeyboardInterrupt):
            text = "The kernel was interrupted before it answered."
        else:
            text = f"{type(error).__name__}: {error}"
        return self._store.location.redact(text)

    def static_html(self) -> str:
        """Return the view as HTML that needs no kernel, as GitHub and nbconvert show it."""
        raise NotImplementedError

    def _html_page(self) -> str:
        """Return a complete HTML page that needs no kernel and no network."""
        raise NotImplementedError

    def save_html(self, path: str | os.PathLike[str]) -> Path:
        """Write the view as one HTML file that opens without a kernel and without a network.

        The file contains inputs, outputs and errors: consider who will read it.

        Parameters
        ----------
        path
            The file to write; an existing file is replaced.

        Returns
        -------
        pathlib.Path
            The file.
        """
        target = Path(path).expanduser()
        target.write_text(self._html_page(), encoding="utf-8")
        return target

    def _repr_mimebundle_(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        result = super()._repr_mimebundle_(**options)
        data, metadata = result if isinstance(result, tuple) else (result or {}, {})
        data["text/plain"] = repr(self)
        try:
            data["text/html"] = self.static_html()
        except Exception as error:  # noqa: BLE001
            # The live view shows the error, and recovers when the database is back.
            self.last_error = error
        return data, metadata

    def _ipython_display_(self) -> None:
        """Display the live view and, as a second output, the HTML that needs no kernel.

        If both were in one output, JupyterLab and nbconvert would choose the live view, and show
        "model not found" or nothing once its kernel has stopped. The live view hides the second
        output while it works (``fallback.js``).
        """
        data, metadata = self._repr_mimebundle_()
        html = data.pop("text/html", None)
        fallback = {"text/plain": data["text/plain"]}
        if html and self._has_fallback:
            data["text/plain"] = ""
        display: Any = publish_display_data  # IPython has no type hints
        display(data, metadata)
        if html and self._has_fallback:
            css = bundle.style("fallback")
            element = f'<div data-dn-fallback="{self._token}"><style>{css}</style>{html}</div>'
            display({"text/html": element, **fallback}, {})

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._store.location}>"
