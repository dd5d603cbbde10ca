"""Reading and control with the installed dbos, of a database that the same version wrote.

``make versions`` runs this with several dbos versions, ``make lowest`` with the oldest that can be
installed. An application of that version writes the databases and runs again after the tests.
"""

from __future__ import annotations

import inspect
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from dbos import DBOSClient
from reference import STEP_FIELDS, WORKFLOW_FIELDS, our_records
from servers import PostgresServer, Proxy, wait_until

import dbos_notebook as dn
from dbos_notebook.database import releases

APPLICATION = Path(__file__).with_name("versions_application.py")
INSTALLED = releases.installed_version()
VERSION = releases.parse_version(INSTALLED)
EXTENSION = (
    "CREATE FUNCTION uuid_generate_v4() RETURNS uuid LANGUAGE sql AS 'SELECT gen_random_uuid()';"
)


def run_application(url: str, *awaited: str) -> None:
    """Run the application of the installed version until it exits."""
    done = subprocess.run(
        [sys.executable, str(APPLICATION), url, *awaited],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
        cwd=APPLICATION.parent,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


@pytest.fixture(scope="module")
def sqlite_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    url = f"sqlite:///{tmp_path_factory.mktemp('versions')}/app.sqlite"
    run_application(url)
    return url


@pytest.fixture(scope="module")
def uuid_function(postgres_server: PostgresServer) -> Iterator[None]:
    """The function of uuid-ossp that dbos 2 uses; the embedded server lacks the extension."""
    # Not in pytest's directory, which the server's user may not enter.
    directory = Path(tempfile.mkdtemp(prefix="dnext"))
    directory.chmod(0o755)
    extension = directory / "extension"
    extension.mkdir(mode=0o755)
    (extension / "uuid-ossp.control").write_text("default_version = '1.1'\n")
    (extension / "uuid-ossp--1.1.sql").write_text(EXTENSION)
    with postgres_server.admin() as connection:
        path = f"ALTER SYSTEM SET extension_control_path = '{directory}:$system'"
        connection.execute(path.encode())
        connection.execute("SELECT pg_reload_conf()")
    with postgres_server.admin() as connection:
        shown = "SHOW extension_control_path"
        wait_until(lambda: str(directory) in connection.execute(shown).fetchone()[0])
    yield
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def postgres_url(postgres_server: PostgresServer, uuid_function: None) -> Iterator[str]:
    """A database by TCP, because the first versions support nothing else."""
    name = postgres_server.create_database()
    proxy = Proxy(postgres_server)
    url = f"postgresql://postgres:any@127.0.0.1:{proxy.port}/{name}"
    run_application(url)
    yield url
    proxy.close()


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(f"{request.param}_url"))


def own_client(url: str) -> DBOSClient:
    """Return the installed version's own client."""
    needed = inspect.signature(DBOSClient.__init__).parameters
    options: dict[str, Any] = {"system_database_url": url}
    if VERSION < (2, 0):
        options["application_database_url"] = url
    if "retry_connection_errors" in needed:
        options["retry_connection_errors"] = False
    return DBOSClient(**options)


def test_listings_match_the_installed_dbos(url: str) -> None:
    client = own_client(url)
    with dn.connect(url) as db:
        listed = {each.workflow_id: each for each in client.list_workflows()}
        fields = [
            name for name in WORKFLOW_FIELDS if all(hasattr(each, name) for each in listed.values())
        ]
        assert {"status", "name", "created_at", "app_version", "recovery_attempts"} <= set(fields)
        frame = db.workflows(limit=None, load_input=True, load_output=True)
        ours = {row["workflow_id"]: row for row in our_records(frame, fields)}
        assert ours.keys() == listed.keys()
        for workflow_id, row in ours.items():
            expected = {name: getattr(listed[workflow_id], name) for name in fields}
            expected["was_forked_from"] = bool(expected.get("was_forked_from"))
            row["was_forked_from"] = bool(row.get("was_forked_from"))
            assert row == expected
        payloads = frame.set_index("workflow_id")
        if VERSION >= (2, 0):  # before, they were written as jsonpickle
            for workflow_id, status in listed.items():
                assert payloads.loc[workflow_id, "output"] == status.output
                assert list(payloads.loc[workflow_id, "input"]["args"]) == list(
                    status.input["args"]
                )
        assert payloads.loc["bad", "error_type"] == "ValueError" or VERSION < (2, 0)
    client.destroy()


def test_steps_match_the_installed_dbos(url: str) -> None:
    client = own_client(url)
    with dn.connect(url) as db:
        for workflow_id in ("good", "bad", "parent"):
            expected = client.list_workflow_steps(workflow_id)
            fields = [name for name in STEP_FIELDS if name in expected[0]]
            ours = our_records(db.steps(workflow_id), [*fields, "status"])
            assert ours == [
                {name: step[name] for name in fields}
                | {"status": "SUCCESS" if step["error"] is None else "ERROR"}
                for step in expected
            ]
    client.destroy()


