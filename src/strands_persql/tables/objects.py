"""Statements on the values of a storage.

Each write is bound to what its writer knows, the latest write of a value or that there is none,
so that a late copy of it does nothing. No statement brings text twice that the database has.
"""

from dataclasses import dataclass

from strands_persql.databases.protocol import Statement
from strands_persql.tables.object_conditions import UNCONDITIONAL
from strands_persql.tables.object_parts import PART, PIECES, no_other_refers
from strands_persql.tables.preconditions import Precondition
from strands_persql.tables.tables import DATABASE_NOW, Tables

FIRST_PAGE_CHARACTERS = 4_000_000
"""Up to this size a value is read in one request."""

FIRST_PAGE_PIECES = 16
"""Pieces of a larger one that the first request brings."""


@dataclass(frozen=True)
class ObjectRow:
    """What a write puts into a value's row.

    Attributes:
        key: The value's key.
        pool: The pool of its parts.
        encoding: What the text is to the value's bytes.
        size: Its size in characters.
        digest: What its text is recognized by.
        pieces: Its pieces as JSON.
        data: The row's own text, or what is added to it.
        time: When it was written.
    """

    key: str
    pool: str
    encoding: str
    size: int
    digest: str
    pieces: str
    data: str
    time: str

    @property
    def values(self) -> dict[str, str | int]:
        """Its values by name, for a statement."""
        return dict(self.__dict__)


def read_object(tables: Tables, key: str, known: str) -> tuple[Statement, Statement]:
    """Read a value's row, and the texts of its parts, unless a known write has left it so.

    Args:
        tables: The tables.
        key: The value's key.
        known: The latest write that is known, or nothing.
    """
    row = tables.statement(
        """
        SELECT version, write_id, saved_by, encoding, size, digest,
            CASE WHEN saved_by = :known THEN NULL ELSE pieces END AS pieces,
            CASE WHEN saved_by = :known THEN NULL ELSE data END AS data
        FROM {objects} WHERE key = :key
        """,
        key=key,
        known=known,
    )
    return row, _read_texts(
        tables,
        f"""o.saved_by <> :known
            AND (o.size <= {FIRST_PAGE_CHARACTERS} OR r.key < {FIRST_PAGE_PIECES})""",
        key=key,
        known=known,
    )


def read_texts(tables: Tables, key: str, saved_by: str, first: int, last: int) -> Statement:
    """Read the texts of some pieces of a value that is as a write has left it."""
    return _read_texts(
        tables,
        "o.saved_by = :saved_by AND r.key >= :first AND r.key < :last",
        key=key,
        saved_by=saved_by,
        first=first,
        last=last,
    )


def _read_texts(tables: Tables, which: str, **values: str | int) -> Statement:
    return tables.statement(
        f"""
        SELECT r.key AS place, {PART} AS part, length(p.data) AS size,
            substr(p.data, json_extract(r.value, '$[1]') + 1, json_extract(r.value, '$[2]'))
                AS text
        FROM {PIECES} CROSS JOIN {{parts}} AS p ON p.pool = o.pool AND p.part = {PART}
        WHERE o.key = :key AND r.type = 'array' AND {which}
        """,  # noqa: S608 - nothing but constants
        **values,
    )


def look(tables: Tables, key: str) -> Statement:
    """Read what a value's row says of it, without its text."""
    return tables.statement(
        """
        SELECT version, write_id, saved_by, encoding, digest, pieces FROM {objects}
        WHERE key = :key
        """,
        key=key,
    )


def list_objects(
    tables: Tables, first: str, end: str | None, limit: int, *, after: bool = False
) -> Statement:
    """Read keys in order, each with the write that created its value.

    Args:
        tables: The tables.
        first: The first key.
        end: The key before which they end, or None for no end.
        limit: The most to return.
        after: Whether to begin after the first key.
    """
    return tables.statement(
        f"""
        SELECT key, write_id FROM {{objects}}
        WHERE key {">" if after else ">="} :first AND key < coalesce(:end, x'')
        ORDER BY key LIMIT CAST(:limit AS INTEGER)
        """,  # noqa: S608 - nothing but constants; a blob is beyond every text
        first=first,
        end=end,
        limit=limit,
    )


