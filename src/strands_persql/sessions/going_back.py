"""What a manager does with checkpoints."""

from typing import Any

from strands_persql.errors import AccessDeniedError
from strands_persql.persistence.checkpoints import Checkpoint
from strands_persql.persistence.compare_and_swap import not_found
from strands_persql.persistence.store import SessionStore
from strands_persql.runtime.ids import AgentKey
from strands_persql.sessions.read_only import NothingStored
from strands_persql.sessions.repository import PerSQLSessionRepository
from strands_persql.sessions.stored_agent import Point, rewind
from strands_persql.sessions.unit_of_work import UnitOfWork


class GoesBack:
    """The checkpoints of a manager's agents: kept, listed, and gone back to."""

    session_id: str
    session_repository: PerSQLSessionRepository
    _store: SessionStore

    def _unit(self, agent: Any) -> UnitOfWork | NothingStored:
        raise NotImplementedError

    def _writing_unit(self, agent: Any) -> UnitOfWork:
        unit = self._unit(agent)
        if isinstance(unit, NothingStored):
            raise AccessDeniedError(
                "this manager is read only (read_only=True): nothing was sent. Open the session"
                " with another one",
                session_id=self.session_id,
                agent_id=agent.agent_id,
            )
        return unit

    def checkpoint(self, agent: Any, label: str | None = None) -> Checkpoint:
        """Keep a point to go back to: what an agent works with now, and its state.

        One round trip, which stores what has changed too. No message is copied, so that a
        redaction of one reaches every checkpoint.

        Args:
            agent: The agent.
            label: What to call it.

        Raises:
            AccessDeniedError: If the manager is read only.
            ConflictError: With ``on_conflict="raise"``, if another writer came first.
            PerSQLError: If it could not be stored.
        """
        return self._writing_unit(agent).keep_checkpoint(agent, label or "")

    def checkpoints(self, agent: Any) -> list[Checkpoint]:
        """Return an agent's checkpoints, whoever made them, oldest first.

        Args:
            agent: The agent.

        Raises:
            PerSQLError: If the database can't be asked.
        """
        return self.session_repository.list_checkpoints(self.session_id, agent.agent_id)

    def rewind(self, agent: Any, to: Point) -> None:
        """Go back: the agent works on from an earlier point, and so does who opens the session.

        One round trip. What was said since stays in the transcript, until it is truncated. To a
        checkpoint, all is as it was: messages, state, conversation manager and interrupts. To a
        message, or by turns, the latest messages are dropped, with the interrupts that they wait
        for; the state stays.

        What another writer has said meanwhile, unseen by this agent, stays.

        Args:
            agent: The agent, between two turns.
            to: A checkpoint or its id; a message that the agent works with, to be its last one, as
                the agent has it or as the repository has read it; or how many of its latest turns
                to drop.

        Raises:
            AccessDeniedError: If the manager is read only.
            ConflictError: With ``on_conflict="raise"``, if another writer came first.
            NotFoundError: If the checkpoint isn't there.
            PerSQLError: If a turn is under way, or it could not be stored.
            ValueError: If there is no such message, there aren't as many turns, or the checkpoint
                is another agent's.
        """
        rewind(self._writing_unit(agent), agent, AgentKey(self.session_id, agent.agent_id), to)

    def truncate(self, agent: Any) -> int:
        """Delete for good what an agent has gone back behind, and what checkpoints have of it.

        The agent goes on with what it works with; where it is open elsewhere it is to be opened
        again, for its next write there raises `NotFoundError`. What isn't stored yet is stored
        first.

        Args:
            agent: The agent, between two turns.

        Returns:
            How many messages were deleted; 0 where the agent has never gone back.

        Raises:
            AccessDeniedError: If the manager is read only.
            ConflictError: With ``on_conflict="raise"``, if another writer came first.
            PerSQLError: If a turn is under way, or it could not be done.
        """
        unit = self._writing_unit(agent)
        key = AgentKey(self.session_id, agent.agent_id)
        with unit.lock:
            unit.settle_before_going_back(agent)
            unit.commit(agent)
            count = self.session_repository.truncate_session(*key)
            found = self._store.agent(key)
            if found is None:
                raise not_found("agent", key)
            unit.begin_again(agent, found)
        return count
