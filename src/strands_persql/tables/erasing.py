"""Statements that delete all that there is of a session, whoever created it."""

from strands_persql.databases.protocol import Statement
from strands_persql.tables.tables import Tables

_NOW = "CAST(strftime('%s', 'now') AS INTEGER)"
_TABLES = ("messages", "agents", "multi_agents", "sessions")


def count_rows(tables: Tables, session_id: str) -> Statement:
    """Count a session's rows, and the bytes of their data, table by table."""
    parts = " UNION ALL ".join(
        f"""
        SELECT '{table}' AS name, count(*) AS n, sum(length(CAST(data AS BLOB))) AS bytes
        FROM {{{table}}} WHERE session_id = :session_id
        """  # noqa: S608
        for table in _TABLES
    )
    return tables.statement(parts, session_id=session_id)


def erase_session(tables: Tables, session_id: str, spared: str = "") -> list[Statement]:
    """Delete every row of a session, unless a write has created it.

    The writes that created the rows are remembered, so that late copies of them create nothing.

    Args:
        tables: The tables.
        session_id: The session.
        spared: The write whose session stays: the request that erases and creates anew may be
            sent twice.
    """
    other = """NOT EXISTS (
        SELECT 1 FROM {sessions} WHERE session_id = :session_id AND write_id = :spared
    )"""
    values = {"session_id": session_id, "spared": spared}
    remember = [
        tables.statement(
            f"""
            INSERT INTO {{deletions}} (write_id, deleted_at)
            SELECT write_id, {_NOW} FROM {{{table}}}
            WHERE session_id = :session_id AND write_id <> '' AND {other} ON CONFLICT DO NOTHING
            """,  # noqa: S608
            **values,
        )
        for table in ("multi_agents", "agents", "sessions")
    ]
    delete = [
        tables.statement(
            f"DELETE FROM {{{table}}} WHERE session_id = :session_id AND {other}",  # noqa: S608
            **values,
        )
        for table in _TABLES
    ]
    return [*remember, *delete]
