"""What is between an agent and the database: it collects changes and stores them at once."""

from collections.abc import Sequence
from typing import Any

from strands.types.content import Message
from strands.types.session import SessionMessage

from strands_persql.persistence.cached import CachedAgent
from strands_persql.persistence.checkpoints import Checkpoint
from strands_persql.persistence.locks import AgentLock
from strands_persql.persistence.store import SessionStore
from strands_persql.runtime.ids import AgentKey, new_id
from strands_persql.sessions import upstream
from strands_persql.sessions.agent_past import AgentPast
from strands_persql.sessions.content import waiting_turns
from strands_persql.sessions.history import HistoryEntry
from strands_persql.sessions.restoring import Restorer
from strands_persql.sessions.stopped_turns import StoppedTurns
from strands_persql.sessions.synchronizer import Synchronizer
from strands_persql.sessions.tool_calls import is_open, is_placeholder
from strands_persql.sessions.tracked_agent import TrackedAgent


class UnitOfWork:
    """Collects what changes about an agent and stores it in one transaction.

    What could not be stored stays pending and goes out with the next change set, in order. What
    other writers have stored is brought into the agent's memory when its turn begins.

    All methods may be called from any thread.

    Args:
        store: Where sessions are.
        key: The agent.
        found: The agent's row and what it works with, as it was opened.
        fields: The row's decoded fields.
        defers: Whether messages are stored with their turn, not one by one.

    Attributes:
        lock: The lock of all who write this agent in this process.
    """

    def __init__(
        self,
        store: SessionStore,
        key: AgentKey,
        found: CachedAgent,
        fields: dict[str, Any],
        *,
        defers: bool,
    ) -> None:
        """Begin with an agent that was just opened or created."""
        self.lock: AgentLock = store.lock(key)
        self._store = store
        self._key = key
        self._defers = defers
        self._begin(found, fields)

    def _begin(self, found: CachedAgent, fields: dict[str, Any]) -> None:
        tracked = TrackedAgent(self._key, self._store.codec, found)
        base = self._store.base_of(self._key, found, fields)
        self._messages = tracked.messages
        self._history = tracked.history
        self._pending = tracked.pending
        self._turns = tracked.turns
        self._view = tracked.view
        self._sync = Synchronizer(self._store, tracked, base)
        self._stopped = StoppedTurns(self._store, tracked, self._sync)
        self._past = AgentPast(self._store, tracked, self._sync)

    # -- opening -------------------------------------------------------------------------------

    def restore(self, agent: Any, prepended: Sequence[Message]) -> None:
        """Put what the row's view has into an agent's memory.

        Args:
            agent: The agent.
            prepended: What its conversation manager puts first: rows of earlier versions don't
                say it themselves.
        """
        with self.lock:
            self._messages.attach(agent)
            if upstream.is_stateful(agent):
                return
            self._view.restore(agent, self._sync.base, prepended)
            self._turns.wait_for_answers(agent, waiting_turns(self._sync.base.own))

    def adopt(self, agent: Any) -> None:
        """Take an agent's messages for those that it was created with."""
        with self.lock:
            self._messages.attach(agent)
            self._view.adopt(agent)

    # -- turns ---------------------------------------------------------------------------------

    def begin_invocation(self) -> None:
        """Note that the agent was invoked.

        Raises:
            ConflictError: If an earlier conflict has fenced this unit of work off.
        """
        with self.lock:
            self._sync.check_fence()
            self._turns.begin_invocation()
            self._sync.asks_foreign, self._sync.has_failed = True, False

    def continue_turn(self, agent: Any) -> None:
        """Claim the turn that has stopped, and move it behind what others have said since.

        Raises:
            ConflictError: If it has been continued elsewhere.
            PerSQLError: If that could not be stored.
        """
        with self.lock:
            try:
                self._sync.settle_in_doubt(agent, continues=True)
                self._stopped.claim(agent)
            except BaseException:
                self._turns.is_invoked, self._turns.current = False, None
                upstream.take_back_answers(agent)
                raise

    def end_invocation(self, agent: Any, *, is_to_go_on: bool = False) -> None:
        """Store all that is pending and the agent's state, and end the turn.

        Args:
            agent: The agent.
            is_to_go_on: Whether the turn has stopped at a checkpoint of Strands.
        """
        with self.lock:
            self._turns.is_invoked = False
            self._turns.stops_at_checkpoint = is_to_go_on
            if self._view.is_out_of_order:
                self._view.is_out_of_order = False
                self._view.weave(agent, self._sync.base)
            try:
                if not self._sync.has_failed and self._sync.fence is None:
                    self.commit(agent)
            finally:
                self._turns.end()
                self._turns.answered_id = None
                self._turns.wait_for_answers(agent, waiting_turns(self._sync.base.own))

    def close(self, agent: Any) -> None:
        """Store all that is pending, for nothing comes after it."""
        with self.lock:
            if self._sync.fence is None:
                self.commit(agent)

    # -- what changes --------------------------------------------------------------------------

    def add(self, message: Message, agent: Any) -> None:
        """Take a message to be stored with the next change set.

        Raises:
            ConflictError: If an earlier conflict has fenced this unit of work off.
            InvalidDataError: If JSON can't hold it; it isn't taken.
            TooLargeError: If no row can hold it; it isn't taken.
        """
        with self.lock:
            self._sync.check_fence()
            if self._sync.has_failed and self._pending.has_message(message):
                return  # it could not be stored before, and goes out now
            if self._view.replaces(message, agent) or self._is_for_memory_alone(message):
                return
            entry = HistoryEntry(SessionMessage.from_message(message, 0), new_id(), "")
            self._pending.encode(entry)
            turn, begins = self._turns.turn_of(message)
            self._sync.asks_foreign = self._sync.asks_foreign or begins
            entry.turn = turn.turn_id
            entry.was_in_memory = any(one is message for one in reversed(agent.messages))
            turn.entries.append(entry)
            self._pending.append(entry)

    def _is_for_memory_alone(self, message: Message) -> bool:
        """Whether a message is a placeholder for a result that another writer may yet store.

        The other writer may still be running the tool. Its own result belongs beside its calls,
        and an agent that opens the session without one gets a placeholder from Strands.
        """
        if self._turns.goes_on:
            return False
        calls = self._history.last()
        if calls is None or calls.message is None:
            return False
        is_foreign = calls.turn not in self._turns.own_ids
        is_for_memory = is_foreign and is_placeholder(message, calls.message)
        if is_for_memory:
            upstream.mark_placeholder(message, calls.message)
        return is_for_memory

    def redact_latest(self, redacted: Message, agent: Any) -> bool:
        """Redact a message, each time that it was said, or the latest one where it is not known.

        Returns:
            Whether there was a message to redact.
        """
        with self.lock:
            self._sync.check_fence()
            found, content = self._view.take_redaction(redacted, agent)
            self._pending.redact(found, content)
            return bool(found) or self._pending.latest is not None

    @property
    def is_due(self) -> bool:
        """Whether what is pending is to be stored now.

        An assistant's message that calls no tool is stored with the turn's end, a moment later;
        with a deferred turn everything is, unless it is more than one transaction stores.
        """
        pending = self._pending.messages
        if not self._turns.is_invoked or not pending or self._pending.is_full:
            return True
        last = pending[-1].message
        return not self._defers and (last is None or is_open(last))

    @property
    def waits_for_turn(self) -> bool:
        """Whether messages are stored when the invocation under way ends."""
        return self._defers and self._turns.is_invoked

    def has_changes(self, agent: Any) -> bool:
        """Whether there is anything to store, or anything unsure."""
        with self.lock:
            return self._sync.has_changes(agent)

    # -- storing -------------------------------------------------------------------------------

    def commit(self, agent: Any, *, state: bool = True, messages: bool = True) -> None:
        """Store what has changed, in as few round trips as the database's limits allow.

        Args:
            agent: The agent, whose memory and state are given what other writers have stored.
            state: Whether to store its state too.
            messages: Whether to store new messages and what the agent works with; redactions are
                stored in any case.

        Raises:
            PerSQLError: If that failed. What is pending goes out with the next change set.
        """
        with self.lock:
            self._sync.store_all(agent, state=state, messages=messages)

    # -- going back ----------------------------------------------------------------------------

    def keep_checkpoint(self, agent: Any, label: str) -> Checkpoint:
        """Store what has changed, and keep a checkpoint of the agent as it is then.

        Raises:
            PerSQLError: If that failed.
        """
        with self.lock:
            return self._past.keep(agent, label)

    def go_back(self, agent: Any, to: Message | SessionMessage | int) -> None:
        """Drop the latest of the messages that an agent works with; see `AgentPast.go_back`."""
        with self.lock:
            self._past.go_back(agent, to)

    def rewind(self, agent: Any, checkpoint_id: str) -> None:
        """Go back to a checkpoint; see `AgentPast.rewind`."""
        with self.lock:
            self.begin_again(agent, self._past.rewind(agent, checkpoint_id))

    def settle_before_going_back(self, agent: Any) -> None:
        """Store what is pending, and learn what is in doubt; see `AgentPast.settle`."""
        with self.lock:
            self._past.settle(agent)

    def begin_again(self, agent: Any, found: CachedAgent) -> None:
        """Restore an agent as it is now.

        Args:
            agent: The agent.
            found: Its row, and what it works with.
        """
        with self.lock:
            restorer = Restorer(self._store.codec, strict=False)
            fields, prepended = restorer.agent(agent, self._key, found)
            self._begin(found, fields)
            self.restore(agent, prepended)
