"""Statements that read a session: all of it when it is opened, its rows one by one."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from strands_persql.databases.protocol import Statement
from strands_persql.runtime.ids import AgentKey
from strands_persql.tables import contents, large_content
from strands_persql.tables.retention import EXPIRES_IN, HAS_EXPIRED, NOT_EXPIRED
from strands_persql.tables.tables import MAX_ID, Tables

FIRST_PARTS_BYTES = 8_000_000
"""Bytes of what is stored apart that an open's one request brings."""

# Rows of 0.1 have no window: it is counted out, message by message, until their next update. What
# was removed may be more than there is; the window then begins behind the newest message.
WINDOW_START = """coalesce(CASE typeof(a.window_start) WHEN 'integer' THEN a.window_start END, (
    SELECT w.message_id FROM (
        SELECT message_id, row_number() OVER (ORDER BY message_id) AS place FROM {messages}
        WHERE session_id = a.session_id AND agent_id = a.agent_id
    ) AS w WHERE w.place =
        1 + CASE WHEN json_valid(a.data) THEN coalesce(json_extract(a.data,
            '$.conversation_manager_state.removed_message_count'), 0) ELSE 0 END
), (
    SELECT max(message_id) + 1 FROM {messages}
    WHERE session_id = a.session_id AND agent_id = a.agent_id
), 0)"""

# What an agent works with: the ranges of its view, and all from its window's start on.
# A view that can't be read is passed over.
RANGES = """json_insert(CASE WHEN NOT json_valid(a.view) THEN '[]' WHEN json_type(a.view) = 'array'
    THEN a.view ELSE '[]' END, '$[#]', json_array(a.window_start))"""
_FIRST = "json_extract(r.value, '$[0]')"
_LAST = f"coalesce(json_extract(r.value, '$[1]'), {MAX_ID})"

# Of a session that has expired nothing is said.
_READ_SESSION = f"""
    SELECT data, version, write_id, expires_after, expires_in, has_parts FROM (
        SELECT s.data, s.version, s.write_id, s.expires_after, {EXPIRES_IN} AS expires_in,
            EXISTS (SELECT 1 FROM {{contents}} WHERE session_id = :session_id) AS has_parts
        FROM {{sessions}} AS s WHERE s.session_id = :session_id
    ) WHERE expires_in IS NULL OR expires_in > 0
"""  # noqa: S608 - nothing but constants

_AGENTS = f"""
    SELECT a.session_id, a.agent_id, a.version, a.write_id, a.epoch, a.view, a.data,
        {WINDOW_START} AS window_start, typeof(a.window_start) <> 'integer' AS counted,
        a.expires_after,
        json_extract(k.value, '$.write_id') IS a.write_id AS same,
        json_extract(k.value, '$.version') AS known_version,
        json_extract(k.value, '$.epoch') AS known_epoch,
        json_extract(k.value, '$.view') AS known_view,
        json_extract(k.value, '$.start') AS known_start,
        json_extract(k.value, '$.next') AS known_next
    FROM {{agents}} AS a LEFT JOIN json_each(:known) AS k ON k.key = a.agent_id
    WHERE a.session_id = :session_id
    ORDER BY k.key IS NULL, a.agent_id LIMIT CAST(:agent_limit AS INTEGER)
"""  # noqa: S608 - nothing but constants

_READ_AGENTS = f"""
    SELECT agent_id, version, write_id, epoch, view, window_start, counted, expires_after,
        CASE WHEN same AND known_version = version THEN NULL ELSE data END AS data
    FROM ({_AGENTS})
"""  # noqa: S608 - nothing but constants

_READ_MULTI_AGENTS = """
    SELECT a.multi_agent_id, a.version, a.write_id, a.expires_after,
        CASE WHEN json_extract(k.value, '$.write_id') = a.write_id
            AND json_extract(k.value, '$.version') = a.version THEN NULL ELSE a.data END AS data
    FROM {multi_agents} AS a
    LEFT JOIN json_each(:known_multi_agents) AS k ON k.key = a.multi_agent_id
    WHERE a.session_id = :session_id
    ORDER BY a.multi_agent_id LIMIT CAST(:agent_limit AS INTEGER)
"""

