"""Agents as they are stored, without their models and tools: enough to go back with."""

from contextlib import suppress
from typing import Any, TypeAlias, cast

from strands import Agent
from strands.agent.conversation_manager import ConversationManager
from strands.models.model import Model
from strands.types.content import Message
from strands.types.session import Session, SessionMessage

from strands_persql.errors import PerSQLError
from strands_persql.persistence.checkpoints import Checkpoint, Checkpoints
from strands_persql.persistence.compare_and_swap import not_found
from strands_persql.persistence.store import SessionStore
from strands_persql.runtime.containers import copy_containers
from strands_persql.runtime.ids import AgentKey
from strands_persql.sessions.restoring import Restorer
from strands_persql.sessions.session_records import SessionRecords
from strands_persql.sessions.unit_of_work import UnitOfWork

Point: TypeAlias = Checkpoint | str | Message | SessionMessage | int
"""Where an agent goes back to: a checkpoint or its id, its last message, or turns to drop."""


class _NoModel(Model):
    """A model that nobody asks."""

    def update_config(self, **_: Any) -> None:
        """Have no configuration."""

    def get_config(self) -> Any:
        """Return an empty configuration."""
        return {}

    def structured_output(self, *_: Any, **__: Any) -> Any:
        """Refuse."""
        raise NotImplementedError

    def stream(self, *_: Any, **__: Any) -> Any:
        """Refuse."""
        raise NotImplementedError


class _KeptState(ConversationManager):
    """Keeps the state of a conversation manager, whichever that is."""

    def __init__(self) -> None:
        super().__init__()
        self._state: dict[str, Any] = {}

    def restore_from_session(self, state: dict[str, Any]) -> list[Message] | None:
        """Take the state, and return the summary that rows of earlier versions have there."""
        self._state = copy_containers(state)
        summary = state.get("summary_message")
        return [cast(Message, summary)] if isinstance(summary, dict) else None

    def get_state(self) -> dict[str, Any]:
        """Return the state."""
        return self._state

    def apply_management(self, agent: Agent, **_: Any) -> None:
        """Manage nothing."""

    def reduce_context(self, agent: Agent, e: Exception | None = None, **_: Any) -> None:
        """Manage nothing."""


def rewind(unit: UnitOfWork, agent: Any, key: AgentKey, to: Point) -> None:
    """Have an agent go back.

    Args:
        unit: Its unit of work.
        agent: The agent.
        key: Which one it is.
        to: Where to.

    Raises:
        NotFoundError: If the checkpoint isn't there.
        PerSQLError: If a turn is under way, or it could not be stored.
        ValueError: If there is no such message, there aren't as many turns, or the checkpoint is
            another agent's.
    """
    if not isinstance(to, Checkpoint | str):
        unit.go_back(agent, to)
        return
    if isinstance(to, Checkpoint) and to.key != key:
        raise ValueError(
            f"to={to!r} | must be of agent {key.agent_id!r} of session {key.session_id!r}"
        )
    with unit.lock:
        checkpoint_id = to if isinstance(to, str) else to.checkpoint_id
        unit.rewind(agent, checkpoint_id)


def rewind_stored(store: SessionStore, key: AgentKey, to: Point) -> int:
    """Have an agent go back that nobody has open here; raises as `rewind` does.

    Returns:
        How many messages it works with.
    """
    agent, unit = _open(store, key)
    rewind(unit, agent, key, to)
    return len(agent.messages)


def fork_at(
    store: SessionStore,
    checkpoints: Checkpoints,
    session_id: str,
    copy: AgentKey,
    to: Message | SessionMessage | int,
) -> Session:
    """Copy a session, and have an agent of the copy go back for good.

    Where that fails the copy is deleted again; where its own answer was lost, it is finished when
    the same is asked for again.

    Args:
        store: Where the sessions are.
        checkpoints: What forks them.
        session_id: The session.
        copy: The agent in the copy.
        to: Where to.

    Raises:
        AlreadyExistsError: If the copy's id is taken.
        NotFoundError: If the session or the agent isn't there.
        ValueError: If there is no such message, or there aren't as many turns.
    """
    if store.open(session_id) is not None:
        original = AgentKey(session_id, copy.agent_id)
        if store.agent(original) is None:
            raise not_found("agent", original)
    session = checkpoints.fork(session_id, copy.session_id, None)
    try:
        rewind_stored(store, copy, to)
        checkpoints.truncate(copy)
    except BaseException:
        with suppress(PerSQLError):  # else it can be seen under its id, and deleted
            SessionRecords(store).delete(copy.session_id)
        raise
    return session


def _open(store: SessionStore, key: AgentKey) -> tuple[Agent, UnitOfWork]:
    opened = store.open(key.session_id)
    found = None if opened is None else store.agent(key)
    if found is None:
        raise not_found("agent", key)
    agent = Agent(
        agent_id=key.agent_id,
        model=_NoModel(),
        conversation_manager=_KeptState(),
        callback_handler=None,
    )
    fields, prepended = Restorer(store.codec, strict=False).agent(agent, key, found)
    unit = UnitOfWork(store, key, found, fields, defers=True)
    unit.restore(agent, prepended)
    return agent, unit
