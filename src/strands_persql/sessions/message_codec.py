"""An agent's messages as rows, with what its context manager has taken out of them."""

from collections.abc import Sequence
from typing import Any

from strands.types.session import SessionMessage

from strands_persql.errors import CorruptRowError
from strands_persql.persistence.cached import StoredMessage
from strands_persql.runtime.ids import AgentKey
from strands_persql.sessions import upstream
from strands_persql.tables.codec import RowCodec, warn_of_unreadable_row
from strands_persql.tables.stash import own_references
from strands_persql.tables.tables import RowData


class MessageCodec:
    """Encodes and decodes the messages of one agent.

    A context manager of Strands replaces large content by references into its stash, which is in
    memory unless it is given a storage. Such content is kept in the row of the message that it was
    taken from: else a new process would be given references that lead nowhere.

    Args:
        key: The agent.
        codec: What encodes and decodes rows.
    """

    def __init__(self, key: AgentKey, codec: RowCodec) -> None:
        """Begin with an agent whose context manager isn't known yet."""
        self._key = key
        self._codec = codec
        self._stash: Any = None
        self._is_attached = False
        self._stashed: dict[str, Any] = {}  # what was read before the stash is known

    def attach(self, agent: Any) -> None:
        """Give the stash of an agent's context manager, if it is in memory, what was read."""
        self._stash, self._is_attached = upstream.stash_in_memory(agent), True
        if self._stash is not None:
            upstream.fill_stash(self._stash, self._stashed)
        self._stashed = {}

    def encode(self, record: SessionMessage) -> RowData:
        """Encode a message as its row will have it.

        Raises:
            InvalidDataError: If JSON can't hold it.
            TooLargeError: If no row can hold it.
        """
        stashed: dict[str, Any] = {}
        if self._stash is not None:
            references = own_references(record.to_message())
            stashed = upstream.read_stash(self._stash, references)
        return self._codec.message(self._key, record, stashed)

    def decode(self, rows: Sequence[StoredMessage]) -> list[SessionMessage | None]:
        """Decode messages; one that can't be read is None, and a warning names it."""
        self._take_stashed(rows)
        try:
            return [*self._codec.read_messages(self._key, rows)]
        except CorruptRowError:
            return [self._readable(row) for row in rows]

    def _readable(self, row: StoredMessage) -> SessionMessage | None:
        try:
            return self._codec.read_message(self._key, row)
        except CorruptRowError as error:
            warn_of_unreadable_row(error, "the message is left out")
            return None

    def _take_stashed(self, rows: Sequence[StoredMessage]) -> None:
        if self._is_attached and self._stash is None:
            return
        found = self._codec.read_stashed(rows)
        if self._is_attached:
            upstream.fill_stash(self._stash, found)
        else:
            self._stashed.update(found)
