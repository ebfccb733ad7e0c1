"""Statements on the parts of a storage's values."""

from dataclasses import dataclass

from strands_persql.databases.protocol import Statement
from strands_persql.tables.object_conditions import object_is
from strands_persql.tables.preconditions import Precondition
from strands_persql.tables.tables import DATABASE_NOW, Tables

PART = "json_extract(r.value, '$[0]')"
"""The part that a piece ``r`` of a value is in."""

_REFERS = f"r.type = 'array' AND {PART} = p.part"
# CROSS JOIN keeps SQLite from scanning all parts first; one damaged row must not stop the others.
PIECES = """{objects} AS o CROSS JOIN json_each(
    CASE WHEN json_valid(o.pieces) THEN o.pieces ELSE '[]' END
) AS r"""
"""Values ``o`` with their pieces ``r``."""


@dataclass(frozen=True)
class PartText:
    """Text that a write puts into a part.

    Attributes:
        pool: The part's pool.
        part: Its name.
        text: The text.
        own_key: The value whose row's own text comes first, or None for none.
        own_saved_by: The write that has left that value so.
    """

    pool: str
    part: str
    text: str
    own_key: str | None = None
    own_saved_by: str = ""

    @property
    def sql(self) -> str:
        """The expression for the whole text."""
        if self.own_key is None:
            return ":text"
        return """(
            SELECT data FROM {objects} WHERE key = :own_key AND saved_by = :own_saved_by
        ) || :text"""

    @property
    def values(self) -> dict[str, str | None]:
        """Its values by name, for a statement."""
        return dict(self.__dict__)


def store_part(
    tables: Tables, text: PartText, write_id: str, precondition: Precondition
) -> Statement:
    """Make a part."""
    return tables.statement(
        f"""
        INSERT INTO {{parts}} (pool, part, data, write_id, stored_at)
        SELECT :pool, :part, {text.sql}, :write_id, {DATABASE_NOW} WHERE {precondition.sql}
        """,
        **text.values,
        write_id=write_id,
        **precondition.values,
    )


def upload_part(tables: Tables, text: PartText, write_id: str) -> Statement:
    """Make a part ahead of the write that needs it; nothing refers to it until then."""
    return tables.statement(
        f"""
        INSERT INTO {{parts}} (pool, part, data, write_id, stored_at)
        VALUES (:pool, :part, :text, :write_id, {DATABASE_NOW}) ON CONFLICT DO NOTHING
        """,  # noqa: S608 - nothing but constants
        **text.values,
        write_id=write_id,
    )


def withdraw_parts(tables: Tables, pool: str, name: str, write_id: str) -> Statement:
    """Delete the parts that a write has made, which was refused."""
    return tables.statement(
        """
        DELETE FROM {parts} WHERE pool = :pool AND part >= :name AND part < :name || '/'
            AND write_id = :write_id
        """,
        pool=pool,
        name=name,
        write_id=write_id,
    )


def extend_part(
    tables: Tables, text: PartText, size: int, write_id: str, precondition: Precondition
) -> Statement:
    """Add text at the end of a part that has as many characters as its writer knows."""
    return tables.statement(
        f"""
        UPDATE {{parts}} SET data = data || {text.sql}, write_id = :write_id
        WHERE pool = :pool AND part = :part AND length(data) = :size AND {precondition.sql}
        """,  # noqa: S608 - nothing but constants
        **text.values,
        size=size,
        write_id=write_id,
        **precondition.values,
    )


def no_other_refers(pool_end: str | None) -> str:
    """Return the condition that no value of a pool that has several refers to a part."""
    if pool_end is None:
        return ""
    return f"""AND NOT EXISTS (
        SELECT 1 FROM {PIECES}
        WHERE o.key >= :pool AND o.key < :pool_end AND o.key <> :but_key AND {_REFERS}
    )"""  # noqa: S608 - nothing but constants


def release_parts(
    tables: Tables, key: str, pool: str, pool_end: str | None, parts: str, saved_by: str
) -> Statement:
    """Delete parts that a write has left, unless another value refers to them.

    Args:
        tables: The tables.
        key: The value that was written.
        pool: Its pool.
        pool_end: The key before which the pool's values end, or None where it is the only one.
        parts: The names, as a JSON array.
        saved_by: The write: nothing is deleted where it wasn't applied.
    """
    written = object_is(key, saved_by)
    return tables.statement(
        f"""
        DELETE FROM {{parts}} AS p WHERE pool = :pool
            AND part IN (SELECT value FROM json_each(:parts)) AND {written.sql}
            {no_other_refers(pool_end)}
        """,  # noqa: S608 - nothing but constants
        pool=pool,
        pool_end=pool_end,
        parts=parts,
        but_key=key,
        **written.values,
    )


_UNUSED = f"""NOT EXISTS (
    SELECT 1 FROM {PIECES}
    WHERE o.key >= p.pool AND o.key < p.pool || char(1114111) AND {_REFERS}
)"""  # noqa: S608 - nothing but constants


def release_unused(tables: Tables, first: str, end: str | None) -> Statement:
    """Delete the parts of a range of pools that no value refers to."""
    return tables.statement(
        f"""
        DELETE FROM {{parts}} AS p
        WHERE pool >= :first AND pool < coalesce(:end, x'') AND {_UNUSED}
        """,  # noqa: S608 - nothing but constants
        first=first,
        end=end,
    )


def list_parts(tables: Tables, after: tuple[str, str], limit: int) -> Statement:
    """Read the names of parts in order, beyond one of them."""
    return tables.statement(
        """
        SELECT pool, part FROM {parts} WHERE (pool, part) > (:pool, :part)
        ORDER BY pool, part LIMIT CAST(:limit AS INTEGER)
        """,
        pool=after[0],
        part=after[1],
        limit=limit,
    )


def sweep_parts(
    tables: Tables, after: tuple[str, str], last: tuple[str, str], age: float
) -> Statement:
    """Delete parts that no value refers to, and that are older than some seconds.

    Args:
        tables: The tables.
        after: They come after this one.
        last: The last one.
        age: How old they are at the least, in seconds.
    """
    return tables.statement(
        f"""
        DELETE FROM {{parts}} AS p
        WHERE (pool, part) > (:pool, :part) AND (pool, part) <= (:last_pool, :last_part)
            AND stored_at <= {DATABASE_NOW} - :age AND {_UNUSED}
        """,  # noqa: S608 - nothing but constants
        pool=after[0],
        part=after[1],
        last_pool=last[0],
        last_part=last[1],
        age=age,
    )


def count_changes(tables: Tables) -> Statement:
    """Read how many rows the statement before this one has changed."""
    return tables.statement("SELECT changes() AS changed")
