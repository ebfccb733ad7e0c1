"""Statements on the contents that are too large for their rows, and on the parts of each.

A content is known by its session and its digest, so a session has it once however many of its
rows refer to it. The column ``uses`` of its first part counts those rows. Triggers keep the count:
whoever replaces, moves or deletes a row, what nothing refers to any more goes with it.
"""

import json
from collections.abc import Collection, Iterable, Iterator

from strands_persql.databases.protocol import Statement
from strands_persql.tables.large_content import LIST_OF_ARRAY, LIST_OF_OBJECT
from strands_persql.tables.tables import DATABASE_NOW, WITHIN_SCOPE, Tables

HOLDERS = {
    "messages": {"data": LIST_OF_OBJECT},
    "agents": {"data": LIST_OF_OBJECT, "view": LIST_OF_ARRAY},
    "multi_agents": {"data": LIST_OF_OBJECT},
    "checkpoints": {"data": LIST_OF_OBJECT, "view": LIST_OF_ARRAY},
}
"""The columns of tables that may have leaves, and what their JSON begins with then."""

_DIGEST = 64  # characters


def has_list(column: str, begins: str) -> str:
    """Return the SQL for whether a column's JSON lists leaves, by what it begins with then."""
    return f"substr({column}, 1, {len(begins)}) = '{begins}'"


def list_of(column: str, begins: str) -> str:
    """Return the SQL for the leaves that a column's JSON lists, as a JSON array of texts."""
    # Text alone: older SQLite lets no trigger call a function on JSON, and a damaged row must not
    # stop the others, nor its own deletion.
    listed = f"substr({column}, {len(begins) + 1}, instr({column}, '}}') - {len(begins) + 1})"
    bare = f"""replace({listed}, '"', '')"""
    return f"""CASE WHEN {has_list(column, begins)} AND {bare} NOT GLOB '*[^0-9a-f:,]*'
        THEN '["' || replace({bare}, ',', '","') || '"]' ELSE '[]' END"""


# -- counting uses ---------------------------------------------------------------------------------


def triggers(tables: Tables, names: Iterable[str]) -> Iterator[str]:
    """Yield the SQL that makes the triggers on some tables, unless they are there."""
    for table in names:
        for column, begins in HOLDERS.get(table, {}).items():
            yield from _triggers(tables.prefix, table, column, begins)


def _triggers(prefix: str, table: str, column: str, begins: str) -> Iterator[str]:
    new, old = (list_of(f"{row}.{column}", begins) for row in ("NEW", "OLD"))
    has_new, has_old = (has_list(f"{row}.{column}", begins) for row in ("NEW", "OLD"))
    digest = f"substr(value, 1, {_DIGEST})"
    counted = f"""UPDATE {prefix}contents SET uses = uses + 1
        WHERE session_id = NEW.session_id AND place = 0
            AND digest IN (SELECT {digest} FROM json_each({new}));"""  # noqa: S608
    released = f"""UPDATE {prefix}contents SET uses = uses - 1
        WHERE session_id = OLD.session_id AND place = 0
            AND digest IN (SELECT {digest} FROM json_each({old}));
        DELETE FROM {prefix}contents WHERE session_id = OLD.session_id AND digest IN (
            SELECT {digest} FROM json_each({old}) WHERE coalesce((
                SELECT c.uses FROM {prefix}contents AS c
                WHERE c.session_id = OLD.session_id AND c.digest = {digest} AND c.place = 0
            ), 0) <= 0
        );"""  # noqa: S608
    events = {
        "created": ("INSERT", has_new, counted),
        "replaced": (
            f"UPDATE OF session_id, {column}",
            f"""(coalesce({has_old}, 0) OR coalesce({has_new}, 0))
            AND (OLD.session_id <> NEW.session_id OR {old} <> {new})""",
            f"{counted} {released}",
        ),
        "deleted": ("DELETE", has_old, released),
    }
    for name, (event, condition, body) in events.items():
        sql = f"""CREATE TRIGGER IF NOT EXISTS {prefix}{table}_{column}_{name}
            AFTER {event} ON {prefix}{table} WHEN {condition} BEGIN {body} END"""
        yield " ".join(sql.split())


# -- writing ---------------------------------------------------------------------------------------


def store_part(tables: Tables, session_id: str, digest: str, place: int, data: str) -> Statement:
    """Store a part of a content, unless it is there."""
    return tables.statement(
        f"""
        INSERT INTO {{contents}} (session_id, digest, place, data, stored_at)
        VALUES (:session_id, :digest, CAST(:place AS INTEGER), :data, {DATABASE_NOW})
        ON CONFLICT DO NOTHING
        """,  # noqa: S608 - nothing but constants
        session_id=session_id,
        digest=digest,
        place=place,
        data=data,
    )


def require_parts(
    tables: Tables,
    session_id: str,
    digests: Collection[str],
    count: int,
    *,
    write_id: str | None = None,
) -> Statement:
    """Fail, and the transaction with it, unless all parts of some contents are there.

    Args:
        tables: The tables.
        session_id: The session.
        digests: The contents.
        count: How many parts they have.
        write_id: The write that must have created the session for this to matter, or None.
    """
    condition = (
        ""
        if write_id is None
        else """ AND EXISTS (
            SELECT 1 FROM {sessions} WHERE session_id = :session_id AND write_id = :write_id
        )"""
    )
    return tables.statement(
        f"""
        INSERT INTO {{contents}} (session_id) SELECT NULL WHERE (
            SELECT count(*) FROM {{contents}}
            WHERE session_id = :session_id AND digest IN (SELECT value FROM json_each(:digests))
        ) < :count{condition}
        """,  # noqa: S608 - nothing but constants
        write_id=write_id,
        session_id=session_id,
        digests=json.dumps([*digests]),
        count=count,
    )


