"""Conditions under which the statements of a storage's write apply."""

from functools import reduce
from operator import and_

from strands_persql.tables.preconditions import Precondition

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
