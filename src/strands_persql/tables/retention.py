"""How long sessions are kept: when one expires, and statements that say so, refuse it or remove it.

A session's row says for how long it is kept after the last activity. The rows that every write
stores anyway say when that was, by the database's clock, so that no row is written for it.
"""

from strands_persql.databases.failures import REFUSALS
from strands_persql.databases.protocol import Statement
from strands_persql.runtime.ids import AgentKey
from strands_persql.tables.tables import DATABASE_NOW, MAX_ID, WITHIN_SCOPE, Tables


def _time(column: str) -> str:
    """Return the SQL for a time in a column; one that can't be read keeps its session."""
    return f"iif(typeof({column}) IN ('integer', 'null'), coalesce({column}, 0), {MAX_ID})"


def expires_at(session: str) -> str:
    """Return the SQL for when a session expires, given its alias, or null for never.

    It reads two rows for each agent and one for each multi-agent, and none but the session's own
    where that doesn't expire.
    """
    return f"""CASE WHEN typeof({session}.expires_after) = 'integer'
        AND typeof({session}.expires_at) = 'integer' THEN max(
        {session}.expires_at,
        {session}.expires_after + coalesce((
            SELECT max(max({_time("a.stored_at")}, coalesce((
                SELECT {_time("m.stored_at")} FROM {{messages}} AS m
                WHERE m.session_id = a.session_id AND m.agent_id = a.agent_id
                ORDER BY m.message_id DESC LIMIT 1
            ), 0))) FROM {{agents}} AS a WHERE a.session_id = {session}.session_id
        ), 0),
        {session}.expires_after + coalesce((
            SELECT max({_time("g.stored_at")}) FROM {{multi_agents}} AS g
            WHERE g.session_id = {session}.session_id
        ), 0)
    ) END"""  # noqa: S608 - nothing but names


EXPIRES_IN = f"{expires_at('s')} + 1 - {DATABASE_NOW}"
"""In how many seconds the session ``s`` expires, rounded up, or null for never."""

NOT_EXPIRED = f"""(s.expires_after IS NULL OR s.expires_at >= {DATABASE_NOW}
    OR coalesce({expires_at("s")} >= {DATABASE_NOW}, 1))"""
"""Whether the session ``s`` has not expired."""

HAS_EXPIRED = f"NOT {NOT_EXPIRED}"
"""Whether the session ``s`` has expired."""

STORED_NOW = f", stored_at = {DATABASE_NOW}"
"""What an update of a row sets besides, to count as activity."""


def refuse_expired(tables: Tables, session_id: str) -> Statement:
    """Fail, and so undo the transaction, if a session has expired.

    A query raises an error of its choice by asking for a path that isn't one; the path has to come
    from the row, or SQLite works it out beforehand.
    """
    return tables.statement(
        f"""
        SELECT json_extract('{{}}', '{REFUSALS[0]}' || s.version) FROM {{sessions}} AS s
        WHERE s.session_id = :session_id AND {HAS_EXPIRED}
        """,  # noqa: S608 - nothing but constants
        session_id=session_id,
    )


def keep_for(tables: Tables, session_id: str, expires_after: int | None) -> list[Statement]:
    """Say for how long a session is kept after its last activity, or None for ever."""
    values = {"session_id": session_id, "expires_after": expires_after}
    after = "CAST(:expires_after AS INTEGER)"
    where = f"WHERE session_id = :session_id AND expires_after IS NOT {after}"
    return [
        tables.statement(
            f"""
            UPDATE {{sessions}} SET version = version + 1, expires_after = {after},
                expires_at = {DATABASE_NOW} + {after} {where}
            """,  # noqa: S608 - nothing but constants
            **values,
        ),
        *(
            tables.statement(
                f"UPDATE {{{table}}} SET expires_after = {after} {where}",  # noqa: S608 - likewise
                **values,
            )
            for table in ("agents", "multi_agents")
        ),
    ]


def take_over(tables: Tables, session_id: str) -> list[Statement]:
    """Have a session's agents and multi-agents know for how long its row says that it is kept."""
    return [
        tables.statement(
            f"""
            UPDATE {{{table}}} SET expires_after = (
                SELECT expires_after FROM {{sessions}} WHERE session_id = :session_id
            ) WHERE session_id = :session_id
            """,  # noqa: S608 - nothing but constants
            session_id=session_id,
        )
        for table in ("agents", "multi_agents")
    ]


def note_activity(tables: Tables, key: AgentKey, origin: str, table: str = "agents") -> Statement:
    """Note that something was stored of an agent, where no row that was written says when.

    Args:
        tables: The tables.
        key: The agent or multi-agent.
        origin: The write that created its row.
        table: Which of both, by its table's name unprefixed.
    """
    column = "agent_id" if table == "agents" else "multi_agent_id"
    return tables.statement(
        f"""
        UPDATE {{{table}}} SET stored_at = {DATABASE_NOW}
        WHERE session_id = :session_id AND {column} = :agent_id AND write_id = :origin
        """,  # noqa: S608 - nothing but constants
        **key.context,
        origin=origin,
    )


def list_expired(tables: Tables, after: str, limit: int) -> Statement:
    """Look at some sessions beyond an id, and say of each whether it has expired."""
    return tables.statement(
        f"""
        SELECT s.session_id, {HAS_EXPIRED} AS has_expired FROM {{sessions}} AS s
        WHERE s.session_id > :after_session_id AND s.session_id {WITHIN_SCOPE}
        ORDER BY s.session_id LIMIT CAST(:limit AS INTEGER)
        """,  # noqa: S608 - nothing but constants
        after_session_id=after,
        limit=limit,
    )


def remove_messages(tables: Tables, session_id: str, limit: int) -> Statement:
    """Delete some messages of a session if it has expired, and return their ids."""
    return tables.statement(
        f"""
        DELETE FROM {{messages}} WHERE session_id = :session_id
            AND EXISTS (
                SELECT 1 FROM {{sessions}} AS s WHERE s.session_id = :session_id AND {HAS_EXPIRED}
            )
            AND (agent_id, message_id) IN (
                SELECT agent_id, message_id FROM {{messages}} WHERE session_id = :session_id
                ORDER BY agent_id, message_id LIMIT CAST(:limit AS INTEGER)
            )
        RETURNING message_id
        """,  # noqa: S608 - nothing but constants
        session_id=session_id,
        limit=limit,
    )
