"""Making the tables, and bringing those of older versions up to date."""

from collections.abc import Mapping, Sequence
from typing import Any

from strands_persql.databases.protocol import Statement
from strands_persql.tables import contents
from strands_persql.tables.tables import KEYS, Tables, columns


def describe(tables: Tables) -> list[Statement]:
    """Return the statements that ask for each table's columns and their places in the key."""
    return [
        {"sql": "SELECT name, pk FROM pragma_table_info(?)", "params": [tables.prefix + name]}
        for name in KEYS
    ]


def changes(tables: Tables, described: Sequence[Sequence[Mapping[str, Any]]]) -> list[str]:
    """Return the SQL that the tables need, in view of what `describe` found.

    Tables that aren't there are created. Those of strands-persql 0.1 and of earlier versions get
    the columns that they lack, and an index where their primary key is another one. Nothing is
    dropped.
    """
    sql: list[str] = []
    for name, found in zip(KEYS, described, strict=True):
        keys = {column["name"]: int(column["pk"]) for column in found}
        sql += _upgrade(tables, name, keys) if keys else [_create(tables, name)]
    new = [name for name, found in zip(KEYS, described, strict=True) if not found]
    # Where the table of contents is, the triggers on all others are.
    return [*sql, *contents.triggers(tables, contents.HOLDERS if "contents" in new else new)]


def missing(sql: str) -> str:
    """Return what one of the statements of `changes` adds, in words."""
    words = sql.split()
    if sql.startswith("ALTER TABLE"):
        return f"column {words[2]}.{words[5]}"
    if sql.startswith("CREATE TABLE"):
        return f"table {words[5]}"
    if sql.startswith("CREATE TRIGGER"):
        return "triggers"
    return f"index {words[5]}" if sql.startswith("CREATE INDEX") else f"values in {words[1]}"


def _create(tables: Tables, name: str) -> str:
    # Neither a second index nor a rowid: each would double the rows that PerSQL bills.
    definitions = ", ".join(f"{column} {kind}" for column, kind in columns(name).items())
    return (
        f"CREATE TABLE IF NOT EXISTS {tables.prefix}{name}"
        f" ({definitions}, PRIMARY KEY ({', '.join(KEYS[name])})) WITHOUT ROWID"
    )


def _upgrade(tables: Tables, name: str, found: Mapping[str, int]) -> list[str]:
    table, key = tables.prefix + name, KEYS[name]
    missing = {one: kind for one, kind in columns(name).items() if one not in found}
    sql = [f"ALTER TABLE {table} ADD COLUMN {one} {kind}" for one, kind in missing.items()]
    if "multi_agent_id" in missing:
        sql.append(
            f"UPDATE {table} SET multi_agent_id = coalesce(json_extract(data, '$.id'), '')"  # noqa: S608
        )
    if {column for column, place in found.items() if place} != set(key):
        sql.append(f"CREATE INDEX IF NOT EXISTS {table}_by_key ON {table} ({', '.join(key)})")
    return sql
