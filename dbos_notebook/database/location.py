"""Parse a database URL, libpq string, path or configuration into a Location; redact passwords.

Nothing here opens a connection; that belongs to ``postgres`` and ``sqlite``.
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
from dbos_notebook.imports import WholeImports
from dbos_notebook.text import sanitize

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
_MIN_REDACTED_LENGTH = 4
_MAX_LABEL = 1000
_QUOTES = ("''", '""', "``", "“”", "‘’", "<>")
# Matches a malformed URL or libpq string that would otherwise be taken for a path; not C:/.
_ADDRESS = re.compile(
    r"://|^[\w+.-]{2,}:/|:.*@|^[^/.~][^@]*@.*/|^[^:/]*:(\d+|\*):.*:.*:|"
    r"(pass|pwd|secret|token)\w*\s*[=:]",
    re.IGNORECASE | re.DOTALL,
)
_HOST = re.compile(r"[\w.:%-]*|[/@][^@=;]*")
_PORT = re.compile(r"[\d,]*")
# SQLAlchemy's rule for the user and password of a URL.
_LOGIN = re.compile(r"(?P<user>[^:/]*)(?::(?P<password>[^@]*))?@")
_PARAMETER = re.compile(r"://|[;,&\s]\s*\w+\s*=|^\w*pass\w*\s*=", re.IGNORECASE)


@dataclass(frozen=True)
class Location:
    """One system database: a database of a Postgres server, or a SQLite file.

    Its ``repr`` and ``str`` never contain a password.
    """

    kind: Literal["postgres", "sqlite"]
    label: str
    parameters: Mapping[str, Any] = field(default_factory=dict, repr=False, hash=False)
    path: Path | None = None
    source: str = "argument"
    # The host and database may be parts of a password with an unescaped @: never show them.
    ambiguous: bool = False

    def __str__(self) -> str:
        return self.label

    def url(self) -> str:
        """Return the SQLAlchemy URL. It contains the password: never show it."""
        with WholeImports():
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
            # Like libpq, default to the user's name.
            database=parts.pop("dbname", self.parameters.get("user")),
            query=parts,
        )
        # A socket directory is not valid as the host of a URL.
        if url.host and url.host.startswith("/"):
            url = url.set(host="").update_query_dict({"host": url.host})
        return url.render_as_string(hide_password=False)

    def address(self) -> str:
        """Return a string that :func:`locate` accepts in any directory, **with its secrets**.

        Use it for the environment of a child process; never show it.

        Examples
        --------
        >>> locate("sqlite:////data/shop.sqlite").address()
        '/data/shop.sqlite'
        """
        with WholeImports():
            from psycopg.conninfo import make_conninfo

        return str(self.path) if self.path else make_conninfo(**self.parameters)

    def redact(self, message: str) -> str:
        """Return a message, such as a driver's, without this location's secrets."""
        hidden = ("host", "dbname") if self.ambiguous else ()
        for name in (*_SECRET_PARAMETERS, *hidden):
            secret = str(self.parameters.get(name) or "")
            # A password that equals a part of the label must stay: replacing a known word with
            # stars would reveal it.
            if not secret or secret not in message or secret in self.label:
                continue
            if len(secret) < _MIN_REDACTED_LENGTH:
                return "(message omitted because it may contain the password)"
            message = message.replace(secret, "***")
        return message


def locate(database: str | os.PathLike[str] | None = None) -> Location:
    """Return the location of a system database.

    Parameters
    ----------
    database
        A URL, a libpq key=value string, or a path. ``None`` means the environment
        variable ``DBOS_SYSTEM_DATABASE_URL``, then ``dbos-config.yaml`` in the working
        directory, resolved as DBOS resolves it (``${VAR}`` is substituted; without a
        ``system_database_url``, ``sqlite:///<name>.sqlite``).

    Returns
    -------
    Location

    Raises
    ------
    LocationError
        No database was given, or the given one is invalid.

    Examples
    --------
    >>> str(locate("postgresql+psycopg://ada:secret@db.example:5433/shop"))
    'postgresql://ada@db.example:5433/shop'
    >>> locate("sqlite:///shop.sqlite").path.name
    'shop.sqlite'
    """
    try:
        return _locate(database)
    except LocationError as error:
        # Drop the frames, whose variables contain the password, and the driver's error, which
        # quotes it.
        redacted = error.with_traceback(None)
    del database
    redacted.__context__ = None
    raise redacted


def check_name(name: str, value: object) -> None:
    """Raise LocationError if ``value`` is not a valid name of a database object."""
    if not isinstance(value, str) or not value:
        raise LocationError(f"{name}={value!r} must be a non-empty string.")
    if "\0" in value or not _encodable(value):
        raise LocationError(f"{name}={value!r} contains a character that names cannot have.")


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _locate(database: Any) -> Location:
    if database is not None:
        return _from_argument(database)
    if url := os.environ.get(ENVIRONMENT_VARIABLE):
        return _parse(url, f"${ENVIRONMENT_VARIABLE}")
    config = Path(CONFIG_FILE)
    if config.is_file():
        return _parse(_from_config(config), CONFIG_FILE)
    raise LocationError(
        f"No system database was given: connect() had no argument, ${ENVIRONMENT_VARIABLE} "
        f"is not set, and there is no {CONFIG_FILE} in {Path.cwd()}. {FORMS}"
    )


def _from_argument(database: Any) -> Location:
    if isinstance(database, str):
        return _parse(database, "argument")
    path = os.fspath(database) if isinstance(database, os.PathLike) else None
    if not isinstance(path, str):
        raise LocationError(
            f"The database must be a string or a path, not {type(database)}. {FORMS}"
        )
    return _sqlite(path, "argument")


def _from_config(config: Path) -> str:
    with WholeImports():
        import yaml

    def variable(match: re.Match[str]) -> str:
        return os.environ.get(match.group(1), "")

    try:
        text = config.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise LocationError(f"{config} is not valid UTF-8. Save it as UTF-8.") from None
    except OSError as error:
        raise LocationError(f"{config} cannot be read: {error.strerror}.") from None
    try:
        data = yaml.safe_load(re.sub(r"\$\{([^}]+)\}", variable, text))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" near line {mark.line + 1}" if mark else ""
        # The parser's message quotes the invalid line, which may contain the password.
        raise LocationError(f"{config} is not valid YAML{where}.") from None
    if not isinstance(data, dict):
        raise LocationError(f"{config} must contain a mapping, not a {type(data).__name__}.")
    url = data.get("system_database_url")
    if url and not isinstance(url, str):
        raise LocationError(
            f"system_database_url in {config} must be a string, not a {type(url).__name__}."
        )
    if url:
        return url
    name = data.get("name")
    if not name or not isinstance(name, str | int):
        raise LocationError(f"{config} has neither system_database_url nor name.")
    # DBOS derives its default file name from the application's name.
    file = str(name).replace("-", "_").replace(" ", "_").lower()
    return f"sqlite:///{'_' + file if file[0].isdigit() else file}.sqlite"


def _parse(text: str, source: str) -> Location:
    text = text.strip()
    # Remove quotes that were copied along from a configuration or a chat.
    while len(text) > 1 and text[0] + text[-1] in _QUOTES:
        text = text[1:-1].strip()
    if not text:
        raise LocationError(f"The database from {source} is an empty string. {FORMS}")
    if "\0" in text:
        raise LocationError(f"The database from {source} contains a NUL character. {FORMS}")
    if _POSTGRES_SCHEME.match(text):
        return _postgres(_POSTGRES_SCHEME.sub("postgresql://", text), source)
    if _SQLITE_SCHEME.match(text):
        return _sqlite(_sqlite_path(text), source)
    if scheme := re.match(r"^([\w+.-]{1,40})://", text):
        raise LocationError(
            f"{sanitize(scheme.group(1))}:// is not a database that DBOS supports. {FORMS}"
        )
    if _KEY_VALUE.match(text) and not _exists(text):
        return _postgres(text, source)
    return _sqlite(text, source)


def _exists(path: str) -> bool:
    try:
        return Path(path).expanduser().exists()
    except (OSError, RuntimeError, ValueError):
        # The name is too long, ~user is unknown, or it has a lone surrogate: no such file.
        return False


def _sqlite_path(url: str) -> str:
    with WholeImports():
        import sqlalchemy as sa

    try:
        parts = sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError):
        parts = None
    if parts is None or parts.host or parts.username or parts.password or parts.port:
        raise LocationError(
            "This SQLite URL is invalid. Write three slashes and then the path: "
            "sqlite:///app.sqlite, or sqlite:////data/app.sqlite for /data/app.sqlite."
        )
    if not parts.database or parts.database == ":memory:":
        raise LocationError(
            "An in-memory SQLite database exists only inside its application and cannot be read "
            "from here. Give the path of a file: sqlite:///app.sqlite"
        )
    return parts.database


def _sqlite(path: str, source: str) -> Location:
    if _ADDRESS.search(path) and not _exists(path):
        # Do not show the string: it may contain a password.
        raise LocationError(
            f"The database from {source} is neither an existing file nor a valid URL. {FORMS}"
        )
    try:
        file = Path(path).expanduser().absolute()
        file.exists()
        os.fsencode(file)
    except (OSError, RuntimeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "invalid file name"
        raise LocationError(f"The path from {source} cannot be opened: {reason}.") from None
    return Location("sqlite", sanitize(f"sqlite:///{file}", _MAX_LABEL), path=file, source=source)


def _postgres(text: str, source: str) -> Location:
    parameters = _parse_as_libpq(text)
    ambiguous = False
    if not parameters or _is_ambiguous(text, parameters):
        parameters, ambiguous = _parse_as_sqlalchemy(text, parameters)
    if not parameters:
        raise LocationError(
            f"The Postgres address from {source} cannot be parsed. Percent-encode characters "
            f"such as @ : / % in the user and password (urllib.parse.quote). {FORMS}"
        )
    label = _postgres_label(parameters)
    if ambiguous:
        label = _postgres_label({**parameters, "host": "***", "dbname": "***"})
    return Location("postgres", label, parameters, source=source, ambiguous=ambiguous)


def _parse_as_libpq(text: str) -> dict[str, Any]:
    """Return the parameters that libpq parses from an address; empty if it cannot."""
    with WholeImports():
        import psycopg
        from psycopg.conninfo import conninfo_to_dict

    try:
        return conninfo_to_dict(text) if _encodable(text) else {}
    except (psycopg.Error, UnicodeDecodeError):
        # The message may quote the password.
        return {}


def _parse_as_sqlalchemy(text: str, by_libpq: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """Parse a URL as DBOS does, with SQLAlchemy.

    Returns the parameters (empty if the URL is ambiguous), and whether the host and database may be
    parts of the password.

    SQLAlchemy accepts unescaped ``: / ? # %`` in a password and an unescaped ``@`` in a user or
    database.
    """
    with WholeImports():
        import sqlalchemy as sa

    if not text.startswith("postgresql://") or not _encodable(text):
        return {}, False
    login, rest = _split_login(text)
    user, password = (login["user"], login["password"]) if login else ("", None)
    try:
        url = sa.make_url(text)
    except (sa.exc.ArgumentError, ValueError):
        return {}, False
    # libpq parses the rest strictly; SQLAlchemy ignores a part of it.
    parameters = _parse_as_libpq(f"postgresql://{rest}")
    expected = {
        "user": unquote(user) or None,
        "password": None if password is None else unquote(password),
        "host": parameters.get("host"),
        "dbname": parameters.get("dbname"),
    }
    parsed: dict[str, Any] = {"user": url.username or None, "password": url.password}
    parsed |= {"host": url.host or url.query.get("host"), "dbname": url.database or None}
    address, _, query = rest.partition("?")
    _, at, after_at = address.rpartition("@")
    if expected != parsed or "@" in query or "\0" in unquote(user + (password or "")):
        return {}, False
    if at and (":" in after_at or "/" in after_at):
        # A host with a port or database follows the @, so a password may precede it.
        return {}, False
    parameters |= {name: expected[name] for name in ("user", "password") if expected[name]}
    if not _is_plausible(parameters):
        return {}, False
    names = ("user", "host", "port", "dbname")
    if _is_plausible(by_libpq) and any(
        by_libpq.get(name) != parameters.get(name) for name in names
    ):
        # Both interpretations are valid, as for host:5432/a@b.
        return {}, False
    return parameters, bool(at and password is not None)


def _split_login(url: str) -> tuple[re.Match[str] | None, str]:
    """Split a URL into the login (user and password) and the rest."""
    address = url.removeprefix("postgresql://")
    login = _LOGIN.match(address)
    return login, address[login.end() :] if login else address


def _is_ambiguous(text: str, parameters: Mapping[str, Any]) -> bool:
    """Return whether libpq may have parsed a part of the password as another parameter.

    A password with an unescaped ``@`` or ``/`` in a URL ends up in the host, port or database, and
    parameters that are not separated by spaces become one long value.
    """
    if text.startswith("postgresql://"):
        login, rest = _split_login(text)
        credentials = login[0] if login else ""
        if "/" in credentials or "@" in credentials[:-1] or "@" in rest.partition("?")[0]:
            return True
    return not _is_plausible(parameters)


def _is_plausible(parameters: Mapping[str, Any]) -> bool:
    """Return whether the host, port, user and database look valid."""
    values = {name: str(parameters.get(name) or "") for name in ("host", "port", "user", "dbname")}
    return (
        bool(parameters)
        # A query without a slash before it becomes a part of the user.
        and "?" not in values["user"]
        and all(_HOST.fullmatch(host) for host in values["host"].split(","))
        and _PORT.fullmatch(values["port"]) is not None
        and not any(_PARAMETER.search(value) for value in values.values())
    )


def _postgres_label(parameters: Mapping[str, Any]) -> str:
    user = f"{parameters['user']}@" if parameters.get("user") else ""
    port = f":{parameters['port']}" if parameters.get("port") else ""
    host = str(parameters.get("host") or "")
    database = parameters.get("dbname") or parameters.get("user") or ""
    if host.startswith("/"):
        port = f"&port={port[1:]}" if port else ""
        return sanitize(f"postgresql://{user}/{database}?host={host}{port}", _MAX_LABEL)
    return sanitize(f"postgresql://{user}{host or 'localhost'}{port}/{database}", _MAX_LABEL)
