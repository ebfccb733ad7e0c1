"""Tables as they are found, those of 0.1 included: read without being changed."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from strands_persql.databases.protocol import Statement, Value
from strands_persql.tables.tables import KEYS, Tables, columns

_TABLE = re.compile(r"\{(\w+)\}")


class FoundTables(Tables):
    """Tables that may lack columns, or not be there: what is missing reads as its default.

    Only for statements that read.

    Args:
        prefix: What the tables' names begin with.
        described: What `migrations.describe` has found.
        owner: Whose rows, or None for all.

    Attributes:
        are_there: Whether any of the tables is there.
        are_current: Whether all of them are, with all their columns.
    """

    def __init__(
        self,
        prefix: str,
        described: Sequence[Sequence[Mapping[str, Any]]],
        owner: str | None = None,
    ) -> None:
        """Take what was found."""
        super().__init__(prefix, owner)
        found = {
            name: {column["name"] for column in rows}
            for name, rows in zip(KEYS, described, strict=True)
        }
        self.are_there = any(found.values())
        self._stand_ins = {
            name: _stand_in(f"{prefix}{name}", name, has)
            for name, has in found.items()
            if not has.issuperset(columns(name))
        }
        self.are_current = not self._stand_ins

    def statement(self, template: str, **values: Value) -> Statement:
        """Return a statement in which a query stands for each table that lacks something."""
        if self._stand_ins:
            template = _TABLE.sub(lambda match: self._stand_ins.get(match[1], match[0]), template)
        return super().statement(template, **values)


def list_indexes(tables: Tables) -> Statement:
    """Read the names of the indexes that upgrades have made."""
    names = [f"{tables.prefix}{name}_by_key" for name in KEYS]
    marks = ", ".join("?" * len(names))
    sql = f"SELECT name FROM sqlite_master WHERE type = 'index' AND name IN ({marks})"  # noqa: S608
    return {"sql": sql, "params": names}


def _stand_in(table: str, name: str, found: set[str]) -> str:
    """Return the query that reads a table as if it had all columns."""
    default = {one: kind.partition(" DEFAULT ")[2] or "NULL" for one, kind in columns(name).items()}
    if found and "multi_agent_id" in default:
        default["multi_agent_id"] = "coalesce(json_extract(data, '$.id'), '')"
    parts = [one if one in found else f"{value} AS {one}" for one, value in default.items()]
    source = f"FROM {table}" if found else "WHERE false"
    return f"(SELECT {', '.join(parts)} {source})"
