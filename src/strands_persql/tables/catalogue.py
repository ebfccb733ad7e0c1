"""Statements that look sessions up: which there are, what was said in them, and how much.

What is counted message by message is asked for session by session, so that no request reads more
than the sessions of one page.
"""

from collections.abc import Sequence

from strands_persql.databases.protocol import Statement
from strands_persql.runtime.ids import AgentKey
from strands_persql.tables.retention import EXPIRES_IN
from strands_persql.tables.tables import Tables

# The newest message is one row read, whatever the history's length.
_NEWEST = """(
    SELECT {what} FROM {{messages}} AS n
    WHERE n.session_id = a.session_id AND n.agent_id = a.agent_id
    ORDER BY n.message_id DESC LIMIT 1
)"""
_LATEST = f"""max(
    coalesce(a.updated_at, ''), coalesce({_NEWEST.format(what="n.updated_at")}, '')
)"""
_SESSION = f"""
    s.session_id, s.created_at, s.updated_at, s.version, {EXPIRES_IN} AS expires_in,
    (SELECT count(*) FROM {{multi_agents}} AS a WHERE a.session_id = s.session_id)
        AS multi_agents
"""  # noqa: S608 - nothing but constants
_OF_SESSION = "FROM {agents} AS a WHERE a.session_id = s.session_id"


def list_sessions(tables: Tables, *, after: str, starts_with: str, limit: int) -> Statement:
    """Read what is known of sessions, in the order of their ids, beyond one of them."""
    # The bound, beyond every text, ends the scan where ids no longer begin so. What is known of
    # its agents comes in one column, so that their rows are read once.
    return tables.statement(
        f"""
        SELECT {_SESSION}, (
            SELECT json_array(count(*), CAST(max({_LATEST}) AS TEXT)) {_OF_SESSION}
        ) AS of_agents
        FROM {{sessions}} AS s
        WHERE s.session_id > :after_session_id AND s.session_id >= :starts_with
            AND s.session_id < :starts_with || CAST(x'ff' AS TEXT)
            AND substr(s.session_id, 1, length(:starts_with)) = :starts_with
        ORDER BY s.session_id LIMIT CAST(:limit AS INTEGER)
        """,  # noqa: S608
        after_session_id=after,
        starts_with=starts_with,
        limit=limit,
    )


def list_active_sessions(
    tables: Tables, *, before: tuple[str, str] | None, starts_with: str, limit: int
) -> Statement:
    """Read what is known of sessions, the latest activity first.

    No index has that order: this reads the row of each session and agent, and no message but the
    newest of each agent.

    Args:
        tables: The tables.
        before: The activity and the id of the session that the list continues after, or None.
        starts_with: What the ids begin with.
        limit: The most sessions to return.
    """
    time, session_id = before or ("", "")
    # A session without agents was active when it was made.
    activity = "coalesce(active_at, updated_at, '')"
    bound = "" if before is None else f"WHERE ({activity}, session_id) < (:time, :session_id)"
    return tables.statement(
        f"""
        SELECT * FROM (
            SELECT {_SESSION}, (SELECT count(*) {_OF_SESSION}) AS agents,
                (SELECT max({_LATEST}) {_OF_SESSION}) AS active_at
            FROM {{sessions}} AS s WHERE s.session_id >= :starts_with
                AND s.session_id < :starts_with || CAST(x'ff' AS TEXT)
                AND substr(s.session_id, 1, length(:starts_with)) = :starts_with
        ) {bound}
        ORDER BY {activity} DESC, session_id DESC LIMIT CAST(:limit AS INTEGER)
        """,  # noqa: S608
        time=time,
        session_id=session_id,
        starts_with=starts_with,
        limit=limit,
    )


def list_agents(tables: Tables, session_id: str) -> Statement:
    """Read what is known of a session's agents, their rows' data included."""
    return tables.statement(
        f"""
        SELECT a.agent_id, a.version, a.epoch, a.view, a.window_start, a.data, a.created_at,
            a.updated_at, {_LATEST} AS active_at,
            {_NEWEST.format(what="n.message_id")} AS newest_id
        FROM {{agents}} AS a WHERE a.session_id = :session_id ORDER BY a.agent_id
        """,  # noqa: S608
        session_id=session_id,
    )


