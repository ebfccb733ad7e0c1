"""Whether the tables of a database are tables: a file may come from somebody who means harm.

A view in the place of a table answers what it likes, and a trigger changes what is written. No
statement of ours tells; the schema does.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from strands_persql.databases.protocol import Statement
from strands_persql.errors import DatabaseOpenError
from strands_persql.runtime.text import one_line

LOOK: Statement = {
    "sql": "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE type IN ('view', 'trigger')"
    " OR (type = 'table' AND sql LIKE 'CREATE VIRTUAL%')"
}
"""What asks a database for all that may be in a table's place."""


def refuse_intruders(
    found: Iterable[Mapping[str, Any]],
    tables: Iterable[str],
    *,
    indexes: Collection[str] = (),
    triggers: Collection[str] = (),
) -> None:
    """Raise if something is in the place of a table, or changes what is written to one.

    Args:
        found: The rows that `LOOK` brought.
        tables: The tables' names.
        indexes: The names of full-text indexes, which are virtual tables.
        triggers: The SQL of triggers that belong to the tables.

    Raises:
        DatabaseOpenError: If so.
    """
    virtual = {name.lower() for name in indexes}
    own = set(map(_normal, triggers))
    wanted = {name.lower() for name in tables} | virtual
    for row in found:
        kind, name, table = (one_line(str(row[part])) for part in ("type", "name", "tbl_name"))
        is_own = kind == "trigger" and _normal(str(row["sql"])) in own  # by what it does
        is_index = kind == "table" and table.lower() in virtual
        if table.lower() not in wanted or is_own or is_index:
            continue
        what = f"has the trigger {name!r}" if kind == "trigger" else f"is a {_KINDS[kind]}"
        raise DatabaseOpenError(
            f"cannot use the database: {table!r} {what}, which this package didn't make. Find out"
            " who did; drop it, or use another database or table_prefix",
            kind="foreign_schema",
        )


def _normal(sql: str) -> str:
    """Return SQL as SQLite keeps it, but for spaces."""
    return " ".join(sql.replace(" IF NOT EXISTS", "", 1).split())


_KINDS = {"table": "virtual table", "view": "view"}
