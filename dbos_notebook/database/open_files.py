"""Which processes of this machine have a SQLite file open for writing, as far as can be seen.

Linux alone shows that (``/proc``), and of other users' processes only to root. So what is found
is a fact, and what is not found is one only where :attr:`Writers.complete` says so.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

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
