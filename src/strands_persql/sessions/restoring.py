"""Giving back what a session has stored, as far as its rows can be read."""

from typing import Any

from strands.agent.state import AgentState
from strands.types.content import Message
from strands.types.session import Session, SessionAgent, SessionType

from strands_persql.errors import CorruptRowError
from strands_persql.persistence.cached import CachedAgent, CachedMultiAgent
from strands_persql.runtime.containers import copy_containers
from strands_persql.runtime.ids import AgentKey
from strands_persql.tables.codec import UNREADABLE_EXTRA, RowCodec, warn_of_unreadable_row
from strands_persql.tables.encoding import decoded_text
from strands_persql.tables.shapes import is_message, is_restorable

# What Strands, conversation managers and graphs raise of a state that isn't of their making.
_MISFITS = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
_BEGINS_ANEW = "the graph or swarm begins anew"


class Restorer:
    """Gives agents, graphs and swarms back what their rows have.

    A row that can't be read costs that row: it is named in a warning, and the rest is given.

    Args:
        codec: What decodes the rows.
        strict: Whether a row that can't be read is an error instead.
    """

    def __init__(self, codec: RowCodec, *, strict: bool) -> None:
        """Initialize."""
        self._codec = codec
        self._strict = strict

    def session(self, session_id: str, data: str) -> Session:
        """Return a session, or one that begins now where its row can't be read."""
        try:
            return self._codec.read_session(session_id, data)
        except CorruptRowError as error:
            self._pass_over(error, "the session goes on with its agents")
        return Session(session_id=session_id, session_type=SessionType.AGENT)

    def agent(
        self, agent: Any, key: AgentKey, found: CachedAgent
    ) -> tuple[dict[str, Any], list[Message]]:
        """Give an agent its state and its conversation manager's.

        Returns:
            The row's decoded fields, and the messages that the conversation manager puts first.

        Raises:
            CorruptRowError: If the row can't be written, or not all of it can be read and that is
                an error.
        """
        if found.problem:
            raise self._codec.corrupt_agent(key, found.problem)
        if found.view_problem:
            lost = self._codec.corrupt_agent(key, found.view_problem)
            self._pass_over(lost, "the agent works with the messages of its window")
        if self._strict:
            self._check_messages(key, found)
        try:
            fields = self._codec.read_agent_fields(key, found.data)
            record = self._codec.agent_of(key, copy_containers(fields))
        except CorruptRowError as error:
            self._pass_over(error, "the agent begins with an empty state")
            fields = {"agent_id": key.agent_id, "state": {}, "conversation_manager_state": {}}
            agent.state = AgentState()
            return fields, []
        agent.state = AgentState(record.state)
        manager = getattr(agent, "conversation_manager", None)
        if manager is None:
            return fields, []
        if not self._interrupts(agent, key, record):
            fields["_internal_state"] = {}
        return fields, self._manager(manager, key, record.conversation_manager_state)

    def _check_messages(self, key: AgentKey, found: CachedAgent) -> None:
        """Raise if a message that the agent works with can't be read."""
        self._codec.read_messages(key, found.messages)
        extras = (decoded_text(one) for one in found.view.head if isinstance(one, str))
        if not all(map(is_message, extras)):
            raise self._codec.corrupt_agent(key, UNREADABLE_EXTRA)

    def _interrupts(self, agent: Any, key: AgentKey, record: SessionAgent) -> bool:
        """Give an agent its interrupts and its model's state; return whether that was possible."""
        try:
            if not is_restorable(record._internal_state):  # noqa: SLF001 - a field of the row
                raise TypeError("it has no interrupts")
            record.initialize_internal_state(agent)
        except _MISFITS as error:
            lost = self._codec.corrupt_agent(
                key, f"its field '_internal_state' is misshapen: {error!r}"
            )
            self._pass_over(lost, "its interrupts and its model's state are left out")
            return False
        return True

    def _manager(self, manager: Any, key: AgentKey, state: dict[str, Any]) -> list[Message]:
        """Give a conversation manager its state, and return the messages that it puts first.

        Raises:
            ValueError: If the state is another kind of conversation manager's.
        """
        fresh = copy_containers(manager.get_state())
        try:
            if not _may_be_of(fresh, state):
                raise TypeError("it is misshapen")
            prepended = list(manager.restore_from_session(state) or ())
            if not all(map(is_message, prepended)):
                raise TypeError("it has messages that are none")
        except _MISFITS as error:
            name = state.get("__name__")
            if isinstance(name, str) and name != fresh.get("__name__"):
                raise
            manager.restore_from_session(fresh)
            why = f"its field 'conversation_manager_state' can't be restored: {error!r}"
            self._pass_over(
                self._codec.corrupt_agent(key, why), "the conversation manager begins anew"
            )
            return []
        return prepended

    def multi_agent(self, source: Any, key: AgentKey, found: CachedMultiAgent) -> None:
        """Give a graph or swarm its state; it begins anew where its row can't be read.

        Raises:
            CorruptRowError: If the row can't be written, or can't be read and that is an error.
        """
        if found.problem:
            raise self._codec.corrupt_multi_agent(key, found.problem)
        fresh = copy_containers(source.serialize_state())
        try:
            state = self._codec.read_multi_agent(key, found.data)
        except CorruptRowError as error:
            self._pass_over(error, _BEGINS_ANEW)
            return
        try:
            source.deserialize_state(state)
        except _MISFITS as error:
            source.deserialize_state(fresh)
            lost = self._codec.corrupt_multi_agent(key, f"it can't be restored: {error!r}")
            self._pass_over(lost, _BEGINS_ANEW)

    def _pass_over(self, error: CorruptRowError, cost: str) -> None:
        """Warn of a row that can't be read, or raise where that is an error."""
        if self._strict:
            raise error
        warn_of_unreadable_row(error, cost)


def _may_be_of(fresh: dict[str, Any], state: dict[str, Any]) -> bool:
    """Whether a conversation manager's state has numbers where a new one's has them."""
    return all(
        isinstance(state.get(name, value), int | float)
        for name, value in fresh.items()
        if isinstance(value, int | float)
    )
