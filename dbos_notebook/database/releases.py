"""The releases of dbos: the revision that each writes, and what each ``DBOSClient`` can do.

Read from the releases themselves, 1.14 to 3.4 (docs/compatibility.md). Nothing here imports dbos:
reading works without it.
"""

from __future__ import annotations

import functools
import importlib.metadata
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    Version = tuple[int, int]

CONTROLS_FROM: Version = (2, 0)
"""The first dbos whose ``DBOSClient`` takes an engine and a schema, and one database alone."""
DBOS_3 = 110
"""The revision from which a ``DBOSClient`` of dbos 3 finds what it needs; inputs are in
``workflow_input``. One of dbos 2 neither reads nor deletes that table: its forks would have no
input, and it leaves rows behind when it deletes."""
KNOWN: Version = (3, 4)
"""The newest release in the table."""


@dataclass(frozen=True)
class Release:
    """One minor release of dbos.

    Attributes
    ----------
    version
        Major and minor.
    postgres, sqlite
        The revision to which it migrates a database.
    """

    version: Version
    postgres: int
    sqlite: int

    def revision(self, dialect: str) -> int:
        """Return its revision on ``"postgresql"`` or ``"sqlite"``."""
        return self.sqlite if dialect == "sqlite" else self.postgres


RELEASES = tuple(
    Release((major, minor), postgres, sqlite)
    for major, minor, postgres, sqlite in (
        (1, 14, 1, 1),
        (2, 0, 1, 1),
        (2, 1, 1, 1),
        (2, 2, 2, 2),
        (2, 3, 2, 2),
        (2, 4, 5, 5),
        (2, 5, 6, 6),
        (2, 6, 6, 6),
        (2, 7, 7, 6),
        (2, 8, 7, 7),
        (2, 9, 7, 7),
        (2, 10, 7, 7),
        (2, 11, 8, 8),
        (2, 12, 8, 8),
        (2, 13, 10, 9),
        (2, 14, 13, 12),
        (2, 15, 15, 13),
        (2, 16, 18, 16),
        (2, 17, 19, 17),
        (2, 18, 19, 17),
        (2, 19, 19, 17),
        (2, 20, 35, 32),
        (2, 21, 35, 32),
        (2, 22, 35, 32),
        (2, 23, 39, 34),
        (2, 24, 39, 34),
        (2, 25, 41, 36),
        (2, 26, 41, 36),
        (2, 27, 42, 37),
        (2, 28, 44, 37),
        (2, 29, 47, 40),
        (2, 30, 107, 107),
        (2, 31, 108, 108),
        (3, 0, 114, 114),
        (3, 1, 122, 122),
        (3, 2, 123, 123),
        (3, 3, 123, 123),
        (3, 4, 125, 125),
    )
)
"""All minor releases. Revisions of Postgres and SQLite are counted apart below 100, and together,
with the SDKs of all languages, from 100 on."""

OTHER_SDKS: Mapping[int, str] = {123: "the TypeScript SDK 5.3"}
"""What else was seen to write a revision."""

# The first dbos whose DBOSClient has a call, or takes an option of it.
SINCE: Mapping[tuple[str, str | None], Version] = {
    ("cancel", "cancel_children"): (2, 24),
    ("resume", "queue_name"): (2, 15),
    ("fork", "queue_name"): (2, 15),
    ("fork", "queue_partition_key"): (2, 15),
    ("fork", "replacement_children"): (2, 16),
    ("fork", "timeout"): (2, 30),
    # It replaces children, and has to see what was forked already.
    ("repair", None): (2, 16),
    ("rewind", None): (3, 1),
    ("delete", None): (2, 15),
    ("set_delay", None): (2, 18),
    ("set_attributes", None): (2, 25),
    ("set_attributes", "merge"): (3, 3),
    ("pause_schedule", None): (2, 13),
    ("resume_schedule", None): (2, 13),
    ("delete_schedule", None): (2, 13),
    ("trigger_schedule", None): (2, 13),
    ("backfill_schedule", None): (2, 13),
}


