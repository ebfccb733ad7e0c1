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
