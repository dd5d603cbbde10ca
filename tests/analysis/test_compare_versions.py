"""Comparisons of versions: verdicts in simulations, and numbers against pandas over the rows."""

from __future__ import annotations

import math
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psycopg
import pytest

import dbos_notebook as dn
from dbos_notebook.analysis.compare_versions import (
    BUCKET_ERROR,
    COLUMNS,
    Side,
    compare_sides,
    to_frame,
)
from dbos_notebook.analysis.confidence import Sample
from dbos_notebook.analysis.selections import BUCKET_BITS, bucket_value

WORKFLOW = ("workflow", "checkout", None)


def buckets(milliseconds: np.ndarray[Any, Any]) -> Sample:
    """Return durations as the database returns them: whole milliseconds, in buckets."""
    whole = milliseconds.astype("int64")
    shift = np.maximum(np.frexp(whole)[1] - BUCKET_BITS - 1, 0)
    numbers, counts = np.unique((shift << BUCKET_BITS) + (whole >> shift), return_counts=True)
    return Sample(bucket_value(numbers), counts, BUCKET_ERROR)


def side(
    rng: np.random.Generator,
    size: int = 500,
    *,
    median: float = 400.0,
    sigma: float = 0.5,
    errors: float = 0.03,
    running: int = 0,
) -> Side:
    """Simulate runs with lognormal durations, of which a share fails."""
    failed = int(rng.binomial(size, errors))
    durations = median * np.exp(rng.normal(0, sigma, size - failed))
    return Side(buckets(durations), size, failed, running)


def compare(groups: dict[Any, tuple[Side, Side]], min_effect: float = 0.1) -> pd.DataFrame:
    return to_frame(compare_sides(groups, min_effect=min_effect, confidence=0.95))


def verdicts(groups: dict[Any, tuple[Side, Side]], min_effect: float = 0.1) -> list[str]:
    rows = compare_sides(groups, min_effect=min_effect, confidence=0.95)
    return [row["verdict"] for row in rows]


def test_without_a_change_at_most_five_percent_of_comparisons_say_one() -> None:
    rng = np.random.default_rng(1)
    false = 0
    for _ in range(1_000):
        # No minimum effect, which would hide most of them.
        pair = side(rng, 500, sigma=0.7), side(rng, 400, sigma=0.7)
        false += verdicts({WORKFLOW: pair}, min_effect=0.0) != ["no evidence"]
    assert 5 <= false <= 50


def test_without_a_change_many_groups_at_once_give_no_more_false_verdicts() -> None:
    rng = np.random.default_rng(2)
    false = 0
    for _ in range(1_000):
        # Kinds of all sizes, speeds and shapes: also a step of a few milliseconds.
        groups = {
            ("step", "checkout", f"step {n}"): (
                side(rng, size, median=median, sigma=sigma, errors=errors),
                side(rng, other, median=median, sigma=sigma, errors=errors),
            )
            for n, (size, other, median, sigma, errors) in enumerate(
                [
                    (60, 60, 4.0, 0.5, 0.0),
                    (40, 400, 90.0, 1.0, 0.05),
                    (310, 310, 2e5, 1.5, 0.3),
                ]
            )
        }
        false += set(verdicts(groups, min_effect=0.0)) != {"no evidence"}
    assert false <= 50


def test_a_fifth_more_time_is_found_with_500_runs_a_side() -> None:
    rng = np.random.default_rng(3)
    for sigma, power in ((0.5, 0.95), (0.6, 0.85)):
        found = sum(
            verdicts({WORKFLOW: (side(rng, sigma=sigma), side(rng, median=480.0, sigma=sigma))})
            == ["slower"]
            for _ in range(200)
        )
        assert found >= power * 200


def test_a_fifth_more_time_is_found_among_many_that_did_not_change() -> None:
    rng = np.random.default_rng(4)
    found = 0
    for _ in range(40):
        groups = {("step", "w", f"step {n}"): (side(rng), side(rng)) for n in range(10)}
        groups[WORKFLOW] = side(rng), side(rng, median=480.0)
        frame = compare(groups)
        found += frame.loc[frame["name"] == "checkout", "verdict"].item() == "slower"
    assert found >= 32


def test_more_and_fewer_errors_are_found() -> None:
    rng = np.random.default_rng(5)
    rare, frequent = side(rng, 2_000, errors=0.01), side(rng, 2_000, errors=0.04)
    assert verdicts({WORKFLOW: (rare, frequent)}) == ["more errors"]
    assert verdicts({WORKFLOW: (frequent, rare)}) == ["fewer errors"]
    slow = side(rng, 2_000, errors=0.04, median=800.0)
    assert verdicts({WORKFLOW: (rare, slow)}) == ["more errors, slower"]


