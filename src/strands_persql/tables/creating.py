"""Statements that create sessions, agents and multi-agents.

Each creation carries the id of its write. A deletion keeps those ids, so that a late copy of a
creation doesn't bring back what was deleted since.
"""

from strands_persql.databases.protocol import Statement
from strands_persql.runtime.ids import AgentKey
from strands_persql.tables.retention import NOT_EXPIRED
from strands_persql.tables.tables import DATABASE_NOW, RowData, Tables, row_values

_NOT_DELETED = "NOT EXISTS (SELECT 1 FROM {deletions} WHERE write_id = :write_id)"


def create_session(
    tables: Tables, session_id: str, row: RowData, write_id: str, expires_after: int | None
) -> Statement:
    """Create a session unless it is there.

    Args:
        tables: The tables.
        session_id: The session.
        row: What to store.
        write_id: This write.
        expires_after: For how many seconds it is kept after its last activity, or None for ever.
    """
    return tables.statement(
        f"""
        INSERT INTO {{sessions}} (session_id, data, write_id, created_at, updated_at,
            expires_after, expires_at)
        SELECT :session_id, :data, :write_id, :created_at, :updated_at,
            CAST(:expires_after AS INTEGER),
            {DATABASE_NOW} + CAST(:expires_after AS INTEGER)
        WHERE NOT EXISTS (SELECT 1 FROM {{sessions}} WHERE session_id = :session_id)
            AND {_NOT_DELETED}
        """,  # noqa: S608 - nothing but constants
        session_id=session_id,
        write_id=write_id,
        expires_after=expires_after,
        **row_values(row),
    )


# The session that something is created in, and when that was where the session expires.
_ACTIVITY = f"s.expires_after, CASE WHEN s.expires_after IS NOT NULL THEN {DATABASE_NOW} END"
_IN_SESSION = f"""FROM {{sessions}} AS s WHERE s.session_id = :session_id AND {NOT_EXPIRED}"""


def create_agent(
    tables: Tables,
    key: AgentKey,
    row: RowData,
    write_id: str,
    *,
    start: int | None,
    view: str | None,
) -> Statement:
    """Create an agent in a session that exists, unless the agent is there.

    Args:
        tables: The tables.
        key: The agent.
        row: What to store.
        write_id: This write.
        start: From which id on it works with its messages, or None where that is counted out.
        view: What it works with before those, or None where its conversation manager says that.
    """
    return tables.statement(
        f"""
        INSERT INTO {{agents}}
            (session_id, agent_id, data, write_id, created_at, updated_at, window_start, view,
            expires_after, stored_at)
        SELECT :session_id, :agent_id, :data, :write_id, :created_at, :updated_at,
            CAST(:window_start AS INTEGER), :view, {_ACTIVITY}
        {_IN_SESSION} AND NOT EXISTS (
            SELECT 1 FROM {{agents}} WHERE session_id = :session_id AND agent_id = :agent_id
        ) AND {_NOT_DELETED}
        """,  # noqa: S608 - nothing but constants
        **key.context,
        write_id=write_id,
        window_start=start,
        view=view,
        **row_values(row),
    )


def create_multi_agent(tables: Tables, key: AgentKey, row: RowData, write_id: str) -> Statement:
    """Create a multi-agent in a session that exists, unless it is there."""
    return tables.statement(
        f"""
        INSERT INTO {{multi_agents}}
            (session_id, multi_agent_id, data, write_id, created_at, updated_at, expires_after,
            stored_at)
        SELECT :session_id, :agent_id, :data, :write_id, :created_at, :updated_at, {_ACTIVITY}
        {_IN_SESSION} AND NOT EXISTS (
            SELECT 1 FROM {{multi_agents}}
            WHERE session_id = :session_id AND multi_agent_id = :agent_id
        ) AND {_NOT_DELETED}
        """,  # noqa: S608 - nothing but constants
        **key.context,
        write_id=write_id,
        **row_values(row),
    )
