"""The tables under one prefix, their columns, and statements on them with named values.

Some columns kept the names of earlier versions; in Python they have those of the design:

================ ===================================================================
column           in Python
================ ===================================================================
``write_id``     ``origin`` of an agent or group: the write that created the row
``writes``       the latest updates that the row remembers
``epoch``        ``history_version``
``window_start`` ``View.start``
``view``         ``View.head``: what an agent works with before the messages from there
================ ===================================================================
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from strands_persql.databases.protocol import Statement, Value
from strands_persql.runtime.owners import scope_of
from strands_persql.tables.large_content import Skeleton, split_large
from strands_persql.tables.object_columns import OBJECT_COLUMNS, OBJECT_KEYS

MAX_ID = 2**53 - 1
"""A message id beyond every other one, exact in the hosted engine's numbers too."""

NO_WRITE = "-"
"""What stands for a write where there is none: no row has it."""

DATABASE_NOW = "CAST(strftime('%s', 'now') AS INTEGER)"
"""The database's time in seconds; older SQLite has no unixepoch()."""

SESSION_IDS = frozenset(
    {
        "after_session_id",
        "end_session_id",
        "last_session_id",
        "new_id",
        "owner_scope",
        "session_id",
        "staged",
        "staged_id",
        "starts_with",
    }
)
"""The names of the values that are sessions' ids, or what such begin with."""

WITHIN_SCOPE = "< :owner_scope || CAST(x'ff' AS TEXT)"
"""Behind a session's id: that it isn't beyond all that begin with the owner's scope."""

_Row = Mapping[str, Any]

# Every table has these; `write_id` is the write that created the row, `writes` the latest updates.
_COMMON = {
    "data": "TEXT NOT NULL DEFAULT '{}'",
    "version": "INTEGER NOT NULL DEFAULT 1",
    "write_id": "TEXT NOT NULL DEFAULT ''",
    "writes": "TEXT NOT NULL DEFAULT ''",
    "created_at": "TEXT NOT NULL DEFAULT ''",
    "updated_at": "TEXT NOT NULL DEFAULT ''",
}
_TEXT_KEY = "TEXT NOT NULL DEFAULT ''"

KEYS: dict[str, dict[str, str]] = {
    "sessions": {"session_id": _TEXT_KEY},
    "agents": {"session_id": _TEXT_KEY, "agent_id": _TEXT_KEY},
    "messages": {
        "session_id": _TEXT_KEY,
        "agent_id": _TEXT_KEY,
        "message_id": "INTEGER NOT NULL DEFAULT 0",
    },
    "multi_agents": {"session_id": _TEXT_KEY, "multi_agent_id": _TEXT_KEY},
    "checkpoints": {
        "session_id": _TEXT_KEY,
        "agent_id": _TEXT_KEY,
        "checkpoint_id": _TEXT_KEY,
    },
    "deletions": {"write_id": _TEXT_KEY},
    "contents": {
        "session_id": _TEXT_KEY,
        "digest": _TEXT_KEY,
        "place": "INTEGER NOT NULL DEFAULT 0",
    },
    **OBJECT_KEYS,
}
_EXTRA: dict[str, dict[str, str]] = {
    # expires_after: seconds that it is kept after the last activity; expires_at: at the earliest
    "sessions": {"expires_at": "INTEGER", "expires_after": "INTEGER"},
    # stored_at: when a row was stored, by the database's clock, where the session expires
    # epoch: grows when old messages change; window_start: from which id on an agent works with its
    # messages; view: what it works with before those, or null in rows of earlier versions
    "agents": {
        "epoch": "INTEGER NOT NULL DEFAULT 0",
        "window_start": "INTEGER",
        "view": "TEXT",
        "expires_after": "INTEGER",
        "stored_at": "INTEGER",
    },
    # claim: who has continued the message's turn from here
    "messages": {
        "turn": "TEXT NOT NULL DEFAULT ''",
        "claim": "TEXT NOT NULL DEFAULT ''",
        "stored_at": "INTEGER",
    },
    "multi_agents": {"expires_after": "INTEGER", "stored_at": "INTEGER"},
    # view: as an agent's, but closed at its end; turns: where the turns in it were, and the writes
    # of their first messages, to find them where they have moved; newest_id: the newest message
    # then; rewound: what the agent had gone back behind, as ranges of ids. The row of the id ''
    # has that of the agent as it is now, and nothing else.
    "checkpoints": {
        "label": _TEXT_KEY,
        "view": "TEXT NOT NULL DEFAULT '[]'",
        "turns": "TEXT NOT NULL DEFAULT '[]'",
        "newest_id": "INTEGER NOT NULL DEFAULT -1",
        "rewound": "TEXT NOT NULL DEFAULT '[]'",
    },
}
# Creating writes of what was deleted, so that a late copy of one creates nothing.
_DELETIONS = {"write_id": _TEXT_KEY, "deleted_at": "INTEGER NOT NULL DEFAULT 0"}
# Content too large for its row, in parts; uses: on the first part, how many rows refer to it;
# stored_at: in seconds of the database's clock
_CONTENTS = {
    **KEYS["contents"],
    "data": "TEXT NOT NULL DEFAULT ''",
    "uses": "INTEGER NOT NULL DEFAULT 0",
    "stored_at": "INTEGER NOT NULL DEFAULT 0",
}


