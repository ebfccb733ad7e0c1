"""Going back: checkpoints of an agent that is open, and what it drops."""

from typing import Any

from strands.types.content import Message
from strands.types.session import SessionMessage

from strands_persql.errors import ConflictError, PerSQLError
from strands_persql.persistence.cached import CachedAgent
from strands_persql.persistence.changes import NewCheckpoint
from strands_persql.persistence.checkpoints import Checkpoint
from strands_persql.persistence.compare_and_swap import InDoubtError
from strands_persql.persistence.store import SessionStore
from strands_persql.runtime.ids import new_id
from strands_persql.sessions import upstream
from strands_persql.sessions.drafting import Plan
from strands_persql.sessions.history import HistoryEntry
from strands_persql.sessions.rewinding import Known, Rewinder, count_kept
from strands_persql.sessions.synchronizer import Synchronizer
from strands_persql.sessions.tracked_agent import TrackedAgent
from strands_persql.sessions.turns import Turn


class AgentPast:
    """What an agent that is open can go back to. Its callers hold the agent's lock.

    Args:
        store: Where sessions are.
        tracked: What is known of the agent.
        sync: What stores its changes.
    """

    def __init__(self, store: SessionStore, tracked: TrackedAgent, sync: Synchronizer) -> None:
        """Initialize."""
        self._store = store
        self._key = tracked.key
        self._history = tracked.history
        self._pending = tracked.pending
        self._turns = tracked.turns
        self._view = tracked.view
        self._sync = sync
        self._in_doubt = ("", "")  # to which checkpoint, and the id of the write

    def keep(self, agent: Any, label: str) -> Checkpoint:
        """Store what has changed, and keep a checkpoint of the agent as it is then.

        Args:
            agent: The agent.
            label: What the checkpoint is called.

        Raises:
            PerSQLError: If that failed.
        """
        self._sync.check_fence()
        self._sync.settle_in_doubt(agent)
        new = NewCheckpoint(new_id(), label, self._turns.latest_id)
        while (kept := self._sync.kept.get(new.checkpoint_id)) is None:
            self._sync.store(agent, Plan(new_id(), checkpoint=new))
        self._sync.kept.clear()
        return kept

    def go_back(self, agent: Any, to: Message | SessionMessage | int) -> None:
        """Drop the latest of the messages that an agent works with.

        Args:
            agent: The agent.
            to: The last message to keep, or how many turns to drop.

        Raises:
            PerSQLError: If that could not be stored. It goes out with the next change set.
            ValueError: If there is no such message, or there aren't as many turns.
        """
        self.settle(agent)
        entries = self._view.in_memory(agent)
        kept = count_kept(to, agent.messages, entries)
        dropped = [one for one in entries[kept:] if isinstance(one, HistoryEntry)]
        ids = [one.message_id for one in dropped if one.message_id is not None]
        if ids:
            self._pending.go_back(min(ids), self._history.newest)
        if kept < len(agent.messages):
            del agent.messages[kept:]
            self._turns.last = Turn(upstream.waiting_turn(agent))  # which waits no longer
            upstream.forget_interrupts(agent)
        self._sync.store_all(agent)
        self._turns.go_back(self._view.in_memory(agent))

    def rewind(self, agent: Any, checkpoint_id: str) -> CachedAgent:
        """Go back to a checkpoint, in the database.

        Args:
            agent: The agent.
            checkpoint_id: The checkpoint.

        Returns:
            The agent as it is to be restored now.

        Raises:
            ConflictError: If another writer came first and may not be merged with.
            NotFoundError: If the checkpoint isn't there.
        """
        self.settle(agent)
        in_doubt, write_id = self._in_doubt
        if in_doubt != checkpoint_id:
            write_id = new_id()
        known = Known(
            self._sync.base,
            self._view.stored,
            self._history.writes,
            self._history.complete_to,
            self._history.newest,
            self._turns.latest_id,
        )
        try:
            return Rewinder(self._store, self._key, checkpoint_id, write_id).rewind(known)
        except InDoubtError as error:
            self._in_doubt = checkpoint_id, write_id
            raise error.error from error
        except ConflictError as error:
            self._sync.fence = None if self._store.is_merging else error
            raise

    def settle(self, agent: Any) -> None:
        """Store what is pending, and learn what is in doubt.

        Raises:
            PerSQLError: If that failed, or a turn is under way.
        """
        self._sync.check_fence()
        if self._turns.is_invoked:
            raise PerSQLError(
                f"agent {self._key.agent_id!r} of session {self._key.session_id!r} is in the middle"
                " of a turn; go back when the turn has ended",
                **self._key.context,
            )
        self._sync.settle_in_doubt(agent)
        if self._pending.has_any:
            self._sync.store_all(agent)
