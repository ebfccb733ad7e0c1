"""Drafting a change set: what of an agent is not stored as it is, and what its row is to have."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from strands_persql.persistence.changes import (
    MAX_STATEMENTS,
    ChangeSet,
    Claim,
    MergeBase,
    MessageUpdate,
    NewCheckpoint,
    PendingMessage,
)
from strands_persql.persistence.view import View
from strands_persql.runtime.clock import now
from strands_persql.runtime.containers import copy_containers
from strands_persql.sessions import upstream
from strands_persql.sessions.history import Entry, HistoryEntry, edited
from strands_persql.sessions.tracked_agent import TrackedAgent
from strands_persql.tables.tables import MAX_ID


@dataclass(frozen=True)
class Plan:
    """What is to be stored, however often it takes.

    Attributes:
        id: The id of the change set.
        state: Whether to store the agent's state.
        messages: Whether to store its messages, and what it works with.
        claim: The claim to go on with a turn.
        answers: Whether interrupts are answered, of a turn that has nothing to claim.
        is_retry: Whether another writer came first, so that its rows are asked for.
        checkpoint: The checkpoint to keep of what is stored, or None.
    """

    id: str
    state: bool = True
    messages: bool = True
    claim: Claim | None = None
    answers: bool = False
    is_retry: bool = False
    checkpoint: NewCheckpoint | None = None

    @property
    def asks_foreign(self) -> bool:
        """Whether others' messages are to be read, whatever is stored."""
        return self.is_retry or self.claim is not None


class SentUpdate(NamedTuple):
    """A message that is updated, as it was when it was encoded: it may change on the way.

    Attributes:
        entry: The message.
        copy: Its content.
        update: The update of its row.
    """

    entry: HistoryEntry
    copy: Any
    update: MessageUpdate


@dataclass(frozen=True)
class Draft:
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
    updated: Sequence[SentUpdate] = ()
    is_last: bool = True


@dataclass(frozen=True)
class _Portion:
    """What one change set takes of the messages to append and to update.

    Attributes:
        pending: The messages to append.
        updated: The messages to update.
        ids: The ids that the turn's messages will have if no other writer comes first.
        newest: The highest id that is taken then.
        is_moving: Whether the turn's stored messages move to the history's end.
        is_last: Whether that is all that there is.
    """

    pending: list[HistoryEntry]
    updated: list[HistoryEntry]
    ids: Mapping[HistoryEntry, int]
    newest: int
    is_moving: bool
    is_last: bool


