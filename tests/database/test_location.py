"""What people pass as a database, mistakes included: found, or refused without its password."""

from __future__ import annotations

import random
import traceback
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import sqlalchemy as sa

import dbos_notebook as dn
from dbos_notebook.database.location import locate

SECRET = "s3cr3tXYZ"
SERVER = "127.0.0.1:1"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DBOS_SYSTEM_DATABASE_URL", raising=False)


def everything_kept(error: BaseException) -> str:
    """Return what an error says, keeps, and has in the variables of our own frames."""
    told = [str(error), repr(error), repr(vars(error))]
    assert error.__context__ is None, "the driver's error is kept, and with it the connection"
    assert error.__cause__ is None
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if "dbos_notebook" in frame.f_code.co_filename:
            told += [repr(value) for value in frame.f_locals.values()]
    return "\n".join(told)


MISTAKES = {
    "nothing wrong": f"postgresql://ada:{SECRET}@{SERVER}/shop",
    "@ in the password": f"postgresql://ada:p@{SECRET}@{SERVER}/shop",
    "/ in the password": f"postgresql://ada:x/{SECRET}@{SERVER}/shop",
    "/ behind it": f"postgresql://ada:{SECRET}/x@{SERVER}/shop",
    "a number and /": f"postgresql://ada:12/{SECRET}@{SERVER}/shop",
    "? in the password": f"postgresql://ada:x?{SECRET}@{SERVER}/shop",
    "# in the password": f"postgresql://ada:x#{SECRET}@{SERVER}/shop",
    "% in the password": f"postgresql://ada:%{SECRET}@{SERVER}/shop",
    "% and half a character": f"postgresql://ada:%ab{SECRET}@{SERVER}/shop",
    "? and @ in the password": f"postgresql://ada:?@{SECRET}/@h:1",
    "@ and / in the password": f"postgresql://ada:p@{SECRET}/x@{SERVER}/shop",
    "@ and / in it, no port": f"postgresql://ada:p@{SECRET}/x@127.0.0.1",
    "@ in a parameter": f"postgresql://h?password=p@{SECRET}",
    "a domain before the user": f"postgresql://dom/ada:{SECRET}@{SERVER}/shop",
    "a space before": f" postgresql://ada:{SECRET}@{SERVER}/shop",
    "a line end behind": f"postgresql://ada:{SECRET}@{SERVER}/shop\n",
    "in quotes": f'"postgresql://ada:{SECRET}@{SERVER}/shop"',
    "one slash": f"postgresql:/ada:{SECRET}@{SERVER}/shop",
    "no scheme": f"ada:{SECRET}@{SERVER}/shop",
    "no scheme and /": f"ada:x/{SECRET}@{SERVER}/shop",
    "no scheme and user": f"{SECRET}@{SERVER}/shop",
    "no scheme, no port": f"ada/{SECRET}@127.0.0.1/shop",
    "a line of .pgpass": f"{SERVER}:shop:ada:{SECRET}",
    "the same for all": f"*:*:shop:ada:{SECRET}",
    "a timeout with a unit": f"postgresql://ada:{SECRET}@{SERVER}/shop?connect_timeout=5s",
    "no timeout": f"postgresql://ada:{SECRET}@{SERVER}/shop?connect_timeout=",
    "JDBC": f"jdbc:postgresql://{SERVER}/shop?user=ada&password={SECRET}",
    "another database": f"mysql://ada:{SECRET}@{SERVER}/shop",
    "Password": f"postgresql://ada@{SERVER}/shop?Password={SECRET}",
    "libpq": f"host=127.0.0.1 port=1 user=ada password={SECRET} dbname=shop",
    "libpq, a space in it": f"host=127.0.0.1 password=a {SECRET} dbname=shop",
    "libpq, an open quote": f"host=127.0.0.1 password='{SECRET} dbname=shop",
    "libpq, a long token": f"host=127.0.0.1 port=1 user=ada password={SECRET}{'t' * 400}",
    "libpq, semicolons": f"host=127.0.0.1;port=1;user=ada;password={SECRET};dbname=shop",
    "libpq, semicolons later": f"user=ada;password={SECRET} host=127.0.0.1 port=1",
    "libpq, commas": f"host=127.0.0.1,port=1,user=ada,password={SECRET}",
    "libpq, in quotes": f"'host=127.0.0.1 port=1 password={SECRET}'",
    "libpq, a URL in it": f"host=127.0.0.1 dbname=postgresql://ada:{SECRET}@h/x",
    "ADO": f"Server=127.0.0.1;Port=1;User Id=ada;Password={SECRET};Database=shop",
    "a SQLite URL with a login": f"sqlite://ada:{SECRET}@host/x.sqlite",
    "the same, a bad port": f"sqlite://ada:{SECRET}@host:abc/x.sqlite",
    "half a character": f"postgresql://ada:{SECRET}\ud800@{SERVER}/shop",
    "a NUL": f"postgresql://ada:{SECRET}\0@{SERVER}/shop",
    "a tuple": (f"postgresql://ada:{SECRET}@{SERVER}/shop",),
    "bytes": f"postgresql://ada:{SECRET}@{SERVER}/shop".encode(),
    "a Path": Path(f"postgresql://ada:{SECRET}@{SERVER}/shop"),
    "nobody's home": f"~nobody-of-this-name/{SECRET}",
    "a long name": f"{SECRET * 200}.sqlite",
}


