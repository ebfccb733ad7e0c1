"""Rows that are replaced one by one: messages and multi-agents."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from strands_persql.errors import ConflictError
from strands_persql.gateway.batch import Batch, Handle, Row
from strands_persql.gateway.retry import LostRaceError
from strands_persql.persistence.cached import StoredMessage
from strands_persql.persistence.compare_and_swap import Swap
from strands_persql.persistence.row_version import RowVersion
from strands_persql.persistence.store import SessionStore
from strands_persql.runtime.ids import AgentKey, new_id
from strands_persql.tables import reading, retention, updating
from strands_persql.tables.cells import number_in
from strands_persql.tables.tables import RowData

_T = TypeVar("_T")

Prepare = Callable[[Batch, str, RowVersion], Handle]
"""Adds an update with an id, of a row's version, to a batch; returns the handle of the row."""


class RowUpdates:
    """Replaces rows whose version is the expected one, and merges with what others left in them.

    Args:
        store: Where the rows are.
    """

    def __init__(self, store: SessionStore) -> None:
        """Initialize."""
        self._store = store

    def replace_message(
        self,
        key: AgentKey,
        message_id: int,
        row: Callable[[], RowData],
        version: RowVersion,
        *,
        ours: Any,
        merge: Callable[[Any], None],
    ) -> tuple[Any, RowVersion]:
        """Replace a message.

        Args:
            key: The agent.
            message_id: The message.
            row: Returns what to store, once again after each merge.
            version: The version that the caller has seen.
            ours: The message, for errors.
            merge: Merges what another writer left into what is to be stored.

        Returns:
            What is stored now, and its version.

        Raises:
            NotFoundError: If it isn't there.
            ConflictError: If another writer came first and may not be merged with.
            InDoubtError: If an answer was lost.
        """

        def prepare(batch: Batch, change: str, expected: RowVersion) -> Handle:
            new = row()
            batch.bring(new.skeleton)
            expires = self._store.may_expire(key.session_id)
            if expires:
                batch.run(retention.refuse_expired(self._store.tables, key.session_id))
            batch.run(
                *updating.update_message(
                    self._store.tables,
                    key,
                    message_id,
                    new,
                    change,
                    version=expected.version,
                    origin=expected.origin,
                    expires=expires,
                )
            )
            return batch.ask(reading.read_message(self._store.tables, key, message_id))

        return self._replace(
            key,
            f"message {message_id} of agent",
            prepare,
            version,
            ours=ours,
            decode=lambda found: self._store.codec.read_message(key, StoredMessage.of(found)),
            merge=merge,
        )

    def replace_multi_agent(
        self, key: AgentKey, row: RowData, version: RowVersion, *, is_claim: bool = False
    ) -> RowVersion:
        """Replace a graph's or swarm's state, which belongs to its writer and is taken whole.

        Args:
            key: The graph or swarm.
            row: What to store.
            version: The version that the caller has seen.
            is_claim: Whether it is refused where another writer came first, in any case.

        Returns:
            The row's version now.

        Raises:
            NotFoundError: If it isn't there.
            ConflictError: If another writer came first and may not be merged with.
        """

        def prepare(batch: Batch, change: str, expected: RowVersion) -> Handle:
            batch.bring(row.skeleton)
            if expected.expires:
                batch.run(retention.refuse_expired(self._store.tables, key.session_id))
            batch.run(
                updating.update_multi_agent(
                    self._store.tables,
                    key,
                    row,
                    change,
                    version=expected.version,
                    origin=expected.origin,
                    expires=expected.expires,
                )
            )
            return batch.ask(reading.read_multi_agent(self._store.tables, key))

        def decode(found: Row) -> dict[str, Any]:
            return self._store.codec.read_multi_agent(key, found["data"])

        ours = decode({"data": row.data})
        _, stored = self._replace(
            key, "multi-agent", prepare, version, ours=ours, decode=decode, is_claim=is_claim
        )
        if stored.expires and not version.expires:  # which was said since it was read
            self._store.note_activity(key, stored.origin, "multi_agents")
        return stored

    def _replace(
        self,
        key: AgentKey,
        what: str,
        prepare: Prepare,
        version: RowVersion,
        *,
        ours: Any,
        decode: Callable[[Row], _T],
        merge: Callable[[_T], None] = lambda _: None,
        is_claim: bool = False,
    ) -> tuple[_T, RowVersion]:
        swaps = self._store.swaps

        def attempt() -> tuple[_T, RowVersion]:
            nonlocal version
            batch, change = Batch(), new_id()
            swap = Swap(change, batch, prepare(batch, change, version), version)
            row, is_applied = swaps.swap(swap, key, what)
            if is_applied:
                stored = replace(RowVersion.of(row), version=version.version + 1)
                return decode(row), stored
            found, expected, version = decode(row), version, RowVersion.of(row)
            conflict = _conflict(key, what, expected, row, ours=ours, found=found)
            if expected.is_own(row):  # an earlier write of the caller's whose answer was lost
                raise LostRaceError(conflict)
            lost = swaps.lose(conflict, is_final=is_claim)
            merge(found)
            raise lost

        try:
            return swaps.run(attempt)
        finally:
            self._store.cache.forget(key.session_id)


def _conflict(
    key: AgentKey, what: str, expected: RowVersion, row: Row, *, ours: Any, found: Any
) -> ConflictError:
    version = number_in(row["version"])
    return ConflictError(
        f"another writer changed {what} {key.agent_id!r} of session {key.session_id!r}: version"
        f" {expected.version} was expected and {version} found. Nothing of this write is stored;"
        " read it again and repeat the change",
        expected_version=expected.version,
        found_version=version,
        ours=ours,
        found=found,
        **key.context,
    )
