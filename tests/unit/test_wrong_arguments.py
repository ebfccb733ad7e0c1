"""One wrong argument gets one clear sentence, before anything is sent."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from strands_persql import (
    LocalDatabase,
    PerSQLSessionManager,
    PerSQLSessionRepository,
    RestClient,
    RetryPolicy,
    SessionCache,
)
from strands_persql.admin import SessionAdmin
from tests.support.backends import Backend

pytestmark = pytest.mark.backends("memory")

Make = Callable[..., object]


def storage(database: Any, **options: Any) -> object:
    """Make a storage, where Strands has any."""
    pytest.importorskip("strands.storage", reason="this version of Strands has no storages")
    from strands_persql import PerSQLStorage  # noqa: PLC0415 - older versions have none

    return PerSQLStorage(database, **options)


DATABASES: dict[str, tuple[Make, str]] = {
    "a path": (lambda _: "agents.db", "not a path: give LocalDatabase(path)"),
    "a Path": (lambda _: Path("agents.db"), "not a path: give LocalDatabase(path)"),
    "a client": (lambda _: RestClient("token"), 'client.database("namespace/name")'),
    "a repository": (PerSQLSessionRepository, "the repository as repository=..."),
    "a number": (lambda _: 3, "must be a database"),
}


@pytest.mark.parametrize("given", DATABASES)
@pytest.mark.parametrize(
    "make",
    [
        lambda database: PerSQLSessionManager("s", database),
        PerSQLSessionRepository,
        storage,
        SessionAdmin,
    ],
    ids=["manager", "repository", "storage", "admin"],
)
def test_what_is_no_database(backend: Backend, make: Make, given: str) -> None:
    """What is given in a database's place is named, and what to give instead is said."""
    other, instead = DATABASES[given]
    with pytest.raises(TypeError, match=re.escape(instead)):
        make(other(backend.database))
    assert backend.database.round_trips == 0


@pytest.mark.parametrize(
    ("option", "given", "said"),
    [
        ("retry", 3, "retry=3 | must be a RetryPolicy, such as RetryPolicy(budget=60), or None"),
        ("retry", 0, "retry=0 | must be a RetryPolicy"),
        ("cache", 64, "cache=64 | must be a SessionCache or None"),
    ],
)
@pytest.mark.parametrize("make", [PerSQLSessionRepository, storage])
def test_what_is_no_option(backend: Backend, make: Any, option: str, given: Any, said: str) -> None:
    """A value of another kind is named with what the option takes."""
    with pytest.raises(TypeError, match=re.escape(said)):
        make(backend.database, **{option: given})


def test_a_staleness_that_is_no_number(backend: Backend) -> None:
    """Text in the place of seconds is named."""
    with pytest.raises(ValueError, match=r"max_staleness='1' \| must be seconds, 0 or more"):
        backend.repository(max_staleness="1")


def test_a_database_in_the_place_of_a_repository(backend: Backend) -> None:
    """``repository=`` takes a repository, and says so."""
    wrong: Any = backend.database
    with pytest.raises(TypeError, match="must be a PerSQLSessionRepository"):
        PerSQLSessionManager("s", repository=wrong)


@pytest.mark.parametrize("name", ["budget", "first_wait", "max_wait"])
@pytest.mark.parametrize("seconds", [-1, float("nan"), "30", None])
def test_seconds_that_are_none(name: str, seconds: Any) -> None:
    """A policy's seconds are numbers from 0 on."""
    with pytest.raises(ValueError, match=f"{name} is seconds, 0 or more, not"):
        RetryPolicy(**{name: seconds})


@pytest.mark.parametrize("attempts", [0, -1, 1.5, "3"])
def test_attempts_that_are_none(attempts: Any) -> None:
    """A policy's attempts are one or more."""
    with pytest.raises(ValueError, match="conflict_attempts is 1 or more, not"):
        RetryPolicy(conflict_attempts=attempts)


def test_a_token_in_the_place_of_a_name() -> None:
    """Where token and name are mixed up the error says so, and shows neither."""
    with pytest.raises(ValueError, match="are swapped") as caught:
        PerSQLSessionManager.from_token("s", "acme/agent-state", "psql_live_secret")
    assert "secret" not in str(caught.value)


def test_one_try_is_one() -> None:
    """A request that was sent once was tried once."""

    class Away(LocalDatabase):
        def batch(self, *_: Any, **__: Any) -> Any:
            raise ConnectionRefusedError("away")

    with Away() as database, pytest.raises(Exception, match=r"for session 's' in one try \("):
        PerSQLSessionManager("s", database, retry=RetryPolicy.never())


def test_a_cache_is_taken() -> None:
    """What the options take is taken."""
    with LocalDatabase() as database:
        cache = SessionCache()
        assert PerSQLSessionRepository(database, cache=cache, retry=RetryPolicy()).cache is cache
