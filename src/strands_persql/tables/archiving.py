"""Statements that turn rows into the lines of an archive, and lines into rows.

A line is made, and taken apart, by the database: whatever a row's JSON is goes through as it is.
"""

from collections.abc import Sequence

from strands_persql.databases.protocol import Statement
from strands_persql.runtime.owners import split_scope
from strands_persql.tables.retention import IS_KEPT, expires_at
from strands_persql.tables.tables import Tables

_STAGED = "import/"  # behind the owner's scope, if there is one; no session's id may begin so
_END_OF_STAGED = "import0"  # the first text behind all that do


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
_VIEW = "CASE WHEN json_valid(r.view) THEN json(r.view) ELSE CAST(r.view AS TEXT) END"
# With the time that it has come to: when it was last stored isn't in its other lines.
_SESSION_LINE = f"""json_object('type', 'session',
    'session_id', substr(s.session_id, 1 + length(:owner_scope)), {_VERSION}, {_TIMES},
    'expires_at', {expires_at("s")}, {_kept("INTEGER", "expires_after")},
    {_CONTENT})""".replace("r.", "s.")
_AGENT_LINE = f"""json_object('type', 'agent', 'agent_id', r.agent_id, {_VERSION},
    {_TIMES}, {_kept("INTEGER", "epoch", "window_start")}, 'view', {_VIEW}, {_CONTENT})"""
_MULTI_AGENT_LINE = f"""json_object('type', 'multi_agent', 'multi_agent_id', r.multi_agent_id,
    {_VERSION}, {_TIMES}, {_CONTENT})"""
_MESSAGE_LINE = f"""json_object('type', 'message', 'agent_id', r.agent_id,
    'message_id', r.message_id, {_VERSION}, {_TIMES}, {_kept("TEXT", "write_id", "turn", "claim")},
    {_CONTENT})"""


def list_session_ids(tables: Tables, *, after: str, starts_with: str, limit: int) -> Statement:
    """Read ids of sessions in order, beyond one of them, without those that have expired."""
    return tables.statement(
        f"""
        SELECT session_id FROM {{sessions}} AS s
        WHERE session_id > :after_session_id AND session_id >= :starts_with
            AND session_id < :starts_with || CAST(x'ff' AS TEXT)
            AND substr(session_id, 1, length(:starts_with)) = :starts_with AND {IS_KEPT}
        ORDER BY session_id LIMIT CAST(:limit AS INTEGER)
        """,  # noqa: S608
        after_session_id=after,
        starts_with=starts_with,
        limit=limit,
    )


def read_session_line(tables: Tables, session_id: str) -> Statement:
    """Read a session's row as a line."""
    return tables.statement(
        f"""
        SELECT {_SESSION_LINE} AS line FROM {{sessions}} AS s
        WHERE s.session_id = :session_id AND {IS_KEPT}
        """,  # noqa: S608
        session_id=session_id,
    )


