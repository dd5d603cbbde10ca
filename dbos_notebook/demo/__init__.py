"""A real DBOS application that makes lifelike runs, and its command line.

``shop`` is the application, ``plan`` what is asked of it, ``worker`` one process of it,
``run`` the sequence of processes, ``executor`` one that stays, ``cli`` and ``page`` the commands.
Only ``worker`` imports ``shop``: the process that calls :func:`run` gets no DBOS state.
"""

from dbos_notebook.demo.executor import Executor, start
from dbos_notebook.demo.runner import DemoError, run

__all__ = ["DemoError", "Executor", "run", "start"]
