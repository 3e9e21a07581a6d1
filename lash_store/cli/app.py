"""The commands and their arguments; what they do stands elsewhere."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from lash_store import __version__
from lash_store._backends import place_name
from lash_store.cli.demo import run_demo
from lash_store.deployment import SESSIONS
from lash_store.errors import LashStoreError
from lash_store.moving import Copied, copy_deployment
from lash_store.schemas import (
    DIALECTS,
    KINDS,
    FileReport,
    adopt_database,
    check_file,
    init_file,
    mend_file,
    render_all,
    schema_of,
)
from lash_store.session.folder_lock import FolderLock
from lash_store.session.places import file_names

app = typer.Typer(no_args_is_help=True, add_completion=False)

DialectName = StrEnum("DialectName", {each: each for each in DIALECTS})  # type: ignore[misc] # reason: likewise
OWN = DialectName(DIALECTS[0])
KindName = StrEnum("KindName", {kind: kind for kind in KINDS})  # type: ignore[misc] # reason: typer lists an enum's members as choices


def _show_version(wanted: bool) -> None:  # reason: typer calls it so
    if wanted:
        typer.echo(f"lash-store {__version__}")
        raise typer.Exit


@app.callback()
def options(
    *,
    version: Annotated[  # reason: its callback sees to it
        bool, typer.Option("--version", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Durable state for agent runtimes, on SQLite and PostgreSQL."""


def _say(line: str, *, err: bool = False) -> None:
    """Print one line; what a terminal would obey, or can't show, in a name that somebody chose, is spelt out."""
    shown = "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in line
    )
    to = sys.stderr if err else sys.stdout  # None if that was closed
    encoding = getattr(to, "encoding", None) or "utf-8"
    typer.echo(shown.encode(encoding, "backslashreplace").decode(encoding), err=err)


@contextmanager
def _refusals_told() -> Iterator[None]:
    try:
        yield
    except LashStoreError as error:
        for line in str(error).splitlines():
            _say(line, err=True)
        raise typer.Exit(1) from error


@app.command()
def init(
    kind: Annotated[KindName, typer.Argument(help="Which kind of store.")],
    path: Annotated[str, typer.Argument(help="The database file to make, or a URL.")],
) -> None:
    """Make a database file, or the tables of a kind by a URL; what is there and sound stays as it is."""
    with _refusals_told():
        init_file(str(kind), path)
    _say(f"{place_name(path)}  {kind}, version {schema_of(str(kind)).version}")


@app.command()
def adopt(
    database: Annotated[
        str, typer.Argument(help="A database that is there: its path, or its URL.")
    ],
    prefix: Annotated[str, typer.Option(help="What our tables' names begin with.")] = "lash_",
) -> None:
    """Make our tables in an application's database, in one transaction; touch nothing else."""
    with _refusals_told():
        adopt_database(database, prefix=prefix)
    _say(f"{place_name(database)}  {', '.join(KINDS)}, under {prefix}")


@app.command()
def copy(
    source: Annotated[
        str, typer.Argument(help="A deployment's folder, or the URL of its database.")
    ],
    target: Annotated[str, typer.Argument(help="Where it is to go: a folder, or a URL.")],
    prefix: Annotated[str, typer.Option(help="What our tables' names begin with.")] = "lash_",
    source_prefix: Annotated[
        str | None, typer.Option(help="The same in the source, if it is another.")
    ] = None,
    adopt: Annotated[
        bool, typer.Option(help="Make our tables beside those of an application.")
    ] = False,
) -> None:
    """Copy a deployment between a folder, a database and a server, any way; again, if it was interrupted."""

    def show(unit: Copied) -> None:
        name = unit.kind if unit.session_id is None else f"session {unit.session_id}"
        _say(f"{name}  {unit.rows} rows{', was there' if unit.was_there else ''}")
        for extra in unit.extras:
            _say(f"  not copied: {extra}")

    with _refusals_told():
        copied = copy_deployment(
            source,
            target,
            prefix=prefix,
            source_prefix=source_prefix,
            adopt=adopt,
            progress=show,
        )
    _say(f"{len(copied)} copied, equal by a digest for each table")


@app.command()
def schema(
    kinds: Annotated[list[KindName] | None, typer.Argument(help="These kinds only.")] = None,
    dialect: Annotated[DialectName, typer.Option(help="Of which database.")] = OWN,
    prefix: Annotated[str, typer.Option(help="Of our tables on PostgreSQL.")] = "lash_",
) -> None:
    """Print the DDL: the canonical one, or that of a shared database on PostgreSQL."""
    wanted = [schema_of(str(kind)) for kind in dict.fromkeys(kinds or KINDS)]
    with _refusals_told():
        typer.echo(render_all(wanted, dialect=str(dialect), prefix=prefix), nl=False)


@app.command()
def check(
    paths: Annotated[
        list[str], typer.Argument(help="Database files, folders of a deployment, or URLs.")
    ],
    mend: Annotated[
        bool, typer.Option(help="Vacuum a session's graph, which mends its count.")
    ] = False,
) -> None:
    """Check version, schema, pages, references, counts and last checkpoints; exit status 1 if anything is wrong."""
    stores, refused = _stores_in(paths)
    for error in refused:
        _say(str(error), err=True)
    sound = not refused
    for path in stores:
        try:
            if mend:
                mend_file(path)
            report = check_file(path) if path in paths else _check_in_folder(path)
            if report is None:
                continue  # it was deleted meanwhile
        except LashStoreError as error:
            _say(f"{place_name(path)}  {error}")
            sound = False
            continue
        what: str = "no store" if report.kind is None else report.kind
        if report.kind != "shared":  # where each kind has a version of its own
            what += f", version {report.version}"
        verdict = "ok" if report.is_sound else "NOT OK"
        _say(f"{place_name(path)}  {what}  {verdict}")
        for extra in report.extras:
            _say(f"  beside ours: {extra}")
        for problem in report.problems:
            _say(f"  {problem}")
        sound = sound and report.is_sound
    raise typer.Exit(0 if sound else 1)


def _check_in_folder(path: str) -> FileReport | None:
    """Check a file of a folder, which sessions may come into and go from; None if it is gone by then.

    What looks wrong is looked at again as nobody makes or removes one.
    """
    with suppress(LashStoreError):
        report = check_file(path)
        if report.is_sound:
            return report
    with FolderLock(Path(path).parent).kept_still():
        return check_file(path) if os.path.lexists(path) else None


def _stores_in(paths: list[str]) -> tuple[list[str], list[LashStoreError]]:
    """Return the databases of deployments' folders and folders of sessions, and of anything else itself.

    And why there are folders that can't be looked into.
    """
    stores: list[str] = []
    refused: list[LashStoreError] = []
    for path in paths:
        if not os.path.isdir(path):  # nor is a URL, or a name that is too long to be asked for
            stores.append(path)
            continue
        within: list[str] = []
        before = len(refused)
        for folder in (Path(path), Path(path) / SESSIONS):
            try:
                within += (str(folder / name) for name in file_names(folder))
            except LashStoreError as error:
                refused.append(error)
        stores += sorted(within) or ([path] if len(refused) == before else [])
    return stores, refused


@app.command()
def demo() -> None:
    """Kill a worker that holds the lease, watch the takeover, and refuse the one that returns."""
    raise typer.Exit(0 if run_demo() else 1)
