"""The demo as a sequence of processes: one per version of the shop, each ended abruptly.

The caller's process imports no application and starts no DBOS.
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
from dbos_notebook.demo.workload import VERSIONS, first_id, plan
from dbos_notebook.errors import NotDBOSDatabaseError, NotebookError

URL_VARIABLE = "DBOS_NOTEBOOK_DEMO_URL"
_APPLICATION = "demo-shop"


class DemoError(NotebookError):
    """The demo could not be run, or refused to be."""


def run(
    database: str | os.PathLike[str],
    workflows: int = 200,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
    *,
    force: bool = False,
) -> None:
    """Run the shop until its database holds about ``workflows`` workflows more.

    Parameters
    ----------
    database
        Where: a URL or the path of a SQLite file, which is created if missing.
    workflows
        How many workflows to make, children included; three scheduled ones come on top.
    seed
        The same number and seed give the same IDs, names, statuses and steps.
    progress
        Called with the number of workflows done since the last call.
    force
        Write even where another application's workflows are.

    Raises
    ------
    DemoError
        The database holds other workflows or this very run, or a process of the shop failed.
    """
    plan(workflows, seed)  # says what is wrong with the numbers before anything is written
    location = locate(database)
    _refuse_foreign(database, location, seed, force=force)
    if location.path:
        location.path.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, URL_VARIABLE: location.url()}
    for version in VERSIONS:
        _process(version, workflows, seed, environment, location, progress)


def _refuse_foreign(
    database: str | os.PathLike[str], location: Location, seed: int, *, force: bool
) -> None:
    if location.path and not location.path.exists():
        return
    try:
        with connect(database, read_only=True) as client:
            owners = client.counts(by="application_name")["application_name"].astype(object)
            repeated = len(client.workflows(first_id(seed)))
    except NotDBOSDatabaseError:
        return
    if repeated:
        raise DemoError(
            f"{location} already holds a demo run with seed {seed}. "
            "Give another --seed or another database."
        )
    others = sorted({str(o) for o in owners if o != _APPLICATION})
    if others and not force:
        raise DemoError(
            f"{location} holds workflows of another application ({', '.join(others)}). "
            "The demo writes only to a database of its own, unless you say --force."
        )


def _process(
    version: str,
    workflows: int,
    seed: int,
    environment: dict[str, str],
    location: Location,
    progress: Callable[[int], None] | None,
) -> None:
    # The URL goes by the environment: arguments are public to every user of the machine.
    command = [sys.executable, "-m", "dbos_notebook.demo.worker", version]
    with (
        tempfile.TemporaryFile("w+") as messages,
        subprocess.Popen(  # noqa: S603 - our own module
            [*command, str(workflows), str(seed)],
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
        undo.pop_all()  # it ends by itself
        if process.wait():
            messages.seek(0)
            last = location.redact(messages.read()).strip()[-2000:]
            raise DemoError(
                f"Version {version} of the shop ended with {process.returncode}:\n{last}"
            )
