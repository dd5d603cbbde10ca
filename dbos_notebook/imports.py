"""Import modules whole: Ctrl-C during an import is raised when the import has ended.

Python removes a package whose import was interrupted, but keeps those of its modules that were
complete. The package that is imported next lacks them (``psycopg`` has no ``errors``, ``numpy`` no
``nonzero``), until the process is restarted.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType

MAX_INTERRUPTS = 3
"""This many interrupts are handled at once, for an import that hangs."""


class WholeImports:
    """Import the modules of its block whole, and only then handle Ctrl-C.

    It acts on the main thread alone, where signals arrive, and defers whatever handler there is.
    An enclosing block defers for those within.

    Examples
    --------
    >>> with WholeImports():
    ...     import wave
    """

    __slots__ = ("_count", "_frame", "_handler")

    def __init__(self) -> None:
        self._count = 0
        self._frame: FrameType | None = None
        self._handler: object = None

    def _defer(self, number: int, frame: FrameType | None) -> None:
        self._count += 1
        self._frame = frame
        if self._count >= MAX_INTERRUPTS:
            self._deliver()

    def _deliver(self) -> None:
        """Call the handler for each Ctrl-C that was deferred."""
        (count, self._count), (frame, self._frame) = (self._count, 0), (self._frame, None)
        for _ in range(count):
            if callable(self._handler):
                self._handler(signal.SIGINT, frame)

    def __enter__(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        handler = signal.getsignal(signal.SIGINT)
        if callable(handler) and not isinstance(getattr(handler, "__self__", None), WholeImports):
            self._handler = handler
            signal.signal(signal.SIGINT, self._defer)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._handler is None:
            return
        # A module that was imported may have installed a handler of its own.
        if signal.getsignal(signal.SIGINT) == self._defer:
            signal.signal(signal.SIGINT, self._handler)  # type: ignore[arg-type] # it was one
        self._deliver()
