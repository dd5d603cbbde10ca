"""What moves while a call runs: in a notebook one output that is replaced, in a terminal a line.

Into a pipe nothing is written.
"""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, Self

FIRST_AFTER_SECONDS = 1.0
"""What takes less shows nothing."""
EVERY_SECONDS = 0.5


def in_notebook() -> bool:
    """Tell whether a kernel runs this code, so that HTML can be shown.

    Examples
    --------
    >>> in_notebook()
    False
    """
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell is not None and hasattr(shell, "kernel")


class Display:
    """One output that can be replaced, in a notebook or a terminal; none in a pipe."""

    def __init__(self) -> None:
        self._notebook = in_notebook()
        self._terminal = not self._notebook and sys.stderr.isatty()
        self._handle: Any = None
        self._width = 0
        self._last = ("", "")
        self.enabled = self._notebook or self._terminal

    def show(self, html: str, text: str) -> None:
        """Replace what is shown; what has not changed is not sent again."""
        if not self.enabled or (html, text) == self._last:
            return
        self._last = (html, text)
        if self._notebook:
            from IPython.display import display

            show: Any = display
            bundle = {"text/html": html, "text/plain": text}
            if self._handle is None:
                self._handle = show(bundle, raw=True, display_id=True)
            else:
                self._handle.update(bundle, raw=True)
        else:
            line = text.splitlines()[0][:120] if text else ""
            sys.stderr.write("\r" + line.ljust(self._width))
            sys.stderr.flush()
            self._width = len(line)

    def close(self, html: str = "", text: str = "") -> None:
        """Leave a last word, or nothing."""
        if self._handle is not None or (self.enabled and self._width):
            self.show(html, text)
        if self._terminal and self._width:
            sys.stderr.write("\n" if text else "\r")
            sys.stderr.flush()


class Progress:
    """How far a long call has come."""

    def __init__(self, title: str, total: int) -> None:
        self._title = title
        self._total = total
        self._begun = time.monotonic()
        self._next = self._begun + FIRST_AFTER_SECONDS
        self._display = Display()

    def __enter__(self) -> Self:
        return self

    def show(self, done: int) -> None:
        """Show it, if it is time to."""
        now = time.monotonic()
        if now < self._next or not self._display.enabled:
            return
        self._next = now + EVERY_SECONDS
        from dbos_notebook.control.sheet import progress

        text = f"{self._title}: {done:,} of {self._total:,}"
        self._display.show(progress(text, {}, []), text)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._display.close()
