"""What an open sees, and what it may cost."""

from collections.abc import Sequence
from typing import Any

import pytest

from strands_persql import Result, SessionCache, Statement
from strands_persql.testing import InterceptingDatabase, ManualClock
from tests.support.backends import Backend
from tests.support.conversation import (
    Team,
    in_database,
    listed,
    said,
    session,
    session_agent,
    session_message,
    stored,
    user,
)


def agrees(repository: Any, backend: Backend, session_id: str = "s") -> bool:
    """Tell whether an opened session reads the same as one that was never cached."""
    fresh = backend.repository(backend.reopen())
    assert repository.read_session(session_id) == fresh.read_session(session_id)
    for agent_id in ("a", "b"):
        agent = fresh.read_agent(session_id, agent_id)
        if repository.read_agent(session_id, agent_id) != agent:
            return False
        if agent is not None and repository.list_messages(
            session_id, agent_id
        ) != fresh.list_messages(session_id, agent_id):
            return False
    team: bool = repository.read_multi_agent(session_id, "team") == fresh.read_multi_agent(
        session_id, "team"
    )
    return team


CHANGES: dict[str, Any] = {
    "append": lambda one: one.create_message("s", "a", session_message("new", 2)),
    "append far behind": lambda one: one.create_message("s", "a", session_message("new", 50)),
    "redact": lambda one: one.update_message("s", "a", session_message("changed", 0)),
    "state": lambda one: one.update_agent("s", session_agent(n=1)),
    "new agent": lambda one: one.create_agent("s", session_agent("b", n=1)),
    "new multi-agent": lambda one: one.create_multi_agent("s", Team("team", n=1)),
    "delete": lambda one: one.delete_session("s"),
}


@pytest.mark.guarantee(number=10)
@pytest.mark.parametrize("change", CHANGES)
def test_an_open_sees_what_was_acknowledged_before_it(backend: Backend, change: str) -> None:
    """With no staleness allowed, an open brings each kind of change of another process."""
    stored(backend, "zero", "one")
    repository = backend.repository()
    repository.read_session("s")
    CHANGES[change](backend.repository(backend.reopen()))
    assert agrees(repository, backend)


def test_an_open_fills_a_gap_that_was_left_in_the_middle(backend: Backend) -> None:
    """A message stored before the newest one that is known is seen by the next open."""
    stored(backend, "zero").create_message("s", "a", session_message("five", 5))
    repository = backend.repository()
    repository.read_session("s")
    backend.repository().create_message("s", "a", session_message("three", 3))
    assert agrees(repository, backend)
    assert listed(repository) == ["zero", "three", "five"]


def test_an_open_sees_a_session_that_was_made_anew(backend: Backend) -> None:
    """A session deleted and created again with as many messages isn't taken for the old one."""
    stored(backend, "old zero", "old one", n=1)
    repository = backend.repository()
    repository.read_session("s")
    backend.repository().delete_session("s")
    stored(backend, "new zero", "new one", n=2)
    assert agrees(repository, backend)
    assert listed(repository) == ["new zero", "new one"]


def test_an_open_sees_a_multi_agent_change(backend: Backend) -> None:
    """Another process's update of a multi-agent is seen by the next open."""
    stored(backend).create_multi_agent("s", Team(n=0))
    repository = backend.repository()
    repository.read_session("s")
    other = backend.repository()
    other.update_multi_agent("s", Team(n=1))
    assert agrees(repository, backend)


def test_an_open_sees_a_turn_that_moved(backend: Backend) -> None:
    """A turn that was moved behind another's is seen where it stands now."""
    outer_manager = backend.manager()
    outer = backend.agent(["1"], manager=outer_manager)
    outer.messages.append(user("moves"))
    outer_manager.append_message(outer.messages[-1], outer)
    backend.agent(["between"])("q")
    repository = backend.repository()
    repository.read_session("s")
    outer.messages.append({"role": "assistant", "content": [{"text": "moved"}]})
    outer_manager.append_message(outer.messages[-1], outer)
    assert agrees(repository, backend)
    assert listed(repository) == ["q", "between", "moves", "moved"]


@pytest.mark.guarantee(number=10)
def test_an_open_within_its_staleness_asks_nobody(backend: Backend) -> None:
    """A cached session is opened and its agent restored without a round trip."""
    backend.agent(["hi"])("hello")
    repository = backend.repository(max_staleness=1000)
    backend.agent(manager=backend.manager(repository=repository))
    backend.database.reset()
    agent = backend.agent(manager=backend.manager(repository=repository))
    assert said(agent.messages) == ["hello", "hi"]
    assert backend.database.round_trips == 0


@pytest.mark.guarantee(number=10)
def test_an_open_beyond_its_staleness_asks(backend: Backend) -> None:
    """When the time is up, the next open sees what others have written."""
    stored(backend, "zero")
    clock = ManualClock()
    repository = backend.repository(max_staleness=5, clock=clock)
    repository.read_session("s")
    backend.repository().create_message("s", "a", session_message("one", 1))
    clock.advance(5.1)
    repository.read_session("s")
    assert listed(repository) == ["zero", "one"]


