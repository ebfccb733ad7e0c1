"""Statements that repair rows: each does nothing where the row has changed since it was read."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from strands_persql.databases.protocol import Statement, Value
from strands_persql.runtime.ids import AgentKey
from strands_persql.tables.tables import Tables

_OF_AGENT = "session_id = :session_id AND agent_id = :agent_id"
_KEYS = {
    "sessions": "session_id = :session_id",
    "agents": _OF_AGENT,
    "multi_agents": "session_id = :session_id AND multi_agent_id = :agent_id",
    "messages": f"{_OF_AGENT} AND message_id = :message_id",
    "checkpoints": f"{_OF_AGENT} AND checkpoint_id = :checkpoint_id",
}


def create_missing_session(tables: Tables, session_id: str, data: str, time: str) -> Statement:
    """Create a session for rows that have none."""
    return tables.statement(
        """
        INSERT INTO {sessions} (session_id, data, created_at, updated_at)
        SELECT :session_id, :data, :time, :time
        WHERE NOT EXISTS (SELECT 1 FROM {sessions} WHERE session_id = :session_id)
        """,
        session_id=session_id,
        data=data,
        time=time,
    )


def replace_data(
    tables: Tables, table: str, key: Mapping[str, Value], *, found: str | None, data: str
) -> Statement:
    """Replace a row's JSON where it is still what was found."""
    return tables.statement(
        f"""
        UPDATE {{{table}}} SET data = :data, version = version + 1
        WHERE {_KEYS[table]} AND data IS :found
        """,  # noqa: S608
        **key,
        found=found,
        data=data,
    )


def delete_row(
    tables: Tables, table: str, key: Mapping[str, Value], found: str | None
) -> Statement:
    """Delete a row whose JSON is still what was found."""
    return tables.statement(
        f"DELETE FROM {{{table}}} WHERE {_KEYS[table]} AND data IS :found",  # noqa: S608
        **key,
        found=found,
    )


def reset_counter(tables: Tables, table: str, key: Mapping[str, Value], column: str) -> Statement:
    """Give a row's version or history version a number again, where it has none."""
    first = {"version": 1, "epoch": 0}[column]
    return tables.statement(
        f"""
        UPDATE {{{table}}} SET {column} = {first}
        WHERE {_KEYS[table]} AND (typeof({column}) <> 'integer' OR {column} < {first})
        """,  # noqa: S608
        **key,
    )


def set_view(
    tables: Tables,
    key: AgentKey,
    *,
    found: tuple[str | None, Value],
    view: str | None,
    start: int | None,
) -> Statement:
    """Replace what an agent works with, where it is still what was found.

    Args:
        tables: The tables.
        key: The agent.
        found: The columns ``view`` and ``window_start`` as they were found.
        view: What it works with before its window, or None where its conversation manager says.
        start: From which id on it works with all messages, or None where that is counted out.
    """
    return tables.statement(
        f"""
        UPDATE {{agents}} SET view = :view, window_start = CAST(:start AS INTEGER),
            version = version + 1
        WHERE {_OF_AGENT} AND view IS :found_view AND window_start IS :found_start
        """,  # noqa: S608
        **key.context,
        view=view,
        start=start,
        found_view=found[0],
        found_start=found[1],
    )


def forget_behind(tables: Tables, key: AgentKey, found: Value) -> Statement:
    """Have an agent be behind nothing, where what it is behind is still what was found."""
    return tables.statement(
        f"""
        UPDATE {{checkpoints}} SET rewound = '[]'
        WHERE {_OF_AGENT} AND checkpoint_id = '' AND rewound IS :found
        """,  # noqa: S608
        **key.context,
        found=found,
    )


def mark_repaired(tables: Tables, key: AgentKey) -> Statement:
    """Grow the history's version, so that caches notice that messages were repaired."""
    return tables.statement(
        f"UPDATE {{agents}} SET epoch = epoch + 1 WHERE {_OF_AGENT}",  # noqa: S608
        **key.context,
    )


# The messages between two ids, with their turns, as they were found.
_UNCHANGED = f"""(
    SELECT group_concat(message_id || ' ' || turn, ',') FROM (
        SELECT message_id, turn FROM {{messages}}
        WHERE {_OF_AGENT} AND message_id BETWEEN :first AND :last ORDER BY message_id
    )
) = :found"""  # noqa: S608


def reorder_messages(
    tables: Tables, key: AgentKey, found: Sequence[tuple[int, str]], places: Sequence[int]
) -> list[Statement]:
    """Give adjacent messages other ids, where they are still those found.

    A window that begins between them begins with the first of them from then on.

    Args:
        tables: The tables.
        key: The agent.
        found: The ids of the messages and their turns, in order.
        places: The new id of each: the same ids in another order.
    """
    ids = [message_id for message_id, _ in found]
    values: dict[str, Any] = {
        **key.context,
        "first": ids[0],
        "last": ids[-1],
        "found": ",".join(f"{message_id} {turn}" for message_id, turn in found),
    }
    # Two messages never have one id at a time: all of them move out of the way first.
    return [
        tables.statement(
            f"""
            UPDATE {{agents}} SET window_start = CAST(:first AS INTEGER), version = version + 1
            WHERE {_OF_AGENT} AND window_start > :first AND window_start <= :last AND {_UNCHANGED}
            """,  # noqa: S608
            **values,
        ),
        tables.statement(
            f"""
            UPDATE {{messages}} SET message_id = -1 - k.new_id
            FROM (
                SELECT json_extract(value, '$[0]') AS old_id, json_extract(value, '$[1]') AS new_id
                FROM json_each(:places)
            ) AS k
            WHERE {_OF_AGENT} AND message_id = k.old_id AND {_UNCHANGED}
            """,  # noqa: S608
            **values,
            places=json.dumps([*zip(ids, places, strict=True)]),
        ),
        tables.statement(
            f"""
            UPDATE {{messages}} SET message_id = -1 - message_id, version = version + 1,
                data = CASE WHEN json_valid(data)
                    THEN json_set(data, '$.message_id', -1 - message_id) ELSE data END
            WHERE {_OF_AGENT} AND message_id < 0
            """,  # noqa: S608
            **key.context,
        ),
        mark_repaired(tables, key),
    ]


def insert_message(
    tables: Tables, key: AgentKey, message_id: int, *, data: str, turn: str, time: str
) -> Statement:
    """Store a message at an id where one was lost, if it is still free."""
    return tables.statement(
        f"""
        INSERT INTO {{messages}}
            (session_id, agent_id, message_id, data, turn, created_at, updated_at)
        SELECT :session_id, :agent_id, CAST(:message_id AS INTEGER), :data, :turn, :time, :time
        WHERE NOT EXISTS (
            SELECT 1 FROM {{messages}} WHERE {_OF_AGENT} AND message_id = :message_id
        )
        """,  # noqa: S608
        **key.context,
        message_id=message_id,
        data=data,
        turn=turn,
        time=time,
    )
