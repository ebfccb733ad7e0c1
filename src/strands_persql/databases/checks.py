"""Whether the tables of a database are tables: a file may come from somebody who means harm.

A view in the place of a table answers what it likes, and a trigger changes what is written. No
statement of ours tells; the schema does.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from strands_persql.databases.protocol import Database, Statement
from strands_persql.databases.results import rows_of
from strands_persql.errors import DatabaseOpenError
from strands_persql.runtime.text import one_line

LOOK: Statement = {
    "sql": "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE type IN ('view', 'trigger')"
    " OR (type = 'table' AND sql LIKE 'CREATE VIRTUAL%')"
}
"""What asks a database for all that may be in a table's place, in a batch of the caller's."""


def check_tables(
    database: Database, tables: Iterable[str], *, triggers: Collection[str] = ()
) -> None:
    """See in one round trip that tables, where they are there, are tables without triggers.

    Args:
        database: The database to ask.
        tables: The tables' names.
        triggers: The names of triggers that belong to them.

    Raises:
        DatabaseOpenError: If one isn't, which is named.
    """
    refuse_intruders(rows_of(database.query(LOOK["sql"])), tables, triggers=triggers)


def refuse_intruders(
    found: Iterable[Mapping[str, Any]], tables: Iterable[str], *, triggers: Collection[str] = ()
) -> None:
    """Raise if something is in the place of a table, or changes what is written to one.

    Args:
        found: The rows that `LOOK` brought.
        tables: The tables' names.
        triggers: The names of triggers that belong to them.

    Raises:
        DatabaseOpenError: If so.
    """
    wanted = {name.lower() for name in tables}
    known = {name.lower() for name in triggers}
    for row in found:
        kind, name, table = (one_line(str(row.get(part))) for part in ("type", "name", "tbl_name"))
        is_trigger = kind == "trigger"
        if table.lower() not in wanted or (is_trigger and name.lower() in known):
            continue
        what = f"has the trigger {name!r}" if is_trigger else f"is a {_KINDS.get(kind, kind)}"
        raise DatabaseOpenError(
            f"cannot use the database: {table!r} {what}, which this package didn't make. Find out"
            " who did; drop it, or use another database or table_prefix",
            kind="foreign_schema",
        )


_KINDS = {"table": "virtual table"}
