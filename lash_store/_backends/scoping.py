"""Whose rows a consumer's own statement is about, in a database that many sessions share.

A transaction that a store owns is about its session; on a consumer's own connection it is the one
that has joined, or the one that an execution option says.
"""

from typing import Any

from sqlalchemy import Dialect
from sqlalchemy.engine.default import DefaultExecutionContext

from lash_store._kernel.placing import SharingCompiler
from lash_store._kernel.sharing import SCOPE, SCOPE_OPTION, Sharing, only_scope


class SharingContext(DefaultExecutionContext):
    """Gives each statement on scoped tables the scope that it is about."""

    @classmethod
    def _init_compiled(cls, *arguments: Any, **keywords: Any) -> Any:
        dialect, connection, dbapi_connection, options, compiled, parameters, *others = arguments
        if SCOPE.key in compiled.binds:
            scope = options.get(SCOPE_OPTION) or only_scope(connection)
            parameters = [{**each, SCOPE.key: scope} for each in parameters or [{}]]
        return super()._init_compiled(
            dialect,
            connection,
            dbapi_connection,
            options,
            compiled,
            parameters,
            *others,
            **keywords,
        )


def use_sharing(dialect: Dialect, compiler: type[SharingCompiler]) -> Sharing:
    """Make a consumer's own dialect render our tables in their places; return what says where.

    Until that is told, they are rendered as they are in a file.
    """
    found: Sharing | None = getattr(dialect, "sharing", None)
    if found is None:
        ours: Any = dialect
        own = ours.execution_ctx_cls
        ours.execution_ctx_cls = type("SharingContext", (SharingContext, own), {})
        ours.statement_compiler = compiler
        found = ours.sharing = Sharing("", home="main" if dialect.name == "sqlite" else None)
    return found
