"""Sessions that real agents have lived in, for what has to come out as it went in."""

from collections.abc import Callable
from typing import Any

from strands import Agent
from strands.agent.conversation_manager import (
    ConversationManager,
    NullConversationManager,
    SlidingWindowConversationManager,
    SummarizingConversationManager,
)
from strands.session.session_manager import SessionManager

from strands_persql.testing import Redact, Reply, ScriptedModel, ToolCall
from tests.support.conversation import count

PIXEL = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x06\x00\x00\x00"

Life = Callable[[SessionManager], Agent]
"""Opens a session's agent and goes through some turns with it."""


def new_agent(
    manager: SessionManager | None,
    replies: list[Reply],
    conversation_manager: ConversationManager | None = None,
) -> Agent:
    """Make an agent that answers from a script."""
    return Agent(
        model=ScriptedModel(replies),
        session_manager=manager,
        agent_id="a",
        tools=[count],
        conversation_manager=conversation_manager or NullConversationManager(),
        callback_handler=None,
    )


def plain(manager: SessionManager) -> Agent:
    """Words, a tool, an image, a redaction, and a state of many kinds."""
    agent = new_agent(
        manager, ["hi", [ToolCall("count"), ToolCall("count")], "two", Redact("[gone]"), "ok"]
    )
    agent.state.set("notes", {"text": "naïve 🌍", "list": [1, 2.5, None, True], "deep": {"x": {}}})
    agent("hello")
    agent("count twice")
    agent("a secret")
    image: Any = {"image": {"format": "png", "source": {"bytes": PIXEL}}}
    agent([{"text": 'what is "this"?\n\tline two'}, image])
    return agent


def trimmed(manager: SessionManager) -> Agent:
    """A window that has moved."""
    window = SlidingWindowConversationManager(window_size=4)
    agent = new_agent(manager, [str(n) for n in range(6)], window)
    for number in range(6):
        agent(f"q{number}")
    assert len(agent.messages) < 12
    return agent


def summarized(manager: SessionManager) -> Agent:
    """A summary in front, which no one said."""
    summaries = SummarizingConversationManager(
        summary_ratio=0.5,
        preserve_recent_messages=2,
        summarization_agent=Agent(model=ScriptedModel(["all of it"]), callback_handler=None),
    )
    agent = new_agent(manager, [str(n) for n in range(6)], summaries)
    for number in range(4):
        agent(f"q{number}")
    summaries.reduce_context(agent)
    agent("q4")
    return agent


LIVES: dict[str, tuple[Life, Callable[[], ConversationManager]]] = {
    "plain": (plain, NullConversationManager),
    "trimmed": (trimmed, lambda: SlidingWindowConversationManager(window_size=4)),
    "summarized": (
        summarized,
        lambda: SummarizingConversationManager(summary_ratio=0.5, preserve_recent_messages=2),
    ),
}


def pinned(manager: SessionManager) -> Agent:
    """Messages dropped from the middle, and one put in by hand."""
    agent = new_agent(manager, [str(n) for n in range(6)])
    for number in range(4):
        agent(f"q{number}")
    del agent.messages[2:6]
    agent.messages.insert(0, {"role": "user", "content": [{"text": "put in by hand"}]})
    agent("q4")
    return agent


def memory(agent: Agent) -> dict[str, Any]:
    """What an agent holds in memory, but for marks that Strands makes up at random."""
    return {
        "messages": [
            {key: value for key, value in message.items() if key != "tracking_id"}
            for message in agent.messages
        ],
        "state": agent.state.get(),
        "manager": agent.conversation_manager.get_state(),
        "interrupts": agent._interrupt_state.to_dict(),
    }