@functools.cache
def installed() -> str | None:
    """Return the version of dbos that is installed; ``None`` where it is not. Nothing is imported.

    Kept: a plan for thousands asks for each, and to look it up reads a file.

    Examples
    --------
    >>> parse(installed()) >= (3, 0)
    True
    """
    try:
        return importlib.metadata.version("dbos")
    except importlib.metadata.PackageNotFoundError:
        return None


def parse(version: str | None) -> Version:
    """Return the major and minor of a version; ``(0, 0)`` where there is none.

    Examples
    --------
    >>> parse("2.31.1"), parse("3.5a2"), parse(None)
    ((2, 31), (3, 5), (0, 0))
    """
    found = re.match(r"(\d+)\.(\d+)", version or "")
    return (int(found[1]), int(found[2])) if found else (0, 0)


def named(version: Version) -> str:
    """Name a version as pip does.

    Examples
    --------
    >>> named((2, 20))
    '2.20'
    """
    return f"{version[0]}.{version[1]}"


def lacking(action: str, options: tuple[str, ...], version: str | None) -> str | None:
    """Say which call or option the ``DBOSClient`` of a version lacks, and since when there is one.

    Examples
    --------
    >>> lacking("fork", ("queue_name",), "2.10.0")
    'fork with queue_name needs dbos 2.15 or later'
    >>> lacking("fork", (), "2.10.0")
    """
    needed = [
        (since, f"{action} with {option}" if option else action)
        for option in (None, *options)
        if (since := SINCE.get((action, option))) is not None and parse(version) < since
    ]
    if not needed:
        return None
    since, what = max(needed)
    return f"{what} needs dbos {named(since)} or later"


def controls(release: Release, dialect: str, revision: int) -> bool:
    """Tell whether a release's ``DBOSClient`` controls a database of a revision.

    That of its own revision always. One of dbos 2 fails on older revisions, or writes too little
    into newer ones. One of dbos 3 works on all from ``DBOS_3`` to its own.

    Examples
    --------
    >>> dbos_3_4 = RELEASES[-1]
    >>> [controls(dbos_3_4, "sqlite", revision) for revision in (108, 114, 125, 126)]
    [False, True, True, False]
    """
    own = release.revision(dialect)
    return revision == own or DBOS_3 <= revision <= own


def advice(dialect: str, revision: int) -> str | None:
    """Return what pip is to install to control a revision; ``None`` where no known release does.

    Examples
    --------
    >>> advice("postgresql", 35)
    'dbos==2.20.*'
    >>> advice("postgresql", 50)
    >>> advice("postgresql", 115)
    'dbos==3.1.*'
    """
    fits = [
        release
        for release in RELEASES
        if release.version >= CONTROLS_FROM and controls(release, dialect, revision)
    ]
    own = [release for release in fits if release.revision(dialect) == revision]
    return f"dbos=={named((own or fits)[0].version)}.*" if fits else None


def writers(dialect: str, revision: int) -> str:
    """Say what wrote a revision, as far as is known.

    Examples
    --------
    >>> writers("sqlite", 125)
    'dbos 3.4'
    >>> writers("postgresql", 123)
    'dbos 3.2 to 3.3 or the TypeScript SDK 5.3'
    >>> writers("postgresql", 50)
    'something between dbos 2.29 and dbos 2.30'
    """
    names = _writers(dialect, revision)
    if names:
        other = OTHER_SDKS.get(revision)
        return f"{names} or {other}" if other else names
    revisions = sorted({release.revision(dialect) for release in RELEASES})
    below = [_writers(dialect, each).split(" to ") for each in revisions if each < revision]
    above = [_writers(dialect, each).split(" to ") for each in revisions if each > revision]
    last = f"dbos {below[-1][-1].removeprefix('dbos ')}" if below else ""
    if below and above:
        return f"something between {last} and {above[0][0]}"
    return f"something after {last}" if below else f"something before {above[0][0]}"


def _writers(dialect: str, revision: int) -> str:
    found = [each.version for each in RELEASES if each.revision(dialect) == revision]
    if not found:
        return ""
    first, last = named(found[0]), named(found[-1])
    return f"dbos {first}" if first == last else f"dbos {first} to {last}"
