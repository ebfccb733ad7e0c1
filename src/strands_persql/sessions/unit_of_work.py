"""What a manager holds of one agent: its unsaved messages, its turn, and what it knows."""

import logging
import threading
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from strands.types.content import Message
from strands.types.session import SessionAgent, SessionMessage

from strands_persql.errors import ConflictError
from strands_persql.gateway.transport import new_write_id
from strands_persql.persistence.cached import AgentSnapshot, MessageRow
from strands_persql.persistence.committer import (
    MAX_BYTES,
    MAX_MESSAGES,
    MAX_REWRITES,
    Base,
    Moment,
    NewMessage,
    Outcome,
    Rewrite,
    now,
)
from strands_persql.persistence.merge import merge, same
from strands_persql.persistence.store import SessionStore
from strands_persql.runtime.forks import renew_after_fork
from strands_persql.runtime.threads import Queue
from strands_persql.sessions.tool_calls import answered, called, continues, mark, places, stands_in
from strands_persql.tables.codec import removed_messages, without_times
from strands_persql.tables.encoding import to_fields, to_json
from strands_persql.tables.schema import Row

logger = logging.getLogger(__name__)

_MAX_ID = 2**53
_PREPENDED = 1  # messages that a conversation manager puts before those of the session


@dataclass(order=True)
class _Known:
    """A message that the agent has in memory and the database has stored."""

    message_id: int
    write_id: str = field(compare=False)
    version: int = field(compare=False)
    turn_id: str = field(compare=False)
    record: SessionMessage = field(compare=False)


@dataclass
class _Unsaved:
    """A message that the agent has in memory and the database may not have."""

    write_id: str
    record: SessionMessage
    row: Row | None = None
    tried: bool = False


@dataclass
class _Turn:
    turn_id: str
    first: int | None = None
    interleaved: bool = False  # with another writer's, which is yet to be read


