"""What Strands builds on a storage: snapshot managers, graphs, stashes, memories."""

import asyncio
from itertools import pairwise
from typing import Any

import pytest
from strands import Agent, ToolContext, tool
from strands.agent.conversation_manager import (
    SlidingWindowConversationManager,
    SummarizingConversationManager,
)
from strands.multiagent import GraphBuilder, Swarm
from strands.multiagent.base import Status

from strands_persql.testing import ScriptedModel, ToolCall
from tests.storages import (
    LATEST,
    PerSQLStorage,
    SnapshotSessionManager,
    agent_of,
    run,
    storage_of,
    text_of,
)
from tests.support.backends import Backend


@tool(context=True)
def count(tool_context: ToolContext) -> str:
    """Count one up in the agent's state."""
    number = (tool_context.agent.state.get("n") or 0) + 1
    tool_context.agent.state.set("n", number)
    return f"{number} " + text_of(2_000, number)


@tool(context=True)
def approve(tool_context: ToolContext) -> str:
    """Ask somebody before going on."""
    return f"approved by {tool_context.interrupt('who', reason='why')}"


def state_of(agent: Agent) -> Any:
    """Return all that a restore should bring back."""
    return (
        agent.messages,
        agent.state.get(),
        agent.conversation_manager.get_state(),
        agent._interrupt_state.to_dict(),
    )


@pytest.mark.parametrize("save_on", ["message", "invocation"])
def test_an_agent_is_restored_as_it_was(backend: Backend, save_on: Any) -> None:
    """Messages with their metadata, state and counts come back, turn after turn."""
    storage = storage_of(backend)
    replies = [reply for n in range(6) for reply in (ToolCall("count"), f"Turn {n}.")]
    agent = agent_of(storage, *replies, tools=[count], save_latest_on=save_on)
    for number in range(6):
        agent(f"turn {number}")
        assert state_of(agent_of(storage_of(backend), tools=[count])) == state_of(agent)


@pytest.mark.parametrize(
    "make",
    [
        lambda: SlidingWindowConversationManager(window_size=5),
        lambda: SummarizingConversationManager(summary_ratio=0.5, preserve_recent_messages=2),
    ],
    ids=["sliding window", "summaries"],
)
def test_what_a_conversation_manager_leaves_is_restored(backend: Backend, make: Any) -> None:
    """Windows and summaries come back as they were left."""
    storage = storage_of(backend)

    def agent_with(*replies: str) -> Agent:
        return Agent(
            model=ScriptedModel([*replies]),
            agent_id="a",
            conversation_manager=make(),
            session_manager=SnapshotSessionManager("s", storage=storage.view()),
            callback_handler=None,
        )

    agent = agent_with(*(f"Reply {n}. {text_of(500, n)}" for n in range(20)))
    for number in range(8):
        agent(f"Question {number}?")
        if number == 5:
            agent.conversation_manager.reduce_context(agent)
        manager: Any = agent._session_manager
        manager.sync_agent(agent)
        assert state_of(agent_with()) == state_of(agent)


def test_an_interrupt_is_answered_in_another_process(backend: Backend) -> None:
    """An agent that waits for an answer is restored so, and goes on with it."""
    agent = agent_of(storage_of(backend), ToolCall("approve"), tools=[approve])
    result = agent("go")
    assert result.stop_reason == "interrupt"

    again = agent_of(storage_of(backend), "Done.", tools=[approve])
    answers: Any = [
        {"interruptResponse": {"interruptId": one.id, "response": "Ada"}}
        for one in result.interrupts or ()
    ]
    again(answers)

    assert "approved by Ada" in str(agent_of(storage_of(backend)).messages)


def test_time_travel(backend: Backend) -> None:
    """Immutable snapshots are listed in order, restored each as it was, and gone on from."""
    storage = storage_of(backend)
    agent = agent_of(storage, *(f"Reply {n}." for n in range(6)), snapshot_trigger=lambda **_: True)
    manager: Any = agent._session_manager
    lengths = []
    for number in range(4):
        agent(f"Question {number}?")
        lengths.append(len(agent.messages))
    ids = run(manager.list_snapshot_ids(agent))

    other = agent_of(storage_of(backend), "Otherwise.")
    elsewhere: Any = other._session_manager
    for snapshot_id, length in zip(ids, lengths, strict=True):
        assert run(elsewhere.restore_snapshot(other, snapshot_id=snapshot_id))
        assert len(other.messages) == length
    run(elsewhere.restore_snapshot(other, snapshot_id=ids[1]))
    other("What if?")

    assert len(agent_of(storage_of(backend)).messages) == lengths[1] + 2
    assert run(manager.list_snapshot_ids(agent, start_after=ids[1], limit=1)) == [ids[2]]