# Extras of a view are objects. Its ranges may be in any order; to sort them reads a row for each,
# so the usual view, which has nothing but the window, is spared that.
_SORTED_RANGES = f"""CASE a.view WHEN '[]' THEN json_array(json_array(a.window_start)) ELSE (
    SELECT json_group_array(json(value)) FROM (SELECT value FROM json_each({RANGES})
    WHERE type = 'array' ORDER BY json_extract(value, '$[0]'))) END"""  # noqa: S608 - only constants

# The loops of a CROSS JOIN are in its order, and so are the rows: by agent, then by id. To have
# SQLite sort them would read all messages for the first page of them, and again for each other one.
_READ_VIEWS = f"""
    SELECT m.agent_id, m.message_id, m.version, m.write_id, m.turn, m.claim, m.data
    FROM ({_AGENTS}) AS a CROSS JOIN json_each({_SORTED_RANGES}) AS r
    CROSS JOIN {{messages}} AS m ON m.session_id = a.session_id AND m.agent_id = a.agent_id
        AND m.message_id >= CASE
            WHEN a.same AND a.known_epoch = a.epoch AND a.known_view IS a.view
                AND a.known_start <= a.window_start
            THEN max(a.known_next, {_FIRST}) ELSE {_FIRST} END
        AND m.message_id <= {_LAST}
    LIMIT CAST(:message_limit AS INTEGER)
"""  # noqa: S608 - nothing but constants

# A view that lists leaves begins as an object that does, but for its bracket.
_READ_PARTS = contents.parts_of(
    f"""
    SELECT {contents.list_of("text", large_content.LIST_OF_OBJECT)} AS listed FROM (
        SELECT data AS text FROM ({_READ_AGENTS})
        UNION ALL SELECT data FROM ({_READ_MULTI_AGENTS})
        UNION ALL SELECT data FROM ({_READ_VIEWS})
        UNION ALL SELECT ltrim(view, '[') FROM {{agents}} WHERE session_id = :session_id
    )
    """,  # noqa: S608 - nothing but constants
    FIRST_PARTS_BYTES,
)


@dataclass(frozen=True)
class Open:
    """What an open asks for: a session, its agents, their multi-agents and messages.

    Parts of what these rows have stored apart come along where they are asked for, if they aren't
    too many.
    """

    session: Statement
    agents: Statement
    multi_agents: Statement
    messages: Statement
    parts: Statement | None


def open_session(
    tables: Tables,
    session_id: str,
    known: Mapping[str, Mapping[str, Any]],
    known_multi_agents: Mapping[str, Mapping[str, Any]],
    *,
    agent_limit: int,
    message_limit: int,
    asks_parts: bool = True,
) -> Open:
    """Read a session, its agents and what they work with, without what is known.

    Args:
        tables: The tables.
        session_id: The session.
        known: By agent id what is known of it: ``version``, ``write_id``, ``epoch``, ``view``,
            ``start`` (of its window) and ``next`` (the id after its last message), or nothing for
            an agent to be read whole.
        known_multi_agents: The same of multi-agents: ``version`` and ``write_id``.
        agent_limit: The most agents to return; those in ``known`` come first.
        message_limit: The most messages to return, over all agents.
        asks_parts: Whether to read parts of what is stored apart, should there be any: a query
            longer than all others together.

    Returns:
        The statements; ``data`` is null where the version is known.
    """
    values: dict[str, Any] = {
        "known": json.dumps(known),
        "session_id": session_id,
        "agent_limit": agent_limit,
        "message_limit": message_limit,
        "known_multi_agents": json.dumps(known_multi_agents),
    }
    return Open(
        tables.statement(
            _READ_SESSION,
            session_id=session_id,
        ),
        tables.statement(_READ_AGENTS, **values),
        tables.statement(_READ_MULTI_AGENTS, **values),
        tables.statement(_READ_VIEWS, **values),
        tables.statement(_READ_PARTS, **values) if asks_parts else None,
    )


