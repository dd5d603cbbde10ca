"""The releases of dbos: their schema revisions and the features of their ``DBOSClient``.

The facts come from the releases 1.14 to 3.4 themselves (docs/compatibility.md). Nothing here
imports dbos, because reading works without it.
"""

from __future__ import annotations

import functools
import importlib.metadata
import re
from collections.abc import Mapping
from dataclasses import dataclass

Version = tuple[int, int]

FIRST_SUPPORTED: Version = (2, 0)
"""The first dbos whose ``DBOSClient`` takes an engine and a schema, and needs only one database."""
DBOS_3_REVISION = 110
"""The first revision that a ``DBOSClient`` of dbos 3 supports; inputs are in ``workflow_input``. A
client of dbos 2 neither reads that table nor deletes from it: its forks would have no input, and
its deletions leave rows behind."""
NEWEST_KNOWN: Version = (3, 4)
"""The newest release in the table."""


@dataclass(frozen=True)
class Release:
    """One minor release of dbos.

    Attributes
    ----------
    version
        Major and minor.
    postgres, sqlite
        The schema revision that it migrates a database to.
    """

    version: Version
    postgres: int
    sqlite: int

    def revision(self, dialect: str) -> int:
        """Return the schema revision on ``"postgresql"`` or ``"sqlite"``."""
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
"""All minor releases. Below 100, Postgres and SQLite have separate revision numbers; from 100 on,
they share one sequence, also with the SDKs of other languages."""

OTHER_SDKS: Mapping[int, str] = {123: "the TypeScript SDK 5.3"}
"""SDKs of other languages that were observed to write a revision."""

SINCE: Mapping[tuple[str, str | None], Version] = {
    ("cancel", "cancel_children"): (2, 24),
    ("resume", "queue_name"): (2, 15),
    ("fork", "queue_name"): (2, 15),
    ("fork", "queue_partition_key"): (2, 15),
    ("fork", "replacement_children"): (2, 16),
    ("fork", "timeout"): (2, 30),
    # repair replaces children and has to read which workflows were forked already.
    ("repair", None): (2, 16),
    ("rewind", None): (3, 1),
    ("delete", None): (2, 15),
    ("set_delay", None): (2, 18),
    ("set_attributes", None): (2, 25),
    ("set_attributes", "merge"): (3, 3),
    # Earlier versions write a workflow for each message, and ignore the key on a message.
    ("send", None): (2, 14),
    ("pause_schedule", None): (2, 13),
    ("resume_schedule", None): (2, 13),
    ("delete_schedule", None): (2, 13),
    ("trigger_schedule", None): (2, 13),
    ("backfill_schedule", None): (2, 13),
}
"""The first dbos whose ``DBOSClient`` supports an action, or an option of it."""


@functools.cache
def installed_version() -> str | None:
    """Return the installed version of dbos without importing it; ``None`` if it is not installed.

    The result is cached: a plan calls this for each of thousands of workflows, and a lookup reads
    a file.

    Examples
    --------
    >>> parse_version(installed_version()) >= (3, 0)
    True
    """
    try:
        return importlib.metadata.version("dbos")
    except importlib.metadata.PackageNotFoundError:
        return None


def parse_version(version: str | None) -> Version:
    """Return the major and minor version; ``(0, 0)`` for ``None`` or an invalid string.

    Examples
    --------
    >>> parse_version("2.31.1"), parse_version("3.5a2"), parse_version(None)
    ((2, 31), (3, 5), (0, 0))
    """
    found = re.match(r"(\d+)\.(\d+)", version or "")
    return (int(found[1]), int(found[2])) if found else (0, 0)


def format_version(version: Version) -> str:
    """Return a version as a string.

    Examples
    --------
    >>> format_version((2, 20))
    '2.20'
    """
    return f"{version[0]}.{version[1]}"


def missing_feature(action: str, options: tuple[str, ...], version: str | None) -> str | None:
    """Describe the action or option that the ``DBOSClient`` of a version lacks, if any.

    Examples
    --------
    >>> missing_feature("fork", ("queue_name",), "2.10.0")
    'fork with queue_name needs dbos 2.15 or later'
    >>> missing_feature("fork", (), "2.10.0")
    """
    missing = [
        (since, f"{action} with {option}" if option else action)
        for option in (None, *options)
        if (since := SINCE.get((action, option))) is not None and parse_version(version) < since
    ]
    if not missing:
        return None
    since, feature = max(missing)
    return f"{feature} needs dbos {format_version(since)} or later"


def can_control(release: Release, dialect: str, revision: int) -> bool:
    """Return whether a release's ``DBOSClient`` can control a database of a revision.

    A client always controls its own revision. A client of dbos 2 fails on older revisions and
    writes incomplete rows into newer ones. A client of dbos 3 works from ``DBOS_3_REVISION`` up to
    its own revision.

    Examples
    --------
    >>> dbos_3_4 = RELEASES[-1]
    >>> [can_control(dbos_3_4, "sqlite", revision) for revision in (108, 114, 125, 126)]
    [False, True, True, False]
    """
    own = release.revision(dialect)
    return revision == own or DBOS_3_REVISION <= revision <= own


def pip_requirement(dialect: str, revision: int) -> str | None:
    """Return the pip requirement that can control a revision; ``None`` if no known release can.

    Examples
    --------
    >>> pip_requirement("postgresql", 35)
    'dbos==2.20.*'
    >>> pip_requirement("postgresql", 50)
    >>> pip_requirement("postgresql", 115)
    'dbos==3.1.*'
    """
    suitable = [
        release
        for release in RELEASES
        if release.version >= FIRST_SUPPORTED and can_control(release, dialect, revision)
    ]
    exact = [release for release in suitable if release.revision(dialect) == revision]
    return f"dbos=={format_version((exact or suitable)[0].version)}.*" if suitable else None


def written_by(dialect: str, revision: int) -> str:
    """Return which releases write a revision, as far as is known.

    Examples
    --------
    >>> written_by("sqlite", 125)
    'dbos 3.4'
    >>> written_by("postgresql", 123)
    'dbos 3.2 to 3.3 or the TypeScript SDK 5.3'
    >>> written_by("postgresql", 50)
    'something between dbos 2.29 and dbos 2.30'
    """
    names = _releases_of(dialect, revision)
    if names:
        other = OTHER_SDKS.get(revision)
        return f"{names} or {other}" if other else names
    below = [r.version for r in RELEASES if r.revision(dialect) < revision]
    above = [r.version for r in RELEASES if r.revision(dialect) > revision]
    if below and above:
        last, first = format_version(below[-1]), format_version(above[0])
        return f"something between dbos {last} and dbos {first}"
    if below:
        return f"something after dbos {format_version(below[-1])}"
    return f"something before dbos {format_version(above[0])}"


def _releases_of(dialect: str, revision: int) -> str:
    versions = [r.version for r in RELEASES if r.revision(dialect) == revision]
    if not versions:
        return ""
    first, last = format_version(versions[0]), format_version(versions[-1])
    return f"dbos {first}" if first == last else f"dbos {first} to {last}"