def test_a_session_is_deleted_by_either_method(backend: Backend) -> None:
    """Strands' loop and our method delete the same; ours in a few requests."""
    for by_loop in (True, False):
        storage = storage_of(backend)
        agent = agent_of(
            storage,
            *(f"Reply {n}." for n in range(9)),
            snapshot_trigger=lambda **_: True,
            context_manager="auto",
        )
        for number in range(9):
            agent(f"Question {number}?")
        run(storage.write("session/s2/x", b"another session"))
        run(storage.write("context/s2/x", b"another stash"))
        manager: Any = agent._session_manager
        assert len(run(storage.list("session/s/"))) == 10
        backend.database.reset()

        if by_loop:
            run(manager.delete_session())
        else:
            assert run(storage.delete_session("s")) >= 10
            assert backend.database.round_trips <= 4

        assert run(storage.list()) == ["context/s2/x", "session/s2/x"]
        assert len(agent_of(storage_of(backend)).messages) == 0


def test_a_namespace_is_the_place_of_its_sessions(backend: Backend) -> None:
    """A storage that was narrowed is taken by Strands and by us as the place of sessions."""
    scoped = storage_of(backend).namespace("tenants/ada")
    agent_of(scoped, "Hello.")("hi")

    assert run(scoped.list()) == [LATEST.removeprefix("session/")]
    assert run(scoped.delete_session("s")) == 1
    assert run(scoped.list()) == []


def _graph(storage: PerSQLStorage, *names: str) -> Any:
    builder = GraphBuilder()
    for name in names:
        builder.add_node(
            Agent(model=ScriptedModel([f"{name} is done."] * 2), name=name, agent_id=name), name
        )
    for before, after in pairwise(names):
        builder.add_edge(before, after)
    builder.set_entry_point(names[0])
    builder.set_graph_id("team")
    builder.set_max_node_executions(10)
    builder.set_session_manager(SnapshotSessionManager("s", storage=storage))
    return builder.build()


def test_graphs_and_swarms_are_restored(backend: Backend) -> None:
    """The state of a graph and of a swarm come back from the latest snapshot."""
    graph = _graph(storage_of(backend), "first", "second")
    assert graph("go").status is Status.COMPLETED
    swarm = Swarm(
        [Agent(model=ScriptedModel(["Done."]), name="solo", agent_id="solo")],
        session_manager=SnapshotSessionManager("s", storage=storage_of(backend)),
        id="swarm",
    )
    assert swarm("go").status is Status.COMPLETED

    stored = run(storage_of(backend).list("session/s/scopes/multiAgent/"))
    assert [key.split("/")[4] for key in stored] == ["swarm", "team"]
    again = _graph(storage_of(backend), "first", "second")
    manager: Any = again.session_manager
    assert run(manager._restore_multi_agent(again))


def test_two_graphs_at_once_are_told_apart(backend: Backend) -> None:
    """A graph that was restored before another one's run is refused when it saves."""
    storage = storage_of(backend)
    first, second = _graph(storage.view(), "one"), _graph(storage.view(), "one")
    for graph in (first, second):
        manager: Any = graph.session_manager
        assert not run(manager._restore_multi_agent(graph))
        manager._multi_agent_restored_ids.add("team")
    first("go")

    with pytest.raises(Exception, match="another writer"):
        second("go")


def test_the_stash_is_kept_in_the_same_storage(backend: Backend) -> None:
    """What the context manager takes out of an agent's messages is found again elsewhere."""
    storage = storage_of(backend)
    agent = agent_of(None, "One.", storage=storage, context_manager="auto")
    agent("go")
    stash: Any = agent.context_manager.stash  # type: ignore[union-attr]
    reference = run(stash.store("block", 0, b'{"text": "kept"}'))

    again = agent_of(None, storage=storage_of(backend), context_manager="auto")
    other: Any = again.context_manager.stash  # type: ignore[union-attr]

    assert run(other.retrieve(reference)) == {"text": "kept"}
    assert len(again.messages) == 2
    assert any(key.startswith("context/s/") for key in run(storage.list()))


def test_memories_are_kept_in_a_storage(backend: Backend) -> None:
    """Strands' file memory store works on a storage, and finds what another process added."""
    store = pytest.importorskip("strands.vended_memory_stores.file_memory_store")

    def memories() -> Any:
        return store.FileMemoryStore(name="notes", storage=storage_of(backend))

    run(memories().add("# Colours\nAda likes blue."))
    run(memories().add("# Colours\nBen likes red."))

    found = run(memories().search("colours"))
    assert found[0].content == "# Colours\nAda likes blue.\nBen likes red."


def test_agents_save_from_one_loop_without_waiting_for_each_other(backend: Backend) -> None:
    """Many agents in one event loop save at once, each to its own session."""
    storage = storage_of(backend)

    async def go() -> None:
        agents = [agent_of(storage.view(), "Hello.", session=f"s{n}") for n in range(12)]
        await asyncio.gather(*(agent.invoke_async("hi") for agent in agents))

    run(go())

    assert len(run(storage.list("session/"))) == 12
