"""What agents and their users say in tests, and what is stored of it."""

from collections.abc import Iterable, Sequence
from typing import Any

from strands import ToolContext, tool
from strands.multiagent.base import MultiAgentBase, MultiAgentResult
from strands.types.content import Message
from strands.types.session import Session, SessionAgent, SessionMessage, SessionType

from strands_persql import PerSQLSessionRepository
from tests.support.backends import Backend


@tool(context=True)
def count(tool_context: ToolContext) -> str:
    """Count one up in the agent's state."""
    number = (tool_context.agent.state.get("n") or 0) + 1
    tool_context.agent.state.set("n", number)
    return str(number)


def user(text: str) -> Message:
    """Make a user's message."""
    return {"role": "user", "content": [{"text": text}]}


def assistant(text: str) -> Message:
    """Make a model's message."""
    return {"role": "assistant", "content": [{"text": text}]}


def session(session_id: str = "s") -> Session:
    """Make a session."""
    return Session(session_id=session_id, session_type=SessionType.AGENT)


def session_agent(agent_id: str = "a", **state: Any) -> SessionAgent:
    """Make an agent's record with a state."""
    return SessionAgent(agent_id=agent_id, state=state, conversation_manager_state={})


def session_message(text: str, message_id: int) -> SessionMessage:
    """Make a message's record."""
    return SessionMessage.from_message(user(text), message_id)


def stored(
    backend: Backend, *texts: str, session_id: str = "s", agent_id: str = "a", **state: Any
) -> PerSQLSessionRepository:
    """Store a session with one agent and its messages, and give the repository that did."""
    repository = backend.repository()
    repository.create_session(session(session_id))
    repository.create_agent(session_id, session_agent(agent_id, **state))
    for index, text in enumerate(texts):
        repository.create_message(session_id, agent_id, session_message(text, index))
    return repository


def said(messages: Iterable[Message]) -> list[str]:
    """Tell what messages say, with tools' calls and results by their names."""
    return [" ".join(map(_said, message["content"])) for message in messages]


def _said(block: Any) -> str:
    if "toolUse" in block:
        return f"call {block['toolUse']['name']}"
    if "toolResult" in block:
        return "result " + " ".join(each.get("text", "") for each in block["toolResult"]["content"])
    return str(block.get("text"))


def listed(repository: PerSQLSessionRepository, agent_id: str = "a") -> list[str]:
    """Tell what the stored messages of an agent say."""
    return said(one.to_message() for one in repository.list_messages("s", agent_id))


def in_database(backend: Backend, session_id: str = "s", agent_id: str = "a") -> list[str]:
    """Tell what the stored messages of an agent say to somebody who opens the session now."""
    repository = backend.repository(backend.reopen())
    assert repository.read_session(session_id) is not None
    records = repository.list_messages(session_id, agent_id)
    assert [one.message_id for one in records] == sorted({one.message_id for one in records})
    return said(one.to_message() for one in records)


def state_in_database(backend: Backend, agent_id: str = "a") -> dict[str, Any]:
    """Give the stored state of an agent, as somebody finds it who opens the session now."""
    repository = backend.repository(backend.reopen())
    repository.read_session("s")
    agent = repository.read_agent("s", agent_id)
    assert agent is not None
    return agent.state


def ids_in_database(backend: Backend, agent_id: str = "a") -> list[int]:
    """Give the ids of the stored messages of an agent."""
    rows = backend.raw(
        "SELECT message_id FROM strands_messages WHERE agent_id = ? ORDER BY message_id", agent_id
    )
    return [int(row["message_id"]) for row in rows]


def plain(messages: Sequence[Message]) -> list[Any]:
    """Give messages as they are, without what Strands marks them with."""
    return [{"role": one["role"], "content": one["content"]} for one in messages]


class Team(MultiAgentBase):
    """The least that can be stored as a graph or swarm."""

    def __init__(self, team_id: str = "team", **state: Any) -> None:
        self.id = team_id
        self.state: dict[str, Any] = state

    def serialize_state(self) -> dict[str, Any]:
        return {"id": self.id, **self.state}

    def deserialize_state(self, payload: dict[str, Any]) -> None:
        self.state = {key: value for key, value in payload.items() if key != "id"}

    async def invoke_async(
        self, task: Any, invocation_state: dict[str, Any] | None = None, **kwargs: Any
    ) -> MultiAgentResult:
        raise NotImplementedError("nobody asks it to do anything")
