"""What Python runs first in each process of the tests, where SQLite is too old for dbos.

dbos on Python 3.12 or later needs SQLite 3.42. Each connection gets the function that it lacks, as
those of the package and of the demo do.
"""

import sqlite3
from sqlite3 import dbapi2
from typing import Any

_connect = sqlite3.connect


def connect(*arguments: Any, **options: Any) -> sqlite3.Connection:
    """Connect, and define what dbos needs."""
    from dbos_notebook.database.sqlite import define_unixepoch

    connection = _connect(*arguments, **options)
    define_unixepoch(connection)
    return connection


sqlite3.connect = connect
dbapi2.connect = connect