def take_staged(tables: Tables, session_id: str, staged: str, write_id: str) -> list[Statement]:
    """Make the contents of an unfinished import those of its session.

    Nothing refers to them there yet; what is there of the same digest is the same.
    """
    is_free = """NOT EXISTS (
        SELECT 1 FROM {sessions} WHERE session_id = :session_id
        UNION ALL SELECT 1 FROM {deletions} WHERE write_id = :write_id
    )"""
    values = {"session_id": session_id, "staged": staged, "write_id": write_id}
    return [
        tables.statement(
            f"""
            DELETE FROM {{contents}} WHERE session_id = :session_id AND {is_free}
                AND EXISTS (SELECT 1 FROM {{contents}} WHERE session_id = :staged)
            """,  # noqa: S608 - nothing but constants
            **values,
        ),
        tables.statement(
            f"""
            UPDATE {{contents}} SET session_id = :session_id, uses = 0
            WHERE session_id = :staged AND {is_free}
            """,  # noqa: S608 - nothing but constants
            **values,
        ),
    ]


def drop(tables: Tables, session_id: str) -> Statement:
    """Delete all contents of a session, or of an unfinished import."""
    return tables.statement(
        "DELETE FROM {contents} WHERE session_id = :session_id", session_id=session_id
    )


# -- reading ---------------------------------------------------------------------------------------


def read_parts(
    tables: Tables, session_id: str, digests: Collection[str], first: int, last: int
) -> Statement:
    """Read parts of some contents, those between two places."""
    return tables.statement(
        """
        SELECT digest, place, data FROM {contents}
        WHERE session_id = :session_id AND digest IN (SELECT value FROM json_each(:digests))
            AND place >= :first AND place < :last
        """,
        session_id=session_id,
        digests=json.dumps([*digests]),
        first=first,
        last=last,
    )


def parts_of(lists: str, limit: int) -> str:
    """Return the SQL that reads the parts of contents of a session, if it has any.

    Args:
        lists: The query of the lists of leaves, in its column ``listed``.
        limit: Bytes at the most: what is beyond them is read by further requests.
    """
    # The outermost loop is over the session's contents: where it has none, nothing else is read.
    return f"""
        SELECT p.digest, p.place, p.data
        FROM (
            SELECT session_id FROM {{contents}} WHERE session_id = :session_id LIMIT 1
        ) AS any_of_it
        CROSS JOIN {{contents}} AS p ON p.session_id = any_of_it.session_id
        WHERE p.digest IN (
            SELECT digest FROM (
                SELECT digest, sum(size) OVER (ORDER BY digest) AS total FROM (
                    SELECT DISTINCT substr(l.value, 1, {_DIGEST}) AS digest,
                        CAST(substr(l.value, {_DIGEST + 2}) AS INTEGER) AS size
                    FROM ({lists}) AS one CROSS JOIN json_each(one.listed) AS l
                )
            ) WHERE total <= {limit}
        )
    """  # noqa: S608 - nothing but constants


# -- sweeping --------------------------------------------------------------------------------------


def list_parts(tables: Tables, after: tuple[str, str, int], limit: int) -> Statement:
    """Read the keys of parts in order, beyond one of them."""
    return tables.statement(
        f"""
        SELECT session_id, digest, place FROM {{contents}}
        WHERE (session_id, digest, place) > (:session_id, :digest, :place)
            AND session_id {WITHIN_SCOPE}
        ORDER BY session_id, digest, place LIMIT CAST(:limit AS INTEGER)
        """,  # noqa: S608 - nothing but constants
        session_id=after[0],
        digest=after[1],
        place=after[2],
        limit=limit,
    )


def sweep_parts(
    tables: Tables, after: tuple[str, str, int], last: tuple[str, str, int], age: float
) -> Statement:
    """Delete parts of contents that no row refers to, and that are older than some seconds.

    Args:
        tables: The tables.
        after: They come after this one.
        last: The last one.
        age: How old they are at the least, in seconds.
    """
    first = "c.session_id = {contents}.session_id AND c.digest = {contents}.digest AND c.place = 0"
    return tables.statement(
        f"""
        DELETE FROM {{contents}}
        WHERE (session_id, digest, place) > (:session_id, :digest, :place)
            AND (session_id, digest, place) <= (:last_session_id, :last_digest, :last_place)
            AND stored_at <= {DATABASE_NOW} - :age AND NOT EXISTS (
                SELECT 1 FROM {{contents}} AS c
                WHERE {first} AND (uses > 0 OR stored_at > {DATABASE_NOW} - :age)
            )
        """,  # noqa: S608 - nothing but constants
        session_id=after[0],
        digest=after[1],
        place=after[2],
        last_session_id=last[0],
        last_digest=last[1],
        last_place=last[2],
        age=age,
    )
