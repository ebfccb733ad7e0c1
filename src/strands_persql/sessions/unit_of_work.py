"""What is between an agent and the database: it collects changes and stores them at once."""

import logging
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from typing import Any

from strands.types.content import Message
from strands.types.session import SessionMessage

from strands_persql.errors import ConflictError, NotFoundError
from strands_persql.persistence.cached import CachedAgent
from strands_persql.persistence.changes import (
    MAX_BYTES,
    MAX_MESSAGES,
    MAX_STATEMENTS,
    ChangeSet,
    Claim,
    CommitResult,
    MergeBase,
    MessageUpdate,
    PendingMessage,
)
from strands_persql.persistence.committer import Request
from strands_persql.persistence.compare_and_swap import InDoubtError
from strands_persql.persistence.locks import AgentLock
from strands_persql.persistence.store import SessionStore
from strands_persql.persistence.view import View
from strands_persql.runtime.clock import now
from strands_persql.runtime.containers import copy_containers
from strands_persql.runtime.ids import AgentKey, new_id
from strands_persql.sessions import upstream
from strands_persql.sessions.content import AgentContent, bring_in, waiting_turns
from strands_persql.sessions.history import (
    Entry,
    HistoryEntry,
    Memory,
    PlaceholderEntry,
    ViewEntry,
    edited,
    replace_content,
)
from strands_persql.sessions.known_history import KnownHistory
from strands_persql.sessions.tool_calls import answered_ids, is_open, is_placeholder
from strands_persql.sessions.turns import Turn
from strands_persql.sessions.weaving import weave
from strands_persql.tables.encoding import to_json
from strands_persql.tables.tables import MAX_ID

logger = logging.getLogger("strands_persql")


@dataclass(frozen=True)
class _Plan:
    """What is to be stored, however often it takes.

    Attributes:
        id: The id of the change set.
        state: Whether to store the agent's state.
        messages: Whether to store its messages, and what it works with.
        claim: The claim to go on with a turn.
        answers: Whether interrupts are answered, of a turn that has nothing to claim.
        is_retry: Whether another writer came first, so that its rows are asked for.
    """

    id: str
    state: bool = True
    messages: bool = True
    claim: Claim | None = None
    answers: bool = False
    is_retry: bool = False