@pytest.mark.parametrize("what", MISTAKES)
def test_a_mistake_in_the_url_is_reported_without_the_password(what: str) -> None:
    database: Any = MISTAKES[what]
    with pytest.raises((dn.LocationError, dn.DatabaseConnectionError)) as raised:
        dn.connect(database)
    assert SECRET not in everything_kept(raised.value)


def test_no_password_is_shown_whatever_its_characters() -> None:
    """Each password ends in a word of its own, which must not come out anywhere."""
    chance = random.Random(7)
    refused = 0
    for number in range(3_000):
        letters = chance.choice(["@:/?#[]%&=;, '\"\\ab1", "@:/?1", "@/"])
        noise = "".join(chance.choices(letters, k=chance.randint(1, 6)))
        password = f"{noise}{SECRET}{number}{noise[::-1]}"
        url = chance.choice(
            [
                f"postgresql://ada:{password}@db.example:5433/shop",
                f"postgresql://ada:{password}@/shop",
                f"postgresql://ada@tenant:{password}@db.example",
                f"ada:{password}@db.example/shop",
                f"host=db.example user=ada password={password} dbname=shop",
            ]
        )
        try:
            shown = repr(locate(url)) + str(locate(url))
        except dn.LocationError as error:
            shown = everything_kept(error)
            refused += 1
        assert SECRET not in shown, url
    assert 0 < refused < 3_000


@pytest.mark.parametrize(
    "body",
    [
        f"name: shop\nsystem_database_url: postgresql://ada:{SECRET}@h/x: [\n",
        f"a:\n\t- postgresql://ada:{SECRET}@h/x\n",
        f"system_database_url: {{url: 'postgresql://ada:{SECRET}@h/x'}}\n",
        f"- postgresql://ada:{SECRET}@h/x\n",
        f"name: {{url: 'postgresql://ada:{SECRET}@h/x'}}\n",
        f"system_database_url: postgresql://ada:{SECRET}\udcff@h/x\n",
    ],
)
def test_a_broken_configuration_is_reported_without_the_password(tmp_path: Path, body: str) -> None:
    (tmp_path / "dbos-config.yaml").write_bytes(body.encode(errors="surrogateescape"))
    with pytest.raises(dn.LocationError, match=r"dbos-config\.yaml") as raised:
        dn.connect()
    assert SECRET not in everything_kept(raised.value)


@pytest.mark.parametrize(
    ("text", "label"),
    [
        (" postgresql://ada:x@db.example:5433/shop\n", "postgresql://ada@db.example:5433/shop"),
        ("'host=db.example dbname=shop'", "postgresql://db.example/shop"),
        ("“postgres://db.example/shop”", "postgresql://db.example/shop"),
        ("postgresql://ada:p%40ss%2Fx@db.example/shop", "postgresql://ada@db.example/shop"),
        ("postgresql://ada%40tenant@[::1]:5432/a%40b", "postgresql://ada@tenant@::1:5432/a@b"),
        ("postgresql://a.example,b.example:5/s", "postgresql://a.example,b.example:,5/s"),
        ("host=/var/run/x user=ada dbname=s", "postgresql://ada@/s?host=/var/run/x"),
        ("postgresql://h/s?user=ada@tenant", "postgresql://ada@tenant@h/s"),
        ("/data/12:30/a@b", None),
    ],
)
def test_valid_locations_are_accepted(text: str, label: str | None) -> None:
    if label is None:
        with pytest.raises(dn.LocationError, match="neither an existing file nor a valid URL"):
            locate(text)
    else:
        assert str(locate(text)) == label


