"""Ctrl-C while a call runs: counted, not raised between any two lines of what must be told."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Self, TypeVar

T = TypeVar("T")
PATIENCE = 3
"""So many presses end a call whatever it was about to tell."""


class Presses:
    """Counts Ctrl-C instead of raising it; the call looks at the count.

    Only where Python's own handler is in place, and on the main thread, where signals come:
    whoever has another handler keeps it.
    """

    def __init__(self) -> None:
        self.count = 0
        self._counting = False
        self._raising = False

    def _press(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        if self._raising or self.count >= PATIENCE:
            signal.default_int_handler(number, frame)

    def interruptible(self, call: Callable[[], T]) -> T | None:
        """Call something that Ctrl-C ends at once, before anything was changed.

        ``None``: it was pressed, and is counted.
        """
        if self.count:
            return None
        self._raising = True
        try:
            return call()
        except KeyboardInterrupt:
            self.count = self.count or 1
            return None
        finally:
            self._raising = False

    def __enter__(self) -> Self:
        if (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        ):
            self._counting = True
            signal.signal(signal.SIGINT, self._press)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._counting:
            signal.signal(signal.SIGINT, signal.default_int_handler)
