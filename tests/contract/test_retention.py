"""Sessions that expire: kept as long as something happens in them, and then gone, whole."""

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from strands_persql import PerSQLSessionManager, PerSQLSessionRepository
from strands_persql.errors import AlreadyExistsError, NotFoundError
from strands_persql.testing import FaultyDatabase, ManualClock, Redact, ToolCall
from tests.support.backends import FAST, Backend
from tests.support.conversation import (
    Team,
    assistant,
    count,
    listed,
    said,
    session,
    session_agent,
    session_message,
    user,
)

KEPT = 100


def age(backend: Backend, seconds: int) -> None:
    """Let time go by for the database: all that was stored is older."""
    backend.raw("UPDATE strands_sessions SET expires_at = expires_at - ?", seconds)
    for table in ("agents", "messages", "multi_agents"):
        backend.raw(f"UPDATE strands_{table} SET stored_at = stored_at - ?", seconds)


def keeping(backend: Backend, **options: Any) -> PerSQLSessionRepository:
    """Make a repository whose sessions are kept for a while."""
    return backend.repository(expires_after=KEPT, **options)


def filled(backend: Backend, **options: Any) -> PerSQLSessionRepository:
    """Store a session that expires, with an agent, messages and a multi-agent."""
    repository = keeping(backend, **options)
    manager = PerSQLSessionManager("s", repository=repository)
    backend.agent(manager=manager, messages=[user("old")], state={"n": 1})
    repository.create_multi_agent("s", Team(step=1))
    return repository


@pytest.mark.parametrize("commit", ["message", "turn"])
@pytest.mark.guarantee(number=22)
def test_an_expired_session_opens_as_new(backend: Backend, commit: Any) -> None:
    """Nothing of it is restored, and a new one of its name takes its place, without its rows."""
    manager = backend.manager(commit=commit, expires_after=KEPT)
    first = backend.agent(["one"], manager=manager)
    first.state.set("n", 1)
    first("first")
    age(backend, KEPT - 5)
    assert said(backend.agent(manager=backend.manager()).messages) == ["first", "one"]
    age(backend, 10)
    second = backend.agent(["new"], manager=backend.manager(commit=commit, expires_after=KEPT))
    assert (second.messages, second.state.get()) == ([], {})
    second("hello")
    restored = backend.agent(manager=backend.manager())
    assert (said(restored.messages), restored.state.get()) == (["hello", "new"], {})
    assert len(backend.dump()["messages"]) == 2


_READS: list[Callable[[PerSQLSessionRepository], Any]] = [
    lambda one: one.read_session("s"),
    lambda one: one.read_agent("s", "a"),
    lambda one: one.read_message("s", "a", 0),
    lambda one: one.read_multi_agent("s", "team"),
    lambda one: one.list_sessions(),
]


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.guarantee(number=22)
def test_nothing_of_an_expired_session_is_read(backend: Backend, warm: bool) -> None:
    """Neither from the database nor from memory, whatever staleness is allowed, nor in parts."""
    clock = ManualClock()
    repository = filled(backend, max_staleness=10_000, clock=clock)
    for read in _READS:
        assert read(repository)
    assert listed(repository) == ["old"]
    age(backend, KEPT + 5)
    clock.advance(KEPT + 5)
    if not warm:
        repository = backend.repository()
    for read in _READS:
        for _ in range(2):
            assert not read(repository)
    with pytest.raises(NotFoundError):
        repository.list_messages("s", "a")


def test_what_came_back_into_memory_is_not_restored_later(backend: Backend) -> None:
    """A manager that was opened in time, and whose agent is made too late, restores nothing."""
    clock = ManualClock()
    filled(backend)
    manager = backend.manager(clock=clock)
    age(backend, KEPT + 5)
    clock.advance(KEPT + 5)
    assert backend.agent(manager=manager).messages == []


def _say(backend: Backend, commit: Any) -> Callable[[], Any]:
    manager = backend.manager(commit=commit)
    agent = backend.agent(["ok", "ok"], manager=manager)
    return lambda: agent("more")


def _use_a_tool(backend: Backend, commit: Any) -> Callable[[], Any]:
    replies: Any = [ToolCall("count"), "ok"]
    agent = backend.agent(replies, manager=backend.manager(commit=commit), tools=[count])
    return lambda: agent("count")