def columns(name: str) -> dict[str, str]:
    """Return a table's columns and their types, by the table's name without its prefix."""
    if name == "deletions":
        return _DELETIONS
    if name == "contents":
        return _CONTENTS
    if name in OBJECT_COLUMNS:
        return OBJECT_COLUMNS[name]
    return {**KEYS[name], **_COMMON, **_EXTRA[name]}


@dataclass(frozen=True)
class RowData:
    """What a write puts into a row: its JSON and the times beside it."""

    data: str
    created_at: str
    updated_at: str

    @cached_property
    def skeleton(self) -> Skeleton:
        """Its JSON as the row has it, and what is stored apart from the row."""
        return split_large(self.data)


class Tables:
    """The tables under one prefix, or the rows of one owner in them.

    The ids of an owner's sessions begin with the owner's scope in the database, and nowhere else:
    it is put before them in every statement's values, and taken off the rows that come back.
    So no statement can reach another one's rows, whatever the ids.

    Args:
        prefix: What the tables' names begin with: letters, digits and underscores.
        owner: Whose rows, or None for all.

    Attributes:
        owner: The owner.
        scope: What the ids of the owner's sessions begin with, or nothing.

    Raises:
        ValueError: If the prefix is anything else, or a name that another prefix's tables have.
            If the owner is empty.
    """

    def __init__(self, prefix: Any = "strands_", owner: str | None = None) -> None:
        """Check the prefix, the only thing that becomes part of SQL text."""
        if not isinstance(prefix, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,62}", prefix):
            raise ValueError(
                f"table_prefix={prefix!r} | must be 1 to 63 letters, digits and underscores,"
                " and not begin with a digit"
            )
        if prefix.lower().endswith("multi_"):
            raise ValueError(
                f"table_prefix={prefix!r} | must not end with 'multi_': its agents would be the"
                f" multi-agents of the prefix {prefix[:-6]!r}"
            )
        self.prefix: str = prefix
        self.owner = owner
        self.scope = "" if owner is None else scope_of(owner)
        self.sessions = f"{prefix}sessions"
        self.agents = f"{prefix}agents"
        self.messages = f"{prefix}messages"
        self.multi_agents = f"{prefix}multi_agents"
        self.checkpoints = f"{prefix}checkpoints"
        self._templates: dict[str, tuple[str, tuple[str, ...]]] = {}

    def statement(self, template: str, **values: Value) -> Statement:
        """Return a statement: ``{messages}`` stands for a table, ``:name`` for a value.

        On the wire each value is a ``?``, repeated as often as it is named. A whole number
        arrives at the hosted engine as a real one: cast it where it becomes JSON or text.
        """
        prepared = self._templates.get(template)
        if prepared is None:
            prepared = self._templates[template] = self._prepare(template)
        sql, names = prepared
        values["owner_scope"] = ""  # the scope alone, once it is put before it
        if self.scope:
            values |= {name: self._placed(values[name]) for name in SESSION_IDS & values.keys()}
        return {"sql": sql, "params": [values[name] for name in names]}

    def _placed(self, session_id: Value) -> Value:
        return None if session_id is None else f"{self.scope}{session_id}"

    def json_of(self, session_ids: Iterable[str]) -> str:
        """Return ids of sessions as the database has them, as JSON, for a statement."""
        return json.dumps([self.scope + one for one in session_ids])

    def owned(self, rows: list[_Row]) -> list[_Row]:
        """Return the rows of a result with the ids of sessions as the owner knows them."""
        if not self.scope or not rows or "session_id" not in rows[0]:
            return rows
        return [  # a damaged index may bring others too
            {**row, "session_id": row["session_id"][len(self.scope) :]}
            for row in rows
            if str(row["session_id"]).startswith(self.scope)
        ]

    def _prepare(self, template: str) -> tuple[str, tuple[str, ...]]:
        text = " ".join(template.split())
        sql = re.sub(r"\{(\w+)\}", rf"{self.prefix}\1", re.sub(r":[a-z_]+", "?", text))
        return sql, tuple(re.findall(r":([a-z_]+)", text))


def row_values(row: RowData) -> dict[str, Any]:
    """Return a row's data and times by name, for a statement."""
    return {"data": row.skeleton.text, "created_at": row.created_at, "updated_at": row.updated_at}
