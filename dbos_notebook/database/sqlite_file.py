"""The files of a SQLite database: open them for reading without changes, and find their writers."""

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
from urllib.parse import quote

from dbos_notebook.database.location import Location
from dbos_notebook.database.process_fork import ForkableLock, reset_after_fork
from dbos_notebook.errors import DatabaseChangedError, DatabaseConnectionError

try:
    import fcntl
except ImportError:  # Windows
    _POSIX = False
else:
    _POSIX = True

MAX_COPY_BYTES = 1 << 30
"""Largest size of a database and its ``-wal`` that are copied to be read."""
_LOCKED_READS_SECONDS = 5.0
_CHUNK_BYTES = 4 << 20
_WAL_HEADER_BYTES = 32  # a -wal that is not larger has no transaction
# This byte of a database file is 2 in WAL mode (https://www.sqlite.org/fileformat.html).
_READ_VERSION, _WAL_VERSION = 19, b"\2"
# Two writes within one tick of the file system's clock have the same timestamp.
_TICK_SECONDS, _COARSE_TICK_SECONDS = 0.02, 2.0
_PROC = Path("/proc")
# The inode of the initial PID namespace (include/linux/proc_ns.h). In any other namespace, as in a
# container, some processes of the machine are hidden.
_INITIAL_NAMESPACE = "pid:[4026531836]"

Signature = tuple[int, int, int, int, int]


@dataclass(frozen=True)
class Writers:
    """Processes that have a file open for writing.

    Attributes
    ----------
    others
        The IDs of the processes, without this one.
    here
        Whether this process has the file open for writing.
    complete
        Whether all processes of the machine were visible.
    started_ms
        When the processes started, including this one, in milliseconds since 1970.
    """

    others: tuple[int, ...] = ()
    here: bool = False
    complete: bool = False
    started_ms: tuple[int, ...] = ()


def find_writers(path: Path) -> Writers | None:
    """Find the processes that have a file open for writing; ``None`` if that is not possible.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     writers = find_writers(Path(file.name))
    >>> writers is None or writers.here
    True
    """
    try:
        file = path.stat()
        namespace = os.readlink(_PROC / "self/ns/pid")
        processes = [name for name in os.listdir(_PROC) if name.isdecimal()]
    except OSError:
        return None
    others: list[int] = []
    started: list[int] = []
    here, complete = False, namespace == _INITIAL_NAMESPACE
    for process in processes:
        try:
            if not _has_open_for_writing(process, path.name, file):
                continue
            started.append(_process_start_ms(process))
        except (FileNotFoundError, ProcessLookupError):
            continue  # the process has ended
        except OSError:
            complete = False
            continue
        if int(process) == os.getpid():
            here = True
        else:
            others.append(int(process))
    return Writers(tuple(others), here, complete, tuple(started))


def _process_start_ms(process: str) -> int:
    """Return when a process started, in milliseconds since 1970."""
    # The program name, in parentheses, may contain spaces and parentheses. The twentieth field
    # after it is the start time in clock ticks since boot.
    fields = (_PROC / process / "stat").read_text().rpartition(")")[2].split()
    started = int(fields[19]) / os.sysconf("SC_CLK_TCK")
    uptime = float((_PROC / "uptime").read_text().split()[0])
    return int((time.time() - uptime + started) * 1000)


def _has_open_for_writing(process: str, name: str, file: os.stat_result) -> bool:
    directory = f"{_PROC}/{process}/fd"
    for number in os.listdir(directory):
        try:
            # Most descriptors are pipes, sockets and other files. Comparing names first is cheaper
            # than stat.
            if os.path.basename(os.readlink(f"{directory}/{number}")) != name:
                continue
            open_file = os.stat(f"{directory}/{number}")
            if (open_file.st_dev, open_file.st_ino) != (file.st_dev, file.st_ino):
                continue
            flags = Path(f"{_PROC}/{process}/fdinfo/{number}").read_text()
        except FileNotFoundError:
            continue  # the descriptor was closed
        mode = next(line for line in flags.splitlines() if line.startswith("flags:"))
        if int(mode.split()[1], 8) & (os.O_WRONLY | os.O_RDWR):
            return True
    return False


@dataclass(frozen=True)
class OpenMode:
    """How to open the file.

    Attributes
    ----------
    uri
        The URI for ``sqlite3.connect(…, uri=True)``.
    identity
        The device and inode of the database, which identify the file.
    wal
        Whether the database is in WAL mode.
    changed
        A function that returns whether the file was written since; only for a mode without locks.
        The data that was read is valid only if this returns false afterwards.
    """

    uri: str
    identity: tuple[int, int]
    wal: bool
    changed: Callable[[], bool] | None = field(default=None, compare=False)