def test_graph_and_tree_can_be_read(url: str) -> None:
    with dn.connect(url) as db:
        graph = db.graph("parent")
        assert {("parent", 1)} <= set(graph.nodes)
        assert set(db.tree("parent")["workflow_id"]) == {"parent", "parent-1"}
        assert "<svg" in dn.draw(graph).svg


def test_control_of_a_database_of_the_installed_version(url: str) -> None:
    with dn.connect(url) as db:
        if VERSION < releases.FIRST_SUPPORTED:
            with pytest.raises(dn.errors.UnsupportedRevisionError, match=r'"dbos==2\.0\.\*"'):
                db.cancel("waits-1")
            return
        assert db.catalog.control, db.catalog.control.reason
        with pytest.raises(dn.errors.WorkflowNotFoundError):
            db.cancel("no-such")

        receipt = db.cancel(["waits-1", "waits-2", "good"])
        assert outcomes(receipt) == {"waits-1": "done", "waits-2": "done", "good": "unchanged"}
        assert db.workflow("waits-1").status == "CANCELLED"

        assert outcomes(db.resume(["waits-1", "cancelled"])) == {
            "waits-1": "done",
            "cancelled": "done",
        }
        assert db.workflow("cancelled").status == "ENQUEUED"

        plan = db.fork("bad", "failed", key="incident", plan=True)
        fork = plan.apply().lines[0]
        assert (fork.outcome, fork.status_before) == ("done", "ERROR")
        new_id = fork.new_workflow_id
        again = db.fork("bad", "failed", key="incident").lines[0]
        assert (again.outcome, again.new_workflow_id) == ("unchanged", new_id)
        assert db.steps(new_id)["function_name"].tolist() == [
            db.steps("bad")["function_name"].iloc[0]
        ]

        check_delete(db)
    run_application(url, new_id, "waits-1", "cancelled")
    with dn.connect(url) as db:
        frame = db.workflows(workflow_ids=[new_id, "waits-1", "cancelled"], load_output=True)
        outputs = frame.set_index("workflow_id")["output"].to_dict()
    # The fork has its original's input and the step before the failed one.
    assert outputs == {new_id: 198, "waits-1": 2, "cancelled": 8}


def outcomes(receipt: Any) -> dict[str, str]:
    return {line.workflow_id: line.outcome for line in receipt.lines}


def check_delete(db: dn.Client) -> None:
    """Delete a workflow; versions whose client cannot are refused with the version that can."""
    if VERSION < (2, 15):
        with pytest.raises(dn.errors.UnsupportedRevisionError, match=r"delete needs dbos 2\.15"):
            db.delete("waits-3", force=True, confirm=True)
        assert db.workflow("waits-3").status == "ENQUEUED"
        return
    assert outcomes(db.delete("waits-3", force=True, confirm=True)) == {"waits-3": "done"}
    with pytest.raises(dn.errors.WorkflowNotFoundError):
        db.workflow("waits-3")


# An option, the first version that has it, and a call with it.
OPTIONS: list[tuple[str, releases.Version, Callable[[dn.Client], Any]]] = [
    ("queue_name", (2, 15), lambda db: db.fork("bad", 2, queue_name="q", plan=True)),
    ("queue_name", (2, 15), lambda db: db.resume("cancelled", queue_name="q", plan=True)),
    ("replacement_children", (2, 16), lambda db: replace_children(db)),
    ("cancel_children", (2, 24), lambda db: db.cancel("parent", cancel_children=True, plan=True)),
    ("set_attributes", (2, 25), lambda db: db.set_attributes("good", {"a": 1}, plan=True)),
    ("timeout", (2, 30), lambda db: db.fork("bad", 2, timeout=5, plan=True)),
    ("rewind", (3, 1), lambda db: db.rewind("bad", plan=True)),
    ("merge", (3, 3), lambda db: db.set_attributes("good", {"a": 1}, merge=True, plan=True)),
]


def replace_children(db: dn.Client) -> Any:
    return db.fork("parent", 1, replacement_children={"parent-1": "good"}, plan=True)


@pytest.mark.parametrize(("name", "since", "call"), OPTIONS, ids=[name for name, *_ in OPTIONS])
def test_missing_options_are_refused_with_the_version_that_has_them(
    sqlite_url: str, name: str, since: releases.Version, call: Callable[[dn.Client], Any]
) -> None:
    with dn.connect(sqlite_url) as db:
        if since <= VERSION:
            assert call(db).items
            return
        named = re.escape(f"{name} needs dbos {releases.format_version(since)} or later")
        with pytest.raises(dn.errors.UnsupportedRevisionError, match=named):
            call(db)


