"""From what a person has in hand (URL, path, nothing) to one location; redaction.

Nothing here opens a connection. Reading belongs to ``postgres`` and ``sqlite``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote

from dbos_notebook.errors import LocationError
from dbos_notebook.text import printable

ENVIRONMENT_VARIABLE = "DBOS_SYSTEM_DATABASE_URL"
CONFIG_FILE = "dbos-config.yaml"
FORMS = (
    "Give a URL (postgresql://user@host/database, sqlite:///app.sqlite), "
    "a libpq string (host=… dbname=…), or the path of a SQLite file."
)
_POSTGRES_SCHEME = re.compile(r"^(postgres(?:ql)?|cockroachdb)(\+\w+)?://", re.IGNORECASE)
_SQLITE_SCHEME = re.compile(r"^sqlite(\+\w+)?://", re.IGNORECASE)
_KEY_VALUE = re.compile(r"^\s*\w+\s*=")
_SECRET_PARAMETERS = (
    "password",
    "sslpassword",
    "oauth_client_secret",
    "scram_client_key",
    "scram_server_key",
)
_SHORTEST_SECRET = 4
_QUOTES = ("''", '""', "``", "“”", "‘’", "<>")
# What a URL or a libpq string that was mistaken for the name of a file looks like; not C:/.
_ADDRESS = re.compile(r"://|^[\w+.-]{2,}:/|:.*@|(pass|pwd|secret|token)\w*\s*[=:]", re.I | re.S)
_HOST = re.compile(r"[\w.:%-]*|[/@][^@=;]*")
_PORT = re.compile(r"[\d,]*")
# As SQLAlchemy divides a URL.
_LOGIN = re.compile(r"(?P<user>[^:/]*)(?::(?P<password>[^@]*))?@")
_PARAMETER = re.compile(r"://|[;,&\s]\s*\w+\s*=|^\w*pass\w*\s*=", re.IGNORECASE)


@dataclass(frozen=True)
class Location:
    """One system database: a Postgres server's, or a SQLite file.

    Its ``repr`` and ``str`` never hold a password.
    """

    kind: Literal["postgres", "sqlite"]
    label: str
    parameters: Mapping[str, Any] = field(default_factory=dict, repr=False, hash=False)
    path: Path | None = None
    source: str = "argument"
    # The host and database may be parts of a password that holds a bare @: they are not shown.
    doubtful: bool = False

    def __str__(self) -> str:
        return self.label

    def url(self) -> str:
        """Return the URL that SQLAlchemy takes. It holds the password: never show it."""
        from sqlalchemy.engine import URL

        if self.path:
            return f"sqlite:///{self.path}"
        parts = {name: str(value) for name, value in self.parameters.items() if value is not None}
        url = URL.create(
            "postgresql",
            username=parts.pop("user", None),
            password=parts.pop("password", None),
            host=parts.pop("host", None),
            port=int(parts.pop("port")) if "port" in parts else None,
            # As libpq: the database of the user's name.
            database=parts.pop("dbname", self.parameters.get("user")),
            query=parts,
        )
        # A socket's directory cannot stand where a host name does.
        if url.host and url.host.startswith("/"):
            url = url.set(host="").update_query_dict({"host": url.host})
        return url.render_as_string(hide_password=False)

    def address(self) -> str:
        """Return what :func:`locate` finds it by from anywhere, **with its secrets**.

        For the environment of a child process, and never to be shown.

        Examples
        --------
        >>> locate("sqlite:////data/shop.sqlite").address()
        '/data/shop.sqlite'
        """
        from psycopg.conninfo import make_conninfo

        return str(self.path) if self.path else make_conninfo(**self.parameters)

    def redact(self, text: str) -> str:
        """Remove this location's secrets from a text, such as a driver's message."""
        doubtful = ("host", "dbname") if self.doubtful else ()
        for name in (*_SECRET_PARAMETERS, *doubtful):
            secret = str(self.parameters.get(name) or "")
            # Stars in the place of a word that is known to stand there would tell the password.
            if not secret or secret not in text or secret in self.label:
                continue
            if len(secret) < _SHORTEST_SECRET:
                return "(what it said is left out, for the password might show in it)"
            text = text.replace(secret, "***")
        return text


def locate(database: str | os.PathLike[str] | None = None) -> Location:
    """Find the system database that the argument, or the surroundings, name.

    Parameters
    ----------
    database
        A URL, a libpq key=value string, or a path. ``None``: the environment
        variable ``DBOS_SYSTEM_DATABASE_URL``, then ``dbos-config.yaml`` in the working
        directory, resolved as DBOS resolves it (``${VAR}`` substituted; without a
        ``system_database_url``, ``sqlite:///<name>.sqlite``).

    Returns
    -------
    Location

    Raises
    ------
    LocationError
        Nothing names a database, or what does cannot be read as one.

    Examples
    --------
    >>> str(locate("postgresql+psycopg://ada:secret@db.example:5433/shop"))
    'postgresql://ada@db.example:5433/shop'
    >>> locate("sqlite:///shop.sqlite").path.name
    'shop.sqlite'
    """
    try:
        return _located(database)
    except LocationError as error:
        # Without the frames, whose variables hold the text and its password, and without the
        # driver's own error, which quotes it.
        problem = error.with_traceback(None)
    del database
    problem.__context__ = None
    raise problem


def check_name(name: str, value: object) -> None:
    """Raise LocationError where ``value`` is no text that names something in a database."""
    if not isinstance(value, str) or not value:
        raise LocationError(f"{name}={value!r} must be a text, and not an empty one.")
    if "\0" in value or not _encodable(value):
        raise LocationError(f"{name}={value!r} holds a character that no name can have.")


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _located(database: Any) -> Location:
    if database is not None:
        return _given(database)
    if url := os.environ.get(ENVIRONMENT_VARIABLE):
        return _parse(url, f"${ENVIRONMENT_VARIABLE}")
    config = Path(CONFIG_FILE)
    if config.is_file():
        return _parse(_from_config(config), CONFIG_FILE)
    raise LocationError(
        f"No system database was given: connect() had no argument, ${ENVIRONMENT_VARIABLE} "
        f"is not set, and there is no {CONFIG_FILE} in {Path.cwd()}. {FORMS}"
    )


def _given(database: Any) -> Location:
    if isinstance(database, str):
        return _parse(database, "argument")
    path = os.fspath(database) if isinstance(database, os.PathLike) else None
    if not isinstance(path, str):
        raise LocationError(f"The database must be a text or a path, not {type(database)}. {FORMS}")
    return _sqlite(path, "argument")


def _from_config(config: Path) -> str:
    import yaml

    def variable(match: re.Match[str]) -> str:
        return os.environ.get(match.group(1), "")

    try:
        text = config.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise LocationError(f"{config} is not UTF-8. Save it as UTF-8.") from None
    except OSError as error:
        raise LocationError(f"{config} cannot be read: {error.strerror}.") from None
    try:
        data = yaml.safe_load(re.sub(r"\$\{([^}]+)\}", variable, text))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" near line {mark.line + 1}" if mark else ""
        # The parser quotes the line it stumbled on, which may hold the password.
        raise LocationError(f"{config} is not valid YAML{where}.") from None
    if not isinstance(data, dict):
        raise LocationError(f"{config} must hold a mapping, not a {type(data).__name__}.")
    url = data.get("system_database_url")
    if url and not isinstance(url, str):
        raise LocationError(
            f"system_database_url in {config} must be a text, not a {type(url).__name__}."
        )
    if url:
        return url
    name = data.get("name")
    if not name or not isinstance(name, str | int):
        raise LocationError(f"{config} has neither system_database_url nor name.")
    # As DBOS's own default: the application's name, made into a file name.
    file = str(name).replace("-", "_").replace(" ", "_").lower()
    return f"sqlite:///{'_' + file if file[0].isdigit() else file}.sqlite"


def _parse(text: str, source: str) -> Location:
    text = text.strip()
    # As they are copied from a configuration or a chat.
    while len(text) > 1 and text[0] + text[-1] in _QUOTES:
        text = text[1:-1].strip()
    if not text:
        raise LocationError(f"The database from {source} is an empty text. {FORMS}")
    if "\0" in text:
        raise LocationError(f"The database from {source} holds a NUL character. {FORMS}")
    if _POSTGRES_SCHEME.match(text):
        return _postgres(_POSTGRES_SCHEME.sub("postgresql://", text), source)
    if _SQLITE_SCHEME.match(text):
        return _sqlite(_sqlite_path(text), source)
    if scheme := re.match(r"^([\w+.-]{1,40})://", text):
        raise LocationError(
            f"{printable(scheme.group(1))}:// is not a database that DBOS keeps workflows in. "
            f"{FORMS}"
        )
    if _KEY_VALUE.match(text) and not _is_there(text):
        return _postgres(text, source)
    return _sqlite(text, source)


def _is_there(path: str) -> bool:
    try:
        return Path(path).expanduser().exists()
    except (OSError, RuntimeError, ValueError):
        # A name too long, a home of nobody, half a character: no file has it.
        return False


def _sqlite_path(url: str) -> str:
    import sqlalchemy as sa

    try:
        parts = sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError):
        parts = None
    if parts is None or parts.host or parts.username or parts.password or parts.port:
        raise LocationError(
            "A SQLite URL has three slashes and then the path: sqlite:///app.sqlite, or "
            "sqlite:////data/app.sqlite for /data/app.sqlite. This one is something else."
        )
    if not parts.database or parts.database == ":memory:":
        raise LocationError(
            "An in-memory SQLite database lives inside the application and cannot be read "
            "from here. Give the path of a file: sqlite:///app.sqlite"
        )
    return parts.database


def _sqlite(path: str, source: str) -> Location:
    if _ADDRESS.search(path) and not _is_there(path):
        # Its text is not shown: it may hold a password.
        raise LocationError(
            f"The database from {source} is no file that exists, and is not written as a "
            f"database's address either. {FORMS}"
        )
    try:
        file = Path(path).expanduser().absolute()
        file.exists()
        os.fsencode(file)
    except (OSError, RuntimeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "no file can have this name"
        raise LocationError(f"The path from {source} cannot be looked at: {reason}.") from None
    return Location("sqlite", printable(f"sqlite:///{file}", 1000), path=file, source=source)


def _postgres(text: str, source: str) -> Location:
    parameters = _by_libpq(text)
    doubtful = False
    if not parameters or _misread(text, parameters):
        parameters, doubtful = _as_dbos_does(text, parameters)
    if not parameters:
        raise LocationError(
            f"The Postgres address from {source} cannot be read. Characters such as "
            "@ : / % in a user or password are written percent-encoded "
            f"(urllib.parse.quote). {FORMS}"
        )
    label = _postgres_label(parameters)
    if doubtful:
        label = _postgres_label({**parameters, "host": "***", "dbname": "***"})
    return Location("postgres", label, parameters, source=source, doubtful=doubtful)


def _by_libpq(text: str) -> dict[str, Any]:
    """Return what libpq reads in an address; nothing where it cannot read it."""
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    try:
        return conninfo_to_dict(text) if _encodable(text) else {}
    except (psycopg.Error, UnicodeDecodeError):
        # The messages may quote the part that could not be read, password and all.
        return {}


def _as_dbos_does(text: str, by_libpq: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """Read a URL as DBOS does, which hands it to SQLAlchemy.

    Returns what was read, or nothing where it is not certain, and whether the host and database
    may be parts of the password.

    SQLAlchemy takes bare ``: / ? # %`` in a password, and a bare ``@`` in a user or database.
    """
    import sqlalchemy as sa

    if not text.startswith("postgresql://") or not _encodable(text):
        return {}, False
    login, rest = _divided(text)
    user, password = (login["user"], login["password"]) if login else ("", None)
    try:
        url = sa.make_url(text)
    except (sa.exc.ArgumentError, ValueError):
        return {}, False
    # libpq is stricter with the rest, which SQLAlchemy does not read to its end.
    parameters = _by_libpq(f"postgresql://{rest}")
    found = {
        "user": unquote(user) or None,
        "password": None if password is None else unquote(password),
        "host": parameters.get("host"),
        "dbname": parameters.get("dbname"),
    }
    read: dict[str, Any] = {"user": url.username or None, "password": url.password}
    read |= {"host": url.host or url.query.get("host"), "dbname": url.database or None}
    bare, _, query = rest.partition("?")
    _, at, behind = bare.rpartition("@")
    if found != read or "@" in query or "\0" in unquote(user + (password or "")):
        return {}, False
    if at and (":" in behind or "/" in behind):
        # A host with a port or database: what is before it is a password.
        return {}, False
    parameters |= {name: found[name] for name in ("user", "password") if found[name]}
    if not _plausible(parameters):
        return {}, False
    given = ("user", "host", "port", "dbname")
    if _plausible(by_libpq) and any(by_libpq.get(name) != parameters.get(name) for name in given):
        # Both are addresses: host:5432/a@b is one of libpq's.
        return {}, False
    return parameters, bool(at and password is not None)


def _divided(url: str) -> tuple[re.Match[str] | None, str]:
    """Divide a URL into user and password, and the rest."""
    address = url.removeprefix("postgresql://")
    login = _LOGIN.match(address)
    return login, address[login.end() :] if login else address


def _misread(text: str, parameters: Mapping[str, Any]) -> bool:
    """Tell whether libpq may have taken a part of the password for something else.

    A password with a bare ``@`` or ``/`` in a URL moves into the host, port or database, and
    parameters that are parted by other than spaces are one long value.
    """
    if text.startswith("postgresql://"):
        login, rest = _divided(text)
        given = login[0] if login else ""
        if "/" in given or "@" in given[:-1] or "@" in rest.partition("?")[0]:
            return True
    return not _plausible(parameters)


def _plausible(parameters: Mapping[str, Any]) -> bool:
    """Tell whether hosts, ports, user and database are such as there may be."""
    given = {name: str(parameters.get(name) or "") for name in ("host", "port", "user", "dbname")}
    return (
        bool(parameters)
        # Parameters that are not behind a slash become a part of the user.
        and "?" not in given["user"]
        and all(_HOST.fullmatch(host) for host in given["host"].split(","))
        and _PORT.fullmatch(given["port"]) is not None
        and not any(_PARAMETER.search(value) for value in given.values())
    )


def _postgres_label(parameters: Mapping[str, Any]) -> str:
    user = f"{parameters['user']}@" if parameters.get("user") else ""
    port = f":{parameters['port']}" if parameters.get("port") else ""
    host = str(parameters.get("host") or "")
    database = parameters.get("dbname") or parameters.get("user") or ""
    if host.startswith("/"):
        port = f"&port={port[1:]}" if port else ""
        return printable(f"postgresql://{user}/{database}?host={host}{port}", 1000)
    return printable(f"postgresql://{user}{host or 'localhost'}{port}/{database}", 1000)
