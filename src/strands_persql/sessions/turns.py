"""Turns: from a prompt to the end of its invocation, wherever that continues."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from strands.types.content import Message

from strands_persql.runtime.ids import new_id
from strands_persql.sessions import upstream
from strands_persql.sessions.history import Entry, HistoryEntry
from strands_persql.sessions.known_history import KnownHistory
from strands_persql.sessions.pending import PendingChanges
from strands_persql.sessions.tool_calls import answered_ids, is_prompt


@dataclass
class Turn:
    """A turn of the agent's own.

    Attributes:
        turn_id: Its id, which its rows carry.
        entries: Its messages in order, stored ones and pending ones.
        left_behind: Those of them that the agent has gone back behind.
    """

    turn_id: str
    entries: list[HistoryEntry] = field(default_factory=list)
    left_behind: list[HistoryEntry] = field(default_factory=list)

    @property
    def stored(self) -> list[HistoryEntry]:
        """Its messages that have rows, which are side by side."""
        return [entry for entry in self.entries if entry.message_id is not None]

    @property
    def first_id(self) -> int | None:
        """The id of its first message, or None where none is stored."""
        for entry in self.entries:
            if entry.message_id is not None:
                return entry.message_id
        return None

    @property
    def last(self) -> HistoryEntry | None:
        """Its last message that has a row, or None."""
        return next((one for one in reversed(self.entries) if one.message_id is not None), None)


class Turns:
    """The agent's own turns: the one under way, and the one before it.

    Args:
        history: What is known of the agent's history.
        pending: What is to be stored.

    Attributes:
        current: The turn under way, or None.
        last: The latest turn that has ended or stopped, or None.
        is_invoked: Whether an invocation is under way.
        stops_at_checkpoint: Whether the last invocation stopped at a checkpoint of Strands.
        answered_id: The turn whose interrupts the invocation has answered, or None.
    """

    def __init__(self, history: KnownHistory, pending: PendingChanges) -> None:
        """Begin without a turn."""
        self.current: Turn | None = None
        self.last: Turn | None = None
        self.is_invoked = self.stops_at_checkpoint = False
        self.answered_id: str | None = None
        self._history = history
        self._pending = pending

    @property
    def goes_on(self) -> bool:
        """Whether the current turn is under way, so that it moves behind the others', whole."""
        return self.is_invoked or bool(self._pending.messages)

    @property
    def current_id(self) -> str:
        """The id of the turn under way, or nothing."""
        return "" if self.current is None else self.current.turn_id

    @property
    def current_first_id(self) -> int | None:
        """The id of the first message of the turn under way, or None where none is stored."""
        return None if self.current is None else self.current.first_id

    @property
    def latest_id(self) -> str:
        """The id of the turn under way or else of the last one, or nothing."""
        latest = self.current or self.last
        return "" if latest is None else latest.turn_id

    @property
    def own_ids(self) -> set[str]:
        """The ids of both turns."""
        return {turn.turn_id for turn in (self.current, self.last) if turn is not None}

    @property
    def current_stored(self) -> list[HistoryEntry]:
        """The messages of the turn under way that have rows."""
        return [] if self.current is None else self.current.stored

    @property
    def left_behind(self) -> list[HistoryEntry]:
        """The messages of the turn under way that the agent has gone back behind."""
        return [] if self.current is None else self.current.left_behind

    def begin_invocation(self) -> None:
        """Note that the agent was invoked."""
        self.end()
        self.is_invoked, self.stops_at_checkpoint = True, False

    def end(self) -> None:
        """End the turn under way."""
        # A change set belongs to one turn, so the turn stays open while messages are pending.
        if self.current is not None and not self._pending.messages:
            self.last, self.current = self.current, None

    def turn_of(self, message: Message) -> tuple[Turn, bool]:
        """Return the turn that a message said now belongs to, and whether it begins with it."""
        answers = bool(answered_ids(message))
        if not self.is_invoked and message["role"] == "user" and not answers:
            self.end()
        if self.current is not None:
            return self.current, False
        if answers and self.last is not None:
            self.current = self.last
        else:
            self.current = Turn(new_id())
        return self.current, True

    def go_back(self, entries: Sequence[Entry]) -> None:
        """Take the last message that an agent has in memory for the latest one, and its turn."""
        said = [one for one in entries if isinstance(one, HistoryEntry)]
        self._pending.latest = said[-1] if said else None
        turn_id = said[-1].turn if said else ""
        self.last = Turn(turn_id, self._history.of_turn(turn_id)) if turn_id else None

    def stopped_id(self, agent: Any) -> str:
        """Return the id of the turn that an agent goes on with, or nothing."""
        state = upstream.interrupts(agent)
        if isinstance(state, upstream.WaitingInterrupts) and state.activated:
            return state.turn_id
        latest = self.current or self.last  # the current one couldn't be stored as it ended
        return latest.turn_id if latest and latest.entries else self._history.stopped_turn()

    def is_known_whole(self, turn_id: str) -> bool:
        """Whether all messages of a turn are known, also where the view has a part of it."""
        if not turn_id or turn_id in self.own_ids:
            return True
        first = next(iter(self._history.of_turn(turn_id)), None)
        return first is not None and first.message is not None and is_prompt(first.message)

    def with_id(self, turn_id: str) -> Turn | None:
        """Return a turn that the agent goes on with, or None where nothing of it is known."""
        for turn in (self.current, self.last):
            if turn is not None and turn.turn_id == turn_id:
                return turn
        entries = self._history.of_turn(turn_id) if turn_id else []
        return Turn(turn_id, entries) if entries else None

    def wait_for_answers(self, agent: Any, waiting: Mapping[str, dict[str, Any]]) -> None:
        """Have an agent that waits for answers know whose turn they go on with, or that none is.

        Args:
            agent: The agent.
            waiting: The interrupts that wait in the session, by their turns.
        """
        turn_id = self._interrupted(agent, waiting) if upstream.is_interrupted(agent) else ""
        others = {turn: state for turn, state in waiting.items() if turn != turn_id}
        upstream.wait_for_answers(agent, turn_id, others)

    def _interrupted(self, agent: Any, waiting: Mapping[str, dict[str, Any]]) -> str:
        state = upstream.interrupts(agent)
        ids = set() if state is None else set(state.interrupts)
        found = [turn for turn, one in waiting.items() if set(one.get("interrupts", ())) == ids]
        latest = self.current or self.last
        if latest is not None and (latest.turn_id in found or not found):
            return latest.turn_id
        return found[0] if found else self._history.stopped_turn()

    def refuse(self, turn_id: str, waiting: Collection[str]) -> None:
        """Note that a turn that the agent was to go on with has been continued elsewhere.

        Args:
            turn_id: The turn.
            waiting: The turns that wait for answers, maybe this one for more of them.
        """
        self.is_invoked, self.current, self.last = False, None, None
        if turn_id in waiting:
            self.last = Turn(turn_id, self._history.of_turn(turn_id))
