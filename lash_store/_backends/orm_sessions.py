"""ORM Sessions in a shared database: each is about one session of ours at a time.

A Session knows an object by its primary key, and rows of several sessions have the same ones: under
a second scope it would give the object of the first, and write to the row of the second. So what a
Session asks for or flushes is refused as long as it holds objects of another scope.
"""

import sys
from typing import Any, Final

from sqlalchemy import Connection, event, inspect

from lash_store._kernel.schema import ours_of
from lash_store._kernel.sharing import SCOPE_OPTION, SCOPES
from lash_store.errors import ScopeError

_HELD: Final = "lash_store_scope"
"""Where a Session says whose objects it holds."""

_watching: Final[list[str]] = []


def watch_sessions() -> None:
    """Look at what ORM Sessions are about from now on; nothing, as long as there are none."""
    orm: Any = sys.modules.get("sqlalchemy.orm")
    if orm is None or _watching:
        return
    _watching.append("watching")
    event.listen(orm.Session, "do_orm_execute", _before_execute)
    event.listen(orm.Session, "before_flush", _before_flush)
    event.listen(orm.Session, "before_attach", _before_attach)


def _before_execute(state: Any) -> None:
    if any(map(_is_scoped, state.all_mappers)):
        connection = state.session.connection(bind_arguments=state.bind_arguments)
        _check(state.session, connection, state.execution_options.get(SCOPE_OPTION))


def _before_flush(session: Any, *_: Any) -> None:
    for each in (*session.new, *session.dirty, *session.deleted):
        mapper = each.__mapper__
        if _is_scoped(mapper):
            connection = session.connection(bind_arguments={"mapper": mapper})
            _check(session, connection, None)
            scope, own = _scope_of(connection), _info(each).get(_HELD)
            if None not in (scope, own) and scope != own:
                raise ScopeError(
                    f"an object of {own!r}, and the row of {scope!r} that has its key,"
                )


def forget_compiled() -> None:
    """Have what mapped classes write compiled anew: our tables have another place from now on.

    Mappers keep that by themselves, not with their engine's other statements.
    """
    mappers: Any = sys.modules.get("sqlalchemy.orm.mapper")
    for registry in () if mappers is None else mappers._all_registries():  # noqa: SLF001 # reason: tested by name
        for mapper in registry.mappers:
            vars(mapper.base_mapper).get("_compiled_cache", {}).clear()


def _before_attach(session: Any, instance: Any) -> None:
    """Refuse an object of one scope to a Session of another, which would give it for its own row."""
    if not _is_scoped(instance.__mapper__):
        return
    own = _info(instance).get(_HELD)
    if own is None or inspect(instance).key is None:
        return
    _check_held(session, own)
    if session.in_transaction():
        asked = _scope_of(session.connection(bind_arguments={"mapper": instance.__mapper__}))
        if asked not in (None, own):
            raise ScopeError(
                f"an object of {own!r}, and what this ORM Session asks of {asked!r}", is_orm=True
            )
    _hold(session, own)
    _watch_lookups(session)


def _note_scope(session: Any, instance: Any) -> None:
    """Let an object say whose it is, wherever it goes."""
    held = session.info.get(_HELD)
    if held is not None and _is_scoped(instance.__mapper__):
        _info(instance)[_HELD] = held
        _watch_lookups(session)


def _watch_lookups(session: Any) -> None:
    """Look at what a Session is asked for by its key as well, which for what it holds is no query."""
    if "_identity_lookup" in vars(session):
        return
    look_up = session._identity_lookup  # noqa: SLF001 # reason: there is no event; tested by name

    def checked(mapper: Any, *arguments: Any, **options: Any) -> Any:
        if _is_scoped(mapper):
            asked = options.get("execution_options", {}).get(SCOPE_OPTION)
            if asked is None and session.in_transaction():
                asked = _scope_of(session.connection(bind_arguments={"mapper": mapper}))
            if asked is not None:
                _check_held(session, asked)
        return look_up(mapper, *arguments, **options)

    session._identity_lookup = checked  # noqa: SLF001 # reason: as above


def _info(instance: Any) -> dict[str, Any]:
    found: dict[str, Any] = inspect(instance).info
    return found


def check_joined(session: Any, scope: str) -> None:
    """Raise ScopeError if a Session that joins for one scope holds objects of another."""
    _check_held(session, scope)


def _check(session: Any, connection: Connection, asked: str | None) -> None:
    scope = asked or _scope_of(connection)
    if scope is None:
        return  # no database that is shared; or refused when it is executed
    _check_held(session, scope)
    _hold(session, scope)


def _hold(session: Any, scope: str) -> None:
    """Note whose objects a Session holds; from now on it tells of each of them, as no other one does."""
    if _HELD not in session.info:
        for name in ("loaded_as_persistent", "pending_to_persistent"):
            event.listen(session, name, _note_scope)
    session.info[_HELD] = scope


def _check_held(session: Any, scope: str) -> None:
    held = session.info.get(_HELD)
    if held not in (None, scope) and any(
        _is_scoped(each.__mapper__) for each in session.identity_map.values()
    ):
        raise ScopeError(
            f"this ORM Session holds objects of {held!r}, and what it asks of {scope!r}",
            is_orm=True,
        )


def _scope_of(connection: Connection) -> str | None:
    """Return the one session that statements on a connection are about, if they are about one."""
    sharing = getattr(connection.dialect, "sharing", None)
    if sharing is None or not sharing.prefix:
        return None
    option: str | None = connection.get_execution_options().get(SCOPE_OPTION)
    joined = connection.info.get(SCOPES, ())
    return option or (next(iter(joined)) if len(joined) == 1 else None)


def _is_scoped(mapper: Any) -> bool:
    for table in mapper.tables:
        ours = ours_of(table)
        if ours is not None and ours.is_scoped and not ours.is_across:
            return True
    return False
