"""Statements that turn rows into the lines of an archive.

A line is made by the database: whatever a row's JSON is goes through as it is.
"""

from strands_persql.databases.protocol import Statement
from strands_persql.tables.checkpoint_rows import list_in
from strands_persql.tables.retention import NOT_EXPIRED, expires_at
from strands_persql.tables.tables import Tables


def _kept(kind: str, *names: str) -> str:
    """Return columns for a line, of their kind whatever is in them: JSON has no bytes."""
    return ", ".join(f"'{name}', CAST(r.{name} AS {kind})" for name in names)


_TIMES = """'created_at', CAST(coalesce(r.created_at, '') AS TEXT),
    'updated_at', CAST(coalesce(r.updated_at, '') AS TEXT)"""
_VERSION = _kept("INTEGER", "version")
# What can't be read is carried along as bytes in hex, rather than lost.
_CONTENT = """
    CASE WHEN json_valid(r.data) THEN 'data' ELSE 'unreadable' END,
    CASE WHEN json_valid(r.data) THEN json(r.data) ELSE coalesce(hex(r.data), '') END
"""


def _json_of(column: str) -> str:
    """Return a column's JSON, or what it has in the place of some, as text."""
    return f"CASE WHEN json_valid({column}) THEN json({column}) ELSE CAST({column} AS TEXT) END"


# With the time that it has come to: when it was last stored isn't in its other lines.
_SESSION_LINE = f"""json_object('type', 'session',
    'session_id', substr(s.session_id, 1 + length(:owner_scope)), {_VERSION}, {_TIMES},
    'expires_at', {expires_at("s")}, {_kept("INTEGER", "expires_after")},
    {_CONTENT})""".replace("r.", "s.")
_AGENT_LINE = f"""json_object('type', 'agent', 'agent_id', r.agent_id, {_VERSION},
    {_TIMES}, {_kept("INTEGER", "epoch", "window_start")}, 'view', {_json_of("r.view")},
    {_CONTENT})"""
_MULTI_AGENT_LINE = f"""json_object('type', 'multi_agent', 'multi_agent_id', r.multi_agent_id,
    {_VERSION}, {_TIMES}, {_CONTENT})"""
_MESSAGE_LINE = f"""json_object('type', 'message', 'agent_id', r.agent_id,
    'message_id', r.message_id, {_VERSION}, {_TIMES}, {_kept("TEXT", "write_id", "turn", "claim")},
    {_CONTENT})"""
_CHECKPOINT_LINE = f"""json_object('type', 'checkpoint', 'agent_id', r.agent_id,
    'checkpoint_id', r.checkpoint_id, {_VERSION}, {_TIMES}, {_kept("TEXT", "write_id", "label")},
    {_kept("INTEGER", "newest_id")}, 'view', {_json_of("r.view")}, 'turns', {_json_of("r.turns")},
    'rewound', {_json_of("r.rewound")}, {_CONTENT})"""
# What an agent has gone back behind, and where that was deleted; few have any of it.
_BEHIND = f"""(
    SELECT json_object('rewound', json({list_in("c.rewound")}), 'gaps', json({list_in("c.turns")}))
    FROM {{checkpoints}} AS c WHERE c.session_id = r.session_id AND c.agent_id = r.agent_id
        AND c.checkpoint_id = '' AND (c.rewound <> '[]' OR c.turns <> '[]')
)"""  # noqa: S608 - nothing but names


def list_session_ids(tables: Tables, *, after: str, starts_with: str, limit: int) -> Statement:
    """Read ids of sessions in order, beyond one of them, without those that have expired."""
    return tables.statement(
        f"""
        SELECT session_id FROM {{sessions}} AS s
        WHERE session_id > :after_session_id AND session_id >= :starts_with
            AND session_id < :starts_with || CAST(x'ff' AS TEXT)
            AND substr(session_id, 1, length(:starts_with)) = :starts_with AND {NOT_EXPIRED}
        ORDER BY session_id LIMIT CAST(:limit AS INTEGER)
        """,  # noqa: S608
        after_session_id=after,
        starts_with=starts_with,
        limit=limit,
    )


def read_session_line(tables: Tables, session_id: str) -> Statement:
    """Read a session's row as a line, and which of its checkpoints is the last."""
    return tables.statement(
        f"""
        SELECT {_SESSION_LINE} AS line, (
            SELECT json_array(agent_id, checkpoint_id) FROM {{checkpoints}} AS c
            WHERE c.session_id = s.session_id AND c.checkpoint_id <> ''
            ORDER BY c.agent_id DESC, c.checkpoint_id DESC LIMIT 1
        ) AS last_checkpoint
        FROM {{sessions}} AS s WHERE s.session_id = :session_id AND {NOT_EXPIRED}
        """,  # noqa: S608
        session_id=session_id,
    )


