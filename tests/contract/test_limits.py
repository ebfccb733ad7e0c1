"""Sessions of many agents, long windows and large batches stay whole."""

import gc
import json
import tracemalloc
from collections.abc import Callable
from contextlib import suppress

import pytest
from strands.agent.conversation_manager import NullConversationManager

from strands_persql import (
    DatabaseError,
    PerSQLSessionManager,
    PerSQLSessionRepository,
    RetryPolicy,
    SessionCache,
)
from strands_persql.testing import FaultyDatabase
from tests.support.backends import Backend
from tests.support.conversation import said, session, session_agent, session_message, stored, user


def fill(backend: Backend, number: int, agent_id: str = "a") -> None:
    """Append many messages behind the library's back."""
    template = json.dumps(
        {"message": {"role": "user", "content": [{"text": "?"}]}, "message_id": 0}
    )
    backend.raw(
        "WITH RECURSIVE ids(id) AS (SELECT 0 UNION ALL SELECT id + 1 FROM ids"
        " WHERE id + 1 < CAST(? AS INTEGER))"
        " INSERT INTO strands_messages (session_id, agent_id, message_id, data, write_id)"
        " SELECT 's', ?, id, json_set(?, '$.message.content[0].text', 'm' || id), 'w' || id"
        " FROM ids",
        number,
        agent_id,
        template,
    )


@pytest.mark.guarantee(number=16)
def test_a_session_of_many_agents_is_read_whole(backend: Backend) -> None:
    """Of 120 agents each is read with its messages, though an open doesn't bring all of them."""
    repository = backend.repository()
    repository.create_session(session())
    names = [f"agent-{number:03}" for number in range(120)]
    for name in names:
        repository.create_agent("s", session_agent(name, name=name))
    for name in (names[0], names[60], names[119]):
        repository.create_message("s", name, session_message(f"of {name}", 0))
    opened = backend.repository()
    opened.read_session("s")
    for _ in range(2):
        for name in names:
            agent = opened.read_agent("s", name)
            assert agent is not None
            assert agent.state == {"name": name}
        opened.read_session("s")
    for name in (names[0], names[60], names[119]):
        assert said(m.to_message() for m in opened.list_messages("s", name)) == [f"of {name}"]
    assert opened.list_messages("s", names[1]) == []
    assert opened.read_agent("s", "agent-120") is None


def test_a_late_agent_of_many_is_restored(backend: Backend) -> None:
    """An agent that the open didn't bring is restored and not created anew."""
    repository = backend.repository()
    repository.create_session(session())
    for number in range(60):
        repository.create_agent("s", session_agent(f"agent-{number:03}"))
    manager = backend.manager()
    backend.agent(["hi"], manager=manager, agent_id="zoe")("hello")
    again = backend.manager()
    assert said(backend.agent(manager=again, agent_id="zoe").messages) == ["hello", "hi"]
    assert len(backend.dump()["agents"]) == 61


@pytest.mark.guarantee(number=16)
def test_a_long_window_is_restored_whole(backend: Backend) -> None:
    """A window of 5,000 messages comes back in order, in the few requests that it takes."""
    backend.agent(conversation_manager=NullConversationManager())
    fill(backend, 5_000)
    backend.database.reset()
    agent = backend.agent(["fine"], conversation_manager=NullConversationManager())
    assert backend.database.round_trips <= 4
    assert said(agent.messages) == [f"m{number}" for number in range(5_000)]
    agent("next")
    assert backend.raw("SELECT max(message_id) AS newest FROM strands_messages") == [
        {"newest": 5_001}
    ]


def test_long_windows_of_several_agents_are_restored_whole(backend: Backend) -> None:
    """Where several agents share a limit on messages none loses any."""
    repository = stored(backend)
    for agent_id in "bc":
        repository.create_agent("s", session_agent(agent_id))
    for agent_id, number in zip("abc", (1_500, 1_500, 700), strict=True):
        fill(backend, number, agent_id)
    opened = backend.repository()
    opened.read_session("s")
    for agent_id, number in zip("abc", (1_500, 1_500, 700), strict=True):
        ids = [one.message_id for one in opened.list_messages("s", agent_id)]
        assert ids == list(range(number))


def test_a_page_of_a_long_history_beyond_memory_is_a_slice(backend: Backend) -> None:
    """Pages that are read from the database are cut where the list is."""
    repository = stored(backend)
    windowed = session_agent()
    windowed.conversation_manager_state = {"removed_message_count": 4_900}
    fill(backend, 5_000)
    repository.update_agent("s", windowed)
    repository.read_session("s")
    page = repository.list_messages("s", "a", limit=2_500, offset=10)
    assert [one.message_id for one in page] == list(range(10, 2_510))
    assert len(repository.list_messages("s", "a")) == 5_000
    assert len(repository.list_messages("s", "a", offset=4_900)) == 100


