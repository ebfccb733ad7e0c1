"""What became of a change set, as the answer to its request says."""

import logging
from dataclasses import replace
from typing import Any

from strands_persql.errors import NotFoundError
from strands_persql.gateway.batch import Answer, Handle, Row
from strands_persql.persistence.cached import StoredMessage
from strands_persql.persistence.changes import (
    CommitResult,
    FoundAgent,
    MergeBase,
)
from strands_persql.persistence.commit_request import Request, expected_history
from strands_persql.persistence.compare_and_swap import refuse_to_guess
from strands_persql.persistence.merge import merge_content, same
from strands_persql.persistence.view import view_of
from strands_persql.tables.cells import Cells, number_in, text_in
from strands_persql.tables.codec import RowCodec

logger = logging.getLogger("strands_persql")


class AnswerReader:
    """Reads the answers to the requests of change sets.

    Args:
        codec: What reads the rows.
    """

    def __init__(self, codec: RowCodec) -> None:
        """Initialize."""
        self._codec = codec

    def read(self, request: Request, answer: Answer, *, is_ambiguous: bool) -> CommitResult:
        """Return how things are now.

        Args:
            request: The request.
            answer: The answer to it.
            is_ambiguous: Whether an earlier try of it may have been applied too.

        Raises:
            CorruptRowError: If the agent's row doesn't say which version it is.
            NotFoundError: If the agent was deleted, or is another one of that name by now.
            OutcomeUnknownError: If it can't be told whether the change set was stored.
        """
        change, base = request.change, request.base
        found = self._found(request, answer.first(request.agent_handle))
        is_written = request.row is None or change.id in found.writes
        if not is_written and is_ambiguous:
            refuse_to_guess(change.key, base.version, found.version, found.writes)
        ids = {
            one["write_id"]: int(one["message_id"]) for one in _rows(answer, request.turn_handle)
        }
        lost = self._lost_updates(request, answer)
        has_claim, is_claimed_by_other = self._claim_outcome(request, answer)
        checkpoint = (
            None if request.checkpoint_handle is None else answer.first(request.checkpoint_handle)
        )
        has_checkpoint = request.checkpoint_handle is None or checkpoint is not None
        has_messages = ids.keys() >= {one.write_id for one in change.messages}
        is_applied = all((is_written, has_messages, has_checkpoint, has_claim, not lost))
        next_base, has_foreign = self._next_base(request, found, is_applied)
        foreign = [StoredMessage.of(one) for one in _rows(answer, request.foreign_handle)]
        return CommitResult(
            is_applied,
            next_base,
            ids,
            foreign,
            is_claimed_by_other=is_claimed_by_other,
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
        expected = expected_history(request.change, request.base)
        return found.history_version != expected or found.view != view

    @staticmethod
    def _lost_updates(request: Request, answer: Answer) -> list[Row | None]:
        """Return the rows whose updates were refused, or None for those that moved."""
        rows = [answer.first(handle) for handle in request.update_handles]
        return [
            row
            for update, row in zip(request.change.updates, rows, strict=True)
            if row is None or update.write_id not in text_in(row["writes"])
        ]

    @staticmethod
    def _claim_outcome(request: Request, answer: Answer) -> tuple[bool, bool]:
        """Return whether a change set has the claim that it makes, and whether another has it."""
        change, claim = request.change, request.change.claim
        if claim is None:
            return True, False
        rows = _rows(answer, request.turn_handle)
        row = next((one for one in rows if one["write_id"] == claim.message_write), None)
        if row is not None and row["claim"] == change.id:
            return True, False
        is_last = row is not None and rows[-1] is row
        return False, not is_last or row is None or row["claim"] != claim.known


def _rows(answer: Answer, handle: Handle | None) -> list[Row]:
    return [] if handle is None else answer[handle]


def _with_state(content: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    return {**content, "state": other["state"]} if "state" in other else content
