"""Rows of their own, replaced on the condition of their version: messages and multi-agents."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from strands_persql.databases.protocol import Statement
from strands_persql.errors import ConflictError, NotFoundError, OutcomeUnknownError
from strands_persql.gateway.retry import LostRaceError, RetryPolicy
from strands_persql.gateway.transport import new_write_id
from strands_persql.persistence.committer import OnConflict
from strands_persql.persistence.store import SessionStore

Value = TypeVar("Value")

_UNSETTLED = 8  # writes without an answer that are kept in mind


@dataclass
class Seen:
    """What the holder of a row has last seen of it.

    Attributes:
        version: The row's version.
        write_id: The write that created it.
        unsettled: The holder's latest writes whose answers were lost.
    """

    version: int
    write_id: str
    unsettled: list[str] = field(default_factory=list)


@dataclass
class Replacement(Generic[Value]):
    """What to put into a row.

    Attributes:
        what: Names the row in errors.
        ours: The value, for errors.
        statements: Gives the update of a write, and a look at the row after it.
        decode: Gives the value of a row.
    """

    what: str
    ours: Value
    statements: Callable[[str], list[Statement]]
    decode: Callable[[Any], Value]


class Replacer:
    """Replaces rows, and merges with what other writers have left in them.

    Args:
        store: Where the rows are.
        on_conflict: Whether a lost race is merged or raised.
        retry: How long and how often a lost race is run again.
    """

    def __init__(self, store: SessionStore, on_conflict: OnConflict, retry: RetryPolicy) -> None:
        """Initialize."""
        self._store = store
        self._on_conflict = on_conflict
        self._retry = retry

    def replace(
        self,
        replacement: Replacement[Value],
        seen: Seen,
        session_id: str,
        agent_id: str,
        merge: Callable[[Value], None] = lambda _: None,
    ) -> Value:
        """Update a row whose version is the one that was seen, or merge and try again.

        Args:
            replacement: What to put into the row.
            seen: What the caller has seen of the row; brought up to date.
            session_id: The session.
            agent_id: The agent or multi-agent.
            merge: Takes what another writer left into what is to be stored.

        Returns:
            What is stored now.
        """
        what = f"{replacement.what} {agent_id!r} of session {session_id!r}"

        def attempt() -> Value:
            write_id = new_write_id()
            try:
                answer = self._store.write(replacement.statements(write_id), session_id, agent_id)
            except OutcomeUnknownError:
                seen.unsettled = [*seen.unsettled, write_id][-_UNSETTLED:]
                raise
            if not answer.rows[-1]:
                raise not_found(replacement.what, session_id, agent_id)
            row = answer.rows[-1][0]
            expected, version, found = seen.version, int(row["version"]), replacement.decode(row)
            if write_id in row["writes"]:
                seen.version, seen.unsettled = expected + 1, []
                return found
            conflict = ConflictError(
                f"another writer changed {what}: version {expected} was expected and {version}"
                " found. Nothing of this write is stored; read it again and repeat the change",
                expected_version=expected,
                found_version=version,
                ours=replacement.ours,
                found=found,
                session_id=session_id,
                agent_id=agent_id,
            )
            is_own = version == expected + 1 and any(one in row["writes"] for one in seen.unsettled)
            if not is_own:
                self._store.transport.count(conflicts=1)
                if self._on_conflict == "raise":
                    raise conflict
            merge(found)
            seen.version, seen.write_id = version, str(row["write_id"])
            raise LostRaceError(conflict)

        try:
            return self._retry.race(attempt)
        except LostRaceError as lost:
            raise lost.conflict from None
        finally:
            self._store.cache.forget(session_id)


def not_found(what: str, session_id: str, agent_id: str) -> NotFoundError:
    """Make the error that something isn't there."""
    return NotFoundError(
        f"{what} {agent_id!r} of session {session_id!r} does not exist",
        session_id=session_id,
        agent_id=agent_id,
    )
