"""The errors: one tree under Strands' own, picklable, telling what happened to whom."""

import inspect
import pickle
from typing import Any

import pytest
from strands import Agent
from strands.types.exceptions import EventLoopException, SessionException

from strands_persql import LocalDatabase, PerSQLSessionManager, RetryPolicy, errors
from strands_persql.errors import (
    ConflictError,
    CorruptRowError,
    PerSQLError,
    UnavailableError,
    persql_error,
)
from strands_persql.testing import InterceptingDatabase, ScriptedModel, ToolCall
from tests.support.conversation import count

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


def agent_whose_database_goes_away(*replies: Any, after: int) -> Agent:
    """Make an agent whose database refuses connections after so many round trips."""
    left = iter(range(after))

    def go_away(_: object) -> None:
        if next(left, None) is None:
            raise ConnectionRefusedError("away")

    database = InterceptingDatabase(LocalDatabase(), before=go_away)
    manager = PerSQLSessionManager("s", database, retry=RetryPolicy.never())
    return Agent(
        model=ScriptedModel(replies), tools=[count], session_manager=manager, callback_handler=None
    )


def test_an_error_is_found_in_the_middle_of_a_turn() -> None:
    """What Strands has wrapped is found, and is no PerSQLError to an ``except`` clause."""
    agent = agent_whose_database_goes_away(ToolCall("count"), "done", after=6)
    with pytest.raises(EventLoopException) as caught:
        agent("count")
    assert isinstance(persql_error(caught.value), UnavailableError)


def test_an_error_is_found_where_nobody_wrapped_it() -> None:
    """What is raised before the model is asked is found as it is."""
    agent = agent_whose_database_goes_away("done", after=5)
    with pytest.raises(UnavailableError) as caught:
        agent("hello")
    assert persql_error(caught.value) is caught.value


def test_no_error_is_found_where_the_model_failed() -> None:
    """An error of the model's or a tool's is none of ours, wrapped or not; nor is None."""
    agent = agent_whose_database_goes_away(ToolCall("count"), ValueError("model"), after=99)
    with pytest.raises(EventLoopException) as caught:
        agent("count")
    assert persql_error(caught.value) is None
    assert persql_error(None) is None


def test_a_circle_of_causes_ends() -> None:
    """Errors that cause each other are looked at once each."""
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    assert persql_error(first) is None
