"""Open a SQLite file for reading without changing it; find the processes that write to it."""

from __future__ import annotations

import os
import shutil
import stat
import struct
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from dbos_notebook.database.fork_safety import ForkableLock, reset_after_fork
from dbos_notebook.errors import DatabaseChangedError, DatabaseConnectionError

if TYPE_CHECKING:
    from dbos_notebook.database.location import Location

_PROC = Path("/proc")
# The inode of the first PID namespace (include/linux/proc_ns.h). In another, as in a container,
# processes of the machine are hidden.
_FIRST_NAMESPACE = "pid:[4026531836]"


@dataclass(frozen=True)
class Writers:
    """Processes that have a file open for writing.

    Attributes
    ----------
    others
        Their IDs, without this process.
    here
        Whether this process has it open for writing as well.
    complete
        Whether all processes of the machine could be looked at.
    began
        When they started, this process among them, in milliseconds since 1970.
    """

    others: tuple[int, ...] = ()
    here: bool = False
    complete: bool = False
    began: tuple[int, ...] = ()


def writers(path: Path) -> Writers | None:
    """Find who has a file open for writing; ``None`` where processes cannot be looked at.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     found = writers(Path(file.name))
    >>> found is None or found.here
    True
    """
    try:
        wanted = path.stat()
        namespace = os.readlink(_PROC / "self/ns/pid")
        processes = [name for name in os.listdir(_PROC) if name.isdecimal()]
    except OSError:
        return None
    others: list[int] = []
    began: list[int] = []
    here, complete = False, namespace == _FIRST_NAMESPACE
    for process in processes:
        try:
            if not _writes(process, path.name, wanted):
                continue
            began.append(_began(process))
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended meanwhile
        except OSError:
            complete = False
            continue
        if int(process) == os.getpid():
            here = True
        else:
            others.append(int(process))
    return Writers(tuple(others), here, complete, tuple(began))


def _began(process: str) -> int:
    """Return when a process started, in milliseconds since 1970."""
    # The name of the program, in parentheses, may hold spaces and parentheses itself. After it,
    # the start is the twentieth number: clock ticks since the machine was booted.
    numbers = (_PROC / process / "stat").read_text().rpartition(")")[2].split()
    started = int(numbers[19]) / os.sysconf("SC_CLK_TCK")
    up = float((_PROC / "uptime").read_text().split()[0])
    return int((time.time() - up + started) * 1000)


def _writes(process: str, name: str, wanted: os.stat_result) -> bool:
    directory = f"{_PROC}/{process}/fd"
    for number in os.listdir(directory):
        try:
            # Most are pipes, sockets and other files: their names are cheaper than their inodes.
            if os.path.basename(os.readlink(f"{directory}/{number}")) != name:
                continue
            found = os.stat(f"{directory}/{number}")
            if (found.st_dev, found.st_ino) != (wanted.st_dev, wanted.st_ino):
                continue
            flags = Path(f"{_PROC}/{process}/fdinfo/{number}").read_text()
        except FileNotFoundError:
            continue  # it was closed meanwhile
        mode = next(line for line in flags.splitlines() if line.startswith("flags:"))
        if int(mode.split()[1], 8) & (os.O_WRONLY | os.O_RDWR):
            return True
    return False


try:
    import fcntl
except ImportError:  # Windows
    _POSIX = False
else:
    _POSIX = True


COPIED_AT_MOST = 1 << 30
"""Bytes of a database and its ``-wal`` that are copied to be read; more is refused."""
_RESTLESS_SECONDS = 5.0
_CHUNK = 4 << 20
_WAL_HEADER = 32  # bytes: a -wal of no more than that has no transaction in it
# This byte of a database file is 2 in WAL mode (https://www.sqlite.org/fileformat.html).
_READ_VERSION, _WAL_VERSION = 19, b"\2"
# Two writes within one tick of the file system's clock leave the same time on a file.
_TICK_SECONDS, _COARSE_TICK_SECONDS = 0.02, 2.0

Signature = tuple[int, int, int, int, int]


@dataclass(frozen=True)
class Opening:
    """A way to open the file.

    Attributes
    ----------
    uri
        What ``sqlite3.connect(…, uri=True)`` takes.
    identity
        The device and inode of the database: another file of the same name has another.
    wal
        Whether the database is in WAL mode.
    changed
        Whether the file was written since. Only for a way of opening that takes no locks; what was
        read is right only where this is false afterwards.
    """

    uri: str
    identity: tuple[int, int]
    wal: bool
    changed: Callable[[], bool] | None = field(default=None, compare=False)


