"""Which failures are tried again, and for how long."""

import sqlite3
import time
from typing import Any

import httpx
import pytest

from strands_persql import RetryPolicy
from strands_persql.gateway.retry import Cause, LostRaceError, classify


class SdkError(Exception):
    """What an SDK might raise."""

    def __init__(self, message: str, **attributes: Any) -> None:
        super().__init__(message)
        self.__dict__.update(attributes)


class RateLimitError(Exception):
    """What an SDK might call it."""


CASES: list[tuple[BaseException, Cause, bool]] = [
    (ConnectionRefusedError("x"), Cause.TRANSIENT, False),
    (ConnectionResetError("x"), Cause.TRANSIENT, True),
    (TimeoutError("x"), Cause.TRANSIENT, True),
    (httpx.ConnectError("x"), Cause.TRANSIENT, False),
    (httpx.ReadTimeout("x"), Cause.TRANSIENT, True),
    (sqlite3.OperationalError("database is locked"), Cause.TRANSIENT, False),
    (sqlite3.OperationalError("no such table: strands_agents"), Cause.SCHEMA, False),
    (sqlite3.OperationalError("no such column: version"), Cause.SCHEMA, False),
    (sqlite3.OperationalError("attempt to write a readonly database"), Cause.ACCESS, False),
    (sqlite3.IntegrityError("UNIQUE constraint failed: t.a"), Cause.STATEMENT, False),
    (sqlite3.OperationalError("disk I/O error"), Cause.STATEMENT, True),
    (SdkError("no such table: x: SQLITE_ERROR"), Cause.SCHEMA, False),
    (SdkError("x", status_code=503), Cause.TRANSIENT, True),
    (SdkError("x", status=429), Cause.TRANSIENT, False),
    (SdkError("x", status=401), Cause.ACCESS, False),
    (SdkError("x", status=402), Cause.ACCESS, False),
    (SdkError("x", status=403), Cause.ACCESS, False),
    (SdkError("x", detail={"kind": "unknown_table"}), Cause.SCHEMA, False),
    (SdkError("x", status=400, detail={"kind": "database_locked"}), Cause.TRANSIENT, False),
    (RateLimitError("slow down"), Cause.TRANSIENT, False),
    (ValueError("x"), Cause.STATEMENT, False),
]


@pytest.mark.parametrize(("error", "cause", "applied"), CASES, ids=lambda one: repr(one)[:40])
def test_failures_are_sorted(error: BaseException, cause: Cause, applied: bool) -> None:
    """Each failure has its cause, and whether a write may have been applied all the same."""
    failure = classify(error)
    assert (failure.cause, failure.may_have_applied) == (cause, applied)


def test_what_the_database_says_itself_is_believed() -> None:
    """An error that tells what may have been applied, and when to come back, is believed."""
    error = SdkError("x", status=500, may_have_applied=False, retry_after=3)
    failure = classify(error)
    assert (failure.cause, failure.may_have_applied) == (Cause.TRANSIENT, False)
    assert failure.retry_after == 3.0


class Waits:
    """A clock that only notes how long it was asked to wait."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


def attempts(errors: list[Exception]) -> Any:
    """Make a call that fails so often, then succeeds."""

    def attempt() -> str:
        if errors:
            raise errors.pop(0)
        return "done"

    return attempt


def test_transient_failures_are_tried_again() -> None:
    """A call that fails in passing succeeds in the end, with a wait before each new try."""
    waits, retries = Waits(), []
    policy = RetryPolicy(sleep=waits)
    errors: list[Exception] = [ConnectionResetError(), TimeoutError(), ConnectionRefusedError()]
    assert policy.call(attempts(errors), lambda: retries.append(1)) == "done"
    assert len(waits.seconds) == len(retries) == 3
    assert all(wait <= bound for wait, bound in zip(waits.seconds, (0.1, 0.2, 0.4), strict=True))


def test_other_failures_are_raised_at_once() -> None:
    """What no retry can mend is raised as it is."""
    waits = Waits()
    with pytest.raises(ValueError, match="final"):
        RetryPolicy(sleep=waits).call(attempts([ValueError("final")]), lambda: None)
    assert waits.seconds == []


def test_the_services_wait_is_honoured() -> None:
    """No wait is shorter than the service's Retry-After."""
    waits = Waits()
    RetryPolicy(sleep=waits).call(
        attempts([SdkError("x", status=429, retry_after=7)]), lambda: None
    )
    assert waits.seconds[0] >= 7


def test_a_wait_that_would_end_too_late_isnt_begun() -> None:
    """A Retry-After beyond the budget raises at once."""
    waits = Waits()
    with pytest.raises(SdkError):
        RetryPolicy(budget=5, sleep=waits).call(
            attempts([SdkError("x", status=429, retry_after=7)]), lambda: None
        )
    assert waits.seconds == []


def test_never_is_never() -> None:
    """Without a budget the first failure is raised."""
    with pytest.raises(ConnectionResetError):
        RetryPolicy.never().call(attempts([ConnectionResetError()]), lambda: None)


def test_lost_races_are_run_again_without_a_budget_too() -> None:
    """Merging isn't waiting: a lost race is run again at once, with and without a budget."""
    for policy in (RetryPolicy(sleep=Waits()), RetryPolicy.never()):
        lost: list[Exception] = [LostRaceError(ValueError("x"))]
        assert policy.race(attempts(lost)) == "done"


def test_races_end() -> None:
    """A race that is always lost ends with its last conflict."""
    policy = RetryPolicy(sleep=Waits(), conflict_attempts=5)
    lost: list[Exception] = [LostRaceError(ValueError(str(number))) for number in range(10)]
    with pytest.raises(LostRaceError) as caught:
        policy.race(attempts(lost))
    assert str(caught.value.conflict) == "4"


def test_the_first_try_is_within_the_budget() -> None:
    """A first try that took all of the budget isn't followed by another."""
    tries = 0

    def attempt() -> None:
        nonlocal tries
        tries += 1
        time.sleep(0.05)
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        RetryPolicy(budget=0.04, first_wait=0.001).call(attempt, lambda: None)
    assert tries == 1