def create_object(
    tables: Tables, row: ObjectRow, write_id: str, precondition: Precondition
) -> Statement:
    """Create a value; the precondition includes that the key has none."""
    return tables.statement(
        f"""
        INSERT INTO {{objects}} (key, pool, encoding, size, digest, pieces, data, write_id,
            saved_by, created_at, updated_at)
        SELECT :key, :pool, :encoding, :size, :digest, :pieces, :data, :write_id, :write_id,
            :time, :time
        WHERE {precondition.sql}
        """,
        **row.values,
        write_id=write_id,
        **precondition.values,
    )


def spend(tables: Tables, key: str, write_id: str) -> Statement:
    """Note that a creation was refused, if it was."""
    return tables.statement(
        f"""
        INSERT INTO {{deletions}} (write_id, deleted_at) SELECT :write_id, {DATABASE_NOW}
        WHERE NOT EXISTS (
            SELECT 1 FROM {{objects}} WHERE key = :key AND write_id = :write_id
        ) ON CONFLICT DO NOTHING
        """,  # noqa: S608 - nothing but constants
        key=key,
        write_id=write_id,
    )


def replace_object(
    tables: Tables,
    row: ObjectRow,
    expected: str,
    write_id: str,
    precondition: Precondition,
    *,
    adds: bool,
) -> Statement:
    """Replace a value.

    Args:
        tables: The tables.
        row: The row.
        expected: The write that has left what is replaced.
        write_id: This write.
        precondition: What else must hold.
        adds: Whether ``row.data`` is added to the row's own text, which stays.
    """
    more = "" if precondition is UNCONDITIONAL else f"AND {precondition.sql}"
    return tables.statement(
        f"""
        UPDATE {{objects}} SET pieces = :pieces, data = {"data || :data" if adds else ":data"},
            {"" if adds else "encoding = :encoding,"} size = :size, digest = :digest,
            version = version + 1, saved_by = :write_id, updated_at = :time
        WHERE key = :key AND saved_by = :expected {more}
        """,  # noqa: S608 - nothing but constants
        **row.values,
        expected=expected,
        write_id=write_id,
        **precondition.values,
    )


def delete_object(
    tables: Tables, key: str, pool: str, pool_end: str | None, origin: str
) -> list[Statement]:
    """Delete a value that a write has created, with the parts that no other value refers to."""
    values = {"key": key, "but_key": key, "pool": pool, "pool_end": pool_end, "origin": origin}
    return [
        tables.statement(template, **values)
        for template in (
            f"""
            DELETE FROM {{parts}} AS p WHERE pool = :pool AND part IN (
                SELECT {PART} FROM {PIECES}
                WHERE o.key = :key AND o.write_id = :origin AND r.type = 'array'
            ) {no_other_refers(pool_end)}
            """,  # noqa: S608 - nothing but constants
            f"""
            INSERT INTO {{deletions}} (write_id, deleted_at) SELECT write_id, {DATABASE_NOW}
            FROM {{objects}} WHERE key = :key AND write_id = :origin ON CONFLICT DO NOTHING
            """,  # noqa: S608 - nothing but constants
            "DELETE FROM {objects} WHERE key = :key AND write_id = :origin",
        )
    ]


def delete_objects(tables: Tables, first: str, last: str, origins: str) -> list[Statement]:
    """Delete the values between two keys that certain writes have created.

    Args:
        tables: The tables.
        first: The first key.
        last: The last one.
        origins: The writes, as a JSON array.
    """
    return [
        tables.statement(
            f"""
            INSERT INTO {{deletions}} (write_id, deleted_at)
            SELECT value, {DATABASE_NOW} FROM json_each(:origins) WHERE true ON CONFLICT DO NOTHING
            """,  # noqa: S608 - nothing but constants
            origins=origins,
        ),
        tables.statement(
            """
            DELETE FROM {objects} WHERE key >= :first AND key <= :last
                AND write_id IN (SELECT value FROM json_each(:origins))
            """,
            first=first,
            last=last,
            origins=origins,
        ),
    ]