class SQLiteFile:
    """The database file, the files beside it, and a private copy where one is needed."""

    def __init__(self, location: Location) -> None:
        self._location = location
        self._lock = threading.Lock()
        self._copy: _Copy | None = None
        self._restless_until = 0.0
        reset_after_fork(self)

    def after_fork(self) -> None:
        """Forget the parent's copy, which the parent removes."""
        self._lock = threading.Lock()
        if self._copy is not None:
            self._copy.remove.detach()
            self._copy = None

    def close(self) -> None:
        """Remove the private copy, if there is one, and close the database if that is safe."""
        with self._lock:
            copy, self._copy = self._copy, None
        if copy is not None:
            copy.remove()
        _close_kept()

    def opening(self, deadline: float | None = None) -> Opening:
        """Choose how to open the file now.

        ``deadline`` (of ``time.monotonic``) bounds a copy.
        """
        main, wal, shm = self._names()
        there = os.stat(main)
        identity = (there.st_dev, there.st_ino)
        if not _POSIX:
            return Opening(_uri(main, "mode=ro"), identity, wal=False)
        wal_there, shm_there = _stat(wal), _stat(shm)
        if wal_there is None and not _in_wal_mode(main):
            return Opening(_uri(main, "mode=ro"), identity, wal=False)
        if wal_there is not None and shm_there is not None:
            # The application has it open, or left both files behind.
            mine = os.access(wal, os.W_OK) and os.access(shm, os.W_OK)
            # With readonly_shm SQLite does not create -shm, should it vanish right now. Where we
            # could write it, an application in this very process would get our read-only one.
            return Opening(
                _uri(main, "mode=ro" if mine else "mode=ro&readonly_shm=1"), identity, wal=True
            )
        if wal_there is None or wal_there.st_size <= _WAL_HEADER:
            # All is in the database file, and nobody has it open.
            if time.monotonic() < self._restless_until and self._is_ours(main, there):
                return Opening(_uri(main, "mode=ro"), identity, wal=True)
            return self._immutable(main, identity)
        return self._copied(main, wal, shm, deadline)

    def note_change(self) -> None:
        """Remember that the file was written while it was read without locks.

        Processes that open and close it all the time could go on doing that to us. Where the file
        is ours, it is read with locks for a while, though that creates ``-wal`` and ``-shm``.
        """
        self._restless_until = time.monotonic() + _RESTLESS_SECONDS

    def _is_ours(self, main: str, there: os.stat_result) -> bool:
        """Return whether files that we create beside the database belong to its owner."""
        return there.st_uid == os.geteuid() and os.access(os.path.dirname(main), os.W_OK)

    def remove_created_wal(self, before: Opening) -> None:
        """Remove an empty ``-wal`` that SQLite created as ours in another user's database.

        That happens only where the application closes the file between our look and our opening.
        """
        if not (before.wal and _POSIX):
            return
        main, wal, shm = self._names()
        there, owner = _stat(wal), _stat(main)
        if there is None or owner is None or there.st_size or _stat(shm) is not None:
            return
        if there.st_uid == os.geteuid() != owner.st_uid:
            os.unlink(wal)

    def in_wal_mode(self) -> bool:
        """Return whether the database is in WAL mode."""
        main, wal, _ = self._names()
        return _stat(wal) is not None or _in_wal_mode(main)

    def not_writable(self) -> str | None:
        """Return the file among ``-wal`` and ``-shm`` that is there and that we may not write.

        A writer needs both: it would fail half way, and create the one that is missing as ours.
        """
        if not (_POSIX and self.in_wal_mode()):
            return None
        for each in self._names()[1:]:
            if _stat(each) is not None and not os.access(each, os.W_OK):
                return each
        return None

    def writing_locks_owner_out(self) -> bool:
        """Return whether ``-wal`` and ``-shm`` that we create could not be written by the owner.

        SQLite gives them the permissions of the database; as root their owner too.
        """
        main, wal, shm = self._names()
        there = os.stat(main)
        if not _POSIX or os.geteuid() in (0, there.st_uid) or not self.in_wal_mode():
            return False
        if all(_stat(each) is not None and os.access(each, os.W_OK) for each in (wal, shm)):
            return False
        if there.st_mode & stat.S_IWOTH:
            return False
        directory = os.stat(os.path.dirname(main))
        group = directory.st_gid if directory.st_mode & stat.S_ISGID else os.getegid()
        return not (there.st_mode & stat.S_IWGRP and group in _groups_of(there.st_uid))

    def directory(self) -> str:
        """Return the directory in which ``-wal`` and ``-shm`` stand."""
        return os.path.dirname(self._names()[0])

    def _names(self) -> tuple[str, str, str]:
        # SQLite follows links first; the other files stand beside the real one.
        main = os.path.realpath(str(self._location.path))
        return main, main + "-wal", main + "-shm"

    def _immutable(self, main: str, identity: tuple[int, int]) -> Opening:
        before = os.stat(main)
        coarse = before.st_mtime_ns % 1_000_000 == 0
        tick = _COARSE_TICK_SECONDS if coarse else _TICK_SECONDS
        age = time.time() - max(before.st_mtime, before.st_ctime)
        if 0 <= age < tick:
            time.sleep(tick - age)
        signature = _signature(before)

        def changed() -> bool:
            now = _stat(main)
            return now is None or _signature(now) != signature

        return Opening(_uri(main, "immutable=1"), identity, wal=True, changed=changed)

    def _copied(self, main: str, wal: str, shm: str, deadline: float | None) -> Opening:
        """Open a copy: SQLite reads a ``-wal`` that nobody has open only by creating ``-shm``."""

        def signatures() -> tuple[Signature, Signature]:
            return _signature(os.stat(main)), _signature(os.stat(wal))

        before = signatures()
        identity = before[0][:2]
        size = before[0][2] + before[1][2]
        with self._lock:
            if self._copy is None or self._copy.signatures != before:
                if size > min(COPIED_AT_MOST, shutil.disk_usage(tempfile.gettempdir()).free // 2):
                    if self._is_ours(main, os.stat(main)):
                        return Opening(_uri(main, "mode=ro"), identity, wal=True)
                    raise self._too_big(size)
                copy = _Copy(before)
                try:
                    _copy_bytes(_kept_open(main), copy.main, deadline)
                    with open(wal, "rb") as source:
                        _copy_bytes(source.fileno(), copy.main + "-wal", deadline)
                    if signatures() != before or _stat(shm) is not None:
                        raise DatabaseChangedError(
                            f"{self._location} was written while it was copied. Try again."
                        )
                except BaseException:
                    copy.remove()
                    raise
                if self._copy is not None:
                    self._copy.remove()
                self._copy = copy
            return Opening(_uri(self._copy.main, "mode=ro"), identity, wal=True)

    def _too_big(self, size: int) -> DatabaseConnectionError:
        return DatabaseConnectionError(
            f"{self._location} is in WAL mode, and its -wal file holds transactions while no "
            f"process has it open. Reading it would create a -shm file in {self.directory()} that "
            "belongs to you and not to the application, and a private copy is made only up to "
            f"{COPIED_AT_MOST / 1e9:.1f} GB (this is {size / 1e9:.1f} GB) and half of the free "
            f"space of {tempfile.gettempdir()}. Start the application, or run PRAGMA "
            "wal_checkpoint(TRUNCATE) on the file as its owner."
        )


class _Copy:
    """A copy of the database and its ``-wal`` in a directory that only we can read."""

    def __init__(self, signatures: tuple[Signature, Signature]) -> None:
        self.signatures = signatures
        directory = tempfile.mkdtemp(prefix="dbos_notebook-")  # of mode 700
        self.main = str(Path(directory) / "copy.sqlite")
        # At the latest when the process ends.
        self.remove = weakref.finalize(self, shutil.rmtree, directory, ignore_errors=True)


def _uri(path: str, parameters: str) -> str:
    # The file: form is what carries the parameters, so the name must be quoted.
    return f"file:{quote(os.fsencode(path))}?{parameters}"


def _stat(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None


def _signature(there: os.stat_result) -> Signature:
    return there.st_dev, there.st_ino, there.st_size, there.st_mtime_ns, there.st_ctime_ns


def _groups_of(user: int) -> list[int]:
    import pwd  # not on Windows

    try:
        known = pwd.getpwuid(user)
    except KeyError:  # a user of another container
        return []
    return os.getgrouplist(known.pw_name, known.pw_gid)


_kept: dict[tuple[int, int], int] = {}
_kept_lock = ForkableLock()


def _kept_open(path: str) -> int:
    """Return a file descriptor of the database, which stays open.

    POSIX drops all locks of a process on a file when *any* descriptor of that file is closed, and
    DBOS may run in this process: so ours are closed only when nobody has a lock on the file, or it
    has been deleted (https://www.sqlite.org/howtocorrupt.html, section 2.2).
    """
    there = os.stat(path)
    with _kept_lock:
        for identity, descriptor in list(_kept.items()):
            if os.fstat(descriptor).st_nlink == 0:
                os.close(_kept.pop(identity))
        identity = (there.st_dev, there.st_ino)
        if identity not in _kept:
            _kept[identity] = os.open(path, os.O_RDONLY)
        return _kept[identity]


def _close_kept() -> None:
    """Close databases that no process has locked, so that a file system can be unmounted."""
    with _kept_lock:
        for identity, descriptor in list(_kept.items()):
            if not _locked(descriptor):
                os.close(_kept.pop(identity))


def _locked(descriptor: int) -> bool:
    """Return whether any process has a lock on the file, this one included; or may have."""
    if not hasattr(fcntl, "F_OFD_GETLK") or sys.maxsize < 1 << 32:
        return True  # macOS; and the struct below is that of 64 bits
    # struct flock. A lock of an open file, other than one of a process, would also be in conflict
    # with those of the process itself.
    ask = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    found = struct.unpack("hhqqi4x", fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, ask))
    return bool(found[0] != fcntl.F_UNLCK)


def _in_wal_mode(path: str) -> bool:
    return os.pread(_kept_open(path), 20, 0)[_READ_VERSION:] == _WAL_VERSION


def _copy_bytes(source: int, target: str, deadline: float | None) -> None:
    with open(target, "wb") as file:
        place = 0
        while chunk := os.pread(source, _CHUNK, place):
            file.write(chunk)
            place += len(chunk)
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError
