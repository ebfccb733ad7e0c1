"""The tables, their upgrade from strands-persql 0.1, and every SQL statement on them.

No statement reads more rows as a history grows: ids bound every scan of messages, and a look at
the newest message is a scalar subquery on the primary key. No table has a second index or a
rowid, for PerSQL bills each row written and each of those doubles it.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from strands_persql.databases.protocol import Statement, Value

WRITES_KEPT = 60
"""Writers whose latest write a row remembers, to recognize their retries."""

WRITE_ID_LENGTH = 16
"""Characters of a write id."""

_WRITES_LENGTH = WRITES_KEPT * (WRITE_ID_LENGTH + 1)

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
_KEYS: dict[str, dict[str, str]] = {
    "sessions": {"session_id": _TEXT_KEY},
    "agents": {"session_id": _TEXT_KEY, "agent_id": _TEXT_KEY},
    "messages": {
        "session_id": _TEXT_KEY,
        "agent_id": _TEXT_KEY,
        "message_id": "INTEGER NOT NULL DEFAULT 0",
    },
    "multi_agents": {"session_id": _TEXT_KEY, "multi_agent_id": _TEXT_KEY},
}
_EXTRA: dict[str, dict[str, str]] = {
    "sessions": {"expires_at": "INTEGER"},
    # epoch: grows when old messages change; window_start: the first message an agent works with
    "agents": {"epoch": "INTEGER NOT NULL DEFAULT 0", "window_start": "INTEGER"},
    "messages": {"turn": "TEXT NOT NULL DEFAULT ''"},
    "multi_agents": {},
}


def _columns(name: str) -> dict[str, str]:
    return {**_KEYS[name], **_COMMON, **_EXTRA[name]}


@dataclass(frozen=True)
class Row:
    """What a write puts into a row: its JSON and the times that stand beside it."""

    data: str
    created_at: str
    updated_at: str


@dataclass(frozen=True)
class Window:
    """How an agent's window changes with a write of its row.

    Attributes:
        moved_by: How many messages more its conversation manager has removed by now.
        start: The id of the first one that it still works with, or None to count them off.
    """

    moved_by: int = 0
    start: int | None = None


class Schema:
    """The four tables under one prefix, and the statements on them.

    Args:
        prefix: What the tables' names begin with: letters, digits and underscores.

    Raises:
        ValueError: If the prefix is anything else.
    """

    def __init__(self, prefix: str = "strands_") -> None:
        """Check the prefix, which is the one thing that goes into SQL text."""
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,62}", prefix):
            raise ValueError(
                f"table_prefix={prefix!r} | must be 1 to 63 letters, digits and underscores,"
                " and not begin with a digit"
            )
        self.prefix = prefix
        self.sessions = f"{prefix}sessions"
        self.agents = f"{prefix}agents"
        self.messages = f"{prefix}messages"
        self.multi_agents = f"{prefix}multi_agents"
        # The newest id, and the turn that it belongs to: one row read each.
        self._newest = (
            f"(SELECT max(message_id) FROM {self.messages} WHERE session_id = ? AND agent_id = ?)"
        )
        self._newest_turn = (
            f"(SELECT turn FROM {self.messages} WHERE session_id = ? AND agent_id = ?"
            " ORDER BY message_id DESC LIMIT 1)"
        )
        # Counted out message by message only for agents of 0.1, until their next update.
        self._window_start = (
            "coalesce(a.window_start, (SELECT w.message_id FROM (SELECT message_id,"
            f" row_number() OVER (ORDER BY message_id) AS place FROM {self.messages}"
            " WHERE session_id = a.session_id AND agent_id = a.agent_id) AS w"
            " WHERE w.place = 1 + coalesce(json_extract(a.data,"
            " '$.conversation_manager_state.removed_message_count'), 0)), 9007199254740991)"
        )

    # -- making and upgrading ------------------------------------------------------------------

    def describe(self) -> list[Statement]:
        """Ask for each table's columns and their places in the primary key."""
        return [
            {"sql": "SELECT name, pk FROM pragma_table_info(?)", "params": [self.prefix + name]}
            for name in _KEYS
        ]

    def changes(self, described: Sequence[Sequence[Mapping[str, Any]]]) -> list[str]:
        """Give the SQL that the tables need, in view of what `describe` found.

        Tables that aren't there are created; those of 0.1 get the columns that they lack, and an
        index where their primary key is another one. Nothing is dropped.
        """
        sql: list[str] = []
        for name, columns in zip(_KEYS, described, strict=True):
            found = {column["name"]: int(column["pk"]) for column in columns}
            sql += self._upgrade(name, found) if found else [self._create(name)]
        return sql

    def _create(self, name: str) -> str:
        columns = ", ".join(f"{column} {kind}" for column, kind in _columns(name).items())
        return (
            f"CREATE TABLE IF NOT EXISTS {self.prefix}{name}"
            f" ({columns}, PRIMARY KEY ({', '.join(_KEYS[name])})) WITHOUT ROWID"
        )

    def _upgrade(self, name: str, found: Mapping[str, int]) -> list[str]:
        table, key = self.prefix + name, _KEYS[name]
        missing = {one: kind for one, kind in _columns(name).items() if one not in found}
        sql = [f"ALTER TABLE {table} ADD COLUMN {one} {kind}" for one, kind in missing.items()]
        if "multi_agent_id" in missing:
            sql.append(
                f"UPDATE {table} SET multi_agent_id = coalesce(json_extract(data, '$.id'), '')"
            )
        if {column for column, place in found.items() if place} != set(key):
            sql.append(f"CREATE INDEX IF NOT EXISTS {table}_by_key ON {table} ({', '.join(key)})")
        return sql

    # -- reading -------------------------------------------------------------------------------

    def open_session(
        self,
        session_id: str,
        known: Mapping[str, Mapping[str, Any]],
        known_multi_agents: Mapping[str, Mapping[str, Any]],
        *,
        agent_limit: int,
        message_limit: int,
    ) -> list[Statement]:
        """Read a session, its agents and their windows, without what is known.

        Args:
            session_id: The session.
            known: By agent id what is known of it: ``version``, ``write_id``, ``epoch``,
                ``start`` (of its window) and ``next`` (the id after its last message), or
                nothing for an agent to be read whole.
            known_multi_agents: The same of multi-agents: ``version`` and ``write_id``.
            agent_limit: Agents at the most; those in ``known`` come first.
            message_limit: Messages at the most, over all agents.

        Returns:
            Four statements: the session, its agents and its multi-agents (``data`` is null
            where the version is known), and the agents' messages by agent and id.
        """
        known_json = json.dumps(known)
        agents = (
            "SELECT a.session_id, a.agent_id, a.version, a.write_id, a.epoch, a.data,"
            f" {self._window_start} AS window_start,"
            " json_extract(k.value, '$.write_id') IS a.write_id AS same,"
            " json_extract(k.value, '$.version') AS known_version,"
            " json_extract(k.value, '$.epoch') AS known_epoch,"
            " json_extract(k.value, '$.start') AS known_start,"
            " json_extract(k.value, '$.next') AS known_next"
            f" FROM {self.agents} AS a LEFT JOIN json_each(?) AS k ON k.key = a.agent_id"
            " WHERE a.session_id = ? ORDER BY k.key IS NULL, a.agent_id LIMIT CAST(? AS INTEGER)"
        )
        params: list[Value] = [known_json, session_id, agent_limit]
        return [
            {
                "sql": f"SELECT data, version, write_id FROM {self.sessions} WHERE session_id = ?",
                "params": [session_id],
            },
            {
                "sql": "SELECT agent_id, version, write_id, epoch, window_start,"
                " CASE WHEN same AND known_version = version THEN NULL ELSE data END AS data"
                f" FROM ({agents})",
                "params": params,
            },
            {
                "sql": "SELECT a.multi_agent_id, a.version, a.write_id,"
                " CASE WHEN json_extract(k.value, '$.write_id') = a.write_id"
                " AND json_extract(k.value, '$.version') = a.version THEN NULL ELSE a.data END"
                f" AS data FROM {self.multi_agents} AS a"
                " LEFT JOIN json_each(?) AS k ON k.key = a.multi_agent_id"
                " WHERE a.session_id = ? ORDER BY a.multi_agent_id LIMIT CAST(? AS INTEGER)",
                "params": [json.dumps(known_multi_agents), session_id, agent_limit],
            },
            {
                "sql": "SELECT m.agent_id, m.message_id, m.version, m.write_id, m.turn, m.data"
                f" FROM ({agents}) AS a CROSS JOIN {self.messages} AS m"
                " ON m.session_id = a.session_id AND m.agent_id = a.agent_id AND m.message_id >="
                " CASE WHEN a.same AND a.known_epoch = a.epoch AND a.known_start <= a.window_start"
                " THEN max(a.known_next, a.window_start) ELSE a.window_start END"
                " ORDER BY m.agent_id, m.message_id LIMIT CAST(? AS INTEGER)",
                "params": [*params, message_limit],
            },
        ]

    def list_messages(
        self, session_id: str, agent_id: str, after: int, offset: int, limit: int
    ) -> Statement:
        """Read an agent's messages beyond an id, in order."""
        return {
            "sql": f"SELECT message_id, version, write_id, turn, data FROM {self.messages}"
            " WHERE session_id = ? AND agent_id = ? AND message_id > ? ORDER BY message_id"
            " LIMIT CAST(? AS INTEGER) OFFSET CAST(? AS INTEGER)",
            "params": [session_id, agent_id, after, limit, offset],
        }

    def read_message(self, session_id: str, agent_id: str, message_id: int) -> Statement:
        """Read one message."""
        return {
            "sql": f"SELECT message_id, version, write_id, writes, turn, data FROM {self.messages}"
            " WHERE session_id = ? AND agent_id = ? AND message_id = ?",
            "params": [session_id, agent_id, message_id],
        }

    def read_multi_agent(self, session_id: str, multi_agent_id: str) -> Statement:
        """Read a multi-agent's row, with the writes that it remembers."""
        return {
            "sql": f"SELECT version, write_id, writes, data FROM {self.multi_agents}"
            " WHERE session_id = ? AND multi_agent_id = ?",
            "params": [session_id, multi_agent_id],
        }

    def list_sessions(self, after: str, starts_with: str, limit: int) -> Statement:
        """Read sessions in the order of their ids, beyond one of them."""
        return {
            "sql": f"SELECT session_id, data FROM {self.sessions} WHERE session_id > ?"
            " AND substr(session_id, 1, length(?)) = ?"
            " ORDER BY session_id LIMIT CAST(? AS INTEGER)",
            "params": [after, starts_with, starts_with, limit],
        }

    # -- creating and deleting -----------------------------------------------------------------

    def create_session(self, session_id: str, row: Row, write_id: str) -> list[Statement]:
        """Create a session unless it is there, and read what is there then."""
        return [
            {
                "sql": f"INSERT INTO {self.sessions}"
                " (session_id, data, write_id, created_at, updated_at)"
                f" SELECT ?, ?, ?, ?, ? WHERE NOT EXISTS (SELECT 1 FROM {self.sessions}"
                " WHERE session_id = ?)",
                "params": [session_id, *_row_params(row, write_id), session_id],
            },
            {
                "sql": f"SELECT data, write_id FROM {self.sessions} WHERE session_id = ?",
                "params": [session_id],
            },
        ]

    def create_agent(
        self, session_id: str, agent_id: str, row: Row, write_id: str, removed: int
    ) -> Statement:
        """Create an agent in a session that exists, unless the agent is there."""
        return {
            "sql": f"INSERT INTO {self.agents} (session_id, agent_id, data, write_id, created_at,"
            " updated_at, window_start)"
            " SELECT ?, ?, ?, ?, ?, ?, CASE ? WHEN 0 THEN 0 END"
            f" WHERE EXISTS (SELECT 1 FROM {self.sessions} WHERE session_id = ?) AND NOT EXISTS"
            f" (SELECT 1 FROM {self.agents} WHERE session_id = ? AND agent_id = ?)",
            "params": [
                *(session_id, agent_id),
                *_row_params(row, write_id),
                removed,
                *(session_id, session_id, agent_id),
            ],
        }

    def create_multi_agent(
        self, session_id: str, multi_agent_id: str, row: Row, write_id: str
    ) -> Statement:
        """Create a multi-agent in a session that exists, unless it is there."""
        return {
            "sql": f"INSERT INTO {self.multi_agents}"
            " (session_id, multi_agent_id, data, write_id, created_at, updated_at)"
            " SELECT ?, ?, ?, ?, ?, ?"
            f" WHERE EXISTS (SELECT 1 FROM {self.sessions} WHERE session_id = ?) AND NOT EXISTS"
            f" (SELECT 1 FROM {self.multi_agents} WHERE session_id = ? AND multi_agent_id = ?)",
            "params": [
                *(session_id, multi_agent_id),
                *_row_params(row, write_id),
                *(session_id, session_id, multi_agent_id),
            ],
        }

    def row_exists(self, table: str, session_id: str, agent_id: str | None = None) -> Statement:
        """Tell by which write a session's or (multi-)agent's row was created, if it is there."""
        sql, params = f"SELECT write_id FROM {table} WHERE session_id = ?", [session_id]
        if agent_id is not None:
            sql += f" AND {'multi_agent_id' if table == self.multi_agents else 'agent_id'} = ?"
            params.append(agent_id)
        return {"sql": sql, "params": params}

    def delete_session(self, session_id: str) -> list[Statement]:
        """Tell whether the session is there, and delete every row of it."""

        def delete(table: str) -> Statement:
            return {"sql": f"DELETE FROM {table} WHERE session_id = ?", "params": [session_id]}

        return [
            self.row_exists(self.sessions, session_id),
            *map(delete, (self.messages, self.agents, self.multi_agents, self.sessions)),
        ]

    # -- one message on its own ----------------------------------------------------------------

    def create_message(
        self, session_id: str, agent_id: str, message_id: int, row: Row, write_id: str
    ) -> list[Statement]:
        """Store a message at its id if that is free, else at the next one, and tell where.

        A message that this write has stored before isn't stored again. One that lands before
        the newest marks the history as changed.
        """
        key = [session_id, agent_id]
        replay = (
            f"SELECT message_id FROM {self.messages}"
            " WHERE session_id = ? AND agent_id = ? AND message_id >= ? AND write_id = ?"
        )
        replay_params: list[Value] = [*key, message_id, write_id]
        place = (
            f"SELECT CASE WHEN EXISTS (SELECT 1 FROM {self.messages} WHERE session_id = ?"
            " AND agent_id = ? AND message_id = ?)"
            f" THEN {self._newest} + 1 ELSE CAST(? AS INTEGER) END AS id"
        )
        return [
            {
                "sql": f"INSERT INTO {self.messages} (session_id, agent_id, message_id, data,"
                " write_id, created_at, updated_at)"
                " SELECT ?, ?, place.id, json_set(?, '$.message_id', place.id), ?, ?, ?"
                f" FROM ({place}) AS place WHERE EXISTS (SELECT 1 FROM {self.agents}"
                f" WHERE session_id = ? AND agent_id = ?) AND NOT EXISTS ({replay})",
                "params": [
                    *key,
                    *_row_params(row, write_id),
                    *key,
                    message_id,
                    *key,
                    message_id,
                    *key,
                    *replay_params,
                ],
            },
            {
                "sql": f"UPDATE {self.agents} SET epoch = epoch + 1 WHERE session_id = ?"
                f" AND agent_id = ? AND changes() > 0 AND {self._newest} > ?",
                "params": [*key, *key, message_id],
            },
            self.row_exists(self.agents, *key),
            {"sql": replay, "params": replay_params},
        ]

    def update_message(
        self,
        session_id: str,
        agent_id: str,
        message_id: int,
        row: Row,
        write_id: str,
        expected: tuple[int, str],
    ) -> list[Statement]:
        """Replace a message if its version is the expected one, and read what is there then.

        Args:
            session_id: The session.
            agent_id: The agent.
            message_id: The message.
            row: What to store.
            write_id: This write.
            expected: The version to replace, and the write that created the row.
        """
        key: list[Value] = [session_id, agent_id, message_id]
        return [
            {
                "sql": f"UPDATE {self.messages} SET {_SET_ROW} WHERE session_id = ?"
                " AND agent_id = ? AND message_id = ? AND version = ? AND write_id = ?",
                "params": [*_set_params(row, write_id), *key, *expected],
            },
            self._mark_history(session_id, agent_id),
            self.read_message(session_id, agent_id, message_id),
        ]

    def update_multi_agent(
        self,
        session_id: str,
        multi_agent_id: str,
        row: Row,
        write_id: str,
        expected: tuple[int, str],
    ) -> list[Statement]:
        """Replace a multi-agent's row if it is as expected, and read what is there then."""
        return [
            {
                "sql": f"UPDATE {self.multi_agents} SET data = ?, version = version + 1,"
                f" writes = {_PUSH_WRITE}, updated_at = ? WHERE session_id = ?"
                " AND multi_agent_id = ? AND version = ? AND write_id = ?",
                "params": [*_set_params(row, write_id), session_id, multi_agent_id, *expected],
            },
            self.read_multi_agent(session_id, multi_agent_id),
        ]

    # -- a moment: messages, state and redactions of one agent, in one transaction ----------------

    def guard(
        self,
        session_id: str,
        agent_id: str,
        origin: str | None,
        version: int | None,
        alone_after: tuple[int, str] | None,
    ) -> tuple[str, list[Value]]:
        """Give the condition under which a moment may be stored.

        Args:
            session_id: The session.
            agent_id: The agent.
            origin: The write that created the agent's row, or None for any.
            version: The version that the agent's row must have, or None for any.
            alone_after: A message id and a turn: no message beyond the id may be of another turn.
        """
        where, params = "session_id = ? AND agent_id = ?", [session_id, agent_id]
        values: list[Value] = [*params]
        if origin is not None:
            where += " AND write_id = ?"
            values.append(origin)
        if version is not None:
            where += " AND version = ?"
            values.append(version)
        sql = f"EXISTS (SELECT 1 FROM {self.agents} WHERE {where})"
        if alone_after is not None:
            sql += (
                f" AND NOT EXISTS (SELECT 1 FROM {self.messages} WHERE session_id = ?"
                " AND agent_id = ? AND message_id > ? AND turn <> ?)"
            )
            values += [*params, *alone_after]
        return sql, values

    def move_turn(
        self,
        session_id: str,
        agent_id: str,
        turn: str,
        first: int,
        unless_stored: tuple[int, str],
        guard: tuple[str, list[Value]],
    ) -> list[Statement]:
        """Move a turn's messages behind another writer's, if any came after them.

        Args:
            session_id: The session.
            agent_id: The agent.
            turn: The turn to move.
            first: An id that none of the turn's messages lies before.
            unless_stored: A message id, and a write: nothing is moved if the write has stored a
                message beyond the id, for then this is a late copy of a request.
            guard: The condition of the moment.
        """
        key = [session_id, agent_id]
        new_id = f"CAST(message_id + {self._newest} - ? + 1 AS INTEGER)"
        new_id_params: list[Value] = [*key, first]
        # A condition without a column doesn't spare the scan; a bound beyond every id does.
        from_id = f"CASE WHEN {self._newest_turn} <> ? THEN ? ELSE 9007199254740991 END"
        return [
            {
                "sql": f"UPDATE {self.messages} SET message_id = {new_id},"
                f" data = json_set(data, '$.message_id', {new_id})"
                f" WHERE session_id = ? AND agent_id = ? AND message_id >= {from_id}"
                f" AND turn = ? AND NOT EXISTS (SELECT 1 FROM {self.messages} WHERE session_id = ?"
                f" AND agent_id = ? AND message_id > ? AND write_id = ?) AND {guard[0]}",
                "params": [
                    *new_id_params,
                    *new_id_params,
                    *key,
                    *key,
                    turn,
                    first,
                    turn,
                    *key,
                    *unless_stored,
                    *guard[1],
                ],
            },
            self._mark_history(session_id, agent_id),
        ]

    def append_message(
        self,
        session_id: str,
        agent_id: str,
        turn: str,
        row: Row,
        write_id: str,
        after: int,
        guard: tuple[str, list[Value]],
    ) -> Statement:
        """Store a message behind all others, unless this write has stored it beyond an id."""
        key = [session_id, agent_id]
        return {
            "sql": f"INSERT INTO {self.messages} (session_id, agent_id, message_id, data, write_id,"
            " created_at, updated_at, turn)"
            " SELECT ?, ?, place.id, json_set(?, '$.message_id', place.id), ?, ?, ?, ?"
            # LIMIT keeps SQLite from working the id out once for each place where it stands.
            f" FROM (SELECT coalesce({self._newest}, -1) + 1 AS id LIMIT 1) AS place"
            f" WHERE {guard[0]} AND NOT EXISTS (SELECT 1 FROM {self.messages}"
            " WHERE session_id = ? AND agent_id = ? AND message_id > ? AND write_id = ?)",
            "params": [
                *key,
                *_row_params(row, write_id),
                turn,
                *key,
                *guard[1],
                *key,
                after,
                write_id,
            ],
        }

    def rewrite_message(
        self,
        session_id: str,
        agent_id: str,
        between: tuple[int, int],
        row: Row,
        message_write_id: str,
        write_id: str,
        guard: tuple[str, list[Value]],
    ) -> list[Statement]:
        """Replace what a write stored between two ids, once: for redactions."""
        return [
            {
                "sql": f"UPDATE {self.messages} SET {_SET_ROW} WHERE session_id = ?"
                " AND agent_id = ? AND message_id BETWEEN ? AND ? AND write_id = ?"
                f" AND instr(writes, ?) = 0 AND {guard[0]}",
                "params": [
                    *_set_params(row, write_id),
                    *(session_id, agent_id),
                    *between,
                    *(message_write_id, write_id),
                    *guard[1],
                ],
            },
            self._mark_history(session_id, agent_id),
        ]

    def update_agent(
        self,
        session_id: str,
        agent_id: str,
        row: Row,
        write_id: str,
        previous_write_id: str,
        window: "Window",
        guard: tuple[str, list[Value]],
    ) -> Statement:
        """Replace an agent's row.

        Args:
            session_id: The session.
            agent_id: The agent.
            row: What to store.
            write_id: This write.
            previous_write_id: The writer's write before it, which needn't be remembered now.
            window: Where the agent's window begins.
            guard: The condition of the moment.
        """
        start, params = self._moved_window(session_id, agent_id, window)
        return {
            "sql": f"UPDATE {self.agents} SET data = json_set(?, '$.created_at',"
            " coalesce(json_extract(data, '$.created_at'), created_at)), version = version + 1,"
            f" writes = {_PUSH_WRITE}, updated_at = ?, window_start = {start}"
            f" WHERE session_id = ? AND agent_id = ? AND {guard[0]}",
            "params": [
                *_set_params(row, write_id, previous_write_id),
                *params,
                *(session_id, agent_id),
                *guard[1],
            ],
        }

    def _moved_window(
        self, session_id: str, agent_id: str, window: "Window"
    ) -> tuple[str, list[Value]]:
        by = window.moved_by
        if by == 0:
            return "window_start", []
        if window.start is not None:
            return "?", [window.start]
        of_agent = f"SELECT message_id FROM {self.messages} WHERE session_id = ? AND agent_id = ?"
        key: list[Value] = [session_id, agent_id]
        if by > 0:
            at = f"{of_agent} AND message_id >= window_start ORDER BY message_id"
            beyond, params = f"{self._newest} + 1", [*key, by, *key]
        else:
            at = f"{of_agent} AND message_id < window_start ORDER BY message_id DESC"
            beyond, params = "0", [*key, -by - 1]
        moved = f"coalesce(({at} LIMIT 1 OFFSET CAST(? AS INTEGER)), {beyond})"
        return f"CASE WHEN window_start IS NOT NULL THEN {moved} END", params

    def read_outcome(
        self, session_id: str, agent_id: str, known_version: int | None, write_id: str
    ) -> Statement:
        """Read the agent's row as a moment left it, with its data unless that is known.

        Known is the version that the writer holds, and what this very write has stored.
        """
        return {
            "sql": "SELECT version, write_id, epoch, window_start, writes, CASE WHEN version = ?"
            " OR instr(writes, ?) = 1 THEN NULL ELSE data END AS data"
            f" FROM {self.agents} WHERE session_id = ? AND agent_id = ?",
            "params": [known_version, write_id, session_id, agent_id],
        }

    def read_turn(self, session_id: str, agent_id: str, turn: str, after: int) -> Statement:
        """Read where a turn's messages beyond an id stand."""
        return {
            "sql": f"SELECT message_id, write_id FROM {self.messages} WHERE session_id = ?"
            " AND agent_id = ? AND message_id > ? AND turn = ? ORDER BY message_id",
            "params": [session_id, agent_id, after, turn],
        }

    def read_others(
        self,
        session_id: str,
        agent_id: str,
        turns: tuple[str, str],
        after: int,
        epoch: int,
        start: int,
    ) -> Statement:
        """Read the messages beyond an id that are of neither turn.

        Where old messages have changed, read the whole window too, from its ``start``.
        """
        return {
            "sql": "SELECT message_id, version, write_id, turn, data"
            f" FROM {self.messages} WHERE session_id = ? AND agent_id = ? AND message_id >"
            f" CASE WHEN (SELECT epoch FROM {self.agents} WHERE session_id = ? AND agent_id = ?)"
            " = ? THEN ? ELSE ? END AND turn <> ? AND turn <> ? ORDER BY message_id",
            "params": [
                *(session_id, agent_id, session_id, agent_id),
                *(epoch, after, min(after, start - 1)),
                *turns,
            ],
        }

    def _mark_history(self, session_id: str, agent_id: str) -> Statement:
        # Right behind the statement that may have changed old messages, in its transaction.
        return {
            "sql": f"UPDATE {self.agents} SET epoch = epoch + 1"
            " WHERE session_id = CASE WHEN changes() > 0 THEN ? END AND agent_id = ?",
            "params": [session_id, agent_id],
        }


# The newest write first; the writer's own previous one gives up its place.
_PUSH_WRITE = f"substr(? || replace(writes, ?, ''), 1, {_WRITES_LENGTH})"
_SET_ROW = (
    "data = json_set(?, '$.message_id', message_id, '$.created_at',"
    " coalesce(json_extract(data, '$.created_at'), created_at)),"
    f" version = version + 1, writes = {_PUSH_WRITE}, updated_at = ?"
)


def _row_params(row: Row, write_id: str) -> list[Value]:
    return [row.data, write_id, row.created_at, row.updated_at]


def _set_params(row: Row, write_id: str, previous_write_id: str = "-") -> list[Value]:
    return [row.data, f"{write_id} ", f"{previous_write_id} ", row.updated_at]