def read_agent_lines(tables: Tables, session_id: str) -> Statement:
    """Read a session's agents as lines, with what tells whether their history has changed since."""
    return tables.statement(
        f"""
        SELECT agent_id, write_id, epoch, version, newest_id,
            CASE WHEN behind IS NULL THEN line ELSE json_patch(line, behind) END AS line
        FROM (
            SELECT r.agent_id, r.write_id, r.epoch, r.version, coalesce((
                SELECT max(message_id) FROM {{messages}} AS m
                WHERE m.session_id = r.session_id AND m.agent_id = r.agent_id
            ), -1) AS newest_id, {_AGENT_LINE} AS line, {_BEHIND} AS behind
            FROM {{agents}} AS r WHERE r.session_id = :session_id ORDER BY r.agent_id
        )
        """,  # noqa: S608
        session_id=session_id,
    )


def read_agent_states(tables: Tables, session_id: str) -> Statement:
    """Read what tells whether the history of a session's agents has changed."""
    return tables.statement(
        "SELECT agent_id, write_id, epoch FROM {agents} WHERE session_id = :session_id",
        session_id=session_id,
    )


def read_multi_agent_lines(tables: Tables, session_id: str) -> Statement:
    """Read a session's multi-agents as lines."""
    return tables.statement(
        f"""
        SELECT {_MULTI_AGENT_LINE} AS line FROM {{multi_agents}} AS r
        WHERE r.session_id = :session_id ORDER BY r.multi_agent_id
        """,  # noqa: S608
        session_id=session_id,
    )


def read_last_message(tables: Tables, session_id: str) -> Statement:
    """Read which of a session's messages is the last in the order of agent and id."""
    return tables.statement(
        """
        SELECT agent_id, message_id FROM {messages} WHERE session_id = :session_id
        ORDER BY agent_id DESC, message_id DESC LIMIT 1
        """,
        session_id=session_id,
    )


def page_size(source: str) -> str:
    """Return the SQL for how many rows of a source a page has: ``:rows``, or fewer.

    Fewer where their data has more than ``:bytes``; one where even a few have.

    Args:
        source: FROM, WHERE and ORDER BY of the rows; its table must have ``data``.
    """
    sizes = ""
    for portion in (1, 8, 64):
        size = f"(CAST(:rows AS INTEGER) / {portion})"
        sizes += f"""
            WHEN (SELECT coalesce(sum(length(data)), 0) FROM (SELECT data {source} LIMIT {size}))
                <= :bytes THEN {size}"""  # noqa: S608
    return f"max(1, CASE {sizes} ELSE 1 END)"


def read_message_lines(
    tables: Tables, session_id: str, *, after: tuple[str, int], rows: int, size: int
) -> Statement:
    """Read messages of a session's agents as lines; see `read_messages`."""
    columns = f"agent_id, message_id, {_MESSAGE_LINE} AS line"
    return read_messages(tables, session_id, columns, after=after, rows=rows, size=size)


def read_messages(
    tables: Tables, session_id: str, columns: str, *, after: tuple[str, int], rows: int, size: int
) -> Statement:
    """Read messages of a session's agents, in order of agent and id, beyond one of them.

    Args:
        tables: The tables.
        session_id: The session.
        columns: What to read of each row ``r``, in SQL.
        after: Agent and id of the message before the first one.
        rows: The most messages to return.
        size: The most bytes of their data, except for a single message that is larger.
    """
    source = """
        FROM {messages} AS r WHERE r.session_id = :session_id
            AND (r.agent_id, r.message_id) > (:agent_id, :message_id)
        ORDER BY r.agent_id, r.message_id
    """
    return tables.statement(
        f"SELECT {columns} {source} LIMIT ({page_size(source)})",
        session_id=session_id,
        agent_id=after[0],
        message_id=after[1],
        rows=rows,
        bytes=size,
    )


def read_checkpoint_lines(
    tables: Tables, session_id: str, *, after: tuple[str, str], rows: int, size: int
) -> Statement:
    """Read checkpoints of a session's agents as lines, beyond one of them.

    Args:
        tables: The tables.
        session_id: The session.
        after: Agent and id of the checkpoint before the first one.
        rows: The most checkpoints to return.
        size: The most bytes of their data, except for a single one that is larger.
    """
    source = """
        FROM {checkpoints} AS r WHERE r.session_id = :session_id AND r.checkpoint_id <> ''
            AND (r.agent_id, r.checkpoint_id) > (:agent_id, :checkpoint_id)
        ORDER BY r.agent_id, r.checkpoint_id
    """
    return tables.statement(
        f"""
        SELECT agent_id, checkpoint_id, version, newest_id, {_CHECKPOINT_LINE} AS line {source}
        LIMIT ({page_size(source)})
        """,
        session_id=session_id,
        agent_id=after[0],
        checkpoint_id=after[1],
        rows=rows,
        bytes=size,
    )
