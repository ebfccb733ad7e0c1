"""Conditional writes: whether one was applied, and how a lost race is run again."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from strands_persql.errors import ConflictError, NotFoundError, OutcomeUnknownError
from strands_persql.gateway.batch import Answer, Batch, Handle, Row
from strands_persql.gateway.gateway import Gateway
from strands_persql.gateway.retry import LostRaceError, RetryPolicy
from strands_persql.persistence.changes import OnConflict
from strands_persql.persistence.row_version import RowVersion
from strands_persql.runtime.ids import CHANGE_ID_LENGTH, AgentKey
from strands_persql.tables.cells import text_in
from strands_persql.tables.expressions import WRITES_KEPT

_T = TypeVar("_T")


class InDoubtError(Exception):
    """A conditional write whose answer was lost.

    A change set is sent again before anything new. The update of a single row is not: its next
    update recognizes it, by `RowVersion.is_own`.

    Attributes:
        request: The write, word for word.
        error: What the caller is told.
    """

    def __init__(self, request: Any, error: OutcomeUnknownError) -> None:
        """Initialize."""
        super().__init__(str(error))
        self.request = request
        self.error = error


@dataclass(frozen=True)
class Swap:
    """A conditional update of one row, and a look at the row behind it.

    Attributes:
        id: The update's id, which the row remembers.
        batch: The statements.
        found: The row's handle.
        expected: The version that is replaced.
    """

    id: str
    batch: Batch
    found: Handle
    expected: RowVersion

    @property
    def doubted_version(self) -> RowVersion:
        """The version that its sender knows of the row where the answer was lost."""
        return replace(self.expected, doubted=self.id)


class CompareAndSwap:
    """Updates rows whose version is the expected one, and runs lost races again.

    Args:
        gateway: What sends the batches.
        on_conflict: Whether a lost race is merged or raised.
        retry: How long and how often a lost race is run again.
    """

    def __init__(self, gateway: Gateway, on_conflict: OnConflict, retry: RetryPolicy) -> None:
        """Initialize."""
        self._gateway = gateway
        self.on_conflict = on_conflict
        self._retry = retry

    def run(self, attempt: Callable[[], _T]) -> _T:
        """Attempt until an attempt is not lost to another writer.

        Args:
            attempt: It calls `lose` when another writer came first.

        Raises:
            ConflictError: If races are not run again, or all were lost.
        """
        try:
            return self._retry.retry_lost_races(attempt)
        except LostRaceError as lost:
            raise lost.conflict from None

    def lose(self, conflict: ConflictError, *, is_final: bool = False) -> LostRaceError:
        """Return what an attempt raises for its race to be run again.

        Raises:
            ConflictError: If it is not run again: by the caller's choice, or as it is final.
        """
        self._gateway.count(conflicts=1)
        if is_final or self.on_conflict == "raise":
            raise conflict
        return LostRaceError(conflict)

    def swap(self, swap: Swap, key: AgentKey, what: str) -> tuple[Row, bool]:
        """Send an update of one row.

        Returns:
            The row as it is now, and whether the update is in it.

        Raises:
            NotFoundError: If the row isn't there.
            InDoubtError: If the answer was lost.
        """
        answer = self.send(swap.batch, key, swap)
        row = answer.first(swap.found)
        # Of another origin, it is another row of that key: deleted and created anew, or moved here.
        if row is None or text_in(row["write_id"]) != swap.expected.origin:
            raise not_found(what, key)
        return row, swap.id in text_in(row["writes"])

    def read(self, batch: Batch, key: AgentKey) -> Answer:
        """Send a batch that changes nothing."""
        return self._gateway.run(batch, **key.context)

    def send(self, batch: Batch, key: AgentKey, request: Any) -> Answer:
        """Send a conditional write.

        Raises:
            InDoubtError: If the answer was lost, with the request that is in doubt.
        """
        try:
            return self._gateway.run(batch, writes=True, **key.context)
        except OutcomeUnknownError as error:
            raise InDoubtError(request, error) from error


def refuse_to_guess(key: AgentKey, expected: int, found: int, writes: str) -> None:
    """Raise where a row has forgotten the write whose answer was lost.

    A row forgets a write only once it remembers as many others after it.

    Raises:
        OutcomeUnknownError: If it can't be told whether the write was applied.
    """
    remembered = len(writes) // (CHANGE_ID_LENGTH + 1)
    if remembered < WRITES_KEPT or found - expected <= WRITES_KEPT:
        return
    raise OutcomeUnknownError(
        f"the answer to a write for agent {key.agent_id!r} of session {key.session_id!r} was"
        f" lost, and {found - expected} other writes have come since: whether it was applied"
        " can't be determined. Open the session again",
        **key.context,
    )


def not_found(what: str, key: AgentKey) -> NotFoundError:
    """Return the error that something isn't there."""
    return NotFoundError(
        f"{what} {key.agent_id!r} of session {key.session_id!r} does not exist", **key.context
    )
