"""An executor of the shop that keeps running, for forks and resumed workflows in a notebook."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from types import TracebackType
from typing import Self

from dbos_notebook.database.location import Location, locate
from dbos_notebook.demo.runner import URL_VARIABLE, DemoError
from dbos_notebook.demo.workload import VERSIONS


class Executor:
    """A process of the shop, started by :func:`start` and stopped by :meth:`stop` or ``with``.

    It ends when the process that started it ends for any reason.
    """

    def __init__(self, location: Location, version: str) -> None:
        self.version = version
        self._messages = tempfile.TemporaryFile("w+")  # noqa: SIM115 - open as long as the process
        # The URL is passed in the environment, because other users can see arguments.
        self._process = subprocess.Popen(  # noqa: S603 - a module of this package
            [sys.executable, "-m", "dbos_notebook.demo.worker", "serve", version],
            env={**os.environ, URL_VARIABLE: location.url()},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._messages,
            text=True,
            # Ctrl-C in a terminal or a notebook is meant for the cell only.
            start_new_session=True,
        )
        if not (self._process.stdout and self._process.stdout.readline()):
            status = self._process.wait()
            self._messages.seek(0)
            last = location.redact(self._messages.read()).strip()[-2000:]
            self.stop()
            raise DemoError(
                f"Version {version} of the shop ended with exit status {status}:\n{last}"
            )

    @property
    def running(self) -> bool:
        """Whether the process is running."""
        return self._process.poll() is None

    def stop(self) -> None:
        """Stop the process, if it is running."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._messages.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        state = "running" if self.running else "stopped"
        return f"<Executor of the shop, version {self.version}, {state}>"


def start(database: str | os.PathLike[str] | None = None, version: str = VERSIONS[-1]) -> Executor:
    """Start an executor of the demo's shop, and return when it accepts work.

    Parameters
    ----------
    database
        The database that :func:`run` filled, as for ``connect``.
    version
        ``"1.0"``, which has bugs, or ``"2.0"``.

    Raises
    ------
    DemoError
        The version does not exist, or the process did not start.
    """
    if version not in VERSIONS:
        raise DemoError(f"The shop has no version {version!r}. It has {' and '.join(VERSIONS)}.")
    return Executor(locate(database), version)
