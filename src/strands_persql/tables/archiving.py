"""Statements that turn lines of an archive into rows, and that keep those of unfinished imports.

A line is taken apart by the database: whatever a row's JSON is goes through as it is.
"""

from collections.abc import Sequence

from strands_persql.databases.protocol import Statement
from strands_persql.runtime.owners import split_scope
from strands_persql.tables.tables import Tables

_STAGED = "import/"  # behind the owner's scope, if there is one; no session's id may begin so
_END_OF_STAGED = "import0"  # the first text behind all that do
_MAY_BE_STAGED = ("messages", "checkpoints")

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
    "checkpoints": {
        "agent_id": _field("agent_id"),
        "checkpoint_id": _field("checkpoint_id"),
        "write_id": _with("write_id", "''"),
        "label": _with("label", "''"),
        "view": _with("view", "'[]'"),
        "turns": _with("turns", "'[]'"),
        "newest_id": _with("newest_id", "-1"),
        "rewound": _with("rewound", "'[]'"),
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


def store_behind(tables: Tables, session_id: str, write_id: str, lines: str) -> Statement:
    """Store what agents have gone back behind, as their lines have it, likewise."""
    return tables.statement(
        f"""
        INSERT INTO {{checkpoints}} (session_id, agent_id, checkpoint_id, created_at, updated_at,
            rewound, turns)
        SELECT :session_id, {_field("agent_id")}, '', {_with("updated_at", "''")},
            {_with("updated_at", "''")}, {_with("rewound", "'[]'")}, {_with("gaps", "'[]'")}
        FROM json_each(:lines) AS l
        WHERE coalesce({_field("rewound")}, {_field("gaps")}) IS NOT NULL AND {_IS_FREE}
        """,  # noqa: S608
        session_id=session_id,
        write_id=write_id,
        lines=lines,
    )


def staged_id(session_id: str, write_id: str) -> str:
    """Return the id under which messages of an import are kept until it is complete."""
    scope, rest = split_scope(session_id)
    return f"{scope}{_STAGED}{write_id}/{rest}"


def session_of_staged(staged: str) -> str | None:
    """Return whose messages are kept under an id until their import is complete, or None."""
    scope, rest = split_scope(staged)
    return f"{scope}{rest.split('/', 2)[2]}" if rest.startswith(_STAGED) else None


def stage_lines(
    tables: Tables,
    table: str,
    session_id: str,
    write_id: str,
    *,
    lines: str,
    unreadable: str | None = None,
) -> Statement:
    """Store lines of messages or checkpoints where nobody reads them, once."""
    insert = _insert(table, ":staged_id", f"NOT {_OURS_IS_DONE}", unreadable)
    return tables.statement(
        f"{insert} ON CONFLICT DO NOTHING",
        session_id=session_id,
        staged_id=staged_id(session_id, write_id),
        write_id=write_id,
        lines=lines,
        unreadable=unreadable,
    )


def take_staged(tables: Tables, session_id: str, write_id: str) -> list[Statement]:
    """Make what an import has staged a part of its session, unless there is one."""
    return [
        tables.statement(
            f"""
            UPDATE {{{table}}} SET session_id = :session_id
            WHERE session_id = :staged_id AND {_IS_FREE}
            """,  # noqa: S608
            session_id=session_id,
            staged_id=staged_id(session_id, write_id),
            write_id=write_id,
        )
        for table in _MAY_BE_STAGED
    ]


def drop_staged(tables: Tables, staged: str, limit: int) -> list[Statement]:
    """Delete some of what an import has staged; the first one returns the messages' ids."""
    keys = {"messages": "message_id", "checkpoints": "checkpoint_id"}
    return [
        tables.statement(
            f"""
            DELETE FROM {{{table}}} WHERE session_id = :staged
                AND (agent_id, {key}) IN (
                    SELECT agent_id, {key} FROM {{{table}}} WHERE session_id = :staged
                    ORDER BY agent_id, {key} LIMIT CAST(:limit AS INTEGER)
                )
            RETURNING {key}
            """,  # noqa: S608
            staged=staged,
            limit=limit,
        )
        for table, key in keys.items()
    ]


_NEXT_STAGED = """(
    SELECT min(id) FROM (
        SELECT min(session_id) AS id FROM {{messages}}
        WHERE session_id > {after} AND session_id < :end_session_id
        UNION ALL SELECT min(session_id) FROM {{checkpoints}}
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
        for table in ("agents", "messages", "multi_agents", "checkpoints")
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
