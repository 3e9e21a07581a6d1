"""The databases that a store can stand on, one folder each; which it is is decided here.

A path leads to a file as the original has it, one for each store. A URL leads to a database that is
shared: by all stores, and by an application. ``lash_store._kernel.backend`` says what a backend does.
"""

import os
import re
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from typing import Any, Final

from sqlalchemy import URL, Engine, create_engine
from sqlalchemy.exc import DBAPIError

from lash_store._backends.apart import as_another_process as opened_apart
from lash_store._backends.findings import Findings
from lash_store._backends.joining import configure, create_tables, join, stamp_tables
from lash_store._backends.sqlite.checking import look_into as look_into_file
from lash_store._backends.sqlite.ddl import render
from lash_store._backends.sqlite.driver import driver_fault as fault_of_sqlite
from lash_store._backends.sqlite.extras import declared_with
from lash_store._backends.sqlite.files import (
    IN_MEMORY,
    check_only_name,
    check_openable,
    is_there,
    open_error,
    resolve,
)
from lash_store._backends.sqlite.handle import SqliteHandle
from lash_store._backends.sqlite.removing import remove_database
from lash_store._backends.urls import parsed_url, scheme_of, without_password
from lash_store._kernel.backend import Handle
from lash_store._kernel.checks import shown
from lash_store._kernel.options import Settings
from lash_store._kernel.schema import Schema
from lash_store._kernel.sharing import shared
from lash_store.errors import InvalidRecordError, LashStoreError, StoreOpenError

__all__ = [
    "RENDERERS",
    "absolute",
    "configure",
    "connect_error",
    "create_tables",
    "database_path",
    "driver_fault",
    "engine_of",
    "is_in_memory",
    "is_server",
    "is_url",
    "join",
    "look_into",
    "open_handle",
    "opened_apart",
    "place_name",
    "remove_database",
    "require_there",
    "server_name",
    "stamp_tables",
    "url_of",
]


def _canonical(schemas: Iterable[Schema], prefix: str) -> str:
    if prefix != Settings().prefix:
        why = "is of a shared database's tables: the canonical ones have none"
        raise InvalidRecordError("prefix", shown(prefix), why)
    return "\n".join(map(render, schemas))


def _for_postgresql(schemas: Iterable[Schema], prefix: str) -> str:
    from lash_store._backends.postgresql.ddl import render  # noqa: PLC0415 # reason: loads its dialect

    return render(schemas, prefix)


RENDERERS: Final[dict[str, Callable[[Iterable[Schema], str], str]]] = {
    "sqlite": _canonical,
    "postgresql": _for_postgresql,
}
"""By dialect, what writes the DDL of some kinds, under a prefix where there is one."""

_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9_+.-]*://")
_URL_AS_PATH: Final = re.compile(
    r"\s*(sqlite|postgres|postgresql|mysql|mariadb|oracle|mssql)(\+\w+)?:(/|[^/:@]*:[^/@]*@)"
)
"""A database's, also with white space before it, or without its slashes: a password may stand in it."""
_CONNINFO: Final = re.compile(
    r"(?:^|(?<=\s))(?:host|hostaddr|port|dbname|user|password|service)\s*="
)
"""What a server's own drivers take in the place of a URL, ``host=… dbname=…``, has several of these."""
_DRIVERS: Final = ("sqlite", "sqlite+pysqlite")
_SERVERS: Final = ("postgresql",)


def open_handle(schema: Schema, where: str | os.PathLike[str] | None, settings: Settings) -> Handle:
    """Open what a path or a URL leads to, or a database in memory: each is SQLite's."""
    if is_server(where):
        handle = _postgresql("handle").PostgresqlHandle
        opened: Handle = handle.open(schema, _server_url(str(where)), settings)
        return opened
    if is_url(where):
        there = declared_with(shared(schema, settings.prefix), settings)
        return SqliteHandle.open(there, database_path(str(where)), settings)
    if settings.adopt:
        raise InvalidRecordError("adopt", "True", "is for a database that is opened by its URL")
    return SqliteHandle.open(declared_with(schema, settings), where, settings)


def look_into(where: str | os.PathLike[str], schemas: Sequence[Schema]) -> Findings:
    """Look into a database, by path or URL, without changing anything in it."""
    if is_server(where):
        found: Findings = _postgresql("checking").look_into(_server_url(str(where)), schemas)
        return found
    path = _path_of(where)
    if path is None:
        raise StoreOpenError(
            str(where), "there is nothing to look into in a new database in memory"
        )
    return look_into_file(path, schemas)


def driver_fault(kind: str, path: str = "") -> Exception:
    """Return what the driver of a database raises when a lock can't be had, a disk fails, or is full."""
    if is_server(path):
        found: Exception = _postgresql("driver").driver_fault(kind)
        return found
    return fault_of_sqlite(kind)


def require_there(where: str | os.PathLike[str], what_for: str) -> None:
    """Raise StoreOpenError if there is no database, by path or URL; of one on a server, its opening tells."""
    if not is_server(where) and not is_there(resolve(_path_of(where))):
        raise StoreOpenError(str(where), f"there is no database to {what_for}")


