"""Sessions of snapshots made ones of messages, and back: equal after restore."""

import json
from typing import Any

import pytest
from strands import Agent, ToolContext, tool
from strands.agent.conversation_manager import (
    NullConversationManager,
    SlidingWindowConversationManager,
    SummarizingConversationManager,
)
from strands.multiagent import GraphBuilder

from strands_persql import LocalDatabase, PerSQLSessionManager
from strands_persql.errors import AlreadyExistsError, CorruptRowError, NotFoundError
from strands_persql.testing import Fault, FaultyDatabase, ScriptedModel, ToolCall
from tests.storages import (
    LATEST,
    PerSQLStorage,
    SnapshotSessionManager,
    StorageError,
    run,
    session_from_snapshots,
    snapshots_from_session,
    storage_of,
    text_of,
)
from tests.support.backends import Backend
from tests.support.conversation import user


@tool(context=True)
def count(tool_context: ToolContext) -> str:
    """Count one up in the agent's state."""
    number = (tool_context.agent.state.get("n") or 0) + 1
    tool_context.agent.state.set("n", number)
    return str(number)


@tool(context=True)
def approve(tool_context: ToolContext) -> str:
    """Ask somebody before going on."""
    return f"approved by {tool_context.interrupt('who', reason='why')}"


MANAGERS = {
    "all": NullConversationManager,
    "a window": lambda: SlidingWindowConversationManager(window_size=4),
    "summaries": lambda: SummarizingConversationManager(
        summary_ratio=0.5, preserve_recent_messages=2
    ),
}


def made(manager: Any, *replies: Any, agent_id: str = "a", keeps: Any = None) -> Agent:
    """Make an agent in a session of a manager."""
    return Agent(
        model=ScriptedModel(list(replies)),
        agent_id=agent_id,
        tools=[count, approve],
        conversation_manager=(keeps or NullConversationManager)(),
        session_manager=manager,
        callback_handler=None,
    )


def state_of(agent: Agent) -> Any:
    """Return all that a restore should bring back."""
    interrupts = agent._interrupt_state.to_dict()
    return (
        agent.messages,
        agent.state.get(),
        agent.conversation_manager.get_state(),
        {name: interrupts[name] for name in ("interrupts", "activated")},
    )


def snapshots(storage: PerSQLStorage) -> SnapshotSessionManager:
    """Open session ``s`` as Strands does."""
    return SnapshotSessionManager("s", storage=storage)


@pytest.mark.parametrize("kind", MANAGERS)
def test_snapshots_become_a_session(backend: Backend, kind: str) -> None:
    """An agent restored from the session is what it is restored as from its snapshot."""
    keeps, storage = MANAGERS[kind], storage_of(backend)
    for name in ("a", "b"):
        replies = [one for n in range(5) for one in (ToolCall("count"), f"{n} {text_of(300, n)}")]
        agent = made(snapshots(storage.view()), *replies, "A summary.", agent_id=name, keeps=keeps)
        agent.state.set("bytes", {"of": name})
        for number in range(5):
            agent(f"turn {number}")
        if kind == "summaries":
            agent.conversation_manager.reduce_context(agent)
            run(snapshots_manager(agent).save_snapshot(agent, is_latest=True))

    assert run(session_from_snapshots(storage, "s")) == ["a", "b"]

    for name in ("a", "b"):
        from_snapshot = made(snapshots(storage.view()), agent_id=name, keeps=keeps)
        from_rows = made(backend.manager(), "Next.", agent_id=name, keeps=keeps)
        assert state_of(from_rows) == state_of(from_snapshot)
        from_rows("goes on")
        again = made(backend.manager(), agent_id=name, keeps=keeps)
        assert state_of(again) == state_of(from_rows)


def snapshots_manager(agent: Agent) -> SnapshotSessionManager:
    """Return an agent's manager."""
    manager: Any = agent._session_manager
    assert isinstance(manager, SnapshotSessionManager)
    return manager


