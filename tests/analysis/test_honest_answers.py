"""What an analysis says where it cannot know, or was asked for something that is not there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

import dbos_notebook as dn
from dbos_notebook.server.cli import main


def test_nothing_runs_in_the_future(shop: dn.Client) -> None:
    window = {"start_time": "2200-01-01", "end_time": "2200-01-03"}
    assert shop.concurrency("1d", **window).empty
    assert shop.throughput("1d", **window).empty


def test_without_forks_in_the_database_it_is_unknown_what_was_copied(
    corpus_sqlite: Callable[[str], Path],
) -> None:
    with dn.connect(corpus_sqlite("2.0.0")) as db:
        assert "forked_from" not in db._store.queries.workflows.c
        events = db.event_log()
    assert len(events) > 0
    assert events["copied"].isna().all()


def test_a_variant_can_be_repaired(shop: dn.Client) -> None:
    variants = shop.variants(name="order")
    failed = variants[variants["error_rate"] == 1].iloc[0]
    plan = shop.repair(failed, plan=True)
    assert {item.workflow_id for item in plan.items} >= set(failed["workflow_ids"])


def test_a_bucket_is_a_number_of_seconds_or_a_string(shop: dn.Client) -> None:
    pd.testing.assert_frame_equal(shop.throughput(3600), shop.throughput("1h"))
    with pytest.raises(dn.FilterError, match="Give '15min', '1h', '1d', seconds or a timedelta"):
        shop.throughput("often")


def test_a_contrast_without_runs_warns(shop: dn.Client) -> None:
    with pytest.warns(UserWarning, match="bad selects no run"):
        assert shop.contrast({"name": "nope"}).empty
    with pytest.warns(UserWarning, match="no other run to compare with"):
        assert shop.contrast({"status": "ERROR"}, baseline=[]).empty


def test_a_release_needs_another_version(
    old_sqlite: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["check", "--database", str(old_sqlite), "--release", "v1"]
    assert main(command) == 1
    assert main([*command, "--against", "v1"]) == 1
    assert capsys.readouterr().err.count("Name it with --against") == 2


def test_a_chart_keeps_groups_that_took_no_time(shop: dn.Client) -> None:
    statistics = shop.workflow_statistics()
    statistics["p50"] = pd.Timedelta(0).as_unit("ms")
    picture = dn.plot(statistics)
    assert all(f">{name}<" in picture.svg for name in statistics["name"].dropna().head(5))