class AgentHolder:
    """Stands between an agent and the database.

    It collects what changes at one moment and stores it at once; what could not be stored stays
    unsaved and goes out with the next moment, in order. It knows which messages the agent has in
    memory, so that another writer's are brought in once, at the start of a turn.

    All methods may be called from any thread.

    Args:
        store: Where sessions are.
        session_id: The session.
        agent_id: The agent.
        agent: The agent as it was opened.
        records: The messages that the agent has been handed.
        rows: Their rows.
    """

    def __init__(
        self,
        store: SessionStore,
        session_id: str,
        agent_id: str,
        agent: AgentSnapshot,
        records: Sequence[SessionMessage],
        rows: Sequence[MessageRow],
    ) -> None:
        """Hold an agent that was just opened."""
        self.queue = Queue()
        self._store = store
        self._session_id = session_id
        self._agent_id = agent_id
        self.after_fork()
        renew_after_fork(self)
        self._base: Base = store.base_of(session_id, agent_id, agent)
        self._content_text = ""  # the JSON that `known` was encoded as, to tell cheaply
        self._known = [
            _Known(row.message_id, row.write_id, row.version, row.turn, record)
            for row, record in zip(rows, records, strict=True)
        ]
        self._latest: _Known | _Unsaved | None = self._known[-1] if self._known else None
        self._after = agent.next_id - 1  # the highest id known to be taken
        self._complete_to = self._after  # no other writer's finished turn is missing up to it
        self._unsaved: list[_Unsaved] = []
        self._rewrites: list[Rewrite] = []
        self._turn: _Turn | None = None
        self._last_turn: _Turn | None = None
        self._invoked = False
        self._asks_for_others = False
        self._failed = False
        self._fence: ConflictError | None = None

    def after_fork(self) -> None:
        """Begin with a lock that no thread of the parent holds."""
        self._lock = threading.RLock()

    # -- turns ---------------------------------------------------------------------------------

    def begin_invocation(self) -> None:
        """Note that the agent was invoked.

        Raises:
            ConflictError: If the holder was fenced off by an earlier conflict.
        """
        with self._lock:
            self._check_fence()
            self._end_turn()
            self._invoked, self._asks_for_others, self._failed = True, True, False

    def end_invocation(self, agent: Any) -> None:
        """Store all that is unsaved and the agent's state, and end the turn."""
        with self._lock:
            self._invoked = False
            if not self._failed and self._fence is None:
                self.commit(agent)
            self._end_turn()

    def continue_last_turn(self) -> None:
        """Go on with the turn that an interrupted invocation, maybe of another process, left."""
        with self._lock:
            turn_id = self._known[-1].turn_id if self._known else ""
            ids = [one.message_id for one in self._known if one.turn_id == turn_id]
            if turn_id and ids:
                self._last_turn = _Turn(turn_id, ids[0])

    def _end_turn(self) -> None:
        # While something is unsaved its turn goes on, for a moment is of one turn.
        if self._turn is None or self._unsaved:
            return
        if not self._turn.interleaved:
            self._complete_to = max(self._complete_to, self._after)
        self._last_turn, self._turn = self._turn, None

    def _open_turn(self, message: Message) -> None:
        answers_tools = bool(answered(message))
        if not self._invoked and message["role"] == "user" and not answers_tools:
            self._end_turn()
        if self._turn is None:
            self._asks_for_others = True
            goes_on = answers_tools and self._last_turn is not None
            self._turn = self._last_turn if goes_on else _Turn(new_write_id())

    def close(self, agent: Any) -> None:
        """Store all that is unsaved, for nothing comes after it."""
        with self._lock:
            if self._fence is None:
                self.commit(agent)

    # -- what changes --------------------------------------------------------------------------

    def add(self, message: Message, agent: Any) -> None:
        """Take a message to be stored with the next moment.

        A message that replaced the latest one in the agent's memory, with more content, replaces
        it here too; one that could not be stored before, and is added again, stays one.

        Raises:
            ConflictError: If the holder was fenced off by an earlier conflict.
            InvalidDataError: If JSON can't hold it; it isn't taken.
            TooLargeError: If no row can hold it; it isn't taken.
        """
        with self._lock:
            self._check_fence()
            if any(one.tried and one.record.message is message for one in self._unsaved):
                return  # it is held already, and goes out now
            latest = self._latest
            if latest is not None and continues(latest.record.message, message, agent.messages):
                latest.record.message = message
                self._rewrite(latest)
                return
            if self._is_for_memory_alone(message):
                return
            record = SessionMessage.from_message(message, self._after + 1 + len(self._unsaved))
            unsaved = _Unsaved(new_write_id(), record)
            self._encode(unsaved)
            self._open_turn(message)
            self._unsaved.append(unsaved)
            self._latest = unsaved

    def redact_latest(self, redacted: Message) -> bool:
        """Replace the latest message, and each earlier one that is the same object.

        Returns:
            Whether there was a message to redact.
        """
        with self._lock:
            self._check_fence()
            latest = self._latest
            if latest is None:
                return False
            latest.record.redact_message = redacted
            latest.record.updated_at = now()
            self._rewrite(latest)
            everything: list[_Known | _Unsaved] = [*self._known, *self._unsaved]
            for one in everything:
                if one is not latest and one.record.to_message() is redacted:
                    one.record.updated_at = now()
                    self._rewrite(one)
            return True

    @property
    def is_invoked(self) -> bool:
        """Whether an invocation of the agent is under way."""
        return self._invoked

    @property
    def has_unsaved(self) -> bool:
        """Whether messages wait to be stored."""
        return bool(self._unsaved)

    @property
    def is_full(self) -> bool:
        """Whether as much waits as one transaction stores."""
        size = sum(len(one.row.data) for one in self._unsaved if one.row)
        return len(self._unsaved) >= MAX_MESSAGES or size * 2 > MAX_BYTES

    def _is_for_memory_alone(self, message: Message) -> bool:
        """Tell whether a message stands in for an answer that another writer may yet store.

        It waits for its tool right now, maybe. Its own answer belongs beside its calls, and
        whoever opens the session without one is given a stand-in by Strands, as this agent is.
        """
        calls = self._known[-1] if self._known and not self._unsaved else None
        if calls is None or self._invoked or calls.turn_id in self._own_turns():
            return False
        return stands_in(message, calls.record.to_message())

    def _own_turns(self) -> set[str]:
        return {turn.turn_id for turn in (self._turn, self._last_turn) if turn is not None}

    def _rewrite(self, one: "_Known | _Unsaved") -> None:
        if isinstance(one, _Unsaved):
            self._encode(one)
            if not one.tried:
                return
            # The database may have it as it was.
            first, last = self._after + 1, _MAX_ID
        else:
            # Rows of 0.1 have no write id, and don't move.
            first, last = one.message_id, _MAX_ID if one.write_id else one.message_id
        row = self._store.codec.message(self._session_id, self._agent_id, one.record)
        self._rewrites.append(Rewrite(first, last, one.write_id, new_write_id(), row))

    def _encode(self, unsaved: _Unsaved) -> None:
        unsaved.row = self._store.codec.message(self._session_id, self._agent_id, unsaved.record)

    # -- storing -------------------------------------------------------------------------------

    def commit(self, agent: Any, *, state: bool = True, messages: bool = True) -> None:
        """Store what is unsaved, in as few round trips as the database's limits allow.

        Args:
            agent: The agent, whose memory and state take in what other writers have stored.
            state: Whether to store its state too.
            messages: Whether to store its messages too; redactions are stored in any case.

        Raises:
            PerSQLError: If that failed. What is unsaved goes out with the next moment.
        """
        with self._lock:
            self._check_fence()
            content = self._content(agent) if state else None
            pending = self._unsaved if messages else []
            if not pending and not self._rewrites and content is None:
                return
            portion = _portion(pending)
            while len(portion) < len(pending) or len(self._rewrites) > MAX_REWRITES:
                self._commit_some(agent, portion, None)
                pending = self._unsaved if messages else []
                portion = _portion(pending)
            self._commit_some(agent, pending, content)

    def _commit_some(
        self, agent: Any, pending: Sequence[_Unsaved], content: tuple[str, dict[str, Any]] | None
    ) -> None:
        turn = self._turn or _Turn("")
        had = self._base.known if content is None else content[1]
        tried = any(one.tried for one in pending)
        trimmed = content is not None and removed_messages(content[1]) != removed_messages(
            self._base.stored
        )
        moment = Moment(
            self._session_id,
            self._agent_id,
            self._base,
            content=None if content is None else content[1],
            window_start=self._first_in_memory(agent) if trimmed else None,
            messages=[NewMessage(one.write_id, one.row) for one in pending if one.row],
            rewrites=self._rewrites[:MAX_REWRITES],
            turn=turn.turn_id,
            first=self._after + 1 if turn.first is None and tried else turn.first,
            after=self._after,
            others=self._complete_to if pending and self._asks_for_others else None,
            previous_turn="" if self._last_turn is None else self._last_turn.turn_id,
        )
        try:
            outcome = self._store.commit(moment)
        except BaseException as error:
            if isinstance(error, ConflictError) and self._store.on_conflict == "raise":
                self._fence = error
            self._failed = True
            for one in pending:
                one.tried = True
            raise
        self._rewrites = self._rewrites[MAX_REWRITES:]
        if content is not None:
            self._content_text = content[0]
        if pending:
            self._take_ids(turn, pending, outcome)
        if moment.others is not None:
            self._take_in(agent, turn, outcome.others)
        if outcome.brought_in:
            self._content_text = ""
            _bring_in(agent.state, had["state"], self._base.known["state"])

    def _content(self, agent: Any) -> tuple[str, dict[str, Any]] | None:
        """Give the agent's content and its JSON, or None if the database has it."""
        fields = without_times(to_fields(agent_record(agent)))
        context = {"session_id": self._session_id, "agent_id": self._agent_id}
        text = to_json(fields, "agent's state", **context)
        if text == self._content_text:
            return None
        content = self._store.codec.read_agent_content(self._session_id, self._agent_id, text)
        if same(content, self._base.known):
            self._content_text = text
            return None
        return text, content

    def _first_in_memory(self, agent: Any) -> int | None:
        """Give the id of the first message that the agent still has, or None if it can't be told.

        It can't where the agent's messages were replaced by copies that nothing marks.
        """
        ids = {mark(one.record.to_message()): self._after + 1 for one in self._unsaved}
        ids |= {mark(one.record.to_message()): one.message_id for one in self._known}
        found = [ids.get(mark(message)) for message in agent.messages]
        unknown = next((i for i, one in enumerate(found) if one is not None), len(found))
        if unknown > _PREPENDED:
            return None
        return min((one for one in found if one is not None), default=self._after + 1)

    def _take_ids(self, turn: _Turn, pending: Sequence[_Unsaved], outcome: Outcome) -> None:
        if len(outcome.ids) > len(pending):  # the turn has moved behind another writer's
            turn.first, turn.interleaved = None, True
            for known in self._known:
                moved_to = outcome.ids.get(known.write_id, known.message_id)
                known.message_id = known.record.message_id = moved_to
            self._known.sort()
        for one in pending:
            stored_at = one.record.message_id = outcome.ids[one.write_id]
            known = _Known(stored_at, one.write_id, 1, turn.turn_id, one.record)
            insort(self._known, known)
            if one is self._latest:
                self._latest = known
        self._unsaved = self._unsaved[len(pending) :]
        if turn.first is None:
            turn.first = min(outcome.ids.values())
        self._after = max(self._after, *outcome.ids.values())

    # -- other writers' messages ---------------------------------------------------------------

    def _take_in(self, agent: Any, turn: _Turn, rows: Sequence[MessageRow]) -> None:
        """Bring other writers' finished turns into the agent's memory, where they belong."""
        assert turn.first is not None
        complete_to, self._complete_to = self._complete_to, max(self._complete_to, turn.first)
        self._asks_for_others = turn.interleaved = False
        if getattr(agent.model, "stateful", False):  # the conversation is the model server's
            self._known = [one for one in self._known if one.turn_id == turn.turn_id]
            return
        if len(self._known) > 2 * len(agent.messages) + MAX_MESSAGES or rows:
            self._forget_what_was_removed(agent, turn)
        if not rows:
            return
        by_write = {one.write_id: one for one in self._known if one.write_id}
        by_id = {one.message_id: one for one in self._known if not one.write_id}
        unfinished = self._unfinished_turns(rows)
        added = 0
        for row in rows:
            known = by_write.get(row.write_id) if row.write_id else by_id.get(row.message_id)
            if known is not None and known.version < row.version:
                self._replace_content(known, row)
            if known is not None and known.message_id != row.message_id:
                self._remove(agent.messages, known)
                known.message_id = row.message_id
                if row.turn not in unfinished:
                    self._insert(agent.messages, known, turn)
            elif known is None and row.message_id > complete_to and row.turn not in unfinished:
                self._insert(agent.messages, self._new_known(row), turn)
                added += 1
        if added:
            logger.debug(
                "session_id=<%s>, agent_id=<%s>, messages=<%d> | took in another writer's",
                self._session_id,
                self._agent_id,
                added,
            )

    def _forget_what_was_removed(self, agent: Any, turn: _Turn) -> None:
        in_memory = set(map(mark, agent.messages))
        self._known = [
            one
            for one in self._known
            if one.turn_id == turn.turn_id or mark(one.record.to_message()) in in_memory
        ]

    def _unfinished_turns(self, rows: Sequence[MessageRow]) -> set[str]:
        # A turn under way elsewhere is taken in when it has ended; it will stand behind ours then.
        last = {row.turn: row for row in rows if row.turn}
        unfinished = set()
        for turn_id, row in last.items():
            message = self._new_known(row).record.to_message()
            if message["role"] != "assistant" or called(message):
                unfinished.add(turn_id)
        return unfinished

    def _new_known(self, row: MessageRow) -> _Known:
        record = self._store.codec.read_message(self._session_id, self._agent_id, row)
        return _Known(row.message_id, row.write_id, row.version, row.turn, record)

    def _replace_content(self, known: _Known, row: MessageRow) -> None:
        fresh = self._new_known(row).record
        message: Any = known.record.to_message()
        message.clear()
        message.update(fresh.to_message())
        if fresh.redact_message is not None:
            known.record.redact_message = message
        known.version = row.version

    def _remove(self, messages: list[Message], known: _Known) -> None:
        self._known = [one for one in self._known if one is not known]
        place = next(places(messages, _messages([known])), None)
        if place is None:
            return
        calls = messages.pop(place)
        if messages[place:] and stands_in(messages[place], calls):
            messages.pop(place)  # the calls bring their own answers

    def _insert(self, messages: list[Message], known: _Known, turn: _Turn) -> None:
        """Put a message where it stands in the database, but before the turn under way."""
        index = bisect_left(self._known, known)
        under_way = [one for one in self._known if one.turn_id == turn.turn_id]
        before = [one for one in reversed(self._known[:index]) if one.turn_id != turn.turn_id]
        limit = min(places(messages, _messages(under_way)), default=len(messages))
        place = next((found + 1 for found in places(messages, _messages(before))), None)
        if place is None:
            place = min(places(messages, _messages(self._known[index:])), default=limit)
        place, message = min(place, limit), known.record.to_message()
        if 0 < place < len(messages) and stands_in(messages[place], messages[place - 1]):
            if answered(message) & called(messages[place - 1]):
                messages.pop(place)
            else:
                place += 1
        messages.insert(place, message)
        insort(self._known, known)

    def _check_fence(self) -> None:
        if self._fence is not None:
            raise self._fence