@pytest.mark.parametrize("kind", MANAGERS)
def test_a_session_becomes_snapshots(backend: Backend, kind: str) -> None:
    """An agent restored from the snapshot is what it is restored as from the session."""
    keeps, storage = MANAGERS[kind], storage_of(backend)
    replies = [one for n in range(5) for one in (ToolCall("count"), f"{n} {text_of(300, n)}")]
    agent = made(backend.manager(), *replies, "A summary.", keeps=keeps)
    for number in range(5):
        agent(f"turn {number}")
    if kind == "summaries":
        agent.conversation_manager.reduce_context(agent)
        agent._session_manager.sync_agent(agent)  # type: ignore[union-attr]
    agent.messages.insert(0, user("put in by hand"))
    agent._session_manager.sync_agent(agent)  # type: ignore[union-attr]

    assert run(snapshots_from_session(storage, "s")) == ["a"]

    from_rows = made(backend.manager(), keeps=keeps)
    from_snapshot = made(snapshots(storage.view()), "Next.", keeps=keeps)
    assert state_of(from_snapshot) == state_of(from_rows)
    from_snapshot("goes on")
    assert state_of(made(snapshots(storage.view()), keeps=keeps)) == state_of(from_snapshot)


def test_an_agent_that_waits_goes_on_after_the_exchange(backend: Backend) -> None:
    """An interrupt that waits in a snapshot is answered through the session, and the other way."""
    storage = storage_of(backend)
    agent = made(snapshots(storage), "Hello.", ToolCall("approve"))
    agent("hi")
    result = agent("go")
    answers: Any = [
        {"interruptResponse": {"interruptId": one.id, "response": "Ada"}}
        for one in result.interrupts or ()
    ]
    run(session_from_snapshots(storage, "s"))
    other = LocalDatabase()
    back = PerSQLStorage(other)
    run(snapshots_from_session(back, "s", database=backend.database))

    for manager in (backend.manager(), snapshots(back)):
        again = made(manager, "Done.")
        again(answers)
        assert "approved by Ada" in str(again.messages)
        assert again.messages[0]["content"] == [{"text": "hi"}]


def test_an_imported_turn_that_goes_on_leaves_earlier_ones_where_they_are(
    backend: Backend,
) -> None:
    """Of an imported session only the turn that waits moves behind another one's turn."""
    storage = storage_of(backend)
    agent = made(snapshots(storage), "Hello.", ToolCall("approve"))
    agent("hi")
    result = agent("go")
    run(session_from_snapshots(storage, "s"))
    waiting = made(backend.manager(), "Done.")
    other = made(backend.manager(), "Noon.")
    other._interrupt_state.deactivate()
    other("What time is it?")
    answers: Any = [
        {"interruptResponse": {"interruptId": one.id, "response": "Ada"}}
        for one in result.interrupts or ()
    ]

    waiting(answers)

    texts = [one["content"][0].get("text") for one in made(backend.manager()).messages]
    assert texts[:4] == ["hi", "Hello.", "What time is it?", "Noon."]


@pytest.mark.parametrize("is_graph", [True, False])
def test_who_comes_between_is_not_overwritten(is_graph: bool) -> None:
    """A session that somebody begins while it is made of snapshots stays theirs."""
    with LocalDatabase() as local:
        storage = PerSQLStorage(local)
        made(snapshots(storage), "Hello.")("hi")
        if is_graph:
            _graph(snapshots(storage))("go")
            run(storage.delete(LATEST))
        theirs: list[Agent] = []

        def come_between(call: int) -> Fault | None:
            if call == 1:  # between the look whether there is a session and its creation
                theirs.append(made(PerSQLSessionManager("s", local), "Theirs."))
                theirs[0]("mine?")
                _graph(PerSQLSessionManager("s", local))
            return None

        with pytest.raises(AlreadyExistsError):
            run(session_from_snapshots(storage, "s", database=FaultyDatabase(local, come_between)))
        again = made(PerSQLSessionManager("s", local))
        assert again.messages == theirs[0].messages


