"""Stores what has changed about an agent, and takes in what other writers have stored."""

from dataclasses import replace
from typing import Any

from strands_persql.errors import ConflictError, NotFoundError, PerSQLError
from strands_persql.persistence.changes import UNREAD, ChangeSet, CommitResult, MergeBase
from strands_persql.persistence.checkpoints import Checkpoint
from strands_persql.persistence.commit_request import Request
from strands_persql.persistence.compare_and_swap import InDoubtError
from strands_persql.persistence.store import SessionStore
from strands_persql.runtime.ids import new_id
from strands_persql.sessions import upstream
from strands_persql.sessions.content import (
    bring_in,
    interrupts_of,
    waiting_turns,
    with_interrupts_of_row,
)
from strands_persql.sessions.drafting import Draft, Drafter, Plan
from strands_persql.sessions.tracked_agent import TrackedAgent
from strands_persql.tables.encoding import to_json
from strands_persql.tables.tables import NO_WRITE


class Synchronizer:
    """Brings an agent's rows in line with its memory, and its memory in line with its rows.

    Its callers hold the agent's lock.

    Args:
        store: Where sessions are.
        tracked: What is known of the agent.
        base: Its row as it was opened.

    Attributes:
        base: Its row as it was last read or written.
        fence: The conflict after which nothing more is written, or None.
        has_failed: Whether something could not be stored since the agent was last invoked.
        asks_foreign: Whether the next messages stored ask for others' as well.
        kept: The checkpoints that were kept and whose maker wasn't told yet, by their ids.
    """

    def __init__(self, store: SessionStore, tracked: TrackedAgent, base: MergeBase) -> None:
        """Begin with an agent that is as its rows are."""
        self.base = base
        self.fence: ConflictError | None = None
        self.has_failed = False
        self.asks_foreign = False
        self.kept: dict[str, Checkpoint] = {}
        self._store = store
        self._key = tracked.key
        self._content = tracked.content
        self._history = tracked.history
        self._pending = tracked.pending
        self._turns = tracked.turns
        self._view = tracked.view
        self._drafter = Drafter(tracked)
        self._in_doubt: tuple[Request, Plan, Draft] | None = None
        self._has_company = False  # whether others are known to write this agent too
        self._is_behind = False  # whether others have changed what was stored before

    def check_fence(self) -> None:
        """Raise if a conflict has fenced the agent off.

        Raises:
            ConflictError: That one.
        """
        if self.fence is not None:
            raise self.fence

    def has_changes(self, agent: Any) -> bool:
        """Whether there is anything to store, or anything unsure.

        To find out, it drafts a change set that nobody sends: what drafting notes on the way, such
        as the JSON of a message that it had to encode, is noted again by the next one.
        """
        if self.has_failed or self.fence is not None:
            return False  # its caller has been told, and it goes out with the next turn
        if self._in_doubt is not None or self._pending.has_any:
            return True
        return self._draft(agent, Plan(NO_WRITE)) is not None

    # -- storing -------------------------------------------------------------------------------

    def store_all(self, agent: Any, *, state: bool = True, messages: bool = True) -> None:
        """Store what has changed, as `UnitOfWork.commit` says."""
        self.check_fence()
        self.settle_in_doubt(agent)
        plan = Plan(new_id(), state=state, messages=messages)
        while not self.store(agent, plan):
            plan = replace(plan, id=new_id())

    def store(self, agent: Any, plan: Plan) -> bool:
        """Store as much as one change set takes, and return whether nothing is left."""
        draft = self._draft_to_send(agent, plan)
        if draft is None:
            return True
        self._send(agent, plan, draft)
        return draft.is_last

    def _draft(self, agent: Any, plan: Plan) -> Draft | None:
        asks = self.asks_foreign or self._has_company
        return self._drafter.draft(agent, plan, self.base, asks_with_messages=asks)

    def _draft_to_send(self, agent: Any, plan: Plan) -> Draft | None:
        """Return what is to be stored; a view is merged with what others have made of it."""
        draft = self._draft(agent, plan)
        if draft is None or draft.change.view is None or not self._is_behind:
            return draft
        try:
            self._read_missed(agent)
        except BaseException:
            self.has_failed = True
            raise
        return self._draft(agent, plan)

    def settle_in_doubt(self, agent: Any, *, continues: bool = False) -> None:
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
            if continues or plan.claim is None or self.fence is not None:
                raise

    def _send(self, agent: Any, plan: Plan, draft: Draft, in_doubt: Request | None = None) -> None:
        current = draft

        def rebase(change: ChangeSet, result: CommitResult) -> tuple[ChangeSet, MergeBase]:
            nonlocal current
            self._in_doubt = None
            self._take_result(agent, current, result)
            again = self._draft_to_send(agent, replace(plan, is_retry=True))
            current = again or Draft(ChangeSet(change.id, change.key, turn=change.turn))
            return current.change, self.base

        try:
            result = self._store.commit(draft.change, self.base, rebase, in_doubt)
        except InDoubtError as error:
            self.has_failed = True
            self._in_doubt = (error.request, plan, current)
            raise error.error from error
        except BaseException as error:
            self.has_failed = True
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
        result = self._store.read_others(change, self.base)
        self._take_result(agent, Draft(change), result)

    def _note_refused(self, agent: Any, plan: Plan, draft: Draft, error: ConflictError) -> None:
        """Write nothing more where conflicts are raised; learn who continued a turn before us.

        What waits in the session is then known as it would be by an agent that opens it now.
        """
        if not self._store.is_merging:
            self.fence = error
        elif plan.claim is not None:
            self._turns.refuse(draft.change.turn, [draft.change.turn])
            self.base = replace(self.base, history_version=UNREAD)
            self._is_behind = self.asks_foreign = True
            unknown = ""
            try:
                self._read_missed(agent)
            except PerSQLError:  # it is read with the next message
                unknown = draft.change.turn
            self.base = with_interrupts_of_row(self.base, but=unknown)
            self._turns.refuse(draft.change.turn, waiting_turns(self.base.own))
            upstream.set_interrupts(agent, interrupts_of(self.base))
            self._turns.wait_for_answers(agent, waiting_turns(self.base.own))

    # -- reading what became of it -------------------------------------------------------------

    def _take_result(self, agent: Any, draft: Draft, result: CommitResult) -> None:
        """Take in how things are after a change set was stored, or refused."""
        change, before = draft.change, self.base
        self.base = result.base
        has_moved = self._take_ids(draft, result)
        self._history.learn(result.lost)
        if result.is_applied:
            self._settle(draft)
        if result.checkpoint is not None:
            kept = Checkpoint.of(result.checkpoint)
            self.kept[kept.checkpoint_id] = kept
        self._notice_others(draft, before, result, has_moved=has_moved)
        if change.asks_foreign and result.has_other_history:
            gone = self._history.learn_all(result.base.view, result.foreign, change.turn)
            self._view.weave(agent, self.base)
            self._view.let_go(gone)
        elif result.foreign:
            self._history.learn(result.foreign)
            self._view.weave(agent, self.base)
        elif has_moved:
            self._view.read_again(self.base.view)
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
            self.asks_foreign = False
        is_other = result.has_changes_of_others(change, before, has_moved=has_moved)
        self._has_company = self._has_company or is_other or bool(result.foreign)
        self._is_behind = is_other and not change.asks_foreign
        if self._is_behind:  # what was read is older than the row: all of it is read next time
            known = (change.view if result.is_applied else None) or before.view
            self.base = replace(self.base, history_version=UNREAD, view=known)
            self.asks_foreign = True

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
            self.asks_foreign = True
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
        bring_in(agent.state, had.get("state") or {}, self.base.own.get("state") or {}, text)
        self._content.forget()