def _save(backend: Backend, commit: Any) -> Callable[[], Any]:
    manager = backend.manager(commit=commit)
    agent = backend.agent(manager=manager)

    def save() -> None:
        agent.state.set("m", 2)
        asyncio.run(manager.save(agent))

    return save


def _redact(backend: Backend, commit: Any) -> Callable[[], Any]:
    manager = backend.manager(commit=commit)
    agent = backend.agent([Redact("[redacted]")], manager=manager)
    return lambda: manager.redact_latest_message(user("[redacted]"), agent)


def _checkpoint(backend: Backend, commit: Any) -> Callable[[], Any]:
    manager = backend.manager(commit=commit)
    agent = backend.agent(manager=manager)
    return lambda: manager.checkpoint(agent)


def _rewind(backend: Backend, commit: Any) -> Callable[[], Any]:
    manager = backend.manager(commit=commit)
    agent = backend.agent(manager=manager)
    point = manager.checkpoint(agent)
    return lambda: manager.rewind(agent, point)


def _run_a_graph(backend: Backend, commit: Any) -> Callable[[], Any]:
    manager = backend.manager(commit=commit)
    team = Team()
    manager.initialize_multi_agent(team)

    def run() -> None:
        team.state["step"] = 2
        manager.sync_multi_agent(team)

    return run


def _call(write: Callable[[PerSQLSessionRepository], Any]) -> Any:
    def open_repository(backend: Backend, _: Any) -> Callable[[], Any]:
        repository = backend.repository()
        repository.read_session("s")
        return lambda: write(repository)

    return open_repository


# These write in whichever session has the name.
BY_NAME = ("create_agent", "create_multi_agent", "update_message")
ACTIVITIES = {
    "say": _say,
    "use a tool": _use_a_tool,
    "save": _save,
    "redact": _redact,
    "run a graph": _run_a_graph,
    "checkpoint": _checkpoint,
    "rewind": _rewind,
    "update_agent": _call(lambda one: one.update_agent("s", session_agent(n=2))),
    "create_message": _call(lambda one: one.create_message("s", "a", session_message("new", 1))),
    "update_message": _call(lambda one: one.update_message("s", "a", session_message("new", 0))),
    "update_multi_agent": _call(lambda one: one.update_multi_agent("s", Team(step=3))),
    "create_agent": _call(lambda one: one.create_agent("s", session_agent("b"))),
    "create_multi_agent": _call(lambda one: one.create_multi_agent("s", Team("other"))),
}


@pytest.mark.parametrize("commit", ["message", "turn"])
@pytest.mark.parametrize("activity", ACTIVITIES)
@pytest.mark.guarantee(number=22)
def test_each_write_keeps_the_session(backend: Backend, activity: str, commit: Any) -> None:
    """A session is kept after the last write of whatever kind, all of it."""
    filled(backend)
    write = ACTIVITIES[activity](backend, commit)
    age(backend, KEPT - 10)
    write()
    age(backend, KEPT - 10)
    repository = backend.repository()
    assert repository.read_session("s") is not None
    assert repository.read_agent("s", "a") is not None
    assert repository.read_multi_agent("s", "team") is not None
    age(backend, 20)
    assert backend.repository().read_session("s") is None


@pytest.mark.parametrize(
    ("activity", "is_new"),
    [
        (one, is_new)
        for one in ACTIVITIES
        for is_new in (False, True)
        if not (is_new and one in BY_NAME)
    ],
)
@pytest.mark.parametrize("commit", ["message", "turn"])
@pytest.mark.guarantee(number=22)
def test_a_writer_that_was_open_revives_nothing(
    backend: Backend, activity: str, commit: Any, is_new: bool
) -> None:
    """Its write is refused, before and after a new session of that name is there."""
    filled(backend)
    write = ACTIVITIES[activity](backend, commit)
    age(backend, KEPT + 5)
    if is_new:
        backend.agent(["fresh"], manager=backend.manager(expires_after=KEPT))("begin")
    before = backend.dump()
    with pytest.raises(NotFoundError):
        write()
    assert backend.dump() == before
    restored = backend.agent(manager=backend.manager())
    assert said(restored.messages) == (["begin", "fresh"] if is_new else [])