def test_there_and_back_is_where_it_was(backend: Backend) -> None:
    """A session that is turned into the other kind and back restores as it did."""
    storage = storage_of(backend)
    agent = made(snapshots(storage), "One.", ToolCall("count"), "Two.")
    agent("one?")
    agent("two?")
    agent.state.set("odd", {"tuple": (1, 2), "text": "\U0001f600"})
    image: Any = {"image": {"format": "png", "source": {"bytes": b"\x89PNG\x00\xff"}}}
    agent.messages.append({"role": "user", "content": [image]})
    run(snapshots_manager(agent).save_snapshot(agent, is_latest=True))

    run(session_from_snapshots(storage, "s"))
    elsewhere = storage_of(backend).namespace("elsewhere")
    run(snapshots_from_session(elsewhere, "s", database=backend.database))

    assert state_of(made(snapshots(elsewhere))) == state_of(made(snapshots(storage.view())))


def _graph(manager: Any) -> Any:
    builder = GraphBuilder()
    builder.add_node(made(None, "Done."), "node")
    builder.set_entry_point("node")
    builder.set_graph_id("team")
    builder.set_max_node_executions(10)
    builder.set_session_manager(manager)
    return builder.build()


def test_graphs_are_exchanged_too(backend: Backend) -> None:
    """The state of a graph comes along, both ways."""
    storage = storage_of(backend)
    _graph(snapshots(storage))("go")
    assert run(session_from_snapshots(storage, "s")) == ["team"]
    back = PerSQLStorage(LocalDatabase())
    assert run(snapshots_from_session(back, "s", database=backend.database)) == ["team"]

    repository = backend.repository()
    stored = repository.read_multi_agent("s", "team")
    assert stored is not None
    assert stored["completed_nodes"] == ["node"]
    key = "session/s/scopes/multiAgent/team/snapshots/snapshot_latest.json"
    there, here = (json.loads(run(one.read(key)) or b"")["data"] for one in (storage, back.view()))
    assert here == there


def test_nothing_is_overwritten(backend: Backend) -> None:
    """Where there is such a session already, or are such snapshots, both stay as they are."""
    storage = storage_of(backend)
    made(snapshots(storage), "One.")("one?")
    made(backend.manager(), "Two.")("two?")
    before = backend.raw("SELECT * FROM strands_objects"), backend.dump()

    for call in (session_from_snapshots, snapshots_from_session):
        with pytest.raises(AlreadyExistsError, match="'s'") as raised:
            run(call(storage, "s"))
        assert isinstance(raised.value, StorageError)
    assert (backend.raw("SELECT * FROM strands_objects"), backend.dump()) == before

    assert run(session_from_snapshots(storage, "s", table_prefix="other_")) == ["a"]
    other = backend.repository(table_prefix="other_")
    assert other.read_session("s") is not None


def test_what_is_not_there_is_not_exchanged(backend: Backend) -> None:
    """Without snapshots, or without a session, nothing is made, and the error says so."""
    storage = storage_of(backend)
    for call in (session_from_snapshots, snapshots_from_session):
        with pytest.raises(NotFoundError, match="'s'") as raised:
            run(call(storage, "s"))
        assert isinstance(raised.value, StorageError)
        with pytest.raises(ValueError, match="session_id"):
            run(call(storage, "a/b"))

    assert run(storage.list()) == []
    assert backend.dump()["sessions"] == []


@pytest.mark.parametrize("data", [b"nonsense", b"[]", b"{}", b'{"created_at": "", "data": 1}'])
def test_what_is_no_snapshot_is_named(backend: Backend, data: bytes) -> None:
    """A snapshot that can't be read is named, and no session is made."""
    storage = storage_of(backend)
    run(storage.write(LATEST, data))

    with pytest.raises(CorruptRowError, match="snapshot_latest"):
        run(session_from_snapshots(storage, "s"))
    assert backend.repository().read_session("s") is None


def test_many_large_messages_are_exchanged(backend: Backend) -> None:
    """A session of some MB is turned into the other kind whole."""
    storage = storage_of(backend)
    agent = made(None)
    agent.messages.extend(user(text_of(60_000, number)) for number in range(40))
    manager = snapshots(storage)
    run(manager.save_snapshot(agent, is_latest=True))

    run(session_from_snapshots(storage, "s"))
    back = storage_of(backend).namespace("back")
    run(snapshots_from_session(back, "s", database=backend.database))

    contents = [message["content"] for message in agent.messages]
    for one in (backend.manager(), snapshots(back)):
        assert [message["content"] for message in made(one).messages] == contents
