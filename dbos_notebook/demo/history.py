"""A week of history: real runs of the documents application, then aged and multiplied with SQL.

``documents_worker`` makes a few examples of each kind with DBOS itself. :func:`age` copies their
rows many times, with new IDs, over the last seven days: fewer at night and at the weekend, and with
an incident after the release of version 1.4.2. The times of a copy are those of its example, moved
and stretched, so that what took milliseconds takes seconds or minutes. Nothing else is invented:
names, statuses, steps, results and errors are those that DBOS recorded.
"""

from __future__ import annotations

import json
import math
import random
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from dbos_notebook.database.location import Location
from dbos_notebook.demo.workload import BUGGY_DOCUMENTS, NIGHTLY_DOCUMENTS

HOUR_MS = 3_600_000
DAYS = 7
NOW_HOUR = 15.5
"""The office's time of day when the demo runs, whatever the clock says."""
WEEKEND = (2, 3)
"""The days of the week, counted from its first, on which the office rests."""
RELEASED_HOURS_AGO = {"1.4.1": 24.0 * 8, "1.4.2": 19.5, "1.4.3": 4.0}
NIGHTLY_HOUR, SYNC_HOURS = 2.0, (0.5, 6.5, 12.5, 18.5)

# How much longer a copy takes than its example.
_STRETCH = {"nightly": 40.0, "single": 90.0, "sync": 60.0, "agent": 120.0, "approval": 60.0}
# People take longer to answer than a program to ask.
_STRETCH_OF_ANSWERS = 10_000.0
# The share of each kind among the runs that people and programs start during the day.
_SHARES = {"single": 0.86, "agent": 0.08, "approval": 0.06}
_ID_COLUMNS = (
    "workflow_uuid",
    "destination_uuid",
    "child_workflow_id",
    "parent_workflow_id",
    "forked_from",
)
_STEP_TIMES = ("started_at_epoch_ms", "completed_at_epoch_ms", "created_at_epoch_ms")
_BATCH = 2_000

Row = dict[str, Any]


@dataclass
class Example:
    """One real run with everything below it: its rows by table."""

    root: str
    kind: str
    version: str
    rows: dict[str, list[Row]] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """The number of its workflows."""
        return len(self.rows["workflow_status"])

    @property
    def pending(self) -> bool:
        """Whether it still waits, such as for an answer."""
        return any(row["status"] == "PENDING" for row in self.rows["workflow_status"])


def age(
    location: Location, workflows: int, seed: int, progress: Callable[[int], None] | None = None
) -> None:
    """Replace the examples of the documents application by about ``workflows`` aged copies.

    Parameters
    ----------
    location
        The database to which ``documents_worker`` has written.
    workflows
        The number of workflows with children, at least that of a week's nightly runs.
    seed
        The same number and seed result in the same runs, relative to the time of the call.
    progress
        Called with the number of workflows written since the last call.
    """
    url = sa.engine.make_url(location.url())
    if url.get_backend_name() == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    engine = sa.create_engine(url)
    try:
        with engine.begin() as connection:
            tables = _tables(connection, None if location.path else "dbos")
            examples = list(_examples(connection, tables))
            _delete(connection, tables, examples)
            choose = random.Random(f"history:{workflows}:{seed}")
            copies = []
            for example, begin in _calendar(examples, workflows, choose):
                copies.append(_copy(example, begin, choose))
                if progress:
                    progress(example.size)
            _insert(connection, tables, copies)
            _date_versions(connection, tables["application_versions"])
    finally:
        engine.dispose()


def _tables(connection: sa.Connection, schema: str | None) -> dict[str, sa.Table]:
    """Reflect the tables with rows of workflows, that of workflows first, and the versions."""
    metadata = sa.MetaData()
    metadata.reflect(connection, schema=schema)
    tables = {table.name: table for table in metadata.sorted_tables}
    for table in tables.values():
        for column in table.c:
            if isinstance(column.type, sa.JSON):
                column.type.none_as_null = True
    return tables


def _owner(table: sa.Table) -> sa.Column[Any] | None:
    """Return the column with the ID of the workflow that a row belongs to."""
    return next((table.c[name] for name in _ID_COLUMNS[:2] if name in table.c), None)


