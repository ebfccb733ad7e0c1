"""The errors: one tree under Strands' own, picklable, telling what happened to whom."""

import inspect
import pickle
from typing import Any

import pytest
from strands.types.exceptions import SessionException

from strands_persql import errors
from strands_persql.errors import ConflictError, CorruptRowError, PerSQLError

TREE = {
    "PerSQLError": "SessionException",
    "ConflictError": "PerSQLError",
    "NotFoundError": "PerSQLError",
    "AlreadyExistsError": "PerSQLError",
    "InvalidDataError": "PerSQLError",
    "TooLargeError": "PerSQLError",
    "CorruptRowError": "PerSQLError",
    "SchemaError": "PerSQLError",
    "DatabaseError": "PerSQLError",
    "DatabaseOpenError": "DatabaseError",
    "UnavailableError": "DatabaseError",
    "OutcomeUnknownError": "DatabaseError",
    "AccessDeniedError": "DatabaseError",
    "StatementError": "DatabaseError",
    "BadAnswerError": "StatementError",
}
CLASSES = [
    error
    for _, error in inspect.getmembers(errors, inspect.isclass)
    if error.__module__ == errors.__name__
]
EXTRA: dict[str, dict[str, Any]] = {
    "TooLargeError": {"size": 2, "limit": 1},
    "CorruptRowError": {"table": "t", "key": ("s", 1)},
    "SchemaError": {"sql": "CREATE"},
}


def test_the_tree_is_as_drawn() -> None:
    """Each class has the parent that the module's docstring draws, and no class is missing."""
    assert {one.__name__: one.__bases__[0].__name__ for one in CLASSES} == TREE
    assert errors.__doc__ is not None
    assert all(name in errors.__doc__ for name in TREE)


def test_handlers_written_for_strands_catch_everything() -> None:
    """Every error is a SessionException."""
    assert all(issubclass(one, SessionException) for one in CLASSES)


@pytest.mark.parametrize("error", CLASSES, ids=lambda one: one.__name__)
def test_errors_cross_process_pools(error: type[PerSQLError]) -> None:
    """Every error comes back from a pickle with its text and its attributes."""
    made = error("what happened", session_id="s", agent_id="a", **EXTRA.get(error.__name__, {}))
    back = pickle.loads(pickle.dumps(made))  # noqa: S301 - made a line above
    assert type(back) is error
    assert (str(back), vars(back)) == ("what happened", vars(made))
    assert (back.session_id, back.agent_id) == ("s", "a")


def test_a_conflict_carries_both_sides() -> None:
    """Versions and values of both sides are attributes."""
    error = ConflictError("x", expected_version=1, found_version=2, ours={"n": 1}, found={"n": 2})
    assert (error.expected_version, error.found_version) == (1, 2)
    assert (error.ours, error.found) == ({"n": 1}, {"n": 2})


def test_a_corrupt_row_has_its_place() -> None:
    """Table and key are attributes."""
    error = CorruptRowError("x", table="strands_messages", key=("s", "a", 1))
    assert (error.table, error.key) == ("strands_messages", ("s", "a", 1))