_READ_FOREIGN = f"""
    SELECT m.message_id, m.version, m.write_id, m.turn, m.claim, m.data
    FROM (
        SELECT a.session_id, a.agent_id, a.view, {WINDOW_START} AS window_start, CASE
            WHEN a.epoch = :epoch AND a.view IS :view AND a.window_start = :start
            THEN :complete_to + 1 ELSE -1 END AS bound
        FROM {{agents}} AS a WHERE a.session_id = :session_id AND a.agent_id = :agent_id
    ) AS a CROSS JOIN json_each({RANGES}) AS r
    CROSS JOIN {{messages}} AS m ON m.session_id = a.session_id AND m.agent_id = a.agent_id
        AND m.message_id BETWEEN max({_FIRST}, a.bound) AND {_LAST}
    WHERE r.type = 'array' AND (m.turn <> :turn OR a.bound < 0)
    ORDER BY m.message_id
"""  # noqa: S608 - nothing but constants


def read_foreign(
    tables: Tables,
    key: AgentKey,
    *,
    turn: str,
    complete_to: int,
    epoch: int,
    view: str | None,
    start: int,
) -> Statement:
    """Read messages that the agent works with.

    Only those of other turns beyond ``complete_to`` where history and view are as they are known,
    else all.
    """
    return tables.statement(
        _READ_FOREIGN,
        **key.context,
        turn=turn,
        complete_to=complete_to,
        epoch=epoch,
        view=view,
        start=start,
    )


def list_messages(tables: Tables, key: AgentKey, after: int, offset: int, limit: int) -> Statement:
    """Read an agent's messages beyond an id, in order."""
    return tables.statement(
        """
        SELECT message_id, version, write_id, turn, claim, data FROM {messages}
        WHERE session_id = :session_id AND agent_id = :agent_id AND message_id > :after
        ORDER BY message_id LIMIT CAST(:limit AS INTEGER) OFFSET CAST(:offset AS INTEGER)
        """,
        **key.context,
        after=after,
        offset=offset,
        limit=limit,
    )


def read_message(tables: Tables, key: AgentKey, message_id: int) -> Statement:
    """Read one message, with the writes that it remembers."""
    return tables.statement(
        """
        SELECT message_id, version, write_id, writes, turn, claim, data FROM {messages}
        WHERE session_id = :session_id AND agent_id = :agent_id AND message_id = :message_id
        """,
        **key.context,
        message_id=message_id,
    )


def read_multi_agent(tables: Tables, key: AgentKey) -> Statement:
    """Read a multi-agent's row, with the writes that it remembers."""
    return tables.statement(
        """
        SELECT version, write_id, writes, expires_after, data FROM {multi_agents}
        WHERE session_id = :session_id AND multi_agent_id = :agent_id
        """,
        **key.context,
    )


def list_sessions(tables: Tables, after: str, starts_with: str, limit: int) -> Statement:
    """Read sessions in the order of their ids, beyond one of them."""
    return tables.statement(
        f"""
        SELECT session_id, data FROM {{sessions}} AS s WHERE session_id > :after_session_id
            AND session_id >= :starts_with AND session_id < :starts_with || CAST(x'ff' AS TEXT)
            AND substr(session_id, 1, length(:starts_with)) = :starts_with AND {NOT_EXPIRED}
        ORDER BY session_id LIMIT CAST(:limit AS INTEGER)
        """,  # noqa: S608 - nothing but constants
        after_session_id=after,
        starts_with=starts_with,
        limit=limit,
    )


_CREATED_BY = {
    "sessions": f"""
        SELECT write_id, {HAS_EXPIRED} AS has_expired FROM {{sessions}} AS s
        WHERE session_id = :session_id
    """,  # noqa: S608 - nothing but constants
    "agents": """
        SELECT write_id, expires_after FROM {agents}
        WHERE session_id = :session_id AND agent_id = :agent_id
    """,
    "multi_agents": """
        SELECT write_id, expires_after FROM {multi_agents}
        WHERE session_id = :session_id AND multi_agent_id = :agent_id
    """,
}


def read_creating_write(
    tables: Tables, table: str, session_id: str, agent_id: str | None = None
) -> Statement:
    """Read the id of the write that created a row of a table, given by its name unprefixed."""
    return tables.statement(_CREATED_BY[table], session_id=session_id, agent_id=agent_id)