def list_multi_agents(tables: Tables, session_id: str) -> Statement:
    """Read what is known of a session's multi-agents."""
    return tables.statement(
        """
        SELECT multi_agent_id, version, data, created_at, updated_at FROM {multi_agents}
        WHERE session_id = :session_id ORDER BY multi_agent_id
        """,
        session_id=session_id,
    )


_VALID = "CASE WHEN json_valid(m.data) THEN m.data ELSE '{}' END"
_TOKENS = {
    "input_tokens": "inputTokens",
    "output_tokens": "outputTokens",
    "total_tokens": "totalTokens",
    "cache_read_tokens": "cacheReadInputTokens",
    "cache_write_tokens": "cacheWriteInputTokens",
}
_TOTALS = ", ".join(
    f"coalesce(sum(json_extract({_VALID}, '$.message.metadata.usage.{part}')), 0) AS {name}"
    for name, part in _TOKENS.items()
)


def measure_sessions(tables: Tables, session_ids: Sequence[str]) -> Statement:
    """Count the messages, bytes, writes and tokens of each agent of some sessions.

    Reads all messages of these sessions, and of no other.
    """
    return tables.statement(
        f"""
        SELECT m.session_id, m.agent_id, count(*) AS messages,
            count(DISTINCT nullif(m.turn, '')) AS turns,
            sum(length(CAST(m.data AS BLOB))) AS bytes, sum(m.version) AS writes, {_TOTALS}
        FROM json_each(:session_ids) AS k
        CROSS JOIN {{messages}} AS m ON m.session_id = k.value
        GROUP BY m.session_id, m.agent_id
        """,  # noqa: S608
        session_ids=tables.json_of(session_ids),
    )


def measure_states(tables: Tables, session_ids: Sequence[str]) -> Statement:
    """Count the rows, bytes and writes of some sessions besides their messages."""
    parts = [
        f"""
        SELECT count(*) AS n, sum(length(CAST(t.data AS BLOB))) AS size, sum(t.version) AS writes
        FROM json_each(:session_ids) AS k CROSS JOIN {{{table}}} AS t ON t.session_id = k.value
        """  # noqa: S608
        for table in ("sessions", "agents", "multi_agents")
    ]
    return tables.statement(
        f"""
        SELECT sum(n) AS n, coalesce(sum(size), 0) AS bytes, coalesce(sum(writes), 0) AS writes
        FROM ({" UNION ALL ".join(parts)})
        """,  # noqa: S608
        session_ids=tables.json_of(session_ids),
    )


def measure_days(tables: Tables, session_ids: Sequence[str]) -> Statement:
    """Count the messages and turns of some sessions by the day on which they were stored."""
    return tables.statement(
        """
        SELECT substr(m.created_at, 1, 10) AS day, count(*) AS messages,
            count(DISTINCT nullif(m.turn, '')) AS turns
        FROM json_each(:session_ids) AS k
        CROSS JOIN {messages} AS m ON m.session_id = k.value
        GROUP BY day
        """,
        session_ids=tables.json_of(session_ids),
    )


def measure_tools(tables: Tables, session_ids: Sequence[str]) -> Statement:
    """Count the calls of tools in some sessions."""
    return tables.statement(
        f"""
        SELECT json_extract(b.value, '$.toolUse.name') AS tool, count(*) AS calls
        FROM json_each(:session_ids) AS k
        CROSS JOIN {{messages}} AS m ON m.session_id = k.value
        CROSS JOIN json_each({_VALID}, '$.message.content') AS b
        WHERE b.type = 'object' AND json_extract(b.value, '$.toolUse.name') IS NOT NULL
        GROUP BY tool
        """,  # noqa: S608
        session_ids=tables.json_of(session_ids),
    )


def read_transcript(
    tables: Tables, key: AgentKey, *, after: int | None, newest_first: bool, limit: int
) -> Statement:
    """Read an agent's messages beyond an id, in either direction."""
    order, beyond = ("DESC", "<") if newest_first else ("ASC", ">")
    bound = "" if after is None else f" AND message_id {beyond} :after"
    return tables.statement(
        f"""
        SELECT message_id, version, write_id, turn, claim, data, created_at, updated_at
        FROM {{messages}} WHERE session_id = :session_id AND agent_id = :agent_id{bound}
        ORDER BY message_id {order} LIMIT CAST(:limit AS INTEGER)
        """,  # noqa: S608
        **key.context,
        after=after,
        limit=limit,
    )