class SQLiteFile:
    """The database file, its ``-wal`` and ``-shm`` files, and a private copy if one is needed."""

    def __init__(self, location: Location) -> None:
        self._location = location
        self._lock = threading.Lock()
        self._copy: _Copy | None = None
        self._locked_reads_until = 0.0
        reset_after_fork(self)

    def after_fork(self) -> None:
        """Forget the parent's copy, which the parent removes."""
        self._lock = threading.Lock()
        if self._copy is not None:
            self._copy.remove.detach()
            self._copy = None

    def close(self) -> None:
        """Remove the private copy, if any, and close the database if that is safe."""
        with self._lock:
            copy, self._copy = self._copy, None
        if copy is not None:
            copy.remove()
        _close_descriptors()

    def opening(self, deadline: float | None = None) -> OpenMode:
        """Choose how to open the file now.

        ``deadline`` (as ``time.monotonic()``) limits the time to copy the file.
        """
        main, wal, shm = self._names()
        main_stat = os.stat(main)
        identity = (main_stat.st_dev, main_stat.st_ino)
        if not _POSIX:
            return OpenMode(_uri(main, "mode=ro"), identity, wal=False)
        wal_stat, shm_stat = _stat(wal), _stat(shm)
        if wal_stat is None and not _in_wal_mode(main):
            return OpenMode(_uri(main, "mode=ro"), identity, wal=False)
        if wal_stat is not None and shm_stat is not None:
            # An application has the database open, or left both files behind.
            writable = os.access(wal, os.W_OK) and os.access(shm, os.W_OK)
            # With readonly_shm, SQLite does not create -shm if it disappears now. If we could write
            # it, an application in this process would share our read-only mapping.
            return OpenMode(
                _uri(main, "mode=ro" if writable else "mode=ro&readonly_shm=1"), identity, wal=True
            )
        if wal_stat is None or wal_stat.st_size <= _WAL_HEADER_BYTES:
            # All data is in the database file and no process has it open.
            if time.monotonic() < self._locked_reads_until and self._owns_file(main, main_stat):
                return OpenMode(_uri(main, "mode=ro"), identity, wal=True)
            return self._open_immutable(main, identity)
        return self._open_copy(main, wal, shm, deadline)

    def record_concurrent_write(self) -> None:
        """Note that the file was written while it was read without locks.

        Processes that open and close the file continuously could cause this again and again. If we
        own the file, it is read with locks for some time, although this creates ``-wal`` and
        ``-shm``.
        """
        self._locked_reads_until = time.monotonic() + _LOCKED_READS_SECONDS

    def _owns_file(self, main: str, main_stat: os.stat_result) -> bool:
        """Return whether files that we create in the directory belong to the database's owner."""
        return main_stat.st_uid == os.geteuid() and os.access(os.path.dirname(main), os.W_OK)

    def remove_created_wal(self, before: OpenMode) -> None:
        """Remove an empty ``-wal`` of ours that SQLite created for another user's database.

        This happens only if the application closes the file between our check and our opening.
        """
        if not (before.wal and _POSIX):
            return
        main, wal, shm = self._names()
        wal_stat, main_stat = _stat(wal), _stat(main)
        if wal_stat is None or main_stat is None or wal_stat.st_size or _stat(shm) is not None:
            return
        if wal_stat.st_uid == os.geteuid() != main_stat.st_uid:
            os.unlink(wal)

    def in_wal_mode(self) -> bool:
        """Return whether the database is in WAL mode."""
        main, wal, _ = self._names()
        return _stat(wal) is not None or _in_wal_mode(main)

    def not_writable(self) -> str | None:
        """Return the path of an existing ``-wal`` or ``-shm`` that we cannot write.

        A writer needs both: it would fail part-way and create the missing one with us as owner.
        """
        if not (_POSIX and self.in_wal_mode()):
            return None
        for path in self._names()[1:]:
            if _stat(path) is not None and not os.access(path, os.W_OK):
                return path
        return None

    def writing_locks_owner_out(self) -> bool:
        """Return whether the owner could not write ``-wal`` and ``-shm`` files that we create.

        SQLite gives them the permissions of the database and, when run by root, its owner.
        """
        main, wal, shm = self._names()
        main_stat = os.stat(main)
        if not _POSIX or os.geteuid() in (0, main_stat.st_uid) or not self.in_wal_mode():
            return False
        if all(_stat(path) is not None and os.access(path, os.W_OK) for path in (wal, shm)):
            return False
        if main_stat.st_mode & stat.S_IWOTH:
            return False
        directory = os.stat(os.path.dirname(main))
        group = directory.st_gid if directory.st_mode & stat.S_ISGID else os.getegid()
        return not (main_stat.st_mode & stat.S_IWGRP and group in _groups_of(main_stat.st_uid))

    def directory(self) -> str:
        """Return the directory of the ``-wal`` and ``-shm`` files."""
        return os.path.dirname(self._names()[0])

    def _names(self) -> tuple[str, str, str]:
        # SQLite resolves symbolic links first and puts the other files next to the real one.
        main = os.path.realpath(str(self._location.path))
        return main, main + "-wal", main + "-shm"

    def _open_immutable(self, main: str, identity: tuple[int, int]) -> OpenMode:
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

        return OpenMode(_uri(main, "immutable=1"), identity, wal=True, changed=changed)

    def _open_copy(self, main: str, wal: str, shm: str, deadline: float | None) -> OpenMode:
        """Copy the files: SQLite creates ``-shm`` to read a ``-wal`` that no process has open."""

        def signatures() -> tuple[Signature, Signature]:
            return _signature(os.stat(main)), _signature(os.stat(wal))

        before = signatures()
        identity = before[0][:2]
        size = before[0][2] + before[1][2]
        with self._lock:
            if self._copy is None or self._copy.signatures != before:
                if size > min(MAX_COPY_BYTES, shutil.disk_usage(tempfile.gettempdir()).free // 2):
                    if self._owns_file(main, os.stat(main)):
                        return OpenMode(_uri(main, "mode=ro"), identity, wal=True)
                    raise self._copy_too_large(size)
                copy = _Copy(before)
                try:
                    _copy_bytes(_descriptor(main), copy.main, deadline)
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
            return OpenMode(_uri(self._copy.main, "mode=ro"), identity, wal=True)

    def _copy_too_large(self, size: int) -> DatabaseConnectionError:
        return DatabaseConnectionError(
            f"{self._location} is in WAL mode, and its -wal file has transactions but no process "
            f"has it open. Reading it would create a -shm file in {self.directory()} that "
            "belongs to you and not to the application, and the database is too large for a "
            f"private copy: it has {size / 1e9:.1f} GB, and the limits are "
            f"{MAX_COPY_BYTES / 1e9:.1f} GB and half of the free space of {tempfile.gettempdir()}. "
            "Start the application, or run PRAGMA wal_checkpoint(TRUNCATE) on the file as its "
            "owner."
        )


class _Copy:
    """A copy of the database and its ``-wal`` in a private directory."""

    def __init__(self, signatures: tuple[Signature, Signature]) -> None:
        self.signatures = signatures
        directory = tempfile.mkdtemp(prefix="dbos_notebook-")  # with mode 700
        self.main = str(Path(directory) / "copy.sqlite")
        # Runs when the process ends, if not before.
        self.remove = weakref.finalize(self, shutil.rmtree, directory, ignore_errors=True)


def _uri(path: str, parameters: str) -> str:
    return f"file:{quote(os.fsencode(path))}?{parameters}"


def _stat(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None


def _signature(file: os.stat_result) -> Signature:
    return file.st_dev, file.st_ino, file.st_size, file.st_mtime_ns, file.st_ctime_ns


def _groups_of(user_id: int) -> list[int]:
    import pwd  # not on Windows

    try:
        user = pwd.getpwuid(user_id)
    except KeyError:  # a user of another container
        return []
    return os.getgrouplist(user.pw_name, user.pw_gid)


_open_descriptors: dict[tuple[int, int], int] = {}
_descriptors_lock = ForkableLock()


def _descriptor(path: str) -> int:
    """Return a file descriptor of the database that stays open.

    POSIX drops all locks of a process on a file when *any* descriptor of that file is closed, and
    DBOS may run in this process. So our descriptors are closed only when no process has a lock on
    the file, or the file was deleted (https://www.sqlite.org/howtocorrupt.html, section 2.2).
    """
    file = os.stat(path)
    with _descriptors_lock:
        for identity, descriptor in list(_open_descriptors.items()):
            if os.fstat(descriptor).st_nlink == 0:
                os.close(_open_descriptors.pop(identity))
        identity = (file.st_dev, file.st_ino)
        if identity not in _open_descriptors:
            _open_descriptors[identity] = os.open(path, os.O_RDONLY)
        return _open_descriptors[identity]


def _close_descriptors() -> None:
    """Close the descriptors of unlocked databases, so that a file system can be unmounted."""
    with _descriptors_lock:
        for identity, descriptor in list(_open_descriptors.items()):
            if not _is_locked(descriptor):
                os.close(_open_descriptors.pop(identity))


def _is_locked(descriptor: int) -> bool:
    """Return whether any process, including this one, has a lock on the file, or may have one."""
    if not hasattr(fcntl, "F_OFD_GETLK") or sys.maxsize < 1 << 32:
        return True  # macOS; and the struct below is the one of 64-bit systems
    # struct flock. An open file description lock also conflicts with this process's own locks,
    # unlike a process lock.
    request = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    lock = struct.unpack("hhqqi4x", fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, request))
    return bool(lock[0] != fcntl.F_UNLCK)


def _in_wal_mode(path: str) -> bool:
    return os.pread(_descriptor(path), 20, 0)[_READ_VERSION:] == _WAL_VERSION


def _copy_bytes(source: int, target: str, deadline: float | None) -> None:
    with open(target, "wb") as file:
        offset = 0
        while chunk := os.pread(source, _CHUNK_BYTES, offset):
            file.write(chunk)
            offset += len(chunk)
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError
