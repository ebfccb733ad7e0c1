"""The manager with real agents: what one leaves, another finds."""

import asyncio
import copy
from typing import Any

import pytest
from strands import Agent, ToolContext, tool
from strands.agent.conversation_manager import (
    NullConversationManager,
    SlidingWindowConversationManager,
    SummarizingConversationManager,
)
from strands.types.content import Message
from strands.types.exceptions import SessionException

from strands_persql import PerSQLSessionManager
from strands_persql.testing import Redact, Reply, ScriptedModel, ToolCall
from tests.support.backends import FAST, Backend
from tests.support.conversation import (
    assistant,
    count,
    ids_in_database,
    in_database,
    plain,
    said,
    state_in_database,
    user,
)

TURNS = ["message", "turn"]


@pytest.mark.parametrize("commit", TURNS)
def test_an_agent_goes_on_where_another_stopped(backend: Backend, commit: str) -> None:
    """Messages and state come back in another manager, and the model is given them."""
    first = backend.agent(["Hello Ada."], manager=backend.manager(commit=commit))
    first.state.set("name", "Ada")
    first("I am Ada.")
    second = backend.agent(["You are Ada."], manager=backend.manager(commit=commit))
    assert second.messages == first.messages
    assert second.state.get() == {"name": "Ada"}
    second("Who am I?")
    assert isinstance(second.model, ScriptedModel)
    assert said(second.model.calls[0]) == ["I am Ada.", "Hello Ada.", "Who am I?"]
    assert in_database(backend) == said(second.messages)


@pytest.mark.parametrize("commit", TURNS)
def test_a_tool_turn_comes_back_whole(backend: Backend, commit: str) -> None:
    """Calls, results and the state that a tool has set are stored and restored."""
    replies: list[Reply] = [ToolCall("count"), [ToolCall("count"), ToolCall("count")], "three"]
    first = backend.agent(replies, manager=backend.manager(commit=commit), tools=[count])
    first("count to three")
    second = backend.agent(manager=backend.manager(commit=commit))
    assert plain(second.messages) == plain(first.messages)
    assert second.state.get("n") == first.state.get("n")
    assert state_in_database(backend) == first.state.get()
    assert ids_in_database(backend) == list(range(6))


@pytest.mark.parametrize("commit", TURNS)
def test_a_redaction_is_stored(backend: Backend, commit: str) -> None:
    """What a guardrail redacts is read redacted by everyone from then on."""
    first = backend.agent([Redact("[redacted]")], manager=backend.manager(commit=commit))
    first("secret")
    assert said(first.messages) == ["[redacted]", "I can't talk about that."]
    assert in_database(backend) == said(first.messages)
    assert said(backend.agent(manager=backend.manager(commit=commit)).messages) == said(
        first.messages
    )


@pytest.mark.guarantee(number=8)
@pytest.mark.parametrize("commit", TURNS)
def test_a_redacted_text_is_kept_nowhere(backend: Backend, commit: str) -> None:
    """A guardrail's redaction leaves nothing of the text in any row, for Strands replaces it."""
    agent = backend.agent(
        ["ok", Redact("[redacted]"), "ok"], manager=backend.manager(commit=commit)
    )
    agent("harmless")
    agent("SECRET")
    agent("harmless")
    assert "SECRET" not in str(backend.dump())


def test_a_sliding_window_restores_the_window_alone(backend: Backend) -> None:
    """A restored agent has the window's messages; the older ones stay stored and aren't read."""

    def window() -> SlidingWindowConversationManager:
        return SlidingWindowConversationManager(window_size=4)

    first = backend.agent([str(n) for n in range(6)], conversation_manager=window())
    for number in range(6):
        first(f"question {number}")
    assert len(first.messages) == 4
    backend.database.reset()
    second = backend.agent(conversation_manager=window())
    assert second.messages == first.messages
    assert second.conversation_manager.removed_message_count == 8
    assert backend.database.round_trips == 1
    assert len(in_database(backend)) == 12


def test_a_moving_window_goes_on_moving_after_a_restore(backend: Backend) -> None:
    """Agents that take turns on one window see each what the other has trimmed."""
    for number in range(6):
        agent = backend.agent(
            [f"answer {number}"],
            conversation_manager=SlidingWindowConversationManager(window_size=4),
        )
        agent(f"question {number}")
        assert len(agent.messages) <= 4
    assert said(agent.messages) == ["question 4", "answer 4", "question 5", "answer 5"]
    row = backend.raw("SELECT window_start FROM strands_agents")[0]
    assert row["window_start"] == 8


def test_a_window_of_zero_kept_messages_is_empty(backend: Backend) -> None:
    """An agent whose window was emptied by hand restores no message, and goes on behind it."""
    manager = backend.manager()
    agent = backend.agent(["a"], manager=manager)
    agent("q")
    agent.conversation_manager.removed_message_count = 2
    agent.messages.clear()
    manager.sync_agent(agent)
    restored = backend.agent(["b"])
    assert restored.messages == []
    restored("next")
    assert ids_in_database(backend) == [0, 1, 2, 3]
    assert said(backend.agent().messages) == ["next", "b"]


def test_a_summary_stands_before_the_window(backend: Backend) -> None:
    """A summarizing manager's summary is prepended to the restored window."""

    def summarizing() -> SummarizingConversationManager:
        return SummarizingConversationManager(summary_ratio=0.5, preserve_recent_messages=2)

    manager = backend.manager()
    first = backend.agent(
        ["1", "2", "3", "the summary"], manager=manager, conversation_manager=summarizing()
    )
    for number in range(3):
        first(f"q{number}")
    first.conversation_manager.reduce_context(first)
    manager.sync_agent(first)
    second = backend.agent(conversation_manager=summarizing())
    assert plain(second.messages) == plain(first.messages)
    assert "the summary" in said(second.messages)[0]


def test_an_interrupt_is_answered_by_another_process(backend: Backend) -> None:
    """An interrupted tool goes on in another manager when its answer is given there."""

    @tool(context=True)
    def ask(tool_context: ToolContext) -> str:
        """Ask a human."""
        answer: str = tool_context.interrupt("approval", reason="may I?")
        return f"the human says {answer}"

    first = backend.agent([ToolCall("ask")], tools=[ask])
    result = first("go")
    assert result.stop_reason == "interrupt"
    second = backend.agent(["fine"], tools=[ask])
    answer: Any = [
        {"interruptResponse": {"interruptId": one.id, "response": "yes"}}
        for one in result.interrupts or ()
    ]
    assert second(answer).stop_reason == "end_turn"
    expected = ["go", "call ask", "result the human says yes", "fine"]
    assert said(second.messages) == expected
    assert in_database(backend) == expected


@pytest.mark.parametrize("number", [1, 3, 79, 80, 81, 200])
def test_initial_messages_are_stored(backend: Backend, number: int) -> None:
    """Messages that a new agent is made with are stored in order, more than fit a batch too."""
    messages: list[Message] = [
        assistant(str(index)) if index % 2 else user(str(index)) for index in range(number)
    ]
    agent = backend.agent(["answer"], messages=messages)
    assert in_database(backend) == [str(index) for index in range(number)]
    agent("next")
    assert ids_in_database(backend) == list(range(number + 2))
    assert said(backend.agent().messages)[-3:] == [str(number - 1), "next", "answer"]


def test_initial_messages_give_way_to_stored_ones(backend: Backend) -> None:
    """An agent that is restored drops the messages that it was made with, as Strands does."""
    backend.agent(["a"])("q")
    restored = backend.agent(messages=[user("other")])
    assert said(restored.messages) == ["q", "a"]
    assert in_database(backend) == ["q", "a"]


def test_agents_of_one_session_keep_apart(backend: Backend) -> None:
    """Several agents in one manager store and restore each its own."""
    manager = backend.manager()
    for agent_id in ("a", "b", "c"):
        backend.agent([f"I am {agent_id}"], manager=manager, agent_id=agent_id)("who?")
    again = backend.manager()
    for agent_id in ("a", "b", "c"):
        restored = backend.agent(manager=again, agent_id=agent_id)
        assert said(restored.messages) == ["who?", f"I am {agent_id}"]


def test_an_agents_id_is_unique_in_a_manager(backend: Backend) -> None:
    """A second agent of an id in one manager is refused, and the first goes on."""
    manager = backend.manager()
    first = backend.agent(["fine"], manager=manager)
    with pytest.raises(SessionException, match="must be unique"):
        backend.agent(manager=manager)
    first("hello")
    assert in_database(backend) == ["hello", "fine"]


def test_an_unknown_agent_is_refused(backend: Backend) -> None:
    """Calls for an agent that the manager hasn't initialized raise with what to do."""
    manager, stranger = backend.manager(), Agent(agent_id="x", callback_handler=None)
    calls: list[Any] = [
        lambda: manager.append_message(user("x"), stranger),
        lambda: manager.sync_agent(stranger),
        lambda: manager.redact_latest_message(user("x"), stranger),
    ]
    for call in calls:
        with pytest.raises(SessionException, match="initialize"):
            call()


@pytest.mark.parametrize("commit", TURNS)
def test_public_methods_work_when_called_directly(backend: Backend, commit: Any) -> None:
    """initialize, append_message, sync_agent and redact_latest_message are plain calls."""
    manager = backend.manager(commit=commit)
    agent = Agent(model=ScriptedModel([]), agent_id="a", callback_handler=None)
    manager.initialize(agent)
    manager.append_message(user("one"), agent)
    manager.append_message(assistant("two"), agent)
    agent.state.set("n", 1)
    manager.sync_agent(agent)
    manager.append_message(user("secret"), agent)
    manager.redact_latest_message(user("[gone]"), agent)
    manager.close()
    assert in_database(backend) == ["one", "two", "[gone]"]
    assert state_in_database(backend) == {"n": 1}


@pytest.mark.guarantee(number=1)
def test_direct_calls_are_durable_when_they_return(backend: Backend) -> None:
    """With ``commit="message"`` each direct call's effect is there at once."""
    manager = backend.manager()
    agent = backend.agent(manager=manager)
    manager.append_message(user("one"), agent)
    assert in_database(backend) == ["one"]
    agent.state.set("n", 1)
    manager.sync_agent(agent)
    assert state_in_database(backend) == {"n": 1}
    manager.redact_latest_message(user("[gone]"), agent)
    assert in_database(backend) == ["[gone]"]


def test_redacting_nothing_raises(backend: Backend) -> None:
    """There is nothing to redact before the first message."""
    manager = backend.manager()
    agent = backend.agent(manager=manager)
    with pytest.raises(SessionException, match="No message to redact"):
        manager.redact_latest_message(user("x"), agent)


def test_a_restored_message_can_be_redacted(backend: Backend) -> None:
    """The latest message of a restored agent is redacted by another manager."""
    first = backend.manager()
    first.append_message(user("secret"), backend.agent(manager=first))
    second = backend.manager()
    second.redact_latest_message(user("[gone]"), backend.agent(manager=second))
    assert in_database(backend) == ["[gone]"]


def test_a_redaction_hits_the_message_that_was_appended_last(backend: Backend) -> None:
    """A message appended directly is the one redacted, whatever the agent has in memory."""
    manager = backend.manager()
    agent = backend.agent(["harmless too"], manager=manager)
    agent("harmless")
    manager.append_message(user("secret"), agent)
    manager.redact_latest_message(user("[gone]"), agent)
    assert in_database(backend) == ["harmless", "harmless too", "[gone]"]


