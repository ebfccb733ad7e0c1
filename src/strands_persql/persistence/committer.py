"""A change set, stored in one transaction and one round trip, merged with what others stored.

It goes out as one batch that moves the agent's turn behind other writers' messages if any came in
between, appends, updates the agent's row if its version is the expected one, and reads back how
things are. Each message carries the id of its own write, and each update that of the change set,
so that a batch sent twice, or late, changes nothing the second time.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from strands_persql.errors import ConflictError, NotFoundError
from strands_persql.gateway.batch import Answer, Batch, Handle, Row
from strands_persql.persistence.cached import StoredMessage
from strands_persql.persistence.changes import (
    ChangeSet,
    CommitResult,
    FoundAgent,
    MergeBase,
)
from strands_persql.persistence.compare_and_swap import CompareAndSwap, refuse_to_guess
from strands_persql.persistence.merge import merge_content, same, settled_interrupts
from strands_persql.persistence.view import view_of
from strands_persql.runtime.clock import now
from strands_persql.tables import (
    appending,
    checkpoint_rows,
    checkpointing,
    preconditions,
    reading,
    retention,
    updating,
)
from strands_persql.tables.cells import Cells, number_in, text_in
from strands_persql.tables.codec import RowCodec
from strands_persql.tables.leaves import Skeleton
from strands_persql.tables.preconditions import Precondition
from strands_persql.tables.tables import MAX_ID, NO_WRITE, RowData, Tables
from strands_persql.tables.updating import ViewChange, WindowMove

logger = logging.getLogger("strands_persql")


@dataclass(frozen=True)
class Request:
    """A change set on its way: its batch, made once, and how the answer is read.

    Attributes:
        change: The change set.
        base: What it is based on.
        batch: Its statements.
        agent: The handle of the agent's row.
        turn: That of the turn's messages, where there may be any.
        foreign: That of other turns' messages, where they are asked for.
        updates: Those of the updated messages.
        checkpoint: That of the checkpoint, where one is kept.
        merged: The content with what others have stored, as it is written.
        row: The agent's row to write, or None where it stays.
    """

    change: ChangeSet
    base: MergeBase
    batch: Batch
    agent: Handle
    turn: Handle | None
    foreign: Handle | None
    updates: tuple[Handle, ...]
    merged: dict[str, Any]
    row: RowData | None
    checkpoint: Handle | None


Rebase = Callable[[ChangeSet, CommitResult], tuple[ChangeSet, MergeBase]]
"""Makes of a refused change set the one to try next, in view of what was found."""


class Committer:
    """Stores change sets, and merges with what other writers have stored."""

    def __init__(self, swaps: CompareAndSwap, tables: Tables, codec: RowCodec) -> None:
        """Initialize.

        Args:
            swaps: What sends conditional writes and runs lost races again.
            tables: The tables.
            codec: What makes the rows.
        """
        self._swaps = swaps
        self._tables = tables
        self._codec = codec

    def commit(
        self,
        change: ChangeSet,
        base: MergeBase,
        rebase: Rebase,
        in_doubt: Request | None = None,
    ) -> tuple[ChangeSet, CommitResult]:
        """Store a change set, merging as often as other writers come first.

        Args:
            change: What to store.
            base: The agent's row as the writer knows it.
            rebase: Makes the next try of one that another writer came before.
            in_doubt: An earlier request for this change set whose answer was lost; it is sent
                again first.

        Returns:
            The change set as it was stored, and how things are now.

        Raises:
            ConflictError: If another writer came first and may not be merged with, or came first
                in every attempt.
            NotFoundError: If the agent isn't there any more.
            InDoubtError: If an answer was lost.
        """
        request = in_doubt

        def attempt() -> tuple[ChangeSet, CommitResult]:
            nonlocal change, base, request
            sent = request or self._prepare(change, base)
            was_in_doubt, request = request is not None, None
            answer = self._swaps.send(sent.batch, change.key, sent)
            result = self._read(sent, answer, was_in_doubt or answer.is_ambiguous)
            if result.is_applied:
                return sent.change, result
            conflict = _taken(sent.change) if result.is_taken else self._conflict(sent, result)
            lost = self._swaps.lose(conflict, is_final=result.is_taken)
            logger.debug("expected=<%s> | lost a race, merging: %s", base.version, lost.conflict)
            change, base = rebase(sent.change, result)
            raise lost

        return self._swaps.run(attempt)

    def read(self, change: ChangeSet, base: MergeBase) -> CommitResult:
        """Read what others have changed, with a change set that stores nothing.

        Raises:
            NotFoundError: If the agent isn't there any more.
        """
        request = self._prepare(change, base)
        return self._read(request, self._swaps.read(request.batch, change.key), is_ambiguous=False)

    # -- making the request --------------------------------------------------------------------

    def _prepare(self, change: ChangeSet, base: MergeBase) -> Request:
        merged = self._merged(change, base)
        unchanged = same(merged, base.content) and change.view is None and not change.is_forced
        row = None
        if not unchanged:
            text = self._codec.content(change.key, merged)
            row = self._codec.agent_row(change.key, text, (base.created_at, now()))
        precondition = self._precondition(change, base, row)
        batch = Batch()
        if base.expires:
            batch.run(retention.refuse_expired(self._tables, change.key.session_id))
        batch.bring(*_skeletons(change, row))
        if change.claim is not None:
            precondition &= self._add_claim(batch, change, base, precondition if row else None)
        self._add_messages(batch, change, base, precondition)
        updates = self._add_updates(batch, change, base, precondition if row else None)
        self._add_agent(batch, change, base, row, precondition)
        agent = batch.ask(
            updating.read_result(
                self._tables, change.key, known_version=base.version, write_id=change.id
            )
        )
        turn = foreign = None
        if change.messages or change.claim:
            after = change.claim.message_id - 1 if change.claim else change.complete_to
            turn = batch.ask(appending.read_turn(self._tables, change.key, change.turn, after))
        if change.asks_foreign:
            foreign = batch.ask(self._read_foreign(change, base))
        checkpoint = self._add_checkpoint(batch, change, base, row)
        return Request(change, base, batch, agent, turn, foreign, updates, merged, row, checkpoint)

    def _merged(self, change: ChangeSet, base: MergeBase) -> dict[str, Any]:
        """Return the row's content with the writer's change."""
        if change.content is None:
            return base.content
        merged, contested = merge_content(base.own, base.content, change.content)
        if contested:
            logger.warning(
                "session_id=<%s>, agent_id=<%s>, keys=<%s> | two writers changed the same state;"
                " the later one's is kept",
                *change.key,
                ", ".join(contested),
            )
        return settled_interrupts(merged)

    def _precondition(
        self, change: ChangeSet, base: MergeBase, row: RowData | None
    ) -> Precondition:
        """Return the condition under which messages are stored."""
        is_refused = self._swaps.on_conflict == "raise"
        is_with_row = row is not None and (bool(change.updates) or change.claim is not None)
        if is_refused or change.needs_exact_ids or is_with_row:
            condition = preconditions.agent_is(base.origin, base.version)
        elif change.first is not None:
            # Messages that move must be in the open end of the view, whichever writer wrote it.
            condition = preconditions.agent_is(base.origin, base.version, plain_from=change.first)
        else:
            condition = preconditions.agent_is(base.origin)
        if change.needs_exact_ids or (is_refused and (change.messages or change.rewound)):
            # Messages of the turn itself may be beyond it by then: the batch stores them.
            condition &= preconditions.nothing_after(change.complete_to, change.turn)
        return condition

    def _add_claim(
        self,
        batch: Batch,
        change: ChangeSet,
        base: MergeBase,
        precondition: Precondition | None,
    ) -> Precondition:
        """Add a claim, and return the condition that it is there.

        Where the agent's row is written it is made with that, or not at all: whoever opens the
        session in between would find interrupts that wait, and know of the claim.
        """
        claim = change.claim
        assert claim is not None
        version = base.version if self._swaps.on_conflict == "raise" else None
        batch.run(
            appending.claim_turn(
                self._tables,
                change.key,
                message_id=claim.message_id,
                message_write=claim.message_write,
                turn=change.turn,
                known_claim=claim.known,
                write_id=change.id,
                expires=base.expires,
                precondition=precondition or preconditions.agent_is(base.origin, version),
            )
        )
        return preconditions.claimed(claim.message_id, claim.message_write, change.id)

    def _add_messages(
        self, batch: Batch, change: ChangeSet, base: MergeBase, precondition: Precondition
    ) -> None:
        key, claim = change.key, change.claim
        if change.first is not None and (change.messages or claim is not None):
            last = change.messages[-1].write_id if change.messages else NO_WRITE
            batch.run(
                *appending.move_turn(
                    self._tables,
                    key,
                    turn=change.turn,
                    first=change.first,
                    complete_to=change.complete_to,
                    last_write=last,
                    precondition=precondition,
                )
            )
        for message in change.messages:
            batch.run(
                appending.append_message(
                    self._tables,
                    key,
                    turn=change.turn,
                    row=message.row,
                    write_id=message.write_id,
                    complete_to=change.complete_to,
                    message_id=message.message_id if change.needs_exact_ids else None,
                    expires=base.expires,
                    precondition=precondition,
                )
            )

    def _add_updates(
        self,
        batch: Batch,
        change: ChangeSet,
        base: MergeBase,
        precondition: Precondition | None,
    ) -> tuple[Handle, ...]:
        handles = []
        for update in change.updates:
            between = (update.first, update.last)
            batch.run(
                updating.edit_message(
                    self._tables,
                    change.key,
                    between=between,
                    message_write=update.message_write,
                    version=update.version,
                    row=update.row,
                    write_id=update.write_id,
                    precondition=precondition or preconditions.agent_is(base.origin),
                )
            )
            handles.append(
                batch.ask(
                    updating.read_edited(self._tables, change.key, between, update.message_write)
                )
            )
        if change.updates and precondition is None:
            batch.run(
                updating.mark_edits(self._tables, change.key, base.origin, expires=base.expires)
            )
        return tuple(handles)

    def _add_agent(
        self,
        batch: Batch,
        change: ChangeSet,
        base: MergeBase,
        row: RowData | None,
        precondition: Precondition,
    ) -> None:
        if row is None:
            return
        # The row's own version and origin are conditions of the update anyway.
        has_more = self._swaps.on_conflict == "raise" or change.needs_exact_ids or change.claim
        batch.run(
            updating.update_agent(
                self._tables,
                change.key,
                row=row,
                write_id=change.id,
                previous=base.last_change,
                view=_view_change(change),
                origin=base.origin,
                version=base.version,
                edits=bool(change.updates),
                expires=base.expires,
                precondition=precondition if has_more else None,
            )
        )

    def _add_checkpoint(
        self, batch: Batch, change: ChangeSet, base: MergeBase, row: RowData | None
    ) -> Handle | None:
        key, new = change.key, change.checkpoint
        batch.run(
            *(
                checkpointing.note_dropped(
                    self._tables, key, first=first, last=last, write_id=change.id, time=now()
                )
                for first, last in change.rewound
            )
        )
        if new is None:
            return None
        if base.expires and row is None and not change.messages:
            batch.run(retention.note_activity(self._tables, key, base.origin))
        batch.run(
            checkpointing.keep_checkpoint(
                self._tables,
                key,
                checkpoint_id=new.checkpoint_id,
                label=new.label,
                time=now(),
                version=base.version if row is None else base.version + 1,
                origin=base.origin,
                write_id="" if row is None else change.id,
                # What others have said comes with the answer, where it is asked for.
                complete_to=MAX_ID if change.asks_foreign else change.complete_to,
                turn=new.turn or "-",
            )
        )
        return batch.ask(checkpoint_rows.read_checkpoint(self._tables, key, new.checkpoint_id))

    def _read_foreign(self, change: ChangeSet, base: MergeBase) -> Any:
        view = change.view or base.view
        return reading.read_foreign(
            self._tables,
            change.key,
            turn=change.turn,
            complete_to=change.complete_to,
            epoch=_expected_history(change, base),
            view=view.stored,
            start=view.start,
        )

    # -- reading the answer --------------------------------------------------------------------

    def _read(self, request: Request, answer: Answer, is_ambiguous: bool) -> CommitResult:
        change, base = request.change, request.base
        found = self._found(request, answer.first(request.agent))
        is_written = request.row is None or change.id in found.writes
        if not is_written and is_ambiguous:
            refuse_to_guess(change.key, base.version, found.version, found.writes)
        ids = {one["write_id"]: int(one["message_id"]) for one in _rows(answer, request.turn)}
        lost = self._lost_updates(request, answer)
        has_all = all(message.write_id in ids for message in change.messages)
        has_claim, is_taken = self._claimed(request, answer)
        checkpoint = None if request.checkpoint is None else answer.first(request.checkpoint)
        has_all = has_all and (request.checkpoint is None or checkpoint is not None)
        is_applied = is_written and has_all and has_claim and not lost
        next_base, has_foreign = self._next_base(request, found, is_applied)
        foreign = [StoredMessage.of(one) for one in _rows(answer, request.foreign)]
        return CommitResult(
            is_applied,
            next_base,
            ids,
            foreign,
            is_taken=is_taken,
            has_other_history=self._is_other_history(request, found),
            row=request.row if is_written else None,
            lost=[StoredMessage.of(one) for one in lost if one is not None],
            has_foreign_state=has_foreign,
            checkpoint=checkpoint,
        )

    def _found(self, request: Request, row: Row | None) -> FoundAgent:
        """Return the agent as it is.

        Raises:
            CorruptRowError: If it doesn't say which version it is.
            NotFoundError: If it was deleted, or is another one of that name by now.
        """
        key = request.change.key
        if row is None or row["write_id"] != request.base.origin:
            raise NotFoundError(
                f"agent {key.agent_id!r} of session {key.session_id!r} does not exist (any more);"
                " nothing was written. Open the session again to create it again",
                **key.context,
            )
        content = None
        if row["data"] is not None:  # what can't be read is as if nobody had changed it
            content = self._codec.readable_content(key, row["data"])
        cells = Cells(row)
        start = number_in(row["window_start"], request.base.view.start)
        view, _ = view_of(row["view"], start, is_counted=False)
        found = FoundAgent(
            cells.number("version"),
            number_in(row["epoch"]),
            view,
            text_in(row["writes"]),
            content,
            row["expires_after"] is not None,
        )
        if cells.problem:
            raise self._codec.corrupt_agent(key, cells.problem)
        return found

    def _next_base(
        self, request: Request, found: FoundAgent, is_applied: bool
    ) -> tuple[MergeBase, bool]:
        """Advance the merge base: only ``state`` flows back to the agent."""
        change, base = request.change, request.base
        is_written = request.row is not None and change.id in found.writes
        if not is_applied and not is_written:
            return base.found(found), False
        before = base.own if change.content is None else change.content
        own = before
        if request.row is not None:
            base = replace(
                base,
                version=base.version + 1,
                content=request.merged,
                last_change=change.id,
            )
            own = _with_state(own, request.merged)
        if found.content is not None:
            state, _ = merge_content(request.base.own, found.content, own)
            own = _with_state(own, state)
        base = replace(base.found(found), own=own)
        return base, not same(own.get("state"), before.get("state"))

    @staticmethod
    def _is_other_history(request: Request, found: FoundAgent) -> bool:
        view = request.change.view or request.base.view
        expected = _expected_history(request.change, request.base)
        return found.history_version != expected or found.view != view

    @staticmethod
    def _lost_updates(request: Request, answer: Answer) -> list[Row | None]:
        """Return the rows whose updates were refused, or None for those that moved."""
        rows = [answer.first(handle) for handle in request.updates]
        return [
            row
            for update, row in zip(request.change.updates, rows, strict=True)
            if row is None or update.write_id not in text_in(row["writes"])
        ]

    @staticmethod
    def _claimed(request: Request, answer: Answer) -> tuple[bool, bool]:
        """Return whether a change set has the claim that it makes, and whether another has it."""
        change, claim = request.change, request.change.claim
        if claim is None:
            return True, False
        rows = _rows(answer, request.turn)
        row = next((one for one in rows if one["write_id"] == claim.message_write), None)
        if row is not None and row["claim"] == change.id:
            return True, False
        is_last = row is not None and rows[-1] is row
        return False, not is_last or row is None or row["claim"] != claim.known

    # -- conflicts -----------------------------------------------------------------------------

    def _conflict(self, request: Request, result: CommitResult) -> ConflictError:
        change, base = request.change, request.base
        key, context = change.key, change.key.context
        who = f"another writer changed agent {key.agent_id!r} of session {key.session_id!r}"
        advice = "Nothing of this write is stored; open the session again and repeat it"
        found = result.base
        if found.version == base.version:
            ours = [
                StoredMessage(
                    change.complete_to + 1, 1, one.write_id, change.turn, "", one.row.data
                )
                for one in change.messages
            ]
            return ConflictError(
                f"{who}: its messages came before ours. {advice}",
                ours=[self._codec.read_message(key, row) for row in ours],
                found=[self._codec.read_message(key, row) for row in result.foreign],
                **context,
            )
        return ConflictError(
            f"{who}: version {base.version} was expected and {found.version} found. {advice}",
            expected_version=base.version,
            found_version=found.version,
            ours=request.merged if change.content is None or request.row else change.content,
            found=found.content,
            **context,
        )


def _taken(change: ChangeSet) -> ConflictError:
    return ConflictError(
        f"the turn of agent {change.key.agent_id!r} in session {change.key.session_id!r} that was"
        " to go on has been continued elsewhere: an interrupt is answered once. Nothing ran here;"
        " open the session again to see what became of it",
        **change.key.context,
    )


def _rows(answer: Answer, handle: Handle | None) -> list[Row]:
    return [] if handle is None else answer[handle]


def _expected_history(change: ChangeSet, base: MergeBase) -> int:
    return base.history_version + (1 if change.updates else 0)


def _with_state(content: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    return {**content, "state": other["state"]} if "state" in other else content


def _skeletons(change: ChangeSet, row: RowData | None) -> Iterator[Skeleton]:
    """Yield what is written, as the rows have it."""
    yield from (one.row.skeleton for one in change.messages)
    yield from (one.row.skeleton for one in change.updates)
    if row is not None:
        yield row.skeleton
    if change.view is not None and change.view.skeleton is not None:
        yield change.view.skeleton


def _view_change(change: ChangeSet) -> ViewChange | WindowMove | None:
    if change.view is not None:
        return ViewChange(change.view.stored, change.view.start)
    return WindowMove(change.moved_by) if change.moved_by else None
