"""The request that stores a change set: its statements, and where their results are.

Its batch moves the agent's turn behind other writers' messages if any came in between, appends,
updates the agent's row if its version is the expected one, and reads back how things are. Each
message carries the id of its own write, and each update that of the change set, so that a batch
sent twice, or late, changes nothing the second time.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from strands_persql.gateway.batch import Batch, Handle
from strands_persql.persistence.changes import (
    ChangeSet,
    MergeBase,
)
from strands_persql.persistence.merge import merge_content, same, settled_interrupts
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
from strands_persql.tables.codec import RowCodec
from strands_persql.tables.large_content import Skeleton
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
        agent_handle: The handle of the agent's row.
        turn_handle: That of the turn's messages, where there may be any.
        foreign_handle: That of other turns' messages, where they are asked for.
        update_handles: Those of the updated messages.
        checkpoint_handle: That of the checkpoint, where one is kept.
        merged: The content with what others have stored, as it is written.
        row: The agent's row to write, or None where it stays.
    """

    change: ChangeSet
    base: MergeBase
    batch: Batch
    agent_handle: Handle
    turn_handle: Handle | None
    foreign_handle: Handle | None
    update_handles: tuple[Handle, ...]
    merged: dict[str, Any]
    row: RowData | None
    checkpoint_handle: Handle | None


class RequestMaker:
    """Makes the requests of change sets.

    Args:
        tables: The tables.
        codec: What makes the rows.
        refuses: Whether a write that another one came before is refused, not merged.
    """

    def __init__(self, tables: Tables, codec: RowCodec, *, refuses: bool) -> None:
        """Initialize."""
        self._tables = tables
        self._codec = codec
        self._refuses = refuses

    def make(self, change: ChangeSet, base: MergeBase) -> Request:
        """Return the request that stores a change set on a merge base."""
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
        is_refused = self._refuses
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
        version = base.version if self._refuses else None
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
            is_new = precondition
            if claim is not None and not change.messages:
                is_new &= preconditions.is_last(claim.message_id, claim.message_write, change.turn)
            batch.run(
                *appending.move_turn(
                    self._tables,
                    key,
                    turn=change.turn,
                    first=change.first,
                    complete_to=change.complete_to,
                    last_write=last,
                    precondition=is_new,
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
        has_more = self._refuses or change.needs_exact_ids or change.claim
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
            epoch=expected_history(change, base),
            view=view.stored,
            start=view.start,
        )


def expected_history(change: ChangeSet, base: MergeBase) -> int:
    """Return the history's version after a change set, if nobody else changes it."""
    return base.history_version + (1 if change.updates else 0)


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