def engine_of(where: str | os.PathLike[str]) -> Engine:
    """Return an engine that may write to a database, by path or URL; StoreOpenError if that may not be."""
    if is_server(where):
        _postgresql("handle")  # or the driver is missing
        return create_engine(_server_url(str(where)))
    path = resolve(_path_of(where))
    check_openable(path, read_only=False, immutable=False)
    check_only_name(path)
    return create_engine(_url_of_path(path), connect_args={"timeout": 15})


def connect_error(where: str | os.PathLike[str], error: DBAPIError) -> LashStoreError:
    """Say why an engine of ours could not connect to a database."""
    if is_server(where):
        return StoreOpenError(without_password(_server_url(str(where))), str(error.orig))
    cause: Any = error.orig
    return open_error(resolve(_path_of(where)), cause)


def url_of(where: str | os.PathLike[str]) -> str:
    """Return the URL of a database that is given by its path or its URL."""
    return str(where) if is_url(where) else _url_of_path(where).render_as_string()


def _url_of_path(path: str | os.PathLike[str]) -> URL:
    # Not pasted into a text: what a name has of percent signs and question marks is quoted there.
    return URL.create("sqlite", database=os.fsdecode(path))


def _path_of(where: str | os.PathLike[str]) -> str | os.PathLike[str] | None:
    return database_path(str(where)) if is_url(where) else where


def absolute(where: Any) -> Any:
    """Return what a path or a URL leads to now, whatever the process's folder is later.

    What is no path stays as it is: opening it says so.
    """
    try:
        if is_url(where):
            path = None if is_server(where) else database_path(str(where))
            if path is None:
                return where
            return _url_of_path(os.path.realpath(path)).render_as_string()
        name = None if where is None else os.fspath(where)
        if isinstance(name, str) and name not in ("", IN_MEMORY):
            return os.path.realpath(name)
    except (LashStoreError, OSError, TypeError):
        pass
    return where


def is_url(where: object) -> bool:
    """Whether `where` is the URL of a database, and no path; StoreOpenError for one that is no str."""
    if isinstance(where, URL):
        why = "a URL has to be a str: its render_as_string(hide_password=False), str() hides it"
        raise StoreOpenError(without_password(where), why)
    if isinstance(where, str) and _URL.match(where):
        return True
    if isinstance(where, (str, os.PathLike)) and _URL_AS_PATH.match(str(where)):
        # By its scheme alone: a password may stand behind it.
        why = (
            "a URL has nothing before its scheme and two slashes behind it; it has to be a str: as a path "
            "it has lost one"
        )
        raise StoreOpenError(scheme_of(str(where).strip()), why)
    if isinstance(where, str) and len(_CONNINFO.findall(where)) > 1:
        raise StoreOpenError("host=…", "a server is named by a URL: postgresql+psycopg://…")
    return False


def is_in_memory(where: str | os.PathLike[str] | None) -> bool:
    """Whether what would be opened is a private database in memory."""
    if is_server(where):
        return False
    return where is None or (is_url(where) and database_path(str(where)) is None)


def is_server(where: object) -> bool:
    """Whether `where` is the URL of a database on a server, PostgreSQL's, which has no path."""
    return is_url(where) and re.split(r"[+:]", str(where), maxsplit=1)[0] in _SERVERS


def server_name(url: str) -> str:
    """Return what a database on a server is called in messages: its URL, without a password."""
    return without_password(parsed_url(url))


def place_name(where: str) -> str:
    """Return what a path or a URL is called in messages: as it was given, without a password."""
    try:
        if not is_url(where):
            return where
        url = parsed_url(where)
        is_plain = url.drivername in _DRIVERS and not (url.query or _authority(url))
        return where if is_plain else without_password(url)
    except StoreOpenError:
        return scheme_of(where)


def _server_url(text: str) -> URL:
    url = parsed_url(text)
    if url.drivername not in ("postgresql", "postgresql+psycopg", "postgresql+psycopg_async"):
        raise StoreOpenError(
            server_name(text),
            f"the driver is psycopg, by a URL of postgresql+psycopg://, not {url.drivername}",
        )
    return url.set(
        drivername="postgresql+psycopg"
    )  # one database, whichever of them it was named by


def _postgresql(name: str) -> Any:
    """Return a module of the backend of a server; StoreOpenError if its driver is not installed."""
    try:
        return import_module(f"lash_store._backends.postgresql.{name}")
    except ImportError as error:
        raise StoreOpenError(
            "postgresql", f"{error}: pip install 'lash-store[postgres]' brings the driver"
        ) from error


def database_path(text: str) -> str | None:
    """Return the path that a URL leads to, None for a database in memory; StoreOpenError for any other."""
    url = parsed_url(text)
    named = without_password(url)
    if url.drivername not in _DRIVERS:
        raise StoreOpenError(
            named, "a URL of a database begins with sqlite:/// or postgresql+psycopg://"
        )
    if "?" in text or _authority(url):  # also one without a value, which SQLAlchemy passes over
        why = "a URL of SQLite's has a path and nothing else: sqlite:///path, a ? in it as %3F"
        raise StoreOpenError(named, why)
    return None if url.database in (None, "", IN_MEMORY) else url.database


def _authority(url: URL) -> bool:
    return any(part is not None for part in (url.username, url.password, url.host, url.port))
