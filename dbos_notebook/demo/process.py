"""What every worker process of the demo does: start DBOS, and serve until its parent ends."""

from __future__ import annotations

import os
import sqlite3
import sys

import sqlalchemy as sa
from dbos import DBOS, DBOSConfig

from dbos_notebook.database.sqlite import define_unixepoch

URL_VARIABLE = "DBOS_NOTEBOOK_DEMO_URL"
READY = "ready"


def launch(application: str, version: str, executor: str) -> None:
    """Start DBOS in this process, as an executor of a version of an application."""
    config: DBOSConfig = {
        "name": application,
        "system_database_url": os.environ[URL_VARIABLE],
        "application_version": version,
        "executor_id": executor,
        "log_level": "CRITICAL",
        "notification_listener_polling_interval_sec": 0.1,
    }
    sa.event.listen(sa.Engine, "connect", _connected)
    DBOS(config=config)
    DBOS.launch()


def _connected(connection: object, _record: object) -> None:
    # dbos itself fails on Python 3.12 or later with an older SQLite, as on Debian 12.
    if isinstance(connection, sqlite3.Connection):
        define_unixepoch(connection)


def serve(application: str, version: str, executor: str) -> None:
    """Execute what is enqueued for a version until standard input is closed by the parent."""
    launch(application, version, executor)
    print(READY, flush=True)
    sys.stdin.read()
    sys.stdout.flush()
    os._exit(0)
