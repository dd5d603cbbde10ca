"""The kernels of the dashboard, one for each page, of which one waits until a page asks for it."""

from __future__ import annotations

import datetime as dt

from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager


class DashboardKernels(AsyncMappingKernelManager):
    """Ends the kernels of closed pages, and not one that a page was given a moment ago.

    Voilà asks whether a kernel is idle only after a page was given it. Until then, it has waited,
    often for longer than an idle kernel may: without this class, it could end before the page has
    connected to it.
    """

    def __init__(self, **kwargs: object) -> None:
        super().__init__(**kwargs)  # type: ignore[no-untyped-call]  # untyped there
        self._given: set[str] = set()

    async def cull_kernel_if_idle(self, kernel_id: str) -> None:
        """End a kernel without connections, but count its idle time from when a page got it."""
        if kernel_id not in self._given:
            self._given.add(kernel_id)
            self._kernels[kernel_id].last_activity = dt.datetime.now(dt.UTC)
        await super().cull_kernel_if_idle(kernel_id)  # type: ignore[no-untyped-call]  # untyped there