def test_the_newest_messages_come_after_a_long_absence(backend: Backend) -> None:
    """A cached session catches up with thousands of messages that others have stored."""
    repository = stored(backend)
    repository.read_session("s")
    fill(backend, 4_500)
    repository.read_session("s")
    assert len(repository.list_messages("s", "a")) == 4_500


def test_a_state_of_many_keys_is_stored(backend: Backend) -> None:
    """A state of thousands of keys and a megabyte is stored, merged and read."""
    repository = stored(backend)
    other = backend.repository()
    theirs = other.read_agent("s", "a")
    assert theirs is not None
    theirs.state["theirs"] = 1
    other.update_agent("s", theirs)
    repository.update_agent("s", session_agent(**{f"k{n}": "x" * 250 for n in range(4_000)}))
    found = backend.repository().read_agent("s", "a")
    assert found is not None
    assert len(found.state) == 4_001


@pytest.mark.backends("memory", "http")
def test_a_long_view_is_restored_in_its_order(backend: Backend) -> None:
    """Parts of a history that are worked with in another order come back in that, page by page."""
    backend.agent(conversation_manager=NullConversationManager())
    fill(backend, 6_000)
    backend.raw(
        "UPDATE strands_agents SET version = version + 1, epoch = epoch + 1, view = ?,"
        " window_start = 5900",
        "[[3000,5499],[10,2009]]",
    )
    agent = backend.agent(conversation_manager=NullConversationManager())
    expected = [*range(3_000, 5_500), *range(10, 2_010), *range(5_900, 6_000)]
    assert said(agent.messages) == [f"m{number}" for number in expected]


REMEMBERED = 16 * 1024 * 1024
# Its objects take three times as much memory as their JSON.
LARGE_STATE = {"text": "x" * 500_000, "objects": [[] for _ in range(20_000)]}


def memory_of(call: Callable[[], object]) -> int:
    """Give the bytes that are in use after a call and weren't before."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        call()
        gc.collect()
        return tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()


@pytest.mark.guarantee(number=16)
@pytest.mark.backends("memory")
@pytest.mark.parametrize("is_lost", [False, True], ids=["applied", "in doubt"])
def test_what_callers_last_saw_takes_what_it_may(backend: Backend, is_lost: bool) -> None:
    """Of 40 agents of 0.6 MB that it has updated a repository remembers 16 MiB, as memory goes."""
    faults: list[bool] = []
    repository = PerSQLSessionRepository(
        FaultyDatabase(backend.plain, lambda _: "lost_answer" if faults else None),
        cache=SessionCache(0),
        retry=RetryPolicy(budget=0),
    )
    repository.create_session(session())
    for number in range(40):
        repository.create_agent("s", session_agent(f"agent-{number}"))
    faults += [True] if is_lost else []

    def update_all() -> None:
        for number in range(40):
            with suppress(DatabaseError):
                repository.update_agent("s", session_agent(f"agent-{number}", **LARGE_STATE))

    assert memory_of(update_all) <= 1.1 * REMEMBERED


def objects() -> int:
    """Give the number of objects that are in use."""
    gc.collect()
    return len(gc.get_objects())


@pytest.mark.guarantee(number=16)
@pytest.mark.backends("memory")
@pytest.mark.parametrize(
    ("messages", "rounds", "is_summarized"),
    [(3_000, 30, False), (400, 400, True)],
    ids=["window", "summaries"],
)
def test_a_long_life_takes_no_more_memory(
    backend: Backend, messages: int, rounds: int, is_summarized: bool
) -> None:
    """Of what was said or summed up long ago an agent's manager remembers nothing."""
    manager = PerSQLSessionManager("s", backend.plain, commit="turn")
    agent = backend.agent(manager=manager)

    def live(life: int) -> int:
        for number in range(rounds):
            for _ in range(messages // rounds):
                agent.messages.append(user("Hello."))
                manager.append_message(agent.messages[-1], agent)
            summary = [user(f"In short: {life}, {number}.")] if is_summarized else []
            agent.messages[:] = [*summary, *agent.messages[-4:]]
            manager.sync_agent(agent)
        return objects()

    lives = 5 if messages > 1_000 else 1
    before = [live(number) for number in range(lives)][-1]
    assert live(lives) - before <= 800
