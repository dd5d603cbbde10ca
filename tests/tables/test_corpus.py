"""Databases of other dbos versions, against what DBOS itself said of them when it wrote them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from reference import RENAMED, by_id, our_records, read_everything
from servers import CORPUS

import dbos_notebook as dn

# Held as repr() of Python values, and compared apart.
PAYLOADS = {"input", "output", "error"}
# DBOS's steps on a sharded database only.
NOT_OURS = {"child_shard_key"}
VERSIONS = ["2.0.0", "2.20.0", "3.4.0"]


@pytest.fixture(scope="module", params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module", params=["sqlite", "pg"])
def recorded(request: pytest.FixtureRequest, version: str) -> tuple[str | Path, dict[str, Any]]:
    """A database of an earlier version, and DBOS's answers about it."""
    truth = json.loads((CORPUS / f"dbos-{version}.{request.param}.truth.json").read_text())
    factory = "corpus_sqlite" if request.param == "sqlite" else "corpus_postgres"
    return request.getfixturevalue(factory)(version), truth


def test_workflows_match_the_recorded_dbos_output(
    recorded: tuple[str | Path, dict[str, Any]],
) -> None:
    database, truth = recorded
    fields = [field for field in truth["workflows"][0] if field not in PAYLOADS]
    assert len(fields) > 10
    with dn.connect(database) as db:
        ours = our_records(db.workflows(limit=None), fields)
    theirs = [{field: row[field] for field in fields} for row in truth["workflows"]]
    assert by_id(ours) == by_id(theirs)


def test_queued_workflows_match_the_recorded_dbos_output(
    recorded: tuple[str | Path, dict[str, Any]],
) -> None:
    database, truth = recorded
    with dn.connect(database) as db:
        assert sorted(db.queued(limit=None)["workflow_id"]) == sorted(truth["queued"])


def test_steps_match_the_recorded_dbos_output(recorded: tuple[str | Path, dict[str, Any]]) -> None:
    database, truth = recorded
    one = next(steps[0] for steps in truth["steps"].values() if steps)
    fields = [field for field in one if field not in PAYLOADS | NOT_OURS]
    with dn.connect(database) as db:
        frame = db.steps(list(truth["steps"]))
    ours = our_records(frame, ["workflow_id", "status", *fields])
    expected = [
        {
            "workflow_id": workflow_id,
            "status": "SUCCESS" if step["error"] in (None, "None") else "ERROR",
            **{field: step[field] for field in fields},
        }
        for workflow_id, steps in truth["steps"].items()
        for step in steps
    ]

    def key(row: dict[str, Any]) -> tuple[str, int]:
        return row["workflow_id"], row["function_id"]

    assert sorted(ours, key=key) == sorted(expected, key=key)


def test_children_are_known_on_every_version(
    recorded: tuple[str | Path, dict[str, Any]],
) -> None:
    """Rows of before dbos 2.20 do not name their parent, but the parent's steps do."""
    database, _ = recorded
    with dn.connect(database) as db:
        tree = db.tree("checkout-1")
    depths = dict(zip(tree["workflow_id"], tree["depth"], strict=True))
    assert depths == {"checkout-1": 0, "checkout-1-4": 1, "checkout-1-4-1": 2}


def legible(text: str) -> str:
    """Bring DBOS's repr of a real object and ours of its record to one form."""
    # An enum's member: <Tier.GOLD: 'gold'>, and Tier('gold').
    return re.sub(r"<(\w+)\.\w+: ([^>]*)>", r"\1(\2)", text)


def same_error(mine: Any, said: str) -> None:
    """Compare a record of an error with the repr of the error that DBOS made of it.

    A class may compose its message from its arguments, which are all that is recorded.
    """
    if mine is None:
        assert said == "None"
        return
    assert mine.type.rpartition(".")[2] in said  # a portable error names its class within
    assert all(str(argument) in said for argument in mine.args or [mine.message])


def test_payloads_match_dbos_on_every_version(
    recorded: tuple[str | Path, dict[str, Any]],
) -> None:
    database, truth = recorded
    with dn.connect(database) as db:
        frame = db.workflows(limit=None, load_input=True, load_output=True)
        steps = db.steps(frame, load_output=True)
    frame = frame.set_index("workflow_id")
    steps = steps.set_index(["workflow_id", "function_id"])
    for row in truth["workflows"]:
        mine = frame.loc[row["workflow_id"]]
        if mine["serialization"] != "portable_json":  # which DBOS turns into args and kwargs
            assert repr(mine["input"]) == legible(row["input"])
        assert repr(mine["output"]) == legible(row["output"])
        same_error(mine["error"], row["error"])
        assert pd.notna(mine["error_message"]) == (row["error"] != "None")
    seen = 0
    for workflow_id, recorded_steps in truth["steps"].items():
        for step in recorded_steps:
            mine = steps.loc[(workflow_id, step["function_id"])]
            assert repr(mine["output"]) == legible(step["output"])
            same_error(mine["error"], step["error"])
            seen += 1
    assert seen > 20


def test_a_database_of_the_typescript_sdk_is_read(corpus_postgres: Callable[[str], str]) -> None:
    with dn.connect(corpus_postgres("ts-5.3.0")) as db:
        frames = read_everything(db)
    assert len(frames["workflows"]) > 0
    assert len(frames["steps"]) > 0
    # TypeScript counts steps from 0.
    assert frames["steps"]["function_id"].min() == 0


@pytest.fixture(scope="module")
def frames_of_all_versions(
    corpus_sqlite: Callable[[str], Path], corpus_postgres: Callable[[str], str]
) -> dict[str, dict[str, pd.DataFrame]]:
    """Every reading method's frame, on every version and both backends."""
    found = {}
    for each in VERSIONS:
        for backend, factory in (("sqlite", corpus_sqlite), ("pg", corpus_postgres)):
            with dn.connect(factory(each)) as db:
                found[f"{each} {backend}"] = read_everything(db)
    return found


def test_columns_and_dtypes_are_the_same_on_every_version(
    frames_of_all_versions: dict[str, dict[str, pd.DataFrame]],
) -> None:
    newest = frames_of_all_versions["3.4.0 pg"]
    for label, frames in frames_of_all_versions.items():
        for method, frame in frames.items():
            assert shape(frame) == shape(newest[method]), (label, method)


def shape(frame: pd.DataFrame) -> dict[str, str]:
    """Return a frame's columns and their dtypes, categories aside."""
    return {
        column: f"category ordered={dtype.ordered}"
        if isinstance(dtype, pd.CategoricalDtype)
        else str(dtype)
        for column, dtype in frame.dtypes.items()
    }


def test_renamed_fields_are_columns() -> None:
    """The translation used by these tests names real columns."""
    from dbos_notebook.tables.columns import STEP, WORKFLOW

    columns = {column.name for column in (*WORKFLOW, *STEP)}
    assert set(RENAMED.values()) <= columns