class Drafter:
    """Makes change sets of what has changed about an agent.

    Args:
        tracked: What is known of the agent.
    """

    def __init__(self, tracked: TrackedAgent) -> None:
        """Initialize."""
        self._key = tracked.key
        self._content = tracked.content
        self._messages = tracked.messages
        self._history = tracked.history
        self._pending = tracked.pending
        self._turns = tracked.turns
        self._view = tracked.view

    def draft(
        self, agent: Any, plan: Plan, base: MergeBase, *, asks_with_messages: bool
    ) -> Draft | None:
        """Return what is to be stored, or None where nothing is.

        Args:
            agent: The agent.
            plan: What of it is to be stored.
            base: The merge base.
            asks_with_messages: Whether to ask for others' messages where some are appended.
        """
        entries = self._view.in_memory(agent)
        portion = self._portion(plan, entries, agent)
        # The agent's row goes out with the last portion, for it says what all of them have stored.
        text, content, shown, wanted, view = None, None, None, None, None
        if portion.is_last:
            text, content = self._changed_content(agent, plan, base)
        if portion.is_last and plan.messages:
            shown = self._view.shown(entries)
            wanted, view = self._wanted_view(shown, portion, base.view)
        if not any((portion.is_moving, portion.updated, content, view, plan.checkpoint)):
            return None
        updated = [self._sent_update(one, plan) for one in portion.updated]
        change = ChangeSet(
            plan.id,
            self._key,
            content=content,
            view=view,
            messages=[PendingMessage(e.write_id, e.row, portion.ids[e]) for e in portion.pending],
            updates=[one.update for one in updated],
            claim=plan.claim,
            turn=self._turns.current_id,
            first=self._turns.current_first_id,
            complete_to=self._history.complete_to,
            needs_exact_ids=self._needs_exact_ids(portion, view, base.view),
            asks_foreign=plan.asks_foreign or (bool(portion.pending) and asks_with_messages),
            checkpoint=plan.checkpoint if portion.is_last else None,
            rewound=() if view is None else self._rewound(portion.ids),
        )
        return Draft(change, shown, wanted, text, portion.pending, updated, portion.is_last)

    def _portion(self, plan: Plan, entries: Sequence[Entry], agent: Any) -> _Portion:
        """Return as many messages and updates of messages as one change set takes."""
        pending = self._pending.portion() if plan.messages else []
        is_moving = bool(pending) or plan.claim is not None
        ids, newest = self._next_ids(pending, is_moving=is_moving)
        updated = self._edited_or_redacted(entries, agent)
        taken = updated[: (MAX_STATEMENTS - len(pending)) // 2]
        has_all_messages = not plan.messages or len(pending) == len(self._pending.messages)
        is_last = has_all_messages and len(taken) == len(updated)
        return _Portion(pending, taken, ids, newest, is_moving, is_last)

    def _rewound(self, ids: Mapping[HistoryEntry, int]) -> list[tuple[int, int]]:
        """Return between which ids the agent goes back, or has what it had gone back behind."""
        ranges = [] if self._pending.rewound is None else [self._pending.rewound]
        moved = [ids[one] for one in self._turns.left_behind if one in ids]
        return [*ranges, (min(moved), max(moved))] if moved else ranges

    def _needs_exact_ids(self, portion: _Portion, view: View | None, stored: View) -> bool:
        """Whether the change set says ids, so that nothing may come between."""
        says_ids = portion.is_moving or view is not None
        return says_ids and not self._holds_any_append(view or stored, portion.ids)

    # -- content and messages ------------------------------------------------------------------

    def _changed_content(
        self, agent: Any, plan: Plan, base: MergeBase
    ) -> tuple[str, dict[str, Any]] | tuple[None, None]:
        """Return the agent's content and its JSON, or None for each if its row has them."""
        if not plan.state:
            return None, None
        turn_id = self._turns.latest_id
        if plan.claim is not None or plan.answers:
            return self._content.resumed(agent, base, {turn_id, self._turns.answered_id})
        changed = self._content.changed(
            agent,
            base,
            is_running=self._turns.is_invoked,
            turn_id=turn_id,
            stops=self._turns.stops_at_checkpoint,
        )
        return changed or (None, None)

    def _edited_or_redacted(self, entries: Sequence[Entry], agent: Any) -> list[HistoryEntry]:
        """Return the stored messages whose content isn't what their rows have."""
        found = [] if upstream.is_stateful(agent) else list(edited(entries, agent.messages))
        left = [*self._view.left_edited(), *(one for one in self._pending.edited if one.is_edited)]
        found += [
            one for one in dict.fromkeys([*self._pending.redacted, *left]) if one not in found
        ]
        return [
            one for one in found if isinstance(one, HistoryEntry) and one.message_id is not None
        ]

    def _sent_update(self, entry: HistoryEntry, plan: Plan) -> SentUpdate:
        record = entry.record
        assert record is not None
        assert entry.message_id is not None
        # Copied before it is encoded: what changes in between is then noticed, and stored again.
        copy = copy_containers(entry.message)
        record.updated_at = now()
        may_move = entry.turn == self._turns.current_id and entry.turn and entry.write_id
        update = MessageUpdate(
            first=entry.message_id,
            last=MAX_ID if may_move else entry.message_id,
            message_write=entry.write_id,
            version=None if entry in self._pending.redacted else entry.version,
            write_id=plan.id,
            row=self._messages.encode(record),
        )
        return SentUpdate(entry, copy, update)

    # -- the view ------------------------------------------------------------------------------

    def _next_ids(
        self, pending: Sequence[HistoryEntry], *, is_moving: bool
    ) -> tuple[dict[HistoryEntry, int], int]:
        """Return the ids that the turn's messages will have, and the highest that is taken."""
        newest, ids = self._history.newest, {}
        stored = self._turns.current_stored
        if is_moving and stored and stored[-1].message_id != newest:
            first = stored[0].message_id or 0
            ids = {one: (one.message_id or 0) + newest - first + 1 for one in stored}
            newest = max(ids.values())
        for one in pending:
            newest += 1
            ids[one] = newest
        return ids, newest

    def _wanted_view(
        self, shown: Sequence[Entry], portion: _Portion, stored: View
    ) -> tuple[list[Entry], View] | tuple[None, None]:
        """Return what the row's view is to have, or None where it has it."""
        # A turn that others have overtaken gets its place in the view once it continues.
        if self._view.is_out_of_order and not portion.is_moving:
            return None, None
        pending, ids = portion.pending, portion.ids
        is_as_stored = self._view.is_as_stored(shown, pending, stored)
        if is_as_stored and stored.is_explicit and self._holds_any_append(stored, ids):
            return None, None
        wanted = self._view.wanted(shown, pending, ids)
        view = self._history.view_of(wanted, ids, portion.newest)
        return (None, None) if view == stored else (wanted, view)

    def _holds_any_append(self, view: View, ids: Mapping[HistoryEntry, int]) -> bool:
        """Whether a view holds whatever others append meanwhile: all of it is in its open end."""
        if self._turns.left_behind:  # which must not come into the open end with the turn
            return False
        own = [*ids.values()] or [one.message_id or 0 for one in self._turns.current_stored]
        first = min([*own, self._history.newest + 1])
        return view.start <= first and all(
            one[1] < first for one in view.head if not isinstance(one, str)
        )