@pytest.mark.backends("http")
def test_keeping_costs_no_round_trip_and_no_row(backend: Backend) -> None:
    """A tool turn of a session that expires takes the requests and writes the rows of any other."""

    def used(session_id: str, expires_after: int | None) -> tuple[int, int, int]:
        repository = backend.repository(backend.plain, expires_after=expires_after)
        manager = PerSQLSessionManager(session_id, repository=repository)
        agent = backend.agent(
            [ToolCall("count"), "one", ToolCall("count"), "two"], manager=manager, tools=[count]
        )
        agent("warm up")
        before = repository.stats()
        agent("count")
        after = repository.stats() - before
        return after.round_trips, after.rows_written, after.rows_read

    kept, plain = used("kept", KEPT), used("plain", None)
    assert kept[:2] == plain[:2] == (4, 5)
    assert kept[2] - plain[2] <= 4 * 4  # the session's row, its agent and the newest message


def test_a_retention_that_others_have_set_is_learned(backend: Backend) -> None:
    """Who had the session open keeps it from its next write on, as those who came later."""
    agent = backend.agent(["one", "two", "three"], manager=backend.manager())
    agent("first")
    backend.manager(expires_after=KEPT)
    age(backend, KEPT - 10)
    agent("second")
    age(backend, KEPT - 10)
    agent("third")
    age(backend, KEPT - 10)
    assert len(backend.agent(manager=backend.manager()).messages) == 6
    age(backend, 20)
    assert backend.agent(manager=backend.manager(read_only=True)).messages == []


def test_a_writer_that_does_not_know_revives_nothing(backend: Backend) -> None:
    """Who had the session open before it was said that it expires is refused like others."""
    agent = backend.agent(["one", "two"], manager=backend.manager())
    agent("first")
    backend.repository().set_expiry("s", KEPT)
    age(backend, KEPT + 5)
    with pytest.raises(NotFoundError, match="has expired"):
        agent("second")
    assert backend.repository().read_session("s") is None


@pytest.mark.parametrize("is_opened_again", [False, True])
def test_a_graph_whose_writer_does_not_know(backend: Backend, is_opened_again: bool) -> None:
    """Its state counts as activity, and revives nothing, whenever it was said that it expires."""
    for seconds, is_kept in ((KEPT - 10, True), (KEPT + 5, False)):
        repository = backend.repository()
        manager, team = backend.manager(repository=repository), Team(step=1)
        manager.initialize_multi_agent(team)
        backend.repository().set_expiry("s", KEPT)
        if is_opened_again:  # its row is as it was
            manager, team = backend.manager(repository=repository), Team()
            manager.initialize_multi_agent(team)
        age(backend, seconds)
        team.state["step"] = seconds
        if is_kept:
            manager.sync_multi_agent(team)
            age(backend, 20)
            assert backend.repository().read_session("s") is not None
            backend.repository().delete_session("s")
        else:
            with pytest.raises(NotFoundError, match="has expired"):
                manager.sync_multi_agent(team)


def test_how_long_a_session_is_kept_can_be_changed(backend: Backend) -> None:
    """What is said last counts, at once: longer, shorter, and for ever."""
    repository = filled(backend)
    repository.set_expiry("s", timedelta(seconds=KEPT * 3))
    age(backend, KEPT * 2)
    assert repository.read_session("s") is not None
    repository.set_expiry("s", None)
    age(backend, KEPT * 9)
    assert repository.read_session("s") is not None
    assert backend.manager(expires_after=1.5).session.session_id == "s"
    age(backend, 4)
    assert backend.repository().read_session("s") is None
    for gone in ("s", "t"):
        with pytest.raises(NotFoundError):
            repository.set_expiry(gone, None)


def test_forks_and_checkpoints_know_when_a_session_expires(backend: Backend) -> None:
    """A fork is kept as long as its original, from then on; of an expired one there is neither."""
    repository = filled(backend)
    manager = backend.manager(repository=repository)
    manager.checkpoint(backend.agent(manager=manager))
    assert len(repository.list_checkpoints("s")) == 1
    age(backend, KEPT - 10)
    repository.fork_session("s", "fork")
    age(backend, 20)
    assert backend.repository().read_session("fork") is not None
    later = backend.repository()
    assert later.list_checkpoints("s") == []
    for late in (repository, later):
        with pytest.raises(NotFoundError):
            late.fork_session("s", "another")
    later.fork_session("fork", "s")
    assert said(backend.agent(manager=backend.manager()).messages) == ["old"]
    age(backend, KEPT + 5)
    assert backend.repository().read_session("fork") is None
    assert backend.repository().read_session("s") is None


