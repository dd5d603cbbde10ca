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

from dbos_notebook.errors import LocationError

ENVIRONMENT_VARIABLE = "DBOS_SYSTEM_DATABASE_URL"
CONFIG_FILE = "dbos-config.yaml"
FORMS = (
    "Give a URL (postgresql://user@host/database, sqlite:///app.sqlite), "
    "a libpq string (host=… dbname=…), or the path of a SQLite file."
)
_POSTGRES_SCHEME = re.compile(r"^(postgres(?:ql)?|cockroachdb)(\+\w+)?://", re.IGNORECASE)
_SQLITE_SCHEME = re.compile(r"^sqlite(\+\w+)?://", re.IGNORECASE)
_KEY_VALUE = re.compile(r"^\s*\w+\s*=")
_SECRET_PARAMETERS = ("password", "sslpassword", "oauth_client_secret")


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
        for name in _SECRET_PARAMETERS:
            secret = self.parameters.get(name)
            if secret:
                text = text.replace(str(secret), "***")
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
    if database is not None:
        return _parse(os.fspath(database), "argument")
    if url := os.environ.get(ENVIRONMENT_VARIABLE):
        return _parse(url, f"${ENVIRONMENT_VARIABLE}")
    config = Path(CONFIG_FILE)
    if config.is_file():
        return _parse(_from_config(config), CONFIG_FILE)
    raise LocationError(
        f"No system database was given: connect() had no argument, ${ENVIRONMENT_VARIABLE} "
        f"is not set, and there is no {CONFIG_FILE} in {Path.cwd()}. {FORMS}"
    )


def _from_config(config: Path) -> str:
    import yaml

    def variable(match: re.Match[str]) -> str:
        return os.environ.get(match.group(1), "")

    text = re.sub(r"\$\{([^}]+)\}", variable, config.read_text(encoding="utf-8"))
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" near line {mark.line + 1}" if mark else ""
        # The parser quotes the line it stumbled on, which may hold the password.
        raise LocationError(f"{config} is not valid YAML{where}.") from None
    if not isinstance(data, dict):
        raise LocationError(f"{config} must hold a mapping, not a {type(data).__name__}.")
    if url := data.get("system_database_url"):
        return str(url)
    name = data.get("name")
    if not name:
        raise LocationError(f"{config} has neither system_database_url nor name.")
    # As DBOS's own default: the application's name, made into a file name.
    file = str(name).replace("-", "_").replace(" ", "_").lower()
    return f"sqlite:///{'_' + file if file[0].isdigit() else file}.sqlite"


def _parse(text: str, source: str) -> Location:
    if not text.strip():
        raise LocationError(f"The database from {source} is an empty text. {FORMS}")
    if "\0" in text:
        raise LocationError(f"The database from {source} holds a NUL character. {FORMS}")
    if _POSTGRES_SCHEME.match(text):
        return _postgres(_POSTGRES_SCHEME.sub("postgresql://", text), source)
    if _SQLITE_SCHEME.match(text):
        return _sqlite(_sqlite_path(text), source)
    if scheme := re.match(r"^([\w+.-]+)://", text):
        raise LocationError(
            f"{scheme.group(1)}:// is not a database that DBOS keeps workflows in. {FORMS}"
        )
    if _KEY_VALUE.match(text) and not Path(text).expanduser().exists():
        return _postgres(text, source)
    return _sqlite(text, source)


def _sqlite_path(url: str) -> str:
    import sqlalchemy as sa

    database = sa.make_url(url).database
    if not database or database == ":memory:":
        raise LocationError(
            "An in-memory SQLite database lives inside the application and cannot be read "
            "from here. Give the path of a file: sqlite:///app.sqlite"
        )
    return database


def _sqlite(path: str, source: str) -> Location:
    file = Path(path).expanduser().absolute()
    return Location("sqlite", f"sqlite:///{file}", path=file, source=source)


def _postgres(text: str, source: str) -> Location:
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    try:
        parameters = conninfo_to_dict(text)
    except psycopg.Error:
        # libpq's message may quote the part it could not read, password and all.
        raise LocationError(
            f"The Postgres address from {source} cannot be read. Characters such as "
            "@ : / % in a user or password are written percent-encoded "
            f"(urllib.parse.quote). {FORMS}"
        ) from None
    return Location("postgres", _postgres_label(parameters), parameters, source=source)


def _postgres_label(parameters: Mapping[str, Any]) -> str:
    user = f"{parameters['user']}@" if parameters.get("user") else ""
    port = f":{parameters['port']}" if parameters.get("port") else ""
    host = str(parameters.get("host") or "")
    database = parameters.get("dbname") or parameters.get("user") or ""
    if host.startswith("/"):
        return f"postgresql://{user}/{database}?host={host}{'&port=' + port[1:] if port else ''}"
    return f"postgresql://{user}{host or 'localhost'}{port}/{database}"