def _portion(unsaved: Sequence[_Unsaved]) -> Sequence[_Unsaved]:
    """Give as many messages as one moment takes."""
    size = 0
    for index, one in enumerate(unsaved[:MAX_MESSAGES]):
        size += len(one.row.data) if one.row else 0
        if index and size > MAX_BYTES:
            return unsaved[:index]
    return unsaved[:MAX_MESSAGES]


def _messages(known: Iterable[_Known]) -> Iterator[Message]:
    return (one.record.to_message() for one in known)


def _bring_in(state: Any, had: dict[str, Any], known: dict[str, Any]) -> None:
    """Set what others have changed on an agent's state, and leave its own changes as they are."""
    current = state.get()
    merged, _ = merge(had, known, current)
    for key in current.keys() - merged.keys():
        state.delete(key)
    for key, value in merged.items():
        if key not in current or not same(current[key], value):
            state.set(key, value)


def agent_record(agent: Any) -> SessionAgent:
    """Give an agent's record as Strands makes it."""
    from_bidi_agent = getattr(SessionAgent, "from_bidi_agent", None)  # of older versions
    if from_bidi_agent is not None and not hasattr(agent, "conversation_manager"):
        return from_bidi_agent(agent)  # type: ignore[no-any-return]
    return SessionAgent.from_agent(agent)