def _examples(connection: sa.Connection, tables: dict[str, sa.Table]) -> Iterator[Example]:
    """Read the real runs with all their rows."""
    status = tables["workflow_status"]
    mine = status.c.application_name == "demo-documents"
    examples: dict[str, Example] = {}
    root_of = {}
    for workflow_id in connection.scalars(sa.select(status.c.workflow_uuid).where(mine)):
        kind, version, *numbers = workflow_id.split("-")
        if kind in _STRETCH:  # not a copy of an earlier call
            # The children of an example have its ID with a number.
            root = f"{kind}-{version}-{numbers[0]}"
            root_of[workflow_id] = root
            examples.setdefault(root, Example(root, kind, version))
    for name, table in tables.items():
        owner = _owner(table)
        if owner is None:
            continue
        own = sa.select(table).where(owner.in_(sa.select(status.c.workflow_uuid).where(mine)))
        for found in connection.execute(own).mappings():
            if found[owner.name] in root_of:
                examples[root_of[found[owner.name]]].rows.setdefault(name, []).append(dict(found))
    yield from examples.values()


def _delete(
    connection: sa.Connection, tables: dict[str, sa.Table], examples: Sequence[Example]
) -> None:
    ids = [row["workflow_uuid"] for each in examples for row in each.rows["workflow_status"]]
    # Rows that refer to others first.
    for table in reversed(tables.values()):
        owner = _owner(table)
        if owner is not None:
            connection.execute(
                sa.delete(table).where(owner == sa.bindparam("id")), [{"id": each} for each in ids]
            )


def _calendar(
    examples: Sequence[Example], workflows: int, choose: random.Random
) -> Iterator[tuple[Example, int]]:
    """Yield which example is copied, and when the copy begins in milliseconds since 1970."""
    now = int(time.time() * 1000)
    waiting = [each for each in examples if each.pending]
    by_kind: dict[tuple[str, str], list[Example]] = {}
    for each in examples:
        if not each.pending:
            by_kind.setdefault((each.kind, each.version), []).append(each)

    def pick(kind: str, hours_ago: float) -> tuple[Example, int]:
        found = by_kind[kind, _version(hours_ago)]
        weights = [_weight(each) for each in found]
        return choose.choices(found, weights)[0], now - int(hours_ago * HOUR_MS)

    for number, each in enumerate(waiting):
        yield each, now - int((1.4 + 2.3 * number) * HOUR_MS)
    hours = DAYS * 24
    regular = [("nightly", NIGHTLY_HOUR), *(("sync", hour) for hour in SYNC_HOURS)]
    for kind, hour in regular:
        for day in range(DAYS + 1):
            ago = NOW_HOUR - hour + 24.0 * (DAYS - day)
            if 0.1 < ago < hours:
                yield pick(kind, ago + choose.uniform(-0.02, 0.02))
    regular_size = DAYS * (NIGHTLY_DOCUMENTS + 1 + len(SYNC_HOURS))
    moments = [(step + 0.5) / 4 for step in range(hours * 4)]
    weights = [_rhythm(ago) for ago in moments]
    for ago in choose.choices(moments, weights, k=max(20, workflows - regular_size)):
        kind = choose.choices(list(_SHARES), list(_SHARES.values()))[0]
        yield pick(kind, min(hours, ago + choose.uniform(-0.12, 0.12)))


def _weight(example: Example) -> float:
    """Return how often an example is copied: failures that no release caused are rare."""
    failed = any(
        row["status"] == "ERROR" and row["workflow_uuid"] == example.root
        for row in example.rows["workflow_status"]
    )
    return 0.25 if failed and example.version != BUGGY_DOCUMENTS else 1.0


def _version(hours_ago: float) -> str:
    return [name for name, released in RELEASED_HOURS_AGO.items() if hours_ago <= released][-1]


def _rhythm(hours_ago: float) -> float:
    """Return how busy a moment is: most in the afternoon, little at night and at the weekend."""
    clock = NOW_HOUR - hours_ago
    hour, day = clock % 24, DAYS - 1 + math.floor(clock / 24)
    busy = 0.06 + math.exp(-(((hour - 12.5) / 4) ** 2))
    return busy * (0.25 if day in WEEKEND else 1.0)


def _copy(example: Example, begin: int, choose: random.Random) -> dict[str, list[Row]]:
    """Return the rows of an example with new IDs and times."""
    root = str(uuid.UUID(int=choose.getrandbits(128), version=4))
    # An answer to the unanswered is due as long after the copy as after the example.
    stretch = 1.0 if example.pending else _STRETCH[example.kind] * choose.lognormvariate(0, 0.45)
    longer = _STRETCH_OF_ANSWERS * choose.lognormvariate(0, 0.6)
    steps = example.rows.get("operation_outputs", [])
    first = min(row["started_at_epoch_ms"] for row in steps) - 2
    last = max(row["completed_at_epoch_ms"] for row in steps)
    # Every copy has ended by now.
    latest = int(time.time() * 1000 - choose.uniform(1, 30) * 60_000)
    waits = _waits_for_answers(steps)

    def length(moment: int) -> int:
        waited = sum(max(0, min(moment, end) - start) for start, end in waits)
        return int((moment - first - waited) * stretch + waited * longer)

    begin = min(begin, latest - length(last))

    def moved(moment: int) -> int:
        return begin + length(moment)

    def renamed(value: str | None) -> str | None:
        return root + value[len(example.root) :] if value else value

    result: dict[str, list[Row]] = {}
    for name, rows in example.rows.items():
        for row in rows:
            row = dict(row)
            for column in _ID_COLUMNS:
                if column in row:
                    row[column] = renamed(row[column])
            if name == "workflow_status":
                _set_times(row, *_times(example, row, moved, renamed))
            else:
                if row.get("function_name") == "DBOS.sleep":
                    row["output"] = _wake_up(row, moved)
                for column in _STEP_TIMES:
                    if row.get(column) is not None:
                        row[column] = moved(row[column])
                if "message_uuid" in row:
                    row["message_uuid"] = str(uuid.UUID(int=choose.getrandbits(128), version=4))
            result.setdefault(name, []).append(row)
    return result


def _waits_for_answers(steps: Sequence[Row]) -> list[tuple[int, int]]:
    """Return when a run waited for messages; the wait begins when its timeout is recorded."""
    ended = {
        (row["workflow_uuid"], row["function_id"]): row["completed_at_epoch_ms"] for row in steps
    }
    return [
        (ended[row["workflow_uuid"], row["function_id"] + 1], row["completed_at_epoch_ms"])
        for row in steps
        if row["function_name"] == "DBOS.recv"
    ]


def _wake_up(row: Row, moved: Callable[[int], int]) -> str:
    """Return the recorded time at which a sleep ends, as long after its start as it was."""
    started = row["started_at_epoch_ms"]
    seconds: float = json.loads(row["output"])
    return json.dumps(seconds + (moved(started) - started) / 1000)


def _times(
    example: Example,
    row: Row,
    moved: Callable[[int], int],
    renamed: Callable[[str | None], str | None],
) -> tuple[int, int, int]:
    """Return when a workflow was created, started and ended, by the times of steps.

    On SQLite, DBOS stores the times of workflows in whole seconds: stretched, they would be minutes
    away from those of the steps.
    """
    steps = example.rows["operation_outputs"]
    own = [each for each in steps if renamed(each["workflow_uuid"]) == row["workflow_uuid"]]
    starts = [
        each["started_at_epoch_ms"]
        for each in steps
        if renamed(each["child_workflow_id"]) == row["workflow_uuid"]
    ]
    started = min(each["started_at_epoch_ms"] for each in own) - 1
    ended = max(each["completed_at_epoch_ms"] for each in own) + 1
    return moved(min([*starts, started])), moved(started), moved(ended)


def _set_times(row: Row, created: int, started: int, ended: int) -> None:
    row["created_at"] = created
    row["updated_at"] = ended
    if row["completed_at"] is not None:
        row["completed_at"] = ended
    if row["started_at_epoch_ms"] is not None:
        row["started_at_epoch_ms"] = started


def _insert(
    connection: sa.Connection, tables: dict[str, sa.Table], copies: Sequence[dict[str, list[Row]]]
) -> None:
    for name, table in tables.items():
        rows = [row for copy in copies for row in copy.get(name, ())]
        for start in range(0, len(rows), _BATCH):
            connection.execute(sa.insert(table), rows[start : start + _BATCH])


def _date_versions(connection: sa.Connection, table: sa.Table) -> None:
    """Register each version when it was released."""
    now = int(time.time() * 1000)
    for name, hours in RELEASED_HOURS_AGO.items():
        moment = now - int(hours * HOUR_MS)
        connection.execute(
            sa.update(table)
            .where(table.c.version_name == name)
            .values(version_timestamp=moment, created_at=moment)
        )