@dataclass(frozen=True)
class _Attempt:
    """A change set, with what it was made of.

    Attributes:
        change: The change set.
        shown: What the agent has in memory, of what has or will have a place in its view.
        wanted: What the row's view will have, or None where it stays.
        text: The JSON of the content, where there is content.
        pending: The messages to append.
        updated: The messages to update.
        is_last: Whether nothing is left to store after it.
    """

    change: ChangeSet
    shown: list[Entry] | None = None
    wanted: list[Entry] | None = None
    text: str | None = None
    pending: Sequence[HistoryEntry] = ()
    updated: Sequence[HistoryEntry] = ()
    is_last: bool = True


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
        self._base: MergeBase = store.base_of(key, found, fields)
        self._content = AgentContent(key, store.codec)
        self._history = KnownHistory(key, store.codec)
        self._history.load(found.view, found.messages, found.last_id)
        self._view = self._history.entries_of(found.view)
        self._synced: list[Entry] = []  # what the row's view and the agent's memory agree on
        self._memory = Memory()
        self._latest: HistoryEntry | None = self._history.last()
        self._pending: list[HistoryEntry] = []
        self._redacted: list[HistoryEntry] = []
        self._turn: Turn | None = None
        self._last_turn: Turn | None = None
        self._in_doubt: tuple[Request, _Plan, _Attempt] | None = None
        self._is_invoked = self._asks_foreign = self._has_failed = False
        self._is_out_of_order = False
        self._answered_turn: str | None = None  # whose interrupts the invocation has answered
        self._has_company = False  # whether others are known to write this agent too
        self._is_behind = self._stops_at_checkpoint = False
        self._fence: ConflictError | None = None

    # -- opening -------------------------------------------------------------------------------

    def restore(self, agent: Any, prepended: Sequence[Message]) -> None:
        """Put what the row's view has into an agent's memory.

        Args:
            agent: The agent.
            prepended: What its conversation manager puts first: rows of earlier versions don't
                say it themselves.
        """
        with self.lock:
            if upstream.is_stateful(agent):
                return
            waiting = list(waiting_turns(self._base.content))
            entries = _without_turns(self._view, waiting[:-1])
            others = set(_without_turns(entries, waiting[-1:]))
            entries = _put_last(entries, set(entries) - others)  # Strands goes on with the last
            self._synced = [one for one in entries if one.message is not None]
            if not self._base.view.is_explicit:
                entries = [*map(ViewEntry, prepended), *entries]
            agent.messages = []
            self._fill(agent, entries)
            self._wait_for_answers(agent)

    def adopt(self, agent: Any) -> None:
        """Take an agent's messages for those that it was created with."""
        with self.lock:
            for entry, message in zip(self._view, agent.messages, strict=True):
                entry.place(message)
                entry.copy = copy_containers(message)
            self._memory.place(self._view, agent.messages)
            self._synced = list(self._view)

    def _wait_for_answers(self, agent: Any) -> None:
        """Have an agent that waits for answers know whose turn they go on with."""
        if not upstream.is_interrupted(agent):
            return
        waiting = waiting_turns(self._base.own)
        turn_id = self._interrupted_turn(agent, waiting)
        others = {turn: state for turn, state in waiting.items() if turn != turn_id}
        upstream.wait_for_answers(agent, turn_id, others)

    def _interrupted_turn(self, agent: Any, waiting: dict[str, dict[str, Any]]) -> str:
        if self._last_turn is not None:
            return self._last_turn.turn_id
        state = upstream.interrupts(agent)
        ids = set() if state is None else set(state.interrupts)
        found = (turn for turn, one in waiting.items() if set(one.get("interrupts", ())) == ids)
        return next(found, None) or self._history.stopped_turn()

    # -- turns ---------------------------------------------------------------------------------

    def begin_invocation(self) -> None:
        """Note that the agent was invoked.

        Raises:
            ConflictError: If an earlier conflict has fenced this unit of work off.
        """
        with self.lock:
            self._check_fence()
            self._end_turn()
            self._stops_at_checkpoint = False
            self._is_invoked, self._asks_foreign, self._has_failed = True, True, False

    def continue_turn(self, agent: Any) -> None:
        """Claim the turn that has stopped, and move it behind what others have said since.

        Raises:
            ConflictError: If it has been continued elsewhere.
            PerSQLError: If that could not be stored.
        """
        with self.lock:
            self._settle_in_doubt(agent)
            turn = self._stopped_turn(agent)
            last = None if turn is None else turn.last
            state = upstream.interrupts(agent)
            if isinstance(state, upstream.WaitingInterrupts):
                self._answered_turn = state.turn_id
            if last is None or not last.write_id or last.message_id is None:
                if upstream.is_interrupted(agent):  # nothing was said before it stopped
                    self._answer(agent)
                return
            self._turn = turn
            claim = Claim(last.message_id, last.write_id, last.claim)
            is_waiting = turn is not None and turn.turn_id in waiting_turns(self._base.content)
            plan = _Plan(new_id(), state=is_waiting or upstream.is_interrupted(agent), claim=claim)
            try:
                attempt = self._attempt(agent, plan)
                assert attempt is not None
                self._send(agent, plan, attempt)
            except BaseException:
                self._is_invoked, self._turn = False, None
                raise

    def _answer(self, agent: Any) -> None:
        """Store that the interrupts of a turn without messages are answered."""
        plan = _Plan(new_id(), answers=True)
        attempt = self._attempt(agent, plan)
        if attempt is not None:
            self._send(agent, plan, attempt)

    def _stopped_turn(self, agent: Any) -> Turn | None:
        state, last = upstream.interrupts(agent), self._last_turn
        if isinstance(state, upstream.WaitingInterrupts) and state.activated:
            turn_id = state.turn_id
        elif last is not None and last.entries:
            return last
        else:
            turn_id = self._history.stopped_turn()
        if last is not None and last.turn_id == turn_id:
            return last
        entries = self._history.of_turn(turn_id) if turn_id else []
        return Turn(turn_id, entries) if entries else None

    def end_invocation(self, agent: Any, *, is_to_go_on: bool = False) -> None:
        """Store all that is pending and the agent's state, and end the turn.

        Args:
            agent: The agent.
            is_to_go_on: Whether the turn has stopped at a checkpoint of Strands.
        """
        with self.lock:
            self._is_invoked = False
            self._stops_at_checkpoint = is_to_go_on
            if self._is_out_of_order:
                self._is_out_of_order = False
                self._weave(agent)
            if not self._has_failed and self._fence is None:
                self.commit(agent)
            self._end_turn()
            self._answered_turn = None
            self._wait_for_answers(agent)

    def _end_turn(self) -> None:
        # A change set belongs to one turn, so the turn stays open while messages are pending.
        if self._turn is not None and not self._pending:
            self._last_turn, self._turn = self._turn, None

    def _open_turn(self, message: Message) -> Turn:
        answers = bool(answered_ids(message))
        if not self._is_invoked and message["role"] == "user" and not answers:
            self._end_turn()
        if self._turn is None:
            self._asks_foreign = True
            continues = answers and self._last_turn is not None
            self._turn = self._last_turn if continues else Turn(new_id())
        assert self._turn is not None
        return self._turn

    def close(self, agent: Any) -> None:
        """Store all that is pending, for nothing comes after it."""
        with self.lock:
            if self._fence is None:
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
            self._check_fence()
            if self._has_failed and any(one.message is message for one in self._pending):
                return  # it could not be stored before, and goes out now
            if self._replaces(message, agent) or self._is_for_memory_alone(message):
                return
            entry = HistoryEntry(SessionMessage.from_message(message, 0), new_id(), "")
            self._encode(entry)
            turn = self._open_turn(message)
            entry.turn = turn.turn_id
            entry.was_in_memory = any(one is message for one in reversed(agent.messages))
            turn.entries.append(entry)
            self._pending.append(entry)
            self._latest = entry

    def _replaces(self, message: Message, agent: Any) -> bool:
        """Whether a message has taken another one's place in memory, with more content."""
        mark = upstream.tracking_id(message)
        if mark is None:
            return False
        known = [*self._memory.entries, *self._pending]
        replaced = [one for one in known if one.mark == mark and one.message is not message]
        if not replaced:  # as a rule
            return False
        in_memory = set(map(id, agent.messages))
        return any(id(one.message) not in in_memory for one in replaced)

    def _is_for_memory_alone(self, message: Message) -> bool:
        """Whether a message is a placeholder for a result that another writer may yet store.

        The other writer may still be running the tool. Its own result belongs beside its calls,
        and whoever opens the session without one is given a placeholder by Strands.
        """
        if self._is_invoked or self._pending:
            return False
        calls = self._history.last()
        if calls is None or calls.message is None:
            return False
        is_foreign = calls.turn not in self._own_turns
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
            self._check_fence()
            ours, latest = self._ours(agent), self._latest
            said = [one for one in ours if isinstance(one, HistoryEntry)]
            found = [one for one in said if one.message is redacted]
            is_in_memory = any(one.message is redacted for one in ours)
            if not found and latest is not None and not (is_in_memory and latest in said):
                # It has taken the place of the message that was said last, or is to do so.
                found = [latest]
                redacted = _replaced(latest, redacted, in_place=not is_in_memory)
                ours = [latest if one.message is redacted else one for one in ours]
                self._memory.place(ours, agent.messages)
            if found and found[0].message is not None:
                found += [one for one in self._said_as(_message_of(found[0])) if one not in found]
            for entry in found:
                entry.redact(redacted)
            self._redacted += found
            return bool(found) or latest is not None

    def _said_as(self, message: Message) -> list[HistoryEntry]:
        """Return all messages that are one object: a prompt may be said again."""
        known = [*self._history.entries, *self._pending]
        return [one for one in known if one.message is message]

    @property
    def is_due(self) -> bool:
        """Whether what is pending is to be stored now.

        An assistant's message that calls no tool is stored with the turn's end, a moment later;
        with a deferred turn everything is, unless it is more than one transaction stores.
        """
        if not self._is_invoked or not self._pending:
            return True
        size = sum(len(one.data) for one in self._pending)
        if len(self._pending) >= MAX_MESSAGES or size * 2 > MAX_BYTES:
            return True
        last = self._pending[-1].message
        return not self._defers and (last is None or is_open(last))

    @property
    def waits_for_turn(self) -> bool:
        """Whether messages are stored when the invocation under way ends."""
        return self._defers and self._is_invoked

    def has_changes(self, agent: Any) -> bool:
        """Whether there is anything to store, or anything unsure."""
        with self.lock:
            if self._has_failed or self._fence is not None:
                return False  # its caller has been told, and it goes out with the next turn
            if self._in_doubt is not None or self._pending or self._redacted:
                return True
            return self._attempt(agent, _Plan("-")) is not None

    def _encode(self, entry: HistoryEntry) -> None:
        assert entry.record is not None
        row = self._store.codec.message(self._key, entry.record)
        entry.data, entry.copy = row.data, copy_containers(entry.message)

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
            self._check_fence()
            self._settle_in_doubt(agent)
            plan = _Plan(new_id(), state=state, messages=messages)
            while (attempt := self._attempt(agent, plan)) is not None:
                self._send(agent, plan, attempt)
                if attempt.is_last:
                    return
                plan = replace(plan, id=new_id())

    def _settle_in_doubt(self, agent: Any) -> None:
        """Send the change set again whose answer was lost, word for word."""
        if self._in_doubt is None:
            return
        request, plan, attempt = self._in_doubt
        self._send(agent, plan, attempt, in_doubt=request)

    def _send(
        self, agent: Any, plan: _Plan, attempt: _Attempt, in_doubt: Request | None = None
    ) -> None:
        current = attempt

        def rebase(change: ChangeSet, result: CommitResult) -> tuple[ChangeSet, MergeBase]:
            nonlocal current
            self._in_doubt = None
            self._absorb(agent, current, result)
            again = self._attempt(agent, replace(plan, is_retry=True))
            current = again or _Attempt(ChangeSet(change.id, change.key, turn=change.turn))
            return current.change, self._base

        try:
            result = self._store.commit(attempt.change, self._base, rebase, in_doubt)
        except InDoubtError as error:
            self._has_failed = True
            self._in_doubt = (error.request, plan, current)
            raise error.error from error
        except BaseException as error:
            self._has_failed = True
            if isinstance(error, (ConflictError, NotFoundError)):
                self._in_doubt = None
            if isinstance(error, ConflictError) and not self._store.is_merging:
                self._fence = error
            raise
        self._in_doubt = None
        self._absorb(agent, current, result)
        if self._is_behind and self._is_invoked:
            self._catch_up(agent)

    def _catch_up(self, agent: Any) -> None:
        """Read what others have changed in the history, before the model is asked."""
        self._is_behind = False
        turn = "" if self._turn is None else self._turn.turn_id
        change = ChangeSet(
            new_id(),
            self._key,
            turn=turn,
            complete_to=self._history.complete_to,
            asks_foreign=True,
        )
        attempt = _Attempt(change)
        result = self._store.commit(change, self._base, lambda *_: (change, self._base))
        self._absorb(agent, attempt, result)

    def _check_fence(self) -> None:
        if self._fence is not None:
            raise self._fence

    # -- making a change set -------------------------------------------------------------------

    def _attempt(self, agent: Any, plan: _Plan) -> _Attempt | None:
        """Return what is to be stored, or None where nothing is."""
        ours = self._ours(agent)
        shown = _without_placeholders(ours)
        pending = self._portion() if plan.messages else []
        all_updated = self._updated(ours, agent)
        updated = all_updated[: (MAX_STATEMENTS - len(pending)) // 2]
        is_last = len(updated) == len(all_updated) and (
            not plan.messages or len(pending) == len(self._pending)
        )
        content = self._changed_content(agent, plan) if plan.state and is_last else None
        stores = bool(pending) or plan.claim is not None
        ids, newest = self._next_ids(pending, moves=stores)
        wanted, view = None, None
        # A turn that others have overtaken has its place in the view once it goes on.
        if plan.messages and is_last and (stores or not self._is_out_of_order):
            wanted, view = self._wanted_view(shown, pending, ids, newest)
        if not (stores or updated or content or view):
            return None
        turn = self._turn
        change = ChangeSet(
            plan.id,
            self._key,
            content=None if content is None else content[1],
            view=view,
            messages=[PendingMessage(one.write_id, one.row, ids[one]) for one in pending],
            updates=[self._update(one, plan) for one in updated],
            claim=plan.claim,
            turn="" if turn is None else turn.turn_id,
            first=None if turn is None else turn.first_id,
            complete_to=self._history.complete_to,
            is_alone=(stores or view is not None)
            and not self._is_lenient(view or self._base.view, ids),
            asks_foreign=plan.is_retry
            or plan.claim is not None
            or (bool(pending) and (self._asks_foreign or self._has_company)),
        )
        text = None if content is None else content[0]
        is_whole = shown if plan.messages and is_last else None
        return _Attempt(change, is_whole, wanted, text, pending, updated, is_last)

    def _ours(self, agent: Any) -> list[Entry]:
        """Return what the agent has in memory."""
        if upstream.is_stateful(agent):
            return self._memory.entries
        return self._memory.recognize(
            agent.messages,
            self._pending,
            lambda: [*self._synced, *self._history.dropped.values()],
        )

    def _portion(self) -> list[HistoryEntry]:
        """Return as many pending messages as one change set takes."""
        size = 0
        for index, entry in enumerate(self._pending[:MAX_MESSAGES]):
            if entry.copy != entry.message:
                self._encode(entry)
            size += len(entry.data)
            if index and size > MAX_BYTES:
                return self._pending[:index]
        return self._pending[:MAX_MESSAGES]

    def _updated(self, ours: Sequence[Entry], agent: Any) -> list[HistoryEntry]:
        """Return the stored messages whose content isn't what their rows have."""
        found = [] if upstream.is_stateful(agent) else list(edited(ours, agent.messages))
        found += [one for one in self._redacted if one not in found]
        return [
            one for one in found if isinstance(one, HistoryEntry) and one.message_id is not None
        ]

    def _update(self, entry: HistoryEntry, plan: _Plan) -> MessageUpdate:
        record = entry.record
        assert record is not None
        assert entry.message_id is not None
        record.updated_at = now()
        is_own = self._turn is not None and entry.turn == self._turn.turn_id
        return MessageUpdate(
            first=entry.message_id,
            last=MAX_ID if is_own and entry.write_id else entry.message_id,
            message_write=entry.write_id,
            version=None if entry in self._redacted else entry.version,
            write_id=plan.id,
            row=self._store.codec.message(self._key, record),
        )

    def _changed_content(self, agent: Any, plan: _Plan) -> tuple[str, dict[str, Any]] | None:
        turn = self._turn or self._last_turn
        turn_id = "" if turn is None else turn.turn_id
        if plan.claim is not None or plan.answers:
            return self._content.resumed(agent, self._base, {turn_id, self._answered_turn})
        return self._content.changed(
            agent,
            self._base,
            is_running=self._is_invoked,
            turn_id=turn_id,
            stops=self._stops_at_checkpoint,
        )

    def _next_ids(
        self, pending: Sequence[HistoryEntry], *, moves: bool
    ) -> tuple[dict[HistoryEntry, int], int]:
        """Return the ids that the turn's messages will have if no other writer comes first."""
        newest, ids = self._history.newest, {}
        stored = [] if self._turn is None else self._turn.stored
        if moves and stored and stored[-1].message_id != newest:
            first = stored[0].message_id or 0
            ids = {one: (one.message_id or 0) + newest - first + 1 for one in stored}
            newest = max(ids.values())
        for newest, one in enumerate(pending, newest + 1):  # noqa: B020 - goes on from it
            ids[one] = newest
        return ids, newest

    def _wanted_view(
        self,
        shown: list[Entry],
        pending: Sequence[HistoryEntry],
        ids: dict[HistoryEntry, int],
        newest: int,
    ) -> tuple[list[Entry] | None, View | None]:
        """Return what the row's view is to have, or None where it has it."""
        has_all_extras = self._encode_extras(shown)
        in_memory = [one for one in pending if one.was_in_memory]
        is_as_it_was = shown == [*self._synced, *in_memory] and has_all_extras
        view = self._base.view
        if is_as_it_was and view.is_explicit and self._is_lenient(view, ids):
            return None, None
        stored, said = _parted(shown)
        unseen = [one for one in pending if not one.was_in_memory]
        wanted = [*_put_last(self._woven(stored, self._view), ids), *said, *unseen]
        view = self._history.view_of(wanted, ids, newest)
        return (None, None) if view == self._base.view else (wanted, view)

    def _encode_extras(self, entries: Sequence[Entry]) -> bool:
        """Encode messages that are in the view alone; return whether the row's view has them."""
        extras = [one for one in entries if isinstance(one, ViewEntry)]
        for entry in extras:
            if not entry.json or entry.copy != entry.message:
                entry.json = to_json(entry.message, "message", **self._key.context)
                entry.copy = copy_containers(entry.message)
                self._history.knows_extra(entry)
        return {one.json for one in extras} <= set(self._base.view.head)

    def _is_lenient(self, view: View, ids: dict[HistoryEntry, int]) -> bool:
        """Whether a view holds whatever other writers store meanwhile: all of it is in its end."""
        stored = [] if self._turn is None else self._turn.stored
        own = [*ids.values()] or [one.message_id or 0 for one in stored]
        first = min([*own, self._history.newest + 1])
        return view.start <= first and all(
            one[1] < first for one in view.head if not isinstance(one, str)
        )

    # -- reading what became of it -------------------------------------------------------------

    def _absorb(self, agent: Any, attempt: _Attempt, result: CommitResult) -> None:
        """Take in how things are after a change set was stored, or refused."""
        change, before = attempt.change, self._base
        self._base = result.base
        has_moved = self._take_ids(attempt, result)
        self._history.learn(result.lost)
        if result.is_applied:
            self._settle(attempt)
        if change.asks_foreign:
            self._asks_foreign = False
        is_other = self._is_of_others(change, before, result, has_moved=has_moved)
        self._has_company = self._has_company or is_other or bool(result.foreign)
        self._is_behind = is_other and not change.asks_foreign
        if self._is_behind:  # what was read is older than the row: all of it is read next time
            self._base = replace(self._base, history_version=-1)
            self._asks_foreign = True
        if change.asks_foreign and result.has_other_history:
            gone = self._history.learn_all(result.base.view, result.foreign, change.turn)
            self._weave(agent)
            self._let_go(gone)
        elif result.foreign:
            self._history.learn(result.foreign)
            self._weave(agent)
        elif has_moved:
            self._view = self._history.entries_of(result.base.view)
        if change.asks_foreign:
            self._history.is_complete(result.base.view)
        if result.has_foreign_state:
            self._bring_in_state(agent, before.own if change.content is None else change.content)

    @staticmethod
    def _is_of_others(
        change: ChangeSet, before: MergeBase, result: CommitResult, *, has_moved: bool
    ) -> bool:
        """Whether others have changed the history or the view, not the change set alone."""
        if not result.has_other_history:
            return False
        own_changes = (1 if change.updates else 0) + (1 if has_moved else 0)
        is_own = result.base.history_version == before.history_version + own_changes
        return not is_own or result.base.view != (change.view or before.view)

    def _take_ids(self, attempt: _Attempt, result: CommitResult) -> bool:
        """Note where the turn's messages are now, and return whether they have moved."""
        has_moved = False
        for write_id, message_id in result.ids.items():
            known = self._history.find(write_id)
            if known is not None and known.message_id != message_id:
                self._history.move(known, message_id)
                has_moved = True
        new = [one for one in attempt.pending if one.write_id in result.ids]
        for entry in new:
            entry.store_at(result.ids[entry.write_id])
            self._history.add(entry)
        stored = set(new)
        self._pending = [one for one in self._pending if one not in stored]
        if attempt.wanted is None or not result.is_applied:
            self._view += new
            self._synced += [one for one in new if one.was_in_memory]
        if not new:
            return has_moved
        expected = range(self._history.complete_to + 1, self._history.complete_to + 1 + len(new))
        if not has_moved and [one.message_id for one in new] == list(expected):
            self._history.complete_to = expected[-1]
        else:
            self._asks_foreign = True
        return has_moved

    def _settle(self, attempt: _Attempt) -> None:
        """Note that all of a change set is stored."""
        if attempt.text is not None:
            self._content.stored(attempt.text)
        for entry in attempt.updated:
            entry.version += 1
            entry.copy = copy_containers(entry.message)
        self._redacted = [one for one in self._redacted if one not in attempt.updated]
        claim, turn = attempt.change.claim, self._turn
        if claim is not None and turn is not None and turn.last is not None:
            turn.last.claim = attempt.change.id
        if attempt.wanted is not None:
            self._view = attempt.wanted
        if attempt.shown is not None:
            self._agree_on(attempt.shown)

    def _agree_on(self, shown: list[Entry]) -> None:
        """Note what the row's view and the agent's memory agree on now."""
        before, self._synced = self._synced, shown
        if len(shown) >= len(before) and before == shown[: len(before)]:
            return
        # What is in the view and not in memory may be shown again; a redaction is yet to be stored.
        kept = {*shown, *self._view, *self._memory.entries, *self._redacted}
        for entry in before:
            if isinstance(entry, HistoryEntry) and entry not in kept:
                self._history.leave_memory(entry)
        for entry in shown:
            if isinstance(entry, HistoryEntry):
                self._history.return_to_memory(entry)

    # -- bringing in what others have stored ---------------------------------------------------

    def _weave(self, agent: Any) -> None:
        """Bring the agent's memory in line with the row's view, and keep what is its own."""
        theirs = self._history.entries_of(self._base.view)
        stored, said = _parted(_without_placeholders(self._ours(agent)))
        self._view = theirs
        merged = self._with_turn_last([*self._woven(stored, theirs), *said])
        target = _without_turns(merged, self._others_waiting())
        if upstream.is_stateful(agent):  # the conversation is the model server's
            self._synced = list(theirs)
            return
        self._fill(agent, target)
        hidden = set(merged) - set(self._memory.entries)
        self._agree_on([one for one in theirs if one not in hidden])
        logger.debug(
            "session_id=<%s>, agent_id=<%s>, messages=<%d> | merged another writer's messages",
            *self._key,
            len(target),
        )

    def _others_waiting(self) -> list[str]:
        """Return the turns that others may still go on with, once somebody has answered.

        Their calls have no results yet, and none is made up: they are shown when they go on.
        """
        own = self._own_turns
        return [one for one in waiting_turns(self._base.content) if one not in own]

    @property
    def _own_turns(self) -> set[str]:
        return {turn.turn_id for turn in (self._turn, self._last_turn) if turn is not None}

    def _let_go(self, gone: Sequence[HistoryEntry]) -> None:
        """Forget messages that are in the view no more, unless they are still worked with."""
        kept = {*self._memory.entries, *self._redacted}
        for entry in gone:
            if entry in kept:
                self._history.add(entry)
            else:
                self._history.leave_memory(entry)

    @property
    def _goes_on(self) -> bool:
        """Whether the turn goes on, so that it moves behind the others', whole."""
        return self._is_invoked or bool(self._pending)

    def _woven(self, ours: Sequence[Entry], theirs: Sequence[Entry]) -> list[Entry]:
        """Merge what the agent has in memory with what others made of the row's view.

        Of the turn under way others drop nothing: it is not over.
        """
        turn = self._turn if self._goes_on else None
        own = set(() if turn is None else turn.entries) & set(ours)
        base = set(self._synced) - own
        # Others may have dropped what was kept while its turn was under way; what has come back
        # to memory is another matter.
        kept = [one for one in ours if isinstance(one, HistoryEntry) and one not in own]
        base.update(one for one in kept if not self._history.is_dropped(one))
        ordered = [one for one in dict.fromkeys([*self._synced, *kept]) if one in base]
        return weave(ordered, ours, theirs)

    def _with_turn_last(self, entries: list[Entry]) -> list[Entry]:
        """Return entries with those of the turn under way at the end.

        Strands goes on with the last message, which must be the agent's own. Rows of others that
        came behind it are before it once it goes on.
        """
        if self._turn is None or not self._goes_on:
            return entries
        own = set(self._turn.entries)
        ordered = _put_last(entries, own)
        self._is_out_of_order = ordered != entries or not own <= {*self._pending, *self._view}
        return ordered

    def _fill(self, agent: Any, entries: Sequence[Entry]) -> None:
        """Put entries into an agent's memory, each tool call followed by its result."""
        shown = [one for one in entries if one.message is not None]
        places: dict[int, list[Entry]] = {}
        for entry in shown:
            places.setdefault(id(entry.message), []).append(entry)
        before = [(entry, _content_of(entry)) for entry in shown]
        messages = upstream.with_valid_tool_use([_message_of(one) for one in shown])
        for entry, content in before:
            if _content_of(entry) is not content:  # repaired: that is no edit of the agent's
                entry.copy = copy_containers(entry.message)
        filled: list[Entry] = []
        for index, message in enumerate(messages):
            found = places.get(id(message))
            if not found:
                upstream.mark_placeholder(message, messages[index - 1])
            filled.append(found.pop(0) if found else PlaceholderEntry(message))
        if len(messages) != len(agent.messages) or any(
            one is not other for one, other in zip(messages, agent.messages, strict=True)
        ):
            agent.messages[:] = messages
        self._memory.place(filled, agent.messages)

    def _bring_in_state(self, agent: Any, had: dict[str, Any]) -> None:
        """Set what others have changed on the agent's state."""
        text = to_json(agent.state.get(), "agent's state", **self._key.context)
        bring_in(agent.state, had.get("state") or {}, self._base.own.get("state") or {}, text)
        self._content.forget()


def _replaced(entry: HistoryEntry, redacted: Message, *, in_place: bool) -> Message:
    """Return the object that holds a redacted message, the one in memory where it is there."""
    message = entry.message
    if message is None or not in_place:
        return redacted
    replace_content(message, redacted)
    return message


def _without_turns(entries: Sequence[Entry], turns: Sequence[str]) -> list[Entry]:
    if not turns:
        return list(entries)
    return [one for one in entries if not isinstance(one, HistoryEntry) or one.turn not in turns]


def _put_last(entries: Sequence[Entry], last: Container[Any]) -> list[Entry]:
    """Return entries with some of them at the end, either part in its order."""
    rest = [one for one in entries if one not in last]
    return [*rest, *(one for one in entries if one in last)]


def _without_placeholders(entries: Sequence[Entry]) -> list[Entry]:
    return [one for one in entries if not isinstance(one, PlaceholderEntry)]


def _parted(shown: Sequence[Entry]) -> tuple[list[Entry], list[Entry]]:
    """Return what has a place in the view, and what is pending."""
    said = [one for one in shown if isinstance(one, HistoryEntry) and one.message_id is None]
    pending = set(said)
    return [one for one in shown if one not in pending], list(said)


def _message_of(entry: Entry) -> Message:
    assert entry.message is not None
    return entry.message


def _content_of(entry: Entry) -> Any:
    return _message_of(entry)["content"]
