"""Managers and repositories that are read only: they restore, and send nothing that writes."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from strands import Agent, ToolContext, tool
from strands.agent.conversation_manager import SlidingWindowConversationManager
from strands.multiagent import GraphBuilder

from strands_persql import PerSQLSessionManager, PerSQLSessionRepository, Statement
from strands_persql.errors import AccessDeniedError
from strands_persql.testing import InterceptingDatabase, Redact, Reply, ScriptedModel, ToolCall
from tests.support.backends import FAST, Backend
from tests.support.conversation import (
    Team,
    count,
    said,
    session,
    session_agent,
    session_message,
    stored,
    user,
)


@tool(context=True)
def ask(tool_context: ToolContext) -> str:
    """Ask."""
    return str(tool_context.interrupt("sure", reason="?"))


def only_reading(backend: Backend) -> InterceptingDatabase:
    """Go around a database, and fail as soon as anything but a query is sent."""

    def check(statements: Sequence[Statement]) -> None:
        assert [one["sql"] for one in statements if not one["sql"].startswith("SELECT")] == []

    return InterceptingDatabase(backend.plain, before=check)


def reading_manager(backend: Backend, commit: Any = "message") -> PerSQLSessionManager:
    """Open the session read only, where nothing but queries may be sent."""
    return PerSQLSessionManager(
        "s", only_reading(backend), commit=commit, retry=FAST, read_only=True
    )


@pytest.mark.guarantee(number=20)
@pytest.mark.parametrize("commit", ["message", "turn"])
def test_a_read_only_agent_is_restored_and_stores_nothing(backend: Backend, commit: Any) -> None:
    """Turns, tools, states, windows, redactions, saves and the end stay in its memory."""
    first = backend.agent(["one", "two"])
    first.state.set("n", 1)
    first("first")
    first("second")
    before = backend.dump()
    with reading_manager(backend, commit) as manager:
        replies: list[Reply] = [ToolCall("count"), "counted", Redact("[redacted]")]
        window = SlidingWindowConversationManager(window_size=2)
        agent = backend.agent(replies, manager=manager, tools=[count], conversation_manager=window)
        assert said(agent.messages) == ["first", "one", "second", "two"]
        agent("count")
        assert agent.state.get("n") == 2
        agent("a secret")
        asyncio.run(manager.save(agent))
        manager.append_message(user("more"), agent)
        manager.sync_agent(agent)
        manager.redact_latest_message(user("[redacted]"), agent)
    assert backend.dump() == before
    assert said(backend.agent().messages) == ["first", "one", "second", "two"]


@pytest.mark.guarantee(number=20)
def test_what_is_not_there_is_not_created(backend: Backend) -> None:
    """An agent of a session that isn't there works in memory, without even a table."""
    for make_tables in (False, True):
        if make_tables:
            backend.repository().setup()
        agent = backend.agent(["hello"], manager=reading_manager(backend))
        agent("hi")
        assert said(agent.messages) == ["hi", "hello"]
        tables = backend.raw("SELECT name FROM sqlite_master WHERE name = 'strands_sessions'")
        assert bool(tables) == make_tables
    assert backend.repository().read_session("s") is None


def test_a_second_agent_of_a_session_is_not_created(backend: Backend) -> None:
    """Of a session that is there, agents that aren't stay out of it."""
    stored(backend, "hi")
    agent = backend.agent(["hello"], manager=reading_manager(backend), agent_id="other")
    agent("who?")
    assert [row["agent_id"] for row in backend.dump()["agents"]] == ["a"]


def test_an_interrupt_is_answered_in_memory_alone(backend: Backend) -> None:
    """What waits in the session waits on, whoever has answered it in a read-only agent."""

    def make(manager: PerSQLSessionManager) -> Agent:
        return backend.agent([ToolCall("ask"), "done"], manager=manager, tools=[ask])

    result = make(backend.manager())("go")
    answer: Any = [
        {"interruptResponse": {"interruptId": one.id, "response": "yes"}}
        for one in result.interrupts or ()
    ]
    before = backend.dump()
    trial = backend.agent(["done"], manager=reading_manager(backend))
    assert said(trial.messages) == ["go", "call ask"]
    trial = make(reading_manager(backend))
    trial(answer)
    assert backend.dump() == before


@pytest.mark.parametrize("is_there", [False, True])
def test_graphs_are_restored_and_not_stored(backend: Backend, is_there: bool) -> None:
    """A graph's state comes back where it is there, and its nodes' ends store nothing."""

    def make(manager: PerSQLSessionManager) -> Any:
        builder = GraphBuilder()
        node = Agent(name="one", model=ScriptedModel(["done"] * 4), callback_handler=None)
        builder.add_node(node, "one")
        builder.set_session_manager(manager)
        builder.set_graph_id("g")
        builder.set_max_node_executions(5)
        return builder.build()

    if is_there:
        make(backend.manager())("go")
    else:
        backend.repository().setup()
    before = backend.dump()
    graph = make(reading_manager(backend))
    graph("go")
    asyncio.run(graph.session_manager.save(graph))
    graph.session_manager.sync_multi_agent(graph)
    assert backend.dump() == before


def test_a_shared_repository_serves_read_only_managers_too(backend: Backend) -> None:
    """They read from its cache, and its other managers write."""
    writing = backend.repository(max_staleness=60)
    writer = backend.agent(["hello", "yes"], manager=backend.manager(repository=writing))
    writer("hi")
    before = backend.dump()
    backend.database.reset()
    manager = PerSQLSessionManager("s", repository=writing, read_only=True)
    reader = backend.agent(["again"], manager=manager)
    assert said(reader.messages) == ["hi", "hello"]
    reader("and?")
    manager.close()
    assert backend.dump() == before
    assert backend.database.round_trips == 0
    writer("still there?")
    assert backend.dump() != before


_WRITES: list[Callable[[PerSQLSessionRepository], Any]] = [
    lambda one: one.setup(),
    lambda one: one.create_session(session("t")),
    lambda one: one.delete_session("s"),
    lambda one: one.create_agent("s", session_agent("b")),
    lambda one: one.update_agent("s", session_agent("a", n=2)),
    lambda one: one.create_message("s", "a", session_message("more", 1)),
    lambda one: one.update_message("s", "a", session_message("other", 0)),
    lambda one: one.create_multi_agent("s", Team("other")),
    lambda one: one.update_multi_agent("s", Team(step=2)),
]


@pytest.mark.guarantee(number=20)
def test_a_read_only_repository_refuses_to_write(backend: Backend) -> None:
    """Each method that writes raises, and nothing is sent; those that read answer."""
    stored(backend, "hi").create_multi_agent("s", Team())
    before = backend.dump()
    repository = backend.repository(only_reading(backend), read_only=True)
    for write in _WRITES:
        with pytest.raises(AccessDeniedError, match="read only"):
            write(repository)
    assert backend.dump() == before
    assert repository.read_multi_agent("s", "team") == {"id": "team"}
    assert said(one.to_message() for one in repository.list_messages("s", "a")) == ["hi"]
    assert PerSQLSessionManager("s", repository=repository).read_only