def read_agent_lines(tables: Tables, session_id: str) -> Statement:
    """Read a session's agents as lines, with what tells whether their history has changed since."""
    return tables.statement(
        f"""
        SELECT r.agent_id, r.write_id, r.epoch, coalesce((
            SELECT max(message_id) FROM {{messages}} AS m
            WHERE m.session_id = r.session_id AND m.agent_id = r.agent_id
        ), -1) AS newest_id, {_AGENT_LINE} AS line
        FROM {{agents}} AS r WHERE r.session_id = :session_id ORDER BY r.agent_id
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


# -- lines to rows ---------------------------------------------------------------------------------

_OURS_IS_DONE = """EXISTS (
    SELECT 1 FROM {sessions} WHERE session_id = :session_id AND write_id = :write_id
    UNION ALL SELECT 1 FROM {deletions} WHERE write_id = :write_id
)"""
# A late copy of a request finds the session that it made, or that it was deleted since.
_IS_FREE = """NOT EXISTS (
    SELECT 1 FROM {sessions} WHERE session_id = :session_id
    UNION ALL SELECT 1 FROM {deletions} WHERE write_id = :write_id
)"""


def _field(name: str) -> str:
    return f"json_extract(l.value, '$.{name}')"


def _with(name: str, default: str) -> str:
    return f"coalesce({_field(name)}, {default})"


_UNREADABLE = f"""coalesce({_field("data")},
    json_extract(:unreadable, '$."' || {_field("unreadable")} || '"'), '')"""
_COMMON = {
    "version": _with("version", "1"),
    "created_at": _with("created_at", "''"),
    "updated_at": _with("updated_at", "''"),
}
_COLUMNS: dict[str, dict[str, str]] = {
    "sessions": {
        "write_id": ":write_id",
        "expires_at": _field("expires_at"),
        "expires_after": _field("expires_after"),
    },
    "agents": {
        "agent_id": _field("agent_id"),
        "write_id": ":write_id",
        "epoch": _with("epoch", "0"),
        "window_start": _field("window_start"),
        "view": _field("view"),
    },
    "multi_agents": {"multi_agent_id": _field("multi_agent_id"), "write_id": ":write_id"},
    "messages": {
        "agent_id": _field("agent_id"),
        "message_id": _field("message_id"),
        "write_id": _with("write_id", "''"),
        "turn": _with("turn", "''"),
        "claim": _with("claim", "''"),
    },
}


def _insert(table: str, place: str, condition: str, unreadable: str | None) -> str:
    data = _field("data") if unreadable is None else _UNREADABLE
    values = {**_COLUMNS[table], **_COMMON, "data": data}
    return f"""
        INSERT INTO {{{table}}} (session_id, {", ".join(values)})
        SELECT {place}, {", ".join(values.values())} FROM json_each(:lines) AS l
        WHERE {condition}
    """  # noqa: S608


def store_lines(
    tables: Tables,
    table: str,
    session_id: str,
    write_id: str,
    *,
    lines: str,
    unreadable: str | None = None,
) -> Statement:
    """Store lines of one kind as a table's rows, unless there is such a session.

    The session's own line comes last: all others depend on its not being there.

    Args:
        tables: The tables.
        table: The table, by its name unprefixed.
        session_id: The session.
        write_id: The write that creates the session.
        lines: The lines, as a JSON array.
        unreadable: What some lines carry in hex, as a JSON object of texts by their hex, or None
            where none does.
    """
    return tables.statement(
        _insert(table, ":session_id", _IS_FREE, unreadable),
        session_id=session_id,
        write_id=write_id,
        lines=lines,
        unreadable=unreadable,
    )


def staged_id(session_id: str, write_id: str) -> str:
    """Return the id under which messages of an import are kept until it is complete."""
    scope, rest = split_scope(session_id)
    return f"{scope}{_STAGED}{write_id}/{rest}"


def session_of_staged(staged: str) -> str | None:
    """Return whose messages are kept under an id until their import is complete, or None."""
    scope, rest = split_scope(staged)
    return f"{scope}{rest.split('/', 2)[2]}" if rest.startswith(_STAGED) else None


def stage_messages(
    tables: Tables, session_id: str, write_id: str, *, lines: str, unreadable: str | None = None
) -> Statement:
    """Store lines of messages where nobody reads them, once."""
    insert = _insert("messages", ":staged_id", f"NOT {_OURS_IS_DONE}", unreadable)
    return tables.statement(
        f"{insert} ON CONFLICT DO NOTHING",
        session_id=session_id,
        staged_id=staged_id(session_id, write_id),
        write_id=write_id,
        lines=lines,
        unreadable=unreadable,
    )


def take_staged(tables: Tables, session_id: str, write_id: str) -> Statement:
    """Make the staged messages of an import those of its session, unless there is one."""
    return tables.statement(
        f"""
        UPDATE {{messages}} SET session_id = :session_id
        WHERE session_id = :staged_id AND {_IS_FREE}
        """,  # noqa: S608
        session_id=session_id,
        staged_id=staged_id(session_id, write_id),
        write_id=write_id,
    )


def drop_staged(tables: Tables, staged: str, limit: int) -> Statement:
    """Delete some of the staged messages of an import, and return their ids."""
    return tables.statement(
        """
        DELETE FROM {messages} WHERE session_id = :staged
            AND (agent_id, message_id) IN (
                SELECT agent_id, message_id FROM {messages} WHERE session_id = :staged
                ORDER BY agent_id, message_id LIMIT CAST(:limit AS INTEGER)
            )
        RETURNING message_id
        """,
        staged=staged,
        limit=limit,
    )


_NEXT_STAGED = """(
    SELECT min(id) FROM (
        SELECT min(session_id) AS id FROM {{messages}}
        WHERE session_id > {after} AND session_id < :end_session_id
        UNION ALL SELECT min(session_id) FROM {{contents}}
        WHERE session_id > {after} AND session_id < :end_session_id
    )
)"""


def list_staged(tables: Tables, session_id: str, after: str, limit: int) -> Statement:
    """Read the ids under which unfinished imports have left rows, beyond one of them.

    Those of one owner, or of none, as a session has one or none.
    """
    scope, _ = split_scope(session_id)
    return tables.statement(
        f"""
        WITH RECURSIVE staged(id, n) AS (
            SELECT {_NEXT_STAGED.format(after=":after_session_id")}, 1
            UNION ALL
            SELECT {_NEXT_STAGED.format(after="staged.id")}, n + 1 FROM staged
            WHERE id IS NOT NULL AND n < CAST(:limit AS INTEGER)
        )
        SELECT id AS session_id FROM staged WHERE id IS NOT NULL
        """,  # noqa: S608
        after_session_id=max(after, f"{scope}{_STAGED}"),
        end_session_id=f"{scope}{_END_OF_STAGED}",
        limit=limit,
    )


def find_sessions(tables: Tables, session_ids: Sequence[str]) -> Statement:
    """Read which of some sessions are there, and which have rows without being there."""
    rows = " OR ".join(
        f"EXISTS (SELECT 1 FROM {{{table}}} AS t WHERE t.session_id = k.value)"  # noqa: S608
        for table in ("agents", "messages", "multi_agents")
    )
    return tables.statement(
        f"""
        SELECT k.value AS session_id, s.write_id, s.session_id IS NOT NULL AS is_there,
            {rows} AS has_rows
        FROM json_each(:session_ids) AS k
        LEFT JOIN {{sessions}} AS s ON s.session_id = k.value
        """,  # noqa: S608
        session_ids=tables.json_of(session_ids),
    )
