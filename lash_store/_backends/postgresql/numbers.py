"""Numbers that a table draws from a sequence."""

from typing import Any, Final, cast

from sqlalchemy import Connection, Table

from lash_store._backends.postgresql.connection import StoreConnection

_CONTINUE: Final = """\
SELECT setval(drawn::regclass, greatest(max({column}), pg_sequence_last_value(drawn::regclass)))
FROM pg_get_serial_sequence($1, $2) AS drawn, {table} WHERE drawn IS NOT NULL GROUP BY drawn"""


def continue_numbers(connection: Connection, table: Table[Any]) -> None:
    """Let a table's sequence go on behind the highest number in it; a sequence goes never back.

    `connection` is that of a transaction of the library's own.
    """
    column = table.autoincrement_column
    if column is None:
        return
    ours = cast("StoreConnection", connection.connection.dbapi_connection)
    name = f"{ours.place}{table.name}"  # a schema and a prefix, which were checked
    cursor = ours.own_cursor
    statement = _CONTINUE.format(column=column.name, table=name)
    cursor.execute(statement, (name, column.name)).fetchall()
