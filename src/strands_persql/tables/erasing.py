"""Statements that delete everything of a session, whichever write created it."""

from strands_persql.databases.protocol import Statement
from strands_persql.tables import creating
from strands_persql.tables.tables import Tables


def count_rows(tables: Tables, session_id: str) -> Statement:
    """Count a session's rows, and the bytes of their data, table by table."""
    counts = [
        f"""
        SELECT '{table}' AS name, count(*) AS n, sum(length(CAST(data AS BLOB))) AS bytes
        FROM {{{table}}} WHERE session_id = :session_id
        """  # noqa: S608
        for table in creating.SESSION_TABLES
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
    return creating.remove_session(tables, other, session_id=session_id, spared=spared)