def test_declared_options_are_parameters_of_the_client() -> None:
    methods = {
        "cancel": "cancel_workflow",
        "resume": "resume_workflow",
        "fork": "fork_workflow",
        "rewind": "rewind_workflow",
        "delete": "delete_workflows",
        "set_delay": "set_workflow_delay",
        "set_attributes": "update_workflow_attributes",
    }
    for (action, option), since in releases.SINCE.items():
        method = getattr(DBOSClient, methods.get(action, action), None)
        if action in ("repair", "send"):
            # Repairs are made of forks. Every client can send; before 2.14 it writes a workflow for
            # each message.
            continue
        has = method is not None
        if has and option is not None:
            name = {"timeout": "timeout_seconds"}.get(option, option)
            has = name in inspect.signature(method).parameters
        assert has == (since <= VERSION), (action, option)


def test_the_environment_has_the_expected_version() -> None:
    assert os.environ.get("EXPECTED_DBOS", INSTALLED) == INSTALLED


def test_the_revision_matches_the_release_table(url: str) -> None:
    known = {release.version: release for release in releases.RELEASES}
    with dn.connect(url) as db:
        assert db.catalog.revision == known[VERSION].revision(db.catalog.dialect)
        assert (
            releases.format_version(VERSION) in db.catalog.written_by
            or "to" in db.catalog.written_by
        )


def test_a_lost_connection_raises_instead_of_waiting(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    """DBOSClient before 2.30 has no option against retries."""
    if VERSION < releases.FIRST_SUPPORTED:
        return
    with dn.connect(postgres_url) as db:
        db.cancel("cancelled", plan=True)
        controller = db._controller
        client = controller.pool.submit(controller.pool.client).result()
        postgres_server.end_connections(postgres_url.rpartition("/")[2])
        engine = client._sys_db.engine

        def cut(connection: Any, *_: Any) -> None:
            connection.connection.driver_connection.close()

        import sqlalchemy as sa

        sa.event.listen(engine, "before_cursor_execute", cut)
        with pytest.raises((psycopg.Error, sa.exc.DBAPIError)):
            controller.pool.submit(lambda: client.fork_workflow("good", 1)).result(timeout=20)


def test_the_recommended_version_controls_the_revision_and_is_installable() -> None:
    from packaging.requirements import Requirement
    from packaging.version import Version

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    requirements = [Requirement(each) for each in project["dependencies"]]
    bound = next(each.specifier for each in requirements if each.name == "dbos")
    for dialect in ("sqlite", "postgresql"):
        for release in releases.RELEASES:
            revision = release.revision(dialect)
            advice = releases.pip_requirement(dialect, revision)
            assert advice is not None, revision
            advised = Version(advice.removeprefix("dbos==").replace("*", "0"))
            assert advised in bound
            assert releases.pip_requirement(dialect, revision) in control_reason(
                dialect, revision, "0.27.0"
            )
            assert control_possible(f"{advised}", dialect, revision)


def control_reason(dialect: str, revision: int, version: str) -> str:
    from dbos_notebook.database.catalog import control_support

    return control_support(version, dialect, revision).reason


def control_possible(version: str, dialect: str, revision: int) -> bool:
    from dbos_notebook.database.catalog import control_support

    return control_support(version, dialect, revision).possible


READING = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "dbos":
            raise AssertionError("dbos was imported to read")
if {block}:
    sys.meta_path.insert(0, Blocker())
import dbos_notebook as dn
db = dn.connect({url!r})
db.workflows(load_input=True, load_output=True); db.queued(); db.steps("good"); db.counts("status")
db.events(); db.messages(); db.streams(); db.schedules(); db.versions(); db.executors(); db.queues()
db.tree("parent"); dn.draw(db.graph("parent")).svg; db._repr_html_(); repr(db.catalog)
db.explore(); db.inspect("good"); db.board()
print("read:", db.catalog.control.reason)
try:
    {call}
except dn.errors.NotebookError as error:
    print(type(error).__name__, error)
"""


def read_in_a_new_process(script: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, *environment.pop("flags", "").split(), "-c", script],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_reading_does_not_import_dbos(sqlite_url: str) -> None:
    script = READING.format(url=sqlite_url, block=True, call="pass")
    assert "read:" in read_in_a_new_process(script)


def test_reading_works_where_dbos_is_not_installed(sqlite_url: str, tmp_path: Path) -> None:
    """Link every installed package except dbos and its metadata in one directory."""
    for entry in reversed(sys.path):
        if not entry.endswith("site-packages"):
            continue
        for part in Path(entry).iterdir():
            link = tmp_path / part.name
            if not part.name.startswith("dbos"):
                link.unlink(missing_ok=True)
                link.symlink_to(part)
    root = str(Path(dn.__file__).parents[1])
    script = READING.format(url=sqlite_url, block=False, call="db.cancel('waits-3')")
    output = read_in_a_new_process(script, flags="-S", PYTHONPATH=f"{tmp_path}{os.pathsep}{root}")
    assert "UnsupportedRevisionError dbos is not installed here" in output
    assert 'pip install "dbos==' in output