def test_the_clock_decides(backend: Backend) -> None:
    """An open asks nobody up to its staleness, and the database as soon as that is over."""
    clock = ManualClock(100.0)
    repository = backend.repository(max_staleness=10, clock=clock)
    repository.create_session(session())
    repository.read_session("s")
    asked = repository.stats().round_trips
    for seconds, requests in [(1, 0), (8.9, 0), (0.2, 1), (9.9, 1), (0.2, 2)]:
        clock.advance(seconds)
        repository.read_session("s")
        assert (clock(), repository.stats().round_trips - asked) == (clock(), requests)


def test_without_staleness_each_open_asks(backend: Backend) -> None:
    """A clock that stands still between two opens, as coarse ones do, makes none of them stale."""
    repository, other = backend.repository(clock=ManualClock()), backend.repository()
    other.create_session(session())
    other.create_agent("s", session_agent(n=0))
    repository.read_session("s")
    other.create_message("s", "a", session_message("new", 0))
    repository.read_session("s")
    assert len(repository.list_messages("s", "a")) == 1


def test_an_own_write_doesnt_make_a_session_fresher(backend: Backend) -> None:
    """Staleness counts from the last look at the database, however busy the writer is."""
    stored(backend, "zero")
    clock = ManualClock()
    repository = backend.repository(max_staleness=20, clock=clock)
    repository.read_session("s")
    backend.repository().update_agent("s", session_agent(n=1))
    for number in range(1, 26):
        repository.create_message("s", "a", session_message(str(number), number))
        clock.advance(1)
    repository.read_session("s")
    agent = repository.read_agent("s", "a")
    assert agent is not None
    assert agent.state == {"n": 1}


def test_an_unchanged_session_is_opened_by_one_small_request(backend: Backend) -> None:
    """Opening again what nobody changed brings no message and no JSON."""
    stored(backend, *(f"message {number} " + "x" * 100 for number in range(200)))
    brought: list[Any] = []

    def listen(_: Sequence[Statement], results: Sequence[Result]) -> None:
        brought.extend(result["data"] for result in results)

    database = InterceptingDatabase(backend.plain, after=listen)
    repository = backend.repository(database)
    repository.read_session("s")
    brought.clear()
    repository.read_session("s")
    assert len(brought) == 4
    assert len(str(brought)) < 1_000
    assert len(listed(repository)) == 200


@pytest.mark.parametrize(
    ("step", "budget"),
    [("open existing", 1), ("open again", 1), ("open new", 1), ("new agent", 1), ("turn", 2)],
)
def test_steps_keep_to_their_round_trips(backend: Backend, step: str, budget: int) -> None:
    """Opening costs one request, a new session and agent two, a plain turn two."""
    backend.repository().setup()
    manager = backend.manager()
    if step == "open new":
        cost = backend.database.round_trips
        backend.database.reset()
        backend.manager("t")
        cost = backend.database.round_trips
    elif step == "new agent":
        backend.database.reset()
        backend.agent(manager=manager)
        cost = backend.database.round_trips
    elif step == "turn":
        agent = backend.agent(["hi"], manager=manager)
        backend.database.reset()
        agent("hello")
        cost = backend.database.round_trips
    else:
        backend.agent(["hi"], manager=manager)("hello")
        shared = manager.session_repository if step == "open again" else None
        backend.database.reset()
        backend.agent(manager=backend.manager(repository=shared))
        cost = backend.database.round_trips
    assert cost <= budget


def test_a_cache_that_holds_nothing_is_no_obstacle(backend: Backend) -> None:
    """With no room in its cache a repository reads and writes all the same."""
    backend.agent(["one"])("zero")
    repository = backend.repository(cache=SessionCache(max_bytes=0))
    repository.read_session("s")
    agent = backend.agent(["hi", "ho"], manager=backend.manager(repository=repository))
    agent("hello")
    agent("again")
    expected = ["zero", "one", "hello", "hi", "again", "ho"]
    assert listed(repository) == expected == in_database(backend)
    assert repository.stats().cached_bytes == 0


@pytest.mark.guarantee(number=16)
def test_a_small_cache_evicts_and_stays_within_its_limit(backend: Backend) -> None:
    """Ten times what fits goes through a cache that never holds more than it may."""
    limit = 20_000
    repository = backend.repository(cache=SessionCache(max_bytes=limit))
    for number in range(30):
        stored(backend, "x" * 4_000, session_id=f"s{number}")
        repository.read_session(f"s{number}")
        assert repository.stats().cached_bytes <= limit
    assert repository.stats().evictions > 20
    message = repository.read_message("s0", "a", 0)
    assert message is not None


def test_what_is_counted_says_where_answers_came_from(backend: Backend) -> None:
    """Hits, misses and round trips are those of the calls that were made."""
    stored(backend, "zero")
    repository = backend.repository()
    before = repository.stats()
    repository.read_session("s")
    repository.read_agent("s", "a")
    repository.list_messages("s", "a")
    counted = repository.stats() - before
    assert (counted.round_trips, counted.misses, counted.hits) == (1, 1, 2)


def test_several_agents_opened_at_once_are_all_in_memory(backend: Backend) -> None:
    """One open brings all agents of a session with their windows."""
    manager = backend.manager()
    for agent_id in "abc":
        backend.agent([agent_id], manager=manager, agent_id=agent_id)("q")
    again = backend.manager()
    backend.database.reset()
    for agent_id in "abc":
        agent = backend.agent(manager=again, agent_id=agent_id)
        assert said(agent.messages) == ["q", agent_id]
    assert backend.database.round_trips == 0
