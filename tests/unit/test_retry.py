"""Which failures are tried again, and for how long."""

import sqlite3
import time
from collections.abc import Iterable
from typing import Any

import httpx
import pytest

from strands_persql import (
    AccessDeniedError,
    ConflictError,
    OutcomeUnknownError,
    PerSQLError,
    PerSQLSessionRepository,
    RetryPolicy,
    StatementError,
    UnavailableError,
)
from strands_persql.testing import InterceptingDatabase
from tests.support.backends import NEVER, Backend
from tests.support.conversation import session, session_agent, state_in_database, stored

pytestmark = pytest.mark.backends("memory")


class SdkError(Exception):
    """What an SDK might raise."""

    def __init__(self, message: str, **attributes: Any) -> None:
        super().__init__(message)
        self.__dict__.update(attributes)


class RateLimitError(Exception):
    """What an SDK might call it."""


def repository_that_meets(
    backend: Backend, errors: Iterable[BaseException], retry: RetryPolicy
) -> PerSQLSessionRepository:
    """Make a repository whose round trips raise these errors, one each, and go well after them."""
    backend.repository().setup()
    left = iter(errors)

    def fail(_: object) -> None:
        for error in left:
            raise error

    return backend.repository(InterceptingDatabase(backend.plain, before=fail), retry=retry)


# The errors of a write, what it raises when nobody tries it again, and whether trying again helps.
NOT_SENT, UNSURE = (UnavailableError, True), (OutcomeUnknownError, True)
DENIED, REFUSED = (AccessDeniedError, False), (StatementError, False)
NO_TABLES = (None, True)  # they are made, or brought up to date, and the write is done
CASES: list[tuple[BaseException, tuple[type[PerSQLError] | None, bool]]] = [
    (ConnectionRefusedError("x"), NOT_SENT),
    (ConnectionResetError("x"), UNSURE),
    (TimeoutError("x"), UNSURE),
    (httpx.ConnectError("x"), NOT_SENT),
    (httpx.ReadTimeout("x"), UNSURE),
    (sqlite3.OperationalError("database is locked"), NOT_SENT),
    (sqlite3.OperationalError("no such table: strands_agents"), NO_TABLES),
    (sqlite3.OperationalError("no such column: version"), NO_TABLES),
    (sqlite3.OperationalError("attempt to write a readonly database"), DENIED),
    (sqlite3.IntegrityError("UNIQUE constraint failed: t.a"), REFUSED),
    (sqlite3.OperationalError("disk I/O error"), (OutcomeUnknownError, False)),
    (SdkError("no such table: x: SQLITE_ERROR"), NO_TABLES),
    (SdkError("x", status_code=503), UNSURE),
    (SdkError("x", status=429), NOT_SENT),
    (SdkError("x", status=401), DENIED),
    (SdkError("x", status=402), DENIED),
    (SdkError("x", status=403), DENIED),
    (SdkError("x", detail={"kind": "unknown_table"}), NO_TABLES),
    (SdkError("x", status=400, detail={"kind": "database_locked"}), NOT_SENT),
    (SdkError("x", status=500, may_have_applied=False), NOT_SENT),
    (SdkError("x", status=500), UNSURE),
    (RateLimitError("slow down"), NOT_SENT),
    (ValueError("x"), REFUSED),
]


@pytest.mark.parametrize(("error", "expected"), CASES, ids=lambda one: repr(one)[:40])
def test_failures_are_sorted(
    backend: Backend, error: BaseException, expected: tuple[type[PerSQLError] | None, bool]
) -> None:
    """Each failure of a write has its own error, and is tried again where that may help."""
    raised, is_transient = expected
    for number, retry in enumerate([NEVER, RetryPolicy(sleep=lambda _: None)]):
        repository = repository_that_meets(backend, [error], retry)
        write = session(f"s{number}")
        if raised is None or (is_transient and retry is not NEVER):
            repository.create_session(write)
        else:
            with pytest.raises(raised) as caught:
                repository.create_session(write)
            assert type(caught.value) is raised
            assert caught.value.__cause__ is error
        tried_again = is_transient and raised is not None and retry is not NEVER
        assert repository.stats().retries == int(tried_again)


