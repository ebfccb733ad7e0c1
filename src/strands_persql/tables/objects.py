"""Statements on the values of a storage and on their parts.

Each write is bound to what its writer knows, the latest write of a value or that there is none,
so that a late copy of it does nothing. No statement brings text twice that the database has.
"""

from dataclasses import dataclass
from functools import reduce
from operator import and_

from strands_persql.databases.protocol import Statement
from strands_persql.tables.tables import DATABASE_NOW, Tables
from strands_persql.tables.writing import Precondition

FIRST_PAGE_CHARACTERS = 4_000_000
"""Up to this size a value is read in one request."""

FIRST_PAGE_PIECES = 16
"""Pieces of a larger one that the first request brings."""

_PART = "json_extract(r.value, '$[0]')"
_REFERS = f"r.type = 'array' AND {_PART} = p.part"
# CROSS JOIN keeps SQLite from scanning all parts first; one damaged row must not stop the others.
_PIECES = """{objects} AS o CROSS JOIN json_each(
    CASE WHEN json_valid(o.pieces) THEN o.pieces ELSE '[]' END
) AS r"""


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


# -- preconditions ---------------------------------------------------------------------------------


UNCONDITIONAL = Precondition("true")
"""The precondition that always holds."""


def all_of(*preconditions: Precondition | None) -> Precondition:
    """Return the precondition that all of some hold."""
    given = [one for one in preconditions if one is not None]
    return reduce(and_, given) if given else UNCONDITIONAL


def object_is(key: str, saved_by: str) -> Precondition:
    """Return the precondition that a value is as a write has left it."""
    return Precondition(
        "EXISTS (SELECT 1 FROM {objects} WHERE key = :is_key AND saved_by = :is_saved_by)",
        {"is_key": key, "is_saved_by": saved_by},
    )


def base_is(key: str, saved_by: str) -> Precondition:
    """Return the precondition that the value that a write builds on is as it is known."""
    return Precondition(
        "EXISTS (SELECT 1 FROM {objects} WHERE key = :base_key AND saved_by = :base_saved_by)",
        {"base_key": key, "base_saved_by": saved_by},
    )


def no_object(key: str) -> Precondition:
    """Return the precondition that a key has no value."""
    return Precondition(
        "NOT EXISTS (SELECT 1 FROM {objects} WHERE key = :free_key)", {"free_key": key}
    )


def unspent(write_id: str) -> Precondition:
    """Return the precondition that a creation was neither refused nor deleted before.

    A copy of it that comes late then creates nothing.
    """
    return Precondition(
        "NOT EXISTS (SELECT 1 FROM {deletions} WHERE write_id = :unspent)", {"unspent": write_id}
    )


def parts_stored(pool: str, name: str, write_id: str, count: int) -> Precondition:
    """Return the precondition that as many parts are there as a write has made.

    Args:
        pool: Their pool.
        name: What their names begin with.
        write_id: The write.
        count: How many there are.
    """
    return Precondition(
        """(
            SELECT count(*) FROM {parts} WHERE pool = :made_pool AND part >= :made_name
                AND part < :made_name || '/' AND write_id = :made_by
        ) = :made_count""",
        {"made_pool": pool, "made_name": name, "made_by": write_id, "made_count": count},
    )


def part_extended(pool: str, part: str, write_id: str) -> Precondition:
    """Return the precondition that a write has added text to a part."""
    return Precondition(
        """EXISTS (
            SELECT 1 FROM {parts} WHERE pool = :long_pool AND part = :long_part
                AND write_id = :long_by
        )""",
        {"long_pool": pool, "long_part": part, "long_by": write_id},
    )


# -- reading ---------------------------------------------------------------------------------------


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
        SELECT r.key AS place, {_PART} AS part, length(p.data) AS size,
            substr(p.data, json_extract(r.value, '$[1]') + 1, json_extract(r.value, '$[2]'))
                AS text
        FROM {_PIECES} CROSS JOIN {{parts}} AS p ON p.pool = o.pool AND p.part = {_PART}
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
        limit: How many at the most.
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


# -- writing ---------------------------------------------------------------------------------------


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


# -- parts that nothing refers to ----------------------------------------------------------------


def _others(pool_end: str | None) -> str:
    """Return the condition that no value of a pool that has several refers to a part."""
    if pool_end is None:
        return ""
    return f"""AND NOT EXISTS (
        SELECT 1 FROM {_PIECES}
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
            AND part IN (SELECT value FROM json_each(:parts)) AND {written.sql} {_others(pool_end)}
        """,  # noqa: S608 - nothing but constants
        pool=pool,
        pool_end=pool_end,
        parts=parts,
        but_key=key,
        **written.values,
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
                SELECT {_PART} FROM {_PIECES}
                WHERE o.key = :key AND o.write_id = :origin AND r.type = 'array'
            ) {_others(pool_end)}
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


_UNUSED = f"""NOT EXISTS (
    SELECT 1 FROM {_PIECES}
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
