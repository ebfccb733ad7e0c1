"""Statements that delete sessions: as their users do, once expired, and whoever created them.

The writes that created what is deleted are remembered: see `creating`.
"""

from strands_persql.databases.protocol import Statement, Value
from strands_persql.tables.retention import HAS_EXPIRED
from strands_persql.tables.tables import DATABASE_NOW, Tables

_DELETIONS_KEPT_S = 7 * 24 * 3600  # no request is under way for longer
_IS_SESSION_SEEN = """EXISTS (
    SELECT 1 FROM {sessions}
    WHERE session_id = :session_id AND write_id = coalesce(:write_id, write_id)
) AND NOT EXISTS (SELECT 1 FROM {deletions} WHERE write_id = :deletion)"""
_HAS_EXPIRED = f"""EXISTS (
    SELECT 1 FROM {{sessions}} AS s WHERE s.session_id = :session_id AND {HAS_EXPIRED}
)"""  # noqa: S608 - nothing but constants
SESSION_TABLES = ("contents", "messages", "checkpoints", "agents", "multi_agents", "sessions")
"""The tables that hold a session, its own row's last."""

_REMEMBER = """
    INSERT INTO {{deletions}} (write_id, deleted_at)
    SELECT write_id, {now} FROM {{{table}}}
    WHERE session_id = :session_id AND write_id <> '' AND {condition}
    ON CONFLICT DO NOTHING
"""


def delete_session(
    tables: Tables, session_id: str, write_id: str | None, deletion: str
) -> list[Statement]:
    """Delete every row of a session, once: a copy that comes late deletes nothing made since.

    Args:
        tables: The tables.
        session_id: The session.
        write_id: The write that created the session that is meant, or None for whichever it is.
        deletion: The id of this deletion.
    """
    values = {"session_id": session_id, "write_id": write_id, "deletion": deletion}
    done = tables.statement(
        f"""
        INSERT INTO {{deletions}} (write_id, deleted_at) VALUES (:deletion, {DATABASE_NOW})
        ON CONFLICT DO NOTHING
        """,  # noqa: S608
        deletion=deletion,
    )
    return [*remove_session(tables, _IS_SESSION_SEEN, **values), done]


def remove_session(tables: Tables, condition: str, **values: Value) -> list[Statement]:
    """Delete every row of a session; the writes that created them are remembered.

    So late copies of those writes create nothing.

    Args:
        tables: The tables.
        condition: What must hold, in SQL; it may ask for the session's row, which goes last.
        **values: The condition's values, and ``session_id``.
    """
    remember = [
        _REMEMBER.format(table=table, condition=condition, now=DATABASE_NOW)
        for table in ("multi_agents", "agents", "sessions")
    ]
    delete = [
        f"DELETE FROM {{{table}}} WHERE session_id = :session_id AND {condition}"  # noqa: S608
        for table in SESSION_TABLES
    ]
    return [tables.statement(template, **values) for template in (*remember, *delete)]


def remove_expired(tables: Tables, session_id: str) -> list[Statement]:
    """Delete every row of a session if it has expired."""
    return remove_session(tables, _HAS_EXPIRED, session_id=session_id)


def forget_deletions(tables: Tables) -> Statement:
    """Forget the creating writes of what was deleted long ago."""
    return tables.statement(
        f"DELETE FROM {{deletions}} WHERE deleted_at < {DATABASE_NOW} - :kept",  # noqa: S608
        kept=_DELETIONS_KEPT_S,
    )


def count_rows(tables: Tables, session_id: str) -> Statement:
    """Count a session's rows, and the bytes of their data, table by table."""
    counts = [
        f"""
        SELECT '{table}' AS name, count(*) AS n, sum(length(CAST(data AS BLOB))) AS bytes
        FROM {{{table}}} WHERE session_id = :session_id
        """  # noqa: S608
        for table in SESSION_TABLES
    ]
    # The hosted engine takes five terms together.
    halves = (" UNION ALL ".join(some) for some in (counts[:3], counts[3:]))
    query = " UNION ALL ".join(f"SELECT name, n, bytes FROM ({half})" for half in halves)  # noqa: S608
    return tables.statement(query, session_id=session_id)


def erase_session(tables: Tables, session_id: str, spared: str = "") -> list[Statement]:
    """Delete every row of a session, unless a write has created it.

    Args:
        tables: The tables.
        session_id: The session.
        spared: The write whose session stays: the request that erases and creates again may be
            sent twice.
    """
    other = """NOT EXISTS (
        SELECT 1 FROM {sessions} WHERE session_id = :session_id AND write_id = :spared
    )"""
    return remove_session(tables, other, session_id=session_id, spared=spared)


def count_values(tables: Tables, first: str, end: str) -> Statement:
    """Count the values of a range of keys and the parts of its pools, and the bytes of both."""
    return tables.statement(
        """
        SELECT 'objects' AS name, count(*) AS n, sum(length(CAST(data AS BLOB))) AS bytes
        FROM {objects} WHERE key >= :first AND key < :end
        UNION ALL
        SELECT 'parts', count(*), sum(length(CAST(data AS BLOB)))
        FROM {parts} WHERE pool >= :first AND pool < :end
        """,
        first=first,
        end=end,
    )


def find_index(tables: Tables) -> Statement:
    """Read the name of the full-text index, if there is one."""
    sql = "SELECT name FROM sqlite_master WHERE type = 'table' AND name = ?"
    return {"sql": sql, "params": [f"{tables.prefix}search"]}