def test_a_redacted_message_keeps_its_id(backend: Backend) -> None:
    """What comes after a redaction stands behind it, and the redaction where the text stood."""
    manager = backend.manager()
    agent = backend.agent(manager=manager)
    manager.append_message(user("secret"), agent)
    manager.redact_latest_message(user("[gone]"), agent)
    manager.append_message(assistant("next"), agent)
    assert in_database(backend) == ["[gone]", "next"]


@pytest.mark.parametrize("commit", TURNS)
def test_agents_can_be_awaited(backend: Backend, commit: Any) -> None:
    """invoke_async and stream_async store as a plain call does, through an async manager too."""

    async def converse() -> list[str]:
        repository = backend.repository()
        async with await PerSQLSessionManager.open(
            "s", repository=repository, commit=commit
        ) as manager:
            agent = backend.agent([ToolCall("count"), "one", "two"], manager=manager, tools=[count])
            await agent.invoke_async("first")
            async for _ in agent.stream_async("second"):
                pass
        return said(agent.messages)

    heard = asyncio.run(converse())
    assert heard == ["first", "call count", "result 1", "one", "second", "two"]
    assert in_database(backend) == heard
    assert state_in_database(backend) == {"n": 1}


def test_an_agent_may_be_used_from_several_loops(backend: Backend) -> None:
    """One agent's turns may each run in an event loop of their own."""
    agent = backend.agent(["1", "2", "3"])
    for number in range(3):
        asyncio.run(agent.invoke_async(f"q{number}"))
    assert in_database(backend) == ["q0", "1", "q1", "2", "q2", "3"]


def test_a_deleted_session_is_not_written_to(backend: Backend) -> None:
    """A turn of an agent whose session was deleted raises, and no row of it is left behind."""
    agent = backend.agent(["one", "two"])
    agent("hello")
    backend.repository().delete_session("s")
    with pytest.raises(SessionException, match="does not exist"):
        agent("again")
    assert all(rows == [] for rows in backend.dump().values())


def test_a_session_made_anew_is_not_the_deleted_one(backend: Backend) -> None:
    """An agent of a deleted session doesn't write into a new session of its id."""
    stale = backend.agent(["one", "two"])
    stale("old")
    backend.repository().delete_session("s")
    backend.agent(["fresh"])("new")
    with pytest.raises(SessionException, match="does not exist"):
        stale("again")
    assert in_database(backend) == ["new", "fresh"]


def test_an_unchanged_agent_is_not_written(backend: Backend) -> None:
    """A sync of what the database has costs nothing, right after a restore too."""
    backend.agent(["a"])("q")
    manager = backend.manager()
    agent = backend.agent(manager=manager)
    backend.database.reset()
    manager.sync_agent(agent)
    manager.sync_agent(agent)
    manager.close()
    assert backend.database.round_trips == 0


def test_state_that_is_changed_in_place_is_noticed(backend: Backend) -> None:
    """A change that Strands' own version counter doesn't see is stored all the same."""
    manager = backend.manager()
    agent = backend.agent(manager=manager)
    agent.state.set("items", [1])
    manager.sync_agent(agent)
    agent.state._data["items"].append(2)
    manager.sync_agent(agent)
    assert state_in_database(backend) == {"items": [1, 2]}


def test_a_session_without_agents_is_not_created(backend: Backend) -> None:
    """Opening a session that isn't there writes nothing before it has an agent."""
    manager = backend.manager()
    assert manager.session.session_id == "s"
    assert backend.repository().read_session("s") is None
    backend.agent(manager=manager)
    assert backend.repository().read_session("s") is not None


def test_an_agent_is_found_in_a_session_opened_before_it_was_made(backend: Backend) -> None:
    """Of two managers that opened a new session, the second restores what the first made."""
    one, two = backend.manager(), backend.manager()
    backend.agent(["a"], manager=one)("q")
    late = backend.agent(["b"], manager=two)
    assert said(late.messages) == ["q", "a"]
    late("q2")
    assert in_database(backend) == ["q", "a", "q2", "b"]


def test_a_manager_takes_a_database_or_a_repository(backend: Backend) -> None:
    """Both forms open the same session; both or neither is a ValueError."""
    with PerSQLSessionManager("s", backend.database, retry=FAST) as manager:
        backend.agent(["a"], manager=manager)("q")
    repository = backend.repository()
    assert said(backend.agent(manager=backend.manager(repository=repository)).messages) == [
        "q",
        "a",
    ]
    with pytest.raises(ValueError, match="either a database or a repository"):
        PerSQLSessionManager("s")
    with pytest.raises(ValueError, match="either a database or a repository"):
        PerSQLSessionManager("s", backend.database, repository=repository)


@pytest.mark.parametrize(
    "options",
    [{"commit": "never"}, {"on_conflict": "ours"}, {"max_staleness": -1}, {"table_prefix": "-"}],
)
def test_options_are_checked(backend: Backend, options: dict[str, Any]) -> None:
    """An option out of its range is a ValueError without a request."""
    with pytest.raises(ValueError, match=next(iter(options))):
        PerSQLSessionManager("s", backend.database, **options)
    assert backend.database.round_trips == 0


def test_a_broken_history_is_mended_in_memory(backend: Backend) -> None:
    """A tool call without its result is given one when the agent is restored, as Strands does."""
    manager = backend.manager()
    agent = backend.agent(manager=manager)
    call: Message = {
        "role": "assistant",
        "content": [{"toolUse": {"toolUseId": "t1", "name": "count", "input": {}}}],
    }
    for message in (user("q"), call, user("why?")):
        manager.append_message(message, agent)
    restored = backend.agent(["fine"])
    assert "toolResult" in restored.messages[2]["content"][0]
    restored("go on")
    assert in_database(backend) == ["q", "call count", "why?", "go on", "fine"]


def test_a_null_conversation_manager_restores_everything(backend: Backend) -> None:
    """Without a window the whole history comes back."""
    first = backend.agent(
        [str(n) for n in range(30)], conversation_manager=NullConversationManager()
    )
    for number in range(30):
        first(f"q{number}")
    second = backend.agent(conversation_manager=NullConversationManager())
    assert second.messages == first.messages


def test_images_in_a_conversation_come_back(backend: Backend) -> None:
    """Bytes within an agent's messages are bytes after a restore."""
    agent = backend.agent(["a cat"])
    image: Any = {"image": {"format": "png", "source": {"bytes": b"\x89PNG\x00"}}}
    agent([image, {"text": "?"}])
    restored = backend.agent()
    assert plain(restored.messages) == plain(agent.messages)


def test_a_window_is_kept_where_messages_were_copied(backend: Backend) -> None:
    """An agent whose messages were replaced by copies is restored with as many as it has."""
    window = SlidingWindowConversationManager(window_size=6)
    agent = backend.agent([*map(str, range(9))], conversation_manager=window)
    for number in range(8):
        agent.messages = copy.deepcopy(agent.messages)
        for message in agent.messages[: number % 3 * 9]:
            message.pop("tracking_id", None)
        agent(f"q{number}")
    restored = backend.agent()
    assert said(restored.messages)[-6:] == said(agent.messages)


def test_a_path_is_no_database(backend: Backend) -> None:
    """Who gives a path or an unknown option is told what to give, before anything is asked."""
    with pytest.raises(TypeError, match=r"not a path: give LocalDatabase"):
        PerSQLSessionManager("s", "agents.db")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="comit"):
        PerSQLSessionManager("s", backend.database, comit="turn")  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="give them to PerSQLSessionRepository"):
        PerSQLSessionManager("s", repository=backend.repository(), on_conflict="raise")
