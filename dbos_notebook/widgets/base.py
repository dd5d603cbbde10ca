"""The base class of the views."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anywidget
import traitlets
from IPython.display import publish_display_data

from dbos_notebook.errors import ControlInterrupt, NotebookError
from dbos_notebook.widgets import bundle, serialize

if TYPE_CHECKING:
    from dbos_notebook.store import Store


class View(anywidget.AnyWidget):
    """A widget on one database.

    The browser asks with messages ``{"kind": …, "request": number, …}``, and each is answered by
    one of the same kind and number, or by one of kind ``"error"``. Nothing is sent unasked, so
    a view that is hidden, closed or forgotten costs nothing.

    Attributes
    ----------
    last_error
        What last went wrong while the browser was answered; it was shown there.
    """

    last_error: Exception | KeyboardInterrupt | None = None

    _token = traitlets.Unicode().tag(sync=True)

    def __init__(self, store: Store, **traits: Any) -> None:
        self._store = store
        self._answers: Mapping[str, Callable[[dict[str, Any]], dict[str, Any]]] = {}
        super().__init__(_token=secrets.token_hex(8), **traits)
        self.on_msg(self._receive)

    def _receive(self, _: Any, content: Any, __: Any) -> None:
        if not isinstance(content, dict) or str(content.get("kind")) not in self._answers:
            return
        self.send(self.answer(content))

    def answer(self, message: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to a message of the browser's half; an error is an answer too."""
        try:
            answer = {"kind": message["kind"], **self._answers[message["kind"]](message)}
        # Whatever it is: raised here it would vanish in the kernel's log, and a question without
        # an answer is waited for. An interrupt too: what it should end has ended.
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001
            self.last_error = error
            answer = {"kind": "error", "text": self._said(error), "type": type(error).__name__}
        return serialize.sendable({**answer, "request": message.get("request")})

    def _said(self, error: Exception | KeyboardInterrupt) -> str:
        if isinstance(error, NotebookError | ControlInterrupt):
            text = str(error)
        elif isinstance(error, KeyboardInterrupt):
            text = "The kernel was interrupted before it had answered."
        else:
            text = f"{type(error).__name__}: {error}"
        return self._store.location.redact(text)

    def static_html(self) -> str:
        """Return the view as HTML that needs no kernel: what GitHub and nbconvert show."""
        raise NotImplementedError

    def _page(self) -> str:
        """Return a whole HTML page that needs no kernel and no network."""
        raise NotImplementedError

    def save_html(self, path: str | os.PathLike[str]) -> Path:
        """Write what is shown as one HTML file, which opens anywhere without a kernel.

        It holds inputs, outputs and errors: think of who will read it.

        Parameters
        ----------
        path
            Where; an existing file is replaced.

        Returns
        -------
        pathlib.Path
            The file.
        """
        target = Path(path).expanduser()
        target.write_text(self._page(), encoding="utf-8")
        return target

    def _repr_mimebundle_(self, **options: Any) -> Any:
        bundle = super()._repr_mimebundle_(**options)
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle or {}, {})
        data["text/plain"] = repr(self)
        try:
            data["text/html"] = self.static_html()
        except Exception as error:  # noqa: BLE001
            # The live view will say it, and go on when the database is back.
            self.last_error = error
        return data, metadata

    def _ipython_display_(self) -> None:
        """Show the live view and, as an output of its own, the HTML that needs no kernel.

        In one output JupyterLab and nbconvert would choose the live view, and say "model not found"
        or nothing where its kernel has ended. Of two, the page shows the one that there is: while
        the live view stands, it hides the other (``fallback.js``).
        """
        data, metadata = self._repr_mimebundle_()
        outputs = [(data, metadata)]
        if html := data.pop("text/html", None):
            css = bundle.style("fallback")
            whole = f'<div data-dn-fallback="{self._token}"><style>{css}</style>{html}</div>'
            outputs.append(({"text/html": whole, "text/plain": data["text/plain"]}, {}))
            data["text/plain"] = ""
        publish: Any = publish_display_data
        for output in outputs:
            publish(*output)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._store.location}>"
