"""Count Ctrl-C instead of raising it, so that a receipt is complete and no Ctrl-C is lost."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Self, TypeVar

T = TypeVar("T")
MAX_INTERRUPTS = 3
"""This many interrupts raise KeyboardInterrupt, even if the receipt is incomplete."""


class InterruptCounter:
    """Counts Ctrl-C while its block runs, which checks ``count``.

    It replaces only Python's own signal handler, and only on the main thread, where signals
    arrive. A handler that somebody else has installed stays.
    """

    def __init__(self) -> None:
        self.count = 0
        self._counting = False
        self._raising = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        if self._raising or self.count >= MAX_INTERRUPTS:
            signal.default_int_handler(number, frame)

    def interruptible(self, call: Callable[[], T]) -> T | None:
        """Call a function that Ctrl-C stops at once, because it changes nothing.

        Returns
        -------
        object
            The function's result. If there was an interrupt, it is counted, and the result is
            usually ``None``.
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
            signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._counting:
            signal.signal(signal.SIGINT, signal.default_int_handler)