def test_it_is_said_once(backend: Backend) -> None:
    """Opening a session that is kept that long already is one round trip, and writes nothing."""
    filled(backend)
    backend.database.reset()
    backend.manager(expires_after=KEPT)
    assert backend.database.round_trips == 1


def test_creating_takes_the_place_of_what_has_expired(backend: Backend) -> None:
    """``create_session`` of an expired session's name begins anew; deleting it finds none."""
    repository = filled(backend)
    with pytest.raises(AlreadyExistsError):
        backend.repository().create_session(session())
    age(backend, KEPT + 5)
    with pytest.raises(NotFoundError):
        backend.repository().delete_session("s")
    filled(backend)
    age(backend, KEPT + 5)
    for one in (backend.repository(), keeping(backend)):
        one.create_session(session())
        assert [name for name, rows in backend.dump().items() if rows] == ["sessions"]
        assert one.read_agent("s", "a") is None
        repository.read_session("s")
        one.set_expiry("s", KEPT)
        age(backend, KEPT + 5)


@pytest.mark.parametrize("knows", [False, True])
def test_large_content_goes_and_comes_with_its_session(backend: Backend, knows: bool) -> None:
    """What is stored apart from rows goes with the expired session; the new one has its own."""
    text = "x" * 3_000_000
    options: dict[str, Any] = {"expires_after": KEPT} if knows else {}
    backend.agent(manager=backend.manager(expires_after=KEPT), messages=[user(text)])
    age(backend, KEPT + 5)
    backend.agent(manager=backend.manager(**options), messages=[user(text), assistant("new")])
    assert said(backend.agent(manager=backend.manager()).messages) == [text, "new"]
    backend.repository().set_expiry("s", KEPT)
    age(backend, KEPT + 5)
    backend.agent(manager=backend.manager(**options))
    assert backend.raw("SELECT count(*) AS n FROM strands_contents") == [{"n": 0}]


@pytest.mark.parametrize("fault", ["lost_request", "lost_answer", "duplicate", "delayed_duplicate"])
@pytest.mark.parametrize("knows", [False, True])
def test_a_new_session_is_made_once_whatever_the_wire_does(
    backend: Backend, fault: Any, knows: bool
) -> None:
    """In place of an expired one there is one new agent, which a late copy doesn't touch."""
    filled(backend)
    age(backend, KEPT + 5)
    faulty = FaultyDatabase(backend.plain, lambda call: fault if call >= 1 else None)
    options: dict[str, Any] = {"expires_after": KEPT} if knows else {}
    repository = PerSQLSessionRepository(faulty, retry=FAST, **options)
    if fault in ("lost_request", "lost_answer"):
        faulty = FaultyDatabase(backend.plain, [None, fault, None, fault])
        repository = PerSQLSessionRepository(faulty, retry=FAST, **options)
    manager = PerSQLSessionManager("s", repository=repository)
    agent = backend.agent(["ok"], manager=manager, messages=[user("hi"), assistant("hello")])
    faulty.deliver_late()
    agent("more")
    faulty.deliver_late()
    restored = backend.agent(manager=backend.manager())
    assert said(restored.messages) == said(agent.messages) == ["hi", "hello", "more", "ok"]
    assert [len(backend.dump()[one]) for one in ("sessions", "agents", "messages")] == [1, 1, 4]


@pytest.mark.backends("file")
def test_it_is_the_database_that_counts(backend: Backend) -> None:
    """A session of one second is there at once, and gone two seconds later."""
    agent = backend.agent(["ok"], manager=backend.manager(expires_after=1))
    agent("hi")
    assert len(backend.agent(manager=backend.manager()).messages) == 2
    time.sleep(3.1)
    assert backend.repository().read_session("s") is None


@pytest.mark.parametrize("expires_after", [0, -1, 0.5, float("nan"), float("inf"), timedelta(0)])
def test_no_session_is_kept_for_nothing(backend: Backend, expires_after: Any) -> None:
    """Less than a second, and what is no time, is refused before anything is asked."""
    with pytest.raises(ValueError, match="expires_after"):
        backend.repository(expires_after=expires_after)
    with pytest.raises(ValueError, match="expires_after"):
        PerSQLSessionManager("s", backend.database, expires_after=expires_after)
    assert backend.database.round_trips == 0