def test_transient_failures_are_tried_again(backend: Backend) -> None:
    """A call that fails in passing succeeds in the end, with a wait before each new try."""
    waits: list[float] = []
    errors = [ConnectionResetError(), TimeoutError(), ConnectionRefusedError()]
    repository = repository_that_meets(backend, errors, RetryPolicy(sleep=waits.append))
    assert repository.read_session("s") is None
    assert len(waits) == repository.stats().retries == 3
    assert all(wait <= bound for wait, bound in zip(waits, (0.1, 0.2, 0.4), strict=True))


def test_other_failures_are_raised_at_once(backend: Backend) -> None:
    """What no retry can put right is raised after the first try, and says what it was."""
    waits: list[float] = []
    policy = RetryPolicy(sleep=waits.append)
    repository = repository_that_meets(backend, [ValueError("final")], policy)
    with pytest.raises(StatementError, match="final"):
        repository.read_session("s")
    assert waits == []


@pytest.mark.parametrize("wait", [3, 7])
def test_the_services_wait_is_honoured(backend: Backend, wait: float) -> None:
    """No wait is shorter than the service's Retry-After."""
    waits: list[float] = []
    errors = [SdkError("x", status=429, retry_after=wait)]
    repository = repository_that_meets(backend, errors, RetryPolicy(sleep=waits.append))
    repository.read_session("s")
    assert len(waits) == 1
    assert waits[0] >= wait


def test_a_wait_that_would_end_too_late_isnt_begun(backend: Backend) -> None:
    """A Retry-After beyond the budget raises at once."""
    waits: list[float] = []
    errors = [SdkError("x", status=429, retry_after=7)]
    repository = repository_that_meets(backend, errors, RetryPolicy(budget=5, sleep=waits.append))
    with pytest.raises(UnavailableError):
        repository.read_session("s")
    assert waits == []


def test_never_is_never(backend: Backend) -> None:
    """Without a budget the first failure is raised."""
    repository = repository_that_meets(backend, [ConnectionResetError()], RetryPolicy.never())
    with pytest.raises(UnavailableError):
        repository.read_session("s")
    assert repository.stats().retries == 0


@pytest.mark.parametrize("retry", [RetryPolicy(), NEVER])
def test_lost_races_are_run_again_without_a_budget_too(
    backend: Backend, retry: RetryPolicy
) -> None:
    """Merging isn't waiting: a lost race is run again at once, with and without a budget."""
    stored(backend)
    repository = backend.repository(retry=retry)
    ours: Any = repository.read_agent("s", "a")
    backend.repository().update_agent("s", session_agent(theirs=1))
    ours.state["ours"] = 1
    repository.update_agent("s", ours)
    assert state_in_database(backend) == {"ours": 1, "theirs": 1}
    assert repository.stats().conflicts == 1


def test_races_end(backend: Backend) -> None:
    """A race that is always lost ends with its last conflict."""
    stored(backend)
    other = backend.repository()
    racing = InterceptingDatabase(backend.database)
    policy = RetryPolicy(sleep=lambda _: None, conflict_attempts=5)
    repository = backend.repository(racing, retry=policy)
    ours: Any = repository.read_agent("s", "a")
    racing.before = lambda _: other.update_agent("s", session_agent())
    with pytest.raises(ConflictError) as caught:
        repository.update_agent("s", ours)
    assert repository.stats().conflicts == 5
    assert (caught.value.expected_version, caught.value.found_version) == (5, 6)


def test_the_first_try_is_within_the_budget(backend: Backend) -> None:
    """A first try that took all of the budget isn't followed by another."""
    tries = 0

    def take_long(_: object) -> None:
        nonlocal tries
        tries += 1
        time.sleep(0.05)
        raise ConnectionResetError

    slow = InterceptingDatabase(backend.plain, before=take_long)
    repository = backend.repository(slow, retry=RetryPolicy(budget=0.04, first_wait=0.001))
    with pytest.raises(UnavailableError):
        repository.read_session("s")
    assert tries == 1
