"""Service levels are those of the rows. The interval is that of ``confidence``, tested there."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from written_runs import HOUR, NOW, WrittenDatabase, random_runs, run

import dbos_notebook as dn

FAILED = ["ERROR", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"]


def decided(rows: pd.DataFrame, latency: pd.Timedelta, now: pd.Timestamp) -> pd.DataFrame:
    """Return the kind of each run and when it was decided, from the rows, with pandas."""
    base = rows["created_at"].where(
        ~(rows["delay_until"] > rows["created_at"]), rows["delay_until"]
    )
    ended = rows["completed_at"].where(~rows["status"].isin(["PENDING", "ENQUEUED", "DELAYED"]))
    slow = (ended - base > latency) | (ended.isna() & (now - base >= latency))
    kinds = pd.Series("undecided", rows.index)
    kinds[rows["status"] == "SUCCESS"] = "good"
    kinds[rows["status"].isin(FAILED)] = "failed"
    kinds[rows["status"] == "CANCELLED"] = "cancelled"
    kinds[slow] = "slow"
    return pd.DataFrame({"kind": kinds, "at": ended.where(~slow, base + latency)})


@pytest.mark.parametrize("latency", ["1s", "61s", "2h"])
def test_the_level_is_that_of_the_rows(written: WrittenDatabase, now: int, latency: str) -> None:
    written.write(random_runs(7, 500, before=NOW + 7 * HOUR))
    moment = pd.Timestamp(now, unit="ms", tz="UTC")
    with dn.connect(written.url) as db:
        rows = db.workflows(name="pay", limit=None, load_errors=False)
        level = db.slo("pay", latency=latency, target=0.9, window="26h")
        part = db.slo("pay", latency=latency, target=0.9, window="26h", executor_id="worker-1")
    assert level["window"].tolist() == [pd.Timedelta(each) for each in ("1h", "6h", "24h", "26h")]
    known = decided(rows, pd.Timedelta(latency), moment)
    for row in level.to_dict("records"):
        recent = (known["at"] > moment - row["window"]) & (known["at"] <= moment)
        inside = known[recent]["kind"].value_counts()
        for kind in ("good", "failed", "slow", "cancelled"):
            assert row[kind] == inside.get(kind, 0), (kind, row)
        assert row["runs"] == row["good"] + row["failed"] + row["slow"] > 0
        share = row["good"] / row["runs"]
        assert row["compliance"] == share
        assert row["met"] == (share >= 0.9)
        assert row["burn_rate"] == pytest.approx((1 - share) / 0.1)
        assert row["budget_left"] == pytest.approx(1 - row["burn_rate"])
        assert row["budget"] == pytest.approx(row["runs"] * 0.1)
        assert row["compliance_low"] <= share <= row["compliance_high"]
    assert level.attrs["undecided"] == (known["kind"] == "undecided").sum()
    assert 0 < part["runs"].iloc[-1] < level["runs"].iloc[-1]


def test_a_hanging_run_is_bad_once_it_is_too_slow(written: WrittenDatabase, now: int) -> None:
    pending = {"status": "PENDING", "completed_at": None}
    written.write(
        [
            run("young", now - 20_000, **pending),
            run("hangs", now - 2 * HOUR, **pending),
            run("stuck", now - 40_000, status="ENQUEUED", queue_name="mail"),
            run("later", now - 2 * HOUR, status="DELAYED", delay_until_epoch_ms=now + HOUR),
            run("cancelled", now - HOUR, status="CANCELLED", completed_at=now - HOUR + 5_000),
            run("too late", now - HOUR, status="CANCELLED", completed_at=now - HOUR + 50_000),
            run("exact", now - HOUR, completed_at=now - HOUR + 30_000),
            run(
                "delayed", now - 3 * HOUR, delay_until_epoch_ms=now - HOUR, completed_at=now - HOUR
            ),
        ]
    )
    with dn.connect(written.url) as db:
        level = db.slo("work", latency=30, target=0.5)
    last = level.iloc[-1]
    assert last[["runs", "good", "failed", "slow", "cancelled"]].tolist() == [5, 2, 0, 3, 1]
    assert level.attrs["undecided"] == 2
    # It became too slow half a minute after its creation, two hours ago.
    assert level["slow"].tolist() == [2, 3, 3, 3]
    assert last["compliance"] == 0.4
    assert not last["met"]
    assert last["budget_left"] == pytest.approx(1 - 0.6 / 0.5)


def test_a_level_without_runs_is_unknown(written: WrittenDatabase, now: int) -> None:
    written.write([run("one", now - HOUR, completed_at=now - HOUR + 1)])
    with dn.connect(written.url) as db:
        level = db.slo("work", latency=1, user="nobody")
        one = db.slo("work", latency=1)
    assert level["runs"].tolist() == [0] * 4
    unknown = ["compliance", "compliance_low", "compliance_high", "budget_left", "burn_rate", "met"]
    assert level[unknown].isna().all().all()
    assert level.dtypes.to_dict() == one.dtypes.to_dict()
    # One good run says little: the interval is wide.
    assert one["compliance"].iloc[-1] == 1.0
    assert one["compliance_low"].iloc[-1] == pytest.approx(0.2065, abs=1e-4)
    assert bool(one["met"].iloc[-1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"latency": 0}, "latency=0 must be"),
        ({"latency": "soon"}, "latency='soon' is not a duration"),
        ({"latency": 1, "target": 1}, "a target of 1 has no error budget"),
        ({"latency": 1, "target": 99}, "target=99"),
        ({"latency": 1, "window": "-1d"}, "window='-1d' must be"),
    ],
)
def test_wrong_arguments_are_refused(
    written: WrittenDatabase, now: int, arguments: dict[str, Any], message: str
) -> None:
    written.write([run("one", now - HOUR, completed_at=now - HOUR + 1)])
    with dn.connect(written.url) as db:
        with pytest.raises(dn.FilterError, match=message):
            db.slo("work", **arguments)
        with pytest.raises(
            dn.FilterError, match=r"No workflow is named 'wrok'. Did you mean 'work'"
        ):
            db.slo("wrok", latency=1)
