"""Change sets, each stored in one transaction and merged with what other writers have stored."""

import logging
from collections.abc import Callable

from strands_persql.errors import ConflictError
from strands_persql.persistence.cached import StoredMessage
from strands_persql.persistence.changes import (
    ChangeSet,
    CommitResult,
    MergeBase,
)
from strands_persql.persistence.commit_answer import AnswerReader
from strands_persql.persistence.commit_request import Request, RequestMaker
from strands_persql.persistence.compare_and_swap import CompareAndSwap
from strands_persql.tables.codec import RowCodec
from strands_persql.tables.tables import Tables

logger = logging.getLogger("strands_persql")


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
        self._codec = codec
        self._requests = RequestMaker(tables, codec, refuses=swaps.on_conflict == "raise")
        self._answers = AnswerReader(codec)

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
            sent = request or self._requests.make(change, base)
            was_in_doubt, request = request is not None, None
            answer = self._swaps.send(sent.batch, change.key, sent)
            is_ambiguous = was_in_doubt or answer.is_ambiguous
            result = self._answers.read(sent, answer, is_ambiguous=is_ambiguous)
            if result.is_applied:
                return sent.change, result
            conflict = (
                _continued_elsewhere(sent.change)
                if result.is_claimed_by_other
                else self._conflict(sent, result)
            )
            lost = self._swaps.lose(conflict, is_final=result.is_claimed_by_other)
            logger.debug("expected=<%s> | lost a race, merging: %s", base.version, lost.conflict)
            change, base = rebase(sent.change, result)
            raise lost

        return self._swaps.run(attempt)

    def read(self, change: ChangeSet, base: MergeBase) -> CommitResult:
        """Read what others have changed, with a change set that stores nothing.

        Raises:
            NotFoundError: If the agent isn't there any more.
        """
        request = self._requests.make(change, base)
        answer = self._swaps.read(request.batch, change.key)
        return self._answers.read(request, answer, is_ambiguous=False)

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


def _continued_elsewhere(change: ChangeSet) -> ConflictError:
    return ConflictError(
        f"the turn of agent {change.key.agent_id!r} in session {change.key.session_id!r} that was"
        " to go on has been continued elsewhere: an interrupt is answered once. Nothing ran here;"
        " open the session again to see what became of it",
        **change.key.context,
    )