def test_a_small_change_has_no_verdict_however_certain_it_is() -> None:
    rng = np.random.default_rng(6)
    pair = side(rng, 50_000, median=4_000), side(rng, 50_000, median=4_200)
    frame = compare({WORKFLOW: pair})
    assert frame["verdict"].tolist() == ["no evidence"]
    assert frame["p_value"].item() < 1e-6
    assert 0.02 < frame["p50_change_low"].item() < 0.05 < frame["p50_change_high"].item() < 0.08
    assert verdicts({WORKFLOW: pair}, min_effect=0.03) == ["slower"]


def test_a_longer_tail_is_said_from_299_durations_on() -> None:
    rng = np.random.default_rng(7)

    def tailed(size: int, factor: float) -> Side:
        durations = 400 * np.exp(rng.normal(0, 0.3, size))
        durations[: size // 20] *= factor
        return Side(buckets(durations), size, 0)

    assert verdicts({WORKFLOW: (tailed(3_000, 1), tailed(3_000, 6))}) == ["slower at p99"]
    assert verdicts({WORKFLOW: (tailed(3_000, 6), tailed(3_000, 1))}) == ["faster at p99"]
    for size, known in ((298, False), (299, True)):
        pair = tailed(size, 1), tailed(size, 1)
        row = compare({WORKFLOW: pair}).iloc[0]
        assert pd.notna(row["p99_baseline"]) is known
        assert pd.notna(row["p99_change"]) is known


def test_rounding_is_no_change() -> None:
    # 1.4 and 1.6 ms are recorded as 1 and 2 ms, 0.9 and 1.1 s as 0 and 1 s.
    fast, slow = (Side(Sample([n], [5_000]), 5_000, 0) for n in (1, 2))
    assert verdicts({WORKFLOW: (fast, slow)}) == ["no evidence"]
    low, high = (Side(Sample([n], [5_000]), 5_000, 0, resolution=1_000) for n in (0, 1_000))
    frame = compare({WORKFLOW: (low, high)})
    assert frame["verdict"].tolist() == ["no evidence"]
    # A multiple of a duration below the resolution is unknown.
    assert frame.filter(like="p50_change").isna().all(axis=None)
    longer = Side(Sample([9_000], [5_000]), 5_000, 0, resolution=1_000)
    assert verdicts({WORKFLOW: (low, longer)}) == ["slower"]


def test_running_ones_may_be_the_longest() -> None:
    rng = np.random.default_rng(8)
    for running, expected in ((0, "faster"), (30, "faster"), (400, "no evidence")):
        pair = side(rng), side(rng, median=280.0, running=running)
        assert verdicts({WORKFLOW: pair}) == [expected], running
    # On the other side, they are no objection to "faster", but to "slower".
    pair = side(rng, running=2_000), side(rng, median=280.0)
    assert verdicts({WORKFLOW: pair}) == ["faster"]
    pair = side(rng, median=280.0, running=2_000), side(rng)
    assert verdicts({WORKFLOW: pair}) == ["no evidence"]


def test_failures_of_all_of_a_few_are_found() -> None:
    rng = np.random.default_rng(10)
    pair = side(rng, 45, errors=0.0), side(rng, 7, errors=1.0)
    assert verdicts({WORKFLOW: pair}) == ["more errors"]


def test_repeated_steps_of_few_runs_are_few() -> None:
    """Runs have speeds of their own, and repeat a step 20 times."""
    rng = np.random.default_rng(11)

    def looped(runs: int, weight: float) -> Side:
        speeds = np.repeat(np.exp(rng.normal(0, 0.5, runs)), 20)
        durations = buckets(200 * speeds * np.exp(rng.normal(0, 0.1, 20 * runs)))
        size = 20 * runs
        return Side(Sample(durations.values, durations.counts, BUCKET_ERROR, weight), size, 0, None)

    step = ("step", "sync", "page")
    for weight, low, high in ((1.0, 40, 100), (1 / 20, 0, 6)):
        false = sum(
            verdicts({step: (looped(30, weight), looped(30, weight))}, 0.0) != ["no evidence"]
            for _ in range(100)
        )
        assert low <= false <= high
    assert verdicts({step: (looped(9, 1 / 20), looped(9, 1 / 20))}) == ["too few"]
    assert compare({step: (looped(9, 1 / 20), looped(9, 1 / 20))})["p50_change"].isna().all()


def test_too_few_new_and_gone() -> None:
    rng = np.random.default_rng(9)
    nothing, equal = Side(Sample([], []), 0, 0), Side(Sample([7], [50]), 50, 0)
    groups = {
        ("workflow", "rare", None): (side(rng, 9), side(rng, 500, median=4_000.0)),
        ("workflow", "added", None): (nothing, side(rng, 3)),
        ("workflow", "removed", None): (side(rng, 3), nothing),
        ("workflow", "started", None): (side(rng, 300), nothing._replace(running=2)),
        ("workflow", "same", None): (equal, equal),
        # Old databases have no times of steps.
        ("step", "same", "untimed"): (nothing._replace(finished=50), nothing._replace(finished=50)),
    }
    frame = compare(groups)
    found = dict(zip(frame["function_name"].fillna(frame["name"]), frame["verdict"], strict=True))
    assert found == {
        "rare": "too few",
        "added": "new",
        "removed": "gone",
        "started": "too few",
        "same": "no evidence",
        "untimed": "no evidence",
    }
    assert frame["verdict"].tolist()[:2] == ["new", "gone"]
    assert frame["p_value"].isna().sum() == 4
    # Nothing ran on one side: that nothing is there says nothing about a kind.
    assert verdicts({WORKFLOW: (side(rng, 3), nothing)}) == ["too few"]


# On databases


def dtypes(frame: pd.DataFrame) -> dict[str, str]:
    return {name: str(dtype) for name, dtype in frame.dtypes.items()}


def test_numbers_are_those_of_the_rows(shop: dn.Client) -> None:
    workflows = shop.workflows(limit=None, load_activity=False)
    middle = workflows["created_at"].sort_values().iloc[len(workflows) // 2]
    windows = {"end_time": middle - pd.Timedelta("1ms")}, {"start_time": middle}
    frame = shop.compare_versions(*windows)
    assert dtypes(frame) == dtypes(shop.compare_versions({"name": "a"}, {"name": "b"}))
    late = workflows["created_at"] >= middle
    steps = shop.steps(workflows)
    steps = steps.merge(workflows[["workflow_id", "name"]], on="workflow_id")
    steps = steps[~steps["function_name"].str.startswith("DBOS.")]
    for index, word in enumerate(("baseline", "candidate")):
        runs = workflows[late == bool(index)]
        ended = runs[runs["status"].isin(["SUCCESS", "ERROR", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"])]
        whole = ended[
            (ended["status"] == "SUCCESS")
            & ended["forked_from"].isna()
            & (ended["recovery_attempts"].fillna(1) <= 1)
        ]
        own = frame[frame["of"] == "workflow"].set_index("name")
        check(own, word, ended.groupby("name", observed=True), whole.groupby("name", observed=True))
        running = runs[runs["status"] == "PENDING"].groupby("name", observed=True).size()
        assert own[f"running_{word}"][lambda n: n > 0].to_dict() == running.to_dict()
        mine = steps[steps["workflow_id"].isin(runs["workflow_id"])]
        own = frame[frame["of"] == "step"].set_index(["name", "function_name"])
        keys = ["name", "function_name"]
        good = mine[mine["status"] == "SUCCESS"]
        check(own, word, mine.groupby(keys, observed=True), good.groupby(keys, observed=True))
        assert own[f"running_{word}"].isna().all()


def check(frame: pd.DataFrame, word: str, ended: Any, timed: Any) -> None:
    """Compare the columns of one side with grouped rows."""
    counts = frame[f"count_{word}"]
    assert counts[counts > 0].to_dict() == ended.size().to_dict()
    rates = ended["status"].agg(lambda status: (status != "SUCCESS").mean())
    assert frame[f"error_rate_{word}"].dropna().to_dict() == pytest.approx(rates.to_dict())
    p50 = timed["duration"].agg(
        lambda spans: spans.dt.total_seconds().quantile(0.5, interpolation="lower")
    )
    found = frame[f"p50_{word}"].dropna().dt.total_seconds()
    # The bound is reached exactly, and durations are floats here.
    error = BUCKET_ERROR + 1e-9
    assert found.to_dict() == pytest.approx(p50.dropna().to_dict(), rel=error, abs=0.001)


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def versions(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[dn.Client]:
    """The corpus's database with 40 runs of two versions, of which the second is slower."""
    rows = []
    for number in range(80):
        version, number_of_version = ("1.0", number) if number < 40 else ("2.0", number - 40)
        lasted = (1_000 if version == "1.0" else 1_500) + 7 * number_of_version
        begun = 1_790_000_000_000 + number * 60_000
        status = "ERROR" if number_of_version % 10 == 9 else "SUCCESS"
        rows.append((f"v-{number}", status, "deploy", version, begun, begun + lasted))
    insert = (
        "INSERT INTO {}workflow_status (workflow_uuid, status, name, application_version, "
        "created_at, updated_at, started_at_epoch_ms, completed_at, recovery_attempts) "
        "VALUES ({}, 1)"
    )
    step = (
        "INSERT INTO {}operation_outputs (workflow_uuid, function_id, function_name, "
        "started_at_epoch_ms, completed_at_epoch_ms) VALUES ({})"
    )
    registered = (
        "INSERT INTO {}application_versions (version_id, version_name, version_timestamp, "
        "created_at) VALUES ('r-3', '3.0', 5, 5)"
    )
    workflows = [(*row[:4], row[4], row[5], row[4], row[5]) for row in rows]
    steps = [(row[0], 1, "build", row[4], row[5] - 400) for row in rows]
    # A fork of the second version has a copied step, and took the time of what it repeated.
    fork = "UPDATE {}workflow_status SET forked_from = 'v-0' WHERE workflow_uuid = 'v-fork'"
    workflows.append(
        ("v-fork", "SUCCESS", "deploy", "2.0", *(1_790_009_000_000 + n for n in (0, 5, 0, 5)))
    )
    steps.append(("v-fork", 1, "build", steps[0][3], steps[0][4]))
    running = ("v-run", "PENDING", "deploy", "2.0", 1_790_009_000_000, 1_790_009_000_000)
    workflows.append((*running, 1_790_009_000_000, None))
    if request.param == "sqlite":
        path = tmp_path_factory.mktemp("versions") / "versions.sqlite"
        shutil.copyfile(request.getfixturevalue("old_sqlite"), path)
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.executemany(insert.format("", ",".join("?" * 8)), workflows)
            connection.executemany(step.format("", ",".join("?" * 5)), steps)
            connection.execute(fork.format(""))
            connection.execute(registered.format(""))
        url: Any = path
    else:
        restore: Callable[[str], str] = request.getfixturevalue("corpus_postgres")
        url = restore("3.4.0")
        with psycopg.connect(url) as connection:
            cursor = connection.cursor()
            cursor.executemany(insert.format("dbos.", ",".join(["%s"] * 8)).encode(), workflows)
            cursor.executemany(step.format("dbos.", ",".join(["%s"] * 5)).encode(), steps)
            cursor.execute(fork.format("dbos.").encode())
            cursor.execute(registered.format("dbos.").encode())
    with dn.connect(url) as db:
        yield db


def test_two_versions(versions: dn.Client) -> None:
    frame = versions.compare_versions("1.0", "2.0")
    assert list(frame.columns) == list(COLUMNS)
    workflow, step = frame[frame["of"] == "workflow"].iloc[0], frame[frame["of"] == "step"].iloc[0]
    assert (workflow["name"], workflow["verdict"]) == ("deploy", "slower")
    assert (step["function_name"], step["verdict"]) == ("build", "slower")
    # The fork is a run, but neither its time nor its copied step count.
    assert (workflow["count_baseline"], workflow["count_candidate"]) == (40, 41)
    assert (workflow["running_baseline"], workflow["running_candidate"]) == (0, 1)
    assert (step["count_baseline"], step["count_candidate"]) == (40, 40)
    assert workflow["p50_change"] == pytest.approx(0.44, abs=0.03)
    assert workflow["p50_change_low"] > 0.3
    assert workflow["p50_baseline"] == pytest.approx(
        pd.Timedelta("1.13s"), abs=pd.Timedelta("20ms")
    )
    assert math.isclose(workflow["error_rate_baseline"], 0.1)
    assert frame.attrs["dbos_notebook"] == "compare_versions"


def test_one_kind_and_the_filters_of_both_sides(versions: dn.Client) -> None:
    frame = versions.compare_versions("1.0", "2.0", of="workflow", name="deploy", is_fork=False)
    assert frame["count_candidate"].tolist() == [40]
    turned = versions.compare_versions("2.0", "1.0", of=["workflow"])
    assert turned["verdict"].tolist() == ["faster"]
    mixed = versions.compare_versions("1.0", {"app_version": "2.0", "status": "SUCCESS"})
    assert mixed.loc[0, "error_rate_candidate"] == 0


def test_a_registered_version_without_runs_says_too_few(versions: dn.Client) -> None:
    frame = versions.compare_versions("1.0", "3.0")
    assert set(frame["verdict"]) == {"too few"}
    assert set(frame["of"]) == {"workflow", "step", "failure"}


def test_a_filter_that_selects_nothing_gives_an_empty_frame(versions: dn.Client) -> None:
    frame = versions.compare_versions("1.0", "2.0", name="no such workflow")
    assert frame.empty
    assert dtypes(frame) == dtypes(versions.compare_versions("1.0", "2.0"))


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("1.0", "2.00"), {}, "No workflow has the version '2.00'. Did you mean '2.0'?"),
        (("1.0", "1.0"), {}, "select the same runs"),
        (("1.0", {"name": "deploy"}), {}, "both select the workflow 'v-"),
        (("1.0", {"nane": "deploy"}), {}, "Did you mean 'name'?"),
        (("1.0", 2.0), {}, "candidate=2.0 must be an application version"),
        (("1.0", "2.0"), {"app_version": "1.0"}, "Give it once"),
        (("1.0", "2.0"), {"of": "steps"}, "Did you mean 'step'?"),
        (("1.0", "2.0"), {"min_effect": -0.1}, "min_effect=-0.1 must be a number from 0"),
        (("1.0", "2.0"), {"confidence": 95}, "confidence=95 must be a number from 0.5 to below 1"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    versions: dn.Client, arguments: Any, options: Any, message: str
) -> None:
    with pytest.raises(dn.FilterError) as raised:
        versions.compare_versions(*arguments, **options)
    assert message in str(raised.value)


def test_new_and_gone_causes_of_failures_are_those_of_failures(db: dn.Client) -> None:
    failures = db.failures().astype({"failed_step": object, "error_type": object})
    failures = failures.fillna({"failed_step": "", "error_type": "", "message": ""})
    keys = ["name", "failed_step", "error_type", "message"]
    expected = failures.groupby(keys, observed=True)["count"].sum()
    assert len(expected) == 2
    sides = {"status": "SUCCESS"}, {"status": "ERROR"}
    for word, arguments in (("new", sides), ("gone", sides[::-1])):
        frame = db.compare_versions(*arguments, of="failure")
        assert set(frame["verdict"]) == {word}
        frame = frame.fillna({"function_name": "", "error_type": "", "message": ""})
        keys = ["name", "function_name", "error_type", "message"]
        count = f"count_{'candidate' if word == 'new' else 'baseline'}"
        assert frame.set_index(keys)[count].to_dict() == expected.to_dict()
    assert not (frame["of"] != "failure").any()


def test_what_an_incident_brought_is_found(incident_sqlite: Path) -> None:
    with dn.connect(incident_sqlite, application_name="demo-documents") as db:
        frame = db.compare_versions("1.4.1", "1.4.2")
    errors = frame[frame["verdict"] == "more errors"]
    assert errors["name"].unique().tolist() == ["documents.workflows.process_invoice"]
    assert errors["function_name"].dropna().tolist() == [
        "documents.pipelines.invoice.validate_fields"
    ]
    new = frame[(frame["of"] == "failure") & (frame["verdict"] == "new")].iloc[0]
    assert new["function_name"] == "documents.pipelines.invoice.validate_fields"
    assert new["p_value"] < 0.001
    assert new["error_rate_candidate"] == 1


@pytest.mark.parametrize("version", ["2.0.0", "2.20.0", "3.4.0"])
def test_databases_of_all_versions_can_be_compared(
    corpus_sqlite: Callable[[str], Path], corpus_postgres: Callable[[str], str], version: str
) -> None:
    found = []
    for database in (corpus_sqlite(version), corpus_postgres(version)):
        with dn.connect(database) as db:
            frame = db.compare_versions({"status": "SUCCESS"}, {"status": "ERROR"})
            keys = ["of", "name", "function_name", "verdict", "count_baseline", "count_candidate"]
            found.append(sorted(map(str, frame[keys].itertuples(index=False, name=None))))
            # Databases before step times have no durations of steps.
            timed = frame[frame["of"] == "step"]["p50_baseline"].notna().any()
            assert timed == ("started_at_epoch_ms" in db.catalog.tables["operation_outputs"])
    assert found[0] == found[1]
