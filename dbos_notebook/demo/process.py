"""What every worker process of the demo does: start DBOS, and serve until its parent ends."""

from __future__ import annotations

import os
import sys

from dbos import DBOS, DBOSConfig

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
    DBOS(config=config)
    DBOS.launch()


def serve(application: str, version: str, executor: str) -> None:
    """Execute what is enqueued for a version until standard input is closed by the parent."""
    launch(application, version, executor)
    print(READY, flush=True)
    sys.stdin.read()
    sys.stdout.flush()
    os._exit(0)
