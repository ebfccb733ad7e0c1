"""Messages of a repository: stored, read and replaced one by one."""

from strands.types.session import SessionMessage

from strands_persql.gateway.batch import Batch
from strands_persql.persistence.cached import StoredMessage
from strands_persql.persistence.compare_and_swap import InDoubtError, not_found
from strands_persql.persistence.row_version import RowVersion
from strands_persql.persistence.rows import RowUpdates
from strands_persql.persistence.store import SessionStore
from strands_persql.runtime.clock import now
from strands_persql.runtime.ids import AgentKey, check_message_id
from strands_persql.sessions.seen import SEEN, Seen, key_of, write_id_of
from strands_persql.tables import appending, retention


class MessageRecords:
    """What `PerSQLSessionRepository` does with messages.

    Args:
        store: Where the sessions are.
        seen: What callers last saw.
    """

    def __init__(self, store: SessionStore, seen: Seen) -> None:
        """Initialize."""
        self._store = store
        self._seen = seen
        self._updates = RowUpdates(store)

    def create(self, session_id: str, agent_id: str, session_message: SessionMessage) -> None:
        """Append a message to an agent's."""
        key = key_of(session_id, agent_id)
        wanted = check_message_id(session_message.message_id)
        row = self._store.codec.message(key, session_message)
        apart_from_its_place = row.data.replace(f'"message_id":{wanted}', "", 1)
        write_id = write_id_of(session_message, apart_from_its_place)
        tables, expires = self._store.tables, self._store.may_expire(session_id)
        statements = appending.insert_single_message(
            tables, key, wanted, row, write_id, self._origin(key), expires=expires
        )
        batch = Batch()
        if expires:
            batch.run(retention.refuse_expired(tables, session_id))
        batch.run(statements.insert, statements.mark)
        batch.bring(row.skeleton)
        place = batch.ask(statements.place)
        found = self._store.write(batch, *key).first(place)
        if found is None:
            self._store.cache.forget(session_id)
            self._seen.forget(key)
            raise not_found("agent", key)
        session_message.message_id = int(found["message_id"])
        stored = StoredMessage(session_message.message_id, 1, write_id, "", "", row.data)
        self._store.remember_message(key, stored)
        setattr(session_message, SEEN, RowVersion(1, write_id))

    def _origin(self, key: AgentKey) -> str:
        """Return the write that created an agent: a late copy of a write is of that one alone."""
        entry = self._store.cache.get(key.session_id)
        cached = None if entry is None else entry.agents.get(key.agent_id)
        if cached is not None:
            return cached.origin
        return self._seen.last(key).origin

    def read(self, session_id: str, agent_id: str, message_id: int) -> SessionMessage | None:
        """Return a message, or None if it isn't there."""
        key = key_of(session_id, agent_id)
        row = self._store.message(key, check_message_id(message_id))
        return None if row is None else self._read_message(key, row)

    def update(self, session_id: str, agent_id: str, session_message: SessionMessage) -> None:
        """Replace a message; a redaction wins over the text that it redacts."""
        key = key_of(session_id, agent_id)
        message_id = check_message_id(session_message.message_id)
        seen: RowVersion | None = getattr(session_message, SEEN, None)
        if seen is None:
            found = self._store.message(key, message_id)
            if found is None:
                raise not_found(f"message {message_id} of agent", key)
            seen = RowVersion(found.version, found.write_id)
        session_message.updated_at = now()

        def merge(theirs: SessionMessage) -> None:
            if theirs.redact_message is not None and session_message.redact_message is None:
                session_message.redact_message = theirs.redact_message
                session_message.message = theirs.message

        try:
            stored, version = self._updates.replace_message(
                key,
                message_id,
                lambda: self._store.codec.message(key, session_message),
                seen,
                ours=session_message,
                merge=merge,
            )
        except InDoubtError as error:
            setattr(session_message, SEEN, error.request.doubted_version)
            raise error.error from error
        if session_message.redact_message is not None:
            self._store.forget_deleted(session_id)
        session_message.created_at = stored.created_at
        setattr(session_message, SEEN, version)

    def list(
        self, session_id: str, agent_id: str, limit: int | None, offset: int
    ) -> list[SessionMessage]:
        """Return an agent's messages in order."""
        key = key_of(session_id, agent_id)
        if offset < 0 or (limit is not None and limit < 0):
            raise ValueError(f"limit={limit}, offset={offset} | must not be negative")
        rows = self._store.messages(key, limit, offset)
        if rows is None:
            raise not_found("agent", key)
        return [self._read_message(key, row) for row in rows]

    def _read_message(self, key: AgentKey, row: StoredMessage) -> SessionMessage:
        message = self._store.codec.read_message(key, row)
        setattr(message, SEEN, RowVersion(row.version, row.write_id))
        return message
