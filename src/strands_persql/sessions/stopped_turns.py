"""Turns that have stopped, and continue: claimed, so that only one writer continues them."""

from typing import Any

from strands_persql.persistence.cached import StoredMessage
from strands_persql.persistence.changes import Claim
from strands_persql.persistence.store import SessionStore
from strands_persql.runtime.ids import new_id
from strands_persql.sessions import upstream
from strands_persql.sessions.content import waiting_turns
from strands_persql.sessions.drafting import Plan
from strands_persql.sessions.synchronizer import Synchronizer
from strands_persql.sessions.tracked_agent import TrackedAgent
from strands_persql.sessions.turns import Turn
from strands_persql.tables import checkpointing


class StoppedTurns:
    """The turns of an agent that may continue: after an interrupt, an error or a checkpoint.

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
        self._turns = tracked.turns
        self._view = tracked.view
        self._sync = sync

    def claim(self, agent: Any) -> None:
        """Claim the turn that an agent continues, and move it behind what others have said since.

        Raises:
            ConflictError: If it has been continued elsewhere.
            PerSQLError: If that could not be stored.
        """
        turn_id = self._turns.stopped_id(agent)
        if not self._turns.is_known_whole(turn_id):
            self._read_turn(agent, turn_id)
        turn = self._turns.with_id(turn_id)
        last = None if turn is None else turn.last
        state = upstream.interrupts(agent)
        if isinstance(state, upstream.WaitingInterrupts):
            self._turns.answered_id = state.turn_id
        if turn is None or last is None or not last.write_id or last.message_id is None:
            if upstream.is_interrupted(agent):  # nothing was said before it stopped
                self._sync.store(agent, Plan(new_id(), answers=True))
            return
        self._learn_end(turn)
        last = turn.last or last
        self._turns.current = turn
        claim = Claim(last.message_id or 0, last.write_id, last.claim)
        is_waiting = turn.turn_id in waiting_turns(self._sync.base.content)
        state_changes = is_waiting or upstream.is_interrupted(agent)
        self._sync.store(agent, Plan(new_id(), state=state_changes, claim=claim))

    def _learn_end(self, turn: Turn) -> None:
        """Read where a turn ends that the agent may have gone back into.

        It goes on behind all that it ever said, for its rows are side by side.
        """
        start, shown = self._sync.base.view.start, {*self._view.stored}
        early = [e.message_id for e in turn.stored if e in shown and (e.message_id or 0) < start]
        if not early:
            return
        statement = checkpointing.read_rest_of_turn(
            self._store.tables,
            self._key,
            turn.turn_id,
            after=early[-1] or 0,
            before=start,
        )
        rows = [row for row in self._store.rows(statement, *self._key) if row["is_rewound"]]
        turn.left_behind = [self._history.know(StoredMessage.of(row)) for row in rows]
        entries = dict.fromkeys([*turn.entries, *turn.left_behind])
        turn.entries = sorted(entries, key=lambda one: one.message_id or 0)

    def _read_turn(self, agent: Any, turn_id: str) -> None:
        """Read a turn that the agent goes on with, of which its view has a part, or nothing."""
        was_known = bool(self._history.of_turn(turn_id))
        self._history.learn(self._store.read_turn(self._key, turn_id))
        if not was_known:
            self._view.bring_back(agent, self._history.of_turn(turn_id))