@pytest.mark.parametrize(
    ("address", "label"),
    [
        ("ada:x/y@db.example:5433/shop", "ada@db.example:5433/shop"),
        ("ada:x/?#:y%@db.example/shop?sslmode=require", "ada@db.example/shop"),
        ("ada:x/y@/shop?host=/run/x", "ada@/shop?host=/run/x"),
        ("ada@tenant:pw@db.example/shop", "ada@tenant@db.example/shop"),
        ("ada@tenant@db.example/shop", "ada@tenant@db.example/shop"),
        ("ada@db.example/shop@eu", "ada@db.example/shop@eu"),
        ("db.example/shop@eu", "db.example/shop@eu"),
        # Or a password "p@db.example/shop" and a host "eu": DBOS reads a database "shop@eu".
        ("ada:p@db.example:5433/shop@eu", "ada@***:5433/***"),
        ("ada:p@db.example/shop%40eu", "ada@db.example/shop@eu"),
    ],
)
def test_unquoted_characters_in_a_url_are_read_as_dbos_reads_them(address: str, label: str) -> None:
    location, url = locate(f"postgresql://{address}"), sa.make_url(f"postgresql://{address}")
    assert str(location) == f"postgresql://{label}"
    read = location.parameters
    assert (read.get("user"), read.get("password")) == (url.username, url.password)
    # SQLAlchemy before 2.0.44 leaves the name of the database as it is written.
    name = unquote(url.database) if url.database else None
    assert (read.get("dbname"), read.get("port")) == (name, url.port and str(url.port))
    assert read.get("host") == (url.host or url.query.get("host"))


@pytest.mark.parametrize(
    "address",
    [
        "ada:p@ss@db.example/shop",  # DBOS reads the host "ss@db.example", which there cannot be
        "db.example:5432/shop@eu",  # DBOS reads the password "5432/shop", libpq a port and database
        "ada:12/x@db.example:5433/shop",
    ],
)
def test_an_ambiguous_url_is_refused(address: str) -> None:
    with pytest.raises(dn.LocationError, match="Percent-encode"):
        locate(f"postgresql://{address}")


def test_a_driver_error_does_not_show_parts_of_the_password() -> None:
    doubtful = locate(f"postgresql://ada:p@{SECRET}/x@h")
    assert doubtful.redact(f"failed to resolve host '{SECRET}'") == "failed to resolve host '***'"
    with pytest.raises(dn.DatabaseConnectionError) as raised:
        dn.connect(f"postgresql://ada:p@127.0.0.1:1/{SECRET}@h")
    assert SECRET not in everything_kept(raised.value)


def test_a_file_may_be_named_like_a_url(tmp_path: Path) -> None:
    odd = tmp_path / "ada:pw@h password=x"
    odd.touch()
    assert locate(str(odd)).path == odd
    assert locate(odd.name).path == odd


def test_words_of_the_location_are_not_masked() -> None:
    both = locate("postgresql://postgres:postgres@db.example/shop")
    assert both.redact('for user "postgres"') == 'for user "postgres"'
    short = locate("postgresql://ada:Qz9@db.example/shop")
    assert "Qz9" not in short.redact("it says Qz9 here")
    assert "***" not in short.redact("it says Qz9 here")
    assert short.redact("nothing of it") == "nothing of it"
    assert locate(f"postgresql://ada:{SECRET}@h/x").redact(f"a {SECRET} b") == "a *** b"


@pytest.mark.parametrize(
    "argument",
    [
        {"statement_timeout": 1e9},
        {"statement_timeout": float("inf")},
        {"statement_timeout": float("nan")},
        {"statement_timeout": "30"},
        {"statement_timeout": 0},
        {"schema": "\ud800"},
        {"schema": "a\0"},
        {"schema": ""},
        {"schema": 7},
        {"application_name": "\ud800"},
    ],
)
def test_other_invalid_arguments_are_refused(old_sqlite: Path, argument: dict[str, Any]) -> None:
    with pytest.raises(dn.LocationError, match=next(iter(argument))):
        dn.connect(old_sqlite, **argument)
