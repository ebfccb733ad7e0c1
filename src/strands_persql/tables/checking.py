"""Statements that read all there is of sessions, whether it belongs together or not."""

from strands_persql.databases.protocol import Statement
from strands_persql.runtime.ids import AgentKey
from strands_persql.tables.archive_lines import page_size, read_messages
from strands_persql.tables.checkpoint_rows import (
    IS_BEHIND,
    PROBLEM,
    is_whole,
    is_within,
    list_in,
    number_at,
)
from strands_persql.tables.tables import WITHIN_SCOPE, Tables

_NEXT = """(
    SELECT min(id) FROM (
        SELECT min(session_id) AS id FROM {{sessions}} WHERE session_id > {after} AND {within}
        UNION ALL SELECT min(session_id) FROM {{agents}} WHERE session_id > {after} AND {within}
        UNION ALL SELECT min(session_id) FROM {{messages}} WHERE session_id > {after} AND {within}
        UNION ALL SELECT min(session_id) FROM {{multi_agents}} WHERE session_id > {after}
            AND {within}
    )
)"""
_WITHIN = f"session_id {WITHIN_SCOPE}"


def list_all_ids(tables: Tables, *, after: str, limit: int) -> Statement:
    """Read the ids of sessions that have any row, in order, beyond one of them."""
    # Each id is looked up behind the one before: rows of one session are passed over, not read.
    # A token that may only read may run what begins with SELECT.
    return tables.statement(
        f"""
        SELECT session_id FROM (
            WITH RECURSIVE ids(id, n) AS (
                SELECT {_NEXT.format(after=":after_session_id", within=_WITHIN)}, 1
                UNION ALL
                SELECT {_NEXT.format(after="ids.id", within=_WITHIN)}, n + 1 FROM ids
                WHERE id IS NOT NULL AND n < CAST(:limit AS INTEGER)
            )
            SELECT id AS session_id FROM ids WHERE id IS NOT NULL
        )
        """,  # noqa: S608
        after_session_id=after,
        limit=limit,
    )


_FIRST, _LAST = number_at("t", 1), number_at("t", 2)
_KINDS = "typeof(version) || ' ' || coalesce(version, 0)"


def read_session_row(tables: Tables, session_id: str) -> Statement:
    """Read a session's row."""
    return tables.statement(
        f"""
        SELECT data, {_KINDS} AS counter, created_at, updated_at FROM {{sessions}}
        WHERE session_id = :session_id
        """,  # noqa: S608
        session_id=session_id,
    )


def read_agent_rows(tables: Tables, session_id: str) -> Statement:
    """Read the rows of a session's agents."""
    return tables.statement(
        f"""
        SELECT agent_id, data, {_KINDS} AS counter, view, window_start,
            typeof(epoch) || ' ' || coalesce(epoch, 0) AS epoch_counter, created_at, (
                SELECT max(c.checkpoint_id) FROM {{checkpoints}} AS c
                WHERE c.session_id = a.session_id AND c.agent_id = a.agent_id
            ) AS last_checkpoint, (
                SELECT {list_in("c.turns")} FROM {{checkpoints}} AS c WHERE c.checkpoint_id = ''
                    AND c.session_id = a.session_id AND c.agent_id = a.agent_id
            ) AS gaps
        FROM {{agents}} AS a WHERE session_id = :session_id ORDER BY agent_id
        """,  # noqa: S608
        session_id=session_id,
    )


def read_multi_agent_rows(tables: Tables, session_id: str) -> Statement:
    """Read the rows of a session's multi-agents."""
    return tables.statement(
        f"""
        SELECT multi_agent_id, data, {_KINDS} AS counter FROM {{multi_agents}}
        WHERE session_id = :session_id ORDER BY multi_agent_id
        """,  # noqa: S608
        session_id=session_id,
    )


def read_message_rows(
    tables: Tables, session_id: str, *, after: tuple[str, int], rows: int, size: int
) -> Statement:
    """Read rows of messages, and whether their agent is behind them; see `read_messages`."""
    columns = f"""agent_id, message_id, {_KINDS} AS counter, version, turn, write_id, data, EXISTS (
        SELECT 1 FROM {{checkpoints}} AS c
        WHERE c.session_id = r.session_id AND c.agent_id = r.agent_id AND c.checkpoint_id = ''
            AND {is_within("r.message_id", list_in("c.rewound"))}
    ) AS is_rewound"""  # noqa: S608 - nothing but constants
    return read_messages(tables, session_id, columns, after=after, rows=rows, size=size)


def read_turns(tables: Tables, key: AgentKey, between: tuple[int, int]) -> Statement:
    """Read which turn each message between two ids belongs to."""
    return tables.statement(
        """
        SELECT message_id, turn FROM {messages}
        WHERE session_id = :session_id AND agent_id = :agent_id
            AND message_id BETWEEN :first AND :last
        ORDER BY message_id
        """,
        **key.context,
        first=between[0],
        last=between[1],
    )


def read_checkpoint_rows(
    tables: Tables, key: AgentKey, *, after: str, rows: int, size: int
) -> Statement:
    """Read an agent's checkpoints, what is wrong with each, and a turn that it has lost.

    Args:
        tables: The tables.
        key: The agent.
        after: The checkpoint before the first one.
        rows: The most checkpoints to return.
        size: The most bytes of their data, except for a single one that is larger.
    """
    source = """
        FROM {checkpoints} AS c WHERE c.session_id = :session_id AND c.agent_id = :agent_id
            AND c.checkpoint_id > :after ORDER BY c.checkpoint_id
    """
    return tables.statement(
        f"""
        SELECT checkpoint_id, label, data, problem, CASE WHEN problem IS NULL THEN (
            SELECT json_array({_FIRST}, {_LAST}) FROM json_each(turns) AS t
            WHERE NOT {is_whole(":session_id", ":agent_id")} LIMIT 1
        ) END AS lost FROM (
            SELECT c.checkpoint_id, c.label, c.data, c.turns, {PROBLEM} AS problem
            {source} LIMIT ({page_size(source)})
        )
        """,  # noqa: S608
        **key.context,
        after=after,
        rows=rows,
        bytes=size,
    )


def read_behind(tables: Tables, key: AgentKey) -> Statement:
    """Read what an agent has gone back behind, where that can't be read."""
    return tables.statement(
        f"""
        SELECT c.rewound FROM {{checkpoints}} AS c
        WHERE c.session_id = :session_id AND c.agent_id = :agent_id AND c.checkpoint_id = ''
            AND NOT {IS_BEHIND}
        """,  # noqa: S608
        **key.context,
    )
