"""Run the demo as a sequence of processes: one per version of an application, each ended abruptly.

The calling process does not import the applications or start DBOS.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from dbos_notebook.client import connect
from dbos_notebook.database.location import Location, locate
from dbos_notebook.demo import history as aging
from dbos_notebook.demo.workload import DOCUMENTS, MIN_HISTORY, VERSIONS, plan
from dbos_notebook.errors import NotDBOSDatabaseError, NotebookError

URL_VARIABLE = "DBOS_NOTEBOOK_DEMO_URL"
_APPLICATIONS = ("demo-shop", "demo-documents")


class DemoError(NotebookError):
    """The demo failed, or would have written to a foreign database."""


def run(
    database: str | os.PathLike[str],
    workflows: int = 200,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
    *,
    history: int = 0,
    force: bool = False,
) -> None:
    """Run the shop until it has added about ``workflows`` workflows to its database.

    With ``history``, a second application runs first, which ingests documents. Its runs are then
    aged and multiplied into a week of history; see :mod:`dbos_notebook.demo.history`.

    Parameters
    ----------
    database
        A URL, or the path of a SQLite file, which is created if missing.
    workflows
        The number of workflows including children, but without three scheduled ones.
    seed
        The same number and seed result in the same IDs, names, statuses and steps.
    progress
        Called with the number of workflows finished since the last call.
    history
        The number of workflows of the week before; 0 for none, otherwise at least 300.
    force
        Also write to a database with workflows of another application.

    Raises
    ------
    DemoError
        The database contains other workflows or a demo run, or a process failed.
    """
    plan(workflows, seed)  # validates the numbers before anything is written
    if history and history < MIN_HISTORY:
        raise ValueError(f"history={history} is too few. Use 0 or at least {MIN_HISTORY}.")
    location = locate(database)
    _check_database(database, location, force=force)
    if location.path:
        location.path.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, URL_VARIABLE: location.url()}
    if history:
        for version in DOCUMENTS:
            _run_worker("documents_worker", [version], environment, location, None)
        aging.age(location, history, seed, progress)
    for version in VERSIONS:
        arguments = [version, str(workflows), str(seed)]
        _run_worker("worker", arguments, environment, location, progress)


def _check_database(database: str | os.PathLike[str], location: Location, *, force: bool) -> None:
    if location.path and not location.path.exists():
        return
    try:
        with connect(database, read_only=True) as client:
            owners = client.counts(by="application_name")["application_name"].astype(object)
    except NotDBOSDatabaseError:
        return
    if set(owners) & set(_APPLICATIONS):
        raise DemoError(f"{location} already contains a demo run. Use another database.")
    others = sorted({str(o) for o in owners if o not in _APPLICATIONS})
    if others and not force:
        raise DemoError(
            f"{location} contains workflows of another application ({', '.join(others)}). "
            "Use a separate database for the demo, or pass --force."
        )


def _run_worker(
    module: str,
    arguments: list[str],
    environment: dict[str, str],
    location: Location,
    progress: Callable[[int], None] | None,
) -> None:
    # The URL is passed in the environment, because other users can see arguments.
    command = [sys.executable, "-m", f"dbos_notebook.demo.{module}", *arguments]
    with (
        tempfile.TemporaryFile("w+") as messages,
        subprocess.Popen(  # noqa: S603 - a module of this package
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=messages,
            text=True,
            cwd=Path.cwd(),
        ) as process,
        ExitStack() as undo,
    ):
        undo.callback(process.kill)
        for line in process.stdout or ():
            if progress and line.strip().isdigit():
                progress(int(line))
        undo.pop_all()  # it ended by itself
        if process.wait():
            messages.seek(0)
            last = location.redact(messages.read()).strip()[-2000:]
            raise DemoError(
                f"Version {arguments[0]} of the demo ended with exit status "
                f"{process.returncode}:\n{last}"
            )
