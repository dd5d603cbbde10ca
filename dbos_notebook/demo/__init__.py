"""A real DBOS application, which fills a database with realistic workflows.

``shop`` is the application, ``workload`` the list of its tasks, ``worker`` one of its processes,
``runner`` the sequence of processes, and ``executor`` a process that keeps running. Only ``worker``
imports ``shop``, so that the process that calls :func:`run` has no DBOS state.
"""

from dbos_notebook.demo.executor import Executor, start
from dbos_notebook.demo.runner import DemoError, run

__all__ = ["DemoError", "Executor", "run", "start"]
