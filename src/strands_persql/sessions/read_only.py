"""What takes the place of a unit of work where nothing is to be stored."""

from collections.abc import Sequence
from typing import Any

from strands.types.content import Message

from strands_persql.persistence.cached import CachedSession
from strands_persql.persistence.locks import AgentLock
from strands_persql.sessions.multi_agents import MultiAgentStates


class NothingStored:
    """A unit of work that collects nothing: what an agent does stays in its memory.

    Attributes:
        lock: A lock that nobody else knows.
        is_due: False.
        waits_for_turn: False.
    """

    is_due = waits_for_turn = False

    def __init__(self) -> None:
        """Begin."""
        self.lock = AgentLock()

    def restore(self, agent: Any, prepended: Sequence[Message]) -> None:
        """Do nothing."""

    def begin_invocation(self) -> None:
        """Do nothing."""

    def continue_turn(self, agent: Any) -> None:
        """Claim nothing: the turn continues in memory alone."""

    def end_invocation(self, agent: Any, *, is_to_go_on: bool = False) -> None:
        """Do nothing."""

    def add(self, message: Message, agent: Any) -> None:
        """Do nothing."""

    def redact_latest(self, redacted: Message, agent: Any) -> bool:
        """Return whether there is a message that Strands has redacted in memory."""
        return bool(agent.messages)

    def has_changes(self, agent: Any) -> bool:
        """Return False."""
        return False

    def commit(self, agent: Any, *, state: bool = True, messages: bool = True) -> None:
        """Do nothing."""

    def close(self, agent: Any) -> None:
        """Do nothing."""


class NoMultiAgentsStored(MultiAgentStates):
    """Restores graphs and swarms, and stores none."""

    def initialize(self, source: Any, opened: CachedSession | None) -> None:
        """Restore a graph or swarm from its session, if it is there."""
        if opened is not None and source.id in opened.multi_agents:
            super().initialize(source, opened)

    def store(self, multi_agent_id: str, text: str) -> None:
        """Do nothing."""

    def claim(self, source: Any) -> None:
        """Do nothing."""
