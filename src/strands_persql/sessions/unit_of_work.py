"""What is between an agent and the database: it collects changes and stores them at once."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from strands.types.content import Message
from strands.types.session import SessionMessage

from strands_persql.errors import ConflictError, NotFoundError, PerSQLError
from strands_persql.persistence.cached import CachedAgent, StoredMessage
from strands_persql.persistence.changes import (
    UNREAD,
    ChangeSet,
    Claim,
    CommitResult,
    MergeBase,
    NewCheckpoint,
)
from strands_persql.persistence.checkpoints import Checkpoint
from strands_persql.persistence.committer import Request
from strands_persql.persistence.compare_and_swap import InDoubtError
from strands_persql.persistence.locks import AgentLock
from strands_persql.persistence.store import SessionStore
from strands_persql.runtime.containers import copy_containers
from strands_persql.runtime.ids import AgentKey, new_id
from strands_persql.sessions import upstream
from strands_persql.sessions.content import (
    AgentContent,
    bring_in,
    interrupts_of,
    waiting_turns,
    with_interrupts_of_row,
)
from strands_persql.sessions.drafting import Draft, Drafter, Plan
from strands_persql.sessions.history import HistoryEntry
from strands_persql.sessions.known_history import KnownHistory
from strands_persql.sessions.message_codec import MessageCodec
from strands_persql.sessions.pending import PendingChanges
from strands_persql.sessions.rewinding import Known, Rewinder, count_kept
from strands_persql.sessions.tool_calls import is_open, is_placeholder
from strands_persql.sessions.turns import Turn, Turns
from strands_persql.sessions.working_view import WorkingView
from strands_persql.tables import checkpointing
from strands_persql.tables.encoding import to_json
from strands_persql.tables.tables import NO_WRITE


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
        store, key = self._store, self._key
        self._base: MergeBase = store.base_of(key, found, fields)
        self._content = AgentContent(key, store.codec)
        self._messages = MessageCodec(key, store.codec)
        self._history = KnownHistory(key, store.codec, self._messages)
        self._history.load(found.view, found.messages, found.last_id)
        self._pending = PendingChanges(self._messages, self._history.last())
        self._turns = Turns(self._history, self._pending)
        self._view = WorkingView(key, found.view, self._history, self._pending, self._turns)
        self._drafter = Drafter(
            key,
            self._messages,
            self._content,
            self._history,
            self._pending,
            self._turns,
            self._view,
        )
        self._in_doubt: tuple[Request, Plan, Draft] | None = None
        self._fence: ConflictError | None = None
        self._kept: dict[str, Checkpoint] = {}  # until their maker is told
        self._rewind_in_doubt = ("", "")  # to which checkpoint, and the id of the write
        self._has_failed = False
        self._asks_foreign = False  # whether the next messages stored ask for others' as well
        self._has_company = False  # whether others are known to write this agent too
        self._is_behind = False  # whether others have changed what was stored before

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
            self._view.restore(agent, self._base, prepended)
            self._turns.wait_for_answers(agent, waiting_turns(self._base.own))

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
            self._check_fence()
            self._turns.begin_invocation()
            self._asks_foreign, self._has_failed = True, False

    def continue_turn(self, agent: Any) -> None:
        """Claim the turn that has stopped, and move it behind what others have said since.

        Raises:
            ConflictError: If it has been continued elsewhere.
            PerSQLError: If that could not be stored.
        """
        with self.lock:
            try:
                self._settle_in_doubt(agent, continues=True)
                self._claim_turn(agent)
            except BaseException:
                self._turns.is_invoked, self._turns.current = False, None
                upstream.take_back_answers(agent)
                raise

    def _claim_turn(self, agent: Any) -> None:
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
                self._store_planned(agent, Plan(new_id(), answers=True))
            return
        self._learn_end(turn)
        last = turn.last or last
        self._turns.current = turn
        claim = Claim(last.message_id or 0, last.write_id, last.claim)
        is_waiting = turn.turn_id in waiting_turns(self._base.content)
        state_changes = is_waiting or upstream.is_interrupted(agent)
        self._store_planned(agent, Plan(new_id(), state=state_changes, claim=claim))

    def _learn_end(self, turn: Turn) -> None:
        """Read where a turn ends that the agent may have gone back into.

        It goes on behind all that it ever said, for its rows are side by side.
        """
        start, shown = self._base.view.start, {*self._view.stored}
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
                self._view.weave(agent, self._base)
            try:
                if not self._has_failed and self._fence is None:
                    self.commit(agent)
            finally:
                self._turns.end()
                self._turns.answered_id = None
                self._turns.wait_for_answers(agent, waiting_turns(self._base.own))

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
            if self._has_failed and self._pending.has_message(message):
                return  # it could not be stored before, and goes out now
            if self._view.replaces(message, agent) or self._is_for_memory_alone(message):
                return
            entry = HistoryEntry(SessionMessage.from_message(message, 0), new_id(), "")
            self._pending.encode(entry)
            turn, begins = self._turns.turn_of(message)
            self._asks_foreign = self._asks_foreign or begins
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
            self._check_fence()
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
        """Whether there is anything to store, or anything unsure.

        To find out, it drafts a change set that nobody sends: what drafting notes on the way, such
        as the JSON of a message that it had to encode, is noted again by the next one.
        """
        with self.lock:
            if self._has_failed or self._fence is not None:
                return False  # its caller has been told, and it goes out with the next turn
            if self._in_doubt is not None or self._pending.messages or self._pending.redacted:
                return True
            return self._draft(agent, Plan(NO_WRITE)) is not None

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
            plan = Plan(new_id(), state=state, messages=messages)
            while not self._store_planned(agent, plan):
                plan = replace(plan, id=new_id())

    def keep_checkpoint(self, agent: Any, label: str) -> Checkpoint:
        """Store what has changed, and keep a checkpoint of the agent as it is then.

        Args:
            agent: The agent.
            label: What the checkpoint is called.

        Raises:
            PerSQLError: If that failed.
        """
        with self.lock:
            self._check_fence()
            self._settle_in_doubt(agent)
            new = NewCheckpoint(new_id(), label, self._turns.latest_id)
            while (kept := self._kept.get(new.checkpoint_id)) is None:
                self._store_planned(agent, Plan(new_id(), checkpoint=new))
            self._kept.clear()
            return kept

    # -- going back ----------------------------------------------------------------------------

    def go_back(self, agent: Any, to: Message | SessionMessage | int) -> None:
        """Drop the latest of the messages that an agent works with.

        Args:
            agent: The agent.
            to: The last message to keep, or how many turns to drop.

        Raises:
            PerSQLError: If that could not be stored. It goes out with the next change set.
            ValueError: If there is no such message, or there aren't as many turns.
        """
        with self.lock:
            self.settle_before_going_back(agent)
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
            self.commit(agent)
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
        with self.lock:
            self.settle_before_going_back(agent)
            in_doubt, write_id = self._rewind_in_doubt
            if in_doubt != checkpoint_id:
                write_id = new_id()
            known = Known(
                self._base,
                self._view.stored,
                self._history.writes,
                self._history.complete_to,
                self._history.newest,
                self._turns.latest_id,
            )
            try:
                return Rewinder(self._store, self._key, checkpoint_id, write_id).rewind(known)
            except InDoubtError as error:
                self._rewind_in_doubt = checkpoint_id, write_id
                raise error.error from error
            except ConflictError as error:
                self._fence = None if self._store.is_merging else error
                raise

    def begin_again(self, agent: Any, found: CachedAgent) -> None:
        """Restore an agent as it is now.

        Args:
            agent: The agent.
            found: Its row, and what it works with.
        """
        with self.lock:
            codec = self._store.codec
            fields = codec.read_agent_fields(self._key, found.data)
            self._begin(found, fields)
            record = codec.agent_of(self._key, copy_containers(fields))
            self.restore(agent, upstream.give_back(agent, record))

    def settle_before_going_back(self, agent: Any) -> None:
        """Store what is pending, and learn what is in doubt.

        Raises:
            PerSQLError: If that failed, or a turn is under way.
        """
        self._check_fence()
        if self._turns.is_invoked:
            raise PerSQLError(
                f"agent {self._key.agent_id!r} of session {self._key.session_id!r} is in the middle"
                " of a turn; go back when the turn has ended",
                **self._key.context,
            )
        self._settle_in_doubt(agent)
        if self._pending.messages or self._pending.redacted:
            self.commit(agent)

    def _store_planned(self, agent: Any, plan: Plan) -> bool:
        """Store as much as one change set takes, and return whether nothing is left."""
        draft = self._draft_to_send(agent, plan)
        if draft is None:
            return True
        self._send(agent, plan, draft)
        return draft.is_last

    def _draft(self, agent: Any, plan: Plan) -> Draft | None:
        asks = self._asks_foreign or self._has_company
        return self._drafter.draft(agent, plan, self._base, asks_with_messages=asks)

    def _draft_to_send(self, agent: Any, plan: Plan) -> Draft | None:
        """Return what is to be stored; a view is merged with what others have made of it."""
        draft = self._draft(agent, plan)
        if draft is None or draft.change.view is None or not self._is_behind:
            return draft
        try:
            self._read_missed(agent)
        except BaseException:
            self._has_failed = True
            raise
        return self._draft(agent, plan)

    def _settle_in_doubt(self, agent: Any, *, continues: bool = False) -> None:
        """Send the change set again whose answer was lost, word for word.

        Args:
            agent: The agent.
            continues: Whether the caller is to continue a turn, and not if that was refused.
        """
        if self._in_doubt is None:
            return
        request, plan, draft = self._in_doubt
        try:
            self._send(agent, plan, draft, in_doubt=request)
        except ConflictError:
            if continues or plan.claim is None or self._fence is not None:
                raise

    def _send(self, agent: Any, plan: Plan, draft: Draft, in_doubt: Request | None = None) -> None:
        current = draft

        def rebase(change: ChangeSet, result: CommitResult) -> tuple[ChangeSet, MergeBase]:
            nonlocal current
            self._in_doubt = None
            self._take_result(agent, current, result)
            again = self._draft_to_send(agent, replace(plan, is_retry=True))
            current = again or Draft(ChangeSet(change.id, change.key, turn=change.turn))
            return current.change, self._base

        try:
            result = self._store.commit(draft.change, self._base, rebase, in_doubt)
        except InDoubtError as error:
            self._has_failed = True
            self._in_doubt = (error.request, plan, current)
            raise error.error from error
        except BaseException as error:
            self._has_failed = True
            if isinstance(error, (ConflictError, NotFoundError)):
                self._in_doubt = None
            if isinstance(error, ConflictError):
                self._note_refused(agent, plan, current, error)
            raise
        self._in_doubt = None
        self._take_result(agent, current, result)
        if self._is_behind and self._turns.is_invoked:
            self._read_missed(agent)

    def _read_missed(self, agent: Any) -> None:
        """Read what others have changed in the history and the view."""
        change = ChangeSet(
            new_id(),
            self._key,
            turn=self._turns.current_id,
            complete_to=self._history.complete_to,
            asks_foreign=True,
        )
        result = self._store.read_others(change, self._base)
        self._take_result(agent, Draft(change), result)

    def _note_refused(self, agent: Any, plan: Plan, draft: Draft, error: ConflictError) -> None:
        """Write nothing more where conflicts are raised; learn who continued a turn before us.

        What waits in the session is then known as it would be by an agent that opens it now.
        """
        if not self._store.is_merging:
            self._fence = error
        elif plan.claim is not None:
            self._turns.refuse(draft.change.turn)
            self._base = replace(self._base, history_version=UNREAD)
            self._is_behind = self._asks_foreign = True
            unknown = ""
            try:
                self._read_missed(agent)
            except PerSQLError:  # it is read with the next message
                unknown = draft.change.turn
            self._turns.refuse(draft.change.turn)
            self._base = with_interrupts_of_row(self._base, but=unknown)
            upstream.set_interrupts(agent, interrupts_of(self._base))
            self._turns.wait_for_answers(agent, waiting_turns(self._base.own))

    def _check_fence(self) -> None:
        if self._fence is not None:
            raise self._fence

    # -- reading what became of it -------------------------------------------------------------

    def _take_result(self, agent: Any, draft: Draft, result: CommitResult) -> None:
        """Take in how things are after a change set was stored, or refused."""
        change, before = draft.change, self._base
        self._base = result.base
        has_moved = self._take_ids(draft, result)
        self._history.learn(result.lost)
        if result.is_applied:
            self._settle(draft)
        if result.checkpoint is not None:
            kept = Checkpoint.of(result.checkpoint)
            self._kept[kept.checkpoint_id] = kept
        self._notice_others(draft, before, result, has_moved=has_moved)
        if change.asks_foreign and result.has_other_history:
            gone = self._history.learn_all(result.base.view, result.foreign, change.turn)
            self._view.weave(agent, self._base)
            self._view.let_go(gone)
        elif result.foreign:
            self._history.learn(result.foreign)
            self._view.weave(agent, self._base)
        elif has_moved:
            self._view.read_again(self._base.view)
        if change.asks_foreign:
            self._history.note_complete(result.base.view)
        if result.has_foreign_state:
            self._bring_in_state(agent, before.own if change.content is None else change.content)

    def _notice_others(
        self, draft: Draft, before: MergeBase, result: CommitResult, *, has_moved: bool
    ) -> None:
        """Note whether others write too, and whether all that they did has been read."""
        change = draft.change
        if change.asks_foreign:
            self._asks_foreign = False
        is_other = result.has_changes_of_others(change, before, has_moved=has_moved)
        self._has_company = self._has_company or is_other or bool(result.foreign)
        self._is_behind = is_other and not change.asks_foreign
        if self._is_behind:  # what was read is older than the row: all of it is read next time
            known = (change.view if result.is_applied else None) or before.view
            self._base = replace(self._base, history_version=UNREAD, view=known)
            self._asks_foreign = True

    def _take_ids(self, draft: Draft, result: CommitResult) -> bool:
        """Note where the turn's messages are now, and return whether they have moved."""
        has_moved = False
        for write_id, message_id in result.ids.items():
            known = self._history.find(write_id)
            if known is not None and known.message_id != message_id:
                self._history.move(known, message_id)
                has_moved = True
        new = [one for one in draft.pending if one.write_id in result.ids]
        for entry in new:
            entry.store_at(result.ids[entry.write_id])
            self._history.add(entry)
        self._pending.note_appended(new)
        if draft.wanted is None or not result.is_applied:
            self._view.note_appended(new)
        if new and not self._history.extend(new, has_moved=has_moved):
            self._asks_foreign = True
        return has_moved

    def _settle(self, draft: Draft) -> None:
        """Note that all of a change set is stored."""
        if draft.text is not None:
            self._content.note_stored(draft.text)
        for entry, copy, update in draft.updated:
            entry.version += 1
            entry.copy = copy
            if update.is_redaction and copy == entry.message:
                self._pending.note_redacted(entry)
            self._pending.note_edited(entry)
        if draft.change.rewound:
            self._pending.rewound = None
        claim, turn = draft.change.claim, self._turns.current
        if claim is not None and turn is not None and turn.last is not None:
            turn.last.claim = draft.change.id
        self._view.note_stored(draft.wanted, draft.shown)

    def _bring_in_state(self, agent: Any, had: dict[str, Any]) -> None:
        """Set what others have changed on the agent's state."""
        text = to_json(agent.state.get(), "agent's state", **self._key.context)
        bring_in(agent.state, had.get("state") or {}, self._base.own.get("state") or {}, text)
        self._content.forget()
